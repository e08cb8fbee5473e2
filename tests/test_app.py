"""The app: what surrounds every request, and what its start and stop do."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from quart import Quart

from chat2api.api.context import on_request_end, running_runtime
from chat2api.app import RequestScope, create_app
from chat2api.config import Config
from chat2api.errors import StorageError
from chat2api.logs import request_id
from chat2api.runtime import Runtime

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "operator-key-of-the-suite"
OPERATOR = {"Authorization": f"Bearer {KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Quart]:
    folder = str(tmp_path_factory.mktemp("app"))
    made = create_app(Config.from_env({"DATA_DIR": folder, "AUTHORIZATION": KEY, "API_PREFIX": "x"}))
    async with made.test_app():
        yield made


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/x/healthz", "/x/", "/x/openapi.json", "/x/static/style.css", "/x/v1/models", "/no"],
)
async def test_T1_every_answer_has_an_id_of_its_own_and_is_not_guessed_at(app: Quart, path: str) -> None:
    ids = set()
    for _ in range(3):
        answer = await app.test_client().get(path, headers=OPERATOR)
        assert answer.headers["x-content-type-options"] == "nosniff"
        ids.add(answer.headers["x-request-id"])
    assert len(ids) == 3
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", one) for one in ids)


async def test_a_callers_request_id_is_not_taken_over(app: Quart) -> None:
    answer = await app.test_client().get("/healthz", headers={"X-Request-Id": "canary\t<script>"})
    assert "canary" not in str(answer.headers)


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", "/v1/chat/completions", "/x", "/x/v1/x", "/x/v1/nothing", "/tokens"]
)
async def test_S3_S4_what_is_not_there_is_the_same_404_everywhere(app: Quart, path: str) -> None:
    client = app.test_client()
    if path == "/x":
        path = "/xx"
    for headers in ({}, OPERATOR):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"
        error = (await answer.get_json())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")


async def test_health_answers_both_ways_and_nothing_else_does(app: Quart) -> None:
    client = app.test_client()
    for path in ("/healthz", "/x/healthz", "/readyz", "/x/readyz"):
        assert (await client.get(path)).status_code == 200
    for path in ("/openapi.json", "/static/style.css"):
        assert (await client.get(path)).status_code == 404


async def test_the_runtime_lives_as_long_as_the_app_serves(tmp_path: Path) -> None:
    app = create_app(Config.from_env({"DATA_DIR": str(tmp_path), "AUTHORIZATION": KEY}))
    before = asyncio.all_tasks()
    async with app.test_app():
        assert running_runtime(app).readiness() == "ready"
        assert len(asyncio.all_tasks()) > len(before)
    assert {task for task in asyncio.all_tasks() if not task.done()} <= before


async def test_a_start_that_fails_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*arguments: object, **more: object) -> Runtime:
        raise StorageError("The records cannot be opened.")

    monkeypatch.setattr(Runtime, "open", fail)
    app = create_app(Config.from_env({"DATA_DIR": str(tmp_path)}))
    with pytest.raises(StorageError):
        await app.startup()
    await app.shutdown()  # the listener stops what it began, though there is nothing


async def test_two_apps_share_nothing(tmp_path: Path) -> None:
    first, second = (create_app(Config.from_env({"DATA_DIR": str(tmp_path / name)})) for name in "ab")
    assert first.extensions is not second.extensions
    assert not any(value is second.extensions.get(name) for name, value in first.extensions.items() if value)


# The layer around the app


Message = dict[str, Any]


async def drive(app: Any, kind: str = "http") -> list[Message]:
    """Send one request of that kind through the layer; give what came out."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestScope(app)({"type": kind}, receive, send)
    return sent


async def test_only_requests_get_a_scope_of_their_own() -> None:
    seen: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        seen.append(dict(scope))

    for kind in ("lifespan", "websocket", "http"):
        await drive(app, kind)
    assert [len(scope) for scope in seen] == [1, 1, 2]


async def test_each_request_is_logged_under_its_own_id() -> None:
    seen: list[str] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        seen.append(request_id.get())

    await asyncio.gather(*(drive(app) for _ in range(20)))
    assert len(set(seen)) == 20
    assert request_id.get() == "-", "outside of requests there is none"


async def test_R10_what_a_request_holds_is_given_back_although_it_was_cancelled() -> None:
    begun, given_back = asyncio.Event(), asyncio.Event()

    async def clean_up() -> None:
        given_back.set()

    async def wait() -> str:
        on_request_end(clean_up)
        begun.set()
        await asyncio.Event().wait()
        return "never"

    outer = Quart("test")
    outer.asgi_app = RequestScope(outer.asgi_app)  # type: ignore[method-assign]  # as create_app does
    outer.add_url_rule("/", "wait", wait)
    asking = asyncio.ensure_future(outer.test_client().get("/"))
    await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(5):
        await given_back.wait()
