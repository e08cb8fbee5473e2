"""How long each phase of an answer may take, and the error that says which one was too slow."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import TypeVar, cast

from chat2api.config import Config
from chat2api.errors import UpstreamTimeoutError
from chat2api.protocol.prompt import ModelChoice
from chat2api.upstream.alarms import Alarms

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """The limits of one answer, in seconds (R1)."""

    first_content: float
    between_events: float
    whole: float


_REASONING_SLUG = re.compile(r"o[1-9]\b.*|.*-(thinking|pro)\b.*|.*deep-research.*")


def is_reasoning(model: ModelChoice) -> bool:
    """Whether a model may think for minutes before it speaks."""
    return bool({"reason", "research"} & set(model.hints)) or _REASONING_SLUG.fullmatch(model.slug) is not None


def answer_limits(config: Config, *, reasoning: bool) -> AnswerLimits:
    """Give the limits for a model: reasoning models think longer before they speak."""
    if reasoning:
        return AnswerLimits(
            config.first_content_timeout_reasoning, config.event_timeout, config.answer_timeout_reasoning
        )
    return AnswerLimits(config.first_content_timeout, config.event_timeout, config.answer_timeout)


class Watchdog:
    """Cuts waits of one task that pass their limits, one at a time, with one alarm for all the waits of an answer.

    A limit for each wait by itself would make and throw away a timer for each token. This alarm is not moved: when it
    rings and the limit has moved on meanwhile, it is set again.
    """

    def __init__(self, alarms: Alarms | None = None) -> None:
        """Watch nothing yet; `close` it in the end. None for `alarms` gives it one of its own."""
        self._loop = asyncio.get_running_loop()
        self._by = 0.0
        self._shared = alarms is not None
        self._alarms = alarms or Alarms(self._loop)
        self._rings_at = inf
        self._task: asyncio.Task[object] | None = None
        self._waiting = False
        self._asked_before = 0
        self._rang = False

    async def wait(self, awaited: Awaitable[T], by: float) -> T:
        """Give what was awaited; raise TimeoutError when that takes until `by`, an instant of the loop's clock."""
        self.begin(by)
        cut = False
        try:
            return await awaited
        except asyncio.CancelledError:
            cut = self.end()
            if not cut:
                raise
            raise TimeoutError from None
        finally:
            if not cut:
                self.end()

    def begin(self, by: float) -> None:
        """Watch what the task awaits from now on; at `by`, an instant of the loop's clock, it is cancelled.

        The task is the one that calls this for the first time.
        """
        self._by = by
        if self._rings_at > by:
            self._set(by)
        task = self._task
        if task is None:
            task = self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._waiting = True
        self._asked_before = task.cancelling()

    def end(self) -> bool:
        """Watch it no longer; tell whether a cancel that came out of it was this one's and nobody else's wish."""
        self._waiting = False
        if not self._rang or self._task is None:
            return False
        self._rang = False
        return self._task.uncancel() <= self._asked_before

    def put_off(self, by: float) -> None:
        """Give the wait that is on until that instant."""
        self._by = by

    def close(self) -> None:
        """Watch nothing more."""
        self._rings_at = inf
        if self._shared:
            self._alarms.drop(self)
        else:
            self._alarms.close()

    def _set(self, at: float) -> None:
        self._rings_at = at
        self._alarms.set(self, at)

    def ring(self) -> None:
        """Cut the wait that is on if its time is up."""
        self._rings_at = inf
        if not self._waiting or self._task is None:
            return  # the next wait sets it again
        if self._loop.time() < self._by:
            self._set(self._by)
            return
        self._rang = True
        self._task.cancel()


class deadline:  # noqa: N801 - it stands where a function would
    """Raises UpstreamTimeoutError with that phase when the block still runs at that instant of the loop's clock.

    Only awaits inside the block are cut; do not yield from a generator inside it. A TimeoutError of the block's own
    passes as it is. With a watchdog, which must watch nothing else meanwhile, the block needs no timer of its own.
    """

    def __init__(self, at: float, phase: str, message: str, watchdog: Watchdog | None = None) -> None:
        """Limit a block, by `async with`."""
        self._at = at
        self._phase = phase
        self._message = message
        self._shared = watchdog
        self._watchdog = watchdog or Watchdog()

    async def __aenter__(self) -> None:
        """Begin the block."""
        self._watchdog.begin(self._at)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        if self._shared is None:
            self._watchdog.close()
        # What was cut and ended otherwise, in the same turn of the loop, has ended as it has.
        if self._watchdog.end() and kind is asyncio.CancelledError:
            raise UpstreamTimeoutError(self._message, phase=self._phase) from error
