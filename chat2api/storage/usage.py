"""The usage ledger as the records have it: sums by day, key, account and model, and nothing that tells what was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from chat2api.storage.keys import DAY_SECONDS


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one key used of one account and model on one day.

    `day` is a date in UTC, or a month (`2026-11`) of which only the sum is kept. `key` is the id of an issued key, or
    a word for the other callers (operator, own, anonymous, demo). `account` is an account's label, "" for accounts
    that are not the pool's; `model` the slug that served. `requests` counts those that were answered, at least in part;
    `errors` those that failed, whether or not an answer had begun. `seconds` is how long they took in all.
    """

    day: str
    key: str
    account: str
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class KeyTotals:
    """What a key has used, today and in its life, and when last (to the minute); tokens are those of prompts and answers."""

    requests_today: int = 0
    tokens_today: int = 0
    requests: int = 0
    tokens: int = 0
    last_at: float | None = None


class UsageRecords(Protocol):
    """The rows of the ledger; every method is one atomic intention and raises StorageError."""

    async def add(self, rows: Sequence[UsageRow], uses: Mapping[str, float] | None = None) -> None:
        """Add the rows' numbers to what is stored for the same day, key, account and model; all or nothing.

        `uses` tells when keys were used last; of two instants the later one stays.
        """
        ...

    async def rows(
        self, *, since: str | None = None, until: str | None = None, key: str | None = None
    ) -> tuple[UsageRow, ...]:
        """Give the rows from one day to another, both included, in order; months count that overlap."""
        ...

    async def totals(self, day: str) -> Mapping[str, KeyTotals]:
        """Give what each key has used, with `day` as today."""
        ...

    async def roll_up(self, before: str) -> int:
        """Fold the days before that date into their months, and give how many rows were folded; sums stay."""
        ...


def day_of(now: float) -> str:
    """Give the date of an instant, in UTC."""
    return _date(int(now // DAY_SECONDS))


@lru_cache(maxsize=8)
def _date(day: int) -> str:
    """Give the date of a day counted from 1970; asked several times a request, hence remembered."""
    return datetime.fromtimestamp(day * DAY_SECONDS, UTC).strftime("%Y-%m-%d")
