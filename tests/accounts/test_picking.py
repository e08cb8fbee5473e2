"""`chat2api/accounts/picking.py`."""

import asyncio
import random
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from chat2api.accounts.circles import Scope
from chat2api.accounts.entries import Entry, Wait
from chat2api.accounts.picking import Picker, QueueLimits, Want
from chat2api.errors import AllAccountsCoolingError, NoAccountError
from chat2api.storage.values import Account, AccountState, Cooldown
from tests.clocks import FakeClock


def account(number: int, state: AccountState = "ok", *, owner: str | None = None, generation: int = 0) -> Account:
    """An account as the records would have it."""
    return Account(
        id=f"acc_{number}",
        label=str(number),
        kind="refresh",
        state=state,
        reason=None,
        state_at=0.0,
        plan=None,
        user_id=None,
        workspace_id=None,
        home_workspace_id=None,
        email=None,
        device_id="device",
        expires_at=None,
        generation=generation,
        added_at=0.0,
        owner=owner,
        rotates=None,
        deleted_at=None,
        revision=1,
        groups=("even",) if number % 2 == 0 else (),
    )


def make(
    accounts: list[Account], clock: FakeClock, *, in_order: bool = False, cap: int | None = 4, **limits: float
) -> tuple[Picker, dict[str, Entry]]:
    """A picker with these accounts, of which the later of two with one id wins."""
    entries: dict[str, Entry] = {}
    picker = Picker(
        entries,
        clock.monotonic,
        lambda model: model,
        rng=random.Random(7),
        in_order=in_order,
        cap=cap,
        limits=QueueLimits(**limits),  # type: ignore[arg-type]  # numbers by name
    )
    for one in accounts:
        entries[one.id] = Entry(one)
        picker.move(entries[one.id])
    return picker, entries


async def take(picker: Picker, *, affinity: str | None = None, owner: str = "", **want: object) -> str:
    """Take an account and give its id."""
    full = Want("gpt", Scope(), **want)  # type: ignore[arg-type]  # values by name
    return (await picker.take(full, affinity=affinity, owner=owner)).account.id


def block(picker: Picker, entry: Entry, ends: float, *, model: str = "gpt") -> None:
    entry.waits[model] = Wait(ends, Cooldown(entry.account.id, model, ends, True, "stated_limit"))
    picker.place(entry)


async def test_R29_the_pick_ends_for_ten_thousand_random_lists(clock: FakeClock) -> None:
    rng = random.Random(29)
    states: list[AccountState] = ["ok", "suspect", "in_doubt", "disabled", "needs_sign_in"]
    picked = refused = 0
    for _ in range(10_000):
        kind = rng.choice(["any", "all failed", "duplicates"])
        numbers = [rng.randrange(3 if kind == "duplicates" else 20) for _ in range(rng.randrange(12))]
        accounts = [account(number, "disabled" if kind == "all failed" else rng.choice(states)) for number in numbers]
        picker, entries = make(accounts, clock, in_order=rng.random() < 0.5, cap=2)
        for entry in entries.values():
            if rng.random() < 0.3:
                block(picker, entry, clock.monotonic() + rng.choice([5, 50]))
        exclude = {f"acc_{number}" for number in numbers if rng.random() < 0.2}
        could = {
            name
            for name, entry in entries.items()
            if entry.account.usable and name not in exclude and entry.blocked_until("gpt") <= clock.monotonic()
        }
        try:
            chosen = await take(picker, exclude=exclude, affinity=rng.choice([None, "someone"]))
        except (NoAccountError, AllAccountsCoolingError) as error:
            assert not could, error
            refused += 1
        else:
            assert chosen in could
            picked += 1
    assert min(picked, refused) > 1000


