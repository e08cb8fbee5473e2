"""One turn put together from messages, without any framing."""

from collections import Counter
from typing import Any

import pytest

from chat2api.errors import StreamInterruptedError, UpstreamProtocolError
from chat2api.protocol.chatgpt.turn import Turn
from chat2api.protocol.events import (
    Failed,
    FilePointer,
    Finished,
    HandedOff,
    ImagePending,
    ReasoningDelta,
    Started,
    TextDelta,
)
from tests.protocol.chatgpt.streams import envelope, finished, message

CODE: dict[str, Any] = {
    "recipient": "python",
    "content": {"content_type": "code", "language": "python", "text": "x = 1"},
}
THOUGHTS = {"content_type": "thoughts", "thoughts": [{"summary": "Plan", "content": "Look"}]}


def turn(*messages: dict[str, Any], **options: Any) -> Turn:
    made = Turn(Counter(), **options)
    for inner in messages:
        made.update(envelope(inner))
    return made


def test_snapshots_give_only_what_is_new() -> None:
    made = turn(message("a"), message("ab"))
    assert made.take() == [Started("c-1", "m-3", None), TextDelta("ab")]

    made.update(envelope(message("ab")))
    assert made.take() == []

    made.update(envelope(finished("abc")))
    made.conclude()
    assert made.take() == [TextDelta("c"), Finished("stop", "c-1", "m-3", None)]


def test_the_model_that_served_is_told_at_the_end() -> None:
    made = turn(finished("a", model_slug="gpt-5", resolved_model_slug="gpt-5-thinking"))
    made.note_server({"model_slug": "gpt-5-mini"})
    made.conclude()
    started, _, end = made.take()

    assert isinstance(started, Started)
    assert isinstance(end, Finished)
    assert (started.model, end.model) == ("gpt-5-thinking", "gpt-5-mini")


@pytest.mark.parametrize(
    ("last", "reason", "continuable"),
    [
        (finished("a"), "stop", False),
        (finished("a", stop="interrupted", end_turn=None), "stop", False),
        (finished("a", stop="max_tokens", end_turn=False), "length", True),
        (finished("a", stop="content_filter"), "content_filter", False),
        (message("a", status="finished_partial_completion"), "stop", False),
        (message("a", finish_details={"type": "stop"}), "stop", False),
        (message("a", end_turn=True), "stop", False),
        (finished(stop="max_tokens", end_turn=False, **CODE), "length", False),
        (finished(stop="interrupted", end_turn=None, **CODE), "stop", False),
        (finished(stop="interrupted", end_turn=None, content=THOUGHTS), "stop", False),
    ],
)
def test_the_reason_follows_from_the_last_message(last: dict[str, Any], reason: str, continuable: bool) -> None:
    made = turn(last)
    made.conclude()
    end = made.take()[-1]

    assert made.has_content
    assert isinstance(end, Finished)
    assert (end.reason, end.continuable) == (reason, continuable)


@pytest.mark.parametrize(
    "last",
    [
        message("a"),
        message("a", status="finished_successfully", end_turn=False, finish_details={"type": "stop"}),
        message("a", status=None),
    ],
)
def test_R14_an_answer_without_an_end_was_cut(last: dict[str, Any]) -> None:
    made = turn(last)

    with pytest.raises(StreamInterruptedError):
        made.conclude()


def test_R14_nothing_at_all_is_no_answer() -> None:
    with pytest.raises(UpstreamProtocolError):
        turn(message("", role="user")).conclude()


def test_a_block_by_moderation_ends_even_a_cut_answer() -> None:
    made = turn(message("a"))
    made.is_blocked = True
    made.conclude()

    assert made.take()[-1] == Finished("content_filter", "c-1", "m-3", None)


def test_an_error_fails_an_unfinished_turn_once() -> None:
    made = turn(message("a"))
    made.fail("Busy", "busy")
    made.fail("Again")
    made.conclude()

    assert made.take() == [Started("c-1", "m-3", None), TextDelta("a"), Failed("Busy", "busy", "c-1")]


def test_an_error_after_a_finished_answer_spoils_nothing() -> None:
    made = turn(finished("a"))
    made.fail("Busy")
    made.conclude()

    assert isinstance(made.take()[-1], Finished)


def test_an_error_after_a_message_that_does_not_end_the_turn_fails_it() -> None:
    made = turn(message("I look.", status="finished_successfully", end_turn=False))
    made.fail("Busy")

    assert isinstance(made.take()[-1], Failed)


