"""The retry budget: by itself, and under a backend that fails for a minute."""

import heapq
import itertools
import random

import pytest

from chat2api.accounts.budget import LEAST_RETRIES, BudgetShare, RetryBudget
from chat2api.accounts.health import Attempts, judge
from chat2api.errors import UpstreamProtocolError


def test_R4_a_quiet_server_may_try_three_at_once() -> None:
    budget = RetryBudget()
    shares = [budget.admit() for _ in range(5)]

    assert [share.__enter__().retry() for share in shares] == [True] * LEAST_RETRIES + [False] * 2
    assert (budget.made, budget.refused, budget.retrying, budget.waiting) == (3, 2, 3, 5)


def test_R4_a_busy_server_may_try_a_fifth_at_once() -> None:
    budget = RetryBudget()
    shares = [budget.admit().__enter__() for _ in range(100)]

    assert sum([share.retry() for share in shares]) == 20


def test_R4_a_request_holds_one_retry_at_a_time_and_gives_it_back() -> None:
    budget = RetryBudget()
    with budget.admit() as share:
        assert [share.retry() for _ in range(10)] == [True] * 10
        assert (budget.retrying, budget.waiting, budget.made) == (1, 1, 10)
    assert (budget.retrying, budget.waiting) == (0, 0)


def test_R4_answers_that_have_begun_lend_nothing() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        share = budget.admit().__enter__()
        assert share.retry(), "the ones before have begun"
        share.begin()
        share.begin()
    assert (budget.retrying, budget.waiting) == (0, 0)


def test_R4_what_is_owed_is_made_and_leaves_less_to_others() -> None:
    budget = RetryBudget()
    shares = [budget.admit().__enter__() for _ in range(4)]

    assert [share.retry(owed=True) for share in shares] == [True] * 4
    assert not budget.admit().retry()
    assert (budget.made, budget.refused) == (4, 1)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.3, 2.0, 10.0, 30.0])
@pytest.mark.parametrize("retry_times", [3, 10])
def test_R4_a_minute_of_failures_costs_at_most_a_quarter_more_calls(seconds: float, retry_times: int) -> None:
    """50 requests a second for 60 s, each call of which fails after that many seconds; pauses as they are."""
    rng, budget, calls = random.Random(4), RetryBudget(), 0
    numbers = itertools.count()
    error = UpstreamProtocolError("")
    verdict = judge(error, model="gpt")
    due: list[tuple[float, int, BudgetShare, Attempts | None]] = []
    for number in range(3000):
        heapq.heappush(due, (number / 50, next(numbers), budget.admit(), None))
    while due:
        now, _, share, attempts = heapq.heappop(due)
        if attempts is None:
            calls += 1
            attempts = Attempts(retry_times, share.__enter__())
        else:
            decision = attempts.decide(error, verdict, f"account {next(numbers)}", jitter=rng.random())
            if decision.action == "stop":
                share.__exit__(None, None, None)
                continue
            calls += 1
            now += decision.delay
        heapq.heappush(due, (now + seconds, next(numbers), share, attempts))

    assert 3000 < calls <= 3000 * 1.25
    assert (budget.retrying, budget.waiting) == (0, 0)
