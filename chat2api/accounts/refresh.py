"""`TokenKeeper`: gives each account's access token, and renews it so that a rotating token is never lost by our doing.

Theory of operation. A refresh token may be good for one use. Whoever sends it and dies before the answer is stored has
lost it, and whoever sends the old one again may end the whole sign-in. Exactly once is impossible alone, so:

1. one flight per account in this process, one lock per account across replicas;
2. under the lock, read again: if somebody renewed meanwhile, take theirs;
3. commit an intent, which also proves that the store can be written; if that fails, nothing is sent;
4. send once;
5. commit the new pair, and only then use it;
6. an answer that says nothing about the token (5xx, 429, a page) leaves it as it is and waits;
7. when the outcome is unknown (no answer, or we died), the account is in doubt: the same token is sent once more
   within 30 s of the intent, since some servers accept it that long, and then never again until the operator acts.
   Meanwhile the access token serves until it ends.

A flight is a task of its own: a caller who leaves does not stop it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from chat2api.accounts.exchange import Exchange, fresh_tokens, outcome_unknown
from chat2api.accounts.health import GUESSED_SECONDS, clamp_stated, double
from chat2api.accounts.replicas import replica_may_live, replica_name
from chat2api.accounts.tokens import REFRESH_MARGIN, is_fresh, read_claims
from chat2api.clock import Clock
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    Chat2APIError,
    StorageError,
)
from chat2api.storage.records import Records
from chat2api.storage.shared import Lock, SharedState
from chat2api.storage.values import ANY_MODEL, Account, AccountState, Cooldown, FreshTokens, RefreshIntent, RefreshView

log = logging.getLogger(__name__)

POINTS = (
    "flight_started",
    "locked",
    "reread",
    "intent_ready",
    "intent_committed",
    "doubt_claimed",
    "sending",
    "answered",
    "commit_ready",
    "committed",
    "published",
    "unlocked",
)
"""Where tests stop the process, in the order in which a flight passes them (doubt_claimed in a second try only)."""

LOCK_SECONDS = 90.0
"""How long a flight may hold its lock: the exchange's 20 s, twice, and the stalls of a slow disk."""

RETRY_SECONDS = 30.0
"""How long after an intent the same token may be sent once more."""

TAKEOVER_SECONDS = 25.0
"""When the intent of another host, which may be alive, is taken for lost: over the exchange's own limit of 20 s."""

FALLBACK_SECONDS = 60.0
"""How long an account goes on with a token that still lives, before its renewal is tried again."""

Why = Literal["ending", "refused", "wanted", "doubt"]
"""What a flight is for: the token ends soon; the backend refused it; somebody wants a new one; an intent stands."""

COMMIT_TRIES = 20
COMMIT_PAUSE_SECONDS = 0.5


class Spawn(Protocol):
    """Starts background work that is kept and waited for, also when the server stops."""

    def __call__(self, work: Coroutine[Any, Any, str], name: str) -> asyncio.Task[str]:
        """Start it."""
        ...


@dataclass(slots=True)
class _Held:
    """An access token in memory. `issued_at` None when the token does not tell."""

    token: str = field(repr=False)
    generation: int
    issued_at: float | None
    expires_at: float | None


@dataclass(slots=True)
class _Pause:
    """After a refresh that failed without a word on the token: not again before `until` (monotonic)."""

    until: float
    strikes: int


