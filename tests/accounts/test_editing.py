"""`chat2api/accounts/editing.py`."""

import pytest

from chat2api.accounts.editing import AccountEditor
from chat2api.accounts.pool import AccountPool
from chat2api.errors import AllAccountsCoolingError, InvalidRequestError, NoAccountError, NotFoundError
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import Cooldown
from tests.clocks import FakeClock
from tests.storage.accounts import add, new_account


@pytest.fixture
async def pool(records: SqlRecords, clock: FakeClock) -> AccountPool:
    """A pool with three accounts and one that is a caller's own."""
    for number in range(3):
        await add(records, new_account(number))
    await add(records, new_account(9, owner="caller"))
    pool = AccountPool(records, clock)
    await pool.start()
    return pool


@pytest.fixture
def editor(records: SqlRecords, pool: AccountPool, clock: FakeClock) -> AccountEditor:
    """What changes that pool."""
    return AccountEditor(records, pool, clock)


def first(pool: AccountPool) -> str:
    return pool.views()[0].account.id


async def test_notes_and_groups_are_seen_at_once_and_stored(
    editor: AccountEditor, pool: AccountPool, records: SqlRecords
) -> None:
    await editor.set_note(first(pool), "the family's")
    await editor.set_groups(first(pool), [" home ", "work", "home"])

    shown, stored = pool.views()[0].account, await records.account(first(pool))
    assert shown == stored
    assert (shown.note, shown.groups) == ("the family's", ("home", "work"))


@pytest.mark.parametrize("note", ["x" * 501, "bell\x07", "\u202e"])
async def test_a_note_that_cannot_be_shown_is_refused(editor: AccountEditor, pool: AccountPool, note: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await editor.set_note(first(pool), note)
    assert caught.value.param == "note"


@pytest.mark.parametrize("groups", [[""], ["x" * 65], ["a\nb"], [str(number) for number in range(21)]])
async def test_groups_have_names(editor: AccountEditor, pool: AccountPool, groups: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await editor.set_groups(first(pool), groups)
    assert caught.value.param == "groups"


async def test_a_disabled_account_serves_nothing_until_it_is_enabled(editor: AccountEditor, pool: AccountPool) -> None:
    for view in pool.views():
        await editor.disable(view.account.id)
    with pytest.raises(NoAccountError):
        await pool.lease(model="gpt")
    assert [(view.state, view.reason) for view in pool.views()] == [("disabled", "by_operator")] * 3

    await editor.enable(first(pool))

    assert (await pool.lease(model="gpt")).account.id == first(pool)


async def test_R30_deleting_some_or_all_can_be_taken_back(editor: AccountEditor, pool: AccountPool) -> None:
    ids = [view.account.id for view in pool.views()]

    assert await editor.delete([ids[0], "acc_unknown"]) == 1
    assert [view.account.id for view in pool.views()] == ids[1:]
    assert await editor.delete(None) == 2
    assert (pool.views(), pool.statistics().private) == ([], 1)
    assert {account.id for account in await editor.deleted()} == set(ids)

    assert await editor.undo_delete([ids[2]]) == 1
    assert [view.account.id for view in pool.views()] == [ids[2]]
    assert await editor.undo_delete() == 2
    assert {view.account.id for view in pool.views()} == set(ids)


async def test_R7_an_undo_brings_stated_waits_back_too(
    editor: AccountEditor, pool: AccountPool, clock: FakeClock
) -> None:
    account_id = first(pool)
    await pool.cool(Cooldown(account_id, "gpt", clock.now() + 3600, True, "stated_limit"))

    await editor.delete(None)
    await editor.undo_delete([account_id])

    with pytest.raises(AllAccountsCoolingError) as caught:
        await pool.lease(model="gpt")
    assert caught.value.retry_after == pytest.approx(3600)


async def test_S8_callers_own_accounts_and_unknown_ones_are_not_the_operators_to_change(
    editor: AccountEditor, records: SqlRecords
) -> None:
    private = next(one for one in (await records.changes()).accounts if one.owner == "caller")

    for account_id in (private.id, "acc_unknown"):
        for change in (
            editor.set_note(account_id, "x"),
            editor.set_groups(account_id, ["x"]),
            editor.disable(account_id),
            editor.enable(account_id),
        ):
            with pytest.raises(NotFoundError):
                await change
        assert await editor.delete([account_id]) == 0
    assert await records.account(private.id) == private
