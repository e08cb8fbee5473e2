"""What of a body that is passed on concerns us."""

import json

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.forwarded import (
    MAX_PROMPTS,
    MAX_TEXT,
    ForwardedBody,
    expected_picture_tokens,
    prepare_body,
    read_count,
)


def prepare(value: object, *, model: str | None = None, is_chat: bool = True) -> ForwardedBody:
    return prepare_body(json.dumps(value).encode(), value, model=model, is_chat=is_chat)


@pytest.mark.parametrize("stream", [None, False])
def test_a_body_that_needs_no_change_keeps_its_bytes(stream: bool | None) -> None:
    data = b'{ "model":"gpt-4o",  "n" : 2, "x": 1e-7, "stream": %b}' % json.dumps(stream).encode()
    prepared = prepare_body(data, json.loads(data), is_chat=True)
    assert prepared.data is data
    assert (prepared.stream, prepared.asked_usage, prepared.choices) == (False, False, 2)


@pytest.mark.parametrize(
    ("options", "asked", "sent"),
    [
        (None, True, {"include_usage": True}),
        ({}, True, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, True, {"include_usage": True, "x": 1}),
        ({"include_usage": True, "x": 1}, False, {"include_usage": True, "x": 1}),
        ("wrong", False, "wrong"),
    ],
)
def test_a_streams_usage_is_asked_for_unless_the_caller_asks(options: object, asked: bool, sent: object) -> None:
    prepared = prepare({"stream": True, "stream_options": options, "model": "m"})
    assert prepared.asked_usage is asked
    assert json.loads(prepared.data) == {"stream": True, "stream_options": sent, "model": "m"}


def test_only_a_chat_has_such_options() -> None:
    prepared = prepare({"stream": True}, is_chat=False)
    assert (prepared.data, prepared.stream, prepared.asked_usage) == (b'{"stream": true}', True, False)


def test_a_model_is_renamed_in_its_place() -> None:
    assert prepare({"a": 1, "model": "openai/x", "b": 2}, model="x").data == b'{"a": 1, "model": "x", "b": 2}'


@pytest.mark.parametrize("stream", ["true", 1, 0, "", [], {}])
def test_a_stream_that_is_no_boolean_is_refused(stream: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        prepare({"stream": stream})
    assert caught.value.param == "stream"


@pytest.mark.parametrize("value", [[], None, "text", 5])
def test_a_body_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError):
        prepare(value)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 5}, 7),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "many"}, None),
    ],
)
def test_the_limit_that_the_caller_sets_is_known(fields: dict[str, object], limit: int | None) -> None:
    assert prepare(fields).max_tokens == limit


def test_odd_values_are_the_apis_to_refuse() -> None:
    prepared = prepare({"n": "two", "user": 5, "messages": "text", "input": {"a": [None, 5]}})
    assert (prepared.choices, prepared.user, prepared.text) == (1, None, "text")
    assert prepare({"n": 10**9}).choices == 128
    assert prepare({"user": "somebody"}).user == "somebody"


def test_the_text_of_a_prompt_is_what_is_said_in_it() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    messages = [{"role": "system", "content": "zero"}, {"role": "user", "content": parts}]
    assert prepare({"messages": messages, "instructions": "two"}).text == "zero\none\ntwo"
    assert prepare({"input": ["a", "b"], "prompt": "c"}).text == "a\nb\nc"
    assert len(prepare({"input": "x" * (MAX_TEXT + 5)}).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("fields", "text", "tokens"),
    [
        ({"input": [1, 2, 3]}, "", 3),
        ({"input": [[1, 2], [3]]}, "", 3),
        ({"prompt": [5] * 70}, "", 70),
        ({"input": ["a", "b"]}, "a\nb", 0),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "", 765),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]}]}, "", 85),
        ({"messages": [{"content": [{"type": "image_url", "image_url": "u"}]}]}, "", 765),
        ({"input": [{"content": [{"type": "input_image", "file_id": "f", "detail": "low"}]}]}, "", 85),
        ({"input": [{"content": [{"type": "input_image", "file_id": "f", "detail": ["odd"]}]}]}, "", 765),
        ({"tools": [{"name": "f"}], "messages": [{"content": "a"}]}, 'a\n[{"name":"f"}]', 0),
        ({"response_format": {"x": "\ud800"}}, '{"x": "\\ud800"}', 0),
        ({"text": {"format": "y"}, "input": "a"}, 'a\n{"format":"y"}', 0),
        ({"tools": None, "text": {}}, "", 0),
    ],
)
def test_R8_what_a_prompt_costs_is_its_texts_and_more(fields: dict[str, object], text: str, tokens: int) -> None:
    value = {"model": "m"} | fields
    prepared = prepare_body(json.dumps(value).encode(), value)
    assert (prepared.text, prepared.tokens) == (text, tokens)


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "a", "n": 3}, 3),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": ["a", "b"], "n": 3, "best_of": 5}, 10),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": []}, 1),
        ({"prompt": {"id": "pmpt_1"}}, 1),
        ({"prompt": ["a"] * 5000}, MAX_PROMPTS),
    ],
)
def test_R8_every_answer_that_is_asked_for_counts(fields: dict[str, object], choices: int) -> None:
    assert prepare(fields).choices == choices


@pytest.mark.parametrize(
    ("value", "count"),
    [("3", 3), (3, 3), ("", 1), ("x", 1), ("\u0663", 1), (True, 1), (-5, 1), ("9" * 5000, 128), (None, 1)],
)
def test_a_count_is_read_from_json_and_forms(value: object, count: int) -> None:
    assert read_count(value) == count


@pytest.mark.parametrize(
    ("model", "quality", "size", "tokens"),
    [
        ("dall-e-2", "hd", "1024x1024", 1),
        ("gpt-image-1", None, None, 1056),
        ("openai/gpt-image-1-mini", "auto", "auto", 1056),
        ("chatgpt-image-latest", "low", "1024x1536", 408),
        ("gpt-image-1", "high", "1024x1024", 4160),
        ("gpt-image-1", ["odd"], 5, 1056),
    ],
)
def test_pictures_cost_tokens_by_quality_and_size(model: str, quality: object, size: object, tokens: int) -> None:
    assert expected_picture_tokens(model, quality, size) == tokens
