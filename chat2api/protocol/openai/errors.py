"""Exceptions as OpenAI's error object: the only place that makes `{"error": {message, type, param, code}}`."""

import math
from typing import TypedDict

from chat2api.errors import Chat2APIError

MAX_CLIENT_WAIT = 120.0
"""Seconds; a client is told not to repeat by itself what needs a longer wait (the official ones give up there too)."""


class ErrorObject(TypedDict):
    """What went wrong, for a caller."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """The body of an error answer, and the data of an error event inside a stream."""

    error: ErrorObject


def error_object(exc: BaseException) -> tuple[int, ErrorBody, dict[str, str]]:
    """Give HTTP status, body and extra headers for an exception.

    An exception that is not ours, or that is ours but not meant for callers (status 500), becomes a 500 that tells
    nothing. The headers are `retry-after`, in whole seconds of at least 1, where a time is known, and
    `x-should-retry: false` where a client shall not repeat the request by itself.
    """
    if not isinstance(exc, Chat2APIError) or exc.status == 500:
        return (
            500,
            _body("The server had an error while processing your request.", "server_error", None, "internal_error"),
            {},
        )
    headers: dict[str, str] = {}
    wait = exc.retry_after
    if wait is not None and math.isfinite(wait):
        headers["retry-after"] = str(max(1, math.ceil(wait)))
    if exc.final or (wait is not None and wait > MAX_CLIENT_WAIT):
        headers["x-should-retry"] = "false"
    return exc.status, _body(exc.message, exc.type, exc.param, exc.code), headers


def _body(message: str, kind: str, param: str | None, code: str | None) -> ErrorBody:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
