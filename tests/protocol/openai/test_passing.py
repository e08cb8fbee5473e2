"""Answers on their way through: the same bytes whatever way they are cut, their usage read, their errors masked."""

import json
import random

import pytest

from chat2api.protocol.openai.passing import (
    EVENT_LIMIT,
    TAIL,
    WHOLE_LIMIT,
    StreamPassage,
    WholePassage,
    first_event,
    last_usage,
    parse_usage,
)
from chat2api.protocol.openai.usage import Usage

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def chunk(text: str, **more: object) -> bytes:
    value = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def through(data: bytes, *, seed: int | None = None, asked: bool = False) -> tuple[bytes, StreamPassage]:
    passage = StreamPassage(asked_usage=asked, kind="chat")
    out, at, rng = b"", 0, random.Random(seed)
    while at < len(data):
        size = len(data) if seed is None else rng.randint(1, 40)
        out += passage.feed(data[at : at + size])
        at += size
    return out + passage.finish(), passage


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n'
FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n'
STREAMS = {
    "plain": chunk("a") + chunk("b") + b"data: [DONE]\n\n",
    "crlf": (chunk("a") + chunk("b")).replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n",
    "cr": (chunk("a") + chunk("b")).replace(b"\n", b"\r") + b"data: [DONE]\r\r",
    "mixed ends": b"data: {}\r\n\ndata: {}\n\r\ndata: [DONE]\n\n",
    "comments": b": hello\n\n" + chunk("a") + b':\n\n: usage "usage" "error"\n\ndata: [DONE]\n\n',
    "fields": b'id: 5\nevent: x\nretry: 10\nunknown: y\ndata:{"a": 1 }\ndata:  \n\ndata: [DONE]\n\n',
    "no blanks": b'data:{"choices":[]}\n\ndata:[DONE]\n\n',
    "words in text": chunk('say "usage":null and "error":{}') + chunk(',"usage": null') + b"data: [DONE]\n\n",
    "usage without asking": chunk("a", usage=None) + chunk("", usage=USAGE) + b"data: [DONE]\n\n",
    "no json": b'data: hello\n\ndata: "usage" {\n\ndata: [DONE]\n\n',
    "bad utf-8": b'data: {"a":"\xff\xfe", "usage": 1}\n\ndata: [DONE]\n\n',
    "bom": b"\xef\xbb\xbf" + chunk("a") + b"data: [DONE]\n\n",
    "no end": chunk("a") + b"data: [DONE]\n",
    "empty": b"",
    "null error": chunk("a", error=None) + b"data: [DONE]\n\n",
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_passes_as_it_is_however_it_is_cut(name: str) -> None:
    data = STREAMS[name]
    assert through(data)[0] == data
    for seed in range(20):
        assert through(data, seed=seed)[0] == data


def test_the_usage_is_read_and_left_where_the_caller_asked_for_it() -> None:
    data = (
        chunk("a", usage=None)
        + chunk("b", usage=None)
        + b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(USAGE).encode()
    )
    out, passage = through(data + b"data: [DONE]\n\n", seed=3)
    assert out == data + b"data: [DONE]\n\n"
    assert passage.usage == Usage(5, 7, 2)


def test_what_only_we_asked_for_is_taken_out() -> None:
    usage = b'data: {"choices":[],"usage":%b}\n\n' % json.dumps(USAGE).encode()
    asked = chunk("a", usage=None) + chunk('"usage":null', usage=None) + usage + b"data: [DONE]\n\n"
    plain = chunk("a") + chunk('"usage":null') + b"data: [DONE]\n\n"
    for seed in (None, *range(30)):
        out, passage = through(asked, seed=seed, asked=True)
        assert out == plain
        assert passage.usage == Usage(5, 7, 2)
    compact = b'data: {"usage":null,"choices":[1]}\n\ndata: {"choices":[1] , "usage" : null }\n\n'
    assert through(compact, asked=True)[0] == b'data: {"choices":[1]}\n\ndata: {"choices":[1]  }\n\n'


def test_a_usage_beside_content_is_left_there() -> None:
    data = chunk("a", usage=USAGE)
    out, passage = through(data, asked=True)
    assert (out, passage.usage) == (data, Usage(5, 7, 2))


def test_the_usage_of_a_response_is_read() -> None:
    told = {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}
    data = (
        b"event: response.completed\ndata: "
        + json.dumps({"type": "response.completed", "response": {"usage": told, "error": None}}).encode()
    )
    out, passage = through(data + b"\n\n", seed=1)
    assert (out, passage.usage) == (data + b"\n\n", Usage(3, 4, 1))


def test_an_error_in_a_stream_is_masked_and_keeps_its_name() -> None:
    for value, masked in (
        ({"error": {"message": "for org-AbCdEf123456", "n": 1}}, {"error": {"message": "for (masked)", "n": 1}}),
        (
            {"type": "error", "message": "for org-AbCdEf123456", "error": None},
            {"type": "error", "message": "for (masked)", "error": None},
        ),
        ({"response": {"error": {"message": "proj_AbCdEf123456"}}}, {"response": {"error": {"message": "(masked)"}}}),
    ):
        out, _ = through(b"event: error\ndata: " + json.dumps(value).encode() + b"\n\n", seed=5)
        assert out.startswith(b"event: error\ndata: ")
        assert out.endswith(b"\n\n")
        assert json.loads(out.partition(b"data: ")[2]) == masked


def test_an_error_without_anything_to_mask_keeps_its_bytes() -> None:
    data = b'data: { "error" : {"message":"\\u00e9" , "code": 1.0} }\n\n'
    assert through(data)[0] == data


def test_R12_a_long_event_passes_in_pieces_and_its_usage_is_read() -> None:
    event = (
        b'data: {"b64_json":"'
        + b"A" * (3 * EVENT_LIMIT)
        + b'","usage":'
        + json.dumps({"input_tokens": 1, "output_tokens": 2}).encode()
        + b"}\n\n"
    )
    passage = StreamPassage(asked_usage=False, kind="other")
    out, longest = b"", 0
    for at in range(0, len(event), 4096):
        out += passage.feed(event[at : at + 4096])
        longest = max(longest, at + 4096 - len(out))
    assert longest <= EVENT_LIMIT + 4096
    assert out == event
    assert passage.usage == Usage(1, 2)
    assert passage.feed(chunk("a")) == chunk("a")


def test_a_comment_may_stand_between_events_alone() -> None:
    passage = StreamPassage(asked_usage=False, kind="chat")
    pieces = (b"", chunk("a") + b"data: {", b"}\n\n", b"data: " + b"a" * (EVENT_LIMIT + 1))
    between = []
    for piece in pieces:
        passage.feed(piece)
        between.append(passage.between_events)
    assert between == [True, False, True, False]


@pytest.mark.parametrize(
    ("kind", "data", "whole"),
    [
        ("chat", chunk("a"), False),
        ("chat", chunk("a") + b"data: [DONE]\n\n", True),
        ("chat", chunk("a").replace(b'"finish_reason": null', b'"finish_reason": "stop"'), True),
        ("responses", b'data: {"type":"response.output_text.delta"}\n\n', False),
        ("responses", b'data: {"type":"response.completed"}\n\n', True),
        ("responses", b'data: {"type": "response.incomplete", "usage": {}}\n\n', True),
        ("other", b"data: {}\n\n", True),
    ],
)
def test_R14_an_answer_that_ends_early_is_known(kind: str, data: bytes, whole: bool) -> None:
    passage = StreamPassage(asked_usage=False, kind=kind)  # type: ignore[arg-type]  # from the list
    passage.feed(data)
    passage.finish()
    assert passage.whole is whole


def test_an_error_event_can_follow_wherever_an_answer_broke_off() -> None:
    passage = StreamPassage(asked_usage=False, kind="chat")
    assert passage.feed(chunk("a") + b"data: {half") == chunk("a")
    assert (passage.cut(), passage.finish()) == (b"", b"")
    passage.feed(b"data: " + b"a" * (EVENT_LIMIT + 1))
    assert passage.cut() == b"\n\n"


def test_events_are_counted() -> None:
    assert through(STREAMS["plain"])[1].events == 3
    assert through(STREAMS["crlf"])[1].events == 3
    assert through(STREAMS["plain"], seed=2)[1].events == 3


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "none"),
        (b": wait\n\n", "none"),
        (b"data: {", "none"),
        (b"event: x\n\n", "none"),
        (b"dat", "none"),
        (b"\xef\xbb\xbfdata: {}\n\n", "content"),
        (b": wait\n\ndata: {}\n\n", "content"),
        (b"data: [DONE]\n\n", "content"),
        (b'data: {"error": null, "choices": []}\n\n', "content"),
        (b'data: {"a":"\\ud800"}\n\n', "content"),
        (b'data: {"error": {"message": "no"}}\n\n', "error"),
        (b'event: error\ndata: {"type":"error"}\n\n', "error"),
        (b"data: <html>\n\n", "unreadable"),
        (b"<!DOCTYPE html>", "unreadable"),
        (b"unknown: x\n", "none"),
        (b'{"error": {"message": "no"}}', "unreadable"),
        (CREATED, "none"),
        (CREATED + CREATED.replace(b"created", b"in_progress"), "none"),
        (CREATED + b'data: {"type":"response.output_item.added"}\n\n', "content"),
        (CREATED.replace(b"{}", b'{"background":true}'), "content"),
        (CREATED.replace(b'"response":{}', b'"response":null'), "content"),
        (CREATED + FAILED, "error"),
        (FAILED, "error"),
        (CREATED + FAILED.replace(b"server_error", b"invalid_prompt"), "content"),
        (CREATED + FAILED.replace(b'{"code":"server_error"}', b"null"), "content"),
        (CREATED + b'data: {"type":"error","message":"no"}\n\n', "error"),
    ],
)
def test_R2_what_a_stream_begins_with_is_known_by_its_first_event(data: bytes, kind: str) -> None:
    assert first_event(data).kind == kind


