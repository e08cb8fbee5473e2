"""Records in memory, a clock that stands still, and keys on both."""

from collections.abc import AsyncIterator

import pytest

from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store() -> AsyncIterator[SqlRecords]:
    """Empty records."""
    records = await SqlRecords.in_memory()
    yield records
    await records.aclose()
