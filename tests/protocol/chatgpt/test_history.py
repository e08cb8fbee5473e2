"""The last turn of a stored conversation."""

from typing import Any

import pytest

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.chatgpt.history import read_last_turn
from chat2api.protocol.events import Failed, FilePointer, Finished, Started, TextDelta
from tests.protocol.chatgpt.streams import finished, message


def conversation(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Give a conversation of one branch, its nodes in no useful order, with an abandoned branch beside."""
    nodes: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    parent = "root"
    for inner in messages:
        nodes[inner["id"]] = {"id": inner["id"], "message": inner, "parent": parent, "children": []}
        nodes[parent]["children"].append(inner["id"])
        parent = inner["id"]
    nodes["other"] = {"id": "other", "message": finished("Other branch", id="other"), "parent": "root", "children": []}
    return {"conversation_id": "c-1", "mapping": dict(reversed(nodes.items())), "current_node": parent, **fields}


USER = message("Draw a boat", id="u-1", role="user", status="finished_successfully")
PICTURE = {
    "content_type": "multimodal_text",
    "parts": [{"content_type": "image_asset_pointer", "asset_pointer": "sediment://f"}],
}


def test_the_last_turn_is_what_follows_the_users_last_message() -> None:
    stored = conversation(
        message("Hi", id="u-0", role="user"),
        finished("Hello", id="a-0"),
        USER,
        finished("No.", id="a-1", model_slug="gpt-5"),
    )

    read = read_last_turn(stored)

    assert read.is_done
    assert read.current_node == "a-1"
    assert list(read.events) == [
        Started("c-1", "a-1", "gpt-5"),
        TextDelta("No."),
        Finished("stop", "c-1", "a-1", "gpt-5"),
    ]


def test_a_hidden_message_of_the_user_does_not_begin_the_turn() -> None:
    hidden = message("context", id="u-2", role="user", is_visually_hidden_from_conversation=True)
    first = message("One.", id="a-1", status="finished_successfully", end_turn=False)

    read = read_last_turn(conversation(USER, first, hidden, finished("Two.", id="a-2")))

    assert TextDelta("One.\n\nTwo.") in read.events


def test_an_announcement_is_not_yet_the_answer() -> None:
    announced = finished("I'll read it first.", id="a-1")
    thoughts = message(id="t-1", status="finished_successfully", content={"content_type": "thoughts", "thoughts": [
        {"summary": "Reading", "content": "Page one."}]})  # fmt: skip

    assert not read_last_turn(conversation(USER, announced, thoughts)).is_done
    assert not read_last_turn(
        conversation(USER, {**announced, "metadata": {"is_thinking_preamble_message": True}})
    ).is_done
    assert read_last_turn(conversation(USER, announced, thoughts, finished("Done.", id="a-2"))).is_done


def test_the_turn_may_be_named_by_the_message_that_it_answers() -> None:
    read = read_last_turn(conversation(USER, finished("One.", id="a-1"), finished("Two.", id="a-2")), after="a-1")

    assert TextDelta("Two.") in read.events


@pytest.mark.parametrize(
    "last",
    [
        message("", id="a-1"),
        message("So f", id="a-1"),
        message("", id="a-1", recipient="web", status="finished_successfully", end_turn=False),
        message("Processing", id="a-1", role="tool", status="finished_successfully", image_gen_task_id="t"),
        USER,
    ],
    ids=["begun", "growing", "tool call", "picture", "nothing yet"],
)
def test_a_turn_that_is_not_finished_is_not_done(last: dict[str, Any]) -> None:
    read = read_last_turn(conversation(*([USER, last] if last is not USER else [USER])))

    assert not read.is_done
    assert not any(isinstance(item, Finished | Failed) for item in read.events)


def test_a_finished_picture_is_found() -> None:
    waiting = message("Processing", id="t-1", role="tool", status="finished_successfully", image_gen_task_id="t")
    drawn = message(id="t-2", role="tool", status="finished_successfully", content=PICTURE, async_task_type="image_gen")

    read = read_last_turn(conversation(USER, waiting, drawn))

    assert read.is_done
    assert FilePointer("sediment://f", "image", "", "c-1", "t-2") in read.events


def test_a_picture_of_the_user_is_not_the_answer() -> None:
    asked = message(id="u-1", role="user", content=PICTURE)

    assert not any(isinstance(item, FilePointer) for item in read_last_turn(conversation(asked)).events)


def test_a_failed_tool_ends_the_turn() -> None:
    failed = message("Limit", id="t-1", role="tool", status="finished_successfully", is_error=True)

    assert read_last_turn(conversation(USER, failed)).events[-1] == Failed("Limit", None, "c-1")


def test_a_blocked_answer_is_told() -> None:
    stored = conversation(USER, finished("x", id="a-1"), moderation_results=[{"message_id": "a-1", "blocked": True}])
    end = read_last_turn(stored).events[-1]

    assert isinstance(end, Finished)
    assert end.reason == "content_filter"


def test_without_a_current_node_the_newest_leaf_is_read() -> None:
    stored = conversation(USER, {**finished("Newest", id="a-1"), "create_time": 2e9}, current_node=None)

    assert TextDelta("Newest") in read_last_turn(stored).events


def test_a_loop_of_parents_ends() -> None:
    stored = conversation(finished("a", id="a-1"), finished("b", id="a-2"))
    stored["mapping"]["a-1"]["parent"] = "a-2"

    assert read_last_turn(stored).is_done


@pytest.mark.parametrize("stored", [{}, {"mapping": None}, {"mapping": []}])
def test_what_is_no_conversation_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(UpstreamProtocolError):
        read_last_turn(stored)


def test_broken_nodes_are_survived() -> None:
    assert not read_last_turn({"mapping": {"a": None, "b": 5}, "current_node": "a"}).is_done
    assert not read_last_turn({"mapping": {}, "current_node": "gone"}).is_done


def test_work_beside_the_conversation_is_over_when_its_status_says_so() -> None:
    waiting = message("Processing image", id="t-1", role="tool", image_gen_task_id="i-1", async_task_type="image_gen")

    assert not read_last_turn(conversation(USER, waiting, async_status=1)).is_work_over
    assert not read_last_turn(conversation(USER, waiting)).is_work_over
    ended = read_last_turn(conversation(USER, waiting, async_status=4))
    assert ended.is_work_over
    assert not ended.is_done
    assert read_last_turn(conversation(USER, finished("Done."), async_status=4)).is_work_over
