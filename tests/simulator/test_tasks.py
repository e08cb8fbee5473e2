"""Tests of background tasks."""

import asyncio
import logging

import pytest

from chat2api.simulator.tasks import Tasks


async def test_a_crash_is_remembered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def crash() -> None:
        raise ZeroDivisionError

    tasks = Tasks()
    task = tasks.start(crash(), "crashing")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [type(error) for error in tasks.crashes] == [ZeroDivisionError]
    assert caplog.records[0].levelno == logging.ERROR
    assert "crashing" in caplog.text


async def test_all_are_ended_together() -> None:
    tasks = Tasks()

    async def wait() -> None:
        await asyncio.Event().wait()

    running = [tasks.start(wait(), f"waiting-{number}") for number in range(3)]
    await asyncio.sleep(0)
    await tasks.cancel_all()
    assert all(task.cancelled() for task in running)
    assert tasks.crashes == []
