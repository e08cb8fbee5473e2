"""`chat2api/accounts/renewal.py`."""

import asyncio
import itertools
import random
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from chat2api.accounts.renewal import AGAIN_SECONDS, RefreshTally, Renewals, next_run, renewal_at
from chat2api.accounts.timetable import Timetable
from chat2api.errors import AccountLimitedError, UpstreamServerError
from chat2api.storage.shared import MemoryShared
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Cooldown
from tests.accounts.test_refresh import DAY, Stage, stage
from tests.clocks import FakeClock
from tests.storage.accounts import add, new_account, rotating

__all__ = ["stage"]


def renewals(stage: Stage, clock: FakeClock) -> Renewals:
    """The passes over the stage's accounts."""
    return Renewals(stage.keeper, stage.records, clock, random.Random(1), BERLIN)


async def test_R22_a_pass_leaves_two_seconds_between_accounts(stage: Stage, clock: FakeClock) -> None:
    stage.server.user = ""
    for number in range(10, 14):
        await add(stage.records, new_account(number))
    private = await add(stage.records, new_account(20, owner="caller"))
    stage.server.answers = [AccountLimitedError("")]

    tally = await renewals(stage, clock).renew_all(force=True)

    assert tally == RefreshTally(renewed=3, failed=1)
    assert len(clock.slept) == 3 and all(2 <= pause <= 2.2 for pause in clock.slept)
    assert len(set(clock.slept)) == 3
    assert rotating(20) not in stage.server.sent and private.owner


async def test_a_pass_without_force_renews_what_needs_it(stage: Stage, clock: FakeClock) -> None:
    stage.server.user = ""
    await stage.signed_in()
    await add(stage.records, new_account(7))

    assert await renewals(stage, clock).renew_all(force=False) == RefreshTally(1, 0)
    assert stage.server.sent == [rotating(0), rotating(7)]


BERLIN = ZoneInfo("Europe/Berlin")


def instant(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        ("2026-01-01T15:00", "2026-01-01T15:01", "2026-01-05T15:00"),
        ("2026-01-01T23:59", "2026-01-02T00:00", "2026-01-05T15:00"),
        ("2026-01-01T00:00", "2026-01-04T23:00", "2026-01-05T15:00"),
        ("2026-03-27T15:00", "2026-03-28T00:00", "2026-03-31T15:00"),  # summer time begins between
        ("2026-01-01T15:00", "2026-06-01T03:00", "2026-06-01T03:00"),  # missed ones collapse into one, now
    ],
)
def test_R22_the_next_run_is_on_the_fourth_day_at_15_00(last: str, now: str, due: str) -> None:
    assert next_run(instant(last), instant(now), BERLIN) == instant(due)


def test_without_a_zone_the_machines_own_counts() -> None:
    last = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()

    local = datetime.fromtimestamp(next_run(last, last))

    assert (local.hour, local.minute) == (15, 0)


async def test_R22_the_scheduled_refresh_counts_from_its_stored_last_run(stage: Stage, clock: FakeClock) -> None:
    await stage.account()
    job = renewals(stage, clock)
    assert not await job.tick()
    due = await job.due_at()
    assert 3 * DAY < due - clock.now() <= 5 * DAY
    assert not await job.tick()

    clock.advance(due - clock.now() + 30 * DAY)
    restarted = renewals(stage, clock)
    assert await restarted.run_if_due()

    assert not await restarted.run_if_due()
    assert len(stage.server.sent) == 2


async def test_R21_a_last_run_in_a_far_future_begins_the_count_anew(stage: Stage, clock: FakeClock) -> None:
    job = renewals(stage, clock)
    await stage.records.set_meta("scheduled_refresh_at", str(clock.now() + 3000 * DAY))

    assert not await job.tick()

    assert 3 * DAY < await job.due_at() - clock.now() <= 5 * DAY


