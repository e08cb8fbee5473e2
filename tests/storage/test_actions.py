"""The journal of what operators did."""

from chat2api.storage.actions import KEPT_SECONDS, Action
from chat2api.storage.records import Records

NOW = 1_700_000_000.0


async def test_G7_entries_are_given_the_newest_first(records: Records) -> None:
    entries = [Action(NOW + number, "password", "disable account", f"label-{number}") for number in range(5)]
    for entry in entries:
        await records.actions.add(entry)
    assert await records.actions.latest() == tuple(reversed(entries))
    assert await records.actions.latest(2, 1) == (entries[3], entries[2])


async def test_G7_entries_are_kept_for_ninety_days(records: Records) -> None:
    await records.actions.add(Action(NOW, "password", "first"))
    await records.actions.add(Action(NOW + KEPT_SECONDS - 1, "password", "second"))
    assert [action.what for action in await records.actions.latest()] == ["second", "first"]
    await records.actions.add(Action(NOW + KEPT_SECONDS, "password", "third"))
    assert [action.what for action in await records.actions.latest()] == ["third", "second"]


async def test_a_long_text_is_cut_to_what_the_table_holds(records: Records) -> None:
    await records.actions.add(Action(NOW, "w" * 300, "x" * 300, "y" * 300))
    (entry,) = await records.actions.latest()
    assert (len(entry.who), len(entry.what), len(entry.target)) == (200, 200, 200)