def test_R2_a_failure_right_behind_its_announcement_is_told_as_an_error() -> None:
    assert json.loads(first_event(CREATED + FAILED).error) == {"error": {"code": "server_error"}}


def test_the_usage_of_a_whole_answer_is_read_wherever_it_stands() -> None:
    for value in ({"usage": USAGE, "data": []}, {"data": [1.5], "usage": USAGE}):
        passage = WholePassage()
        passage.feed(json.dumps(value).encode())
        assert passage.usage() == Usage(5, 7, 2)
    passage = WholePassage()
    for piece in (b'{"choices":[{"message":{"content":"one two three"}}]', b"}"):
        passage.feed(piece)
    assert passage.usage() is None
    assert passage.estimate() == 3


def test_R12_of_a_long_answer_only_the_end_is_kept() -> None:
    passage = WholePassage()
    passage.feed(b'{"data":"')
    for _ in range(100):
        passage.feed(b"A" * 32 * 1024)
    passage.feed(b'","usage":{"prompt_tokens":8,"total_tokens":8}}')
    assert passage.usage() == Usage(8, 0)
    assert passage.estimate() == 0
    assert passage._size <= WHOLE_LIMIT + TAIL


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\x00", b'{"usage":null}', b'{"usage":{"seconds":5}}', b'"usage": {', b'{"usage":{"prompt_tokens":-1}}'],
)
def test_an_answer_without_a_usage_has_none(data: bytes) -> None:
    passage = WholePassage()
    passage.feed(data)
    assert passage.usage() is None
    assert last_usage(data) is None


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2)),
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        ({"prompt_tokens": 1, "total_tokens": 1}, Usage(1, 0)),
        ({"total_tokens": 9}, Usage(9, 0)),
        ({"prompt_tokens": True, "completion_tokens": "2"}, None),
        ({"prompt_tokens": 10**30}, None),
        ({"type": "duration", "seconds": 5}, None),
    ],
)
def test_usages_of_all_names_are_read(told: dict[str, object], usage: Usage | None) -> None:
    assert parse_usage(told) == usage


