"""Quart's requests in the listener's own task: how they are answered, and how they end when the client leaves."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent
from quart import Blueprint, Quart, Response, g, request
from werkzeug.exceptions import HTTPException

from chat2api.api.dispatch import LastPiece, LeanQuart
from tests.api.raw_http import WAIT, Handler, app_of, serving

CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def quart_app() -> Quart:
    app = LeanQuart(__name__)
    app.config["RESPONSE_TIMEOUT"] = app.config["BODY_TIMEOUT"] = None
    return app


def through(app: Quart, sent: list[ASGISendEvent] | None = None, tasks: list[object] | None = None) -> Handler:
    """Serve Quart's app, noting the messages that it sends and the task that it is called in."""

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def noting(message: ASGISendEvent) -> None:
            if sent is not None:
                sent.append(message)
            await send(message)

        if tasks is not None:
            tasks.append(asyncio.current_task())
        await app(scope, receive, noting)  # type: ignore[arg-type]

    return handler


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_whole_request_is_handled_in_its_own_task_and_others_go_quarts_way(in_pieces: bool) -> None:
    app = quart_app()
    called: list[object] = []
    handled: list[object] = []
    begun = asyncio.Event()

    @app.post("/")
    async def echo() -> str:
        handled.append(asyncio.current_task())
        begun.set()
        return str(await request.get_data(as_text=True))

    async with serving(app_of(through(app, tasks=called))) as server:
        client = await server.connect()
        if in_pieces:
            await client.send(CHUNKED + b"3\r\none\r\n")
            await asyncio.wait_for(begun.wait(), WAIT)
            await client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        else:
            await client.send(post(b"onetwo"))
        assert (await client.response())[2] == b"onetwo"

    assert (called == handled) is not in_pieces


