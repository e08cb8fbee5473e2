"""Both kinds of records, for the contract that they share."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chat2api.storage.records import Records
from chat2api.storage.sql_records import SqlRecords
from tests.storage.accounts import add, new_account


async def _make(folder: Path, accounts: int) -> None:
    records = await SqlRecords.open(folder)
    for number in range(1, accounts + 1):
        await add(records, new_account(number))
    await records.aclose()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with closed, empty records; copy it, since making one runs all migrations."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    asyncio.run(_make(folder, 0))
    return folder


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with closed records of one account; copy it."""
    folder = tmp_path_factory.mktemp("small") / "data"
    asyncio.run(_make(folder, 1))
    return folder


@pytest.fixture(params=["file", "memory"])
async def records(request: pytest.FixtureRequest, tmp_path: Path, empty_store: Path) -> AsyncIterator[Records]:
    """Empty records."""
    if request.param == "file":
        store = await SqlRecords.open(shutil.copytree(empty_store, tmp_path / "data"))
    else:
        store = await SqlRecords.in_memory()
    yield store
    await store.aclose()


@pytest.fixture
async def file_records(tmp_path: Path, empty_store: Path) -> AsyncIterator[SqlRecords]:
    """Empty records in the folder `data` of tmp_path."""
    store = await SqlRecords.open(shutil.copytree(empty_store, tmp_path / "data"))
    yield store
    await store.aclose()