def count_lines(clock: FakeClock, accounts: int, *, in_order: bool, affinity: bool) -> list[int]:
    """Give how many lines of the package each of some picks executes, nine of ten accounts waiting."""
    picker, entries = make([account(number) for number in range(accounts)], clock, in_order=in_order)
    for number, entry in enumerate(entries.values()):
        if number % 10:
            block(picker, entry, clock.monotonic() + 1000)
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if "chat2api" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    async def some() -> list[int]:
        nonlocal lines
        counted = []
        for turn in range(60):
            lines = 0
            sys.settrace(trace)
            try:
                chosen = await take(picker, affinity=f"user {turn % 50}" if affinity else None)
            finally:
                sys.settrace(None)
            counted.append(lines)
            picker.give_back(entries[chosen])
        return counted[5:]

    return asyncio.run(some())


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("affinity", [True, False])
def test_a_pick_costs_the_same_for_ten_accounts_and_for_two_thousand(
    clock: FakeClock, in_order: bool, affinity: bool
) -> None:
    few = count_lines(clock, 50, in_order=in_order, affinity=affinity)
    many = count_lines(clock, 2000, in_order=in_order, affinity=affinity)

    assert max(many) <= max(few) + 10, (few, many)


async def test_users_are_spread_within_one_of_even_and_stay(clock: FakeClock) -> None:
    picker, _ = make([account(number) for number in range(7)], clock, cap=None)

    first = [await take(picker, affinity=f"user {number}") for number in range(100)]
    again = [await take(picker, affinity=f"user {number}") for number in range(100)]

    counts = Counter(first)
    assert again == first
    assert len(counts) == 7 and max(counts.values()) - min(counts.values()) <= 1


async def test_a_user_moves_while_their_account_is_not_well_and_only_then(clock: FakeClock) -> None:
    picker, entries = make([account(number) for number in range(3)], clock, cap=1)
    home = await take(picker, affinity="someone")

    helper = await take(picker, affinity="someone")
    assert helper != home, "busy, so another one helps out"
    for used in (home, helper):
        picker.give_back(entries[used])
    failed = await take(picker, affinity="someone", exclude={home})
    assert failed != home
    picker.give_back(entries[failed])
    assert await take(picker, affinity="someone") == home
    picker.give_back(entries[home])

    block(picker, entries[home], clock.monotonic() + 60)
    moved = await take(picker, affinity="someone")
    assert moved != home
    picker.give_back(entries[moved])
    clock.advance(61)
    picker.place(entries[home])
    assert await take(picker, affinity="someone") == moved


async def test_a_named_account_beyond_the_scope_is_none(clock: FakeClock) -> None:
    picker, _ = make([account(1), account(2), account(3, owner="caller")], clock)

    async def named(name: str, scope: Scope) -> str:
        return (await picker.take(Want("gpt", scope, name), affinity=None, owner="")).account.id

    assert await named("acc_1", Scope(allowed=frozenset(["acc_1"]))) == "acc_1"
    assert await named("acc_2", Scope(group="even")) == "acc_2"
    assert await named("acc_3", Scope(group="even")) == "acc_3", "a caller's own account is in no group"
    for name, scope in (("acc_1", Scope(allowed=frozenset(["acc_2"]))), ("acc_1", Scope(group="even"))):
        with pytest.raises(NoAccountError):
            await named(name, scope)
    with pytest.raises(NoAccountError, match="this key may use"):
        await picker.take(Want("gpt", Scope(allowed=frozenset())), affinity=None, owner="")


async def test_R8_callers_take_turns_when_all_accounts_are_busy(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1)
    (entry,) = entries.values()
    await take(picker)
    order: list[str] = []

    async def wait(owner: str) -> None:
        await take(picker, owner=owner)
        order.append(owner)
        picker.give_back(entry)

    async with asyncio.TaskGroup() as group:
        for owner in ["greedy"] * 5 + ["modest"] * 2:
            group.create_task(wait(owner))
        await asyncio.sleep(0)
        picker.give_back(entry)

    assert order == ["greedy", "modest", "greedy", "modest", "greedy", "greedy", "greedy"]
    assert entry.in_flight == 0


async def test_R8_sixty_four_of_one_caller_wait_and_the_next_is_told_so(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1)
    (entry,) = entries.values()
    await take(picker)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(take(picker, owner="greedy")) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(AllAccountsCoolingError, match="queue is full") as caught:
            await take(picker, owner="greedy")
        modest = group.create_task(take(picker, owner="modest"))
        await asyncio.sleep(0)
        assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
        for task in waiting:
            task.cancel()
        await asyncio.sleep(0)
        picker.give_back(entry)

    assert modest.result() == "acc_1"


