"""backup, restore, reseal: as people and scripts call them."""

import asyncio
import os
import re
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from chat2api import cli, store_commands
from chat2api.config import describe_settings
from chat2api.storage import backup
from chat2api.storage.actions import Action
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.sql_restore import Restoration
from tests.processes import LONG, Ended, run, running

RT = "rt_" + "A" * 87
OTHER = "rt_" + "B" * 87
PASSPHRASE = "canary-passphrase"

Main = Callable[..., Ended]


class Typed:
    """Standard input: a terminal or not."""

    def __init__(self, text: str, terminal: bool) -> None:
        self._text = text
        self._terminal = terminal

    def read(self) -> str:
        return self._text

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def main(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Main]:
    """Run a command in this process, in an empty folder and with none of the machine's settings."""
    for setting in describe_settings():
        monkeypatch.delenv(setting.name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backup, "_LOG_N", 10)
    mask = os.umask(0o022)

    def run_main(*arguments: str, stdin: str = "", terminal: bool = False, **settings: str) -> Ended:
        with monkeypatch.context() as patched:
            for name, value in settings.items():
                patched.setenv(name, value)
            patched.setattr(sys, "stdin", Typed(stdin, terminal))
            status = cli.main(arguments)
        written = capsys.readouterr()
        return Ended(status, written.out, written.err)

    yield run_main
    os.umask(mask)


def labels(ended: Ended) -> list[str]:
    return re.findall(r"^([0-9a-f]{10})  ", ended.out, re.MULTILINE)


def test_R30_a_backup_goes_to_another_machine_and_waits_for_the_operator(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=f"{RT}\n{OTHER}\n", SECRET_KEY="the old machine's")
    saved = main("backup", "safe", "--passphrase-file", "-", stdin=PASSPHRASE + "\n", SECRET_KEY="the old machine's")
    assert (saved.status, saved.err) == (0, "")
    assert stat.S_IMODE((tmp_path / "safe").stat().st_mode) == 0o600
    (tmp_path / "phrase").write_text(PASSPHRASE + "\r\nmore")

    new = {"DATA_DIR": "new"}
    dry = main("restore", "safe", "--dry-run", "--passphrase-file", "phrase", **new)
    assert dry.status == 0
    assert "Accounts that come: 2 (" in dry.out
    assert "dry run" in dry.out
    assert labels(main("tokens", "list", **new)) == []
    done = main("restore", "safe", "--passphrase-file", "phrase", **new)
    assert dry.out.splitlines()[:-1] == done.out.splitlines()[:-1]
    assert "confirm-restored" in done.out
    listed = labels(main("tokens", "list", **new))
    assert listed == labels(main("tokens", "list", SECRET_KEY="the old machine's"))
    assert all(label in done.out for label in listed)

    assert "older copy" in main("tokens", "refresh", **new, OPENAI_AUTH_TOKEN_URL="http://127.0.0.1:9/t").err
    assert "Confirmed" in main("tokens", "confirm-restored", **new).out
    assert "as ever" in main("tokens", "confirm-restored", **new).out
    for told in (saved, dry, done):
        assert not [secret for secret in (RT, OTHER, PASSPHRASE) if secret in told.out + told.err]


def test_R30_an_older_copy_names_its_accounts_in_doubt_and_the_keys_that_work_again(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=RT)
    for name in ("gone", "kept"):
        assert main("keys", "create", name).status == 0
    (key,) = re.findall(r"^(key_\w+) .*gone", main("keys", "list").out, re.MULTILINE)
    main("backup", "safe", "--passphrase-file", "-", stdin=PASSPHRASE)
    main("keys", "revoke", key)

    here = main("restore", "safe", "--dry-run", "--passphrase-file", "-", stdin=PASSPHRASE)
    assert "stay revoked or replaced, as they were since: 1 (gone)" in here.out
    assert "in doubt" not in here.out

    new = {"DATA_DIR": "new"}
    there = main("restore", "safe", "--passphrase-file", "-", stdin=PASSPHRASE, **new)
    assert "Keys that come: 2 (gone, kept)" in there.out
    assert "works as it did then" in there.out
    assert re.search(r"Accounts in doubt, .*: 1 \(", there.out)
    confirmed = main("tokens", "confirm-restored", **new)
    assert "2 key(s) work as in the copy" in confirmed.out
    assert "gone, kept" in confirmed.out


