"""The backend's stream, decoded: recorded shapes of 2022 to 2026, every cut of them, and hostile bytes."""

import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat2api.errors import StreamInterruptedError, UpstreamError, UpstreamProtocolError
from chat2api.protocol.chatgpt.stream import ConversationDecoder, parse_json_answer
from chat2api.protocol.events import (
    End,
    Event,
    Failed,
    Finished,
    HandedOff,
    Started,
    TextDelta,
)
from tests.protocol.chatgpt.streams import (
    COMPLETE,
    DATA,
    DONE,
    ENCODING,
    Spoken,
    append,
    as_classic,
    as_v1,
    bare,
    begin,
    decode,
    delta,
    envelope,
    event,
    finished,
    last_patch,
    message,
    reasoning_in,
    side,
    text_in,
)

RECORDED = sorted(DATA.glob("*.sse"))


def as_json(events: list[Event]) -> list[dict[str, Any]]:
    return [{"type": type(item).__name__, **dataclasses.asdict(item)} for item in events]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_R15_a_recorded_stream_gives_the_events_beside_it(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    decoder = ConversationDecoder()
    events, failure = decode(path.read_bytes())
    try:
        decoder.feed(path.read_bytes())
        decoder.close()
    except UpstreamError:
        pass

    assert as_json(events) == expected["events"]
    assert (type(failure).__name__ if failure else None) == expected["raises"]
    assert dict(decoder.unknown) == expected["unknown"]


def test_there_are_recorded_streams_of_each_year() -> None:
    assert len(RECORDED) >= 40
    assert {path.stem[:4] for path in RECORDED} == {"2022", "2023", "2024", "2025", "2026"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_T3_every_cut_of_a_recorded_stream_gives_the_same_events(path: Path) -> None:
    data = path.read_bytes()
    whole = decode(data)[0]
    # Every place around the first and the last events, and some between: all places of all streams take minutes.
    places = {*range(min(len(data), 120)), *range(max(0, len(data) - 60), len(data)), *range(0, len(data), 37)}

    for place in places:
        assert decode(data, place)[0] == whole
    assert decode(data, *range(1, len(data)))[0] == whole


def test_T3_text_that_grows_in_the_middle_is_told_alike_however_it_is_cut() -> None:
    two_parts = message(content={"content_type": "text", "parts": ["A", "last"]})
    data = ENCODING + begin(two_parts) + append(" b") + bare(" c") + bare(" d") + bare(" e") + last_patch("!") + DONE
    whole = decode(data)[0]

    assert all(decode(data, place)[0] == whole for place in range(0, len(data), 7))
    assert decode(data, *range(1, len(data)))[0] == whole


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_events_come_in_their_order(path: Path) -> None:
    events, failure = decode(path.read_bytes())

    if events:
        assert isinstance(events[0], Started)
        assert not any(isinstance(item, Started) for item in events[1:])
        assert not any(isinstance(item, End) for item in events[:-1])
        assert isinstance(events[-1], End) is (failure is None)


# The same turn in both encodings

PIECES = st.lists(
    st.sampled_from(
        ["word", " and", "\n\n", "é", "\U0001f600", "\ue200cite\ue202turn0search0\ue201", "\ue200", "【7†source】", "【", "[",
         "](sandbox:/mnt/data/x.csv)", "[name](sandbox:/mnt/data/x.csv)", "!", "(", "sand", "```", "\ue201", "\ue204"]
    ),
    max_size=8,
)  # fmt: skip


@given(st.lists(st.tuples(PIECES, st.booleans()), min_size=1, max_size=4))
def test_classic_and_v1_renderings_of_a_turn_give_the_same_events(told: list[tuple[list[str], bool]]) -> None:
    groups = [{"entries": [{"url": "https://a.example/", "title": "A", "ref_id": {
        "turn_index": 0, "ref_type": "search", "ref_index": 0}}]}]  # fmt: skip
    turn = [
        Spoken(
            pieces,
            {
                "id": f"m-{number}",
                "search_result_groups": groups,
                "channel": "analysis" if is_thought and number < len(told) - 1 else None,
            },
            {"end_turn": number == len(told) - 1},
        )
        for number, (pieces, is_thought) in enumerate(told)
    ]

    assert decode(as_classic(turn))[0] == decode(as_v1(turn))[0]


@given(PIECES)
def test_no_private_use_character_reaches_the_caller(pieces: list[str]) -> None:
    events, _ = decode(as_v1([Spoken(pieces, {"id": "m-1"}, {})]))

    assert not any("\ue200" <= character <= "\ue20f" for character in text_in(events))


# Text and its order


def test_a_bare_string_after_a_patch_goes_on_with_the_text() -> None:
    patch = delta({"p": "", "o": "patch", "v": [{"p": "/message/metadata/x", "o": "replace", "v": 1}]})
    stream = ENCODING + begin(message()) + append("One") + patch + bare(" two") + last_patch(" three") + DONE

    assert text_in(decode(stream)[0]) == "One two three"


def test_a_bare_string_after_a_patch_goes_on_with_the_code() -> None:
    content = {"content_type": "code", "language": "python", "text": ""}
    patch = delta({"p": "", "o": "patch", "v": [{"p": "/message/metadata/x", "o": "replace", "v": 1}]})
    stream = ENCODING + begin(message(recipient="python", content=content)) + patch + bare("x = 1") + COMPLETE

    assert text_in(decode(stream)[0]) == "```python\nx = 1\n```"


def test_side_events_leave_the_sticky_path_alone() -> None:
    stream = (
        ENCODING
        + begin(message())
        + append("One")
        + side("title_generation", title="x")
        + side("something_new", p="/message/status", o="replace")
        + bare(" two")
        + last_patch()
        + DONE
    )

    assert text_in(decode(stream)[0]) == "One two"


@pytest.mark.parametrize(
    ("before", "operation", "after", "expected"),
    [
        ("Hello wor", {"o": "truncate", "v": 5}, " there", "Hello wor there"),
        ("Hello", {"o": "remove"}, "Anew", "HelloAnew"),
        ("Hello", {"o": "replace", "v": ""}, "Hello", "Hello"),
        ("Hello", {"o": "replace", "v": ""}, "Hello again", "Hello again"),
        ("Hello wor", {"o": "truncate", "v": 6}, "world", "Hello world"),
        ("Hello", {"o": "replace", "v": "Hello you"}, "!", "Hello you!"),
        ("One\nTwo", {"o": "replace", "v": "One\nThree"}, ".", "One\nTwo\nThree."),
        ("A long line whose end is found again.",
         {"o": "replace", "v": "A LONG line whose end is found again. And on"}, ".",
         "A long line whose end is found again. And on."),
    ],
)  # fmt: skip
def test_text_that_was_sent_is_never_taken_back(before: str, operation: Any, after: str, expected: str) -> None:
    path = "/message/content/parts/0"
    stream = (
        ENCODING + begin(message()) + append(before) + delta({"p": path, **operation}) + append(after) + last_patch()
    )

    assert text_in(decode(stream + DONE)[0]) == expected


def test_visible_messages_are_set_apart_by_a_blank_line() -> None:
    first = begin(message("First.\n", id="m-1", status="finished_successfully", end_turn=False))
    stream = ENCODING + first + begin(message(id="m-2"), 1) + append("Second") + last_patch(".") + DONE

    assert text_in(decode(stream)[0]) == "First.\n\nSecond."


def test_an_answer_that_begins_again_is_told_once() -> None:
    texts = ["Hello wor", "", "Hel", "Hello wor", "Hello world"]
    snapshots = b"".join(event(envelope(message(text))) for text in texts)
    appended = append("Hello wor") + delta({"p": "/message/content/parts/0", "o": "replace", "v": ""})
    appended += append("Hel") + bare("lo w") + bare("orld")

    assert text_in(decode(snapshots + event(envelope(finished("Hello world."))) + DONE)[0]) == "Hello world."
    assert text_in(decode(ENCODING + begin(message()) + appended + last_patch(".") + DONE)[0]) == "Hello world."


def test_what_changes_while_it_grows_again_is_told_from_the_cut() -> None:
    cut = delta({"p": "/message/content/parts/0", "o": "truncate", "v": 5})
    stream = ENCODING + begin(message()) + append("Hello wor") + cut + append(" w") + bare("ay") + last_patch(".")

    assert text_in(decode(stream + DONE)[0]) == "Hello wor way."


def test_half_surrogates_of_two_deltas_are_one_character() -> None:
    half = b'event: delta\ndata: {"v": "\\ud83d"}\n\nevent: delta\ndata: {"v": "\\ude00 \\ud800"}\n\n'
    stream = ENCODING + begin(message()) + append("Hi ") + half + bare("x") + last_patch() + DONE

    text = text_in(decode(stream)[0])

    assert text == "Hi \U0001f600 \ufffdx"
    assert text.encode()


def test_glued_documents_of_one_data_line_are_all_read() -> None:
    first, second = event(envelope(message("One"))), event(envelope(finished("One two")))
    glued = first.rstrip() + second.rstrip() + b"data: [DONE]\n\n"

    events, failure = decode(glued)

    assert text_in(events) == "One two"
    assert failure is None


def test_G5_a_refusal_passes_unchanged() -> None:
    refusal = "I'm sorry, but I can't help with that."
    stream = event(envelope(finished(refusal))) + DONE

    assert text_in(decode(stream)[0]) == refusal


def test_the_barest_form_of_2022_is_an_answer() -> None:
    pieces = ["", "Hel", "Hello."]
    stream = b"".join(event({"message": {"content": {"parts": [text]}}, "error": None}) for text in pieces)

    events, failure = decode(stream + DONE)

    assert (text_in(events), failure) == ("Hello.", None)


def test_an_echo_of_an_assistants_message_that_we_sent_is_not_the_answer() -> None:
    echo = event(envelope(message("Earlier answer", id="own-1", status="finished_successfully")))
    stream = echo + event(envelope(finished("Now"))) + DONE

    assert text_in(decode(stream, own_message_ids=["own-1"])[0]) == "Now"


def test_a_marker_before_the_message_makes_it_reasoning() -> None:
    marker = side("message_marker", message_id="m-9", marker="cot_token", event="first")
    stream = (
        ENCODING + marker + begin(message(id="m-9")) + append("hm") + begin(message(), 1) + append("Yes") + last_patch()
    )

    events, _ = decode(stream + DONE)

    assert (reasoning_in(events), text_in(events)) == ("hm", "Yes")


def test_what_a_patch_changes_beside_an_append_repeats_nothing() -> None:
    path = "/message/content/parts/0"
    retyped = [
        {"p": "/message/content/content_type", "o": "replace", "v": "text"},
        {"p": path, "o": "append", "v": "Hi"},
    ]
    without_parts = message(content={"content_type": "text", "parts": []})
    twice = [{"p": path, "o": "append", "v": "Hi"}, {"p": path, "o": "append", "v": " you"}]

    assert text_in(decode(ENCODING + begin(message()) + bare(retyped) + last_patch(".") + DONE)[0]) == "Hi."
    assert text_in(decode(ENCODING + begin(without_parts) + bare(twice) + last_patch(".") + DONE)[0]) == "Hi you."


def test_chunks_beside_the_content_of_a_thought_repeat_nothing() -> None:
    content = {"content_type": "thoughts", "thoughts": [{"summary": "Plan", "content": "", "chunks": []}]}
    steps = [
        [{"p": "/message/content/thoughts/0/chunks", "o": "append", "v": [piece]},
         {"p": "/message/content/thoughts/0/content", "o": "append", "v": piece}]
        for piece in ("One", " two", ".")
    ]  # fmt: skip
    thoughts = begin(message(id="t-1", content=content), 1) + b"".join(map(bare, steps))

    assert reasoning_in(decode(ENCODING + thoughts + begin(finished("Yes"), 2) + DONE)[0]) == "Plan\nOne two."


def test_a_number_is_a_piece_of_the_text() -> None:
    stream = ENCODING + begin(message()) + append("Room ") + bare(10) + bare(1) + last_patch(".") + DONE

    assert text_in(decode(stream)[0]) == "Room 101."


# Answers side by side


def side_by_side(first: Any, second: Any, *, ends: str) -> bytes:
    """Give two answers of which turns are taken; `ends` names those that come to their end."""
    words = [(1, "One"), (2, "Uno"), (1, " more"), (2, " mas")]
    parts = [delta({"c": c, "p": "/message/content/parts/0", "o": "append", "v": word}) for c, word in words]
    over = [{"p": "/message/status", "o": "replace", "v": "finished_successfully"},
            {"p": "/message/end_turn", "o": "replace", "v": True}]  # fmt: skip
    parts += [delta({"c": int(c), "p": "", "o": "patch", "v": over}) for c in ends]
    return ENCODING + begin(first, 1) + begin(second, 2) + b"".join(parts) + DONE


@pytest.mark.parametrize("parent_id", [None, "u-1"])
def test_of_two_answers_side_by_side_the_first_is_shown(parent_id: str | None) -> None:
    first, second = message(id="a", parent_id=parent_id), message(id="b", parent_id=parent_id)

    events, failure = decode(side_by_side(first, second, ends="12"))

    assert failure is None
    assert text_in(events) == "One more"
    assert events[-1] == Finished("stop", "c-1", "a", None)


def test_each_of_two_answers_side_by_side_may_have_thoughts_before_it() -> None:
    content = {"content_type": "thoughts", "thoughts": [{"summary": "S"}]}
    thoughts = [begin({**message(id=f"t-{name}", content=content, parent_id="u-1"), "status": "finished_successfully"}, c)
                for name, c in (("a", 3), ("b", 4))]  # fmt: skip
    first, second = (message(id=name, parent_id=f"t-{name}") for name in "ab")

    events, failure = decode(ENCODING + b"".join(thoughts) + side_by_side(first, second, ends="12"))

    assert (text_in(events), failure) == ("One more", None)


def test_of_two_answers_the_second_is_shown_too_when_it_alone_ends() -> None:
    events, failure = decode(side_by_side(message(id="a"), message(id="b"), ends="2"))

    assert failure is None
    assert text_in(events) == "One more\n\nUno mas"
    assert events[-1] == Finished("stop", "c-1", "b", None)


def test_a_message_that_follows_an_unfinished_one_is_shown() -> None:
    first = begin(message("Let me see.", id="a"), 1)
    second = begin(finished("It is 4.", id="b"), 2)
    called = begin(message("{}", id="t", recipient="web.run"), 3)

    assert text_in(decode(ENCODING + first + second + DONE)[0]) == "Let me see.\n\nIt is 4."
    assert text_in(decode(ENCODING + first + called + second + DONE)[0]) == "Let me see.\n\nIt is 4."
    first = begin(message("Let me see.", id="a", parent_id="u-1"), 1)
    called = begin(message("{}", id="t", recipient="web.run", parent_id="a"), 3)
    child = begin(message("It is", id="b", parent_id="t"), 2)
    assert text_in(ConversationDecoder().feed(ENCODING + first + called + child)) == "Let me see.\n\nIt is"


def test_an_answer_may_be_given_another_id_on_the_way() -> None:
    snapshots = [message("Hello", id="tmp"), message("Hello wor", id="real"), finished("Hello world.", id="real")]

    events, _ = decode(b"".join(event(envelope(snapshot)) for snapshot in snapshots) + DONE)

    assert text_in(events) == "Hello world."
    assert events[-1] == Finished("stop", "c-1", "real", None)


def test_an_announcement_before_the_thoughts_is_neither_answer_nor_end() -> None:
    announced = finished("I'll read it first.", id="p-1", is_thinking_preamble_message=True)
    thoughts = message(id="t-1", content={"content_type": "thoughts", "thoughts": [{"summary": "S", "content": "c"}]})
    begun = ENCODING + begin(announced, 1) + begin({**thoughts, "status": "finished_successfully"}, 2)

    events, failure = decode(begun + begin(finished("Yes."), 3) + COMPLETE + DONE)

    assert (reasoning_in(events), text_in(events), failure) == ("I'll read it first.\n\nS\nc", "Yes.", None)
    assert end_of(begun + DONE) is StreamInterruptedError
    unmarked = begun.replace(b', "is_thinking_preamble_message": true', b"")
    assert unmarked != begun
    assert end_of(unmarked + DONE) is StreamInterruptedError


# Continuing a cut answer


@pytest.mark.parametrize(
    "pieces", [["Nile, Amazon", ", Danube."], ["Ni", "le", ", Amazon, ", "Danube."], [", Danube."]]
)
def test_a_continued_answer_gives_only_what_is_new(pieces: list[str]) -> None:
    first, *others = pieces
    stream = ENCODING + begin(message()) + append(first) + b"".join(map(bare, others)) + last_patch() + DONE

    decoder = ConversationDecoder(continued_text="Nile, Amazon")
    events = decoder.feed(stream)

    assert text_in(events) == ", Danube."
    assert decoder.raw_text == "Nile, Amazon, Danube."


def test_a_short_rest_that_looks_like_the_beginning_is_not_lost() -> None:
    stream = ENCODING + begin(message()) + append("The") + last_patch() + DONE

    assert text_in(decode(stream, continued_text="The end of The")[0]) == "The"


def test_the_raw_text_is_what_a_continuation_begins_from() -> None:
    decoder = ConversationDecoder()
    decoder.feed(
        ENCODING + begin(message()) + append("See \ue200cite\ue202turn0search0\ue201") + last_patch(stop="max_tokens")
    )
    events = decoder.close()

    assert decoder.raw_text == "See \ue200cite\ue202turn0search0\ue201"
    assert events[-1] == Finished("length", "c-1", "m-3", None, continuable=True)


# How it ends


def end_of(stream: bytes) -> Event | type[UpstreamError]:
    events, failure = decode(stream)
    return type(failure) if failure else events[-1]


def test_R14_a_stream_that_ends_early_is_an_error() -> None:
    begun = ENCODING + begin(message()) + append("Once")

    assert end_of(begun) is StreamInterruptedError
    assert end_of(begun + DONE) is StreamInterruptedError
    assert end_of(ENCODING + begin(message())) is UpstreamProtocolError
    assert end_of(b"") is UpstreamProtocolError
    assert end_of(DONE) is UpstreamProtocolError


def test_R14_done_may_be_missing_or_doubled() -> None:
    whole = ENCODING + begin(message()) + append("Once") + last_patch()

    assert isinstance(end_of(whole), Finished)
    assert isinstance(end_of(whole + DONE + DONE), Finished)
    assert isinstance(end_of(whole + COMPLETE), Finished)


def test_R14_text_before_a_bad_end_is_still_given() -> None:
    events, failure = decode(ENCODING + begin(message()) + append("Once [") + DONE)

    assert text_in(events) == "Once ["
    assert isinstance(failure, StreamInterruptedError)


def test_a_tool_call_is_not_the_end_of_the_turn() -> None:
    first = begin(message("I'll look.", id="m-1", status="finished_successfully", end_turn=False))
    call = message(
        id="m-2", recipient="web", status="finished_successfully", end_turn=False, finish_details={"type": "stop"}
    )

    assert end_of(ENCODING + first + begin(call, 1) + DONE) is StreamInterruptedError


def test_what_follows_the_end_is_ignored() -> None:
    decoder = ConversationDecoder()
    events = decoder.feed(ENCODING + begin(finished("Done.")) + COMPLETE + begin(message("More", id="m-9"), 3) + DONE)

    assert decoder.is_ended
    assert isinstance(events[-1], Finished)
    assert decoder.feed(begin(message("More"))) == []
    assert decoder.close() == []


@pytest.mark.parametrize(
    ("payload", "message_text", "code"),
    [
        ({"message": None, "error": "Busy", "error_code": "busy"}, "Busy", "busy"),
        ({"message": None, "error": {"message": "Busy", "code": "x"}}, "Busy", "x"),
        (
            {"message": None, "error": None, "error_code": "busy"},
            "The backend reported an error without a text.",
            "busy",
        ),
        ({"detail": "Busy"}, "Busy", None),
        ({"detail": {"message": "Cap", "code": "model_cap_exceeded", "clears_in": 5}}, "Cap", "model_cap_exceeded"),
        ({"detail": [{"msg": "x", "input": "my prompt"}]}, "The backend refused the request.", None),
        ({"type": "error", "error": "Busy"}, "Busy", None),
        ({"v": {"message": None, "conversation_id": "c-1", "error": "Busy"}, "c": 1}, "Busy", None),
    ],
)
def test_an_error_in_the_stream_fails_the_turn(payload: Any, message_text: str, code: str | None) -> None:
    end = end_of(event(payload) + DONE)

    assert isinstance(end, Failed)
    assert (end.message, end.code) == (message_text, code)


def test_an_error_that_a_delta_puts_in_place_fails_the_turn() -> None:
    stream = ENCODING + begin(message()) + append("On") + delta({"p": "/error", "o": "replace", "v": "Busy"})

    assert isinstance(end_of(stream + DONE), Failed)


def test_R14_a_web_page_is_told_at_its_first_byte() -> None:
    for page in (b"<html>", b"\n <!doctype html>", b"\xef\xbb\xbf<html>"):
        with pytest.raises(UpstreamProtocolError):
            ConversationDecoder().feed(page)


def test_the_body_of_2024_hands_off_to_a_web_socket() -> None:
    body = json.dumps({"wss_url": "wss://x.example/", "conversation_id": "c-1"}).encode()

    assert parse_json_answer(body) == HandedOff("c-1", None, None, "wss://x.example/")
    assert end_of(body) == HandedOff("c-1", None, None, "wss://x.example/")


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b"null", b'{"ok": true}'])
def test_other_json_bodies_are_not_understood(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_json_answer(body)


def test_a_handoff_after_which_the_answer_comes_anyway_is_an_answer() -> None:
    stream = ENCODING + side("stream_handoff", options=[]) + begin(finished("Here")) + COMPLETE + DONE

    assert isinstance(end_of(stream), Finished)


def test_what_was_said_before_a_handoff_announces_the_answer() -> None:
    announced = begin(finished("I'll think about it.", id="p-1"), 1)
    thoughts = begin(message(id="t-1", content={"content_type": "thoughts", "thoughts": []}), 2)
    handoff = side("stream_handoff", options=[{"type": "resume_sse_endpoint", "topic_id": "t"}])

    assert end_of(ENCODING + announced + thoughts + handoff + DONE) == HandedOff("c-1", "t", None)
    assert end_of(ENCODING + announced + handoff + DONE) == HandedOff("c-1", "t", None)
    assert isinstance(end_of(ENCODING + announced + handoff + COMPLETE + DONE), Finished)
    assert isinstance(end_of(ENCODING + announced + handoff + begin(finished("Here")) + DONE), Finished)


def test_an_answer_that_goes_on_after_a_handoff_is_whole_at_its_end() -> None:
    handoff = side("stream_handoff", options=[{"type": "resume_sse_endpoint", "topic_id": "t"}])

    events, failure = decode(
        ENCODING + begin(message()) + append("Here") + handoff + bare(" it") + last_patch(" is.") + DONE
    )

    assert (text_in(events), failure) == ("Here it is.", None)
    assert isinstance(events[-1], Finished)


def test_a_late_word_on_an_announcement_makes_it_no_answer() -> None:
    announced = begin(message("I'll read it.", id="p-1"), 1)
    over = [{"p": "/message/status", "o": "replace", "v": "finished_successfully"},
            {"p": "/message/end_turn", "o": "replace", "v": True}]  # fmt: skip
    thoughts = begin(message(id="t-1", content={"content_type": "thoughts", "thoughts": [{"summary": "S"}]}), 2)
    stream = ENCODING + announced + bare(over) + thoughts
    late = delta({"c": 1, "p": "/message/metadata/can_save", "o": "add", "v": True})

    assert end_of(stream + late + DONE) is StreamInterruptedError
    assert isinstance(end_of(stream + late + begin(finished(""), 3) + DONE), Finished)


def test_R15_unknown_shapes_are_counted_by_name_without_content() -> None:
    decoder = ConversationDecoder()
    decoder.feed(
        ENCODING
        + side("new_thing", text="SECRET")
        + begin(message())
        + delta({"p": "/a/b/c", "o": "zap", "v": "SECRET"})
    )
    decoder.feed(event({"strange": "SECRET"}) + b"data: {SECRET\n\n" + event([1]) + event(5))

    assert sum(decoder.unknown.values()) >= 5
    assert "SECRET" not in str(decoder.unknown)


def test_R15_shapes_are_counted_under_a_bounded_number_of_printable_names() -> None:
    decoder = ConversationDecoder()
    for number in range(200):
        decoder.feed(side(f"new {number} \ud800 {'x' * 100}"))

    assert len(decoder.unknown) <= 65
    assert sum(decoder.unknown.values()) == 200
    assert all(name.isascii() and name.isprintable() for name in decoder.unknown)


def test_a_resumed_stream_may_begin_behind_its_document() -> None:
    events, failure = decode(append("Half an") + bare(" answer.") + COMPLETE + DONE)

    assert text_in(events) == "Half an answer."
    assert failure is None


def test_sources_of_a_tool_serve_the_answer() -> None:
    entry = {
        "url": "https://a.example/",
        "title": "A",
        "ref_id": {"turn_index": 0, "ref_type": "search", "ref_index": 0},
    }
    tool = message("", id="t-1", role="tool", name="web.run", status="finished_successfully")
    tool["metadata"] = {"search_result_groups": [{"entries": [entry]}]}
    answer = finished("Yes\ue200cite\ue202turn0search0\ue201.", id="a-1")

    assert text_in(decode(ENCODING + begin(tool) + begin(answer, 1) + DONE)[0]) == "Yes ([A](https://a.example/))."


# Hostile bytes

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["p", "o", "v", "c", "message", "id", "author", "role", "content", "content_type", "parts", "text", "status",
             "metadata", "error", "type", "end_turn", "recipient", "channel", "thoughts", "citations", "content_references",
             "search_result_groups", "entries", "finish_details", "asset_pointer", "items", "refs", "ref_id"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
PATHS = st.sampled_from(
    ["", "/", "/message", "/message/content", "/message/content/parts", "/message/content/parts/0", "/message/content/parts/-",
     "/message/content/parts/9", "/message/content/thoughts/0/content", "/message/metadata", "/message/status", "/message/id",
     "/message/metadata/content_references/0/items", "/message/author", "/error", "a", "/message/content/text", "/~1/~0"]
)  # fmt: skip
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "p": PATHS | JSON_VALUES,
        "o": st.sampled_from(["add", "append", "replace", "remove", "truncate", "patch", "zap"]) | JSON_VALUES,
        "v": JSON_VALUES | st.lists(st.fixed_dictionaries({"p": PATHS, "o": st.just("append"), "v": JSON_VALUES})),
        "c": st.integers(0, 2) | JSON_VALUES,
    },
)


