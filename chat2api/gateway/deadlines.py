"""How long each phase of an answer may take, and the error that says which one was too slow."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chat2api.config import Config
from chat2api.errors import UpstreamTimeoutError
from chat2api.protocol.prompt import ModelChoice


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


@asynccontextmanager
async def deadline(at: float, phase: str, message: str) -> AsyncIterator[None]:
    """Raise UpstreamTimeoutError with that phase when the block still runs at that instant of the loop's clock.

    Only awaits inside the block are cut; do not yield from a generator inside it. A TimeoutError of the block's own
    passes as it is.
    """
    limit = asyncio.timeout_at(at)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise UpstreamTimeoutError(message, phase=phase) from error
