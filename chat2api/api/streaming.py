"""Answers as event streams: the first-content gate, keep-alive comments, errors in mid-stream, and the clean end.

Nothing is sent until the first content is here, or until the keep-alive interval has passed: until then a failure has
its real status. Afterwards a failure is one error event and the end of the stream, without `[DONE]`.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from quart import Response

from chat2api.api.context import current_runtime, on_request_end
from chat2api.api.relay import AnswerRelay
from chat2api.errors import Chat2APIError, StreamInterruptedError
from chat2api.gateway.provider import AnswerFacts
from chat2api.protocol.event_stream import encode_comment
from chat2api.protocol.openai.chat import ChatEncoder
from chat2api.protocol.openai.errors import error_event

_KEEP_ALIVE = encode_comment("keep-alive")