@settings(max_examples=80)
@given(st.lists(DELTAS | JSON_VALUES, max_size=8), st.sampled_from(RECORDED))
def test_T3_any_json_raises_our_own_errors_only(payloads: list[Any], path: Path) -> None:
    data = path.read_bytes()
    middle = data.find(b"\n\n", len(data) // 2) + 2
    hostile = b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)

    events, _ = decode(data[:middle] + hostile + data[middle:])

    assert sum(isinstance(item, End) for item in events) <= 1


@settings(max_examples=100)
@given(st.sampled_from(RECORDED), st.randoms(use_true_random=False))
def test_T3_mutated_streams_raise_our_own_errors_only(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 20)):
        at = chance.randrange(len(data))
        data[at : at + chance.choice([0, 1, 1, 5])] = bytes(
            chance.choice(b'{}[]":,\n\r\x00\xff\\ud8 ') for _ in range(2)
        )

    decode(bytes(data))


@given(st.binary())
def test_T3_random_bytes_raise_our_own_errors_only(data: bytes) -> None:
    decode(b"data: " + data)
    decode(data)


@pytest.mark.parametrize("opening", ["[", '{"v":', '[{"p":"","o":"patch","v":', '{"v":[{"p":"","v":'])
def test_T3_deep_nesting_is_survived(opening: str) -> None:
    decode(ENCODING + begin(message()) + b"data: " + opening.encode() * 100_000 + b"\n\n" + DONE)


