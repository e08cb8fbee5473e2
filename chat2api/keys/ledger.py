"""The usage ledger: who used how much, gathered in memory and written in batches.

A finished request costs one addition here; every half second what came together is added to the records in one
transaction. So `kill -9` loses what was booked within the last second, and an orderly stop loses nothing. What is booked
names no prompt, no file and no person's address, only key, account, model and numbers.

Days are kept for a while and then folded into their months, whose sums stay for ever.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Protocol

from chat2api.clock import Clock
from chat2api.errors import StorageError
from chat2api.storage.usage import UsageRecords, UsageRow, day_of

log = logging.getLogger(__name__)

WRITE = "ledger write"
"""The name of tasks that must not be cancelled: half-way, nobody could tell whether the numbers were added."""

FLUSH_SECONDS = 0.5
DAYS_KEPT = 30
"""Days after the end of a month for which its days are told apart."""

USE_SECONDS = 60.0
"""How precisely the last use of a key is kept: enough to see an idle key, too coarse to follow a person."""

MAX_MODEL = 200
"""Longest name of a model that is booked, in characters."""

_Place = tuple[str, str, str, str]


class Spawn(Protocol):
    """Starts a background task that the runtime keeps and names."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start it."""
        ...


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    errors: int = 0

    def add(self, row: "UsageRow | _Sum") -> None:
        self.requests += row.requests
        self.prompt_tokens += row.prompt_tokens
        self.completion_tokens += row.completion_tokens
        self.images += row.images
        self.seconds += row.seconds
        self.errors += row.errors


class Ledger:
    """Books usage. Keep `run()` running, and `flush` at the end."""

    def __init__(self, records: UsageRecords, clock: Clock, spawn: Spawn) -> None:
        """Write into these records, by tasks that `spawn` starts."""
        self._records = records
        self._clock = clock
        self._spawn = spawn
        self._sums: dict[_Place, _Sum] = {}
        self._uses: dict[str, float] = {}
        self._flushing = asyncio.Lock()
        self._rolled_up = ""

    def book(self, row: UsageRow) -> None:
        """Add one request's numbers."""
        place = (row.day, row.key, row.account, row.model[:MAX_MODEL])
        found = self._sums.get(place)
        if found is None:
            found = self._sums[place] = _Sum()
        found.add(row)
        self._uses[row.key] = self._clock.now() // USE_SECONDS * USE_SECONDS

    async def flush(self) -> None:
        """Return once all that was booked is on disk. Raises StorageError, and then keeps it for the next time."""
        async with self._flushing:
            if self._sums:
                await asyncio.shield(self._spawn(self._write(), WRITE))

    async def _write(self) -> None:
        sums, self._sums = self._sums, {}
        uses, self._uses = self._uses, {}
        try:
            await self._records.add([_to_row(place, total) for place, total in sums.items()], uses)
        except StorageError:
            self._uses = uses | self._uses
            for place, total in sums.items():
                self._sums.setdefault(place, _Sum()).add(total)
            raise

    async def run(self) -> None:
        """Write, and fold old days, for ever; trouble with the records is logged and outlived."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
                await self._roll_up()
            except StorageError as error:
                log.warning("usage cannot be written yet: %s", error)

    async def _roll_up(self) -> None:
        today = day_of(self._clock.now())
        if today != self._rolled_up:
            await self._records.roll_up(first_day_kept(today))
            self._rolled_up = today


def first_day_kept(today: str) -> str:
    """Give the first day that is still told apart on that date: always the first of a month."""
    return (date.fromisoformat(today) - timedelta(days=DAYS_KEPT)).replace(day=1).isoformat()


def _to_row(place: _Place, total: _Sum) -> UsageRow:
    day, key, account, model = place
    return UsageRow(
        day,
        key,
        account,
        model,
        total.requests,
        total.prompt_tokens,
        total.completion_tokens,
        total.images,
        total.seconds,
        total.errors,
    )
