"""A clock, records and tokens for the tests of the pool and the keeper."""

from collections.abc import AsyncIterator

import pytest

from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Time that moves when told."""
    return FakeClock()


@pytest.fixture
async def records() -> AsyncIterator[SqlRecords]:
    """Empty records in memory; what they promise is the same on disk."""
    store = await SqlRecords.in_memory()
    yield store
    await store.aclose()
