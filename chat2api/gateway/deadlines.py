"""How long each phase of an answer may take, and the error that says which one was too slow."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar, cast

from chat2api.config import Config
from chat2api.errors import UpstreamTimeoutError
from chat2api.protocol.prompt import ModelChoice

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
    """Cuts a wait that passes its limit, with one timer for all the waits of an answer.

    A limit for each wait by itself would make and throw away a timer for each token. This timer is not moved: when it
    rings and the limit has moved on meanwhile, it is set again.
    """

    def __init__(self) -> None:
        """Watch nothing yet; `close` it in the end."""
        self._loop = asyncio.get_running_loop()
        self._by = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._rang = False

    async def wait(self, awaited: Awaitable[T], by: float) -> T:
        """Give what was awaited; raise TimeoutError when that takes until `by`, an instant of the loop's clock."""
        self._by = by
        if self._timer is None or self._timer.when() > by:
            self._set(by)
        self._waiting = task = cast("asyncio.Task[object]", asyncio.current_task())
        asked_before = task.cancelling()
        try:
            return await awaited
        except asyncio.CancelledError:
            # A cancel from elsewhere that came as well is not ours to swallow.
            if self._rang and task.uncancel() <= asked_before:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
            self._rang = False

    def put_off(self, by: float) -> None:
        """Give the wait that is on until that instant."""
        self._by = by

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, at: float) -> None:
        self.close()
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets it again
        if self._loop.time() < self._by:
            self._set(self._by)
            return
        self._rang = True
        self._waiting.cancel()


class deadline:  # noqa: N801 - it stands where a function would
    """Raises UpstreamTimeoutError with that phase when the block still runs at that instant of the loop's clock.

    Only awaits inside the block are cut; do not yield from a generator inside it. A TimeoutError of the block's own
    passes as it is.
    """

    def __init__(self, at: float, phase: str, message: str) -> None:
        """Limit a block, by `async with`."""
        self._at = at
        self._phase = phase
        self._message = message
        self._rang = False

    async def __aenter__(self) -> None:
        """Begin the block."""
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._asked_before = self._task.cancelling()
        self._timer = self._task.get_loop().call_at(self._at, self._ring)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._timer.cancel()
        # A cancel from elsewhere that came as well is not ours to swallow.
        if self._rang and self._task.uncancel() <= self._asked_before and kind is asyncio.CancelledError:
            raise UpstreamTimeoutError(self._message, phase=self._phase) from error

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()