def test_a_tool_error_counts_only_when_nothing_was_said_after_it() -> None:
    error = message("Limit reached", id="m-1", role="tool", status="finished_successfully", is_error=True)

    silent = turn(error)
    silent.conclude()
    explained = turn(error, finished("I cannot."))
    explained.conclude()

    assert silent.take()[-1] == Failed("Limit reached", None, "c-1")
    assert isinstance(explained.take()[-1], Finished)


PICTURE = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://f", "metadata": {}}
DRAWN = {"content_type": "multimodal_text", "parts": [PICTURE, PICTURE]}


def test_a_picture_comes_once_and_only_when_it_is_finished() -> None:
    made = turn(message(id="m-1", role="tool", content=DRAWN))
    assert made.take() == []

    made.update(envelope(message(id="m-1", role="tool", content=DRAWN, status="finished_successfully")))
    made.update(envelope(message(id="m-2", role="tool", content=DRAWN, status="finished_successfully")))
    assert made.take() == [
        Started("c-1", "m-1", None),
        FilePointer("sediment://f", "image", "", "c-1", "m-1"),
    ]


def test_a_picture_that_is_still_being_made_is_pending() -> None:
    waiting = message("Processing", role="tool", status="finished_successfully", image_gen_task_id="t")
    made = turn(message("I draw.", id="m-1", status="finished_successfully"), waiting)
    made.conclude()

    assert made.take()[-1] == ImagePending("c-1", "m-3")


def test_a_refusal_to_draw_is_an_answer() -> None:
    made = turn(finished("I can't draw that."))
    made.note_server({"turn_use_case": "image gen"})
    made.conclude()

    assert isinstance(made.take()[-1], Finished)


def test_fences_close_before_the_next_message() -> None:
    code = message(id="m-1", recipient="python", content={"content_type": "code", "language": "python", "text": "x"})
    made = turn(message("Look:", id="m-0"), code, finished("Done", id="m-2"))

    assert made.take()[1:] == [TextDelta("Look:\n\n```python\nx\n```\n\nDone")]


def test_a_fence_closes_in_the_text_though_reasoning_came_between() -> None:
    code = message(id="m-1", recipient="python", content={"content_type": "code", "language": "python", "text": "x"})
    made = turn(code, message("hm [", id="m-2", channel="analysis"), finished("Done", id="m-3"))

    assert made.take()[1:] == [
        TextDelta("```python\nx"),
        ReasoningDelta("hm ["),
        TextDelta("\n```\n\nDone"),
    ]


def test_reasoning_of_several_messages_is_set_apart() -> None:
    made = turn(message("a", id="m-1", channel="analysis"), message("b", id="m-2", channel="analysis"), message("c"))

    assert made.take()[1:] == [ReasoningDelta("a\n\nb"), TextDelta("c")]


def test_reasoning_holds_no_markup() -> None:
    made = turn(
        message("see \ue200cite\ue202turn0search0\ue201 and [f](sandbox:/mnt/data/f)!", id="m-1", channel="analysis"),
        message("cut \ue200ci", id="m-2", channel="analysis"),
        finished("Done."),
    )
    made.conclude()
    events = made.take()

    assert events[1:3] == [ReasoningDelta("see  and f!\n\ncut "), TextDelta("Done.")]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"options": [{"type": "x", "topic_id": "topic-1"}]}, HandedOff("c-1", "topic-1", "token")),
        ({"options": {"transport": "sse", "resume_token": "mine"}, "turn_exchange_id": "t"},
         HandedOff("c-1", "conversation-turn-t", "mine")),
        ({}, HandedOff("c-1", None, "token")),
    ],
)  # fmt: skip
def test_a_handoff_names_topic_and_token(event: dict[str, Any], expected: HandedOff) -> None:
    made = turn()
    made.facts.conversation_id = "c-1"
    made.resume_token = "token"
    made.hand_off(event)
    made.conclude()

    assert made.take()[-1] == expected


def test_messages_without_an_id_are_one_while_their_author_is() -> None:
    first, second = message("a"), message("ab")
    del first["id"], second["id"]

    assert turn(first, second).take() == [Started("c-1", None, None), TextDelta("ab")]


def test_a_message_that_becomes_visible_is_shown() -> None:
    made = turn(message("a", recipient="bio"))
    assert made.take() == []

    document = envelope(message("a"))
    made.update(document)
    assert made.take()[1:] == [TextDelta("a")]


def test_a_half_character_at_the_end_of_a_snapshot_waits() -> None:
    made = turn(message("a \ufffd"))
    assert made.take()[1:] == [TextDelta("a ")]

    made.update(envelope(message("a \U0001f600")))
    assert made.take() == [TextDelta("\U0001f600")]
