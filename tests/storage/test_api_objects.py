"""Whose the API's objects are: kept until they are forgotten, responses for as long as the API keeps them."""

from chat2api.storage.api_objects import RESPONSE_SECONDS, ApiObject, ObjectKind
from chat2api.storage.records import Records

NOW = 1_700_000_000.0


def made(identifier: str, owner: str = "one", kind: ObjectKind = "file", at: float = NOW) -> ApiObject:
    return ApiObject(identifier, kind, "key-12345678", owner, at)


async def find(records: Records, *identifiers: str) -> dict[str, ApiObject]:
    return {one.id: one for one in await records.api_objects.find(identifiers)}


async def test_objects_are_found_until_they_are_forgotten(records: Records) -> None:
    await records.api_objects.put([made("file-1"), made("file-2")])
    assert await find(records, "file-1", "file-2", "file-3") == {one: made(one) for one in ("file-1", "file-2")}
    await records.api_objects.forget("file-1")
    await records.api_objects.forget("file-1")
    assert list(await find(records, "file-1", "file-2")) == ["file-2"]
    await records.api_objects.put([])
    assert await find(records) == {}


async def test_more_objects_than_a_query_takes_are_found(records: Records) -> None:
    await records.api_objects.put([made(f"msg_{number}", kind="item") for number in range(1200)])
    assert len(await find(records, *(f"msg_{number}" for number in range(1300)))) == 1200


async def test_a_file_that_is_made_again_is_as_it_was_made_last(records: Records) -> None:
    await records.api_objects.put([made("file-1", "one")])
    await records.api_objects.put([made("file-1", "two")])
    assert (await find(records, "file-1"))["file-1"].owner == "two"


async def test_S8_an_item_that_is_told_again_stays_with_whom_it_was_made_for(records: Records) -> None:
    await records.api_objects.put([made("msg_1", "one", "item"), made("resp_1", "one", "response")])
    await records.api_objects.put([made("msg_1", "two", "item"), made("resp_1", "two", "item")])
    assert {one.owner for one in (await find(records, "msg_1", "resp_1")).values()} == {"one"}


async def test_S8_an_owner_has_their_own_objects_the_newest_first(records: Records) -> None:
    await records.api_objects.put([made(f"file-{number}", at=NOW + number) for number in range(3)])
    await records.api_objects.put([made("file-9", "two"), made("resp_1", kind="response")])
    assert [one.id for one in await records.api_objects.of("one", "file")] == ["file-2", "file-1", "file-0"]
    assert [one.id for one in await records.api_objects.of("two", "file")] == ["file-9"]
    assert await records.api_objects.of("three", "file") == []


async def test_responses_and_items_are_forgotten_with_the_api_and_files_are_not(records: Records) -> None:
    await records.api_objects.put([made("resp_old", kind="response"), made("msg_old", kind="item"), made("file-old")])
    await records.api_objects.put([made("resp_new", kind="response", at=NOW + 2)])
    await records.api_objects.sweep(NOW + RESPONSE_SECONDS + 1)
    assert set(await find(records, "resp_old", "msg_old", "file-old", "resp_new")) == {"file-old", "resp_new"}
