"""What a failure means: who cools down and for how long, and whether it is worth trying again.

Pure. `judge` is the retry table (promise R3), row by row; `Attempts` walks it for one request, within the
`RetryBudget` that all requests share; `Breaker` is the rule of R5 for one exit and host.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

from chat2api.accounts.budget import BudgetShare
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AnswerElsewhereError,
    ChallengedError,
    KeyForbiddenError,
    StreamInterruptedError,
    TransportError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)
from chat2api.storage.values import ANY_MODEL, AccountState

WaitReason = Literal["stated_limit", "guessed_limit", "human_check", "distrusted", "refresh_failed"]

STATED_SECONDS = (1.0, 7 * 24 * 3600.0)
"""The shortest and longest wait that is taken from the backend's word."""

GUESSED_SECONDS = (60.0, 900.0)
"""A limit without a time: the first wait and the longest, doubling between."""

DISTRUST_SECONDS = (60.0, 3600.0)
"""An exit or account that the backend distrusts; no guess is longer."""

EXIT_SECONDS = (30.0, 300.0)
"""An exit that cannot connect, and an open breaker."""

HUMAN_CHECK_SECONDS = 1800.0
"""An account that is asked for what only a person can do."""

JITTER_SECONDS = (0.1, 2.0)
"""The pause before another attempt."""

ACCOUNT_ATTEMPTS = 2
"""How often one request may use one account."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A cooldown to come: for one model, or for all with ANY_MODEL. `stated` when the backend named the time."""

    seconds: float
    model: str
    stated: bool
    reason: WaitReason


ExitFault = Literal["unreachable", "distrusted", "failing"]
"""What an exit did wrong: it could not connect, the backend distrusts it, or an answer through it failed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means.

    `same_account` and `next_account` say where another attempt makes sense; `refresh` that the same account needs
    a new access token first. `state` is the account's new state with its reason. `exit_fault` is for the
    exit, `exit_seconds` the rest that the backend stated for it.
    `maybe_duplicate` means that the backend may have acted on the request: it is repeated once at most.
    """

    same_account: bool = False
    next_account: bool = False
    refresh: bool = False
    wait: Wait | None = None
    state: tuple[AccountState, str] | None = None
    exit_fault: ExitFault | None = None
    exit_seconds: float | None = None
    maybe_duplicate: bool = False


def judge(error: Exception, *, model: str, strikes: int = 0, refreshed: bool = False) -> Verdict:
    """Give what an error before the first content means.

    `strikes` counts the guessed waits that this account and model, or this account (for distrust), had in a row.
    `refreshed` says that the account's token was renewed for this request already.
    """
    match error:
        case AccountRejectedError():
            if error.may_refresh and not refreshed:
                return Verdict(same_account=True, next_account=True, refresh=True)
            return Verdict(next_account=True, state=("needs_sign_in", error.reason))
        case WorkspaceRefusedError():
            # The account itself may be well, but as it was added it serves nobody until the operator acts.
            own = None if error.private else ("needs_sign_in", "workspace_not_allowed")
            return Verdict(next_account=True, state=own)  # type: ignore[arg-type]
        case AccountLimitedError():
            return Verdict(next_account=True, wait=_limit_wait(error, model, strikes))
        case ChallengedError():
            return _judge_challenge(error, strikes)
        case TransportError() if error.request_sent:
            return Verdict(next_account=True, exit_fault="failing", maybe_duplicate=True)
        case TransportError():
            return Verdict(same_account=True, next_account=True, exit_fault="unreachable")
        case UpstreamTimeoutError() if error.phase == "connect":
            return Verdict(same_account=True, next_account=True, exit_fault="unreachable")
        case UpstreamTimeoutError():
            return Verdict(next_account=True, exit_fault="failing", maybe_duplicate=True)
        case UpstreamServerError():
            return Verdict(same_account=True, next_account=True, exit_fault="failing")
        case UpstreamProtocolError() | KeyForbiddenError():
            return Verdict(next_account=True)
        case AnswerElsewhereError():
            return Verdict()
        case StreamInterruptedError():
            return Verdict(exit_fault="failing")
        case _:
            return Verdict()


def double(bounds: tuple[float, float], strikes: int) -> float:
    """Give the wait after that many in a row: the first bound, doubled each time, never over the second."""
    first, longest = bounds
    return float(min(first * 2 ** min(strikes, 32), longest))