# Cost

LONG = 1024 * 1024


def seconds_for(stream: bytes) -> float:
    decoder = ConversationDecoder()
    begun = time.process_time()
    for at in range(0, len(stream), 65536):
        decoder.feed(stream[at : at + 65536])
    decoder.close()
    return time.process_time() - begun


WORD = "x" * (LONG // 20_000)
HEAD = ENCODING + begin(message()) + append("Hi")


@pytest.mark.parametrize(
    "stream",
    [
        HEAD + bare(WORD) * 20_000 + last_patch(),
        HEAD + bare([{"p": "/message/content/parts/0", "o": "append", "v": WORD}]) * 20_000 + last_patch(),
        HEAD + last_patch() + append(WORD) * 20_000 + DONE,
        HEAD
        + append("x" * 32_000)
        + delta({"p": "/message/content", "o": "replace", "v": {"parts": [""]}})
        + append("x")
        + bare("x") * 32_000
        + last_patch(),
        HEAD + bare("\ue200" + WORD) * 20_000 + last_patch(),
        HEAD + bare("\ue200cite\ue202turn9search9\ue201" + WORD[:20]) * 20_000 + last_patch(),
        HEAD + bare("[" + WORD) * 20_000 + last_patch(),
        HEAD + bare("【1†" + WORD) * 20_000 + last_patch(),
    ],
    ids=["bare", "patches", "after the end", "told again", "unclosed", "unresolved", "brackets", "old citations"],
)
def test_T3_a_long_answer_costs_no_more_than_its_length(stream: bytes) -> None:
    assert seconds_for(stream) < 5.0


def test_T3_long_thoughts_cost_no_more_than_their_length() -> None:
    content = {"content_type": "thoughts", "thoughts": [{"summary": "", "content": ""}]}
    growing = append(WORD, "/message/content/thoughts/0/content") + bare(WORD) * 20_000

    assert (
        seconds_for(ENCODING + begin(message(id="t-1", content=content)) + growing + begin(finished("Yes"), 1) + DONE)
        < 5.0
    )


def test_T3_a_classic_stream_of_thousands_of_snapshots_is_quick() -> None:
    snapshots = b"".join(event(envelope(message("word " * count))) for count in range(0, 5_000, 2))

    assert seconds_for(snapshots + event(envelope(finished("word " * 5_000))) + DONE) < 5.0


def test_neighbouring_deltas_of_one_read_come_as_one_event() -> None:
    events = ConversationDecoder().feed(HEAD + bare(" you") + bare(" there"))

    assert events[1:] == [TextDelta("Hi you there")]


def test_a_hand_off_says_how_many_events_came_before_it_and_with_it() -> None:
    token = side("resume_conversation_token", kind="topic", token="t")
    heard = b": ping\n\n" + ENCODING + token + side("ping") + side("presence")

    (handed,) = [event for event in decode(heard + side("stream_handoff") + DONE)[0] if isinstance(event, HandedOff)]

    assert handed.received == 4
    assert handed.resume_token == "t"


def test_T3_bare_deltas_read_by_the_run_are_read_as_one_by_one() -> None:
    pieces = [" word", 'a "quoted" \\ one', "zwölf 🌊\n", "", "\ue200cite\ue202turn0search0\ue201", "data: [DONE]\n\n"]
    stream = ENCODING + begin(message()) + append("Nile")
    for number in range(40):
        piece = json.dumps({"v": pieces[number % len(pieces)]}, ensure_ascii=number % 2 == 0)
        stream += (b"event: delta\n" if number % 3 else b"") + b"data: " + piece.encode() + b"\n\n"
    stream += side("stream_handoff")

    at_once = decode(stream)[0]

    assert decode(stream, *range(1, len(stream)))[0] == at_once
    assert isinstance(at_once[-1], HandedOff)
    assert at_once[-1].received == 44


def test_T3_a_run_of_bare_deltas_after_a_bad_end_in_the_same_read_is_ignored() -> None:
    stream = ENCODING + begin(message()) + append("I was say") + bare("ing") + DONE + bare(" more") * 3

    at_once = decode(stream)

    assert text_in(at_once[0]) == "I was saying"
    assert [(text_in(found), type(error)) for found, error in (decode(stream, at) for at in range(len(stream)))] == [
        ("I was saying", type(at_once[1]))
    ] * len(stream)


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_a_hand_off_counts_text_as_well_however_it_arrives(size: int) -> None:
    stream = ENCODING + begin(message()) + append("I") + bare(" am") + bare(" thinking") + side("stream_handoff") + DONE
    decoder = ConversationDecoder()
    events = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]
    assert isinstance(events[-1], HandedOff)
    assert events[-1].received == 6
