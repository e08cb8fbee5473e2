"""Who may serve a request: for each restriction and model one circle of accounts, kept up to date.

Theory of operation. A request is picked for within a scope (a workspace, a group, the accounts that a key may use) and
for a model. The accounts of that scope form a circle. Each of its members is ready, busy (it would be ready if it had
room) or waiting; they move when something happens to them, so that a pick looks at ready ones only and costs the same
for ten accounts and for ten thousand. Models that nobody waits with share one circle.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple

from chat2api.accounts.entries import Entry
from chat2api.accounts.selection import Ring
from chat2api.storage.values import Account

MAX_CIRCLES = 512
"""Circles kept; the longest unused is dropped, and made again when it is asked for."""


class Scope(NamedTuple):
    """What a request's account must be: of a workspace, of a group, one of those allowed; None restricts nothing."""

    workspace: str | None = None
    group: str | None = None
    allowed: frozenset[str] | None = None

    def includes(self, account: Account) -> bool:
        """Whether the account may be picked here at all. Callers' private accounts never are."""
        return (
            account.usable
            and account.owner is None
            and (self.workspace is None or account.workspace == self.workspace)
            and (self.group is None or self.group in account.groups)
            and (self.allowed is None or account.id in self.allowed)
        )


class Circle:
    """The accounts of one scope, by what they could do for one model."""

    def __init__(self, scope: Scope, model: str | None, ready: Ring) -> None:
        """Make an empty circle; `model` None stands for all that nobody waits with."""
        self.scope = scope
        self.model = model
        self.ready = ready
        self.busy: set[str] = set()
        self.members: dict[str, Entry] = {}
        self._soonest: float | None = None
        self._loads: list[tuple[int, int, str]] | None = None
        self._numbers = itertools.count()

    def place(self, entry: Entry, now: float, cap: int | None) -> None:
        """Bring a member's place up to date."""
        account_id = entry.account.id
        self._soonest = None
        if entry.blocked_until(self.model) > now:
            self.busy.discard(account_id)
            self.ready.discard(account_id)
        elif entry.has_room(cap):
            self.busy.discard(account_id)
            if account_id not in self.ready:
                self.ready.add(account_id)
                self._loads_changed(account_id, 0)
        else:
            self.ready.discard(account_id)
            self.busy.add(account_id)

    def remove(self, account_id: str) -> None:
        """Take out an account that is no member any more."""
        self._soonest = None
        self.members.pop(account_id, None)
        self.busy.discard(account_id)
        self.ready.discard(account_id)

    def least_loaded(self, load: Mapping[str, int], exclude: Container[str]) -> str | None:
        """Give the ready account with the smallest load, the longest not given among equals; None without any.

        Loads that grew are noticed here; of one that fell, tell `load_fell`.
        """
        if self._loads is None or len(self._loads) > 2 * len(self.members) + 64:
            self._loads = [
                (load.get(account_id, 0), next(self._numbers), account_id)
                for account_id in self.members
                if account_id in self.ready
            ]
            heapq.heapify(self._loads)
        heap, excluded = self._loads, []
        found: str | None = None
        while heap and found is None:
            known, _, account_id = heapq.heappop(heap)
            if account_id not in self.ready:
                continue  # comes again when it is ready again
            actual = load.get(account_id, 0)
            if known < actual:
                heapq.heappush(heap, (actual, next(self._numbers), account_id))
            elif account_id in exclude:
                excluded.append((known, next(self._numbers), account_id))
            else:
                found = account_id
                excluded.append((actual, next(self._numbers), account_id))
        for item in excluded:
            heapq.heappush(heap, item)
        return found

    def load_fell(self, account_id: str, load: int) -> None:
        """Take note that an account's load is smaller now."""
        if account_id in self.ready:
            self._loads_changed(account_id, load)

    def soonest(self, exclude: Container[str]) -> float | None:
        """Give when the first member's waits end, 0 for one that does not wait; None when there is no member."""
        if exclude:
            ends = (one.blocked_until(self.model) for name, one in self.members.items() if name not in exclude)
            return min(ends, default=None)
        if self._soonest is None and self.members:
            self._soonest = min(one.blocked_until(self.model) for one in self.members.values())
        return self._soonest

    def has_one_by(self, at: float, exclude: Container[str]) -> bool:
        """Whether a member beyond those waits no longer than until then; it may be busy."""
        return any(name not in exclude and one.blocked_until(self.model) <= at for name, one in self.members.items())

    def _loads_changed(self, account_id: str, at_least: int) -> None:
        if self._loads is not None:
            heapq.heappush(self._loads, (at_least, next(self._numbers), account_id))


