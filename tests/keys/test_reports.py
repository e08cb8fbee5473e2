"""`chat2api/keys/reports.py`: sums that agree with each other, and a table that spreadsheets take as it is."""

import csv
import io
from dataclasses import fields
from operator import attrgetter

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.keys.reports import COLUMNS, by, read_period, table, to_csv, total
from chat2api.storage.usage import UsageRow

ROWS = [
    UsageRow("2026-11-20", "key_1", "acc", "gpt-5", 1, 10, 20, 1, 0.25, 0),
    UsageRow("2026-11-21", "key_1", "acc", "gpt-5", 2, 20, 40, 0, 0.5, 1),
    UsageRow("2026-11-21", "operator", "other", "auto", 4, 1, 2, 0, 1.0, 0),
]


def test_a_total_is_the_sum_of_all_rows() -> None:
    assert total(ROWS) == {
        "requests": 7,
        "prompt_tokens": 31,
        "completion_tokens": 62,
        "images": 1,
        "seconds": 1.75,
        "errors": 1,
        "total_tokens": 93,
    }
    assert total([])["requests"] == 0


def test_groups_add_up_to_the_total() -> None:
    for column in ("day", "key", "model", "account"):
        of = attrgetter(column)
        groups = by("x", ROWS, of)
        assert [group["x"] for group in groups] == sorted({of(row) for row in ROWS})
        assert sum(int(str(group["total_tokens"])) for group in groups) == 93


def test_csv_and_json_hold_the_same() -> None:
    names = {"key_1": 'Ada, "Countess"'}
    read = list(csv.DictReader(io.StringIO(to_csv(ROWS, names))))
    assert [{name: str(value) for name, value in row.items()} for row in table(ROWS, names)] == read
    assert tuple(read[0]) == COLUMNS
    assert read[0]["key_name"] == 'Ada, "Countess"' and read[2]["key_name"] == "operator"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_name_is_no_formula(name: str) -> None:
    assert next(csv.DictReader(io.StringIO(to_csv(ROWS, {"key_1": name}))))["key_name"] == "'" + name


def test_every_number_of_the_ledger_is_in_the_table() -> None:
    assert {field.name for field in fields(UsageRow)} | {"key_name"} == set(COLUMNS)


def test_a_period_is_thirty_days_unless_said() -> None:
    assert read_period(None, None, "2026-11-21") == ("2026-10-23", "2026-11-21")
    assert read_period("2026-11-01", None, "2026-11-21") == ("2026-11-01", "2026-11-21")
    assert read_period("2026-01-01", "2026-01-01", "2026-11-21") == ("2026-01-01", "2026-01-01")


@pytest.mark.parametrize(
    ("since", "until", "param"),
    [("yesterday", None, "since"), (None, "2026-13-01", "until"), ("2026-11-22", "2026-11-21", "since"),
     ("20261101", None, "since"), ("2026-W01-1", None, "since"), ("2026-11-01'--", None, "since")],
)  # fmt: skip
def test_a_period_that_cannot_be_is_refused(since: str | None, until: str | None, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_period(since, until, "2026-11-21")
    assert caught.value.param == param
