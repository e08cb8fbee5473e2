"""Tests of the conversation calls, seen from the wire."""

import uuid
from typing import Any

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from tests.clocks import FakeClock
from tests.simulator.web_client import (
    WebClient,
    message,
    read_classic,
    read_events,
    read_objects,
    read_v1,
    visible_text,
)


async def test_a_turn_ends_well_in_both_encodings(web: WebClient) -> None:
    classic, v1 = await web.ask(), await web.ask(supported_encodings=["v1"])
    for answer, read in ((classic, read_classic), (v1, read_v1)):
        assert answer.headers["content-type"].startswith("text/event-stream")
        final = list(read(answer.text).values())[-1]
        assert final["content"]["parts"] == ["Nile, Amazon, Danube."]
        assert (final["status"], final["end_turn"]) == ("finished_successfully", True)
        assert final["metadata"]["finish_details"]["type"] == "stop"
        assert read_events(answer.text)[-1] == (None, "[DONE]")
    assert read_events(v1.text)[0] == ("delta_encoding", '"v1"')


async def test_the_user_and_system_echoes_come_before_the_answer(web: WebClient) -> None:
    roles = [found["author"]["role"] for found in read_classic((await web.ask()).text).values()]
    assert roles == ["system", "user", "assistant"]
    kinds = [value.get("type") for value in read_objects((await web.ask(supported_encodings=["v1"])).text)]
    assert kinds.index("input_message") < kinds.index("server_ste_metadata") < kinds.index("message_stream_complete")


@pytest.mark.parametrize("encoding", ["classic", "v1"])
async def test_an_encoding_can_be_forced_against_the_request(web: WebClient, sim: Simulator, encoding: str) -> None:
    sim.control.set_options(encoding=encoding)
    for asked in ([], ["v1"]):
        text = (await web.ask(supported_encodings=asked)).text
        assert text.startswith("event: delta_encoding") is (encoding == "v1")


async def test_history_of_a_stateless_call_is_understood(web: WebClient) -> None:
    messages = [message("Be brief.", "system"), message("Say: tea"), message("tea", "assistant")]
    body = web.body(messages=[*messages, message("What did I say before?")])
    answer = await web.send(body)
    assert "1. Say: tea" in visible_text(read_classic(answer.text))


async def test_a_conversation_goes_on_under_its_id_and_parent(web: WebClient) -> None:
    first = await web.ask("Say: one", history_and_training_disabled=False)
    final = list(read_classic(first.text).values())[-1]
    conversation_id = next(read_objects(first.text))["conversation_id"]
    second = await web.ask("What did I say?", conversation_id=conversation_id, parent_message_id=final["id"])
    assert "Say: one" in visible_text(read_classic(second.text))
    wrong_parent = await web.ask(conversation_id=conversation_id)
    assert wrong_parent.status_code == 400
    unknown = await web.ask(conversation_id=str(uuid.uuid4()))
    assert unknown.json()["detail"]["code"] == "conversation_not_found"


async def test_a_conversation_belongs_to_its_account_and_workspace(sim: Simulator) -> None:
    member, other = sim.control.accounts[2], sim.control.accounts[0]
    async with WebClient(sim, member) as web, WebClient(sim, other) as stranger:
        answer = await web.ask(history_and_training_disabled=False)
        conversation_id = next(read_objects(answer.text))["conversation_id"]
        assert (await web.get(f"/backend-api/conversation/{conversation_id}")).status_code == 200
        assert (await stranger.get(f"/backend-api/conversation/{conversation_id}")).status_code == 404
        web.workspace = member.account_ids[1]
        assert (await web.get(f"/backend-api/conversation/{conversation_id}")).status_code == 404
        assert (await web.ask()).status_code == 200
        web.workspace = other.account_ids[0]
        assert (await web.get("/backend-api/me")).status_code == 403