async def test_a_plain_answer_takes_two_messages_and_a_last_piece_leaves_with_the_end() -> None:
    app = quart_app()
    sent: list[ASGISendEvent] = []
    closed = asyncio.Event()

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"one"
                yield LastPiece(b"two")
                yield b"never"
            finally:
                closed.set()

        return Response(pieces())

    async with serving(app_of(through(app, sent))) as server:
        client = await server.connect()
        bodies = []
        for path in (b"plain", b"stream"):
            await client.send(b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            bodies.append((await client.response())[2])

    assert bodies == [b"plain", b"onetwo"]
    assert [(message.get("body"), message.get("more_body")) for message in sent] == [
        (None, None), (b"plain", False), (None, None), (b"one", True), (b"two", False),
    ]  # fmt: skip
    assert closed.is_set()


@pytest.mark.parametrize("leave", ["leave", "reset"])
@pytest.mark.parametrize("phase", ["handler", "stream"])
async def test_R10_a_client_that_leaves_ends_the_handler_and_nothing_else(phase: str, leave: str) -> None:
    app = quart_app()
    running, ended, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @app.post("/")
    async def handle() -> Response:
        if phase == "handler":
            await wait_for_ever()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"piece"
            await wait_for_ever()

        return Response(pieces())

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await app(scope, receive, send)  # type: ignore[arg-type]
        await asyncio.sleep(0)  # clean-up that waits is not cancelled with the handler
        cleaned.set()

    async with serving(app_of(handler)) as server:
        client = await server.connect()
        await client.send(post(b"whole"))
        async with asyncio.timeout(WAIT):
            await running.wait()
            getattr(client, leave)()
            await ended.wait()
            await cleaned.wait()


async def test_a_handler_that_does_not_heed_its_clients_leaving_leaves_no_trace() -> None:
    app = quart_app()
    running, ended = asyncio.Event(), asyncio.Event()
    cancelling: list[int] = []

    @app.post("/")
    async def stubborn() -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return "never"

    async def handler(scope: dict[str, Any], receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await app(scope, receive, send)  # type: ignore[arg-type]
        finally:
            cancelling.append(task.cancelling())
            ended.set()

    async with serving(app_of(handler)) as server:
        client = await server.connect()
        await client.send(post(b"whole"))
        async with asyncio.timeout(WAIT):
            await running.wait()
            client.leave()
            await ended.wait()

    assert cancelling == [0]


async def test_a_small_body_in_a_second_packet_is_waited_for_and_handled_in_the_same_task() -> None:
    app = quart_app()
    called: list[object] = []
    handled: list[object] = []

    @app.post("/")
    async def echo() -> str:
        handled.append(asyncio.current_task())
        return str(await request.get_data(as_text=True))

    async with serving(app_of(through(app, tasks=called))) as server:
        client = await server.connect()
        for piece in (post(b"onetwo")[:-6], b"one", b"two"):
            await client.send(piece)
            await asyncio.sleep(0.02)
        assert (await client.response())[2] == b"onetwo"
        leaver = await server.connect()
        await leaver.send(post(b"onetwo")[:-1])
        leaver.leave()
        await leaver.rest()

    assert called[:1] == handled


def _mirror(app: Quart) -> Quart:
    """Answer every request with what the app knows of it."""
    outer, inner = Blueprint("outer", __name__, url_prefix="/outer"), Blueprint("inner", __name__)

    async def tell(**arguments: object) -> dict[str, object]:
        return {
            "endpoint": request.endpoint,
            "blueprints": request.blueprints,
            "arguments": {name: str(value) for name, value in arguments.items()},
            "query": request.args.to_dict(flat=False),
            "headers": [[name, value] for name, value in request.headers],
            "one": request.headers.get("X-One"),
            "two": [request.headers.get("X-Two", "none"), request.headers.get("x-one", type=int), g.get("seen")],
            "peer": (request.remote_addr or "").partition(":")[0],
            "path": request.path,
            "body": str(await request.get_data()),
        }

    def plainly() -> str:
        return threading.current_thread().name

    inner.add_url_rule("/in/<int:number>/<path:rest>", "tell", tell, methods=["GET", "POST"])
    for name, part in (("app", app), ("outer", outer), ("inner", inner)):
        _note_passing(part, name)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.add_url_rule("/bare", "bare", tell)
    app.add_url_rule("/plain", "plain", plainly)
    app.url_map.strict_slashes = app.url_map.merge_slashes = False

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> tuple[dict[str, object], int]:
        return {"blueprints": request.blueprints, "endpoint": request.endpoint, "error": error.name}, error.code or 500

    return app


def _note_passing(part: Quart | Blueprint, name: str) -> None:
    """Have functions of this part around its handlers leave their names."""

    @part.before_request
    async def enter() -> tuple[str, int] | None:
        g.seen = [*g.get("seen", ()), name]
        return ("stopped", 403) if request.args.get("stop") == name else None

    @part.before_request
    async def enter_again() -> None:
        g.seen.append(f"{name} again")

    @part.after_request
    async def leave(response: Response) -> Response:
        response.headers["X-Left"] = response.headers.get("X-Left", "") + name
        return response

    @part.after_request
    async def leave_before(response: Response) -> Response:
        response.headers["X-Left"] = response.headers.get("X-Left", "") + f"({name})"
        return response


SAME = [
    b"GET /bare HTTP/1.1\r\nHost: localhost\r\nx-one: 1\r\nX-ONE: 2\r\nx_two: \xe4\r\n",
    b"GET /bare?a=1&a=%C3%A4 HTTP/1.1\r\nHost: somewhere.example:80\r\nRemote-Addr: 203.0.113.9\r\n",
    b"GET /outer/in/7/a%2Fb/c%20d HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /outer/in/7/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n",
    b"GET /outer/in/seven/x HTTP/1.1\r\nHost: localhost\r\n",
    b"DELETE /bare HTTP/1.1\r\nHost: localhost\r\n",
    b"OPTIONS /bare HTTP/1.1\r\nHost: localhost\r\n",
    b"GET //bare HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /plain HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /bare HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\n",
    b"GET /bare/ HTTP/1.1\r\nHost: localhost\r\n",
    b"DELETE /bare HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /outer/in/7/x?stop=outer HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /bare?stop=app HTTP/1.1\r\nHost: localhost\r\n",
]


async def test_the_shorter_ways_lead_where_quarts_lead() -> None:
    answers: list[list[tuple[int, str | None, str | None, bytes]]] = []
    for app in (Quart(__name__), LeanQuart(__name__)):
        answers.append([])
        async with serving(_mirror(app), asgi=True) as server:
            client = await server.connect()
            for head in SAME:
                await client.send(head + b"\r\n" + (b"abc" if b"Length" in head else b""))
                status, headers, body = await client.response()
                facts = status, headers.get("allow"), headers.get("x-left")
                answers[-1].append((*facts, body if b"plain" not in head else body[:8]))

    assert answers[0] == answers[1]
    statuses = [200, 200, 200, 200, 404, 405, 200, 200, 404, 200, 200, 404, 405, 403, 403]
    assert [status for status, *_ in answers[1]] == statuses


@pytest.mark.parametrize("kind", ["teardown_request", "url_value_preprocessor"])
async def test_an_app_with_functions_that_the_shorter_ways_leave_out_is_refused(kind: str) -> None:
    app = quart_app()

    @app.get("/")
    async def home() -> str:
        return "here"

    async def left_out(*_: object) -> None: ...

    getattr(app, kind)(left_out)

    async with serving(app, asgi=True) as server:
        client = await server.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response())[0] == 500
