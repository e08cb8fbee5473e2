"""The conversation calls over the wire: which form, beside what, and what belongs to an answer."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from chat2api.clock import SystemClock
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    ChallengedError,
    Chat2APIError,
    StreamInterruptedError,
    TransportError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
)
from chat2api.protocol.chatgpt.request import PICTURE_HINT
from chat2api.protocol.events import Event, FilePointer, Finished, HandedOff, Started, TextDelta
from chat2api.protocol.prompt import Message, ModelChoice, Prompt, TextPart
from chat2api.simulator.faults import Fault
from chat2api.simulator.files import PICTURE
from chat2api.simulator.pages import BUILD
from chat2api.simulator.recorder import RequestRecord
from chat2api.upstream.chatgpt.backend_turn import BackendTurn
from chat2api.upstream.chatgpt.client import ADDRESS_LIFETIME, ChatGPTClient, ClientSettings
from chat2api.upstream.chatgpt.requirements import Permit
from chat2api.upstream.chatgpt.session import Session
from tests.protocol.chatgpt.streams import DONE, envelope, finished
from tests.upstream.chatgpt.bench import Bench, open_bench

QUESTION = Prompt((Message("user", (TextPart("Name three rivers."),)),), ModelChoice("auto"))
KEPT = dataclasses.replace(QUESTION, temporary=False)
THINKING = dataclasses.replace(QUESTION, thinking_effort="extended")
ANSWER = "Nile, Amazon, Danube."


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made


async def read(turn: BackendTurn) -> list[Event]:
    """Read a turn to its end and close it."""
    events: list[Event] = []
    try:
        while more := await turn.next():
            events += more
    finally:
        await turn.aclose()
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def ask(bench: Bench, prompt: Prompt = QUESTION, session: Session | None = None) -> list[Event]:
    return await read(await bench.client.start_turn(session or bench.session(), prompt))


def turns(bench: Bench) -> list[RequestRecord]:
    return bench.control.requests_to("conversation")


def paths(bench: Bench) -> list[str]:
    return [record.request.path for record in turns(bench)]


def the(kind: type[Any], events: list[Event]) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


# Starting a turn


async def test_a_turn_goes_by_the_classic_call_first(bench: Bench) -> None:
    events = await ask(bench)
    assert text_of(events) == ANSWER
    assert isinstance(events[-1], Finished)
    assert bench.routes == ["home", "requirements", "conversation"]
    request = turns(bench)[0].request
    assert request.path == "/backend-api/conversation"
    assert request.header("oai-client-version") == BUILD
    assert request.header("x-conduit-token") is None
    assert bench.control.violations == []


async def test_after_the_end_there_is_nothing_more(bench: Bench) -> None:
    turn = await bench.client.start_turn(bench.session(), QUESTION)
    while await turn.next():
        pass
    assert await turn.next() == await turn.next() == []
    assert turn.raw_text == ANSWER
    assert turn.conversation_id is not None
    await turn.aclose()
    await turn.aclose()


@pytest.mark.parametrize("gone", [404, 405, 410])
async def test_where_the_classic_call_is_gone_the_newer_takes_its_place_for_good(bench: Bench, gone: int) -> None:
    bench.control.set_options(endpoints="f", endpoint_gone=gone)
    for _ in range(3):
        assert text_of(await ask(bench)) == ANSWER
    assert paths(bench) == ["/backend-api/conversation", *["/backend-api/f/conversation"] * 3]


async def test_what_is_gone_is_gone_at_its_origin_only(bench: Bench) -> None:
    bench.control.set_options(endpoints="f")
    await ask(bench)
    bench.control.set_options(endpoints="both")
    other = bench.session(origin=bench.sim.url.replace("127.0.0.1", "localhost"))
    await ask(bench, session=other)
    assert paths(bench)[-1] == "/backend-api/conversation"


async def test_many_turns_at_once_find_the_newer_call_each_for_itself(bench: Bench) -> None:
    bench.control.set_options(endpoints="f")
    answers = await asyncio.gather(*(ask(bench) for _ in range(10)))
    assert [text_of(events) for events in answers] == [ANSWER] * 10
    bench.control.requests.clear()
    await ask(bench)
    assert paths(bench) == ["/backend-api/f/conversation"]


@pytest.mark.parametrize(
    "body",
    [
        '{"detail": {"message": "Conversation not found", "code": "conversation_not_found"}}',
        '{"detail": {"message": "Unknown GPT", "code": "gizmo_not_found"}}',
        '{"detail": {"message": "Unknown model", "code": "model_not_found"}}',
        '{"error": {"message": "No such model", "type": "invalid_request_error", "code": "model_not_found"}}',
    ],
)
async def test_an_unknown_object_is_no_missing_call(bench: Bench, body: str) -> None:
    bench.control.fail("conversation", Fault("answer", status=404, body=body))
    with pytest.raises(UpstreamNotFoundError) as caught:
        await ask(bench)
    assert caught.value.code in ("conversation_not_found", "model_not_found")
    await ask(bench)
    assert paths(bench) == ["/backend-api/conversation"] * 2


async def test_where_both_calls_are_gone_that_is_told_and_nothing_is_remembered(bench: Bench) -> None:
    bench.control.refuse("conversation", "not_found", times=2)
    with pytest.raises(UpstreamProtocolError):
        await ask(bench)
    await ask(bench)
    assert paths(bench)[-1] == "/backend-api/conversation"


REFUSALS: list[tuple[str, type[Chat2APIError]]] = [
    ("token_expired", AccountRejectedError),
    ("unusual_activity", ChallengedError),
    ("cloudflare", ChallengedError),
    ("model_cap", AccountLimitedError),
    ("one_at_a_time", AccountLimitedError),
    ("message_too_long", UpstreamRefusedRequestError),
    ("bad_field", UpstreamRefusedRequestError),
    ("teapot", UpstreamRefusedRequestError),
    ("server_error", UpstreamServerError),
    ("bad_gateway_page", UpstreamServerError),
]


@pytest.mark.parametrize(("name", "expected"), REFUSALS)
@pytest.mark.parametrize("route", ["conversation", "prepare", "requirements"])
async def test_a_refusal_is_one_error_of_its_kind_never_a_group(
    bench: Bench, route: str, name: str, expected: type[Chat2APIError]
) -> None:
    bench.control.refuse(route, name)
    with pytest.raises(expected):
        await ask(bench, THINKING)
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_a_refusals_broken_body_still_has_its_status(bench: Bench) -> None:
    bench.control.fail("conversation", Fault("answer", named="server_error", truncate=5))
    with pytest.raises(UpstreamServerError):
        await ask(bench)


async def test_a_refusals_endless_body_is_not_read_to_its_end(bench: Bench) -> None:
    bench.control.fail("conversation", Fault("answer", status=500, body="x" * 3_000_000))
    with pytest.raises(UpstreamServerError):
        await ask(bench)
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_S8_another_accounts_conversation_is_not_found(bench: Bench) -> None:
    started = the(Started, await ask(bench, KEPT))
    stranger = bench.session(bench.control.accounts[1])
    with pytest.raises(UpstreamNotFoundError):
        await bench.client.stored_conversation(stranger, started.conversation_id)
    continued = dataclasses.replace(KEPT, conversation_id=started.conversation_id, parent_message_id="m")
    with pytest.raises(UpstreamNotFoundError):
        await ask(bench, continued, stranger)


async def test_a_conversation_goes_on_from_its_last_message(bench: Bench) -> None:
    session = bench.session()
    events = await ask(bench, KEPT, session)
    conversation_id = the(Started, events).conversation_id
    parent = await bench.client.current_message(session, conversation_id)
    assert parent == the(Finished, events).message_id
    question = (Message("user", (TextPart("What did I say?"),)),)
    again = dataclasses.replace(KEPT, messages=question, conversation_id=conversation_id, parent_message_id=parent)
    assert "Name three rivers." in text_of(await ask(bench, again, session))
    assert turns(bench)[-1].request.header("referer") == f"{bench.sim.url}/c/{conversation_id}"


# The newer call


async def test_the_newer_call_brings_conduit_and_the_same_trace(bench: Bench) -> None:
    assert text_of(await ask(bench, THINKING)) == ANSWER
    prepare = bench.control.requests_to("prepare")[0].request
    turn = turns(bench)[0].request
    assert prepare.header("x-conduit-token") == "no-token"
    assert turn.header("x-conduit-token") not in (None, "", "no-token")
    assert prepare.header("x-oai-turn-trace-id") == turn.header("x-oai-turn-trace-id") is not None
    assert json.loads(turn.body)["thinking_effort"] == "extended"


async def test_prepare_and_requirements_run_side_by_side(bench: Bench) -> None:
    bench.control.fail("requirements", Fault("stall", seconds=0.2))
    bench.control.fail("prepare", Fault("stall", seconds=0.2))
    asked = asyncio.ensure_future(ask(bench, THINKING))
    await bench.control.wait_until(
        lambda: {"requirements", "prepare"} <= {reply.route for reply in bench.control.replies if not reply.ended_at}
    )
    assert text_of(await asked) == ANSWER


@pytest.mark.parametrize(("fails", "waits"), [("prepare", "requirements"), ("requirements", "prepare")])
async def test_when_one_of_the_two_fails_the_other_is_given_up(bench: Bench, fails: str, waits: str) -> None:
    bench.control.fail(waits, Fault("stall"))
    bench.control.fail(fails, Fault("answer", named="overloaded"))
    with pytest.raises(UpstreamServerError):
        await ask(bench, THINKING)
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)
    assert turns(bench) == []


async def test_without_a_conduit_token_the_header_is_empty(bench: Bench) -> None:
    bench.control.set_options(conduit="null")
    assert text_of(await ask(bench, THINKING)) == ANSWER
    assert turns(bench)[0].request.header("x-conduit-token") in (None, "")


@pytest.mark.parametrize("named", ["page_instead", "nothing"])
async def test_R14_a_prepare_answer_that_is_no_json_is_a_named_error(bench: Bench, named: str) -> None:
    bench.control.refuse("prepare", named)
    with pytest.raises(UpstreamError):
        await ask(bench, THINKING)


# A gateway that does the requirements itself


async def test_with_conversation_only_there_is_only_the_conversation_call(bench: Bench) -> None:
    body = b"data: " + json.dumps(envelope(finished(ANSWER))).encode() + b"\n\n" + DONE
    headers = (("content-type", "text/event-stream"),)
    bench.control.fail("conversation", Fault("answer", status=200, headers=headers, body=body.decode()), times=2)
    client = bench.make_client(conversation_only=True)
    for prompt in (QUESTION, THINKING):
        events = await read(await client.start_turn(bench.session(), prompt))
        assert text_of(events) == ANSWER
    assert bench.routes == ["conversation", "conversation"]
    for record in turns(bench):
        assert not any(name.startswith("openai-sentinel") for name, _ in record.request.headers)


# The rest of an answer


@pytest.mark.parametrize("endpoints", ["both", "f"])
@pytest.mark.parametrize("continuation", ["rest", "whole"])
@pytest.mark.parametrize("temporary", [True, False])
async def test_a_cut_answer_is_continued_without_repeating_a_word(
    bench: Bench, endpoints: str, continuation: str, temporary: bool
) -> None:
    text = "one two three four five six seven eight"
    bench.control.set_options(endpoints=endpoints, continuation=continuation, text=text)
    bench.control.choose(answer="max_tokens", times=2 if endpoints == "f" else 1)
    session = bench.session()
    turn = await bench.client.start_turn(session, dataclasses.replace(QUESTION, temporary=temporary))
    events = await read(turn)
    cut = the(Finished, events)
    assert cut.continuable
    rest = await bench.client.continue_turn(session, QUESTION.model, cut, sent_text=turn.raw_text, temporary=temporary)
    assert text_of(events) + text_of(await read(rest)) == text


async def test_a_cut_without_a_place_cannot_be_continued(bench: Bench) -> None:
    cut = Finished("length", None, "m", None, continuable=True)
    with pytest.raises(UpstreamProtocolError):
        await bench.client.continue_turn(bench.session(), QUESTION.model, cut, sent_text="", temporary=False)
    assert bench.routes == []


# An answer that moved


@pytest.mark.parametrize("offset", [0, 1, 2])
async def test_a_moved_answer_is_found_at_the_first_offset_that_has_it(bench: Bench, offset: int) -> None:
    bench.control.set_options(resume_offset=offset)
    bench.control.choose(answer="handoff", encoding="v1")
    session = bench.session()
    handed = dataclasses.replace(the(HandedOff, await ask(bench, KEPT, session)), received=None)
    events = await read(await bench.client.resume_turn(session, handed))
    assert text_of(events) == ANSWER
    resumes = [record.request for record in bench.control.requests_to("resume")]
    assert [json.loads(request.body)["offset"] for request in resumes] == list(range(offset + 1))
    assert {request.header("x-conduit-token") for request in resumes} == {handed.resume_token}


async def test_a_moved_answer_that_is_nowhere_is_an_interrupted_one(bench: Bench) -> None:
    bench.control.set_options(resume_offset=3)
    bench.control.choose(answer="handoff", encoding="v1")
    handed = dataclasses.replace(the(HandedOff, await ask(bench, KEPT)), received=1)
    with pytest.raises(StreamInterruptedError):
        await bench.client.resume_turn(bench.session(), handed)
    offsets = [json.loads(record.request.body)["offset"] for record in bench.control.requests_to("resume")]
    assert offsets == [1, 0, 2]
    with pytest.raises(StreamInterruptedError):
        await bench.client.resume_turn(bench.session(), dataclasses.replace(handed, conversation_id=None))


async def test_a_refused_resume_is_told_and_not_tried_further(bench: Bench) -> None:
    bench.control.choose(answer="handoff", encoding="v1")
    handed = the(HandedOff, await ask(bench, KEPT))
    bench.control.refuse("resume", "server_error")
    with pytest.raises(UpstreamServerError):
        await bench.client.resume_turn(bench.session(), handed)
    assert bench.routes.count("resume") == 1


@pytest.mark.parametrize("shape", ["list", "object", "absent"])
async def test_a_moved_answer_is_read_from_its_topic(bench: Bench, shape: str) -> None:
    bench.control.set_options(handoff_options=shape)
    bench.control.choose(answer="handoff", encoding="v1")
    session = bench.session()
    handed = the(HandedOff, await ask(bench, QUESTION, session))
    events = await read(await bench.client.topic_turn(session, handed))
    assert text_of(events) == ANSWER
    assert the(Finished, events).reason == "stop"
    (opened,) = bench.control.requests_to("websocket_2026")
    assert opened.request.header("origin") == session.origin
    assert opened.request.header("user-agent") == session.profile.user_agent
    assert opened.request.header("authorization") is None
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_a_moved_answer_without_a_topic_is_an_interrupted_one(bench: Bench) -> None:
    with pytest.raises(StreamInterruptedError):
        await bench.client.topic_turn(bench.session(), HandedOff("c-1", None, None))
    assert bench.routes == []


@pytest.mark.parametrize("body", ["{}", "[]", '{"websocket_url": 5}', '{"websocket_url": "http://127.0.0.1/"}'])
async def test_an_address_that_is_none_is_refused(bench: Bench, body: str) -> None:
    bench.control.fail("celsius", Fault("answer", status=200, body=body))
    with pytest.raises(UpstreamProtocolError):
        await bench.client.topic_turn(bench.session(), HandedOff("c-1", "topic", None))
    assert bench.routes == ["celsius"]


async def test_the_sockets_of_2024_are_opened_before_a_turn_once_they_are_known(bench: Bench) -> None:
    bench.control.set_options(answer="websocket_2024")
    session = bench.session()
    handed = the(HandedOff, await ask(bench, QUESTION, session))
    assert text_of(await read(await bench.client.socket_turn(session, handed))) == ANSWER
    bench.control.reset()
    bench.control.set_options(answer="websocket_2024")

    turn = await bench.client.start_turn(session, QUESTION)
    assert the(HandedOff, await turn.next()).websocket_url is not None
    early = turn.take_early()
    assert early is not None
    assert turn.take_early() is None
    await turn.aclose()
    assert text_of(await read(early)) == ANSWER

    routes = [route for route in bench.routes if route.startswith(("websocket", "conv", "register"))]
    assert routes == ["websocket_2024", "conversation"], "the address is used again"
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_an_old_address_is_not_used_again(bench: Bench) -> None:
    bench.control.set_options(answer="websocket_2024")
    session = bench.session()
    await read(await bench.client.socket_turn(session, the(HandedOff, await ask(bench, QUESTION, session))))
    bench.clock.advance(ADDRESS_LIFETIME)
    for _ in range(2):
        await (await bench.client.start_turn(session, QUESTION)).aclose()
    assert bench.routes.count("register_websocket") == 1
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_an_account_whose_answers_come_as_streams_again_needs_no_socket(bench: Bench) -> None:
    bench.control.choose(answer="websocket_2024")
    session = bench.session()
    await read(await bench.client.socket_turn(session, the(HandedOff, await ask(bench, QUESTION, session))))
    bench.control.reset()
    for _ in range(2):
        assert text_of(await ask(bench, QUESTION, session)) == ANSWER
    assert bench.routes.count("websocket_2024") == 1
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


@pytest.mark.parametrize("route", ["websocket_2024", "conversation"])
async def test_R10_a_socket_opened_early_is_closed_when_the_turn_fails(bench: Bench, route: str) -> None:
    bench.control.choose(answer="websocket_2024")
    session = bench.session()
    await read(await bench.client.socket_turn(session, the(HandedOff, await ask(bench, QUESTION, session))))
    bench.control.refuse(route, "server_error")
    if route == "conversation":
        with pytest.raises(UpstreamServerError):
            await bench.client.start_turn(session, QUESTION)
    else:
        assert text_of(await ask(bench, QUESTION, session)) == ANSWER, "the turn needs no socket to be sent"
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


# Files


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    ("answer", "scheme"), [("image_2024", "file-service"), ("image", "sediment"), ("interpreter_file", "sandbox")]
)
async def test_a_files_address_can_be_fetched(bench: Bench, answer: str, scheme: str, relative: bool) -> None:
    bench.control.choose(answer=answer)
    bench.control.set_options(relative_links=relative)
    session = bench.session()
    pointer = the(FilePointer, await ask(bench, KEPT, session))
    assert pointer.pointer.startswith(f"{scheme}:")
    url = await bench.client.file_url(session, pointer)
    assert url is not None
    assert url.startswith(f"{bench.sim.url}/")
    bearer = {"Authorization": f"Bearer {session.access_token}"} if relative else {}
    async with httpx.AsyncClient(trust_env=False) as http:
        file = await http.get(url, headers=bearer)
    assert file.status_code == 200
    assert (file.content == PICTURE) == (scheme != "sandbox")


@pytest.mark.parametrize(("pending", "found"), [(0, True), (2, True), (4, True), (5, False), (99, False)])
async def test_a_file_that_is_not_ready_is_asked_for_again_but_not_for_ever(
    bench: Bench, pending: int, found: bool
) -> None:
    bench.control.choose(answer="image")
    bench.control.set_options(pending_downloads=pending)
    pointer = the(FilePointer, await ask(bench, KEPT))
    assert (await bench.client.file_url(bench.session(), pointer) is not None) == found
    assert len(bench.clock.slept) == min(pending, 4)
    assert set(bench.clock.slept) <= {1.0}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("answer", named="not_found"),
        Fault("answer", named="server_error"),
        Fault("answer", named="page_instead"),
        Fault("answer", status=200, body="[]"),
        Fault("answer", status=200, body="null"),
        Fault("answer", status=200, body='{"status": "success", "download_url": 5}'),
        Fault("answer", status=200, body='{"status": "success", "download_url": ""}'),
        Fault("reset"),
    ],
)
async def test_a_file_that_cannot_be_had_is_none_and_never_ends_the_answer(bench: Bench, fault: Fault) -> None:
    bench.control.choose(answer="image")
    pointer = the(FilePointer, await ask(bench, KEPT))
    bench.control.fail("file_download", fault)
    assert await bench.client.file_url(bench.session(), pointer) is None
    assert bench.routes.count("file_download") == 1


@pytest.mark.parametrize(
    "pointer", ["https://elsewhere.test/x", "sediment://file_1", "sandbox:/mnt/data/x", "", "file"]
)
async def test_a_pointer_that_leads_nowhere_asks_nobody(bench: Bench, pointer: str) -> None:
    nowhere = FilePointer(pointer, "file", "x", None, None)
    assert await bench.client.file_url(bench.session(), nowhere) is None
    assert bench.routes == []


async def test_S6_a_pointer_cannot_leave_the_files(bench: Bench) -> None:
    pointer = FilePointer("file-service://../../accounts/check?x=1#y", "file", "x", "c/../1", "m")
    await bench.client.file_url(bench.session(), pointer)
    assert bench.control.requests[-1].request.target.startswith("/backend-api/files/..%2F..%2Faccounts%2Fcheck%3Fx")
    await bench.client.file_url(bench.session(), dataclasses.replace(pointer, pointer="sediment://a/b"))
    target = bench.control.requests[-1].request.target
    assert target == "/backend-api/conversation/c%2F..%2F1/attachment/a%2Fb/download"


# Other questions


async def test_the_models_are_those_of_the_plan(bench: Bench) -> None:
    paid = {model.slug for model in await bench.client.models(bench.session())}
    free = {model.slug for model in await bench.client.models(bench.session(bench.control.accounts[1]))}
    assert "o3" in paid - free
    anonymous = await bench.client.models(bench.anonymous())
    assert {model.slug for model in anonymous} == free
    assert "iim=false" in bench.control.requests[-1].request.target


@pytest.mark.parametrize("body", ["null", "5", "{}", '{"models": 5}', "<", ""])
async def test_R14_a_list_of_models_of_a_wrong_shape_is_a_named_error(bench: Bench, body: str) -> None:
    headers = (("content-type", "application/json"),)
    bench.control.fail("models", Fault("answer", status=200, headers=headers, body=body))
    with pytest.raises(UpstreamProtocolError):
        await bench.client.models(bench.session())


@pytest.mark.parametrize("body", ["[]", "null", "5", "<html>", "", '{"current_node": 5}', "{}"])
async def test_R14_a_conversation_of_a_wrong_shape_is_a_named_error(bench: Bench, body: str) -> None:
    headers = (("content-type", "application/json"),)
    bench.control.fail("history_get", Fault("answer", status=200, headers=headers, body=body))
    with pytest.raises(UpstreamProtocolError):
        await bench.client.current_message(bench.session(), "c-1234567")


async def test_a_conversation_is_asked_for_under_its_template(bench: Bench) -> None:
    with pytest.raises(UpstreamNotFoundError):
        await bench.client.stored_conversation(bench.session(), "11111111-0000-4000-8000-000000000000")
    request = bench.control.requests[-1].request
    assert request.header("x-openai-target-route") == "/backend-api/conversation/{conversation_id}"


async def test_reaching_the_backend_tells_what_stands_in_the_way(bench: Bench) -> None:
    await bench.client.check_reachable(bench.anonymous())
    bench.control.refuse("home", "cloudflare")
    with pytest.raises(ChallengedError):
        await bench.client.check_reachable(bench.anonymous())
    with pytest.raises(TransportError):
        await bench.client.check_reachable(bench.session(origin="http://127.0.0.1:9"))


async def test_the_backends_clock_is_compared_with_ours(bench: Bench) -> None:
    skew = await bench.client.clock_skew(bench.anonymous())
    assert skew is not None
    assert abs(skew) < 60


async def test_an_account_tells_its_plan_and_features(bench: Bench) -> None:
    info = await bench.client.account_info(bench.session(), None)
    assert info is not None
    assert info.plan
    assert not info.is_deactivated
    assert bench.control.requests[-1].route == "accounts_check"


# Leaving


@pytest.mark.parametrize("route", ["home", "requirements", "prepare", "conversation"])
async def test_R10_leaving_aborts_whatever_runs(bench: Bench, route: str) -> None:
    bench.control.fail(route, Fault("stall"))
    asked = asyncio.ensure_future(ask(bench, THINKING))
    await bench.control.wait_until(lambda: route in bench.routes)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert asked.cancelled()
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


async def test_R10_closing_a_turn_aborts_its_stream(bench: Bench) -> None:
    bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1))
    turn = await bench.client.start_turn(bench.session(), QUESTION)
    assert await turn.next()
    await turn.aclose()
    await bench.control.wait_until(lambda: bench.control.streams[0].outcome == "aborted")


async def test_a_picture_is_asked_for_by_the_newer_call_in_a_stored_conversation(bench: Bench) -> None:
    picture = dataclasses.replace(QUESTION, model=ModelChoice("auto", hints=(PICTURE_HINT,)))
    await ask(bench, picture)
    body = json.loads(turns(bench)[0].request.body)
    assert "history_and_training_disabled" not in body
    assert paths(bench) == ["/backend-api/f/conversation"]


async def test_a_stampede_of_turns_prepares_only_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat2api.upstream.chatgpt.client.SIMULTANEOUS_STARTS", 3)
    under_way: list[int] = []
    release = asyncio.Event()

    class Slow:
        running = 0

        async def obtain(self, session: Session) -> Permit:
            Slow.running += 1
            under_way.append(Slow.running)
            await release.wait()
            Slow.running -= 1
            raise UpstreamProtocolError("enough")

    client = ChatGPTClient(cast(Any, None), cast(Any, Slow()), SystemClock(), ClientSettings())
    session = Session("a", "device", "http://127.0.0.1:1", None)
    prompt = Prompt((Message("user", (TextPart("x"),)),), ModelChoice("auto"))
    turns = [asyncio.ensure_future(client.start_turn(session, prompt)) for _ in range(10)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert under_way == [1, 2, 3]
    release.set()
    assert {type(error) for error in await asyncio.gather(*turns, return_exceptions=True)} == {UpstreamProtocolError}
    assert len(under_way) == 10
    assert max(under_way) == 3
