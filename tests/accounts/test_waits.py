"""`chat2api/accounts/waits.py`."""

import pytest

from chat2api.accounts.entries import Entry
from chat2api.accounts.waits import Waits
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Cooldown
from tests.clocks import FakeClock
from tests.storage.accounts import add, new_account


class Stage:
    """One account with its waits, and what was told of them."""

    def __init__(self, records: SqlRecords, clock: FakeClock, entry: Entry) -> None:
        self.records = records
        self.clock = clock
        self.entry = entry
        self.changed = 0
        self.unwatched: list[str] = []
        self.waits = Waits(
            {entry.account.id: entry}, records, clock, changed=self.count, unwatched=self.unwatched.append
        )

    def count(self, entry: Entry) -> None:
        assert entry is self.entry
        self.changed += 1

    def wait(
        self, seconds: float, model: str = "gpt", *, stated: bool = False, reason: str = "guessed_limit"
    ) -> Cooldown:
        return Cooldown(self.entry.account.id, model, self.clock.now() + seconds, stated, reason, 0 if stated else 1)

    def left(self, model: str = "gpt") -> float:
        return max(self.entry.blocked_until(model) - self.clock.monotonic(), 0.0)


@pytest.fixture
async def stage(records: SqlRecords, clock: FakeClock) -> Stage:
    """An account that does not wait."""
    return Stage(records, clock, Entry(await add(records, new_account(1))))


async def test_a_wait_begins_ends_on_time_and_is_told(stage: Stage) -> None:
    assert stage.waits.watched("gpt") is None
    assert stage.waits.begin(stage.wait(60, stated=True))
    assert (stage.waits.watched("gpt"), stage.waits.watched("other"), stage.changed) == ("gpt", None, 1)

    stage.clock.advance(59)
    stage.waits.wake_due()
    assert stage.left() == pytest.approx(1)
    assert (stage.changed, stage.unwatched) == (1, [])
    stage.clock.advance(1)
    stage.waits.wake_due()

    assert (stage.left(), stage.changed, stage.unwatched, stage.entry.waits) == (0, 2, ["gpt"], {})


@pytest.mark.parametrize(("stated", "longest"), [(True, 7 * 24 * 3600.0), (False, 3600.0)])
async def test_R21_a_wait_that_was_noted_by_a_clock_far_ahead_is_no_longer_than_waits_are(
    stage: Stage, stated: bool, longest: float
) -> None:
    stage.waits.take_over(stage.wait(30 * 24 * 3600.0, stated=stated))

    assert stage.left() == pytest.approx(longest)


@pytest.mark.parametrize(
    ("running", "stated", "next_one", "next_stated", "left"),
    [
        (100, True, 50, False, 100),
        (100, True, 50, True, 100),
        (100, True, 150, True, 150),
        (100, False, 50, True, 50),
        (100, False, 50, False, 100),
        (100, True, 150, False, 100),
        (100, False, 150, False, 150),
        (100, True, 0, True, 100),
    ],
)
async def test_R7_what_the_backend_stated_is_kept_and_beats_a_guess(
    stage: Stage, running: float, stated: bool, next_one: float, next_stated: bool, left: float
) -> None:
    stage.waits.begin(stage.wait(running, stated=stated))

    stage.waits.begin(stage.wait(next_one, stated=next_stated))

    assert stage.left() == pytest.approx(left)


async def test_an_ended_guess_is_remembered_for_its_strikes_until_an_answer_is_good(stage: Stage) -> None:
    stage.waits.begin(stage.wait(60))
    stage.clock.advance(60)
    stage.waits.wake_due()
    assert stage.entry.strikes("gpt", {"guessed_limit"}) == 1

    stage.waits.end_guessed(stage.entry, "gpt", running=False)

    assert stage.entry.waits == {}


async def test_a_row_that_is_read_late_does_not_cost_the_strikes(stage: Stage) -> None:
    guess = stage.wait(60)
    stage.waits.begin(guess)
    stage.clock.advance(60)
    stage.waits.wake_due()

    stage.waits.take_over(guess)

    assert stage.entry.strikes("gpt", {"guessed_limit"}) == 1


async def test_G2_a_running_guess_ends_only_when_asked_and_a_stated_wait_never(stage: Stage) -> None:
    stage.waits.begin(stage.wait(60, "gpt"))
    stage.waits.begin(stage.wait(60, "*", stated=True))

    stage.waits.end_guessed(stage.entry, "gpt", running=False)
    assert "gpt" in stage.entry.waits
    stage.waits.end_guessed(stage.entry, "gpt", running=True, reason="distrusted")
    assert "gpt" in stage.entry.waits
    stage.waits.end_guessed(stage.entry, "gpt", running=True)
    stage.waits.end_guessed(stage.entry, "*", running=True)

    assert list(stage.entry.waits) == ["*"]


async def test_an_early_end_is_seen_by_other_processes_and_after_a_restart(stage: Stage) -> None:
    other = Stage(stage.records, stage.clock, Entry(stage.entry.account))
    guess = stage.wait(600)
    stage.waits.begin(guess)
    await stage.waits.keep(guess)
    await stage.waits.flush()
    for one in (await stage.records.changes()).cooldowns:
        other.waits.take_over(one)
    assert other.left() == pytest.approx(600)

    stage.waits.end_guessed(stage.entry, "gpt", running=True)
    await stage.waits.flush()
    for one in (await stage.records.changes()).cooldowns:
        other.waits.take_over(one)

    assert (other.left(), other.entry.waits) == (0, {})
    restarted = Stage(stage.records, stage.clock, Entry(stage.entry.account))
    for one in (await stage.records.changes()).cooldowns:
        restarted.waits.take_over(one)
    assert restarted.left() == 0


async def test_an_old_row_does_not_end_a_wait_that_is_not_written_yet(stage: Stage) -> None:
    ended = stage.wait(-1)
    newer = stage.wait(60)
    stage.waits.begin(newer)
    await stage.waits.keep(newer)

    stage.waits.take_over(ended)

    assert stage.left() == pytest.approx(60)


async def test_a_row_that_is_read_late_does_not_begin_a_guess_again_that_just_ended(stage: Stage) -> None:
    guess = stage.wait(600)
    stage.waits.begin(guess)
    await stage.waits.keep(guess)
    stage.waits.end_guessed(stage.entry, "gpt", running=True)

    stage.waits.take_over(guess)

    assert stage.left() == 0


async def test_R6_a_stated_wait_is_on_disk_when_keep_returns(stage: Stage) -> None:
    await stage.waits.keep(stage.wait(60, "guessed"))
    assert (await stage.records.changes()).cooldowns == ()

    await stage.waits.keep(stage.wait(60, "stated", stated=True))

    assert {one.model for one in (await stage.records.changes()).cooldowns} == {"guessed", "stated"}


async def test_an_account_that_leaves_takes_its_waits_along(stage: Stage) -> None:
    stage.waits.begin(stage.wait(60))

    stage.waits.forget(stage.entry)

    assert (stage.entry.waits, stage.unwatched) == ({}, ["gpt"])
