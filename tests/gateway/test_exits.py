"""Ways out: stable for an account, at rest after failures, back when they recover."""

import pytest

from chat2api.errors import AllAccountsCoolingError, ChallengedError, TransportError
from chat2api.gateway.exits import Exits
from tests.clocks import FakeClock

PROXIES = ("http://a:1", "http://b:1", "socks5://c:1")


def make(clock: FakeClock, proxies: tuple[str, ...] = PROXIES) -> Exits:
    return Exits(("https://one.test",), proxies, clock)


def test_an_account_keeps_its_exit_and_accounts_spread() -> None:
    exits = make(FakeClock())
    picks = {f"account-{n}": exits.pick(f"account-{n}") for n in range(60)}
    assert all(exits.pick(account) == way for account, way in picks.items())
    assert {way.proxy for way in picks.values()} == set(PROXIES)


def test_adding_a_proxy_moves_few_accounts() -> None:
    before, after = make(FakeClock()), make(FakeClock(), (*PROXIES, "http://d:1"))
    moved = sum(before.pick(f"a{n}") != after.pick(f"a{n}") for n in range(400))
    assert moved < 400 * 0.4


def test_R3_an_exit_that_cannot_connect_rests_and_the_account_returns_to_it() -> None:
    clock = FakeClock()
    exits = make(clock)
    first = exits.pick("a")
    exits.report(first, TransportError("refused", phase="proxy"))
    assert exits.pick("a") != first
    clock.advance(31)
    assert exits.pick("a") == first


def test_R3_rests_double_up_to_five_minutes_and_a_success_ends_them() -> None:
    clock = FakeClock()
    exits = make(clock)
    first = exits.pick("a")
    pauses = []
    for _ in range(6):
        exits.report(first, TransportError("refused", phase="connect"))
        start = clock.monotonic()
        while exits.pick("a") != first:
            clock.advance(1)
        pauses.append(round(clock.monotonic() - start))
    assert pauses == [30, 60, 120, 240, 300, 300]
    exits.report(first, None)
    exits.report(first, TransportError("refused", phase="connect"))
    clock.advance(30)
    assert exits.pick("a") == first


def test_with_nothing_better_a_resting_exit_is_still_tried() -> None:
    exits = make(FakeClock(), ())
    only = exits.pick("a")
    exits.report(only, TransportError("refused", phase="connect"))
    assert exits.pick("a") == only


def test_R3_a_distrusted_exit_is_left_alone_and_the_wait_is_told() -> None:
    clock = FakeClock()
    exits = make(clock, ())
    exits.report(exits.pick("a"), ChallengedError("unusual activity", scope="exit"))
    with pytest.raises(AllAccountsCoolingError) as caught:
        exits.pick("a")
    assert caught.value.retry_after == pytest.approx(60)
    clock.advance(61)
    exits.pick("a")


def test_a_human_check_of_the_account_does_not_rest_the_exit() -> None:
    exits = make(FakeClock(), ())
    only = exits.pick("a")
    exits.report(only, ChallengedError("turnstile", scope="account"))
    assert exits.pick("a") == only


def test_failures_of_the_answer_do_not_rest_the_exit() -> None:
    exits = make(FakeClock())
    first = exits.pick("a")
    exits.report(first, TransportError("reset", phase="body", request_sent=True))
    assert exits.pick("a") == first


def test_the_exit_to_avoid_is_avoided_where_there_is_another() -> None:
    exits = make(FakeClock())
    first = exits.pick("a")
    assert exits.pick("a", avoid=first) != first
    alone = make(FakeClock(), ())
    assert alone.pick("a", avoid=alone.pick("a")) == alone.pick("a")
