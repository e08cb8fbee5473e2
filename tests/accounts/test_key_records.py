"""The records behind a pool of API keys: what is learnt outlives the pool."""

import logging
import random
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from chat2api.accounts.key_records import KeyPoolRecords
from chat2api.accounts.pool import AccountPool, Outcome
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AllAccountsCoolingError,
    NoAccountError,
    StorageError,
)
from chat2api.storage.sql_records import SqlRecords
from tests.clocks import FakeClock

LABELS = {"d" * 64: "key-dddddddd", "e" * 64: "key-eeeeeeee"}


async def open_pool(records: SqlRecords, clock: FakeClock) -> AccountPool:
    pool = AccountPool(KeyPoolRecords(records.api_keys, LABELS, clock.now()), clock, rng=random.Random(1))
    await pool.start()
    return pool


async def test_R8_a_stated_wait_and_a_refusal_hold_after_a_start(tmp_path: Path) -> None:
    clock = FakeClock()
    records = await SqlRecords.open(tmp_path)
    pool = await open_pool(records, clock)
    first = await pool.lease(model="m")
    await first.release(AccountLimitedError("Enough.", retry_after=3600.0))
    second = await pool.lease(model="m")
    await second.release(AccountRejectedError("No.", reason="sk-canary"))
    await records.aclose()

    records = await SqlRecords.open(tmp_path)
    pool = await open_pool(records, clock)
    with pytest.raises(AllAccountsCoolingError) as caught:
        await pool.lease(model="m")
    assert caught.value.retry_after == pytest.approx(3600, abs=5)
    assert (await pool.lease(model="other")).account.id == first.account.id
    with pytest.raises(NoAccountError):
        await pool.lease(model="m", account_id=second.account.id)
    assert [rest.reason for rest in await records.api_keys.of(LABELS)].count("upstream_account") == 1
    assert "canary" not in repr(await records.api_keys.of(LABELS))

    await pool.accept(second.account.id)
    pool = await open_pool(records, clock)
    again = await pool.lease(model="m", account_id=second.account.id)
    await again.release(Outcome.SERVED)
    clock.advance(3700)
    assert (await pool.lease(model="m", account_id=first.account.id)).account.id == first.account.id
    assert await records.changes() == await (await SqlRecords.in_memory()).changes(), "no account's row was made"
    await records.aclose()


async def test_a_refusal_that_cannot_be_written_counts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    records, clock = await SqlRecords.in_memory(), FakeClock()
    pool = await open_pool(records, clock)
    monkeypatch.setattr(records.api_keys, "put", AsyncMock(side_effect=StorageError("The disk is full.")))
    lease = await pool.lease(model="m")
    await lease.release(AccountRejectedError("No.", reason="invalid_api_key"))
    with pytest.raises(NoAccountError):
        await pool.lease(model="m", account_id=lease.account.id)
    assert "cannot be stored" in caplog.text
    await records.aclose()


async def test_what_another_process_learns_of_a_key_is_followed_at_the_next_look(tmp_path: Path) -> None:
    clock = FakeClock()
    records, others = await SqlRecords.open(tmp_path), await SqlRecords.open(tmp_path)
    server, doctor = await open_pool(records, clock), await open_pool(others, clock)
    first, second = LABELS

    async def look() -> None:
        """Do what the pool does twice a second."""
        if await server._records.revision() != server._revision:
            await server.reload()
        assert await server._records.revision() == server._revision

    await look()
    assert server._revision == 1
    refused = await doctor.lease(model="m", account_id=first)
    await refused.release(AccountRejectedError("No.", reason="invalid_api_key"))
    await look()
    with pytest.raises(NoAccountError):
        await server.lease(model="m", account_id=first)
    await doctor.accept(first)
    await look()
    await (await server.lease(model="m", account_id=first)).release(Outcome.SERVED)
    limited = await doctor.lease(model="m", account_id=second)
    await limited.release(AccountLimitedError("Enough.", retry_after=60.0))
    await look()
    with pytest.raises(AllAccountsCoolingError) as caught:
        await server.lease(model="m", account_id=second)
    assert caught.value.retry_after == pytest.approx(60, abs=1)
    clock.advance(61)
    await (await server.lease(model="m", account_id=second)).release(Outcome.SERVED)
    await records.aclose()
    await others.aclose()


async def test_what_could_not_be_written_outlasts_news_of_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    records, clock = await SqlRecords.in_memory(), FakeClock()
    server, doctor = await open_pool(records, clock), await open_pool(records, clock)
    first, second = LABELS
    with monkeypatch.context() as broken:
        broken.setattr(records.api_keys, "put", AsyncMock(side_effect=StorageError("The disk is full.")))
        lease = await server.lease(model="m", account_id=first)
        await lease.release(AccountRejectedError("No.", reason="invalid_api_key"))
    other = await doctor.lease(model="m", account_id=second)
    await other.release(AccountRejectedError("No.", reason="invalid_api_key"))
    await server.reload()
    for key in LABELS:
        with pytest.raises(NoAccountError):
            await server.lease(model="m", account_id=key)
    await records.aclose()


async def test_without_keys_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    records, clock = await SqlRecords.in_memory(), FakeClock()
    monkeypatch.setattr(records.api_keys, "of", AsyncMock(side_effect=AssertionError))
    assert await KeyPoolRecords(records.api_keys, {}, clock.now()).revision() == 1
    await records.aclose()
