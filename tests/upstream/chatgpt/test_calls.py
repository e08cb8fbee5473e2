"""Single calls over the wire: URL, headers, limits."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import cast

import pytest

from chat2api.errors import UpstreamProtocolError, UpstreamTimeoutError
from chat2api.simulator.faults import Fault
from chat2api.simulator.recorder import RequestRecord
from chat2api.upstream.chatgpt.calls import BackendCalls, CallSettings
from chat2api.upstream.exchange import Channel, Request, Response, Transport
from tests.origin import Exchange, Origin
from tests.upstream.chatgpt.bench import Bench, open_bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made


def last(bench: Bench) -> RequestRecord:
    return bench.control.requests[-1]


async def test_the_page_is_opened_as_a_browser_opens_it(bench: Bench) -> None:
    session = bench.session()
    page = await bench.calls.load_page(session)
    request = last(bench).request
    assert page.status == 200
    assert request.target == "/"
    assert request.header("sec-fetch-mode") == "navigate"
    assert request.header("user-agent") == session.profile.user_agent
    assert request.header("authorization") is None, "a navigation bears no token"
    assert request.header("oai-device-id") is None


async def test_a_query_goes_out_but_is_not_part_of_the_path_told(bench: Bench) -> None:
    answer = await bench.calls.get(bench.session(), "/models?history_and_training_disabled=false")
    request = last(bench).request
    assert answer.status == 200
    assert request.target == "/backend-api/models?history_and_training_disabled=false"
    assert request.header("x-openai-target-path") == "/backend-api/models"
    assert request.header("x-openai-target-route") == "/backend-api/models"


async def test_the_template_of_a_route_has_its_prefix(bench: Bench) -> None:
    await bench.calls.get(bench.session(), "/conversation/c-1", route="/conversation/{conversation_id}")
    assert last(bench).request.header("x-openai-target-route") == "/backend-api/conversation/{conversation_id}"


@pytest.mark.parametrize("method", ["post", "patch"])
async def test_bodies_go_out_as_they_are_declared_as_json(bench: Bench, method: str) -> None:
    body = json.dumps({"title": "Flüsse"}).encode()
    await getattr(bench.calls, method)(bench.session(), "/conversation/c-1", body)
    request = last(bench).request
    assert (request.method, request.body) == (method.upper(), body)
    assert request.header("content-type") == "application/json"
    assert request.header("accept") == "*/*"


async def test_an_anonymous_call_has_its_own_prefix_and_no_token(bench: Bench) -> None:
    await bench.calls.get(bench.anonymous(), "/models")
    request = last(bench).request
    assert request.path == "/backend-anon/models"
    assert request.header("authorization") is None
    assert bench.control.violations == []


async def test_extra_headers_go_along(bench: Bench) -> None:
    await bench.calls.post(bench.session(), "/f/conversation/prepare", b"{}", extra=(("X-Conduit-Token", "no-token"),))
    assert last(bench).request.header("x-conduit-token") == "no-token"


async def test_the_gateways_key_goes_with_every_call_to_the_backend() -> None:
    async with open_bench(auth_key="gateway-key") as bench:
        session = bench.session()
        await bench.calls.get(session, "/models")
        await bench.calls.post(session, "/sentinel/chat-requirements", b"{}")
        await (await bench.calls.open_stream(session, "/conversation", b"{}")).aclose()
        assert [record.request.header("authkey") for record in bench.control.requests] == ["gateway-key"] * 3


class _Listening:
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def fetch(self, channel: Channel, request: Request, **limits: object) -> Response:
        self.requests.append(request)
        return Response(200, {}, b"{}", request.url)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("https://chatgpt.com", False),
        ("https://chat.openai.com", False),
        ("https://chatgpt.com:443", False),
        ("https://gateway.example", True),
    ],
)
async def test_S5_the_gateways_key_is_not_for_the_website_itself(bench: Bench, origin: str, told: bool) -> None:
    transport = _Listening()
    settings = CallSettings(1.0, 1.0, 1.0, auth_key="gateway-key")
    calls = BackendCalls(cast("Transport", transport), settings)
    await calls.get(dataclasses.replace(bench.session(), origin=origin), "/models")
    assert ("authkey" in dict(transport.requests[0].headers)) is told


async def test_a_session_id_lasts_as_long_as_the_process_and_is_the_accounts_own(bench: Bench) -> None:
    first, second = bench.session(), bench.session(bench.control.accounts[1])
    other_process = BackendCalls(bench.transport, bench.settings)
    for calls, session in ((bench.calls, first), (bench.calls, first), (bench.calls, second), (other_process, first)):
        await calls.get(session, "/models")
    ids = [record.request.header("oai-session-id") for record in bench.control.requests]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


async def test_a_stream_is_given_as_soon_as_it_begins_and_names_conversation_and_build(bench: Bench) -> None:
    bench.control.fail("conversation", Fault("answer", status=200, body="data: x\n\n"))
    stream = await bench.calls.open_stream(
        bench.session(), "/conversation", b"{}", conversation_id="c-1", build_id="prod-1", extra=(("X-More", "yes"),)
    )
    assert await stream.read() == b"data: x\n\n"
    await stream.aclose()
    request = last(bench).request
    assert request.header("accept") == "text/event-stream"
    assert request.header("referer") == f"{bench.sim.url}/c/c-1"
    assert request.header("oai-client-version") == "prod-1"
    assert request.header("x-more") == "yes"


# Limits


async def test_R1_a_preparing_call_has_a_limit_for_all_of_it() -> None:
    async with open_bench(timeout=0.2) as bench:
        bench.control.fail("models", Fault("stall", at="mid_stream"))
        with pytest.raises(UpstreamTimeoutError) as caught:
            await bench.calls.get(bench.session(), "/models")
        assert caught.value.phase == "whole"
        await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_R1_a_stream_has_a_limit_for_its_headers_only() -> None:
    async with open_bench(timeout=0.2) as bench:
        bench.control.fail("conversation", Fault("stall"))
        with pytest.raises(UpstreamTimeoutError) as caught:
            await bench.calls.open_stream(bench.session(), "/conversation", b"{}")
        assert caught.value.phase == "headers"
        bench.control.fail("conversation", Fault("stall", at="before_content", seconds=0.3))
        stream = await bench.calls.open_stream(bench.session(), "/conversation", b"{}")
        assert b"detail" in await stream.read()
        await stream.aclose()


async def test_R10_leaving_aborts_the_call(bench: Bench) -> None:
    bench.control.fail("models", Fault("stall"))
    call = asyncio.ensure_future(bench.calls.get(bench.session(), "/models"))
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 1)
    call.cancel()
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)
    assert bench.control.counters.aborted == 1


@pytest.mark.parametrize(("what", "size"), [("page", 8), ("body", 32)])
async def test_R14_answers_have_a_largest_size(bench: Bench, what: str, size: int) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-type", "application/json")])
        for _ in range(size + 1):
            await exchange.send(b" " * 1024 * 1024)
        await exchange.finish()

    async with Origin(handler) as origin:
        session = bench.session(origin=origin.url)
        with pytest.raises(UpstreamProtocolError):
            await (bench.calls.load_page(session) if what == "page" else bench.calls.get(session, "/models"))


@pytest.mark.parametrize(
    "address",
    ["", "ws", "http://127.0.0.1/x", "ftp://127.0.0.1/x", "ws:///x", "ws://user:word@127.0.0.1/x", "ws://h:port/"],
)
async def test_S33_a_socket_is_opened_only_at_an_address_of_one(bench: Bench, address: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="address"):
        await bench.calls.connect(bench.session(), address)


async def test_a_socket_of_a_backend_with_tls_has_tls() -> None:
    async with open_bench(tls=True) as bench:
        session = bench.session(origin=bench.sim.tls_url)
        with pytest.raises(UpstreamProtocolError, match="address"):
            await bench.calls.connect(session, "ws://127.0.0.1:1/x")
