"""Whose the files of conversations are: their conversation's owner's, on its account, for as long as it is there."""

import pytest

from chat2api.storage.records import Records
from chat2api.storage.values import ConversationOwner
from tests.storage.accounts import add, new_account

NOW = 1_700_000_000.0


@pytest.fixture
async def account_id(records: Records) -> str:
    return (await add(records, new_account(1))).id


async def own(records: Records, conversation_id: str, account_id: str, owner: str = "anna") -> None:
    await records.put_conversation(ConversationOwner(conversation_id, account_id, owner, None, NOW))


async def test_S8_a_file_is_its_conversations_owners(records: Records, account_id: str) -> None:
    await own(records, "c-1", account_id)
    await records.files.put("c-1", ["file-1", "file-2"])
    await records.files.put("c-1", ["file-2", "file-3", "file-3"])
    assert await records.files.of("c-1") == {"file-1", "file-2", "file-3"}
    assert await records.files.accounts("file-2", "anna") == {account_id}
    assert await records.files.accounts("file-2", "bruno") == frozenset()
    assert await records.files.accounts("file-9", "anna") == frozenset()


async def test_a_conversation_that_nobody_owns_holds_no_files(records: Records) -> None:
    await records.files.put("c-1", ["file-1"])
    assert await records.files.of("c-1") == frozenset()


async def test_a_file_in_two_conversations_goes_with_the_last_of_them(records: Records, account_id: str) -> None:
    for conversation_id in ("c-1", "c-2"):
        await own(records, conversation_id, account_id)
        await records.files.put(conversation_id, ["file-1"])
    await own(records, "c-1", account_id)
    assert await records.files.of("c-1") == {"file-1"}, "another turn leaves it where it is"
    await records.forget_conversation("c-1")
    assert await records.files.accounts("file-1", "anna") == {account_id}
    await records.forget_conversation("c-2")
    assert await records.files.accounts("file-1", "anna") == frozenset()
    await own(records, "c-2", account_id, "bruno")
    assert await records.files.of("c-2") == frozenset()
