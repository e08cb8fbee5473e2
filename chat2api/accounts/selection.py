"""Who is next: rings of account ids that give the next one in constant time, whatever the number of accounts.

Pure: no clock, and random numbers come from the generator that is handed in. Whoever cannot serve is taken out of the
ring when that becomes known, so that picking never has to look at those who wait.
"""

import random
from collections import OrderedDict
from collections.abc import Container
from typing import Protocol


class Ring(Protocol):
    """Ids that may be picked."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __contains__(self, account_id: object) -> bool:
        """Whether an id is in it."""
        ...

    def add(self, account_id: str) -> None:
        """Put an id in; one that is there already stays where it is."""
        ...

    def discard(self, account_id: str) -> None:
        """Take an id out, if it is there."""
        ...

    def pick(self, exclude: Container[str]) -> str | None:
        """Give the next id that is not excluded; None when there is none. The id stays in the ring."""
        ...


class RandomRing:
    """Every id is equally likely to be picked."""

    _TRIES = 4

    def __init__(self, rng: random.Random) -> None:
        """Make an empty ring."""
        self._random = rng.random
        self._ids: list[str] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ids)

    def __contains__(self, account_id: object) -> bool:
        """See Ring."""
        return account_id in self._places

    def add(self, account_id: str) -> None:
        """See Ring."""
        if account_id not in self._places:
            self._places[account_id] = len(self._ids)
            self._ids.append(account_id)

    def discard(self, account_id: str) -> None:
        """See Ring. The last id moves into the gap, so nothing is shifted."""
        place = self._places.pop(account_id, None)
        if place is None:
            return
        last = self._ids.pop()
        if last != account_id:
            self._ids[place] = last
            self._places[last] = place

    def pick(self, exclude: Container[str]) -> str | None:
        """See Ring."""
        count = len(self._ids)
        if count == 0:
            return None
        for _ in range(self._TRIES):
            account_id = self._ids[int(self._random() * count)]
            if account_id not in exclude:
                return account_id
        # Most are excluded. Drawing among the rest keeps them equally likely; the rest is short or rarely needed.
        rest = [account_id for account_id in self._ids if account_id not in exclude]
        return rest[int(self._random() * len(rest))] if rest else None


class OrderedRing:
    """Each id in its turn; one that is put in, or was just picked, comes last."""

    def __init__(self) -> None:
        """Make an empty ring."""
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ids)

    def __contains__(self, account_id: object) -> bool:
        """See Ring."""
        return account_id in self._ids

    def add(self, account_id: str) -> None:
        """See Ring."""
        self._ids.setdefault(account_id)

    def discard(self, account_id: str) -> None:
        """See Ring."""
        self._ids.pop(account_id, None)

    def pick(self, exclude: Container[str]) -> str | None:
        """See Ring. Costs one step for each excluded id that stands in front."""
        for account_id in self._ids:
            if account_id not in exclude:
                self._ids.move_to_end(account_id)
                return account_id
        return None
