"""`chat2api/accounts/health.py`: the retry table, row by row."""

import pytest

from chat2api.accounts.budget import RetryBudget
from chat2api.accounts.health import Attempts, Breaker, Decision, Verdict, Wait, double, judge
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AnswerElsewhereError,
    ChallengedError,
    Chat2APIError,
    ExitLimitedError,
    KeyForbiddenError,
    ProofTooHardError,
    RefusedError,
    StreamInterruptedError,
    TransportError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)

DAY = 24 * 3600.0

EXPIRED = AccountRejectedError("", reason="token_expired")
BAD_GATEWAY = UpstreamServerError("", upstream_status=502)
CUT = TransportError("", phase="headers", request_sent=True)


def limit(seconds: float | None) -> AccountLimitedError:
    return AccountLimitedError("", retry_after=seconds)


TABLE: list[tuple[str, Exception, Verdict]] = [
    ("connect", TransportError(""), Verdict(same_account=True, next_account=True, exit_fault="unreachable")),
    (
        "connect timeout",
        UpstreamTimeoutError("", phase="connect"),
        Verdict(same_account=True, next_account=True, exit_fault="unreachable"),
    ),
    ("expired", EXPIRED, Verdict(same_account=True, next_account=True, refresh=True)),
    (
        "deactivated",
        AccountRejectedError("", reason="account_deactivated"),
        Verdict(next_account=True, state=("needs_sign_in", "account_deactivated")),
    ),
    ("stated limit", limit(3600), Verdict(next_account=True, wait=Wait(3600, "gpt", True, "stated_limit"))),
    ("tiny limit", limit(0.01), Verdict(next_account=True, wait=Wait(1, "gpt", True, "stated_limit"))),
    ("endless limit", limit(1e9), Verdict(next_account=True, wait=Wait(7 * DAY, "gpt", True, "stated_limit"))),
    ("guessed limit", limit(None), Verdict(next_account=True, wait=Wait(60, "gpt", False, "guessed_limit"))),
    (
        "unusual activity",
        ChallengedError("", scope="both"),
        Verdict(wait=Wait(60, "*", False, "distrusted"), state=("suspect", "distrusted"), exit_fault="distrusted"),
    ),
    ("page of the network", ChallengedError("", scope="exit"), Verdict(exit_fault="distrusted")),
    ("limited exit", ExitLimitedError("", retry_after=90), Verdict(exit_fault="distrusted", exit_seconds=90)),
    ("human check", ChallengedError("", scope="account"), Verdict(wait=Wait(1800, "*", False, "human_check"))),
    ("502", BAD_GATEWAY, Verdict(same_account=True, next_account=True, exit_fault="failing")),
    ("not understood", UpstreamProtocolError(""), Verdict(next_account=True)),
    ("a key that may not", KeyForbiddenError(""), Verdict(next_account=True)),
    ("no status line", CUT, Verdict(next_account=True, exit_fault="failing", maybe_duplicate=True)),
    (
        "no answer in time",
        UpstreamTimeoutError("", phase="headers"),
        Verdict(next_account=True, exit_fault="failing", maybe_duplicate=True),
    ),
    ("refused request", UpstreamRefusedRequestError(""), Verdict()),
    ("policy", RefusedError(""), Verdict()),
    ("proof", ProofTooHardError(""), Verdict()),
    ("cut after content", StreamInterruptedError(""), Verdict(exit_fault="failing")),
    ("answer out of reach", AnswerElsewhereError(""), Verdict()),
    ("our own", Chat2APIError(""), Verdict()),
    ("a bug", ValueError(), Verdict()),
]


