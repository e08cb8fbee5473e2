"""A day in hours: what is counted, what is forgotten, and how right its waits are."""

import pytest

from chat2api.api.hours import HOURS, HourlyCounts, quantile
from tests.clocks import FakeClock


def test_each_hour_has_its_own_numbers_and_the_empty_ones_are_there() -> None:
    clock = FakeClock()
    counts = HourlyCounts(clock)
    counts.add(failed=False, tokens=10, first=0.5)
    counts.add(failed=True, tokens=2, first=0.5)
    counts.add(failed=True, tokens=0, first=None)
    clock.advance(2 * 3600)
    counts.add(failed=False, tokens=5, first=1.0)
    hours = counts.hours()
    assert len(hours) == HOURS
    assert [(hour.answered, hour.failed, hour.tokens) for hour in hours[-3:]] == [(2, 2, 12), (0, 0, 0), (1, 0, 5)]
    assert sum(hour.answered for hour in hours) == 3
    assert hours[-1].begins_at <= clock.now() < hours[-1].begins_at + 3600


def test_what_is_older_than_a_day_is_forgotten() -> None:
    clock = FakeClock()
    counts = HourlyCounts(clock)
    for number in range(100):
        counts.add(failed=False, tokens=number, first=0.1)
        clock.advance(3600)
    assert [hour.tokens for hour in counts.hours()] == [*range(77, 100), 0]
    assert len(counts._hours) == HOURS, "memory is bounded"


def test_uptime_and_start_are_told() -> None:
    clock = FakeClock()
    start = clock.now()
    counts = HourlyCounts(clock)
    clock.advance(90)
    assert (counts.since_at, counts.uptime) == (start, 90)


@pytest.mark.parametrize("seconds", [0.0005, 0.004, 0.05, 0.3, 1.0, 7.7, 60.0, 800.0])
def test_a_quantile_is_at_most_a_tenth_too_high_and_never_too_low(seconds: float) -> None:
    counts = HourlyCounts(FakeClock())
    for _ in range(10):
        counts.add(failed=False, tokens=0, first=seconds)
    for share in (0.01, 0.5, 0.95, 1.0):
        found = quantile(counts.hours(), share)
        assert found is not None
        assert seconds * (1 - 1e-9) <= found <= max(seconds * 1.1 * (1 + 1e-9), 0.001)


def test_quantiles_tell_the_few_from_the_many() -> None:
    counts = HourlyCounts(FakeClock())
    for place in range(100):
        counts.add(failed=False, tokens=0, first=20.0 if place < 10 else 0.2)
    half, most = quantile(counts.hours(), 0.5), quantile(counts.hours(), 0.95)
    assert half == pytest.approx(0.2, rel=0.11)
    assert most == pytest.approx(20, rel=0.11)


def test_without_answers_there_is_no_quantile_and_a_wait_without_end_is_still_counted() -> None:
    counts = HourlyCounts(FakeClock())
    counts.add(failed=True, tokens=0, first=None)
    assert quantile(counts.hours(), 0.5) is None
    counts.add(failed=False, tokens=0, first=1e9)
    assert quantile(counts.hours(), 0.5) == pytest.approx(900, rel=0.2)