def test_a_terminal_is_asked_twice_for_a_new_passphrase(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([PASSPHRASE, PASSPHRASE, PASSPHRASE, "another one", PASSPHRASE])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    assert main("backup", "one", terminal=True).status == 0
    assert "differ" in main("backup", "two", terminal=True).err
    assert main("restore", "one", terminal=True).status == 0
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "word", "status"),
    [
        (("backup", "new"), "", "--passphrase-file", 1),
        (("backup", "new", "--passphrase-file", "missing"), "", "cannot be read", 2),
        (("backup", "new", "--passphrase-file", "-"), "short\n", "8 characters", 1),
        (("backup", "data", "--passphrase-file", "-"), PASSPHRASE, "cannot be written", 2),
        (("restore", "missing", "--passphrase-file", "-"), PASSPHRASE, "cannot be read", 2),
        (("restore", "data/records.db", "--passphrase-file", "-"), PASSPHRASE, "no backup", 2),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    main: Main, tmp_path: Path, arguments: tuple[str, ...], stdin: str, word: str, status: int
) -> None:
    main("tokens", "list")
    before = sorted(os.listdir(tmp_path / "data"))
    ended = main(*arguments, stdin=stdin)
    assert (ended.status, ended.out) == (status, "")
    assert word in ended.err
    assert "Traceback" not in ended.err
    assert sorted(os.listdir(tmp_path / "data")) == before
    assert os.listdir(tmp_path) == ["data"]


def test_S16_all_is_sealed_anew(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=f"{RT}\n{OTHER}\n")

    def versions() -> set[int]:
        with sqlite3.connect(tmp_path / "data" / "records.db") as connection:
            found = {row[0] for row in connection.execute("SELECT key_version FROM tokens")}
        connection.close()
        return found

    before = versions()
    assert "2 stored secret(s)" in main("reseal").out
    assert versions().isdisjoint(before)
    assert main("tokens", "add", "-", stdin=RT).out.count("unchanged") == 1


def test_S15_a_secret_key_that_does_not_fit_is_status_2_and_seals_nothing(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=RT)
    path = tmp_path / "data" / "records.db"
    before = path.read_bytes()
    for command in (("tokens", "list"), ("doctor",), ("reseal",), ("keys", "list")):
        ended = main(*command, SECRET_KEY="set for this command alone")
        assert (ended.status, ended.out) == (2, "")
        assert "reseal --to-secret-key" in ended.err
    assert path.read_bytes() == before
    assert len(labels(main("tokens", "list"))) == 1


def test_S16_the_records_move_to_a_secret_key_and_from_one_to_the_next(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=f"{RT}\n{OTHER}\n")
    listed = labels(main("tokens", "list"))
    moved = main("reseal", "--to-secret-key", SECRET_KEY="canary one")
    assert (moved.status, moved.err) == (0, "")
    assert "2 stored secret(s)" in moved.out
    assert "records.key opens none of them" in moved.out
    (tmp_path / "data" / "records.key").unlink()
    assert labels(main("tokens", "list", SECRET_KEY="canary one")) == listed
    without = main("tokens", "list")
    assert (without.status, "SECRET_KEY, which is not set" in without.err) == (2, True)

    lost = main("reseal", "--to-secret-key", SECRET_KEY="canary two")
    assert (lost.status, "--former FILE" in lost.err) == (2, True)
    (tmp_path / "former").write_text("canary one\n")
    ways = ("reseal", "--to-secret-key", "--former")
    again = main(*ways, "former", SECRET_KEY="canary two")
    assert (again.status, "records.key" in again.out) == (0, False)
    assert main(*ways, "former", SECRET_KEY="canary two").status == 0, "it can be said twice"
    assert labels(main("tokens", "list", SECRET_KEY="canary two")) == listed
    assert main(*ways, "-", stdin="canary wrong", SECRET_KEY="canary three").status == 2
    assert labels(main("tokens", "list", SECRET_KEY="canary two")) == listed
    assert "canary" not in "".join(told.out + told.err for told in (moved, lost, again))


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        (("--to-secret-key",), {}, "SECRET_KEY is not set"),
        (("--former", "x"), {}, "--to-secret-key"),
        (("--to-secret-key", "--former", "missing"), {"SECRET_KEY": "new"}, "cannot be read"),
    ],
)
def test_a_move_that_lacks_something_says_so(
    main: Main, arguments: tuple[str, ...], settings: dict[str, str], word: str
) -> None:
    ended = main("reseal", *arguments, **settings)
    assert (ended.status, ended.out) == (2, "")
    assert word in ended.err