@pytest.mark.parametrize(("error", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_R3_each_fault_means_what_the_table_says(error: Exception, verdict: Verdict) -> None:
    assert judge(error, model="gpt") == verdict


def test_R3_a_second_refusal_after_a_refresh_ends_the_sign_in() -> None:
    assert judge(EXPIRED, model="gpt", refreshed=True) == Verdict(
        next_account=True, state=("needs_sign_in", "token_expired")
    )


@pytest.mark.parametrize("private", [True, False])
def test_R3_a_workspace_that_is_not_allowed_sets_the_account_aside_unless_it_is_the_callers(private: bool) -> None:
    verdict = judge(WorkspaceRefusedError("", private=private), model="gpt")

    assert verdict == Verdict(next_account=True, state=None if private else ("needs_sign_in", "workspace_not_allowed"))


def test_R3_guessed_waits_double_up_to_their_longest() -> None:
    waits = [judge(limit(None), model="gpt", strikes=strikes).wait for strikes in range(7)]
    distrust = [judge(ChallengedError(""), model="gpt", strikes=strikes).wait for strikes in range(8)]

    assert [wait.seconds for wait in waits if wait] == [60, 120, 240, 480, 900, 900, 900]
    assert [wait.seconds for wait in distrust if wait] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert double((30, 300), 10_000) == 300


def unhindered(retry_times: int) -> Attempts:
    """Give the attempts of a request that is alone."""
    return Attempts(retry_times, RetryBudget().admit())


def spent() -> RetryBudget:
    """Give a budget that lends nothing more."""
    budget = RetryBudget()
    while budget.admit().retry():
        pass
    return budget


def walk(errors: list[Exception], retry_times: int = 3, accounts: str = "aabbccdd") -> list[Decision]:
    """Decide on one error after the other, each on the account at its place."""
    attempts = unhindered(retry_times)
    return [
        attempts.decide(error, judge(error, model="gpt"), account, jitter=0.5)
        for error, account in zip(errors, accounts, strict=False)
    ]


def test_R3_a_server_error_is_tried_once_more_here_and_then_elsewhere() -> None:
    assert [one.action for one in walk([BAD_GATEWAY] * 4)] == ["same", "next", "same", "stop"]


def test_R3_an_account_is_used_at_most_twice_and_attempts_are_bounded() -> None:
    for retry_times in range(5):
        attempts, made, account = unhindered(retry_times), 0, 0
        while True:
            made += 1
            decision = attempts.decide(BAD_GATEWAY, judge(BAD_GATEWAY, model="gpt"), str(account), jitter=0)
            if decision.action == "stop":
                break
            account += decision.action == "next"
        assert made == 1 + retry_times
        assert attempts.used_accounts == {str(number) for number in range((made + 1) // 2)}


def test_R3_a_limited_account_gives_way_to_the_next_at_once() -> None:
    assert walk([limit(60)] * 4, accounts="abcd") == [Decision("next")] * 3 + [Decision("stop")]


def test_R3_an_expired_token_is_renewed_and_tried_once() -> None:
    assert walk([EXPIRED]) == [Decision("same", refresh=True)]


def test_G3_a_human_check_is_final_and_no_other_account_is_tried() -> None:
    for scope in ("exit", "account", "both"):
        assert walk([ChallengedError("", scope=scope)]) == [Decision("stop")]


def test_R3_what_may_have_been_done_is_repeated_once_and_counted() -> None:
    attempts = unhindered(5)
    verdict = judge(CUT, model="gpt")

    assert attempts.decide(CUT, verdict, "a", jitter=0).action == "next"
    assert attempts.decide(CUT, verdict, "b", jitter=0).action == "stop"
    assert attempts.maybe_duplicates == 1


@pytest.mark.parametrize("error", [BAD_GATEWAY, CUT, UpstreamProtocolError("")])
def test_R4_when_the_budget_is_spent_a_failure_of_the_backend_is_told(error: Exception) -> None:
    attempts = Attempts(3, spent().admit())

    assert attempts.decide(error, judge(error, model="gpt"), "a", jitter=0) == Decision("stop")


@pytest.mark.parametrize("error", [limit(60), limit(None), EXPIRED])
def test_R4_an_account_that_is_at_fault_itself_never_costs_an_answer(error: Exception) -> None:
    budget = spent()
    attempts, made = Attempts(3, budget.admit()), budget.made

    assert attempts.decide(error, judge(error, model="gpt"), "a", jitter=0).action != "stop"
    assert budget.made == made + 1, "it counts all the same"


def test_R4_a_limit_that_cools_nobody_down_is_not_gone_round_without_end() -> None:
    error = limit(None)
    attempts = Attempts(3, spent().admit(), guessed_limits=False)

    assert attempts.decide(error, judge(error, model="gpt"), "a", jitter=0) == Decision("stop")


def test_R3_the_pause_is_jittered_between_its_bounds() -> None:
    delays = [
        unhindered(3).decide(BAD_GATEWAY, judge(BAD_GATEWAY, model="gpt"), "a", jitter=jitter).delay
        for jitter in (0.0, 0.5, 1.0)
    ]

    assert delays == [0.1, 1.05, 2.0]


def test_R5_five_failures_in_a_row_open_for_30_s_and_then_let_one_probe_through() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.fail(0)
    assert breaker.blocked_for(0) == 0
    breaker.fail(0)
    assert breaker.blocked_for(0) == 30

    assert breaker.blocked_for(30) == 0
    breaker.start(30)
    assert breaker.blocked_for(31) > 0
    breaker.fail(31)
    assert breaker.blocked_for(31) == 60
    breaker.start(91)
    breaker.succeed(92)
    assert breaker.blocked_for(92) == 0


def test_R5_half_of_twenty_calls_in_30_s_open_it() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.succeed(number) if number % 2 else breaker.fail(number)
    assert breaker.blocked_for(19) == 0
    breaker.fail(19)

    assert breaker.blocked_for(19) == 30


def test_R5_old_failures_are_forgotten() -> None:
    breaker = Breaker()
    for number in range(1000):
        breaker.succeed(number) if number % 2 else breaker.fail(number * 10)

    assert breaker.blocked_for(10_000) == 0


def test_R5_an_opening_doubles_to_five_minutes_and_a_probe_without_outcome_expires() -> None:
    breaker, now = Breaker(), 0.0
    lengths = []
    for _ in range(6):
        breaker.open(now, (30, 300))
        lengths.append(breaker.blocked_for(now))
        now += breaker.blocked_for(now)
    assert lengths == [30, 60, 120, 240, 300, 300]

    breaker.start(now)
    assert breaker.blocked_for(now + 59) == 1
    assert breaker.blocked_for(now + 60) == 0


def test_R5_calls_sent_before_an_opening_neither_end_nor_prolong_it() -> None:
    breaker = Breaker()
    breaker.open(0, (60, 3600))

    breaker.succeed(1)
    breaker.fail(2)

    assert breaker.blocked_for(2) == 58


@pytest.mark.parametrize(
    ("callers", "opens"),
    [
        (["one"] * 50, False),
        (["one"] * 49 + ["two"], False),
        (["one", "one", "one", "two", "two"], True),
        (["one", "two", "three", "four"], False),
        (["one", "two", "three", "four", "five"], True),
        (["", "", "", "", ""], True),
        (["one", "one", "one", "", ""], True),
    ],
)
def test_R5_failures_in_a_row_of_one_caller_alone_open_nothing(callers: list[str], opens: bool) -> None:
    breaker = Breaker()
    for who in callers:
        assert breaker.blocked_for(0) == 0
        breaker.fail(0, by_share=False, who=who)
    assert (breaker.blocked_for(0) > 0) is opens


def test_R5_a_caller_who_always_fails_is_left_out_of_the_share() -> None:
    breaker = Breaker()
    for number in range(200):
        breaker.fail(number / 10, who="one")
        breaker.succeed(number / 10, who="two")
    assert breaker.blocked_for(20) == 0
    breaker = Breaker()
    for number in range(40):
        breaker.fail(number / 10, who=f"caller {number % 2}")
        breaker.succeed(number / 10, who=f"caller {number % 2}")
    assert breaker.blocked_for(4) > 0