async def test_a_temporary_chat_can_go_on_for_a_while_but_is_in_no_list() -> None:
    clock = FakeClock()
    async with (
        Simulator(SimulatorOptions(temporary_lifetime=100.0), clock=clock) as sim,
        WebClient(sim, sim.control.accounts[0]) as web,
    ):
        answer = await web.ask("Say: one")
        conversation_id = next(read_objects(answer.text))["conversation_id"]
        parent = list(read_classic(answer.text))[-1]
        assert (await web.get(f"/backend-api/conversation/{conversation_id}")).status_code == 404
        assert (await web.get("/backend-api/conversations")).json()["total"] == 0
        going_on = {"conversation_id": conversation_id, "parent_message_id": parent}
        assert (await web.ask("What did I say?", **going_on)).status_code == 200
        clock.advance(101)
        assert (await web.ask("What did I say?", **going_on)).status_code == 404


@pytest.mark.parametrize("continuation", ["rest", "whole"])
async def test_continue_gives_what_max_tokens_cut(web: WebClient, sim: Simulator, continuation: str) -> None:
    sim.control.set_options(continuation=continuation)
    sim.control.choose(answer="max_tokens")
    first = await web.ask("Name six rivers.")
    cut = list(read_classic(first.text).values())[-1]
    assert cut["metadata"]["finish_details"]["type"] == "max_tokens"
    conversation_id = next(read_objects(first.text))["conversation_id"]
    going_on = {"action": "continue", "conversation_id": conversation_id, "parent_message_id": cut["id"]}
    second = await web.send(web.body(messages=..., **going_on))
    begun, rest = cut["content"]["parts"][0], visible_text(read_classic(second.text))
    assert (rest if continuation == "whole" else begun + rest) == "Nile, Amazon, Danube, Mekong, Volga, Rhine."
    assert (await web.send(web.body(messages=..., **going_on))).status_code == 400


async def test_a_gpt_is_remembered(web: WebClient) -> None:
    mode = {"kind": "gizmo_interaction", "gizmo_id": "g-rivers"}
    await web.ask(conversation_mode=mode, history_and_training_disabled=False)
    assert (await web.get("/backend-api/conversations")).json()["items"][0]["gizmo_id"] == "g-rivers"


