"""The command line: in this process where only words and statuses matter, as real processes where more does."""

import asyncio
import io
import logging
import os
import re
import shlex
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from chat2api import __version__, cli
from chat2api.config import describe_settings
from chat2api.simulator.app import Simulator
from tests.accounts.jwt import access_token
from tests.processes import LONG, Ended, Running, run, running

RT = "rt_" + "A" * 87

COMMANDS = [
    (),
    ("serve",),
    ("simulate",),
    ("doctor",),
    ("tokens",),
    ("tokens", "add"),
    ("tokens", "list"),
    ("tokens", "remove"),
    ("tokens", "refresh"),
    ("tokens", "confirm-restored"),
    ("backup",),
    ("restore",),
    ("reseal",),
    ("tiers",),
    ("tiers", "check"),
    ("invites",),
    *(("invites", action) for action in ("create", "list", "revoke")),
    ("keys",),
    ("keys", "operator"),
    *(
        ("keys", action)
        for action in ("create", "change", "list", "show", "revoke", "rotate", "stop", "resume", "usage")
    ),
    ("users",),
    *(("users", action) for action in ("add", "list", "remove", "password")),
]

BAD_SETTINGS = [
    ("PORT", "eighty"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("HOST", "localhost.example"),
    ("CHATGPT_BASE_URL", "chatgpt.com"),
    ("CHATGPT_BASE_URL", "ftp://chatgpt.com"),
    ("CHATGPT_BASE_URL", "https://user@chatgpt.com"),
    ("PROXY_URL", "gopher://127.0.0.1:1"),
    ("PROXY_URL", "http://127.0.0.1:99999"),
    ("API_PREFIX", "../x"),
    ("OWN_TOKENS", "maybe"),
    ("ANONYMOUS", "sometimes"),
    ("TRUSTED_PROXIES", "10.0.0.0/64"),
    ("POW_DIFFICULTY", "easy"),
    ("RETRY_TIMES", "3.5"),
    ("RANDOM_TOKEN", "perhaps"),
    ("CONNECT_TIMEOUT", "soon"),
    ("CONNECT_TIMEOUT", "nan"),
    ("OAI_LANGUAGE", "english!"),
    ("LOG_LEVEL", "loud"),
    ("AUTHORIZATION", "two words"),
]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty folder, none of the machine's settings, and take back what a command does to its process."""
    for name in [*(setting.name for setting in describe_settings()), "GO_CHATGPT_API_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


Main = Callable[..., Ended]


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Main:
    """Run a command in this process; `stdin` and settings by name."""

    def run_main(*arguments: str, stdin: str = "", **settings: str) -> Ended:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", _Typed(stdin))
        try:
            status = cli.main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        written = capsys.readouterr()
        return Ended(status, written.out, written.err)

    return run_main


class _Typed:
    """Standard input that is no terminal."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> str:
        return self._text

    def isatty(self) -> bool:
        return False


def labels(listing: Ended) -> list[str]:
    return re.findall(r"^([0-9a-f]{10})  ", listing.out, re.MULTILINE)


# Help, versions, wrong settings


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", [("tokens", "list"), ("keys", "list"), ("keys", "operator"), ("doctor",)])
def test_a_command_ends_quietly_when_nobody_reads_its_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], buffered: bool
) -> None:
    monkeypatch.setenv("CHATGPT_BASE_URL", "http://127.0.0.1:9")
    reader, writer = os.pipe()
    os.close(reader)
    raw = os.fdopen(writer, "wb", buffering=-1 if buffered else 0)
    with io.TextIOWrapper(raw, write_through=not buffered) as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        assert cli.main(command) == cli.EXIT_UNREAD
        output.write("what comes later goes nowhere")
        output.flush()
    assert capsys.readouterr().err == ""


async def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = await run("serve", cwd=tmp_path, environ={"PORT": str(taken.getsockname()[1])})
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.endswith("stop it or choose another PORT\n")


async def test_a_pipe_that_is_closed_leaves_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = (
        "-c",
        f"import os, sys; os.dup2({writer}, 1); from chat2api.cli import main; sys.exit(main(['tokens', 'list']))",
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, cwd=tmp_path, pass_fds=[writer], stderr=asyncio.subprocess.PIPE
    )
    os.close(writer)
    async with asyncio.timeout(LONG):
        _, err = await process.communicate()
    assert (process.returncode, err) == (cli.EXIT_UNREAD, b"")


async def test_the_version_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    ended = await run("--version", cwd=tmp_path)
    assert (ended.status, ended.out, ended.err) == (0, f"chat2api {__version__}\n", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(main: Main, command: tuple[str, ...]) -> None:
    ended = main(*command, "--help")
    assert ended.status == 0
    assert ended.out.startswith(f"usage: {' '.join(('chat2api', *command))}")


def test_the_help_of_serve_names_every_setting(main: Main) -> None:
    text = main("serve", "--help").out
    for setting in describe_settings():
        assert re.search(rf"^  {setting.name}\s", text, re.MULTILINE), setting.name


@pytest.mark.parametrize("arguments", [("nonsense",), ("tokens",), ("keys",), ("tokens", "add"), ("serve", "--fast")])
def test_wrong_usage_is_status_2(main: Main, arguments: tuple[str, ...]) -> None:
    ended = main(*arguments)
    assert ended.status == 2
    assert "usage: chat2api" in ended.err


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
def test_R23_a_bad_setting_is_named_in_one_line_with_status_2(main: Main, name: str, value: str) -> None:
    ended = main("tokens", "list", **{name: value})
    assert ended.status == 2
    assert ended.err.startswith(f"chat2api: {name}")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


async def test_R23_a_bad_setting_stops_the_server_without_a_traceback(tmp_path: Path) -> None:
    ended = await run("serve", cwd=tmp_path, environ={"PORT": "eighty"})
    assert ended.status == 2
    assert ended.err.startswith("chat2api: PORT is 'eighty', but it must be")
    assert "Traceback" not in ended.err


def test_R23_a_file_of_settings_is_read_and_the_environment_goes_first(main: Main, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATA_DIR=from-file\nPORT=eighty\n")
    assert main("tokens", "list").status == 2
    assert main("tokens", "list", PORT="5005").status == 0
    assert (tmp_path / "from-file").is_dir()


@pytest.mark.parametrize("command", [("tokens", "list"), ("keys", "operator"), ("doctor",), ("serve",)])
def test_R17_records_that_cannot_be_read_are_status_2_and_stay_as_they_are(
    main: Main, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "data").mkdir()
    broken = b"this is no database" * 1000
    (tmp_path / "data" / "records.db").write_bytes(broken)
    before = (logging.getLogger().handlers[:], logging.getLogger().level)
    try:
        ended = main(*command, PORT="0")
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    assert ended.status == 2
    assert "chat2api: " in ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / "data" / "records.db").read_bytes() == broken


# Tokens


def test_tokens_are_added_from_a_file_and_bad_lines_are_told_by_number(main: Main, tmp_path: Path) -> None:
    token = access_token("user-2")
    (tmp_path / "tokens.txt").write_text(f"# mine\n{RT}\n\nnonsense-canary\n{token},w-1\nsk-canary-key-123456\n")
    ended = main("tokens", "add", "tokens.txt")
    assert ended.status == 1, "something was wrong"
    assert len(labels(ended)) == 2
    assert re.findall(r"^line (\d+): ", ended.err, re.MULTILINE) == ["4", "6"]
    assert len(labels(main("tokens", "list"))) == 2
    for told in (ended.out, ended.err, main("tokens", "list").out):
        assert not [secret for secret in (RT, token, "nonsense-canary", "sk-canary") if secret in told]


def test_tokens_are_added_from_standard_input(main: Main) -> None:
    added = main("tokens", "add", "-", stdin=f"{RT}\n{access_token()}\n")
    assert added.status == 0
    assert added.out.count("  added  ") == 2
    listed = main("tokens", "list")
    assert labels(listed) == labels(added)
    assert "plan" not in listed.out
    assert "plus" in listed.out
    assert "2 account(s)" in listed.out
    assert "someone@example.test" not in listed.out


def test_R29_a_token_that_is_known_is_not_added_again(main: Main) -> None:
    main("tokens", "add", "-", stdin=RT)
    again = main("tokens", "add", "-", stdin=f"{RT}\n{RT}\n")
    assert again.out.count("unchanged") == 1
    assert "1 account(s)" in main("tokens", "list").out


@pytest.mark.parametrize("text", ["", "\n\n# nothing but this\n"])
def test_no_token_at_all_is_told(main: Main, text: str) -> None:
    ended = main("tokens", "add", "-", stdin=text)
    assert ended.status == 1
    assert "no token" in ended.err


def test_a_file_that_cannot_be_read_is_told(main: Main, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.txt", ".", "binary"):
        ended = main("tokens", "add", name)
        assert ended.status == 1
        assert ended.err.startswith(f"chat2api: {name} cannot be read")


def test_R30_what_was_removed_can_be_brought_back(main: Main) -> None:
    main("tokens", "add", "-", stdin=f"{RT}\n{access_token('user-1')}\n{access_token('user-2')}\n")
    first, second, third = labels(main("tokens", "list"))
    assert "1 account(s) removed" in main("tokens", "remove", second).out
    assert labels(main("tokens", "list")) == [first, third]
    assert "1 account(s) brought back" in main("tokens", "remove", "--undo").out
    assert "3 account(s) removed" in main("tokens", "remove", "--all").out
    assert labels(main("tokens", "list")) == []
    main("tokens", "remove", "--undo")
    assert set(labels(main("tokens", "list"))) == {first, second, third}


@pytest.mark.parametrize("arguments", [(), ("--all", "--undo"), ("abc", "--all"), ("abc", "--undo")])
def test_a_removal_must_say_exactly_what(main: Main, arguments: tuple[str, ...]) -> None:
    main("tokens", "add", "-", stdin=RT)
    assert main("tokens", "remove", *arguments).status == 2
    assert len(labels(main("tokens", "list"))) == 1


@pytest.mark.parametrize("command", ["remove", "refresh"])
def test_an_unknown_label_is_told_and_changes_nothing(main: Main, command: str) -> None:
    main("tokens", "add", "-", stdin=RT)
    (label,) = labels(main("tokens", "list"))
    ended = main("tokens", command, label, "0123456789")
    assert ended.status == 1
    assert "0123456789" in ended.err
    assert labels(main("tokens", "list")) == [label]


_ADDER = """
import sys
from chat2api import cli
for number, line in enumerate(sys.stdin):
    print("round", number, "status", cli.main(["tokens", "add", line.strip()]), flush=True)
"""


async def test_R29_two_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    rounds = 10
    for number in range(rounds):
        for who in "ab":
            tokens = [access_token(f"user-{who}-{number}-{index}") for index in range(5)]
            (tmp_path / f"{who}{number}").write_text("\n".join([*tokens, access_token(f"both-{number}")]))
    async with (
        running(cwd=tmp_path, module=("-c", _ADDER)) as first,
        running(cwd=tmp_path, module=("-c", _ADDER)) as second,
    ):
        for number in range(rounds):
            for who, program in (("a", first), ("b", second)):
                assert program.process.stdin is not None
                program.process.stdin.write(f"{who}{number}\n".encode())
            for program in (first, second):
                assert await program.find(rf"round {number} status (\d)") == "0", program.err
        for program in (first, second):
            assert program.process.stdin is not None
            program.process.stdin.close()
            assert (await program.wait()).status == 0
    ended = await run("tokens", "list", cwd=tmp_path)
    assert f"{rounds * 11} account(s)" in ended.out


# Against a simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Run `chat2api simulate` as people do, and give its origin."""
    arguments = ("simulate", "--port", "0", "--delay", "0", "--accounts", "1")
    async with running(*arguments, cwd=tmp_path_factory.mktemp("simulator")) as program:
        origin = await program.find(r"backend on (http://\S+)")
        await program.find("Ctrl-C")
        yield origin
        assert (await program.stop()).status == 0


@pytest.fixture
def control(simulator: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{simulator}/__control__", timeout=10, trust_env=False) as client:
        yield client
        client.post("/reset")


def new_account(control: httpx.Client) -> dict[str, Any]:
    made: dict[str, Any] = control.post("/accounts", json={}).json()
    return made


def test_a_refresh_renews_and_stores_what_it_got(main: Main, simulator: str, control: httpx.Client) -> None:
    account = new_account(control)
    settings = {"CHATGPT_BASE_URL": simulator, "OPENAI_AUTH_TOKEN_URL": f"{simulator}/oauth/token"}
    main("tokens", "add", "-", stdin=f"{account['refresh_token']}\n{access_token('nobody')}\n", **settings)
    with_refresh, without = labels(main("tokens", "list"))
    for _ in range(2):
        ended = main("tokens", "refresh")
        assert (ended.status, ended.out, ended.err) == (0, f"{with_refresh}  renewed\n", "")
    assert len(control.get("/requests?route=oauth_token").json()) == 2, "each sent the newest token, once"
    assert "nothing to renew" in main("tokens", "refresh", without).out
    control.post("/revoke", json={"user_id": account["user_id"]})
    ended = main("tokens", "refresh", with_refresh)
    assert ended.status == 1
    assert ended.err.startswith(f"{with_refresh}  ")
    assert "needs_sign_in" in main("tokens", "list").out


def test_the_doctor_finds_all_well_or_says_what_is_not(main: Main, simulator: str, control: httpx.Client) -> None:
    good, dead = new_account(control), new_account(control)
    main("tokens", "add", "-", stdin=good["access_token"], CHATGPT_BASE_URL=simulator)
    well = main("doctor")
    assert (well.status, well.err) == (0, "")
    assert well.out.endswith("All is well.\n")
    assert f"ok    {simulator} directly: reachable" in well.out
    main("tokens", "add", "-", stdin=dead["access_token"])
    control.post("/deactivate", json={"user_id": dead["user_id"]})
    ill = main("doctor")
    assert ill.status == 1
    assert ill.out.count("FAIL") == 1
    assert "Sign in with a browser" in ill.out
    assert ill.out.endswith("1 problem(s).\n")
    assert not [secret for secret in (good["access_token"], dead["access_token"]) if secret in well.out + ill.out]


def test_the_doctor_says_when_the_backend_cannot_be_reached(main: Main) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = main("doctor", CHATGPT_BASE_URL=nowhere)
    assert ended.status == 1
    assert f"FAIL  {nowhere} directly" in ended.out
    assert "FAIL  accounts: there are none" in ended.out


# Keys


def test_S1_the_operator_key_is_made_once_and_never_shown(main: Main, tmp_path: Path) -> None:
    for _ in range(2):
        ended = main("keys", "operator")
        assert ended.status == 0
        assert "The operator key lies in data/operator.key" in ended.out
    path = tmp_path / "data" / "operator.key"
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.strip() not in ended.out
    new = main("keys", "operator", "--new")
    assert "stopped working" in new.out
    assert path.read_text() != first
    path.unlink()
    assert "is gone" in main("keys", "operator").out


def test_with_keys_of_ones_own_none_is_made(main: Main, tmp_path: Path) -> None:
    for arguments in ((), ("--new",)):
        ended = main("keys", "operator", *arguments, AUTHORIZATION="own-key-of-the-operator")
        assert ended.status == 0
        assert "AUTHORIZATION is set" in ended.out
    assert not (tmp_path / "data").exists()


def test_S1_a_key_that_cannot_be_written_is_told(main: Main, tmp_path: Path) -> None:
    main("tokens", "list")
    (tmp_path / "data" / "operator.new").mkdir()
    ended = main("keys", "operator")
    assert ended.status == 1
    assert "AUTHORIZATION" in ended.err


# Serving


async def ask(base: str, key: str, **headers: str) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Name three rivers."}]}
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        return await http.post(
            f"{base}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}", **headers}
        )


async def examples(server: Running) -> tuple[str, str]:
    """Give the shell command and the Python program of the banner."""
    await server.find(r'content or "", end=""\)\n')
    shell = re.search(r"^curl .*?(?<!\\)$", server.out, re.MULTILINE | re.DOTALL)
    program = re.search(r"^from openai .*?end=\"\"\)$", server.out, re.MULTILINE | re.DOTALL)
    assert shell is not None
    assert program is not None
    return shell[0], program[0]


async def run_example(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out.decode()


async def test_the_demo_works_as_it_is_printed_and_leaves_nothing_of_itself(tmp_path: Path) -> None:
    async with Simulator() as own:
        environ = {"PORT": "0", "CHATGPT_BASE_URL": own.url, "DRAIN_ACCEPT": "0"}
        async with running("serve", "--demo", cwd=tmp_path, environ=environ) as server:
            shell, program = await examples(server)
            base, key = re.findall(r'base_url="(.*)/v1", api_key="(.*)"', program)[0]
            said = await run_example("bash", "-c", shell.replace("curl ", "curl -s ", 1), cwd=tmp_path)
            assert said.endswith("data: [DONE]\n\n")
            assert await run_example(sys.executable, "-c", program, cwd=tmp_path) == "Nile, Amazon, Danube."

            answer = await ask(base, key)
            assert answer.headers["x-chat2api-upstream"] == "simulator"
            assert own.control.requests == [], "the demo stays inside"
            mine = await ask(base, own.control.accounts[0].access_token)
            assert (mine.status_code, "x-chat2api-upstream" in mine.headers) == (200, False)
            assert len(own.control.requests_to("conversation")) == 1, "an own token goes to the backend of the settings"
            account = (await ask(base, "demo-wrong")).status_code
            assert account == 401

            for path in (tmp_path / "data").rglob("*"):
                assert key.encode() not in path.read_bytes(), path
            assert key not in server.err
            ended = await server.stop()
            assert ended.status == 0
    listed = await run("tokens", "list", cwd=tmp_path)
    assert "0 account(s)" in listed.out, "the demo's account was never kept"


async def test_R24_a_server_serves_its_accounts_until_it_is_told_to_stop(tmp_path: Path) -> None:
    async with Simulator() as sim:
        environ = {"PORT": "0", "CHATGPT_BASE_URL": sim.url, "DRAIN_ACCEPT": "0"}
        assert (
            await run("tokens", "add", "-", cwd=tmp_path, environ=environ, stdin=sim.control.accounts[0].access_token)
        ).status == 0
        async with running("serve", "--demo", cwd=tmp_path, environ=environ) as server:
            base = await server.find(r"listens on (http://\S+)")
            await server.find("OPENAI_API_KEY")
            assert "SIMULATOR" not in server.out, "with an account there is no demo"
            key = (tmp_path / "data" / "operator.key").read_text().strip()
            export = re.search(r"OPENAI_API_KEY=\$\((.*)\)", server.out)
            assert export is not None
            assert (await run_example(*shlex.split(export[1]), cwd=tmp_path)).strip() == key
            assert key not in server.out + server.err
            answer = await ask(base, key)
            assert answer.json()["choices"][0]["message"]["content"] == "Nile, Amazon, Danube."
            assert "x-chat2api-upstream" not in answer.headers

            port = base.rpartition(":")[2]
            second = await run("serve", cwd=tmp_path, environ={**environ, "PORT": port})
            assert second.status == 2
            assert "Traceback" not in second.err
            assert port in second.err.splitlines()[-1]

            ended = await server.stop()
            assert ended.status == 0
            assert "Traceback" not in ended.err


async def test_without_the_demo_no_simulator_is_ever_started(tmp_path: Path) -> None:
    environ = {"PORT": "0", "CHATGPT_BASE_URL": "http://127.0.0.1:9", "DRAIN_ACCEPT": "0"}
    async with running(cwd=tmp_path, environ=environ) as server:
        base = await server.find(r"listens on (http://\S+)")
        assert listening_ports(server.process.pid) == {int(base.rpartition(":")[2])}
        answer = await ask(base, (tmp_path / "data" / "operator.key").read_text().strip())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_account")
        assert "simulator" not in (server.out + server.err).lower()
        assert (await server.stop()).status == 0


def listening_ports(pid: int) -> set[int]:
    """Give the TCP ports on which a process listens."""
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("command", [("tokens", "list"), ("keys", "list"), ("keys", "operator"), ("reseal",)])
def test_without_a_data_folder_commands_have_nothing_to_work_on(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", "none")
    assert cli.main(command) == 2
    assert "DATA_DIR is none, so nothing is kept that a command could work on." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