def test_S16_an_unknown_key_version_is_status_2_and_nothing_is_written(main: Main, tmp_path: Path) -> None:
    main("tokens", "add", "-", stdin=RT)
    path = tmp_path / "data" / "records.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tokens SET key_version = 9")
    connection.close()
    before = path.read_bytes()
    for command in (("reseal",), ("tokens", "list"), ("backup", "b", "--passphrase-file", "-")):
        ended = main(*command, stdin=PASSPHRASE)
        assert ended.status == 2
        assert "version 9" in ended.err
    assert path.read_bytes() == before


def test_every_change_has_its_line() -> None:
    told = Restoration(("a",), ("b",), ("c",), ("d",), ("e",), ("f",), ("g",), ("h",), ("i",), 3, must_confirm=True)
    lines = store_commands.describe_restoration(told, dry_run=False)
    assert [name for name in "abcdefghi" if not any(line.endswith(f": 1 ({name})") for line in lines)] == []
    assert "Conversations that come back: 3" in lines
    assert any("revoked or replaced after the backup was made works" in line for line in lines)
    nothing = Restoration((), (), (), (), (), (), (), (), (), 0, must_confirm=False)
    assert store_commands.describe_restoration(nothing, dry_run=True)[0] == "Nothing differs."


async def journal_of(folder: Path) -> Sequence[Action]:
    records = await SqlRecords.open(folder)
    try:
        return await records.actions.latest(100)
    finally:
        await records.aclose()


async def test_S19_R30_G7_beside_a_running_server_and_after_it_everything_is_private(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text(PASSPHRASE)
    key = "operator-key-of-the-suite"
    environ = {"PORT": "0", "AUTHORIZATION": key, "CHATGPT_BASE_URL": "http://127.0.0.1:9"}
    mask = os.umask(0)
    try:
        async with running("serve", cwd=tmp_path, environ=environ) as server:
            base = await server.find(r"listens on (http://\S+)")
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30, trust_env=False) as http:

                async def accounts() -> int:
                    return int((await http.get("/tokens/accounts")).json()["total"])

                async def upload(token: str) -> int:
                    return int((await http.post("/tokens/upload", data={"text": token})).json()["tokens_count"])

                assert await upload(RT) == 1
                phrase = ("--passphrase-file", "phrase")
                assert (await run("backup", "safe", *phrase, cwd=tmp_path, environ=environ)).status == 0
                (label,) = [one["label"] for one in (await http.get("/tokens/accounts")).json()["data"]]
                assert (await http.post("/tokens/clear")).json()["tokens_count"] == 0
                restored = await run("restore", "safe", *phrase, cwd=tmp_path, environ=environ)
                assert f"Accounts that come: 1 ({label})" in restored.out
                for _ in range(int(LONG / 0.05)):
                    if await accounts() == 1:
                        break
                    await asyncio.sleep(0.05)
                else:
                    pytest.fail("the server does not see what was brought back")
                assert (await run("reseal", cwd=tmp_path, environ=environ)).out.startswith("1 ")
                other = environ | {"SECRET_KEY": "another"}
                refused = await run("reseal", "--to-secret-key", cwd=tmp_path, environ=other)
                assert (refused.status, "Stop it first" in refused.err) == (2, True)
                assert await upload(OTHER) == 2
                journal = [(one.who, one.what) for one in await journal_of(tmp_path / "data")]
                assert {("command line", what) for what in ("store.backup", "store.restore", "store.reseal")} <= set(
                    journal
                )
                assert await upload(f"{RT}\n{OTHER}") == 2, "known by their digests, as before"
        paths = [tmp_path / "safe", tmp_path / "data", *(tmp_path / "data").rglob("*")]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths}
    finally:
        os.umask(mask)
    assert modes.pop("data") == 0o700
    assert set(modes) >= {"safe", "records.db", "records.key", "records.db.mark"}
    assert set(modes.values()) == {0o600}
    assert not [name for name in modes if name.startswith(".")], "nothing temporary is left"