async def test_another_model_may_serve(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(served_model="gpt-4o-mini")
    values = list(read_objects((await web.ask(supported_encodings=["v1"])).text))
    served = next(value for value in values if value.get("type") == "server_ste_metadata")
    assert served["metadata"]["model_slug"] == "gpt-4o-mini"
    final = list(read_classic((await web.ask(model="auto")).text).values())[-1]
    assert (final["metadata"]["model_slug"], final["metadata"]["default_model_slug"]) == ("gpt-5-5", "auto")


async def test_anonymous_callers_chat_where_they_may(anonymous: WebClient, sim: Simulator) -> None:
    assert (await anonymous.ask()).status_code == 200
    assert (await anonymous.get("/backend-anon/models")).status_code == 200
    assert (await anonymous.get("/backend-api/models")).status_code == 401
    assert (await anonymous.get("/backend-anon/conversations")).status_code == 404
    sim.control.set_options(anonymous=False)
    assert (await anonymous.post("/backend-anon/sentinel/chat-requirements", {"p": None})).status_code == 401


async def _prepared(web: WebClient, **headers: str) -> str | None:
    answer = await web.post("/backend-api/f/conversation/prepare", {"action": "next", "model": "auto"}, **headers)
    assert answer.status_code == 200
    token = answer.json()["conduit_token"]
    return str(token) if token is not None else None


async def _send_f(web: WebClient, **headers: str) -> int:
    tokens = await web.sentinel()
    accept = {"accept": "text/event-stream"}
    path = "/backend-api/f/conversation"
    return (await web.post(path, web.body(), **accept, **tokens, **headers)).status_code


async def test_the_f_form_wants_the_conduit_token_of_its_prepare_call(web: WebClient) -> None:
    trace = str(uuid.uuid4())
    token = await _prepared(web, **{"x-conduit-token": "no-token", "x-oai-turn-trace-id": trace})
    assert token
    assert await _send_f(web) == 400
    assert await _send_f(web, **{"x-conduit-token": "made-up"}) == 400
    assert await _send_f(web, **{"x-conduit-token": token, "x-oai-turn-trace-id": trace}) == 200
    assert await _send_f(web, **{"x-conduit-token": token, "x-oai-turn-trace-id": trace}) == 400
    token = await _prepared(web, **{"x-oai-turn-trace-id": trace})
    assert await _send_f(web, **{"x-conduit-token": str(token), "x-oai-turn-trace-id": str(uuid.uuid4())}) == 400


async def test_prepare_calls_can_be_chained(web: WebClient) -> None:
    first = await _prepared(web, **{"x-conduit-token": ""})
    second = await _prepared(web, **{"x-conduit-token": str(first)})
    assert await _send_f(web, **{"x-conduit-token": str(first)}) == 400
    assert await _send_f(web, **{"x-conduit-token": str(second)}) == 200


async def test_a_null_conduit_token_means_an_empty_header(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(conduit="null")
    assert await _prepared(web) is None
    assert await _send_f(web, **{"x-conduit-token": ""}) == 200
    sim.control.set_options(conduit="optional")
    assert await _send_f(web) == 200


@pytest.mark.parametrize(("only", "path"), [("f", "/conversation"), ("classic", "/f/conversation/prepare")])
async def test_an_endpoint_can_be_gone(web: WebClient, sim: Simulator, only: str, path: str) -> None:
    for status in (404, 410):
        sim.control.set_options(endpoints=only, endpoint_gone=status)
        assert (await web.post("/backend-api" + path, web.body())).status_code == status


async def test_a_handed_off_turn_is_resumed_at_the_offset_where_it_is(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="handoff")
    answer = await web.ask(history_and_training_disabled=False, supported_encodings=["v1"])
    values = list(read_objects(answer.text))
    kinds = [value.get("type") for value in values]
    token = values[kinds.index("resume_conversation_token")]["token"]
    conversation_id = values[kinds.index("stream_handoff")]["conversation_id"]
    assert "Nile" not in answer.text
    path = "/backend-api/f/conversation/resume"
    statuses, text = [], ""
    for offset in (0, 1, 1):
        body = {"conversation_id": conversation_id, "offset": offset}
        resumed = await web.post(path, body, **{"x-conduit-token": token})
        statuses.append(resumed.status_code)
        text = resumed.text if resumed.status_code == 200 else text
    assert statuses == [404, 200, 404]
    assert visible_text(read_v1(text)) == "Nile, Amazon, Danube."
    assert (await web.post(path, {"conversation_id": conversation_id, "offset": 1})).status_code == 403


async def test_a_handed_off_turn_can_be_had_by_polling_alone(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="handoff_poll", pending_polls=2)
    sim.control.choose("resume", answer="handoff_poll", times=None)
    answer = await web.ask(history_and_training_disabled=False, supported_encodings=["v1"])
    values = list(read_objects(answer.text))
    token = next(value["token"] for value in values if value.get("type") == "resume_conversation_token")
    conversation_id = values[-1]["conversation_id"]
    for offset in (0, 1, 2):
        body = {"conversation_id": conversation_id, "offset": offset}
        resumed = await web.post("/backend-api/f/conversation/resume", body, **{"x-conduit-token": token})
        assert resumed.status_code == 404
    roles = []
    for _ in range(3):
        tree = (await web.get(f"/backend-api/conversation/{conversation_id}")).json()
        roles.append(tree["mapping"][tree["current_node"]]["message"]["author"]["role"])
    assert roles == ["user", "user", "assistant"]


async def test_the_2024_hand_off_is_a_json_body(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="websocket_2024")
    answer = await web.ask()
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["wss_url"].startswith("ws://127.0.0.1:")


async def test_files_named_in_a_message_must_be_the_callers(web: WebClient) -> None:
    part: dict[str, Any] = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-unknown"}
    asked = message("")
    asked["content"] = {"content_type": "multimodal_text", "parts": [part, "What is it?"]}
    assert (await web.send(web.body(messages=[asked]))).status_code == 400


async def test_too_long_a_prompt_is_refused(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(max_prompt=20)
    answer = await web.ask("x" * 21)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (413, "message_length_exceeds_limit")
