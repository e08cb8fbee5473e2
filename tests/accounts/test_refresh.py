"""`chat2api/accounts/refresh.py`."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat2api.accounts.exchange import RefreshAnswer
from chat2api.accounts.pool import AccountPool
from chat2api.accounts.refresh import POINTS, TokenKeeper
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AllAccountsCoolingError,
    ChallengedError,
    Chat2APIError,
    StorageError,
    TransportError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.storage.shared import MemoryShared
from chat2api.storage.sql_records import DATABASE_NAME, SqlRecords
from chat2api.storage.values import Account, NewAccount, Secrets
from tests.accounts.jwt import access_token
from tests.clocks import FakeClock
from tests.storage.accounts import add, new_account, rotating

DAY = 24 * 3600.0
SILENCE = UpstreamTimeoutError("", phase="headers")
REUSED = AccountRejectedError("", reason="refresh_token_reused")


class SignIn:
    """A sign-in server that answers what it is told, or rotates."""

    def __init__(self, clock: FakeClock, *, life: float = 10 * DAY) -> None:
        self.clock = clock
        self.life = life
        self.sent: list[str] = []
        self.answers: list[Exception | RefreshAnswer] = []
        self.gate: asyncio.Event | None = None
        self.waits = asyncio.Event()
        self.skew = 0.0
        self.user = "user-1"

    async def __call__(self, account: Account, token: str) -> RefreshAnswer:
        self.sent.append(token)
        if self.gate is not None:
            self.waits.set()
            await self.gate.wait()
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return RefreshAnswer(self.access(), rotating(len(self.sent)), date_skew=self.skew)

    def access(self) -> str:
        """An access token that nobody got before."""
        now = self.clock.now() + self.skew
        return access_token(self.user, issued_at=now, expires_at=now + self.life, serial=len(self.sent))


class Stage:
    """A keeper with all that it needs, and one account whose access token has not been fetched yet."""

    def __init__(self, records: SqlRecords, clock: FakeClock) -> None:
        self.records = records
        self.clock = clock
        self.server = SignIn(clock)
        self.points: list[str] = []
        self.tasks: set[asyncio.Task[str]] = set()
        self.keeper = self.make_keeper()

    def make_keeper(self, **settings: Any) -> TokenKeeper:
        """A keeper as a process just started would have it."""
        return TokenKeeper(
            self.records,
            MemoryShared(self.clock),
            self.clock,
            self.server,
            self.spawn,
            at=self.points.append,
            **{"is_alive": lambda replica: False, **settings},
        )

    def spawn(self, work: Coroutine[Any, Any, str], name: str) -> "asyncio.Task[str]":
        """Start background work and keep it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def account(self, number: int = 0) -> Account:
        """The account of a number, made if it is not there."""
        found = await self.records.find_by_token(rotating(number))
        return found or await add(self.records, new_account(number), self.clock.now())

    async def stored(self) -> tuple[str | None, str | None]:
        """The refresh token and state of account 0 on disk."""
        account = await self.account()
        view = await self.records.refresh_view(account.id)
        assert view is not None
        return view.secrets.renewable, view.account.state

    async def signed_in(self) -> Account:
        """Account 0 with a fresh access token."""
        await self.keeper.access_token(await self.account())
        return await self.account()


@pytest.fixture
def stage(records: SqlRecords, clock: FakeClock) -> Stage:
    return Stage(records, clock)


async def test_a_token_is_fetched_once_stored_and_then_given_from_memory(stage: Stage) -> None:
    account = await stage.account()

    first = await stage.keeper.access_token(account)
    second = await stage.keeper.access_token(await stage.account())

    assert first is not None and first == second
    assert stage.server.sent == [rotating(0)]
    assert await stage.stored() == (rotating(1), "ok")
    assert await stage.make_keeper().access_token(account) == first
    assert len(stage.server.sent) == 1