@pytest.mark.parametrize(
    "kind", ["response.completed", "response.incomplete", "response.failed", "response.output_text.done"]
)
@pytest.mark.parametrize("size", [10, TAIL, 2 * TAIL, EVENT_LIMIT + 5, 3 * EVENT_LIMIT])
@pytest.mark.parametrize("step", [1000, 16_384, 10**7])
def test_an_end_that_repeats_a_long_answer_is_an_end(kind: str, size: int, step: int) -> None:
    last = {"type": kind, "response": {"output": [{"id": "msg_1", "text": "x" * size}], "usage": {"input_tokens": 5}}}
    data = b'data: {"type":"response.created"}\n\ndata: ' + json.dumps(last).encode() + b"\n\n"
    passage = StreamPassage(asked_usage=False, kind="responses")
    out = b"".join(passage.feed(data[at : at + step]) for at in range(0, len(data), step)) + passage.finish()
    assert out == data
    assert passage.whole == (kind != "response.output_text.done")
    assert passage.usage == Usage(5, 0)


@pytest.mark.parametrize("making", [b"output_item.", None])
def test_ids_of_what_was_made_are_read_and_nothing_is_altered(making: bytes | None) -> None:
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "output": [], "error": None}},
        {"type": "response.output_item.added", "item": {"id": "rs_1", "type": "reasoning"}},
        {"type": "response.output_text.delta", "delta": "output_item. is a word", "item_id": "msg_1"},
        {"type": "response.output_item.done", "item": {"id": "ci_1", "container_id": "cntr_1"}},
        {"type": "response.completed", "response": {"output": [{"id": "msg_1"}], "usage": {"input_tokens": 5}}},
    ]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    for step in (7, 100, len(data)):
        passage = StreamPassage(asked_usage=False, kind="responses", making=making)
        out = b"".join(passage.feed(data[at : at + step]) for at in range(0, len(data), step)) + passage.finish()
        assert out == data
        assert passage.made == ({"rs_1", "ci_1", "cntr_1", "msg_1"} if making else set())
