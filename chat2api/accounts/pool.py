"""`AccountPool`: leases accounts to requests and remembers how they fared.

Theory of operation. All accounts stand in memory, each in the circles (see there) in which it could be picked at this
moment: it leaves them when it starts a cooldown, is at its cap or loses its state, and comes back when that ends. A
lease therefore looks at nobody who cannot serve, and touches no database. When all that could serve are busy, requests
wait in a short queue.

Waits are measured on the monotonic clock, so a jump of the wall clock neither ends nor prolongs them; in the records
they are instants, since those outlive us. Waits that the backend stated are on disk before the answer goes out, guessed
ones within a second. A stated wait is always kept; a guessed one ends when a probe is answered well, since what the
backend says beats our timer. `run` writes, and takes over what other processes changed.
"""

import enum
import logging
import random
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

from chat2api.accounts.circles import Scope
from chat2api.accounts.entries import Entry
from chat2api.accounts.health import EXIT_SECONDS, Verdict, double, judge
from chat2api.accounts.picking import Picker, QueueLimits, Want
from chat2api.accounts.views import AccountView, ShownState, error_code
from chat2api.accounts.waits import Waits
from chat2api.clock import Clock
from chat2api.errors import (
    StorageError,
    TransportError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.storage.records import PoolRecords
from chat2api.storage.values import ANY_MODEL, Account, AccountState, Activity, Cooldown

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How soon a change by another process is seen, and how soon guessed waits are on disk."""

ACTIVITY_SECONDS = 5.0
"""How often it is written when accounts were used and what went wrong last."""

EJECTED_AFTER = 5
"""Failures in a row, of no known cause, after which an account is set aside for a while."""

_FAILING = "failing"


class Outcome(enum.Enum):
    """How a lease ended, if not with an error."""

    SERVED = "served"
    """The backend answered well."""
    ABANDONED = "abandoned"
    """Nothing was learnt, for instance because the caller left."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The pool's own accounts, counted; callers' private accounts count in `private` only."""

    total: int
    by_state: dict[ShownState, int]
    in_flight: int
    private: int

    @property
    def ready(self) -> int:
        """How many could serve now."""
        return sum(self.by_state.get(state, 0) for state in ("ok", "suspect", "in_doubt"))


class Lease:
    """The right to use one account for one request. Always `release` it, whatever happens."""

    __slots__ = ("_pool", "_released", "account", "counted", "model", "probe", "refreshed")

    def __init__(
        self, pool: "AccountPool", account: Account, model: str, *, probe: bool = False, counted: bool = True
    ) -> None:
        """Made by AccountPool.lease only."""
        self._pool = pool
        self._released = False
        self.account = account
        self.model = model
        self.probe = probe
        self.counted = counted
        self.refreshed = False
        """Set it when the account's token was renewed for this request: a second 401 then ends its sign-in."""

    async def release(self, outcome: Outcome | Exception) -> Verdict:
        """Give the account back with its outcome, and give what that meant; later calls change nothing.

        When it returns, a wait that the backend stated is on disk. Never raises because of the records.
        """
        if self._released:
            return Verdict()
        self._released = True
        return await self._pool._release(self, outcome)


class AccountPool:
    """Leases accounts. Make one, `await start()`, keep `run()` running."""

    def __init__(
        self,
        records: PoolRecords,
        clock: Clock,
        *,
        rng: random.Random | None = None,
        in_order: bool = False,
        guessed_limits: bool = True,
        account_cap: int | None = None,
        limits: QueueLimits | None = None,
    ) -> None:
        """Make a pool on these records.

        `in_order` is RANDOM_TOKEN=false. `guessed_limits` False (ENABLE_LIMIT=false) drops the waits that we only
        guess after a limit without a time. `account_cap` is how many requests may use one account at once, None
        for any number; over it, requests wait within `limits`.
        """
        self._records = records
        self._clock = clock
        self._guessed_limits = guessed_limits
        self._entries: dict[str, Entry] = {}
        self._picker = Picker(
            self._entries,
            clock.monotonic,
            lambda model: self._waits.watched(model),
            rng=rng or random.Random(),
            in_order=in_order,
            cap=account_cap,
            limits=limits or QueueLimits(),
        )
        self._waits = Waits(
            self._entries, records, clock, changed=self._picker.place, unwatched=self._picker.drop_model
        )
        self._active: set[str] = set()
        self._served_at = float("-inf")
        self._revision = 0

    async def start(self) -> None:
        """Load all accounts and their waits. Raises StorageError."""
        await self.reload()

    async def run(self) -> None:
        """Follow the records and write guessed waits, for ever; trouble with the records is logged and outlived."""
        noted = self._clock.monotonic()
        while True:
            await self._clock.sleep(POLL_SECONDS)
            self._waits.wake_due()
            try:
                await self.flush()
                if self._clock.monotonic() - noted >= ACTIVITY_SECONDS:
                    await self.flush_activity()
                    noted = self._clock.monotonic()
                if await self._records.revision() != self._revision:
                    await self.reload()
            except StorageError as error:
                log.warning("the pool cannot follow the records: %s", error)

    async def reload(self) -> None:
        """Take over what changed in the records since the last time."""
        changes = await self._records.changes(self._revision)
        for account in changes.accounts:
            self.put(account)
        for cooldown in changes.cooldowns:
            self._waits.take_over(cooldown)
        self._revision = changes.revision

    async def flush(self) -> None:
        """Write the waits that are not on disk yet. Raises StorageError, and then keeps them for the next time."""
        await self._waits.flush()

    async def flush_activity(self) -> None:
        """Write when accounts were used and what went wrong. Raises StorageError, and keeps it for the next time."""
        written, self._active = self._active, set()
        entries = [entry for account_id in written if (entry := self._entries.get(account_id)) is not None]
        if not entries:
            return
        try:
            await self._records.put_activity(
                [
                    Activity(entry.account.id, entry.last_used_at, entry.last_error, entry.last_error_at)
                    for entry in entries
                ]
            )
        except StorageError:
            self._active |= written
            raise

    async def aclose(self) -> None:
        """Write what is not on disk yet; trouble with the records is logged, not raised."""
        try:
            await self.flush()
            await self.flush_activity()
        except StorageError as error:
            log.warning("the pool could not write its last news: %s", error)

    def put(self, account: Account) -> None:
        """Take over an account as it is now, unless a later picture of it is here."""
        entry = self._entries.get(account.id)
        if entry is None:
            if account.deleted_at is not None:
                return
            entry = self._entries[account.id] = Entry(
                account,
                leased_at=self._clock.monotonic(),
                last_used_at=account.last_used_at,
                last_error=account.last_error,
                last_error_at=account.last_error_at,
            )
        elif account.revision < entry.account.revision:
            return
        renewed = account.generation > entry.account.generation
        entry.account = account
        if account.deleted_at is not None and entry.in_flight == 0:
            self._forget(entry)
        elif renewed:
            self._waits.end_guessed(entry, ANY_MODEL, running=True, reason="refresh_failed")
        self._picker.move(entry)

    def __contains__(self, account_id: object) -> bool:
        """Whether the pool knows an account of that id."""
        return account_id in self._entries

    def unused(self, *, kept: int, least: float, most: float) -> list[str]:
        """Give the AccessTokens' accounts of callers that may be forgotten: nobody needs them, nor what is known of them.

        Those are unused for `most` seconds, or beyond the `kept` last used ones for `least`. Accounts that serve, or with a
        wait that the backend stated, are not among them.
        """
        now = self._clock.monotonic()
        private = [one for one in self._entries.values() if one.account.owner is not None]
        private.sort(key=lambda one: one.leased_at, reverse=True)
        return [
            one.account.id
            for place, one in enumerate(private)
            if one.account.kind == "access"
            and one.in_flight == 0
            and now - one.leased_at >= (most if place < kept else least)
            and not any(wait.cooldown.stated and wait.ends > now for wait in one.waits.values())
        ]

    def account(self, account_id: str) -> Account | None:
        """Give an account as it is now."""
        entry = self._entries.get(account_id)
        return entry.account if entry is not None else None

    async def lease(
        self,
        *,
        model: str,
        workspace: str | None = None,
        account_id: str | None = None,
        exclude: Set[str] = frozenset(),
        group: str | None = None,
        allowed: frozenset[str] | None = None,
        affinity: str | None = None,
        owner: str | None = None,
        probe: bool = False,
        errand: bool = False,
    ) -> Lease:
        """Lease an account for a model: the named one, or the next of the workspace, group and those allowed.

        None of `exclude` is given. Requests with the same `affinity` get the same account while it can serve, new
        ones the account with the fewest such; `owner` is whose turn it is when requests have to wait. An `errand` is
        a short question beside the answers, such as for the list of models: it needs no room. A `probe` of a
        named account is the operator's: it also waits for nothing but what the backend stated.

        Raises AllAccountsCoolingError, with the soonest time, when those that could serve are waiting or busy, and
        NoAccountError when there are none. Callers' private accounts are leased by name only.
        """
        self._waits.wake_due()
        want = Want(model, Scope(workspace, group, allowed), account_id, exclude, probe or errand, probe)
        entry = await self._picker.take(want, affinity=affinity, owner=owner or "")
        entry.leased_at = self._clock.monotonic()
        if errand:
            self._picker.give_back(entry)
        return Lease(self, entry.account, model, probe=probe, counted=not errand)

    def soonest(
        self,
        *,
        model: str,
        workspace: str | None = None,
        group: str | None = None,
        allowed: frozenset[str] | None = None,
    ) -> float | None:
        """Give in how many seconds the first account can serve a model again, 0 for now; None when there is none."""
        self._waits.wake_due()
        ends = self._picker.soonest(Want(model, Scope(workspace, group, allowed)))
        return max(ends - self._clock.monotonic(), 0.0) if ends is not None else None

    def has_another(
        self,
        exclude: Set[str],
        *,
        model: str,
        workspace: str | None = None,
        allowed: frozenset[str] | None = None,
        within: float,
    ) -> bool:
        """Whether an account beyond those can serve a model within so many seconds, or once it is not busy any more."""
        want = Want(model, Scope(workspace, None, allowed), exclude=exclude)
        return self._picker.may_serve(want, self._clock.monotonic() + within)

    async def cool(self, cooldown: Cooldown) -> None:
        """Begin a wait, on disk before it returns if it was stated."""
        if self._waits.begin(cooldown):
            await self._waits.keep(cooldown)

    async def accept(self, account_id: str) -> None:
        """Let an account serve again that was refused and has been found well."""
        if (entry := self._entries.get(account_id)) is not None:
            await self._set_state(entry, "ok", None)

    def statistics(self) -> PoolStatistics:
        """Count the accounts by state, for the banner and the readiness page."""
        self._waits.wake_due()
        states: Counter[ShownState] = Counter()
        in_flight = private = 0
        for entry in self._entries.values():
            in_flight += entry.in_flight
            if entry.account.owner is not None:
                private += 1
            elif entry.account.deleted_at is None:
                states[self._shown(entry)] += 1
        return PoolStatistics(sum(states.values()), dict(states), in_flight, private)

    def accounts(self) -> list[Account]:
        """Give the pool's own accounts, in the order in which they were added; much cheaper than `views`."""
        shown = (entry.account for entry in self._entries.values())
        return [account for account in shown if account.owner is None and account.deleted_at is None]

    def views(self) -> list[AccountView]:
        """Give the pool's own accounts as pages show them, in the order in which they were added."""
        self._waits.wake_due()
        return [
            entry.view(self._clock.monotonic(), self._clock.now())
            for entry in self._entries.values()
            if entry.account.owner is None and entry.account.deleted_at is None
        ]

    def view(self, account_id: str) -> AccountView | None:
        """Give one of the pool's own accounts as pages show it."""
        self._waits.wake_due()
        entry = self._entries.get(account_id)
        if entry is None or entry.account.owner is not None or entry.account.deleted_at is not None:
            return None
        return entry.view(self._clock.monotonic(), self._clock.now())

    # Outcomes

    async def _release(self, lease: Lease, outcome: Outcome | Exception) -> Verdict:
        entry = self._entries.get(lease.account.id)
        verdict = Verdict()
        if entry is None:
            return verdict
        self._note(entry, outcome)
        try:
            if isinstance(outcome, Exception):
                verdict = await self._apply(entry, lease, outcome)
            elif outcome is Outcome.SERVED:
                await self._clear(entry, lease)
        finally:
            if lease.counted:
                self._picker.give_back(entry)
            if entry.account.deleted_at is not None and entry.in_flight == 0:
                self._forget(entry)
                self._picker.move(entry)
        return verdict

    def _note(self, entry: Entry, outcome: Outcome | Exception) -> None:
        """Remember when the account served or what went wrong, to be written with the next batch."""
        if outcome is Outcome.SERVED:
            entry.last_used_at = self._clock.now()
        elif isinstance(outcome, Exception) and (code := error_code(outcome)) is not None:
            entry.last_error, entry.last_error_at = code, self._clock.now()
        else:
            return
        self._active.add(entry.account.id)

    async def _apply(self, entry: Entry, lease: Lease, error: Exception) -> Verdict:
        """Draw the consequences of an error."""
        strikes = max(entry.strikes(lease.model, {"guessed_limit"}), entry.strikes(ANY_MODEL, {"distrusted"}))
        verdict = judge(error, model=lease.model, strikes=strikes, refreshed=lease.refreshed)
        wait_told = verdict.wait
        if wait_told is not None and (self._guessed_limits or wait_told.reason != "guessed_limit"):
            await self.cool(
                Cooldown(
                    entry.account.id,
                    wait_told.model,
                    self._clock.now() + wait_told.seconds,
                    wait_told.stated,
                    wait_told.reason,
                    0 if wait_told.stated else strikes + 1,
                )
            )
        # A token that was replaced while the request ran says nothing about the new one.
        if verdict.state is not None and entry.account.generation == lease.account.generation:
            await self._set_state(entry, *verdict.state)
        if wait_told is None and verdict.state is None and _is_unexplained(error):
            await self._count_failure(entry)
        return verdict

    async def _count_failure(self, entry: Entry) -> None:
        """Set an account aside that fails again and again while others do not; never more than half of them."""
        if entry.failures == 0:
            entry.failing_since = self._clock.monotonic()
        entry.failures += 1
        if entry.failures < EJECTED_AFTER or self._served_at < entry.failing_since:
            return  # where nobody is served, it is not the account's fault
        usable, now = self._picker.everybody, self._clock.monotonic()
        ejected = sum(one.waits_for(_FAILING, now) for one in usable.values())
        if entry.account.id not in usable or entry.waits_for(_FAILING, now) or (ejected + 1) * 2 > len(usable):
            return
        entry.failures = EJECTED_AFTER - 1  # after its rest one more failure is enough
        strikes = entry.strikes(ANY_MODEL, {_FAILING})
        until = self._clock.now() + double(EXIT_SECONDS, strikes)
        await self.cool(Cooldown(entry.account.id, ANY_MODEL, until, False, _FAILING, strikes + 1))

    async def _clear(self, entry: Entry, lease: Lease) -> None:
        """A good answer ends suspicion and the count of guessed waits; a probe's also those that are running.

        An answer that was under way when a wait began says nothing about what came after.
        """
        entry.failures = 0
        self._served_at = self._clock.monotonic()
        for name in (lease.model, ANY_MODEL):
            self._waits.end_guessed(entry, name, running=lease.probe)
        if entry.account.state == "suspect":
            await self._set_state(entry, "ok", None)

    async def _set_state(self, entry: Entry, state: AccountState, reason: str | None) -> None:
        if entry.account.state == state and entry.account.reason == reason:
            return
        try:
            changed = await self._records.set_state(entry.account, state, reason, self._clock.now())
            if changed is None:
                # Somebody wrote the row since we saw it. What they know is newer; the next poll brings it.
                changed = await self._records.account(entry.account.id)
            if changed is not None:
                self.put(changed)
        except StorageError as error:
            log.warning("cannot store that account %s is %s: %s", entry.account.label, state, error)

    def _forget(self, entry: Entry) -> None:
        self._waits.forget(entry)
        self._entries.pop(entry.account.id, None)

    def _shown(self, entry: Entry) -> ShownState:
        cooling = entry.account.usable and entry.blocked_until(None) > self._clock.monotonic()
        return "cooling" if cooling else entry.account.state


def _is_unexplained(error: Exception) -> bool:
    """Whether an error says neither who is at fault nor for how long; what fails before it is sent is the exit's."""
    match error:
        case TransportError():
            return error.request_sent
        case UpstreamTimeoutError():
            return error.phase != "connect"
        case _:
            return isinstance(error, UpstreamServerError | UpstreamProtocolError)
