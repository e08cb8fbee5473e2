"""Tests of stored conversations: the tree, the list, and the calls that change them."""

from typing import Any

import httpx
import pytest

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import WebClient, read_classic, read_objects


async def _chat(web: WebClient, prompt: str) -> tuple[str, str]:
    text = (await web.ask(prompt, history_and_training_disabled=False)).text
    return next(read_objects(text))["conversation_id"], list(read_classic(text))[-1]


async def _patch(web: WebClient, path: str, body: object) -> httpx.Response:
    return await web.http.patch(f"{web.origin}/backend-api/{path}", json=body, headers=web.headers())


async def test_the_tree_leads_from_the_current_node_to_one_root(web: WebClient) -> None:
    conversation_id, last = await _chat(web, "Name three rivers.")
    tree: dict[str, Any] = (await web.get(f"/backend-api/conversation/{conversation_id}")).json()
    assert tree["current_node"] == last
    mapping, node, roles = tree["mapping"], tree["current_node"], []
    while node is not None:
        entry = mapping[node]
        roles.append(entry["message"]["author"]["role"] if entry["message"] else None)
        assert entry["parent"] is None or node in mapping[entry["parent"]]["children"]
        node = entry["parent"]
    assert roles == ["assistant", "user", None]
    assert len(mapping) == 3
    assert isinstance(tree["create_time"], float)


async def test_an_answer_from_an_earlier_message_makes_a_branch(web: WebClient) -> None:
    conversation_id, first = await _chat(web, "Say: one")
    for _ in range(2):
        going_on = {"conversation_id": conversation_id, "parent_message_id": first}
        await web.ask("Say: two", history_and_training_disabled=False, **going_on)
    mapping = (await web.get(f"/backend-api/conversation/{conversation_id}")).json()["mapping"]
    assert len(mapping[first]["children"]) == 2


async def test_the_list_is_paged_newest_first(web: WebClient) -> None:
    ids = [(await _chat(web, f"Say: {number}"))[0] for number in range(3)]
    page = (await web.get("/backend-api/conversations?offset=0&limit=2&order=updated")).json()
    assert [item["id"] for item in page["items"]] == [ids[2], ids[1]]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 0)
    assert page["items"][0]["title"] == "Say 2"
    assert isinstance(page["items"][0]["create_time"], str)
    rest = (await web.get("/backend-api/conversations?offset=2&limit=2")).json()
    assert [item["id"] for item in rest["items"]] == [ids[0]]


async def test_rename_archive_and_hide(web: WebClient) -> None:
    conversation_id, _ = await _chat(web, "Say: one")
    path = f"conversation/{conversation_id}"
    assert (await _patch(web, path, {"title": "Renamed"})).json() == {"success": True}
    assert (await web.get("/backend-api/conversations")).json()["items"][0]["title"] == "Renamed"
    await _patch(web, path, {"is_archived": True})
    assert (await web.get("/backend-api/conversations")).json()["total"] == 0
    assert (await web.get("/backend-api/conversations?is_archived=true")).json()["total"] == 1
    await _patch(web, path, {"is_visible": False})
    assert (await web.get(f"/backend-api/{path}")).status_code == 404
    assert (await _patch(web, path, {"title": 7})).status_code == 404


@pytest.mark.parametrize("body", [{"title": 7}, {"is_visible": "no"}, {"is_archived": 1}])
async def test_bad_changes_are_refused(web: WebClient, body: object) -> None:
    conversation_id, _ = await _chat(web, "Say: one")
    assert (await _patch(web, f"conversation/{conversation_id}", body)).status_code == 422


async def test_all_conversations_are_hidden_at_once(web: WebClient) -> None:
    await _chat(web, "Say: one")
    assert (await _patch(web, "conversations", {"is_visible": True})).status_code == 422
    assert (await _patch(web, "conversations", {"is_visible": False})).status_code == 200
    assert (await web.get("/backend-api/conversations")).json()["items"] == []


async def test_only_the_newest_temporary_chats_are_kept(
    web: WebClient, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.simulator.history._MAX_TEMPORARY", 2)
    opened = []
    for _ in range(3):
        text = (await web.ask("Say: one")).text
        opened.append({"conversation_id": next(read_objects(text))["conversation_id"]})
        opened[-1]["parent_message_id"] = list(read_classic(text))[-1]
    assert (await web.ask("Say: two", **opened[0])).status_code == 404
    assert (await web.ask("Say: two", **opened[2])).status_code == 200


async def test_only_the_newest_stored_chats_are_kept(web: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat2api.simulator.history._MAX_STORED", 2)
    opened = [await _chat(web, "Say: one") for _ in range(3)]
    listed = (await web.get("/backend-api/conversations")).json()["items"]
    assert {item["id"] for item in listed} == {conversation_id for conversation_id, _ in opened[1:]}


async def test_titles_feedback_shares_and_status(web: WebClient) -> None:
    conversation_id, message_id = await _chat(web, "Tell me of rivers and of the sea")
    title = await web.post(f"/backend-api/conversation/gen_title/{conversation_id}", {"message_id": message_id})
    assert title.json() == {"title": "Tell me of rivers and"}
    feedback = {"conversation_id": conversation_id, "message_id": message_id, "rating": "thumbsUp"}
    assert (await web.post("/backend-api/conversation/message_feedback", feedback)).status_code == 200
    bad = {**feedback, "rating": "five stars"}
    assert (await web.post("/backend-api/conversation/message_feedback", bad)).status_code == 422
    share = {"conversation_id": conversation_id, "current_node_id": message_id, "is_anonymous": False}
    assert (await web.post("/backend-api/share/create", share)).json()["share_url"].startswith(web.origin)
    status = await web.get(f"/backend-api/conversation/{conversation_id}/stream_status")
    assert status.json() == {"status": "IDLE"}
    assert (await web.get("/backend-api/tasks")).json() == {"tasks": [], "cursor": None}
