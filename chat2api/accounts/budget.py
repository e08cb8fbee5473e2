"""How many retries all requests together may make, so that a failing backend is not called more, but less.

Pure. Promise R4: at any moment at most a fifth of the requests that wait for their answer are on a retry, and at least
three may be. The share is of requests that wait: those whose answer has begun will not be tried again, and counting them
would let a thousand quiet streams pay for a storm. A retry lasts from its decision over its pause until its content
begins or it fails, so the slower the backend fails, the fewer retries a second there are: with r requests a second, of
which each call takes t seconds and each pause p, at most a quarter of r * t / (t + p) retries a second are made.
"""

from types import TracebackType
from typing import Self

RETRY_SHARE = 0.2
"""Of the requests that wait for their answer."""

LEAST_RETRIES = 3
"""Always allowed at once, or a quiet server could never try again."""


class RetryBudget:
    """The retries of all requests to one set of accounts. Make one and give each request a share by `admit`."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self.waiting = 0
        """Requests whose answer has not begun."""
        self.retrying = 0
        """Those among them that are on a retry."""
        self.made = 0
        """Retries made so far."""
        self.refused = 0
        """Retries refused so far because the budget was spent."""

    def admit(self) -> "BudgetShare":
        """Give the share of a new request, to be entered as a context."""
        return BudgetShare(self)


class BudgetShare:
    """One request's part in the budget: waiting from entry until its answer begins or it ends."""

    __slots__ = ("_budget", "_retrying", "_waiting")

    def __init__(self, budget: RetryBudget) -> None:
        """Made by RetryBudget.admit only."""
        self._budget = budget
        self._waiting = self._retrying = False

    def __enter__(self) -> Self:
        """Begin to wait for an answer."""
        self._waiting = True
        self._budget.waiting += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, however the request ended."""
        self.begin()

    def begin(self) -> None:
        """Take note that the answer has begun, so that the request is never tried again; later calls change nothing."""
        self._give_back()
        self._budget.waiting -= self._waiting
        self._waiting = False

    def retry(self, *, owed: bool = False) -> bool:
        """Tell whether the request may be tried once more now; if so, that counts as a retry until it ends.

        What is `owed` is counted, but never refused.
        """
        self._give_back()
        budget = self._budget
        if not owed and budget.retrying >= max(LEAST_RETRIES, int(budget.waiting * RETRY_SHARE)):
            budget.refused += 1
            return False
        self._retrying = True
        budget.retrying += 1
        budget.made += 1
        return True

    def _give_back(self) -> None:
        self._budget.retrying -= self._retrying
        self._retrying = False
