"""`chat2api/accounts/entries.py`."""

from dataclasses import replace

import pytest

from chat2api.accounts.entries import Entry, Wait
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Cooldown
from tests.storage.accounts import add, new_account


@pytest.fixture
async def entry(records: SqlRecords) -> Entry:
    """An account with nothing against it."""
    return Entry(await add(records, new_account(1)))


def wait(entry: Entry, model: str, ends: float, *, stated: bool = False, reason: str = "guessed_limit") -> None:
    entry.waits[model] = Wait(ends, Cooldown(entry.account.id, model, ends + 1000, stated, reason, 2))


async def test_a_wait_for_all_models_counts_for_each(entry: Entry) -> None:
    assert entry.blocked_until("gpt") == 0
    wait(entry, "*", 50.0)
    wait(entry, "gpt", 30.0, stated=True)

    assert [entry.blocked_until(model) for model in ("gpt", "other", None)] == [50.0, 50.0, 50.0]
    assert [entry.blocked_until(model, stated_only=True) for model in ("gpt", "other", None)] == [30.0, 0.0, 0.0]


async def test_a_suspect_has_room_for_one_and_others_for_the_cap(entry: Entry) -> None:
    rooms = [(entry.has_room(2), entry.has_room(None)) for entry.in_flight in range(3)]
    entry.account = replace(entry.account, state="suspect")
    probes = [(entry.has_room(2), entry.has_room(None)) for entry.in_flight in range(3)]

    assert rooms == [(True, True), (True, True), (False, True)]
    assert probes == [(True, True), (False, False), (False, False)]


async def test_strikes_are_counted_by_reason(entry: Entry) -> None:
    wait(entry, "gpt", 30.0)

    assert entry.strikes("gpt", {"guessed_limit"}) == 2
    assert entry.strikes("gpt", {"distrusted"}) == entry.strikes("other", {"guessed_limit"}) == 0


async def test_the_view_shows_the_waits_that_last_as_instants(entry: Entry) -> None:
    wait(entry, "gpt", 30.0)
    wait(entry, "*", 50.0, reason="failing")
    wait(entry, "over", 9.0)
    entry.in_flight = 3

    view = entry.view(10.0, 1000.0)

    assert [(one.model, one.seconds, one.until_at) for one in view.waits] == [
        ("gpt", 20.0, 1020.0),
        ("*", 40.0, 1040.0),
    ]
    assert (view.state, view.reason, view.in_flight) == ("cooling", "failing", 3)
    assert entry.waits_for("failing", 10.0) and not entry.waits_for("failing", 50.0)
