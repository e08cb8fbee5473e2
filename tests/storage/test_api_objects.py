"""Whose the API's objects are: kept until they are forgotten, responses for as long as the API keeps them."""

from chat2api.storage.api_objects import RESPONSE_SECONDS, ApiObject, ObjectKind
from chat2api.storage.records import Records

NOW = 1_700_000_000.0


def made(identifier: str, owner: str = "one", kind: ObjectKind = "file", at: float = NOW) -> ApiObject:
    return ApiObject(identifier, kind, "key-12345678", owner, at)


async def test_an_object_is_found_until_it_is_forgotten(records: Records) -> None:
    await records.api_objects.put(made("file-1"))
    assert await records.api_objects.find("file-1") == made("file-1")
    await records.api_objects.forget("file-1")
    await records.api_objects.forget("file-1")
    assert await records.api_objects.find("file-1") is None


async def test_an_object_that_is_stored_again_is_as_it_was_stored_last(records: Records) -> None:
    await records.api_objects.put(made("file-1", "one"))
    await records.api_objects.put(made("file-1", "two"))
    assert await records.api_objects.find("file-1") == made("file-1", "two")


async def test_S8_an_owner_has_their_own_objects_the_newest_first(records: Records) -> None:
    for number in range(3):
        await records.api_objects.put(made(f"file-{number}", at=NOW + number))
    await records.api_objects.put(made("file-9", "two"))
    await records.api_objects.put(made("resp_1", kind="response"))
    assert [one.id for one in await records.api_objects.of("one", "file")] == ["file-2", "file-1", "file-0"]
    assert [one.id for one in await records.api_objects.of("two", "file")] == ["file-9"]
    assert await records.api_objects.of("three", "file") == []


async def test_responses_are_forgotten_with_the_api_and_files_are_not(records: Records) -> None:
    await records.api_objects.put(made("resp_old", kind="response"))
    await records.api_objects.put(made("file-old"))
    await records.api_objects.put(made("resp_new", kind="response", at=NOW + RESPONSE_SECONDS + 1))
    assert await records.api_objects.find("resp_old") is None
    assert await records.api_objects.find("file-old") is not None
    assert await records.api_objects.find("resp_new") is not None
