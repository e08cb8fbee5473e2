"""The one place where a failure becomes an answer."""

import json
import logging

import pytest
from quart import Quart
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from chat2api.api.errors import answer_error, install_error_handler
from chat2api.errors import (
    QUOTES,
    AllAccountsCoolingError,
    Chat2APIError,
    NotFoundError,
    StorageError,
    UpstreamServerError,
)


async def answered(error: Exception) -> tuple[int, dict[str, str | None], dict[str, str]]:
    """Give status, error object and headers."""
    async with Quart("test").app_context():
        response = await answer_error(error)
    body = json.loads(await response.get_data())
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert response.content_type == "application/json"
    return response.status_code, body["error"], {name.lower(): value for name, value in response.headers.items()}


async def test_T1_our_own_errors_are_told_as_they_are() -> None:
    status, error, headers = await answered(NotFoundError("Not here.", param="model", code="model_not_found"))
    assert status == 404
    assert error == {
        "message": "Not here.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert headers["x-should-retry"] == "false"
    _, _, headers = await answered(AllAccountsCoolingError("Wait.", retry_after=1.2))
    assert headers["retry-after"] == "2"
    assert "x-should-retry" not in headers


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound(), 404, "not_found"),
        (MethodNotAllowed(), 405, "method_not_allowed"),
        (RequestEntityTooLarge(), 413, "payload_too_large"),
        (RequestTimeout(), 400, "request_timeout"),
        (BadRequest("canary"), 400, None),
        (UnsupportedMediaType("canary"), 400, None),
    ],
)
async def test_what_routing_raises_has_the_same_shape(error: HTTPException, status: int, code: str | None) -> None:
    told = await answered(error)
    assert (told[0], told[1]["code"], told[1]["type"]) == (status, code, "invalid_request_error")
    assert "canary" not in str(told)


@pytest.mark.parametrize("error", [ValueError("canary"), KeyError("canary"), Chat2APIError("canary")])
async def test_what_is_not_meant_for_callers_tells_them_nothing(error: Exception) -> None:
    status, told, headers = await answered(error)
    assert status == 500
    assert told["code"] == "internal_error"
    assert "canary" not in f"{told}{headers}"


async def test_a_programming_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError as error:
        await answered(error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_a_failure_of_ours_or_the_backends_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    await answered(StorageError("The disk is full."))
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "StorageError: The disk is full.")
    assert record.exc_info is None


async def test_G6_the_backends_own_words_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    _, told, _ = await answered(UpstreamServerError(f"It failed.{QUOTES}canary", upstream_status=500))
    assert "canary" in (told["message"] or "")
    assert "canary" not in caplog.text


async def test_a_callers_mistake_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    await answered(NotFoundError("Not here."))
    await answered(NotFound())
    assert caplog.records == []


async def test_every_exception_of_an_app_gets_there() -> None:
    app = Quart("test")
    install_error_handler(app)

    @app.get("/<kind>")
    async def fail(kind: str) -> str:
        raise {"own": StorageError("No."), "crash": RuntimeError("canary")}[kind]

    client = app.test_client()
    assert (await client.get("/own")).status_code == 503
    crash = await client.get("/crash")
    assert crash.status_code == 500
    assert b"canary" not in await crash.get_data()
    for path, status in (("/a/b", 404), ("/own", 405)):
        answer = await (client.post(path) if status == 405 else client.get(path))
        assert answer.status_code == status
        assert (await answer.get_json())["error"]["type"] == "invalid_request_error"
