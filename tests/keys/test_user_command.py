"""`chat2api users …`, in this process and, for what a running server makes of it, through one."""

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chat2api import cli
from chat2api.config import describe_settings
from chat2api.keys.issue import KeyRing
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LocalUsers
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import NewKey
from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock
from tests.e2e.harness import open_house, until

PASSWORD = "four quiet words together"
ANOTHER = "another four quiet words"


class Command:
    """Runs `chat2api users …` on one data folder, with a password on standard input."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.errors = ""
        self.terminal: type[io.StringIO] = io.StringIO

    def __call__(self, *arguments: str, said: str = "", status: int = 0, group: str = "users") -> str:
        self._monkeypatch.setattr("sys.stdin", self.terminal(said))
        assert cli.main([group, *arguments]) == status
        told = self._capsys.readouterr()
        self.errors = told.err
        return told.out


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    for name in [*(setting.name for setting in describe_settings()), "GO_CHATGPT_API_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("chat2api.keys.password.COST", 2**4)
    before = os.umask(0o022)
    os.umask(before)
    yield Command(capsys, monkeypatch)
    os.umask(before)  # the command makes its process's files private


def test_users_are_made_listed_and_removed(users: Command) -> None:
    assert "Anna may sign in" in users("add", "Anna", "--models", "gpt-4o*", said=f"{PASSWORD}\n")
    told = users("list")
    assert "Anna  key_" in told and "active" in told and "1 user(s)" in told
    assert "gpt-4o*" in users("show", "Anna", group="keys")
    assert "revoked" in users("remove", "anna")
    assert "0 user(s)" in users("list")
    assert "revoked" in users("list", "--all", group="keys")


def test_what_cannot_be_is_told_and_changes_nothing(users: Command) -> None:
    users("add", "Anna", said=f"{PASSWORD}\n")
    for arguments, said, told in (
        (("add", "Anna"), PASSWORD, "already"),
        (("add", "Bruno"), "short", "characters"),
        (("add", "Bruno", "--requests-per-day", "none"), PASSWORD, "requests_per_day"),
        (("add", " "), PASSWORD, "name"),
        (("remove", "Bruno"), "", "no user"),
        (("password", "Bruno"), ANOTHER, "no user"),
        (("password", "Anna"), "short", "characters"),
    ):
        users(*arguments, said=f"{said}\n", status=1)
        assert told in users.errors
        assert PASSWORD not in users.errors
    assert "1 user(s)" in users("list")


def test_a_password_is_asked_for_twice_where_somebody_sits(users: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = [PASSWORD, "something else", PASSWORD, PASSWORD]
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    users.terminal = Terminal
    users("add", "Anna", status=1)
    assert "differ" in users.errors
    users("add", "Anna")
    assert answers == []


async def test_a_running_server_knows_users_that_are_made_and_removed_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.keys.password.COST", 2**4)
    data = tmp_path / "data"
    async with (
        Simulator() as sim,
        open_house(data, sim, tokens=[sim.control.accounts[0].access_token]) as house,
        httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as http,
    ):
        records, digests, clock = await SqlRecords.open(data), SlowDigests(cost=2**4), FakeClock()
        try:
            ring = KeyRing(records, clock)
            elsewhere = LocalUsers(records, ring, digests, clock)
            await elsewhere.start()
            await elsewhere.add("Anna", PASSWORD, NewKey("Anna", None))
            await until(lambda: bool(house.runtime.users.all()), "the user is not known")
            said = {"username": "Anna", "password": PASSWORD}
            for _ in range(100):
                answer = await http.post("/auth/login", json=said)
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.05)
            bearer = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
            assert (await http.get("/v1/models", headers=bearer)).status_code == 200
            await elsewhere.remove("Anna")
            await until(lambda: not house.runtime.users.all(), "the user is still known")
            assert (await http.get("/v1/models", headers=bearer)).status_code == 401
        finally:
            digests.close()
            await records.aclose()