@pytest.mark.parametrize("life", [0.5 * DAY, 10 * DAY])
@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_R21_a_clock_that_jumps_a_day_and_back_costs_one_renewal_at_most(
    records: SqlRecords, jump: float, life: float
) -> None:
    clock = FakeClock()
    stage = Stage(records, clock)
    stage.server.life = life
    account = await stage.signed_in()
    job = renewals(stage, clock)
    await job.tick()
    sent = len(stage.server.sent)

    for offset in (jump, 0.0):
        clock.jumped, stage.server.skew = offset, -offset
        for _ in range(20):
            await job.tick()
            await job.renew_ahead()
            await stage.keeper.access_token(account)
            clock.advance(60)

    assert len(stage.server.sent) - sent <= 1


async def test_R22_a_token_is_renewed_within_the_last_tenth_of_its_life(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    job = renewals(stage, clock)
    clock.advance(9 * DAY - 60)
    assert await job.renew_ahead() == RefreshTally(0, 0)

    clock.advance(0.5 * DAY + 120)
    assert await job.renew_ahead() == RefreshTally(1, 0)

    assert await job.renew_ahead() == RefreshTally(0, 0)
    assert len(stage.server.sent) == 2
    renewed = await stage.records.account(account.id)
    assert renewed is not None and renewed.generation == 2


async def test_R22_a_waiting_account_is_renewed_ahead_and_one_in_doubt_is_not(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    await stage.records.put_cooldowns([Cooldown(account.id, "*", clock.now() + 20 * DAY, True, "stated_limit")])
    clock.advance(9.6 * DAY)
    job = renewals(stage, clock)
    seen = await stage.records.account(account.id)
    assert seen is not None
    doubted = await stage.records.set_state(seen, "in_doubt", "unknown_outcome", clock.now())
    assert doubted is not None
    assert await job.renew_ahead() == RefreshTally(0, 0)

    await stage.records.set_state(doubted, "ok", None, clock.now())
    assert await job.renew_ahead() == RefreshTally(1, 0)


async def test_R22_what_fails_ahead_of_its_end_is_not_tried_every_minute(stage: Stage, clock: FakeClock) -> None:
    await stage.signed_in()
    clock.advance(9.6 * DAY)
    job = renewals(stage, clock)
    stage.server.answers = [UpstreamServerError("", upstream_status=500)]

    first = [await job.renew_ahead() for _ in range(3)]
    clock.advance(AGAIN_SECONDS)

    assert first == [RefreshTally(0, 1), RefreshTally(0, 0), RefreshTally(0, 0)]
    assert await job.renew_ahead() == RefreshTally(1, 0)


def test_R22_accounts_that_were_added_together_do_not_come_due_together() -> None:
    due = sorted(renewal_at(f"acc_{number}", 0.0, 10 * DAY) for number in range(100))

    assert due[0] >= 9 * DAY and due[-1] <= 9.5 * DAY
    assert due[-1] - due[0] > 0.4 * DAY
    assert max(later - earlier for earlier, later in itertools.pairwise(due)) < 0.1 * DAY


async def test_R22_three_replicas_with_a_hundred_accounts_make_a_hundred_renewals(
    stage: Stage, clock: FakeClock
) -> None:
    stage.server.user = ""
    for number in range(10, 110):
        await add(stage.records, new_account(number))
    shared = MemoryShared(clock)
    await stage.records.set_meta("scheduled_refresh_at", str(clock.now() - 5 * DAY))

    def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        work.close()
        return asyncio.get_running_loop().create_task(asyncio.sleep(0), name=name)

    tables = [Timetable(shared, clock, spawn) for _ in range(3)]
    for table in tables:
        table.add("refresh", renewals(stage, clock).run_if_due, every=60.0)

    for _ in range(2):
        await asyncio.gather(*(table.run("refresh") for table in tables))

    assert len(stage.server.sent) == len(set(stage.server.sent)) == 100
