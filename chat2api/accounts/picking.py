"""Which account serves a request now, or whose turn it is when all that could are busy.

`Picker` counts the leases of each account and keeps circles, queue and affinity in step with what happens to it. A place
that becomes free is handed to the next request of the queue at once, so that no newcomer slips in between.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from chat2api.accounts.affinity import Affinity
from chat2api.accounts.circles import Circle, Circles, Scope
from chat2api.accounts.entries import Entry
from chat2api.accounts.queue import FairQueue, Waiter
from chat2api.accounts.selection import OrderedRing, RandomRing, Ring
from chat2api.errors import AllAccountsCoolingError, NoAccountError


@dataclass(slots=True)
class Want:
    """What a request needs of its account.

    `account_id` names one. `roomless` requests need no place below the cap; `unguessed` ones wait for nothing but
    what the backend stated.
    """

    model: str
    scope: Scope
    account_id: str | None = None
    exclude: Set[str] = frozenset()
    roomless: bool = False
    unguessed: bool = False


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many requests may wait for an account, of one caller and in all, and for how many seconds."""

    seconds: float = 10.0
    length: int = 512
    length_each: int = 64


class Picker:
    """Picks among the entries of a pool."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        monotonic: Callable[[], float],
        watched: Callable[[str], str | None],
        *,
        rng: random.Random,
        in_order: bool,
        cap: int | None,
        limits: QueueLimits,
    ) -> None:
        """Pick among these entries; `watched` gives a model if an account waits with it, else None."""
        self._entries = entries
        self._monotonic = monotonic
        self._watched = watched
        self._cap = cap
        self._seconds = limits.seconds
        self._queue: FairQueue[Want, Entry] = FairQueue(length=limits.length, length_each=limits.length_each)
        make_ring: Callable[[], Ring] = OrderedRing if in_order else lambda: RandomRing(rng)
        self._circles = Circles(entries, make_ring, monotonic, cap)
        self._affinity = Affinity()

    async def take(self, want: Want, *, affinity: str | None, owner: str) -> Entry:
        """Give the account for a request, with one more in flight; after a turn in the owner's line if need be.

        Raises AllAccountsCoolingError and NoAccountError, as AccountPool.lease says.
        """
        entry = self._named(want) if want.account_id is not None else self._next(want, affinity)
        if entry is not None:
            self._count(entry)
            return entry
        if not self._somebody_busy(want):
            raise self._nobody(want)
        return await self._wait_for_turn(want, owner)

    def give_back(self, entry: Entry) -> None:
        """End one use of an account."""
        was_full = not entry.has_room(self._cap)
        entry.in_flight -= 1
        if was_full:
            self._circles.place(entry)
            if self._queue:
                self._hand_out(entry)
                if self._serves_now(entry):
                    self._send_away()  # nobody wants this one, and some may have hoped for nothing else

    def place(self, entry: Entry) -> None:
        """Take note that an account waits, or does so no longer."""
        self._circles.place(entry)
        self._tell_queue(entry)

    def move(self, entry: Entry) -> None:
        """Take note that the account itself changed, came or went."""
        self._circles.move(entry)
        self._tell_queue(entry)

    def drop_model(self, model: str) -> None:
        """Take note that nobody waits with a model any more."""
        self._circles.drop_model(model)

    def soonest(self, want: Want) -> float | None:
        """Give when the first account could serve (monotonic; past for now); None when there is none."""
        return self._circle(want).soonest(want.exclude)

    def may_serve(self, want: Want, by: float) -> bool:
        """Whether some account beyond those that the request excludes waits no longer than until then (monotonic)."""
        return self._circle(want).has_one_by(by, want.exclude)

    @property
    def everybody(self) -> Mapping[str, Entry]:
        """The usable accounts of the pool itself."""
        return self._circles.circle(Scope(), None).members

    def _circle(self, want: Want) -> Circle:
        return self._circles.circle(want.scope, self._watched(want.model))

    def _next(self, want: Want, affinity: str | None) -> Entry | None:
        circle = self._circle(want)
        picked = self._pick_bound(circle, want, affinity) if affinity is not None else circle.ready.pick(want.exclude)
        return self._entries[picked] if picked is not None else None

    def _pick_bound(self, circle: Circle, want: Want, key: str) -> str | None:
        bound = self._affinity.find(key)
        if bound is not None:
            if bound in circle.ready and bound not in want.exclude:
                return bound
            if bound in circle.busy or bound in circle.ready:
                # Another one helps out this time; the key stays, since its account is well.
                return circle.ready.pick(want.exclude)
        picked = circle.least_loaded(self._affinity.load, want.exclude)
        if picked is not None:
            for account_id in self._affinity.bind(key, picked):
                self._circles.load_fell(account_id, self._affinity.load.get(account_id, 0))
        return picked

    def _named(self, want: Want) -> Entry | None:
        entry = self._permitted(want)
        if entry is None or not (want.roomless or entry.has_room(self._cap)):
            return None
        blocked = entry.blocked_until(want.model, stated_only=want.unguessed)
        return entry if blocked <= self._monotonic() else None

    def _permitted(self, want: Want) -> Entry | None:
        """Give the account that is named, if it is usable and not beyond the request's scope."""
        entry = self._entries.get(want.account_id or "")
        if entry is None or not entry.account.usable:
            return None
        return entry if entry.account.owner is not None or want.scope.includes(entry.account) else None

    def _suits(self, entry: Entry, want: Want) -> bool:
        """Whether a request that waits may have this account, which has room and does not wait with all models."""
        if entry.blocked_until(want.model) > self._monotonic():
            return False
        if want.account_id is not None:
            return want.account_id == entry.account.id and self._permitted(want) is not None
        return entry.account.id not in want.exclude and want.scope.includes(entry.account)

    def _count(self, entry: Entry) -> None:
        entry.in_flight += 1
        if not entry.has_room(self._cap):
            self._circles.place(entry)

    def _somebody_busy(self, want: Want) -> bool:
        """Whether waiting for a release may help."""
        if want.account_id is None:
            return any(account_id not in want.exclude for account_id in self._circle(want).busy)
        entry = self._permitted(want)
        if entry is None or want.roomless:
            return False
        return not entry.has_room(self._cap) and entry.blocked_until(want.model) <= self._monotonic()

    def _nobody(self, want: Want) -> NoAccountError | AllAccountsCoolingError:
        if want.account_id is not None:
            entry = self._permitted(want)
            if entry is None:
                return NoAccountError("The account of this conversation cannot be used any more. Begin a new one.")
            soonest: float | None = entry.blocked_until(want.model)
        else:
            soonest = self._circle(want).soonest(want.exclude)
        if soonest is None:
            where = " of this workspace" if want.scope.workspace is not None else ""
            if want.scope.group is not None or want.scope.allowed is not None:
                where += " that this key may use"
            return NoAccountError(f"No usable account{where}. The operator can add one: chat2api tokens add -")
        return AllAccountsCoolingError(
            "Every account that could serve this is waiting for its limit to end.",
            retry_after=max(soonest - self._monotonic(), 0.0),
        )

    # Waiting for a turn

    async def _wait_for_turn(self, want: Want, owner: str) -> Entry:
        """Give an account that was taken for this request. Raises what `lease` raises when there is none in time."""
        waiter = self._queue.join(owner, want)
        if waiter is None:
            raise AllAccountsCoolingError("Every account is busy and the queue is full.", retry_after=1.0)
        try:
            # The queue is about real waiting: an event loop's own time.
            async with asyncio.timeout(self._seconds):
                return await waiter.turn
        except TimeoutError as error:
            if (entry := _given(waiter)) is not None:
                return entry  # called at the last moment
            raise AllAccountsCoolingError("Every account is busy.", retry_after=1.0) from error
        except asyncio.CancelledError:
            if (entry := _given(waiter)) is not None:
                self.give_back(entry)  # called, but gone: it is the next one's
            raise
        finally:
            self._queue.leave(waiter)

    def _tell_queue(self, entry: Entry) -> None:
        if self._queue:
            self._hand_out(entry)
            self._send_away()

    def _hand_out(self, entry: Entry) -> None:
        """Hand an account to those who wait for one like it."""
        while self._serves_now(entry):
            waiter = self._queue.call(lambda want: self._suits(entry, want))
            if waiter is None:
                return
            self._count(entry)
            waiter.turn.set_result(entry)

    def _send_away(self) -> None:
        """Tell those who wait in vain now: what they waited for is not busy any more, but waiting or gone."""
        for waiter in self._queue:
            if not waiter.turn.done() and not self._somebody_busy(waiter.want):
                waiter.turn.set_exception(self._nobody(waiter.want))

    def _serves_now(self, entry: Entry) -> bool:
        return entry.account.usable and entry.has_room(self._cap) and self._entries.get(entry.account.id) is entry


def _given(waiter: Waiter[Want, Entry]) -> Entry | None:
    """Give what a waiter was called with, if it was; an error that nobody takes any more is taken note of."""
    turn = waiter.turn
    if not turn.done() or turn.cancelled() or turn.exception() is not None:
        return None
    return turn.result()
