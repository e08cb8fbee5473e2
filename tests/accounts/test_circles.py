"""`chat2api/accounts/circles.py`."""

import random
from dataclasses import replace

import pytest

from chat2api.accounts.circles import Circle, Circles, Scope
from chat2api.accounts.entries import Entry, Wait
from chat2api.accounts.selection import OrderedRing
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Cooldown
from tests.clocks import FakeClock
from tests.storage.accounts import new_account


@pytest.fixture
async def entries(records: SqlRecords) -> dict[str, Entry]:
    """Six accounts: the even ones in the group `even`, the last three in workspace `team`, and one of a caller."""
    new = [new_account(number, workspace="team" if number > 2 else None) for number in range(6)]
    added = await records.add_accounts([*new, new_account(9, owner="caller")], 0.0)
    found = {}
    for number, one in enumerate(added):
        groups = ("even",) if number % 2 == 0 else ()
        found[one.account.id] = Entry(replace(one.account, groups=groups))
    return found


@pytest.fixture
def circles(entries: dict[str, Entry], clock: FakeClock) -> Circles:
    """Circles of those accounts, one request at a time each."""
    return Circles(entries, OrderedRing, clock.monotonic, 1, capacity=8)


def ready(circle: Circle) -> set[str]:
    return {account_id for account_id in circle.members if account_id in circle.ready}


def block(entry: Entry, ends: float, model: str = "*") -> None:
    entry.waits[model] = Wait(ends, Cooldown(entry.account.id, model, ends, True, "stated_limit"))


async def test_a_scope_holds_those_that_meet_all_of_it(circles: Circles, entries: dict[str, Entry]) -> None:
    ids = list(entries)

    for scope, members in (
        (Scope(), ids[:6]),
        (Scope(workspace="team"), ids[3:6]),
        (Scope(group="even"), [ids[0], ids[2], ids[4]]),
        (Scope("team", "even"), [ids[4]]),
        (Scope(allowed=frozenset([ids[5], ids[0], ids[6], "acc_unknown"])), [ids[0], ids[5]]),
        (Scope(allowed=frozenset()), []),
        (Scope(group="nobody"), []),
    ):
        circle = circles.circle(scope, None)
        assert list(circle.members) == members
        assert [circle.ready.pick(()) for _ in members] == members


async def test_members_are_ready_busy_or_waiting(circles: Circles, entries: dict[str, Entry], clock: FakeClock) -> None:
    circle = circles.circle(Scope(), "gpt")
    busy, waiting, other, *rest = list(entries)[:6]
    entries[busy].in_flight = 1
    block(entries[waiting], clock.monotonic() + 60, "gpt")
    block(entries[other], clock.monotonic() + 60, "another")
    for account_id in entries:
        circles.place(entries[account_id])

    assert (ready(circle), circle.busy) == ({other, *rest}, {busy})
    assert circle.soonest(()) == 0
    assert circle.soonest({busy, other, *rest}) == pytest.approx(clock.monotonic() + 60)

    entries[busy].in_flight = 0
    clock.advance(60)
    for account_id in (busy, waiting):
        circles.place(entries[account_id])
    assert (ready(circle), circle.busy) == (set(list(entries)[:6]), set())


async def test_the_soonest_end_is_known_after_each_change(
    circles: Circles, entries: dict[str, Entry], clock: FakeClock
) -> None:
    circle = circles.circle(Scope(), None)
    for number, entry in enumerate(entries.values()):
        block(entry, clock.monotonic() + 100 + number)
        circles.place(entry)
    assert circle.soonest(()) == pytest.approx(clock.monotonic() + 100)

    block(list(entries.values())[3], clock.monotonic() + 7)
    circles.place(list(entries.values())[3])

    assert circle.soonest(()) == pytest.approx(clock.monotonic() + 7)
    assert circles.circle(Scope(group="nobody"), None).soonest(()) is None


async def test_a_changed_account_changes_its_circles(circles: Circles, entries: dict[str, Entry]) -> None:
    everybody, even = circles.circle(Scope(), None), circles.circle(Scope(group="even"), None)
    first, second = list(entries.values())[:2]
    first.account = replace(first.account, groups=())
    second.account = replace(second.account, groups=("even",))
    for entry in (first, second):
        circles.move(entry)
    assert first.account.id not in even.members and first.account.id in everybody.members
    assert second.account.id in ready(even)

    second.account = replace(second.account, state="disabled")
    circles.move(second)
    entries.pop(first.account.id)
    circles.move(first)

    for circle in (everybody, even):
        assert not {first.account.id, second.account.id} & {*circle.members, *ready(circle), *circle.busy}


async def test_only_so_many_circles_are_kept_and_empty_ones_never(circles: Circles, entries: dict[str, Entry]) -> None:
    ids = list(entries)
    for _ in range(3):
        for number in range(20):
            circles.circle(Scope(workspace=f"nobody's {number}"), None)
        for number in range(6):
            circles.circle(Scope(allowed=frozenset(ids[number:])), "gpt")
    kept = circles.circle(Scope(), None)
    for number in range(6):
        circles.circle(Scope(allowed=frozenset(ids[number : number + 1])), None)
        assert circles.circle(Scope(), None) is kept
    assert len(circles) == 8

    circles.drop_model("gpt")
    assert len(circles) <= 7
    assert circles.circle(Scope(), None) is kept


async def test_loads_are_even_whatever_comes_and_goes(
    circles: Circles, entries: dict[str, Entry], clock: FakeClock
) -> None:
    rng = random.Random(4)
    circle, own = circles.circle(Scope(), None), list(entries)[:6]
    load: dict[str, int] = {}
    for _ in range(3000):
        entry = entries[rng.choice(own)]
        match rng.randrange(4):
            case 0:
                block(entry, clock.monotonic() + rng.choice((0, 1000)))
                circles.place(entry)
            case 1 if load.get(entry.account.id):
                load[entry.account.id] -= 1
                circles.load_fell(entry.account.id, load[entry.account.id])
            case _:
                exclude = set(rng.sample(own, rng.randrange(4)))
                chosen = circle.least_loaded(load, exclude)
                could = ready(circle) - exclude
                if chosen is None:
                    assert not could
                    continue
                assert chosen in could
                assert load.get(chosen, 0) == min(load.get(account_id, 0) for account_id in could)
                load[chosen] = load.get(chosen, 0) + 1
    assert sum(load.values()) > 500