async def test_the_points_are_passed_in_their_order(stage: Stage) -> None:
    stage.server.answers = [SILENCE]

    await stage.keeper.access_token(await stage.account())

    assert tuple(stage.points[:7]) == (*POINTS[:5], "sending", "doubt_claimed")
    assert tuple(stage.points[7:]) == POINTS[6:]
    assert set(stage.points) == set(POINTS) and len(POINTS) == 12


async def test_one_flight_serves_all_who_ask(stage: Stage) -> None:
    account = await stage.account()
    stage.server.gate = asyncio.Event()
    asking = [asyncio.get_running_loop().create_task(stage.keeper.access_token(account)) for _ in range(50)]
    await asyncio.wait_for(stage.server.waits.wait(), 10)
    stage.server.gate.set()

    assert len(set(await asyncio.gather(*asking))) == 1
    assert len(stage.server.sent) == 1


async def test_R11_a_caller_who_leaves_does_not_stop_the_refresh(stage: Stage) -> None:
    account = await stage.account()
    stage.server.gate = asyncio.Event()
    asking = asyncio.get_running_loop().create_task(stage.keeper.access_token(account))
    await asyncio.wait_for(stage.server.waits.wait(), 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    stage.server.gate.set()
    await asyncio.gather(*stage.tasks)

    assert await stage.stored() == (rotating(1), "ok")


async def test_the_new_pair_is_on_disk_before_anybody_has_it(stage: Stage) -> None:
    account = await stage.account()
    seen: list[str | None] = []

    def look(changed: Account) -> None:
        seen.append(f"generation {changed.generation}")

    keeper = stage.make_keeper(on_change=look)
    keeper_token = await keeper.access_token(account)
    view = await stage.records.refresh_view(account.id)

    assert seen == ["generation 1"]
    assert view is not None and view.secrets.access == keeper_token and view.secrets.previous == rotating(0)


async def test_R22_a_token_is_renewed_shortly_before_its_end(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    clock.advance(10 * DAY - 601)
    await stage.keeper.access_token(account)
    assert len(stage.server.sent) == 1

    clock.advance(2)
    await stage.keeper.access_token(account)

    assert stage.server.sent == [rotating(0), rotating(1)]


async def test_a_refused_token_is_renewed_once_for_all_who_saw_it(stage: Stage) -> None:
    account = await stage.signed_in()

    tokens = [await stage.keeper.access_token(account, force=True) for _ in range(3)]
    tokens += await asyncio.gather(*(stage.keeper.access_token(account, force=True) for _ in range(5)))

    assert len(set(tokens)) == 1
    assert len(stage.server.sent) == 2


async def test_who_is_refused_is_not_served_by_a_flight_that_fell_back(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    clock.advance(10 * DAY - 100)
    stage.server.answers = [UpstreamServerError("", upstream_status=503)]
    stage.server.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    early = loop.create_task(stage.keeper.access_token(account))
    await asyncio.wait_for(stage.server.waits.wait(), 10)
    refused = loop.create_task(stage.keeper.access_token(account, force=True))
    await asyncio.sleep(0)
    stage.server.gate.set()

    assert await early is not None
    with pytest.raises(AccountLimitedError):
        await refused


async def test_a_device_has_no_token_and_a_share_token_never_ends(stage: Stage) -> None:
    device = await add(stage.records, NewAccount("device", Secrets(), device_id="0f8fad5b-d9cb-469f-a165-70867728950e"))
    share = await add(stage.records, NewAccount("share", Secrets(access="fk-x")))

    assert await stage.keeper.access_token(device) is None
    assert await stage.keeper.access_token(share) == "fk-x"


@pytest.mark.parametrize("force", [False, True])
async def test_an_access_token_alone_that_ended_or_is_refused_needs_a_sign_in(
    stage: Stage, clock: FakeClock, force: bool
) -> None:
    token = access_token(expires_at=clock.now() + 100)
    account = await add(stage.records, replace(new_account(0, access=token), expires_at=clock.now() + 100))
    assert await stage.keeper.access_token(account) == token
    if not force:
        clock.advance(101)

    with pytest.raises(AccountRejectedError) as caught:
        await stage.keeper.access_token(account, force=force)

    assert caught.value.reason == "no_refresh_token"
    after = await stage.records.account(account.id)
    assert after is not None and (after.state, after.reason) == ("needs_sign_in", "no_refresh_token")
    assert stage.server.sent == []


@pytest.mark.parametrize("reason", ["invalid_grant", "refresh_token_reused", "account_deactivated"])
async def test_only_an_answer_about_the_token_ends_the_sign_in(stage: Stage, reason: str) -> None:
    stage.server.answers = [AccountRejectedError("", reason=reason)]
    account = await stage.account()

    with pytest.raises(AccountRejectedError):
        await stage.keeper.access_token(account)

    assert await stage.stored() == (rotating(0), "needs_sign_in")
    assert await stage.records.doubts() == ()
    assert stage.keeper.reused_total == (reason == "refresh_token_reused")
    with pytest.raises(AccountRejectedError):
        await stage.keeper.access_token(account)
    assert len(stage.server.sent) == 1


ANSWERS: dict[str, Callable[[], Chat2APIError]] = {
    "no exit": lambda: AllAccountsCoolingError("", retry_after=5),
    "429": lambda: AccountLimitedError(""),
    "429 with a time": lambda: AccountLimitedError("", retry_after=30),
    "500": lambda: UpstreamServerError("", upstream_status=500),
    "page": lambda: ChallengedError("", scope="exit"),
    "html": lambda: UpstreamProtocolError(""),
    "no connection": lambda: TransportError(""),
    "connect timeout": lambda: UpstreamTimeoutError("", phase="connect"),
    "timeout": lambda: UpstreamTimeoutError("", phase="headers"),
    "empty": lambda: TransportError("", phase="body", request_sent=True),
    "truncated": lambda: TransportError("", phase="body", request_sent=True),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_R29_a_hundred_answers_that_say_nothing_kill_no_account(
    stage: Stage, clock: FakeClock, name: str
) -> None:
    account = await stage.signed_in()
    present = await stage.keeper.access_token(account)
    clock.advance(10 * DAY - 300)
    stage.server.answers = [ANSWERS[name]() for _ in range(100)]

    for _ in range(100):
        assert await stage.keeper.access_token(account) == present
        clock.advance(2)

    renewable, state = await stage.stored()
    assert renewable == rotating(1)
    assert state in ("ok", "in_doubt")
    unknown = name in ("timeout", "empty", "truncated")
    assert stage.keeper.in_doubt_total == unknown
    # A guess pauses for a minute at first and a stated time for as long as it says; in doubt, there are two tries.
    attempts = len(stage.server.sent) - 1
    assert attempts == 2 if unknown else 1 <= attempts <= 40


async def test_a_failed_refresh_without_a_living_token_cools_the_account(stage: Stage, clock: FakeClock) -> None:
    account = await stage.account()
    pool = AccountPool(stage.records, clock)
    await pool.start()
    keeper = stage.make_keeper(on_wait=pool.cool)
    stage.server.answers = [UpstreamServerError("", upstream_status=503) for _ in range(2)]

    for seconds in (60, 120):
        with pytest.raises(UpstreamServerError):
            await keeper.access_token(account)
        with pytest.raises(AllAccountsCoolingError) as caught:
            await pool.lease(model="gpt")
        assert caught.value.retry_after == pytest.approx(seconds)
        with pytest.raises(AccountLimitedError) as paused:
            await keeper.access_token(account)
        assert paused.value.retry_after == pytest.approx(seconds)
        clock.advance(seconds)

    assert await keeper.access_token(account) is not None
    assert len(stage.server.sent) == 3


async def test_a_wait_without_measure_that_the_sign_in_server_states_ends_within_a_week(
    stage: Stage, clock: FakeClock
) -> None:
    account = await stage.account()
    stage.server.answers = [AccountLimitedError("", retry_after=1e12)]
    with pytest.raises(AccountLimitedError):
        await stage.keeper.access_token(account)

    clock.advance(7 * DAY)

    assert await stage.keeper.access_token(account) is not None


async def test_R26_silence_is_flagged_and_the_same_token_sent_once_more(stage: Stage) -> None:
    stage.server.answers = [SILENCE, SILENCE]
    account = await stage.account()

    with pytest.raises(UpstreamTimeoutError):
        await stage.keeper.access_token(account)

    assert stage.server.sent == [rotating(0)] * 2
    assert await stage.stored() == (rotating(0), "in_doubt")
    for _ in range(3):
        with pytest.raises(AccountRejectedError) as caught:
            await stage.keeper.access_token(account)
        assert caught.value.reason == "in_doubt"
    assert len(stage.server.sent) == 2
    assert (await stage.stored())[1] == "needs_sign_in"


async def test_R26_in_doubt_the_access_token_serves_until_its_end(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    present = await stage.keeper.access_token(account)
    clock.advance(10 * DAY - 300)
    stage.server.answers = [SILENCE, REUSED]
    assert await stage.keeper.access_token(account) == present
    assert await stage.stored() == (rotating(1), "in_doubt")

    clock.advance(200)
    assert await stage.keeper.access_token(account) == present
    clock.advance(101)
    with pytest.raises(AccountRejectedError):
        await stage.keeper.access_token(account)

    assert await stage.stored() == (rotating(1), "needs_sign_in")
    assert stage.server.sent == [rotating(0), rotating(1), rotating(1)]


async def test_the_operators_word_lets_a_doubted_token_be_sent_again(stage: Stage) -> None:
    stage.server.answers = [SILENCE, SILENCE]
    account = await stage.account()
    with pytest.raises(UpstreamTimeoutError):
        await stage.keeper.access_token(account)

    again = await add(stage.records, new_account(0), stage.clock.now())

    assert again.state == "ok"
    assert await stage.keeper.access_token(again) is not None
    assert (await stage.stored())[1] == "ok"


@pytest.mark.parametrize("answer", [REUSED, SILENCE])
async def test_R29_what_befalls_a_token_is_not_said_of_the_one_imported_meanwhile(
    stage: Stage, answer: Chat2APIError
) -> None:
    account = await add(stage.records, new_account(0, user="user-1"), stage.clock.now())
    stage.server.answers = [answer, answer]
    stage.server.gate = asyncio.Event()
    asking = asyncio.ensure_future(stage.keeper.access_token(account))
    await stage.server.waits.wait()
    await add(stage.records, new_account(7, user="user-1"), stage.clock.now())

    stage.server.gate.set()
    with pytest.raises(Chat2APIError):
        await asking

    assert await stage.stored() == (rotating(7), "ok")
    stage.server.answers = []
    assert await stage.keeper.access_token(await stage.account()) is not None


async def test_R29_a_list_imported_again_while_a_token_is_out_costs_no_token(stage: Stage) -> None:
    account = await stage.account()
    stage.server.gate = asyncio.Event()
    asking = asyncio.ensure_future(stage.keeper.access_token(account))
    await stage.server.waits.wait()
    await add(stage.records, new_account(0), stage.clock.now())

    stage.server.gate.set()

    assert await asking is not None
    assert await stage.stored() == (rotating(1), "ok")


async def test_a_server_that_does_not_rotate_leaves_no_doubt(stage: Stage, clock: FakeClock) -> None:
    stage.server.answers = [RefreshAnswer(stage.server.access(), None), SILENCE]
    account = await stage.signed_in()
    assert account.rotates is False
    clock.advance(10 * DAY)

    with pytest.raises(UpstreamTimeoutError):
        await stage.keeper.access_token(account)

    assert await stage.stored() == (rotating(0), "ok")
    assert await stage.records.doubts() == ()


@pytest.mark.parametrize(("age", "tries"), [(0, 1), (3, 1), (29, 1), (30, 0), (3600, 0), (-5, 0)])
async def test_R26_a_former_processs_intent_is_tried_once_within_30_s(
    stage: Stage, clock: FakeClock, age: float, tries: int
) -> None:
    account = await stage.account()
    assert await stage.records.begin_refresh(account, "dead", clock.now() - age) is not None

    left = await stage.keeper.recover()

    assert stage.server.sent == [rotating(0)] * tries
    assert left == 1 - tries
    assert (await stage.stored())[1] == ("ok" if tries else "needs_sign_in")


async def test_R26_a_fresh_access_token_does_not_hide_the_doubt(stage: Stage, clock: FakeClock) -> None:
    account = await stage.signed_in()
    assert await stage.records.begin_refresh(account, "dead", clock.now() - 60) is not None

    assert await stage.keeper.recover() == 1

    assert await stage.stored() == (rotating(1), "in_doubt")
    assert await stage.keeper.access_token(account) is not None
    assert len(stage.server.sent) == 1


async def test_an_intent_of_a_host_that_may_live_is_waited_for(stage: Stage, clock: FakeClock) -> None:
    account = await stage.account()
    assert await stage.records.begin_refresh(account, "elsewhere", clock.now()) is not None
    keeper = stage.make_keeper(is_alive=lambda replica: True)
    started = clock.now()

    await keeper.recover()

    assert 25 <= clock.now() - started < 26
    assert await stage.stored() == (rotating(1), "ok")


async def test_R27_what_another_replica_renewed_meanwhile_is_taken(stage: Stage, clock: FakeClock) -> None:
    account = await stage.account()
    other = stage.make_keeper()
    theirs = await other.access_token(account)

    assert await stage.keeper.access_token(account) == theirs
    assert await stage.keeper.access_token(account, force=True) == theirs
    assert len(stage.server.sent) == 1


async def test_R27_two_replicas_at_once_send_one_token(stage: Stage) -> None:
    account = await stage.account()
    keepers = [stage.make_keeper(is_alive=lambda replica: True) for _ in range(5)]

    tokens = await asyncio.gather(*(keeper.access_token(account) for keeper in keepers))

    assert len(set(tokens)) == 1
    assert stage.server.sent == [rotating(0)]


async def test_R18_without_a_writable_store_nothing_is_sent(
    stage: Stage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await stage.signed_in()
    clock.advance(10 * DAY - 300)

    async def refuse(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(stage.records, "begin_refresh", refuse)
    assert await stage.keeper.access_token(account) is not None
    clock.advance(300)
    with pytest.raises(StorageError):
        await stage.keeper.access_token(account)

    assert len(stage.server.sent) == 1
    monkeypatch.undo()
    assert await stage.keeper.access_token(account) is not None


@pytest.mark.parametrize("failures", [1, 19, 20, 45])
async def test_R18_a_pair_that_the_disk_refused_is_kept_and_stored_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    account = await stage.account()
    real, left = stage.records.complete_refresh, [failures]

    async def refuse(*arguments: Any) -> Account | None:
        if left[0] > 0:
            left[0] -= 1
            raise StorageError("full")
        return await real(*arguments)

    monkeypatch.setattr(stage.records, "complete_refresh", refuse)
    token = None
    while token is None:
        try:
            token = await stage.keeper.access_token(account)
        except StorageError:
            assert left[0] < failures

    assert await stage.stored() == (rotating(1), "ok")
    assert stage.server.sent == [rotating(0)]


async def test_R30_an_older_copy_refuses_to_refresh_until_confirmed(tmp_path: Path, clock: FakeClock) -> None:
    first = await SqlRecords.open(tmp_path / "data")
    await add(first, new_account(0))
    await first.backup(tmp_path / "copy.db")
    await first.aclose()
    (tmp_path / "copy.db").replace(tmp_path / "data" / DATABASE_NAME)
    records = await SqlRecords.open(tmp_path / "data")
    stage = Stage(records, clock)

    with pytest.raises(AccountRejectedError) as caught:
        await stage.keeper.access_token(await stage.account())
    assert caught.value.reason == "restored_copy"
    assert stage.server.sent == []
    assert (await stage.stored())[1] == "ok"

    await records.confirm_restored()
    assert await stage.keeper.access_token(await stage.account()) is not None
    await records.aclose()


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_R21_a_jump_of_the_clock_costs_at_most_one_refresh(records: SqlRecords, jump: float) -> None:
    clock = FakeClock()
    stage = Stage(records, clock)
    stage.server.life = 3600
    account = await stage.signed_in()
    clock.jumped, stage.server.skew = jump, -jump

    for _ in range(20):
        await stage.keeper.access_token(account)
        clock.advance(60)

    assert len(stage.server.sent) <= 2


async def test_an_account_that_was_removed_has_no_token(stage: Stage) -> None:
    account = await stage.account()
    await stage.records.delete_accounts([account.id], 0)

    with pytest.raises(AccountRejectedError):
        await stage.keeper.access_token(account)
    assert stage.server.sent == []


async def test_what_is_kept_of_accounts_that_are_gone_is_dropped(stage: Stage) -> None:
    account = await stage.signed_in()
    token = await stage.keeper.access_token(account)
    await stage.records.delete_accounts([account.id], stage.clock.now())
    await stage.records.sweep(stage.clock.now() + DAY)
    stage.keeper.forget_others({account.id})
    assert await stage.keeper.access_token(account) == token

    stage.keeper.forget_others(frozenset())

    with pytest.raises(AccountRejectedError):
        await stage.keeper.access_token(account)


async def test_R28_commits_are_timed(stage: Stage) -> None:
    await stage.signed_in()

    assert len(stage.keeper.commit_seconds) == 1


async def test_R29_a_refresh_that_reveals_a_known_user_merges(stage: Stage, clock: FakeClock) -> None:
    await add(stage.records, new_account(5, user="user-1"))
    pool = AccountPool(stage.records, clock)
    account = await stage.account()
    await pool.start()
    keeper = stage.make_keeper(on_change=pool.put)

    await keeper.access_token(account)
    await pool.reload()

    assert [view.account.id for view in pool.views()] == [account.id]


def kill(folder: Path, server: str, kills: int, moments: int) -> dict[str, int]:
    """Kill that many processes in the middle of refreshes and give what became of the tokens."""
    command = [sys.executable, "-m", "tests.accounts.kill_cycles", str(folder), server, str(kills), str(moments), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def check_overlap(outcome: dict[str, int]) -> None:
    """Nothing lost, nothing unreadable, nobody has to sign in again."""
    assert (outcome["lost"], outcome["unreadable"], outcome["in_doubt"]) == (0, 0, 0)


def check_strict(outcome: dict[str, int]) -> None:
    """Nothing lost silently: all in doubt are flagged, and a consumed token was sent once more at most."""
    assert (outcome["lost"], outcome["unreadable"]) == (0, 0)
    assert outcome["flagged"] == outcome["in_doubt"] > 0
    assert outcome["resent"] <= outcome["in_doubt"]


def test_F10_R25_killed_at_every_point_no_token_is_lost(tmp_path: Path) -> None:
    outcome = kill(tmp_path, "overlap", 20, 20)

    assert 20 <= outcome["kills"] <= 40, "a cycle may end before its moment comes"
    check_overlap(outcome)


def test_R26_killed_at_every_point_before_a_strict_server_no_token_is_lost_silently(tmp_path: Path) -> None:
    outcome = kill(tmp_path, "strict", 20, 20)

    assert 20 <= outcome["kills"] <= 40, "a cycle may end before its moment comes"
    check_strict(outcome)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_T2_R25_hundreds_of_kills_lose_no_token(tmp_path: Path) -> None:
    check_overlap(kill(tmp_path, "overlap", 13 * 20, 200))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_T2_R26_hundreds_of_kills_before_a_strict_server_lose_no_token_silently(tmp_path: Path) -> None:
    check_strict(kill(tmp_path, "strict", 13 * 20, 200))
