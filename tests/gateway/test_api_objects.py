"""Objects of the API by their owners: items count at once and are written in batches."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from typing import Any

import pytest

from chat2api.errors import StorageError
from chat2api.gateway.api_objects import MAX_UNWRITTEN, WRITE_SECONDS, ApiObjects
from chat2api.storage.api_objects import ApiObject, ApiObjectRecords, ObjectKind
from tests.clocks import FakeClock


class Rows:
    """Rows in memory that can be out of reach, and the batches that were written."""

    def __init__(self) -> None:
        self.rows: dict[str, ApiObject] = {}
        self.batches: list[int] = []
        self.broken = False

    async def put(self, made: Sequence[ApiObject]) -> None:
        if self.broken:
            raise StorageError("no room")
        self.batches.append(len(made))
        for one in made:
            if one.kind == "item":
                self.rows.setdefault(one.id, one)
            else:
                self.rows[one.id] = one

    async def find(self, identifiers: Collection[str]) -> list[ApiObject]:
        return [self.rows[one] for one in identifiers if one in self.rows]

    async def of(self, owner: str, kind: ObjectKind) -> list[ApiObject]:
        return [one for one in self.rows.values() if (one.owner, one.kind) == (owner, kind)]

    async def forget(self, identifier: str) -> None:
        self.rows.pop(identifier, None)

    async def sweep(self, now: float) -> None:
        raise AssertionError("nobody asks for it")


class Tasks:
    def __init__(self) -> None:
        self.all: list[asyncio.Task[None]] = []

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self.all.append(asyncio.create_task(work, name=name))
        return self.all[-1]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    for task in made.all:
        task.cancel()
    await asyncio.gather(*made.all, return_exceptions=True)


@pytest.fixture
def objects(rows: Rows, clock: FakeClock, tasks: Tasks) -> ApiObjects:
    held: ApiObjectRecords = rows
    return ApiObjects(held, clock, tasks)


def item(identifier: str, owner: str = "one") -> ApiObject:
    return ApiObject(identifier, "item", "key-1", owner, 5.0)


async def test_an_item_is_found_at_once_and_written_with_those_of_the_same_half_second(
    objects: ApiObjects, rows: Rows, tasks: Tasks, clock: FakeClock
) -> None:
    for number in range(20):
        objects.note([item(f"msg_{number}"), item(f"rs_{number}")])
    assert set(await objects.find(["msg_3", "rs_4", "msg_99"])) == {"msg_3", "rs_4"}
    assert rows.batches == []
    await asyncio.gather(*tasks.all)
    assert (rows.batches, len(rows.rows)) == ([40], 40)
    assert clock.slept == [WRITE_SECONDS]
    assert set(await objects.find(["msg_3", "rs_4"])) == {"msg_3", "rs_4"}
    objects.note([item("msg_20")])
    await asyncio.gather(*tasks.all)
    assert rows.batches == [40, 1]


async def test_S8_who_an_item_was_made_for_first_has_it(objects: ApiObjects, tasks: Tasks) -> None:
    objects.note([item("msg_1", "one")])
    objects.note([item("msg_1", "two")])
    assert (await objects.find(["msg_1"]))["msg_1"].owner == "one"
    await asyncio.gather(*tasks.all)
    objects.note([item("msg_1", "two")])
    assert (await objects.find(["msg_1"]))["msg_1"].owner == "one"


async def test_what_cannot_be_written_is_kept_within_bounds_and_written_later(
    objects: ApiObjects, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    rows.broken = True
    objects.note(item(f"msg_{number}") for number in range(MAX_UNWRITTEN + 5))
    await objects.aclose()
    assert "cannot keep" in caplog.text
    assert set(await objects.find(["msg_4", "msg_5"])) == {"msg_5"}
    rows.broken = False
    await objects.aclose()
    assert len(rows.rows) == MAX_UNWRITTEN
    assert set(await objects.find(["msg_4", "msg_5"])) == {"msg_5"}


async def test_files_and_responses_are_written_before_they_are_told(objects: ApiObjects, rows: Rows) -> None:
    made = ApiObject("file-1", "file", "key-1", "one", 5.0)
    await objects.keep(made)
    assert await objects.of("one", "file") == [made]
    assert await objects.find(["file-1"]) == {"file-1": made}
    await objects.forget("file-1")
    assert await objects.find(["file-1"]) == {}
    assert await objects.find([]) == {}