class Circles:
    """All circles of a pool."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        make_ring: Callable[[], Ring],
        monotonic: Callable[[], float],
        cap: int | None,
        *,
        capacity: int = MAX_CIRCLES,
    ) -> None:
        """Draw circles of these entries, which the pool adds to; `cap` is how many requests an account serves."""
        self._entries = entries
        self._make_ring = make_ring
        self._monotonic = monotonic
        self._cap = cap
        self._capacity = capacity
        self._circles: OrderedDict[tuple[Scope, str | None], Circle] = OrderedDict()
        self._homes: dict[str, set[Circle]] = {}

    def __len__(self) -> int:
        """How many circles are kept."""
        return len(self._circles)

    def circle(self, scope: Scope, model: str | None) -> Circle:
        """Give the circle of a scope and model."""
        key = (scope, model)
        circle = self._circles.get(key)
        if circle is not None:
            self._circles.move_to_end(key)
            return circle
        circle = Circle(scope, model, self._make_ring())
        chosen: Iterable[Entry] = self._entries.values()
        if scope.allowed is not None and len(scope.allowed) < len(self._entries):
            # In the pool's order, which a set does not have: OrderedRing goes by it.
            chosen = [entry for name, entry in self._entries.items() if name in scope.allowed]
        for entry in chosen:
            if scope.includes(entry.account):
                circle.members[entry.account.id] = entry
                circle.place(entry, self._monotonic(), self._cap)
        # Callers choose workspaces: those without accounts must not push out the others.
        if circle.members or scope == Scope():
            self._keep(key, circle)
        return circle

    def place(self, entry: Entry) -> None:
        """Bring an account's places up to date after a lease, a release or the begin or end of a wait."""
        now = self._monotonic()
        for circle in self._homes.get(entry.account.id, ()):
            circle.place(entry, now, self._cap)

    def move(self, entry: Entry) -> None:
        """Bring the circles that an account is in up to date after a change of the account itself."""
        account_id, now = entry.account.id, self._monotonic()
        present = self._entries.get(account_id) is entry
        homes = self._homes.pop(account_id, set())
        for circle in self._circles.values():
            if present and circle.scope.includes(entry.account):
                circle.members[account_id] = entry
                circle.place(entry, now, self._cap)
                self._homes.setdefault(account_id, set()).add(circle)
            elif circle in homes:
                circle.remove(account_id)

    def load_fell(self, account_id: str, load: int) -> None:
        """Take note that an account has fewer keys."""
        for circle in self._homes.get(account_id, ()):
            circle.load_fell(account_id, load)

    def drop_model(self, model: str) -> None:
        """Drop the circles of a model that nobody waits with any more."""
        for key in [key for key in self._circles if key[1] == model]:
            self._drop(key)

    def _keep(self, key: tuple[Scope, str | None], circle: Circle) -> None:
        self._circles[key] = circle
        for account_id in circle.members:
            self._homes.setdefault(account_id, set()).add(circle)
        if len(self._circles) > self._capacity:
            self._drop(next(iter(self._circles)))

    def _drop(self, key: tuple[Scope, str | None]) -> None:
        circle = self._circles.pop(key)
        for account_id in circle.members:
            homes = self._homes.get(account_id)
            if homes is not None:
                homes.discard(circle)
