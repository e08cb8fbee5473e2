"""`chat2api tiers` and `chat2api invites`, beside a running server or without one."""

import asyncio
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat2api import cli
from chat2api.clock import SystemClock
from chat2api.config import describe_settings
from chat2api.keys.invitations import Invitations
from chat2api.keys.issue import KeyRing
from chat2api.storage.actions import Action
from chat2api.storage.sql_records import SqlRecords

ROOT = Path(__file__).parent.parent


class Command:
    """Runs the program in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str, status: int = 0) -> str:
        ended = cli.main(arguments)
        told = self._capsys.readouterr()
        self.errors = told.err
        assert ended == status, told
        return told.out


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    for setting in describe_settings():
        monkeypatch.delenv(setting.name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "protect_process", lambda: None)
    yield Command(capsys)


def test_the_example_has_no_mistake(run: Command) -> None:
    told = run("tiers", "check", str(ROOT / "docs" / "tiers.example.toml"))
    assert "2 tier(s), no mistake: free, readers" in told


def test_without_a_file_the_built_in_tier_is_what_there_is(run: Command) -> None:
    assert "1 tier(s), no mistake: free" in run("tiers", "check")


def test_each_mistake_is_told_in_a_line_and_nothing_is_made(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "tiers.toml"
    file.write_text('[free]\nbase = "/tokens/x"\nsystem = 3\nmodels = {}\n', encoding="utf-8")
    told = run("tiers", "check", str(file), status=1).splitlines()
    assert [line.partition(":")[0] for line in told] == [
        "line 2, free.base", "line 3, free.system", "line 4, free.models"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["tiers.toml"]


def test_the_file_of_the_setting_is_meant_where_none_is_named(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERS_FILE", str(tmp_path / "missing.toml"))
    run("tiers", "check", status=2)
    assert "missing.toml cannot be read" in run.errors


def test_a_link_is_printed_alone_and_gives_a_key(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_ORIGINS", "https://chat.example.org")
    monkeypatch.setenv("API_PREFIX", "p")
    link = run("invites", "create", "free", "--name", "Ada", "--key-expires-in-days", "never")
    token = re.fullmatch(r"https://chat\.example\.org/p/invite/([\w-]{32})\n", link)
    assert token is not None
    assert "one key of the tier free" in run.errors
    assert "localhost" not in run.errors

    async def take() -> str:
        records = await SqlRecords.open(tmp_path / "data")
        clock = SystemClock()
        _, issued = await Invitations(records, KeyRing(records, clock), clock).redeem(token[1])
        actions = await records.actions.latest(10)
        await records.aclose()
        assert [(action.who, action.what) for action in actions] == [("command line", "invites.create")]
        assert (issued.key.name, issued.key.tier, issued.key.expires_at) == ("Ada", "free", None)
        return issued.key.id

    assert asyncio.run(take()) in run("invites", "list")


def test_the_list_tells_the_state_and_never_the_link(run: Command) -> None:
    token = run("invites", "create", "free").strip().rpartition("/")[2]
    assert "It says localhost, since PUBLIC_ORIGINS" in run.errors
    listed = run("invites", "list")
    invitation = re.search(r"^(inv_\w+)  open     until .* UTC  free  invited$", listed, re.MULTILINE)
    assert invitation is not None
    assert token not in listed
    assert run("invites", "revoke", invitation[1]) == f"{invitation[1]} is revoked.\n"
    assert "  revoked  " in run("invites", "list")
    run("invites", "revoke", "inv_unknown", status=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "There is no tier 'nowhere'. There are: free."),
        (("free", "--expires-in-days", "91"), "at most 90 days"),
        (("free", "--key-expires-in-days", "-1"), "more than 0"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_made(
    run: Command, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    run("invites", "create", *arguments, status=1)
    assert told in run.errors
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_for_a_tier_that_there_is_and_for_no_other(run: Command) -> None:
    run("keys", "create", "Ada", "--tier", "free")
    assert re.search(r"^tier: +free$", run("keys", "show", "Ada"), re.MULTILINE)
    run("keys", "change", "Ada", "--tier", "nowhere", status=1)
    assert "There is no tier 'nowhere'. There are: free." in run.errors
    run("keys", "change", "Ada", "--tier", "none")
    assert re.search(r"^tier: +none$", run("keys", "show", "Ada"), re.MULTILINE)


def test_no_password_is_asked_for_where_the_tier_cannot_be(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # reading from it would end in a traceback
    for arguments in (("users", "add", "Ada"), ("keys", "create", "Ada")):
        run(*arguments, "--tier", "nowhere", status=1)
        assert "There is no tier 'nowhere'. There are: free." in run.errors
    assert list(tmp_path.iterdir()) == []


def test_G7_what_changes_keys_and_users_is_in_the_journal(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.keys.password.COST", 2**4)
    (tmp_path / "tokens").write_text(f"rt_{'A' * 87}\n", encoding="utf-8")
    run("tokens", "add", "tokens")
    run("tokens", "remove", "--all")
    run("tokens", "remove", "--undo")
    run("keys", "create", "Ada")
    run("keys", "change", "Ada", "--note", "laptop")
    run("keys", "rotate", "Ada")
    run("keys", "revoke", "Ada")
    run("keys", "stop")
    run("keys", "resume")
    monkeypatch.setattr("sys.stdin", io.StringIO("four quiet words together\n"))
    run("users", "add", "Bruno")
    run("users", "remove", "Bruno")
    for looked in (("keys", "list"), ("keys", "show", "Ada"), ("keys", "usage"), ("users", "list"), ("tokens", "list")):
        run(*looked)

    async def journal() -> list[Action]:
        records = await SqlRecords.open(tmp_path / "data")
        actions = await records.actions.latest(100)
        await records.aclose()
        return list(reversed(actions))

    actions = asyncio.run(journal())
    assert {action.who for action in actions} == {"command line"}
    assert [(action.what, action.target[:4]) for action in actions] == [
        ("accounts.import", "1 ac"), ("accounts.clear", "1 ac"), ("accounts.undo", "1 ac"),
        ("keys.create", "key_"), ("keys.change", "key_"), ("keys.rotate", "key_"), ("keys.revoke", "key_"),
        ("keys.stop", "all"), ("keys.resume", "all"), ("users.add", "Brun"), ("users.remove", "Brun"),
    ]  # fmt: skip
