"""`chat2api keys …` for issued keys, in this process and, for what a running server makes of it, through one."""

import argparse
import asyncio
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat2api import cli
from chat2api.config import describe_settings
from chat2api.keys.command import add_actions
from chat2api.keys.issue import KeyRing, is_well_formed
from chat2api.simulator.app import Simulator
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import UsageRow, day_of
from tests.clocks import FakeClock
from tests.e2e.harness import open_house, until

DAY = "2026-11-21"


class Command:
    """Runs `chat2api keys …` on one data folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert cli.main(["keys", *arguments]) == status
        told = self._capsys.readouterr()
        self.errors = told.err
        return told.out


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    for name in [*(setting.name for setting in describe_settings()), "GO_CHATGPT_API_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    os.umask(before)
    yield Command(capsys)
    os.umask(before)  # the command makes its process's files private


def test_a_key_is_printed_alone_and_once(keys: Command, tmp_path: Path) -> None:
    secret = keys("create", "Ada", "--note", "laptop", "--models", "gpt-4o*,o3", "--requests-per-day", "9").strip()

    assert is_well_formed(secret)
    assert "not shown again" in keys.errors and "gpt-4o*, o3" in keys.errors
    for action in (("list",), ("show", "Ada"), ("list", "--all")):
        told = keys(*action)
        assert secret[:11] in told and secret not in told
    told = keys("show", "Ada")
    assert "requests per minute: 60" in told and "requests per day:    9" in told and "laptop" in told
    for file in (tmp_path / "data").iterdir():
        assert secret.encode() not in file.read_bytes()


def test_G4_unlimited_and_never_are_typed(keys: Command) -> None:
    keys(
        "create",
        "Ada",
        "--requests-per-minute",
        "unlimited",
        "--requests-at-once",
        "unlimited",
        "--expires-in-days",
        "never",
    )
    told = keys("show", "Ada")
    assert "requests per minute: unlimited" in told and "expires at:          never" in told


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("create", "Ada", "--requests-total", "many"), "requests_total"),
        (("create", "Ada", "--requests-total", "0"), "requests_total"),
        (("create", "Ada", "--expires-in-days", "soon"), "expires_in_days"),
        (("create", "Ada", "--models", ","), "models"),
        (("create", ""), "name"),
        (("show", "nobody"), "no such key"),
        (("revoke", "nobody"), "no such key"),
        (("rotate", "nobody"), "no such key"),
        (("rotate", "nobody", "--overlap-hours", "-3"), "overlap_hours"),
        (("usage", "--since", "yesterday"), "since"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(keys: Command, arguments: tuple[str, ...], word: str) -> None:
    assert keys(*arguments, status=1) == ""
    assert word in keys.errors and keys.errors.count("\n") == 1


def test_a_key_is_changed_rotated_revoked_and_found_by_id_name_or_beginning(keys: Command) -> None:
    first = keys("create", "Ada").strip()
    key_id = keys("list").split()[0]
    assert "tokens total:        77" in keys("change", key_id, "--tokens-total", "77", "--name", "Grace")
    second = keys("rotate", "Grace", "--overlap-hours", "0").strip()
    assert second != first
    assert "Grace" in keys("show", second[:11])
    assert "revoked" in keys("revoke", second[:11] + "…")
    assert keys("list") == "0 key(s)\n"
    assert "revoked" in keys("list", "--all")
    keys("rotate", key_id, status=1)
    assert "revoked" in keys.errors


def test_accounts_that_are_not_there_are_told(keys: Command) -> None:
    keys("create", "Ada", "--accounts", "0123456789", "--groups", "team")
    assert "no account or group of this name now: 0123456789, team" in keys.errors


def test_a_name_that_two_keys_have_is_not_guessed_at(keys: Command) -> None:
    keys("create", "Ada")
    keys("create", "Ada")
    keys("revoke", "Ada", status=1)
    assert "Several" in keys.errors


def test_all_keys_are_stopped_and_let_go(keys: Command) -> None:
    keys("create", "Ada")
    assert "stopped" in keys("stop") and "resume" in keys("list")
    assert "work again" in keys("resume") and "stopped" not in keys("list")


async def _book(folder: Path) -> str:
    records = await SqlRecords.open(folder)
    key_id = (await records.keys.changes()).keys[0].id
    await records.usage.add([
        UsageRow(DAY, key_id, "acc", "gpt-5", 2, 10, 20, 1, 0.5, 1),
        UsageRow(DAY, "operator", "acc", "gpt-5", 1, 1, 2),
    ])  # fmt: skip
    await records.aclose()
    return key_id


def test_usage_is_told_as_a_table_as_csv_and_as_json(keys: Command, tmp_path: Path) -> None:
    keys("create", "Ada")
    key_id = asyncio.run(_book(tmp_path / "data"))
    period = ("--since", DAY, "--until", DAY)

    told = keys("usage", *period)
    assert f"Ada ({key_id})" in told and "operator" in told and told.splitlines()[-1].split()[:2] == ["3", "33"]
    listed = list(csv.DictReader(io.StringIO(keys("usage", "--csv", *period))))
    whole = json.loads(keys("usage", "--json", *period))
    assert [{name: str(value) for name, value in row.items()} for row in whole["rows"]] == listed
    assert (whole["total"]["requests"], whole["total"]["total_tokens"]) == (3, 33)
    assert len(json.loads(keys("usage", "Ada", "--json", *period))["rows"]) == 1
    assert len(json.loads(keys("usage", "operator", "--json", *period))["rows"]) == 1


async def test_S13_a_running_server_follows_the_command(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_actions(parser.add_subparsers())
    async with Simulator() as sim, open_house(tmp_path / "data", sim) as house:
        clock = FakeClock(house.runtime.clock.now())
        records = await SqlRecords.open(tmp_path / "data")

        async def run(*arguments: str) -> None:
            options = parser.parse_args(arguments)
            await options.act(options, records, clock)

        ring: KeyRing = house.runtime.keys
        await run("create", "Ada")
        await until(lambda: len(ring.all()) == 1, "the server does not know the key")
        assert house.runtime.keys.all()[0].created_at == clock.now()
        await run("stop")
        await until(lambda: ring.stopped, "the server goes on")
        await run("resume")
        await until(lambda: not ring.stopped, "the server is still stopped")
        await run("revoke", "Ada")
        await until(lambda: ring.all()[0].revoked_at is not None, "the server still takes the key")
        assert day_of(clock.now()) == day_of(house.runtime.clock.now())
        await records.aclose()
