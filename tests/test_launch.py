"""From settings to a running server: what is protected, what is said, and how it ends."""

import asyncio
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from chat2api import __version__
from chat2api.api.server import Address, Shutdown
from chat2api.config import Config
from chat2api.errors import ConfigError
from chat2api.launch import run_server
from chat2api.logs import Redactor
from chat2api.runtime import Runtime
from tests.accounts.jwt import access_token
from tests.e2e.harness import add_tokens, until
from tests.processes import running

KEY = "operator-key-of-the-suite"

_PROTECTED = """
import ctypes, os, resource
from chat2api.launch import protect_process
protect_process()
print(oct(os.umask(0)), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
async def test_S19_a_process_keeps_what_it_has_to_itself(tmp_path: Path) -> None:
    async with running(cwd=tmp_path, module=("-c", _PROTECTED)) as program:
        ended = await program.wait()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert ended.out == f"0o77 0 {(most, most)}\n", ended.err


_PROTECTED_ELSEWHERE = """
import resource
from chat2api.launch import protect_process
asked = []
def setrlimit(which, limits):
    asked.append(limits)
    if limits[0] > 10240:
        raise ValueError("current limit exceeds maximum limit")
resource.setrlimit = setrlimit
resource.getrlimit = lambda which: (256, 2**63 - 1)
protect_process()
print(asked[-1])
"""


async def test_a_system_with_no_limit_for_descriptors_but_one_of_its_own_is_no_obstacle(tmp_path: Path) -> None:
    async with running(cwd=tmp_path, module=("-c", _PROTECTED_ELSEWHERE)) as program:
        ended = await program.wait()
    assert ended.out == f"{(10240, 2**63 - 1)}\n", ended.err


_CALMED = """
import gc
from chat2api.launch import calm_collector
before = gc.get_threshold()
calm_collector()
print(gc.get_freeze_count() > 1000, gc.get_threshold()[0] > before[0], gc.isenabled())
"""


async def test_garbage_is_looked_for_less_often_and_not_among_what_was_there_at_the_start(tmp_path: Path) -> None:
    async with running(cwd=tmp_path, module=("-c", _CALMED)) as program:
        ended = await program.wait()
    assert ended.out == "True True True\n", ended.err


def settings(folder: Path, **more: str) -> Config:
    return Config.from_env({"PORT": "0", "DATA_DIR": str(folder), "DRAIN_ACCEPT": "0", **more})


async def serve_and_stop(config: Config, *, demo: bool = False, unused: Sequence[str] = ()) -> int:
    """Run a server that is told to stop as soon as it serves, and says what it has to say."""
    shutdown = Shutdown()
    shutdown.request()
    async with asyncio.timeout(30):
        return await run_server(config, Redactor(), demo=demo, unused=unused, shutdown=shutdown)


async def test_a_server_ends_with_status_0_when_it_is_told_to(tmp_path: Path) -> None:
    told: list[Sequence[Address]] = []
    shutdown = Shutdown()

    async def look(address: Address) -> int:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{address[1]}/healthz")
        shutdown.request()
        return answer.status_code

    looking: list[asyncio.Task[int]] = []

    def on_ready(runtime: Runtime, addresses: Sequence[Address]) -> None:
        told.append(addresses)
        looking.append(asyncio.ensure_future(look(addresses[0])))

    async with asyncio.timeout(30):
        status = await run_server(settings(tmp_path), Redactor(), shutdown=shutdown, on_ready=on_ready)
    assert status == 0
    assert await looking[0] == 200
    assert told[0][0][1] != 0, "the real port"


async def test_an_address_that_is_taken_is_a_matter_of_settings(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigError) as caught:
            await serve_and_stop(settings(tmp_path, PORT=port))
    assert port in caught.value.message


async def test_the_banner_says_how_to_go_on_without_an_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await serve_and_stop(settings(tmp_path, API_PREFIX="my/prefix")) == 0
    text = capsys.readouterr().out
    assert f"chat2api {__version__} listens on http://localhost:" in text
    assert "/my/prefix" in text
    assert "tokens add -" in text
    assert str(tmp_path / "operator.key") in text
    assert (tmp_path / "operator.key").read_text().strip() not in text
    assert "SIMULATOR" not in text


async def test_the_banner_of_the_demo_says_that_it_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await serve_and_stop(settings(tmp_path, AUTHORIZATION=KEY), demo=True)
    text = capsys.readouterr().out
    assert "the built-in SIMULATOR answers the demo key" in text
    assert "demo-" in text
    assert KEY not in text


async def test_with_accounts_there_is_no_talk_of_adding_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await add_tokens(tmp_path, [access_token(expires_at=9e9)])
    await serve_and_stop(settings(tmp_path, AUTHORIZATION=KEY), demo=True)
    text = capsys.readouterr().out
    assert "listens on" in text
    assert "tokens add" not in text
    assert "SIMULATOR" not in text
    assert "operator key" not in text, "AUTHORIZATION has its own"


async def test_with_API_keys_the_start_says_where_calls_go_and_misses_no_account(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keys = "sk-canary-of-the-suite-1,sk-canary-of-the-suite-2"
    config = settings(tmp_path, OPENAI_API_KEYS=keys, OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert await serve_and_stop(config) == 0
    text = capsys.readouterr().out
    assert "Calls are forwarded to http://127.0.0.1:9/v1, with 2 API keys." in text
    assert "tokens add" not in text
    assert "The operator key opens this server." in text
    assert "forwarding: http://127.0.0.1:9/v1, API keys: 2 (2 ok)" in caplog.text
    assert "canary" not in text + caplog.text


async def test_S18_the_start_is_logged_without_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    proxy = "http://someone:proxy-canary@127.0.0.1:9"
    config = settings(tmp_path, AUTHORIZATION="operator-canary-1", AUTH_KEY="gateway-canary", PROXY_URL=proxy)
    await add_tokens(tmp_path, [access_token(expires_at=9e9)])
    await serve_and_stop(config, unused=["ENABLE_GATEWAY", "ADMIN_PASSWORD"])
    assert "canary" not in caplog.text
    assert f"chat2api {__version__}, proof of work: " in caplog.text
    assert "AUTHORIZATION=set" in caplog.text
    assert "SECRET_KEY=unset" in caplog.text
    assert "accounts: 1 (1 ok)" in caplog.text
    assert "upstream: https://chatgpt.com" in caplog.text
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text for text in warned if "ENABLE_GATEWAY, ADMIN_PASSWORD" in text]


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"])
async def test_a_proxy_that_is_not_named_is_warned_of_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, proxies: str
) -> None:
    await serve_and_stop(settings(tmp_path, PUBLIC_ORIGINS="https://chat.example.org", TRUSTED_PROXIES=proxies))
    warned = [record.getMessage() for record in caplog.records if "TRUSTED_PROXIES does not" in record.getMessage()]
    assert len(warned) == (not proxies)
    assert all("\n" not in line and "Set TRUSTED_PROXIES to" in line for line in warned)


async def test_S1_a_key_that_cannot_be_kept_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "operator.new").mkdir()
    await serve_and_stop(settings(tmp_path))
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "AUTHORIZATION" in record.getMessage()
    assert "operator.key" not in capsys.readouterr().out


async def test_S15_a_secret_key_that_does_not_fit_ends_the_start_in_words(tmp_path: Path) -> None:
    await add_tokens(tmp_path, [access_token(expires_at=9e9)])
    with pytest.raises(ConfigError, match="reseal --to-secret-key"):
        await serve_and_stop(settings(tmp_path, SECRET_KEY="set later"))


async def test_R17_records_that_cannot_be_read_end_the_start_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "records.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(ConfigError, match="left as they are"):
        await serve_and_stop(settings(tmp_path))
    assert not [record for record in caplog.records if record.exc_info]


TIERS = "[{name}]\nbase = '/{name}'\nmodels.m = {{ requests_per_minute = 1, tokens_per_minute = 1 }}\n"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
async def test_SIGHUP_reads_the_tiers_anew_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tiers.toml"

    def write(text: str) -> None:
        file.write_text(text, encoding="utf-8")

    write(TIERS.format(name="one"))
    environ = {"PORT": "0", "AUTHORIZATION": KEY, "TIERS_FILE": str(file), "DRAIN_ACCEPT": "0"}
    async with running("serve", cwd=tmp_path, environ=environ) as server:
        base = await server.find(r"listens on (\S+)")

        async def statuses() -> dict[str, int]:
            async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
                return {name: (await http.get(f"/{name}/v1/models")).status_code for name in ("one", "two")}

        async def hang_up(told: str) -> None:
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: told in server.err, "it was not read")

        assert await statuses() == {"one": 200, "two": 404}
        write("[two]\nbase = '/v1'\n")
        await hang_up("line 2, two.base")
        assert await statuses() == {"one": 200, "two": 404}
        write(TIERS.format(name="two"))
        await hang_up("1 tier(s): two")
        assert await statuses() == {"one": 404, "two": 200}
        assert (await server.stop()).status == 0


async def test_R23_tiers_that_cannot_be_stop_the_start_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "tiers.toml").write_text("[free]\nbase = '/tokens'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 2, free\.base: '/tokens' lies under /tokens, where the server has"):
        await serve_and_stop(settings(tmp_path / "data", TIERS_FILE=str(tmp_path / "tiers.toml")))


async def test_a_server_without_a_disk_says_at_once_what_it_does_not_keep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    assert await serve_and_stop(Config.from_env({"PORT": "0", "DATA_DIR": "none", "DRAIN_ACCEPT": "0"})) == 0
    assert time.process_time() - began < 20, "ten times what a container host may wait for"
    for told in (capsys.readouterr().out, caplog.text):
        assert "DATA_DIR is none: accounts, issued keys, invitations, usage" in told
        assert "operator.key" not in told
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - the server is closed
