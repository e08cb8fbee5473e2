"""Background tasks with an owner.

The connections' callbacks are synchronous, so they cannot await a task group; this set keeps their tasks alive, ends
them, and remembers a crash, so that a mistake in the simulator never looks like a fault of the backend.
"""

import asyncio
import logging
from collections.abc import Coroutine

log = logging.getLogger(__name__)


class Tasks:
    """The running tasks of one simulator."""

    def __init__(self) -> None:
        """Start empty."""
        self._running: set[asyncio.Task[None]] = set()
        self.crashes: list[BaseException] = []

    def start(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        """Run it in the background."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the simulator itself failed in %s", task.get_name(), exc_info=error)
            self.crashes.append(error)

    async def cancel_all(self) -> None:
        """End what runs and wait for it."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
