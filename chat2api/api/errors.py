"""The one place where a failure becomes an answer."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypedDict

import orjson
from quart import Quart, Response, request
from werkzeug.exceptions import HTTPException

from chat2api.errors import (
    Chat2APIError,
    InvalidRequestError,
    MethodNotAllowedError,
    MissingAPIKeyError,
    NotFoundError,
    PayloadTooLargeError,
    UpstreamRefusedRequestError,
)
from chat2api.protocol.openai.errors import error_object

log = logging.getLogger(__name__)


class SiteErrorBody(TypedDict):
    """The body of an error answer of the website's calls."""

    errorMessage: str


WriteError = Callable[[BaseException], tuple[int, Mapping[str, object], dict[str, str]]]
"""Gives status, body and headers of the answer that an exception stands for."""

ErrorPage = Callable[[Exception, int, Mapping[str, str]], Awaitable[Response | None]]
"""Shows an error with its status and headers to people; None where a program asked."""


def install_error_handler(
    app: Quart, page: ErrorPage | None = None, is_site_path: Callable[[str], bool] = lambda path: False
) -> None:
    """Answer every exception of the app in the OpenAI shape, or by a page where people asked for one.

    On the paths of the website's calls the shape is theirs.
    """

    async def answer(error: Exception) -> Response:
        if is_site_path(request.path):
            return await answer_error(error, gateway_error if request.headers.get("authkey") else site_error)
        response = await answer_error(error)
        if page is None:
            return response
        shown = _from_werkzeug(error) if isinstance(error, HTTPException) else error
        return await page(shown, response.status_code, _kept(response)) or response

    app.register_error_handler(Exception, answer)


def _kept(response: Response) -> dict[str, str]:
    """Give the headers of an error that hold for a page as well."""
    return {name: value for name, value in response.headers.items() if name.lower() == "retry-after"}


async def answer_error(error: Exception, write: WriteError = error_object) -> Response:
    """Give the response for an exception; one that is not ours is logged and tells the caller nothing."""
    if isinstance(error, HTTPException):
        error = _from_werkzeug(error)
    if not isinstance(error, Chat2APIError):
        log.error("unexpected failure", exc_info=error)
    elif error.status >= 500:
        log.warning("%s: %s", type(error).__name__, error)
    status, body, headers = write(error)
    return Response(orjson.dumps(body), status=status, headers=headers, content_type="application/json")


def site_error(error: BaseException) -> tuple[int, SiteErrorBody, dict[str, str]]:
    """Give status, body and headers of an error for the callers of the website's calls.

    They know 401 as a token that is refused and 403 as none at all, 413 as a message that is too long, 422 as a request
    that makes no sense, and nothing of methods.
    """
    status, body, headers = error_object(error)
    match error:
        case MissingAPIKeyError():
            status = 403
        case InvalidRequestError() | UpstreamRefusedRequestError() if status == 400:
            status = 413 if error.code == "context_length_exceeded" else 422
        case MethodNotAllowedError():
            status = 404
    return status, {"errorMessage": body["error"]["message"]}, headers


def gateway_error(error: BaseException) -> tuple[int, Mapping[str, object], dict[str, str]]:
    """Give the same for another server in front, which reads the backend's own form: by its code it knows what to do."""
    told = error_object(error)[1]["error"]
    status, body, headers = site_error(error)
    return status, {**body, "detail": {"code": told["code"], "message": told["message"]}}, headers


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
