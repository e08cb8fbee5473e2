"""The ledger as people and programs want it: sums by day, key, account or model, and the whole of it as a table."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta

from chat2api.errors import InvalidRequestError
from chat2api.storage.usage import UsageRow

Json = dict[str, object]

NUMBERS = ("requests", "prompt_tokens", "completion_tokens", "images", "seconds", "errors")
COLUMNS = ("day", "key", "key_name", "account", "model", *NUMBERS)
DEFAULT_DAYS = 30


def read_period(since: str | None, until: str | None, today: str) -> tuple[str, str]:
    """Give the first and last day of a report: as asked for, else the last 30 days. Raises InvalidRequestError."""
    last = _read_day("until", until) if until else date.fromisoformat(today)
    first = _read_day("since", since) if since else last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise InvalidRequestError("`since` must not be after `until`.", param="since", code="invalid_value")
    return first.isoformat(), last.isoformat()


def _read_day(name: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
        if day.isoformat() != text:  # Python reads weeks and dates without dashes, too
            raise ValueError(text)
        return day
    except ValueError:
        raise InvalidRequestError(
            f"`{name}` must be a date such as 2026-11-21.", param=name, code="invalid_value"
        ) from None


def total(rows: Iterable[UsageRow]) -> Json:
    """Give the sum of all rows, with `total_tokens`."""
    sums = dict.fromkeys(NUMBERS, 0.0)
    for row in rows:
        for name in NUMBERS:
            sums[name] += getattr(row, name)
    told: Json = {name: value if name == "seconds" else int(value) for name, value in sums.items()}
    told["seconds"] = round(sums["seconds"], 3)
    return told | {"total_tokens": int(sums["prompt_tokens"] + sums["completion_tokens"])}


def by(name: str, rows: Sequence[UsageRow], of: Callable[[UsageRow], str]) -> list[Json]:
    """Give one sum for each value that `of` has, in order, told as `name`."""
    groups: dict[str, list[UsageRow]] = {}
    for row in rows:
        groups.setdefault(of(row), []).append(row)
    return [{name: value} | total(groups[value]) for value in sorted(groups)]


def table(rows: Iterable[UsageRow], names: Mapping[str, str]) -> list[Json]:
    """Give each row with the name of its key."""
    order = {column: index for index, column in enumerate(COLUMNS)}
    told = (asdict(row) | {"key_name": names.get(row.key, row.key)} for row in rows)
    return [dict(sorted(row.items(), key=lambda item: order[item[0]])) for row in told]


def to_csv(rows: Iterable[UsageRow], names: Mapping[str, str]) -> str:
    """Give the rows as CSV with a header line.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in table(rows, names):
        writer.writerow({column: _plain(value) for column, value in row.items()})
    return out.getvalue()


def _plain(value: object) -> object:
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
