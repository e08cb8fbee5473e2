"""How one account stands in the pool at this moment: its leases, its waits, its failures in a row.

Times are monotonic seconds, passed in. What is stored of an account is in `Account`; this is what is counted beside it.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from chat2api.accounts.views import AccountView, WaitView, show_account
from chat2api.storage.values import ANY_MODEL, Account, Cooldown


@dataclass(slots=True)
class Wait:
    """A wait with its monotonic end."""

    ends: float
    cooldown: Cooldown


@dataclass(slots=True, eq=False)
class Entry:
    """An account in the pool.

    `waits` also keeps ended guessed waits, for their strikes, until an answer is good. `failures` counts answers in a
    row that failed without anybody knowing why, since `failing_since`. `leased_at` is when a request last took it, or when
    it came.
    """

    account: Account
    in_flight: int = 0
    leased_at: float = 0.0
    waits: dict[str, Wait] = field(default_factory=dict)
    failures: int = 0
    failing_since: float = 0.0
    last_used_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    def has_room(self, cap: int | None) -> bool:
        """Whether one more request may use it, with at most `cap` at once; a suspect one has room for its probe."""
        if self.account.state == "suspect":
            return self.in_flight < 1
        return cap is None or self.in_flight < cap

    def blocked_until(self, model: str | None, *, stated_only: bool = False) -> float:
        """Give the end of its waits for a model; None counts the waits for all models only. 0 without any."""
        ends = 0.0
        for name in (ANY_MODEL, model):
            if name is None or (wait := self.waits.get(name)) is None:
                continue
            if wait.cooldown.stated or not stated_only:
                ends = max(ends, wait.ends)
        return ends

    def strikes(self, model: str, reasons: Set[str]) -> int:
        """Give how many guessed waits for one of these reasons it had in a row for a model."""
        wait = self.waits.get(model)
        return wait.cooldown.strikes if wait is not None and wait.cooldown.reason in reasons else 0

    def waits_for(self, reason: str, now: float) -> bool:
        """Whether it waits with all models for this reason."""
        wait = self.waits.get(ANY_MODEL)
        return wait is not None and wait.ends > now and wait.cooldown.reason == reason

    def view(self, now: float, instant: float) -> AccountView:
        """Give it as pages show it; `instant` is the wall clock's word for `now`."""
        waits = [
            WaitView(model, wait.ends - now, instant + wait.ends - now, wait.cooldown.stated, wait.cooldown.reason)
            for model, wait in self.waits.items()
            if wait.ends > now
        ]
        return show_account(
            self.account,
            waits,
            in_flight=self.in_flight,
            last_used_at=self.last_used_at,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
        )
