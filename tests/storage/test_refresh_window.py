"""The window of R28: what lies between a renewed token's arrival and its safety on disk."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from chat2api.storage.sql_records import MARK_NAME, SqlRecords
from tests.e2e.harness import HouseClock
from tests.gateway.bench import open_gateway
from tests.storage.accounts import NOW, add, fresh, new_account, rotating


async def test_R28_a_renewed_token_costs_one_transaction_of_few_statements(file_records: SqlRecords) -> None:
    account = await add(file_records, new_account(1))
    intent = await file_records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement.split()[0])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert await file_records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert seen.count("BEGIN") == 1
    assert len(seen) <= 22, seen


async def test_R28_nothing_but_the_commit_is_waited_for(
    file_records: SqlRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await add(file_records, new_account(1))
    intent = await file_records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    before = (tmp_path / "data" / MARK_NAME).read_bytes()
    let_go = threading.Event()
    sync = os.fsync

    def slow_sync(descriptor: int) -> None:
        let_go.wait(10)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_sync)
    done = await asyncio.wait_for(file_records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW), 5)
    assert done is not None
    assert (tmp_path / "data" / MARK_NAME).read_bytes() == before, "the disk is still busy with it"
    let_go.set()
    await file_records.aclose()
    assert (tmp_path / "data" / MARK_NAME).read_bytes() != before, "and it is written before all is closed"


@pytest.mark.nightly
async def test_R28_tokens_are_on_disk_within_10_ms_of_their_arrival(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, clock=HouseClock(1.0)) as gateway:
        await gateway.fresh(0)
        stranger = gateway.control.add_account()
        (account,) = await gateway.add(stranger.refresh_token)
        keeper = gateway.source.keeper
        rounds: list[list[float]] = []
        for _ in range(5):  # the machine may be busy with something else; that is not the server's time
            for _ in range(100):
                await keeper.renew(gateway.source.pool.account(account.id) or account)
            rounds.append(sorted(keeper.commit_seconds))
        assert [len(took) for took in rounds] == [100] * 5
        assert min(took[98] for took in rounds) <= 0.010, [(took[50], took[98]) for took in rounds]