def clamp_stated(seconds: float | None) -> float | None:
    """Give a time that the backend stated, between the shortest and longest that are taken from it."""
    shortest, longest = STATED_SECONDS
    return min(max(seconds, shortest), longest) if seconds is not None else None


def _limit_wait(error: AccountLimitedError, model: str, strikes: int) -> Wait:
    stated = clamp_stated(error.retry_after)
    if stated is None:
        return Wait(double(GUESSED_SECONDS, strikes), model, False, "guessed_limit")
    return Wait(stated, model, True, "stated_limit")


def _judge_challenge(error: ChallengedError, strikes: int) -> Verdict:
    """A check is never gone round: no other attempt, here or elsewhere."""
    if error.scope == "exit":
        return Verdict(exit_fault="distrusted", exit_seconds=error.retry_after)
    if error.scope == "account":
        return Verdict(wait=Wait(HUMAN_CHECK_SECONDS, ANY_MODEL, False, "human_check"))
    return Verdict(
        wait=Wait(double(DISTRUST_SECONDS, strikes), ANY_MODEL, False, "distrusted"),
        state=("suspect", "distrusted"),
        exit_fault="distrusted",
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do after a failed attempt; `delay` in seconds comes first. With stop, the error is told."""

    action: Literal["same", "next", "stop"]
    refresh: bool = False
    delay: float = 0.0


class Attempts:
    """The attempts of one request. Make one for each request, ask `decide` after each failure."""

    def __init__(self, retry_times: int, share: BudgetShare, *, guessed_limits: bool = True) -> None:
        """Allow 1 + `retry_times` attempts, those after the first only while `share` lends them.

        `guessed_limits` False (ENABLE_LIMIT=false) says that a limit without a time cools nobody down.
        """
        self._left = retry_times
        self._share = share
        self._guessed_limits = guessed_limits
        self._uses: dict[str, int] = {}
        self._duplicates = 0

    @property
    def used_accounts(self) -> frozenset[str]:
        """The accounts that failed this request: what the next lease excludes."""
        return frozenset(self._uses)

    @property
    def maybe_duplicates(self) -> int:
        """How many attempts were repeated although the backend may have acted on them."""
        return self._duplicates

    def decide(self, error: Exception, verdict: Verdict, account_id: str, *, jitter: float) -> Decision:
        """Give what to do after `error` on this account; `jitter` is a random number from 0 to 1."""
        decision = self._wish(error, verdict, account_id, jitter)
        if decision.action != "stop" and not self._share.retry(owed=self._is_owed(error, verdict)):
            return Decision("stop")
        return decision

    def _is_owed(self, error: Exception, verdict: Verdict) -> bool:
        """Whether the account alone was at fault and is out of the pick now, or gets a new token.

        Such attempts count in the budget and leave less of it to others, but are made even when it is spent: a
        healthy pool with one limited account must answer. They cannot multiply calls, since each takes an account out
        for a while: there are no more of them than accounts, and than requests under way on those.
        """
        if isinstance(error, AccountRejectedError | WorkspaceRefusedError):
            return True
        return verdict.wait is not None and (verdict.wait.stated or self._guessed_limits)

    def _wish(self, error: Exception, verdict: Verdict, account_id: str, jitter: float) -> Decision:
        """Give what to do by the retry table alone."""
        uses = self._uses[account_id] = self._uses.get(account_id, 0) + 1
        if self._left <= 0 or (verdict.maybe_duplicate and self._duplicates):
            return Decision("stop")
        shortest, longest = JITTER_SECONDS
        delay = shortest + (longest - shortest) * jitter
        if verdict.same_account and uses < ACCOUNT_ATTEMPTS:
            self._left -= 1
            # A fresh token is reason enough to go on at once.
            return Decision("same", refresh=verdict.refresh, delay=0.0 if verdict.refresh else delay)
        if not verdict.next_account:
            return Decision("stop")
        self._duplicates += verdict.maybe_duplicate
        self._left -= 1
        # The account was at fault, not the backend: the next one need not wait.
        at_once = isinstance(error, AccountLimitedError | AccountRejectedError | WorkspaceRefusedError)
        return Decision("next", delay=0.0 if at_once else delay)


BreakerState = Literal["closed", "open", "half_open"]
"""closed: calls go through. open: none does. half_open: one does, as the probe."""


class Breaker:
    """Whether one exit may be used for one host: closed, open for a while, then one probe.

    Opens after 5 failures in a row, or when half of at least 20 calls of the last 30 s failed. Each opening in a
    row lasts twice as long, 30 s to 5 min. Times are monotonic seconds, passed in.

    Where it is told who called (`who`), one caller alone opens it for nobody: a request can be such that any server fails
    at it. Of 5 failures in a row, 2 must be of others than the one who failed most, and of half of the calls that caller's
    count on neither side. Failures of nobody in particular ("") all count.
    """

    _IN_A_ROW = 5
    _OF_OTHERS = 2
    _WINDOW_SECONDS = 30.0
    _WINDOW_CALLS = 20
    _PROBE_SECONDS = 60.0

    def __init__(self) -> None:
        """Make a closed breaker."""
        self._recent: deque[tuple[float, bool, str]] = deque(maxlen=1000)
        self._failures = 0
        self._row: Counter[str] = Counter()
        """The failures since the last success, by who called."""
        self._strikes = 0
        self._open_until: float | None = None
        self._probe_until: float | None = None

    def blocked_for(self, now: float) -> float:
        """Give for how many seconds nothing may be sent; 0 when it may (at most a probe, see `start`)."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        # While a probe is out, others wait for its outcome, but not for ever.
        return max(0.0, self._probe_until - now) if self._probe_until is not None else 0.0

    def state(self, now: float) -> BreakerState:
        """Give the state as it is now."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half_open"

    def start(self, now: float) -> None:
        """Tell that a call is sent now; after an opening this call is the probe."""
        if self._open_until is not None:
            self._probe_until = now + self._PROBE_SECONDS

    def succeed(self, now: float, *, who: str = "") -> None:
        """Tell that a call went well. One that was sent before an opening does not end it."""
        if self._open_until is not None and now < self._open_until:
            return
        self._note(now, who, failed=False)
        self._row.clear()
        self._strikes = 0
        self._open_until = self._probe_until = None

    def abandon(self) -> None:
        """Tell that a call ended without an outcome: if it was the probe, another may be."""
        self._probe_until = None

    def fail(self, now: float, *, by_share: bool = True, who: str = "") -> None:
        """Tell that a call failed. `by_share` False lets only failures in a row open it."""
        self._note(now, who, failed=True)
        self._row[who] += 1
        if self._open_until is not None:
            if now >= self._open_until:
                self.open(now, EXIT_SECONDS)
        elif self._is_row_long() or (by_share and self._is_half_failing()):
            self.open(now, EXIT_SECONDS)

    def _is_row_long(self) -> bool:
        total = self._row.total()
        return total >= self._IN_A_ROW and total - _most(self._row)[1] >= self._OF_OTHERS

    def _is_half_failing(self) -> bool:
        calls, failures = len(self._recent), self._failures
        if calls < self._WINDOW_CALLS or failures * 2 < calls:
            return False
        worst, failed = _most(Counter(who for _, bad, who in self._recent if bad))
        if failed:
            failures -= failed
            calls -= sum(who == worst for _, _, who in self._recent)
        return calls >= self._WINDOW_CALLS and failures * 2 >= calls

    def open(self, now: float, bounds: tuple[float, float], *, seconds: float | None = None) -> None:
        """Open it for `seconds`, or the next of the doubling times between these bounds; never for less than it is."""
        until = now + (seconds if seconds is not None else double(bounds, self._strikes))
        self._open_until = max(until, self._open_until or 0.0)
        self._probe_until = None
        self._strikes += 1
        self._recent.clear()
        self._row.clear()
        self._failures = 0

    def _note(self, now: float, who: str, *, failed: bool) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._failures -= self._recent.popleft()[1]
        self._recent.append((now, failed, who))
        self._failures += failed
        while self._recent[0][0] <= now - self._WINDOW_SECONDS:
            self._failures -= self._recent.popleft()[1]


def _most(failures: Counter[str]) -> tuple[str, int]:
    """Give who of those that are told apart failed most, and how often; 0 where nobody is."""
    return max(((who, count) for who, count in failures.items() if who), key=lambda one: one[1], default=("", 0))
