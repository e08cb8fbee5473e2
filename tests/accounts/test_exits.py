"""`chat2api/accounts/exits.py`."""

import pytest

from chat2api.accounts.exits import MAX_FAILING, Exits
from chat2api.errors import AllAccountsCoolingError
from tests.clocks import FakeClock

THREE = ["http://one", "http://two", "http://three"]


def test_without_proxies_there_is_the_direct_way(clock: FakeClock) -> None:
    assert Exits([], clock).choose("account", "host") is None


def test_an_account_keeps_its_exit_and_accounts_are_spread(clock: FakeClock) -> None:
    exits = Exits(THREE, clock)

    chosen = {key: {exits.choose(key, "host") for _ in range(5)} for key in map(str, range(300))}

    assert all(len(found) == 1 for found in chosen.values())
    counts = [sum(one in found for found in chosen.values()) for one in THREE]
    assert min(counts) > 60


def test_an_exit_that_goes_moves_only_its_own_accounts(clock: FakeClock) -> None:
    before, after = Exits(THREE, clock), Exits(THREE[:2], clock)

    for key in map(str, range(100)):
        if before.choose(key, "host") != THREE[2]:
            assert after.choose(key, "host") == before.choose(key, "host")


def test_R3_an_unreachable_proxy_gives_way_for_30_s(clock: FakeClock) -> None:
    exits = Exits(THREE, clock)
    first = exits.choose("account", "host")
    exits.report(first, "host", "unreachable")

    other = exits.choose("account", "host")

    assert other != first
    assert exits.blocked_for(first, "host") == 30
    assert exits.blocked_for(first, "another host") == 0
    clock.advance(30)
    assert exits.choose("account", "host") == first


def test_R5_the_only_exit_is_not_closed_for_one_lost_connection(clock: FakeClock) -> None:
    exits = Exits([], clock)
    for _ in range(4):
        exits.report(None, "host", "unreachable")
    assert exits.choose("account", "host") is None

    exits.report(None, "host", "unreachable")

    with pytest.raises(AllAccountsCoolingError) as caught:
        exits.choose("account", "host")
    assert caught.value.retry_after == 30


def test_R3_a_distrusted_exit_rests_longer_each_time(clock: FakeClock) -> None:
    exits = Exits([], clock)
    lengths = []
    for _ in range(8):
        exits.report(None, "host", "distrusted")
        lengths.append(exits.blocked_for(None, "host"))
        clock.advance(lengths[-1])

    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_R3_after_its_rest_an_exit_gets_one_probe(clock: FakeClock) -> None:
    exits = Exits([], clock)
    exits.report(None, "host", "distrusted")
    clock.advance(60)
    assert exits.choose("first", "host") is None

    with pytest.raises(AllAccountsCoolingError):
        exits.choose("second", "host")

    exits.report(None, "host", None)
    assert exits.choose("second", "host") is None


def test_an_exit_that_failed_this_request_is_taken_only_for_want_of_another(clock: FakeClock) -> None:
    exits = Exits(THREE[:2], clock)
    first = exits.choose("account", "host")

    second = exits.choose("account", "host", avoid={first})

    assert second != first
    assert exits.choose("account", "host", avoid={first, second}) == first


def test_R7_a_rest_that_the_backend_stated_is_kept(clock: FakeClock) -> None:
    exits = Exits([], clock)

    exits.report(None, "host", "distrusted", seconds=3600)
    exits.report(None, "host", "distrusted")

    assert exits.blocked_for(None, "host") == 3600


def test_R5_statistics_never_close_more_than_half_of_the_exits(clock: FakeClock) -> None:
    exits = Exits(["http://one", "http://two", "http://three", "http://four"], clock)
    for _ in range(20):
        for one in ("http://one", "http://two", "http://three", "http://four"):
            exits.report(one, "host", None)
            exits.report(one, "host", "failing")

    assert sum(exits.blocked_for(f"http://{name}", "host") > 0 for name in ("one", "two", "three", "four")) == 2


def test_R3_a_probe_whose_caller_left_lets_another_be_the_probe(clock: FakeClock) -> None:
    exits = Exits([], clock)
    exits.report(None, "host", "distrusted")
    clock.advance(60)
    exits.choose("account", "host")
    with pytest.raises(AllAccountsCoolingError):
        exits.choose("another", "host")

    exits.abandon(None, "host")

    assert exits.choose("another", "host") is None
    exits.abandon(None, "another host")
    exits.report(None, "host", "distrusted")
    exits.abandon(None, "host")
    assert exits.blocked_for(None, "host") > 60


def test_R5_states_are_told_by_place_and_host_without_an_address(clock: FakeClock) -> None:
    exits = Exits(["http://someone:canary@one", "http://two"], clock)
    exits.report("http://two", "host", None)
    exits.report("http://someone:canary@one", "host", "unreachable")
    told = {one.name: (one.host, one.state, one.seconds) for one in exits.states()}
    assert told == {"1": ("host", "open", 30), "2": ("host", "closed", 0)}
    assert "canary" not in str(exits.states())
    clock.advance(30)
    assert {one.name: one.state for one in exits.states()} == {"1": "half_open", "2": "closed"}
    exits.report("http://someone:canary@one", "host", None)
    assert {one.state for one in exits.states()} == {"closed"}
    direct = Exits([], clock)
    direct.report(None, "host", None)
    assert [one.name for one in direct.states()] == ["direct"]


def test_R5_a_caller_whose_calls_all_fail_waits_alone(clock: FakeClock) -> None:
    exits = Exits([], clock)
    for _ in range(5):
        exits.choose("account", "host", who="one")
        exits.report(None, "host", "failing", who="one")

    with pytest.raises(AllAccountsCoolingError) as caught:
        exits.choose("account", "host", who="one")
    assert caught.value.retry_after == 30
    assert exits.choose("account", "host", who="two") is None
    assert exits.choose("account", "another host", who="one") is None
    clock.advance(30)
    assert exits.choose("account", "host", who="one") is None
    with pytest.raises(AllAccountsCoolingError):
        exits.choose("account", "host", who="one")
    exits.abandon(None, "host", who="one")
    exits.choose("account", "host", who="one")
    exits.report(None, "host", None, who="one")
    for _ in range(4):
        exits.report(None, "host", "failing", who="one")
    assert exits.choose("account", "host", who="one") is None


def test_R5_no_more_failing_callers_are_remembered_than_that(clock: FakeClock) -> None:
    exits = Exits([], clock)
    for number in range(MAX_FAILING + 500):
        exits.report(None, "host", "failing", who=f"caller {number}")
        exits.report(None, "host", None)

    assert len(exits._failing) == MAX_FAILING


def test_R5_a_crowd_without_keys_counts_as_one_and_each_of_it_waits_alone(clock: FakeClock) -> None:
    exits = Exits([], clock)
    for number in range(40):
        exits.report(None, "host", "failing", who=f"tier:free\0address {number % 8}")

    assert exits.choose("account", "host", who="tier:free\0address 9") is None
    assert exits.choose("account", "host", who="key") is None
    with pytest.raises(AllAccountsCoolingError):
        exits.choose("account", "host", who="tier:free\0address 1")
