"""A short fair queue for requests whose accounts are all busy: each caller has a line, and the lines take turns.

A caller with sixty requests waiting so delays another's first one by one turn, not by sixty.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

W = TypeVar("W")
"""What a waiting request wants."""

G = TypeVar("G")
"""What it is given."""


class Waiter(Generic[W, G]):
    """One waiting request; its `turn` is settled with what it waits for, or with the error that it does so in vain."""

    __slots__ = ("owner", "turn", "want")

    def __init__(self, owner: str, want: W) -> None:
        """Made by FairQueue.join only."""
        self.owner = owner
        self.want = want
        self.turn: asyncio.Future[G] = asyncio.get_running_loop().create_future()


class FairQueue(Generic[W, G]):
    """Lines of waiting requests, one for each owner."""

    def __init__(self, *, length: int, length_each: int) -> None:
        """Let at most `length` requests wait, and `length_each` of one owner."""
        self._length = length
        self._length_each = length_each
        self._lines: OrderedDict[str, OrderedDict[Waiter[W, G], None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def __iter__(self) -> Iterator[Waiter[W, G]]:
        """Give all that wait, as they are now; they may leave meanwhile."""
        return iter([waiter for line in self._lines.values() for waiter in line])

    def join(self, owner: str, want: W) -> Waiter[W, G] | None:
        """Wait at the end of the owner's line; None when the line or the queue is full. `leave` it in any case."""
        line = self._lines.get(owner)
        if self._count >= self._length or (line is not None and len(line) >= self._length_each):
            return None
        if line is None:
            line = self._lines[owner] = OrderedDict()
        waiter: Waiter[W, G] = Waiter(owner, want)
        line[waiter] = None
        self._count += 1
        return waiter

    def leave(self, waiter: Waiter[W, G]) -> None:
        """Wait no longer; one that has left already is no error."""
        line = self._lines.get(waiter.owner)
        if line is None or waiter not in line:
            return
        del line[waiter]
        self._count -= 1
        if not line:
            del self._lines[waiter.owner]

    def call(self, suits: Callable[[W], bool]) -> Waiter[W, G] | None:
        """Take out the next whose want is suited: the first such of the line whose turn it is; None without any.

        Its line goes to the end of the round.
        """
        for owner, line in self._lines.items():
            for waiter in line:
                if not waiter.turn.done() and suits(waiter.want):
                    self.leave(waiter)
                    if owner in self._lines:
                        self._lines.move_to_end(owner)
                    return waiter
        return None
