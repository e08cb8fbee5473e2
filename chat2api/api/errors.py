"""The one place where a failure becomes an answer."""

import logging
from collections.abc import Awaitable, Callable, Mapping

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


ErrorPage = Callable[[Exception, int, Mapping[str, str]], Awaitable[Response | None]]
"""Shows an error with its status and headers to people; None where a program asked."""


def install_error_handler(app: Quart, page: ErrorPage | None = None) -> None:
    """Answer every exception of the app in the OpenAI shape, or by a page where people asked for one."""

    async def answer(error: Exception) -> Response:
        response = await answer_error(error)
        if page is None:
            return response
        shown = _from_werkzeug(error) if isinstance(error, HTTPException) else error
        return await page(shown, response.status_code, _kept(response)) or response

    app.register_error_handler(Exception, answer)


def _kept(response: Response) -> dict[str, str]:
    """Give the headers of an error that hold for a page as well."""
    return {name: value for name, value in response.headers.items() if name.lower() == "retry-after"}


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
