"""What belongs to the request being served."""

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from quart import Quart, request

from chat2api.api.context import (
    CleanUps,
    PeerAddress,
    bind_runtime,
    current_caller,
    current_request,
    current_runtime,
    on_request_end,
    running_runtime,
    set_caller,
    track_answer,
    tried_first,
)
from chat2api.app import RequestScope
from chat2api.errors import NoAccountError
from chat2api.gateway.provider import Caller
from chat2api.runtime import Interruptible, Runtime
from tests.e2e.harness import until


def make_app() -> Quart:
    """Give an app with the layer that gives each request its scope."""
    app = Quart("test")
    app.asgi_app = RequestScope(app.asgi_app)  # type: ignore[method-assign]  # as create_app does
    return app


async def test_the_runtime_is_the_apps_own() -> None:
    first, second = Quart("first"), Quart("second")
    runtimes = [cast(Runtime, object()) for _ in range(2)]
    for app, runtime in zip((first, second), runtimes, strict=True):
        bind_runtime(app, runtime)
    assert [running_runtime(first), running_runtime(second)] == runtimes
    async with first.app_context():
        assert current_runtime() is runtimes[0]


async def test_a_request_has_its_own_caller() -> None:
    app = make_app()

    @app.get("/<name>")
    async def tell(name: str) -> str:
        set_caller(Caller("operator", owner=name))
        await asyncio.sleep(0)
        return current_caller().owner

    client = app.test_client()
    answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(20)))
    assert [await answer.get_data(as_text=True) for answer in answers] == [str(number) for number in range(20)]


def test_an_address_does_not_change() -> None:
    address = PeerAddress("203.0.113.7", loopback=False)
    with pytest.raises(AttributeError):
        address.network = "127.0.0.1"  # type: ignore[misc]  # that is the point


async def test_clean_ups_run_once_in_reverse_when_the_answer_is_over() -> None:
    app, order = make_app(), list[str]()

    @app.get("/")
    async def begin() -> str:
        for name in ("first", "second"):

            async def clean_up(name: str = name) -> None:
                order.append(name)

            on_request_end(clean_up)
        order.append("answered")
        return "ok"

    assert (await app.test_client().get("/")).status_code == 200
    assert order == ["answered", "second", "first"]


@pytest.mark.parametrize("failure", ["handler", "clean_up"])
async def test_clean_ups_run_whatever_fails(failure: str) -> None:
    app, ran = make_app(), list[str]()

    @app.get("/")
    async def begin() -> str:
        async def first() -> None:
            ran.append("first")

        async def second() -> None:
            ran.append("second")
            if failure == "clean_up":
                raise RuntimeError("the second one fails")

        on_request_end(first)
        on_request_end(second)
        if failure == "handler":
            raise RuntimeError("the handler fails")
        return "ok"

    client = app.test_client()
    if failure == "handler":
        assert (await client.get("/")).status_code == 500
    else:
        with pytest.raises(RuntimeError, match="second one"):
            await client.get("/")
    assert ran == ["second", "first"]


@pytest.mark.parametrize("fails", [False, True])
async def test_an_answer_is_known_until_it_is_settled(fails: bool) -> None:
    app, answers, seen = make_app(), cast("dict[Interruptible, str | None]", {}), []
    bind_runtime(app, cast(Runtime, SimpleNamespace(answers=answers)))

    @app.get("/")
    async def say() -> str:
        async def settle() -> None:
            await asyncio.sleep(0)
            seen.append(list(answers.values()))
            if fails:
                raise OSError("no disk")

        track_answer(cast(Interruptible, object()), "key_1")
        on_request_end(settle)
        return "said"

    with pytest.raises(OSError, match="no disk") if fails else nullcontext():
        await app.test_client().get("/")
    assert (seen, answers) == ([["key_1"]], {})


async def test_R10_clean_ups_run_when_the_caller_leaves_before_the_answer() -> None:
    app, ran, begun = make_app(), asyncio.Event(), asyncio.Event()

    @app.get("/")
    async def begin() -> str:
        async def clean_up() -> None:
            await asyncio.sleep(0)
            ran.set()

        on_request_end(clean_up)
        begun.set()
        await asyncio.Event().wait()
        return "never"

    asking = asyncio.ensure_future(app.test_client().get("/"))
    await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(ran.is_set, "nobody cleaned up")


async def test_the_current_request_is_the_very_one_behind_quarts_name_for_it() -> None:
    app = make_app()

    @app.get("/")
    async def tell() -> str:
        return f"{current_request() == request} {type(current_request()).__name__}"

    assert await (await app.test_client().get("/")).get_data(as_text=True) == "True Request"


async def test_what_is_to_be_done_at_the_end_is_done_last_first_whatever_fails() -> None:
    done: list[str] = []
    clean_ups = CleanUps()

    def note(name: str, error: BaseException | None = None) -> None:
        async def clean_up() -> None:
            done.append(name)
            if error is not None:
                raise error

        clean_ups.add(clean_up)

    note("third")
    note("second", ValueError("the last one"))
    note("first", asyncio.CancelledError())
    with pytest.raises(ValueError, match="the last one") as raised:
        await clean_ups.run()
    await clean_ups.run()

    assert done == ["first", "second", "third"]
    assert isinstance(raised.value.__context__, asyncio.CancelledError)


@pytest.mark.parametrize("failure", [None, NoAccountError("nobody"), ValueError("a bug")])
async def test_what_a_first_try_left_to_be_done_is_done_before_another(
    failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, done = make_app(), list[str]()
    monkeypatch.setattr("chat2api.api.context.current_runtime", lambda: Tasks())

    def note(name: str) -> None:
        async def clean_up() -> None:
            done.append(name)

        on_request_end(clean_up)

    @app.get("/")
    async def begin() -> str:
        note("the request's own")
        with suppress(NoAccountError, ValueError):
            async with tried_first():
                note("the first try's")
                if failure is not None:
                    raise failure
        done.append("answered")
        note("the second try's")
        return "ok"

    assert (await app.test_client().get("/")).status_code == 200
    late = ["answered", "the second try's", "the first try's", "the request's own"]
    early = ["the first try's", "answered", "the second try's", "the request's own"]
    assert done == (early if isinstance(failure, NoAccountError) else late)


class Tasks:
    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)
