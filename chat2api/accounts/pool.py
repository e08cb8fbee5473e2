"""`AccountPool`: leases accounts to requests and remembers how they fared.

Theory of operation. All accounts stand in memory, each in those rings (see selection) in which it could be picked at
this moment: it leaves them when it starts a cooldown, is at its cap or loses its state, and comes back when that ends.
A lease therefore looks at nobody who cannot serve, and touches no database. Waits are measured on the monotonic clock,
so a jump of the wall clock neither ends nor prolongs them; in the records they are instants, since those outlive us.
Waits that the backend stated are on disk before the answer goes out, guessed ones within a second. `run` does that,
and takes over what other processes changed.
"""

import asyncio
import enum
import heapq
import itertools
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from chat2api.accounts.health import Verdict, judge
from chat2api.accounts.selection import OrderedRing, RandomRing, Ring
from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.accounts.views import AccountView, ShownState, WaitView, error_code, show_account
from chat2api.clock import Clock
from chat2api.errors import AllAccountsCoolingError, CallerTokenRejectedError, NoAccountError, StorageError
from chat2api.storage.records import Records
from chat2api.storage.values import ANY_MODEL, Account, AccountState, Activity, Cooldown

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How soon a change by another process is seen, and how soon guessed waits are on disk."""

SWEEP_SECONDS = 3600.0

ACTIVITY_SECONDS = 5.0
"""How often it is written when accounts were used and what went wrong last."""

_MAX_RINGS = 64
_MAX_ADOPTED = 10_000
_WHOLE = (None, None)
"""The ring of all accounts, for models that nobody waits with."""


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


@dataclass(slots=True)
class _Wait:
    ends: float
    cooldown: Cooldown


@dataclass(slots=True)
class _Entry:
    """An account in the pool. `waits` also keeps ended guessed waits, for their strikes, until an answer is good."""

    account: Account
    in_flight: int = 0
    waits: dict[str, _Wait] = field(default_factory=dict)
    last_used_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    def blocked_until(self, model: str | None) -> float:
        """Give the monotonic end of its waits for a model; None counts the waits for all models only."""
        ends = 0.0
        for name in (ANY_MODEL, model):
            if name is not None and (wait := self.waits.get(name)) is not None:
                ends = max(ends, wait.ends)
        return ends


class Lease:
    """The right to use one account for one request. Always `release` it, whatever happens."""

    __slots__ = ("_pool", "_released", "account", "model", "refreshed")

    def __init__(self, pool: "AccountPool", account: Account, model: str) -> None:
        """Made by AccountPool.lease only."""
        self._pool = pool
        self._released = False
        self.account = account
        self.model = model
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
        records: Records,
        clock: Clock,
        *,
        rng: random.Random | None = None,
        in_order: bool = False,
        guessed_limits: bool = True,
        account_cap: int | None = None,
        queue_seconds: float = 10.0,
        queue_length: int = 512,
    ) -> None:
        """Make a pool on these records.

        `in_order` is RANDOM_TOKEN=false. `guessed_limits` False (ENABLE_LIMIT=false) drops the waits that we only
        guess after a limit without a time. `account_cap` is how many requests may use one account at once, None
        for any number; over it, at most `queue_length` requests wait for up to `queue_seconds`.
        """
        self._records = records
        self._clock = clock
        self._rng = rng or random.Random()
        self._in_order = in_order
        self._guessed_limits = guessed_limits
        self._cap = account_cap
        self._queue_seconds = queue_seconds
        self._queue_length = queue_length
        self._queue: OrderedDict[int, asyncio.Future[None]] = OrderedDict()
        self._entries: dict[str, _Entry] = {}
        self._rings: OrderedDict[tuple[str | None, str | None], Ring] = OrderedDict()
        self._waiting: dict[str, set[str]] = {}
        self._wakes: list[tuple[float, int, str, str]] = []
        self._numbers = itertools.count()
        self._dirty: dict[tuple[str, str], Cooldown] = {}
        self._active: set[str] = set()
        self._adopted: OrderedDict[str, str] = OrderedDict()
        self._revision = 0

    async def start(self) -> None:
        """Load all accounts and their waits. Raises StorageError."""
        await self.reload()

    async def run(self) -> None:
        """Follow the records and write guessed waits, for ever; trouble with the records is logged and outlived."""
        swept = noted = self._clock.monotonic()
        while True:
            await self._clock.sleep(POLL_SECONDS)
            try:
                await self.flush()
                if self._clock.monotonic() - noted >= ACTIVITY_SECONDS:
                    await self.flush_activity()
                    noted = self._clock.monotonic()
                if await self._records.revision() != self._revision:
                    await self.reload()
                if self._clock.monotonic() - swept >= SWEEP_SECONDS:
                    await self._records.sweep(self._clock.now())
                    swept = self._clock.monotonic()
            except StorageError as error:
                log.warning("the pool cannot follow the records: %s", error)

    async def reload(self) -> None:
        """Take over what changed in the records since the last time."""
        changes = await self._records.changes(self._revision)
        for account in changes.accounts:
            self.put(account)
        for cooldown in changes.cooldowns:
            self._begin_wait(cooldown)
        self._revision = changes.revision

    async def flush(self) -> None:
        """Write the waits that are not on disk yet. Raises StorageError, and then keeps them for the next time."""
        if not self._dirty:
            return
        written = dict(self._dirty)
        await self._records.put_cooldowns(list(written.values()))
        for key, cooldown in written.items():
            if self._dirty.get(key) is cooldown:
                del self._dirty[key]

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
            entry = self._entries[account.id] = _Entry(
                account,
                last_used_at=account.last_used_at,
                last_error=account.last_error,
                last_error_at=account.last_error_at,
            )
        elif account.revision < entry.account.revision:
            return
        entry.account = account
        if account.deleted_at is not None and entry.in_flight == 0:
            self._forget(entry)
        self._place(entry)

    def account(self, account_id: str) -> Account | None:
        """Give an account as it is now."""
        entry = self._entries.get(account_id)
        return entry.account if entry is not None else None

    async def adopt(self, token: str, owner: str, workspace_id: str | None = None) -> Account:
        """Give the account of a caller's own RefreshToken or session token, kept as their private account.

        So a token that rotates is not lost for a caller who goes on to send the first one. `owner` is the
        caller's digest. Raises CallerTokenRejectedError for a token of no such kind.
        """
        digest = self._records.digest("token", token)
        known = self._adopted.get(digest)
        if known is not None and (entry := self._entries.get(known)) is not None and entry.account.deleted_at is None:
            self._adopted.move_to_end(digest)
            return entry.account
        account = await self._records.find_by_token(token)
        if account is None:
            try:
                credential = to_credential(token, workspace_id)
            except ValueError as error:
                raise CallerTokenRejectedError(str(error)) from error
            if credential.kind not in ("refresh", "session"):
                raise CallerTokenRejectedError("This token cannot be renewed, so there is nothing to keep for it.")
            new = to_new_account(credential, owner=owner)
            account = (await self._records.add_accounts([new], self._clock.now()))[0].account
        self.put(account)
        self._adopted[digest] = account.id
        if len(self._adopted) > _MAX_ADOPTED:
            self._adopted.popitem(last=False)
        return account

    async def lease(
        self,
        *,
        model: str,
        workspace: str | None = None,
        account_id: str | None = None,
        exclude: Set[str] = frozenset(),
    ) -> Lease:
        """Lease an account for a model: the named one, or the next of the workspace or of all, but none of `exclude`.

        Raises AllAccountsCoolingError, with the soonest time, when those that could serve are waiting or busy, and
        NoAccountError when there are none. Callers' private accounts are leased by name only.
        """
        deadline: float | None = None
        while True:
            self._wake_due()
            entry = self._named(account_id, model) if account_id else self._next(model, workspace, exclude)
            if entry is not None:
                entry.in_flight += 1
                if not self._has_room(entry):
                    self._place(entry)
                return Lease(self, entry.account, model)
            if not self._somebody_busy(model, workspace, account_id, exclude):
                raise self._nobody(model, workspace, account_id, exclude)
            # The queue is about real waiting: an event loop's own time, as asyncio.timeout counts it.
            deadline = deadline or asyncio.get_running_loop().time() + self._queue_seconds
            await self._wait_for_room(deadline)

    async def cool(self, cooldown: Cooldown) -> None:
        """Begin a wait, on disk before it returns if it was stated."""
        if self._begin_wait(cooldown):
            await self._keep(cooldown)

    def statistics(self) -> PoolStatistics:
        """Count the accounts by state, for the banner and the readiness page."""
        self._wake_due()
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
        self._wake_due()
        return [
            self._view(entry)
            for entry in self._entries.values()
            if entry.account.owner is None and entry.account.deleted_at is None
        ]

    def view(self, account_id: str) -> AccountView | None:
        """Give one of the pool's own accounts as pages show it."""
        self._wake_due()
        entry = self._entries.get(account_id)
        if entry is None or entry.account.owner is not None or entry.account.deleted_at is not None:
            return None
        return self._view(entry)

    # Picking

    def _next(self, model: str, workspace: str | None, exclude: Set[str]) -> _Entry | None:
        ring = self._ring(workspace, model if model in self._waiting else None)
        picked = ring.pick(exclude)
        return self._entries[picked] if picked is not None else None

    def _named(self, account_id: str, model: str) -> _Entry | None:
        entry = self._entries.get(account_id)
        if entry is None or not entry.account.usable or not self._has_room(entry):
            return None
        return entry if entry.blocked_until(model) <= self._clock.monotonic() else None

    def _has_room(self, entry: _Entry) -> bool:
        # A suspect account gets one request at a time: its probe.
        cap = 1 if entry.account.state == "suspect" else self._cap
        return cap is None or entry.in_flight < cap

    def _ring(self, workspace: str | None, model: str | None) -> Ring:
        key = (workspace, model)
        ring = self._rings.get(key)
        if ring is None:
            ring = OrderedRing() if self._in_order else RandomRing(self._rng)
            for entry in self._entries.values():
                self._place_in(entry, ring, workspace, model)
            # Callers choose workspaces: those without accounts must not push out the others.
            if len(ring) or key == _WHOLE:
                self._rings[key] = ring
                if len(self._rings) > _MAX_RINGS:
                    del self._rings[next(other for other in self._rings if other not in (_WHOLE, key))]
        return ring

    def _place(self, entry: _Entry) -> None:
        """Bring an account's places in all rings up to date."""
        for (workspace, model), ring in self._rings.items():
            self._place_in(entry, ring, workspace, model)

    def _place_in(self, entry: _Entry, ring: Ring, workspace: str | None, model: str | None) -> None:
        account = entry.account
        if (
            account.usable
            and account.owner is None
            and self._entries.get(account.id) is entry
            and (workspace is None or account.workspace == workspace)
            and self._has_room(entry)
            and entry.blocked_until(model) <= self._clock.monotonic()
        ):
            ring.add(account.id)
        else:
            ring.discard(account.id)

    def _candidates(self, workspace: str | None, account_id: str | None, exclude: Set[str]) -> list[_Entry]:
        """Give the accounts that could serve, if they were neither waiting nor busy."""
        if account_id is not None:
            entry = self._entries.get(account_id)
            return [entry] if entry is not None and entry.account.usable else []
        return [
            entry
            for entry in self._entries.values()
            if entry.account.usable
            and entry.account.owner is None
            and entry.account.id not in exclude
            and (workspace is None or entry.account.workspace == workspace)
        ]

    def _somebody_busy(self, model: str, workspace: str | None, account_id: str | None, exclude: Set[str]) -> bool:
        """Whether waiting for a release may help."""
        now = self._clock.monotonic()
        return any(
            not self._has_room(entry) and entry.blocked_until(model) <= now
            for entry in self._candidates(workspace, account_id, exclude)
        )

    def _nobody(
        self, model: str, workspace: str | None, account_id: str | None, exclude: Set[str]
    ) -> NoAccountError | AllAccountsCoolingError:
        candidates = self._candidates(workspace, account_id, exclude)
        if not candidates:
            if account_id is not None:
                return NoAccountError("The account of this conversation cannot be used any more. Begin a new one.")
            where = " of this workspace" if workspace is not None else ""
            return NoAccountError(f"No usable account{where}. The operator can add one: chat2api tokens add -")
        soonest = min(entry.blocked_until(model) for entry in candidates) - self._clock.monotonic()
        return AllAccountsCoolingError(
            "Every account that could serve this is waiting for its limit to end.", retry_after=max(soonest, 0.0)
        )

    async def _wait_for_room(self, deadline: float) -> None:
        """Return when an account may have become free. Raises AllAccountsCoolingError when that takes too long."""
        if len(self._queue) >= self._queue_length:
            raise AllAccountsCoolingError("Every account is busy and the queue is full.", retry_after=1.0)
        number = next(self._numbers)
        turn = self._queue[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._call_next()  # called, but too late to come: the place is the next one's
            if isinstance(error, TimeoutError):
                raise AllAccountsCoolingError("Every account is busy.", retry_after=1.0) from error
            raise
        finally:
            self._queue.pop(number, None)

    def _call_next(self) -> None:
        while self._queue:
            _, turn = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return

    # Outcomes

    async def _release(self, lease: Lease, outcome: Outcome | Exception) -> Verdict:
        entry = self._entries.get(lease.account.id)
        verdict = Verdict()
        if entry is None:
            return verdict
        had_room = self._has_room(entry)
        entry.in_flight -= 1
        self._note(entry, outcome)
        try:
            if isinstance(outcome, Exception):
                verdict = await self._apply(entry, lease, outcome)
            elif outcome is Outcome.SERVED:
                await self._clear(entry, lease.model)
        finally:
            if not had_room:
                self._place(entry)
            if entry.account.deleted_at is not None and entry.in_flight == 0:
                self._forget(entry)
            self._call_next()
        return verdict

    def _note(self, entry: _Entry, outcome: Outcome | Exception) -> None:
        """Remember when the account served or what went wrong, to be written with the next batch."""
        if outcome is Outcome.SERVED:
            entry.last_used_at = self._clock.now()
        elif isinstance(outcome, Exception) and (code := error_code(outcome)) is not None:
            entry.last_error, entry.last_error_at = code, self._clock.now()
        else:
            return
        self._active.add(entry.account.id)

    async def _apply(self, entry: _Entry, lease: Lease, error: Exception) -> Verdict:
        """Draw the consequences of an error."""
        limit, general = entry.waits.get(lease.model), entry.waits.get(ANY_MODEL)
        strikes = 0
        for wait, reasons in ((limit, ("guessed_limit",)), (general, ("distrusted",))):
            if wait is not None and wait.cooldown.reason in reasons:
                strikes = max(strikes, wait.cooldown.strikes)
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
        return verdict

    async def _clear(self, entry: _Entry, model: str) -> None:
        """A good answer ends suspicion and the counting of guessed waits."""
        now = self._clock.monotonic()
        for name in (model, ANY_MODEL):
            wait = entry.waits.get(name)
            if wait is not None and wait.ends <= now:
                self._end_wait(entry.account.id, name)
                del entry.waits[name]
        if entry.account.state == "suspect":
            await self._set_state(entry, "ok", None)

    async def _set_state(self, entry: _Entry, state: AccountState, reason: str | None) -> None:
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

    async def _keep(self, cooldown: Cooldown) -> None:
        self._dirty[cooldown.account_id, cooldown.model] = cooldown
        if cooldown.stated:
            try:
                await self.flush()
            except StorageError as error:
                log.warning("cannot store a wait yet: %s", error)

    def _begin_wait(self, cooldown: Cooldown) -> bool:
        """Begin a wait, unless one is running that was stated or loaded and lasts longer; tell whether it began."""
        entry = self._entries.get(cooldown.account_id)
        seconds = cooldown.until_at - self._clock.now()
        if entry is None or seconds <= 0:
            return False
        now = self._clock.monotonic()
        ends = now + seconds
        running = entry.waits.get(cooldown.model)
        if running is not None and running.ends >= ends and (running.cooldown.stated or not cooldown.stated):
            return False
        if cooldown.model != ANY_MODEL:
            self._waiting.setdefault(cooldown.model, set()).add(cooldown.account_id)
        entry.waits[cooldown.model] = _Wait(ends, cooldown)
        heapq.heappush(self._wakes, (ends, next(self._numbers), cooldown.account_id, cooldown.model))
        self._place(entry)
        return True

    def _wake_due(self) -> None:
        """Bring back the accounts whose waits have ended."""
        if not self._wakes:
            return
        now = self._clock.monotonic()
        while self._wakes and self._wakes[0][0] <= now:
            ends, _, account_id, model = heapq.heappop(self._wakes)
            entry = self._entries.get(account_id)
            wait = entry.waits.get(model) if entry is not None else None
            if entry is None or wait is None or wait.ends != ends:
                continue
            self._end_wait(account_id, model)
            if wait.cooldown.stated:
                del entry.waits[model]
            self._place(entry)

    def _forget(self, entry: _Entry) -> None:
        for model in entry.waits:
            self._end_wait(entry.account.id, model)
        self._entries.pop(entry.account.id, None)
        self._place(entry)

    def _end_wait(self, account_id: str, model: str) -> None:
        """Note that an account no longer waits with a model; a model without any needs no ring of its own."""
        waiting = self._waiting.get(model)
        if waiting is not None:
            waiting.discard(account_id)
            if not waiting:
                del self._waiting[model]
                for key in [key for key in self._rings if key[1] == model]:
                    del self._rings[key]

    def _view(self, entry: _Entry) -> AccountView:
        now, instant = self._clock.monotonic(), self._clock.now()
        waits = [
            WaitView(model, wait.ends - now, instant + wait.ends - now, wait.cooldown.stated, wait.cooldown.reason)
            for model, wait in entry.waits.items()
            if wait.ends > now
        ]
        return show_account(
            entry.account,
            waits,
            in_flight=entry.in_flight,
            last_used_at=entry.last_used_at,
            last_error=entry.last_error,
            last_error_at=entry.last_error_at,
        )

    def _shown(self, entry: _Entry) -> ShownState:
        cooling = entry.account.usable and entry.blocked_until(None) > self._clock.monotonic()
        return "cooling" if cooling else entry.account.state


Notify = Callable[[Account], None]
"""Takes an account that has just changed; AccountPool.put is one."""
