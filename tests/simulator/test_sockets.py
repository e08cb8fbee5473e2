"""Tests of what is said on the two kinds of web sockets."""

import base64
from typing import Any

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.sockets import SUB_PROTOCOL
from tests.simulator.raw_client import connect
from tests.simulator.socket_client import SocketClient, open_socket
from tests.simulator.web_client import WebClient, read_classic, read_objects, read_v1, visible_text


async def _read_turn(socket: SocketClient, conversation_id: str) -> tuple[str, list[int]]:
    body, sequence, more = b"", [], True
    while more:
        frame = await socket.receive_json()
        if "sequenceId" not in frame:
            continue
        assert frame["data"]["conversation_id"] == conversation_id
        sequence.append(frame["sequenceId"])
        body += base64.b64decode(frame["data"]["body"])
        more = frame["data"]["more_body"]
    return body.decode(), sequence


async def test_a_2024_turn_comes_on_the_socket_it_names(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="websocket_2024", times=2)
    answer = (await web.ask()).json()
    async with open_socket(answer["wss_url"], SUB_PROTOCOL) as socket:
        assert socket.sub_protocol == SUB_PROTOCOL
        text, sequence = await _read_turn(socket, answer["conversation_id"])
        assert visible_text(read_classic(text)) == "Nile, Amazon, Danube."
        assert text.endswith("data: [DONE]\n\n")
        assert sequence == list(range(1, len(sequence) + 1))
        socket.send('{"type":"sequenceAck","sequenceId":2}')
        second = (await web.ask("Say: again")).json()
        text, later = await _read_turn(socket, second["conversation_id"])
        assert visible_text(read_classic(text)) == "again"
        assert later[0] == sequence[-1] + 1


async def test_a_2024_socket_can_be_open_before_the_turn(web: WebClient, sim: Simulator) -> None:
    address = (await web.post("/backend-api/register-websocket", {})).json()["wss_url"]
    sim.control.choose(answer="websocket_2024")
    async with open_socket(address, SUB_PROTOCOL) as socket:
        assert (await socket.receive_json())["type"] == "system"
        answer = (await web.ask()).json()
        assert "Nile" in (await _read_turn(socket, answer["conversation_id"]))[0]


async def test_the_2024_socket_wants_its_sub_protocol(web: WebClient, sim: Simulator) -> None:
    address = (await web.post("/backend-api/register-websocket", {})).json()["wss_url"]
    async with connect(sim) as connection:
        connection.send("GET", address[address.index("/client") :], upgrade="websocket")
        assert (await connection.read_head()).split()[1] == b"400"


async def test_a_handed_off_turn_is_read_from_its_topic(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="handoff")
    answer = await web.ask(supported_encodings=["v1"])
    offer = next(value for value in read_objects(answer.text) if value.get("type") == "stream_handoff")
    topic = offer["options"][1]["topic_id"]
    address = (await web.get("/backend-api/celsius/ws/user")).json()["websocket_url"]
    seen: dict[str, str] = {}
    repeats = 0
    async with open_socket(address) as socket:
        socket.send(
            '[{"id":1,"command":{"type":"connect"}},{"id":2,"command":{"type":"subscribe","topic_id":"conversations"}}]'
        )
        assert [(await socket.receive_json())["id"] for _ in range(2)] == [1, 2]
        socket.send(f'[{{"id":5,"command":{{"type":"subscribe","topic_id":"{topic}","offset":"0"}}}}]')
        reply = await socket.receive_json()
        frames: list[dict[str, Any]] = reply["reply"]["catchups"]
        assert reply["id"] == 5
        assert frames
        while not any("[DONE]" in text for text in seen.values()):
            for frame in frames:
                item = frame["payload"]["payload"]
                repeats += item["stream_item_id"] in seen
                seen[item["stream_item_id"]] = item["encoded_item"]
            if not any("[DONE]" in text for text in seen.values()):
                frames = [await socket.receive_json()]
    assert repeats == 1
    assert visible_text(read_v1("".join(seen.values()))) == "Nile, Amazon, Danube."


async def test_a_topic_belongs_to_its_account(web: WebClient, sim: Simulator) -> None:
    sim.control.choose(answer="handoff")
    answer = await web.ask(supported_encodings=["v1"])
    offer = next(value for value in read_objects(answer.text) if value.get("type") == "stream_handoff")
    async with WebClient(sim, sim.control.accounts[1]) as stranger:
        address = (await stranger.get("/backend-api/celsius/ws/user")).json()["websocket_url"]
        async with open_socket(address) as socket:
            socket.send(f'[{{"id":5,"command":{{"type":"subscribe","topic_id":"{offer["options"][1]["topic_id"]}"}}}}]')
            assert (await socket.receive_json())["reply"]["catchups"] == []


async def test_all_2024_sockets_of_a_user_hear_the_same(web: WebClient, sim: Simulator) -> None:
    address = (await web.post("/backend-api/register-websocket", {})).json()["wss_url"]
    sim.control.choose(answer="websocket_2024")
    async with open_socket(address, SUB_PROTOCOL) as first, open_socket(address, SUB_PROTOCOL) as second:
        for socket in (first, second):
            assert (await socket.receive_json())["type"] == "system"
        answer = (await web.ask()).json()
        turns = [await _read_turn(socket, answer["conversation_id"]) for socket in (first, second)]
    assert turns[0] == turns[1]


@pytest.mark.parametrize("do", ["close", "reset", "end"])
async def test_a_socket_ends_after_so_many_texts(web: WebClient, sim: Simulator, do: str) -> None:
    sim.control.fail("websocket_2024", Fault(do, at="mid_stream", after=2))  # type: ignore[arg-type]
    sim.control.choose(answer="websocket_2024")
    answer = (await web.ask()).json()
    async with open_socket(answer["wss_url"], SUB_PROTOCOL) as socket:
        await socket.receive_json()
        assert (await socket.receive_json())["sequenceId"] == 1
        if do == "reset":
            with pytest.raises(ConnectionError):
                await socket.receive_close()
        else:
            assert await socket.receive_close() == (1000 if do == "end" else 1006)
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
    assert sim.control.replies[-1].outcome == "faulted"


async def test_a_stalled_socket_waits_until_its_peer_leaves(web: WebClient, sim: Simulator) -> None:
    sim.control.fail("websocket_2024", Fault("stall", at="mid_stream", after=1))
    sim.control.choose(answer="websocket_2024")
    answer = (await web.ask()).json()
    async with open_socket(answer["wss_url"], SUB_PROTOCOL) as socket:
        await socket.receive_json()
        assert sim.control.counters.open_replies == 1
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
    assert sim.control.replies[-1].outcome == "aborted"