async def test_a_newcomer_does_not_slip_in_before_those_who_wait(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1)
    (entry,) = entries.values()
    await take(picker)
    loop = asyncio.get_running_loop()
    waiting = loop.create_task(take(picker, owner="a"))
    await asyncio.sleep(0)

    picker.give_back(entry)
    newcomer = loop.create_task(take(picker, owner="b"))
    await asyncio.sleep(0)

    assert waiting.done() and not newcomer.done()
    picker.give_back(entry)
    assert await newcomer == "acc_1"


async def test_a_place_goes_to_the_one_who_can_use_it(clock: FakeClock) -> None:
    picker, entries = make([account(1), account(2)], clock, cap=1, seconds=5)
    for _ in range(2):
        await take(picker)
    loop = asyncio.get_running_loop()
    first = loop.create_task(take(picker, owner="a", account_id="acc_1"))
    second = loop.create_task(take(picker, owner="a"))
    await asyncio.sleep(0)

    picker.give_back(entries["acc_2"])

    assert await second == "acc_2"
    assert not first.done()
    picker.give_back(entries["acc_1"])
    assert await first == "acc_1"


async def test_those_who_wait_in_vain_are_told_at_once(clock: FakeClock) -> None:
    picker, entries = make([account(1), account(2)], clock, cap=1, seconds=5)
    for _ in range(2):
        await take(picker)
    loop = asyncio.get_running_loop()
    cooled = loop.create_task(take(picker, account_id="acc_1"))
    excluded = loop.create_task(take(picker, exclude={"acc_2"}))
    either = loop.create_task(take(picker))
    await asyncio.sleep(0)

    block(picker, entries["acc_1"], clock.monotonic() + 33)

    for task in (cooled, excluded):
        with pytest.raises(AllAccountsCoolingError) as caught:
            await task
        assert caught.value.retry_after == pytest.approx(33)
    assert not either.done()
    picker.give_back(entries["acc_2"])
    assert await either == "acc_2"


async def test_a_place_that_nobody_who_waits_may_use_ends_their_waiting(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1, seconds=5)
    await take(picker)
    block_other = asyncio.get_running_loop().create_task(
        picker.take(Want("gpt", Scope(), None, {"acc_2"}), affinity=None, owner="")
    )
    await asyncio.sleep(0)
    entries["acc_1"].waits["gpt"] = Wait(
        clock.monotonic() + 9, Cooldown("acc_1", "gpt", clock.now() + 9, True, "stated_limit")
    )

    picker.give_back(entries["acc_1"])

    with pytest.raises(AllAccountsCoolingError):
        await block_other


async def test_a_wait_that_ends_serves_the_queue(clock: FakeClock) -> None:
    picker, entries = make([account(1), account(2)], clock, cap=1, seconds=5)
    block(picker, entries["acc_1"], clock.monotonic() + 3)
    assert await take(picker) == "acc_2"
    waiting = asyncio.get_running_loop().create_task(take(picker))
    await asyncio.sleep(0)

    clock.advance(3)
    picker.place(entries["acc_1"])

    assert await waiting == "acc_1"


async def test_whoever_was_called_and_left_passes_the_account_on(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1, seconds=5)
    await take(picker)
    loop = asyncio.get_running_loop()
    first, second = loop.create_task(take(picker)), loop.create_task(take(picker))
    await asyncio.sleep(0)

    picker.give_back(entries["acc_1"])
    first.cancel()

    assert await second == "acc_1"
    assert entries["acc_1"].in_flight == 1


async def test_whoever_is_told_no_and_leaves_raises_nothing_unheard(clock: FakeClock) -> None:
    picker, entries = make([account(1)], clock, cap=1, seconds=5)
    await take(picker)
    waiting = asyncio.get_running_loop().create_task(take(picker))
    await asyncio.sleep(0)

    block(picker, entries["acc_1"], clock.monotonic() + 9)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
