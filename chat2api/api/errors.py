"""The one place where a failure becomes an answer."""

import logging

import orjson
from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from chat2api.errors import (
    Chat2APIError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
)
from chat2api.protocol.openai.errors import error_object

log = logging.getLogger(__name__)


def install_error_handler(app: Quart) -> None:
    """Answer every exception of the app in the OpenAI shape."""
    app.register_error_handler(Exception, answer_error)


async def answer_error(error: Exception) -> Response:
    """Give the response for an exception; one that is not ours is logged and tells the caller nothing."""
    if isinstance(error, HTTPException):
        error = _from_werkzeug(error)
    if not isinstance(error, Chat2APIError):
        log.error("unexpected failure", exc_info=error)
    elif error.status >= 500:
        log.warning("%s: %s", type(error).__name__, error)
    status, body, headers = error_object(error)
    return Response(orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def _from_werkzeug(error: HTTPException) -> Chat2APIError:
    """Translate what routing and body parsing raise."""
    match error.code:
        case 404:
            return NotFoundError("There is nothing at this path. GET /openapi.json lists what there is.")
        case 405:
            return MethodNotAllowedError("This path does not take this method.")
        case 413:
            return PayloadTooLargeError("The request body is too large.")
        case 408:
            return InvalidRequestError("The request body did not arrive in time.", code="request_timeout")
        case _:
            return InvalidRequestError("The request is malformed.")