class TokenKeeper:
    """Gives access tokens and renews them. One per process; `await recover()` once at the start."""

    def __init__(
        self,
        records: Records,
        shared: SharedState,
        clock: Clock,
        exchange: Exchange,
        spawn: Spawn,
        *,
        replica: str | None = None,
        margin: float = REFRESH_MARGIN,
        on_change: Callable[[Account], None] | None = None,
        on_wait: Callable[[Cooldown], Awaitable[None]] | None = None,
        is_alive: Callable[[str], bool] | None = None,
        at: Callable[[str], None] | None = None,
    ) -> None:
        """Make a keeper.

        `replica` is this process's own name (`replica_name`); `is_alive` tells of another's. `on_change` is told
        every changed account (AccountPool.put), `on_wait` every wait (AccountPool.cool). `at` is called at POINTS.
        """
        self._records = records
        self._shared = shared
        self._clock = clock
        self._exchange = exchange
        self._spawn = spawn
        self._replica = replica or replica_name()
        self._margin = margin
        self._on_change = on_change or (lambda account: None)
        self._on_wait = on_wait
        self._is_alive = is_alive or replica_may_live
        self._at = at or (lambda point: None)
        self._held: dict[str, _Held] = {}
        self._flights: dict[str, asyncio.Task[str]] = {}
        self._pauses: dict[str, _Pause] = {}
        self._unsaved: dict[str, tuple[RefreshIntent, FreshTokens]] = {}
        self._skew = 0.0
        self.reused_total = 0
        """How often the server said that a token was used before: an alarm at 1."""
        self.in_doubt_total = 0
        """How many accounts came into doubt."""
        self.commit_seconds: list[float] = []
        """How long the last answers waited until their tokens were on disk, newest last, at most 100."""

    async def access_token(self, account: Account, *, force: bool = False) -> str | None:
        """Give a token that is good for at least the margin, renewed if need be; None for a device id.

        `force` says that the backend refused the token of just this `account` picture; one that was renewed
        since is given as it is. Raises AccountRejectedError when only the operator can help, AccountLimitedError
        while a failed refresh waits, another UpstreamError when the refresh failed, StorageError.
        """
        if account.kind == "device":
            return None
        held = self._held.get(account.id)
        if held is None or held.generation < account.generation:
            held = await self._load(account)
        if (
            held is not None
            and not (force and held.generation <= account.generation)
            and (self._is_fresh(held) or (self._lives(held) and self._pause_left(account.id) > 0))
        ):
            return held.token
        joined = account.id in self._flights
        token = await self._join_flight(account, "refused" if force else "ending")
        if force and joined and self._held[account.id].generation <= account.generation:
            # That flight was about something else and fell back on the token that is refused.
            token = await self._join_flight(account, "refused")
        return token

    async def renew(self, account: Account) -> None:
        """Renew an account's token by hand, although it is still good. Raises as access_token does."""
        await self._join_flight(account, "wanted")

    async def recover(self) -> int:
        """Settle the intents that a former process left; give how many accounts stay in doubt.

        Ends within 30 s of the last intent. Call it once at the start, as background work.
        """
        doubts = await self._records.doubts()
        await asyncio.gather(*(self._recover(intent) for intent in doubts))
        return len(await self._records.doubts())

    async def life(self, account: Account) -> tuple[float, float] | None:
        """Give when the account's access token was issued and when it ends, by the issuer's clock, corrected to ours.

        None without a token, or where its end is unknown; a token that does not tell its issue counts as short-lived.
        """
        held = self._held.get(account.id)
        if held is None or held.generation < account.generation:
            held = await self._load(account)
        if held is None or held.expires_at is None:
            return None
        issued_at = held.issued_at if held.issued_at is not None else held.expires_at - 10 * self._margin
        return issued_at - self._skew, held.expires_at - self._skew

    async def is_fresh(self, account: Account) -> bool:
        """Whether the account has an access token that need not be renewed before its next use."""
        held = self._held.get(account.id)
        if held is None or held.generation < account.generation:
            held = await self._load(account)
        return held is not None and self._is_fresh(held)

    def forget_others(self, known: Container[str]) -> None:
        """Drop from memory what is kept for accounts that are gone, their access tokens first of all."""
        for account_id in [one for one in (*self._held, *self._pauses) if one not in known]:
            self._held.pop(account_id, None)
            self._pauses.pop(account_id, None)

    # A flight

    async def _join_flight(self, account: Account, why: Why) -> str:
        """Give the token of the account's flight, which is begun if none is under way; it outlives its callers."""
        flight = self._flights.get(account.id)
        if flight is None:
            flight = self._flights[account.id] = self._spawn(self._fly(account, why), f"refresh {account.label}")
            flight.add_done_callback(lambda done: self._land(account.id, done))
        return await asyncio.shield(flight)

    def _land(self, account_id: str, flight: "asyncio.Task[str]") -> None:
        self._flights.pop(account_id, None)
        if not flight.cancelled():
            flight.exception()  # whoever asked has it; when all of them left, it is no news to the event loop

    async def _fly(self, account: Account, why: Why) -> str:
        self._at("flight_started")
        lock = await self._lock(account)
        try:
            self._at("locked")
            return await self._renew(account, why)
        finally:
            await self._shared.release_lock(lock)
            self._at("unlocked")

    async def _lock(self, account: Account) -> Lock:
        for _ in range(int(LOCK_SECONDS * 2)):
            lock = await self._shared.take_lock(f"refresh:{account.id}", LOCK_SECONDS)
            if lock is not None:
                return lock
            await self._clock.sleep(0.5)
        raise AccountLimitedError("The account's sign-in is being renewed elsewhere.", retry_after=LOCK_SECONDS)

    async def _renew(self, account: Account, why: Why) -> str:
        """Give a token under the lock: the one that is there by now, or a new one."""
        view = await self._records.refresh_view(account.id)
        self._at("reread")
        if view is None or view.account.deleted_at is not None:
            raise AccountRejectedError("The account was removed.", reason="removed")
        held = self._keep(view)
        renewed = held is not None and held.generation > account.generation
        if held is not None and self._is_fresh(held) and (renewed or why == "ending"):
            self._on_change(view.account)
            return held.token
        try:
            return await self._obtain(view)
        except Chat2APIError as error:
            # Early renewal is a precaution: while the old token lives, its failure costs nobody an answer.
            if held is not None and self._lives(held) and (why != "refused" or renewed):
                if self._pause_left(account.id) <= 0:
                    self._pauses[account.id] = _Pause(self._clock.monotonic() + FALLBACK_SECONDS, 0)
                log.warning("account %s goes on with its present token: %s", view.account.label, error)
                if why in ("wanted", "doubt"):
                    raise
                return held.token
            if isinstance(error, AccountRejectedError) and error.reason != "restored_copy":
                await self._mark(view.account, "needs_sign_in", error.reason)
            raise

    async def _obtain(self, view: RefreshView) -> str:
        """Renew, or raise what stands in the way."""
        account = view.account
        if account.id in self._unsaved:
            return await self._save_late(account)
        if view.secrets.renewable is None:
            raise AccountRejectedError(
                "The account's AccessToken has ended, and it has no RefreshToken to renew it with.",
                reason="no_refresh_token",
            )
        if account.state == "needs_sign_in":
            raise AccountRejectedError("The account needs a new sign-in.", reason=account.reason or "needs_sign_in")
        if view.intent is not None:
            return await self._settle(view, view.intent)
        left = self._pause_left(account.id)
        if left > 0:
            raise AccountLimitedError("The account's sign-in could not be renewed a moment ago.", retry_after=left)
        if await self._records.restored():
            raise AccountRejectedError(
                "The records are an older copy, whose tokens may be used up. Add the newest ones: chat2api tokens add -",
                reason="restored_copy",
            )
        self._at("intent_ready")
        intent = await self._records.begin_refresh(account, self._replica, self._clock.now())
        if intent is None:
            later = await self._records.refresh_view(account.id)
            if later is not None and later.intent is not None:
                return await self._settle(later, later.intent)
            return await self._follow_other(account)
        self._at("intent_committed")
        return await self._send(account, view.secrets.renewable, intent)

    async def _send(self, account: Account, token: str, intent: RefreshIntent) -> str:
        """Send the token under its intent, and end the intent with what is learnt, if anything is."""
        self._at("sending")
        try:
            answer = await self._exchange(account, token)
        except AccountRejectedError as error:
            return await self._take_rejection(account, intent, error)
        except Chat2APIError as error:
            # Not only the server's errors: no exit may be free to send through, and then nothing was sent.
            if not outcome_unknown(error) or account.rotates is False:
                # A server that did not rotate last time gave the token back, whatever became of the answer.
                if intent.retried_at is None:
                    await self._records.abandon_refresh(intent, self._clock.now())
                await self._pause(account, error)
                raise
            return await self._take_silence(account, token, intent, error)
        arrived = self._clock.monotonic()
        self._at("answered")
        self._skew = answer.date_skew
        fresh = fresh_tokens(answer, self._clock.now() + self._skew)
        self._at("commit_ready")
        changed = await self._commit(intent, fresh, arrived)
        self._at("committed")
        if changed is None:
            return await self._follow_other(account)
        self._pauses.pop(account.id, None)
        held = self._hold(changed, fresh.access)
        self._on_change(changed)
        self._at("published")
        return held.token

    async def _take_rejection(self, account: Account, intent: RefreshIntent, error: AccountRejectedError) -> str:
        """The token is dead, unless somebody renewed it meanwhile; a second try in doubt leaves the doubt."""
        self.reused_total += error.reason == "refresh_token_reused"
        view = await self._records.refresh_view(account.id)
        if view is not None and view.account.generation > intent.generation and (held := self._keep(view)) is not None:
            self._on_change(view.account)
            return held.token
        if intent.retried_at is not None:
            await self._mark(account, "in_doubt", error.reason)
            raise error
        changed = await self._records.abandon_refresh(
            intent, self._clock.now(), state="needs_sign_in", reason=error.reason
        )
        if changed is not None:
            self._on_change(changed)
        raise error

    async def _take_silence(self, account: Account, token: str, intent: RefreshIntent, error: Chat2APIError) -> str:
        """The token may be consumed: say so on disk, then try the same token once, while servers may accept it."""
        if intent.retried_at is None:
            self.in_doubt_total += 1
        await self._mark(account, "in_doubt", "unknown_outcome")
        return await self._try_again(account, token, intent, error)

    async def _settle(self, view: RefreshView, intent: RefreshIntent) -> str:
        """Deal with an intent that was there before us: another's flight, or a former process's end."""
        if intent.replica != self._replica and self._is_alive(intent.replica):
            while 0 <= self._clock.now() - intent.started_at < TAKEOVER_SECONDS:
                await self._clock.sleep(0.5)
                later = await self._records.refresh_view(intent.account_id)
                if later is None or later.intent is None or later.account.generation != intent.generation:
                    return await self._follow_other(view.account)
        account = view.account
        if account.state != "in_doubt":
            self.in_doubt_total += 1
            account = await self._mark(account, "in_doubt", "unknown_outcome") or account
        error = AccountRejectedError(
            "A refresh was cut off, and its token may be used up. Sign in again and import the new token.",
            reason="in_doubt",
        )
        return await self._try_again(account, view.secrets.renewable or "", intent, error)

    async def _try_again(self, account: Account, token: str, intent: RefreshIntent, error: Chat2APIError) -> str:
        """Send the same token once more if that is still allowed, else raise `error`."""
        age = self._clock.now() - intent.started_at
        if intent.retried_at is not None or not 0 <= age < RETRY_SECONDS or await self._records.restored():
            raise error
        claimed = await self._records.claim_doubt(intent, self._replica, self._clock.now())
        if claimed is None:
            return await self._follow_other(account)
        self._at("doubt_claimed")
        return await self._send(account, token, claimed)

    async def _follow_other(self, account: Account) -> str:
        """Give the token that another flight brought; AccountLimitedError when it brought none."""
        view = await self._records.refresh_view(account.id)
        if view is not None and (held := self._keep(view)) is not None:
            self._on_change(view.account)
            if held.generation > account.generation:
                return held.token
        raise AccountLimitedError("The account's sign-in is being renewed elsewhere.", retry_after=5.0)

    # The commit

    async def _commit(self, intent: RefreshIntent, fresh: FreshTokens, arrived: float) -> Account | None:
        """Store the new pair; while the disk refuses, keep it in memory and try again. Raises StorageError at last."""
        self._unsaved[intent.account_id] = (intent, fresh)
        for attempt in range(COMMIT_TRIES):
            try:
                changed = await self._records.complete_refresh(intent, fresh, self._clock.now())
            except StorageError:
                if attempt == COMMIT_TRIES - 1:
                    raise
                await self._clock.sleep(COMMIT_PAUSE_SECONDS)
                continue
            self._unsaved.pop(intent.account_id, None)
            self.commit_seconds = [*self.commit_seconds[-99:], self._clock.monotonic() - arrived]
            return changed
        raise AssertionError("the last attempt returns or raises")

    async def _save_late(self, account: Account) -> str:
        """Store a pair that the disk refused earlier, and give its token."""
        changed = await self._records.complete_refresh(*self._unsaved[account.id], self._clock.now())
        _, fresh = self._unsaved.pop(account.id)
        if changed is None:
            return await self._follow_other(account)
        self._on_change(changed)
        return self._hold(changed, fresh.access).token

    # Small parts

    async def _recover(self, intent: RefreshIntent) -> None:
        account = await self._records.account(intent.account_id)
        if account is None or account.deleted_at is not None:
            return
        try:
            await self._join_flight(account, "doubt")
        except Chat2APIError as error:
            log.warning("account %s is in doubt: %s", account.label, error)

    async def _load(self, account: Account) -> _Held | None:
        view = await self._records.refresh_view(account.id)
        return self._keep(view) if view is not None else None

    def _keep(self, view: RefreshView) -> _Held | None:
        return self._hold(view.account, view.secrets.access) if view.secrets.access is not None else None

    def _hold(self, account: Account, token: str) -> _Held:
        claims = read_claims(token)
        held = _Held(token, account.generation, claims.issued_at, account.expires_at or claims.expires_at)
        self._held[account.id] = held
        return held

    def _is_fresh(self, held: _Held) -> bool:
        return is_fresh(
            held.expires_at, self._clock.now(), issued_at=held.issued_at, skew=self._skew, margin=self._margin
        )

    def _lives(self, held: _Held) -> bool:
        return is_fresh(held.expires_at, self._clock.now(), skew=self._skew, margin=0.0)

    async def _mark(self, seen: Account, state: AccountState, reason: str) -> Account | None:
        """Store a state; a row that changed under us is read again, a few times.

        One that got other tokens meanwhile is left: what is to be said was learnt of those before.
        """
        for _ in range(3):
            account = await self._records.account(seen.id)
            if account is None or account.generation != seen.generation:
                return account
            if (account.state, account.reason) == (state, reason):
                return account
            changed = await self._records.set_state(account, state, reason, self._clock.now())
            if changed is not None:
                self._on_change(changed)
                return changed
        return None

    async def _pause(self, account: Account, error: Chat2APIError) -> None:
        """Let the account's refresh wait: the time the server stated, or a guess that doubles."""
        before = self._pauses.get(account.id)
        strikes = before.strikes if before is not None else 0
        stated = clamp_stated(error.retry_after)
        seconds = stated if stated is not None else double(GUESSED_SECONDS, strikes)
        self._pauses[account.id] = _Pause(self._clock.monotonic() + seconds, strikes + 1)
        held = self._held.get(account.id)
        if self._on_wait is not None and (held is None or not self._lives(held)):
            until = self._clock.now() + seconds
            wait = Cooldown(account.id, ANY_MODEL, until, stated is not None, "refresh_failed", strikes + 1)
            await self._on_wait(wait)

    def _pause_left(self, account_id: str) -> float:
        pause = self._pauses.get(account_id)
        return pause.until - self._clock.monotonic() if pause is not None else 0.0
