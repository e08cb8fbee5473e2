"""The contract of `UsageRecords`."""

from chat2api.storage.records import Records
from chat2api.storage.usage import KeyTotals, UsageRow, day_of

DAY = "2026-11-21"


async def test_what_is_added_to_the_same_place_adds_up(records: Records) -> None:
    row = UsageRow(DAY, "key_1", "acc", "gpt-5", 1, 10, 20, 1, 0.5, 0)
    other = UsageRow(DAY, "key_1", "acc", "gpt-4o", 1, 1, 1)

    await records.usage.add([row, other])
    await records.usage.add([row, UsageRow(DAY, "key_1", "acc", "gpt-5", errors=1)])
    await records.usage.add([])

    assert await records.usage.rows() == (other, UsageRow(DAY, "key_1", "acc", "gpt-5", 2, 20, 40, 2, 1.0, 1))


async def test_rows_are_told_by_day_and_key(records: Records) -> None:
    rows = [UsageRow(f"2026-11-{day}", key, "", "m", 1) for day in (18, 19, 20) for key in ("key_1", "operator")]
    await records.usage.add(rows)

    assert await records.usage.rows(since="2026-11-19", until="2026-11-19") == (rows[2], rows[3])
    assert await records.usage.rows(key="operator") == (rows[1], rows[3], rows[5])
    assert await records.usage.rows(since="2026-12-01") == ()


async def test_totals_are_those_of_the_day_and_of_all_days(records: Records) -> None:
    await records.usage.add([
        UsageRow("2026-10", "key_1", "", "m", 5, 50, 500),
        UsageRow("2026-11-20", "key_1", "", "m", 1, 10, 20),
        UsageRow(DAY, "key_1", "", "m", 2, 3, 4),
        UsageRow(DAY, "key_1", "", "n", 1, 1, 1, errors=7),
        UsageRow("2026-11-20", "key_2", "", "m", 1, 10, 20),
    ])  # fmt: skip

    assert await records.usage.totals(DAY) == {
        "key_1": KeyTotals(3, 9, 9, 589),
        "key_2": KeyTotals(0, 0, 1, 30),
    }


async def test_the_last_use_of_a_key_is_the_latest_that_was_told(records: Records) -> None:
    row = UsageRow(DAY, "key_1", "acc", "m", 1)
    await records.usage.add([row, UsageRow(DAY, "key_2", "acc", "m", 1)], {"key_1": 600.0})
    await records.usage.add([row], {"key_1": 540.0})
    assert {key: used.last_at for key, used in (await records.usage.totals(DAY)).items()} == {
        "key_1": 600.0,
        "key_2": None,
    }
    await records.usage.add([row], {"key_1": 660.0})
    await records.usage.roll_up("2026-12-01")
    assert (await records.usage.totals(DAY))["key_1"].last_at == 660.0


async def test_days_are_folded_into_their_months_and_no_sum_changes(records: Records) -> None:
    await records.usage.add([
        UsageRow("2026-09", "key_1", "acc", "m", 1, 1, 1, 1, 1.0, 1),
        UsageRow("2026-09-29", "key_1", "acc", "m", 2, 2, 2, 2, 2.0, 2),
        UsageRow("2026-09-30", "key_1", "acc", "m", 4, 4, 4, 4, 4.0, 4),
        UsageRow("2026-09-30", "key_2", "acc", "m", 8),
        UsageRow("2026-10-01", "key_1", "acc", "m", 16),
    ])  # fmt: skip
    before = await records.usage.totals(DAY)

    assert await records.usage.roll_up("2026-10-01") == 3
    assert await records.usage.roll_up("2026-10-01") == 0

    assert await records.usage.rows() == (
        UsageRow("2026-09", "key_1", "acc", "m", 7, 7, 7, 7, 7.0, 7),
        UsageRow("2026-09", "key_2", "acc", "m", 8),
        UsageRow("2026-10-01", "key_1", "acc", "m", 16),
    )
    assert await records.usage.totals(DAY) == before
    assert len(await records.usage.rows(since="2026-09-15", until="2026-09-20")) == 2, "a month that overlaps is told"
    assert await records.usage.rows(until="2026-08-31") == ()


def test_a_day_is_one_of_utc() -> None:
    assert day_of(1_790_000_000.0) == "2026-09-21"
    assert day_of(1_790_035_199.0 - 1) == "2026-09-21" and day_of(1_790_035_200.0) == "2026-09-22"
