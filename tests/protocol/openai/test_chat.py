"""Chat completions: the request's parameters, the chunks, the whole reply."""

import itertools
import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from chat2api.errors import InvalidRequestError, StreamInterruptedError
from chat2api.protocol.events import (
    Event,
    Failed,
    FileLink,
    FilePointer,
    Finished,
    HandedOff,
    ImagePending,
    ReasoningDelta,
    Started,
    TextDelta,
)
from chat2api.protocol.openai.chat import (
    DEFAULT_MODEL,
    ChatEncoder,
    ChatFolder,
    ChatRequest,
    completion_id,
    parse_chat_request,
    render_link,
)
from chat2api.protocol.openai.usage import Usage

MESSAGES = [{"role": "user", "content": "Hi"}]
USAGE = Usage(9, 3, 1)


def _parse(**fields: object) -> ChatRequest:
    return parse_chat_request({"messages": MESSAGES, **fields})


# ---- the request ----


def test_a_body_of_messages_alone_gets_the_defaults() -> None:
    request = _parse()
    assert request.model == DEFAULT_MODEL
    assert (request.stream, request.include_usage, request.n) == (False, False, 1)
    assert request.max_tokens is None
    assert request.stop == request.ignored == ()
    assert request.thinking_effort is None
    assert request.history_disabled is None


def test_nulls_mean_not_set() -> None:
    names = (
        "model stream stream_options max_tokens max_completion_tokens stop n reasoning_effort user conversation_id "
        "parent_message_id history_disabled chatgpt-account-id"
    )
    assert _parse(**dict.fromkeys(names.split())) == _parse()


def test_unknown_fields_are_accepted() -> None:
    assert _parse(top_k=40, extra_body={"a": [1]}, thinking="on") == _parse()


def test_parameters_are_read() -> None:
    request = _parse(
        model=" gpt-4o ",
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        max_tokens=7,
        stop=["a", "b"],
        n=3,
        user="ann",
        conversation_id="c-1",
        parent_message_id="m-1",
        history_disabled=False,
        temperature=0.2,
    )
    assert request.model == "gpt-4o"
    assert (request.stream, request.include_usage, request.max_tokens, request.n) == (True, True, 7, 3)
    assert request.stop == ("a", "b")
    assert (request.user, request.conversation_id, request.parent_message_id) == ("ann", "c-1", "m-1")
    assert request.history_disabled is False
    assert request.ignored == ("temperature",)


def test_the_newer_token_limit_goes_before_the_older() -> None:
    assert _parse(max_tokens=5, max_completion_tokens=9).max_tokens == 9


@pytest.mark.parametrize("key", ["ChatGPT-Account-ID", "Chatgpt-Account-Id", "chatgpt-account-id"])
def test_workspace_key_is_read_in_every_spelling(key: str) -> None:
    assert (
        _parse(**{key: "11111111-2222-4333-8444-555555555555"}).workspace_id == "11111111-2222-4333-8444-555555555555"
    )


@pytest.mark.parametrize(
    "given_effort, effort",
    [
        ("none", "standard"), ("minimal", "standard"), ("low", "standard"), ("medium", "extended"),
        ("high", "max"), ("xhigh", "max"), ("max", "max"),
    ],
)  # fmt: skip
def test_reasoning_effort_becomes_one_of_three(given_effort: str, effort: str) -> None:
    assert _parse(reasoning_effort=given_effort).thinking_effort == effort


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False, "stream_options": {"include_usage": True}},
        {"max_tokens": 0},
        {"max_tokens": -1, "max_completion_tokens": 0},
        {"stop": ""},
        {"stop": []},
        {"stop": ["", ""]},
        {"reasoning_effort": ""},
        {"reasoning": {"effort": "unheard of"}},
        {"user": {"id": "u-1", "name": "Ann"}},
    ],
    ids=str,
)
def test_what_clients_send_to_ask_for_nothing_asks_for_nothing(fields: dict[str, object]) -> None:
    assert _parse(**fields) == _parse()


def test_a_limit_of_0_leaves_the_older_one_in_force() -> None:
    assert _parse(max_tokens=7, max_completion_tokens=0).max_tokens == 7


def test_reasoning_effort_is_read_in_the_form_of_the_responses_api() -> None:
    assert _parse(reasoning={"effort": "high"}).thinking_effort == "max"
    assert _parse(reasoning={"effort": "high"}, reasoning_effort="low").thinking_effort == "standard"


WRONG: list[tuple[dict[str, object], str, str]] = [
    ({"stream": "true"}, "stream", "invalid_type"),
    ({"stream": 1}, "stream", "invalid_type"),
    ({"stream": True, "stream_options": []}, "stream_options", "invalid_type"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
    ({"model": 4}, "model", "invalid_type"),
    ({"model": ""}, "model", "invalid_value"),
    ({"model": "  "}, "model", "invalid_value"),
    ({"model": "gpt-4o\r\nx-evil: 1"}, "model", "invalid_value"),
    ({"model": "模型"}, "model", "invalid_value"),
    ({"model": "x" * 257}, "model", "invalid_value"),
    ({"max_tokens": -2}, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    ({"max_completion_tokens": "5"}, "max_completion_tokens", "invalid_type"),
    ({"n": 0}, "n", "integer_below_min_value"),
    ({"n": 9}, "n", "integer_above_max_value"),
    ({"n": True}, "n", "invalid_type"),
    ({"stop": 5}, "stop", "invalid_type"),
    ({"stop": ["a", None]}, "stop[1]", "invalid_type"),
    ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
    ({"stop": list("abcde")}, "stop", "array_above_max_length"),
    ({"stop": "x" * 1025}, "stop", "string_above_max_length"),
    ({"reasoning_effort": 0}, "reasoning_effort", "invalid_type"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
    ({"user": 5}, "user", "invalid_type"),
    ({"conversation_id": "../x"}, "conversation_id", "invalid_value"),
    ({"conversation_id": 5}, "conversation_id", "invalid_type"),
    ({"parent_message_id": "a b"}, "parent_message_id", "invalid_value"),
    ({"history_disabled": "no"}, "history_disabled", "invalid_type"),
    ({"ChatGPT-Account-ID": "x\r\ny"}, "ChatGPT-Account-ID", "invalid_value"),
    ({"messages": []}, "messages", "empty_array"),
    ({"temperature": 9}, "temperature", "decimal_above_max_value"),
]


@pytest.mark.parametrize("fields, param, code", WRONG)
def test_a_complaint_names_the_parameter(fields: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _parse(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("body", [None, [], "x", 5, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(InvalidRequestError):
        parse_chat_request(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "messages",
        "model",
        "stream",
        "stream_options",
        "stop",
        "n",
        "max_tokens",
        "tools",
        "tool_choice",
        "response_format",
        "metadata",
        "logit_bias",
        "modalities",
        "seed",
        "user",
        "reasoning_effort",
        "conversation_id",
        "chatgpt-account-id",
        "functions",
        "function_call",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(FIELDS, JSON, max_size=5), st.booleans())
def test_T3_any_json_is_parsed_or_refused(body: dict[str, object], with_messages: bool) -> None:
    try:
        parse_chat_request({"messages": MESSAGES, **body} if with_messages else body)
    except InvalidRequestError as refused:
        assert refused.param


# ---- the answer ----


def _name(slug: str | None) -> str:
    return f"public-{slug or 'asked'}"


def _encoder(choices: int = 1, *, include_usage: bool = False, tell: bool = False) -> ChatEncoder:
    return ChatEncoder(
        "chatcmpl-1", 1_700_000_000, _name, choices=choices, include_usage=include_usage, tell_conversation=tell
    )


def _chunks(data: bytes) -> list[dict[str, object]]:
    """Read an event stream as a client does; `[DONE]` is left out."""
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    chunks = [json.loads(block.removeprefix("data: ")) for block in blocks if block != "data: [DONE]"]
    for chunk in chunks:
        if "error" not in chunk:
            ChatCompletionChunk.model_validate(chunk, strict=True)
    return chunks


def _choices(data: bytes) -> list[dict[str, object]]:
    choices = []
    for chunk in _chunks(data):
        listed = chunk["choices"]
        assert isinstance(listed, list)
        choices += listed
    return choices


def _joined(choices: Sequence[dict[str, object]], key: str, index: int = 0) -> str:
    deltas = [choice["delta"] for choice in choices if choice["index"] == index]
    return "".join(delta.get(key) or "" for delta in deltas if isinstance(delta, dict))


TURN: list[Event] = [
    Started("c-1", "m-1", "gpt-4o"),
    ReasoningDelta("Hm. "),
    ReasoningDelta("Yes."),
    TextDelta("Nile"),
    TextDelta(", Amazon"),
    FileLink("https://files.example/a b.png", "image", "A [nice] boat"),
    TextDelta('"quoted" \u2028 漢\n'),
    Finished("stop", "c-1", "m-2", "gpt-4o-mini"),
]
TEXT = 'Nile, Amazon\n![A (nice) boat](https://files.example/a%20b.png)\n"quoted" \u2028 漢\n'


def test_stream_of_a_turn() -> None:
    encoder = _encoder()
    choices = _choices(encoder.encode(TURN))
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert choices[1]["delta"] == {"reasoning_content": "Hm. Yes."}
    assert choices[2]["delta"] == {"content": TEXT}
    assert choices[3] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert len(choices) == 4
    assert encoder.finish() == b"data: [DONE]\n\n"


EVENTS = st.lists(
    st.text(max_size=8).map(TextDelta)
    | st.text(max_size=8).map(ReasoningDelta)
    | st.sampled_from([FileLink(None, "image", "x"), FileLink("https://x.example/f", "file", "f.csv")]),
    max_size=12,
)


@settings(deadline=None)
@given(EVENTS, st.lists(st.integers(0, 13), max_size=6))
def test_any_batching_gives_the_same_content(middle: list[Event], cuts: list[int]) -> None:
    events = [TURN[0], *middle, TURN[-1]]
    places = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    encoder, folder = _encoder(), ChatFolder("chatcmpl-1", 1, _name)
    data = b""
    for start, end in itertools.pairwise(places):
        data += encoder.encode(events[start:end])
        folder.add(events[start:end])
    choices, whole = _choices(data), _choices(_encoder().encode(events))
    message = _message(folder.reply(USAGE))
    for key in ("content", "reasoning_content"):
        assert _joined(choices, key) == _joined(whole, key) == (message.get(key) or "")
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert choices[-1]["finish_reason"] == "stop"
    assert [place for place, choice in enumerate(choices) if "role" in dict(choice["delta"])] == [0]  # type: ignore[call-overload]  # an object


def _message(reply: dict[str, object], index: int = 0) -> dict[str, object]:
    ChatCompletion.model_validate(reply, strict=True)
    choices = reply["choices"]
    assert isinstance(choices, list)
    message = choices[index]["message"]
    assert isinstance(message, dict)
    return message


def test_whole_reply_holds_what_the_stream_says() -> None:
    folder = ChatFolder("chatcmpl-1", 1_700_000_000, _name, tell_conversation=True)
    folder.add(TURN)
    reply = folder.reply(USAGE)
    assert _message(reply) == {
        "role": "assistant",
        "content": TEXT,
        "refusal": None,
        "reasoning_content": "Hm. Yes.",
    }
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "public-gpt-4o-mini"
    assert (reply["conversation_id"], reply["message_id"]) == ("c-1", "m-2")
    assert reply["usage"] == USAGE.to_object()


def test_reply_without_reasoning_has_no_field_for_it() -> None:
    folder = ChatFolder("chatcmpl-1", 1, _name)
    folder.add([TURN[0], TextDelta("x"), TURN[-1]])
    reply = folder.reply(USAGE)
    assert "reasoning_content" not in _message(reply)
    assert "conversation_id" not in reply


def test_model_of_the_chunks_is_the_one_that_serves() -> None:
    models = [chunk["model"] for chunk in _chunks(_encoder().encode(TURN))]
    assert models[0] == "public-gpt-4o"
    assert models[-1] == "public-gpt-4o-mini"
    assert _chunks(_encoder().start())[0]["model"] == "public-asked"


def test_fingerprint_tells_models_apart() -> None:
    def fingerprint(slug: str | None) -> object:
        return _chunks(_encoder().encode([Started(None, None, slug), TextDelta("x")]))[0]["system_fingerprint"]

    assert fingerprint(None) is None
    assert re.fullmatch("fp_[0-9a-f]{10}", str(fingerprint("gpt-4o")))
    assert fingerprint("gpt-4o") == fingerprint("gpt-4o") != fingerprint("gpt-5")


def test_ids_of_the_conversation_are_told_only_where_it_is_kept() -> None:
    assert all("conversation_id" not in chunk for chunk in _chunks(_encoder().encode(TURN)))
    chunks = _chunks(_encoder(tell=True).encode(TURN))
    assert {chunk["conversation_id"] for chunk in chunks} == {"c-1"}
    assert chunks[0]["message_id"] == "m-1"
    assert chunks[-1]["message_id"] == "m-2"


def test_role_comes_with_the_first_content_or_when_asked_for() -> None:
    encoder = _encoder()
    assert encoder.encode([TURN[0]]) == b""
    assert b'"role":"assistant"' in encoder.start()
    assert encoder.start() == b""
    assert b"role" not in encoder.encode([TextDelta("x")])


def test_usage_goes_out_only_where_asked_for() -> None:
    plain, asked = _encoder(), _encoder(include_usage=True)
    assert all("usage" not in chunk for chunk in _chunks(plain.encode(TURN)))
    assert plain.finish(USAGE) == b"data: [DONE]\n\n"
    assert all(chunk["usage"] is None for chunk in _chunks(asked.encode(TURN)))
    data = asked.finish(USAGE)
    assert data.endswith(b"data: [DONE]\n\n")
    (last,) = _chunks(data)
    assert last["choices"] == []
    assert last["usage"] == USAGE.to_object()


def test_choices_keep_apart() -> None:
    encoder, folder = _encoder(2, tell=True), ChatFolder("chatcmpl-1", 1, _name, choices=2)
    other: list[Event] = [Started("c-2", "m-7", "gpt-4o"), TextDelta("Other"), Finished("length", "c-2", "m-8", None)]
    data = b""
    for batch, index in ((TURN[:4], 0), (other[:2], 1), (TURN[4:], 0), (other[2:], 1)):
        data += encoder.encode(batch, index)
        folder.add(batch, index)
    choices = _choices(data)
    assert _joined(choices, "content", 0) == TEXT
    assert _joined(choices, "content", 1) == "Other"
    assert [choice["finish_reason"] for choice in choices if choice["index"] == 1][-1] == "length"
    for chunk in _chunks(data):
        listed = chunk["choices"]
        assert isinstance(listed, list)
        assert chunk["conversation_id"] == f"c-{listed[0]['index'] + 1}"
    assert encoder.finish() == b"data: [DONE]\n\n"
    reply = folder.reply(USAGE)
    assert _message(reply, 0)["content"] == TEXT
    assert _message(reply, 1)["content"] == "Other"


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_each_finish_reason_is_passed_on(reason: str) -> None:
    end = Finished(reason, None, None, None)  # type: ignore[arg-type]  # one of FinishReason
    assert _choices(_encoder().encode([end]))[-1]["finish_reason"] == reason


def test_T1_an_error_in_the_stream_is_one_event_and_no_done() -> None:
    encoder = _encoder()
    encoder.encode(TURN[:4])
    data = encoder.fail(StreamInterruptedError("The answer broke off."))
    assert b"[DONE]" not in data
    assert _chunks(data) == [
        {
            "error": {
                "message": "The answer broke off.",
                "type": "server_error",
                "param": None,
                "code": "stream_interrupted",
            }
        }
    ]


def test_T1_an_unknown_error_in_the_stream_tells_nothing() -> None:
    assert b"secret" not in _encoder().fail(RuntimeError("secret"))


def test_no_good_end_before_every_choice_has_ended() -> None:
    encoder, folder = _encoder(2), ChatFolder("chatcmpl-1", 1, _name)
    encoder.encode(TURN)
    with pytest.raises(ValueError, match="1 of 2"):
        encoder.finish()
    with pytest.raises(ValueError, match="no end"):
        folder.reply(USAGE)


def test_nothing_may_follow_the_end() -> None:
    encoder = _encoder()
    encoder.encode(TURN)
    with pytest.raises(ValueError, match="after the end"):
        encoder.encode([TextDelta("more")])


@pytest.mark.parametrize(
    "event",
    [
        FilePointer("sandbox:/mnt/data/x", "file", "x", None, None),
        Failed("no", None, None),
        HandedOff(None, None, None),
        ImagePending(None, None),
    ],
)
def test_events_that_ask_for_something_must_not_come_here(event: Event) -> None:
    with pytest.raises(ValueError, match=type(event).__name__):
        _encoder().encode([event])


@pytest.mark.parametrize("text", ["\ud83c", "a\udfffb", "\ud83c\udf89"])
def test_text_that_utf_8_cannot_write_is_mended(text: str) -> None:
    assert _joined(_choices(_encoder().encode([TextDelta(text)])), "content").isprintable()
    folder = ChatFolder("chatcmpl-1", 1, _name)
    folder.add([TextDelta(text), TURN[-1]])
    json.dumps(folder.reply(USAGE), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "link, text",
    [
        (FileLink("https://x.example/i", "image", ""), "\n![image](https://x.example/i)\n"),
        (FileLink("https://x.example/(1)<2>", "image", "a\nb"), "\n![a b](https://x.example/%281%29%3C2%3E)\n"),
        (FileLink("https://x.example/f.csv", "file", "f.csv"), "[f.csv](https://x.example/f.csv)"),
        (FileLink("https://x.example/f", "file", ""), "[file](https://x.example/f)"),
        (FileLink(None, "image", "boat"), "\nFailed to load the image.\n"),
        (FileLink(None, "file", "f.csv"), "f.csv (failed to load)"),
    ],
)
def test_files_are_markdown(link: FileLink, text: str) -> None:
    assert render_link(link) == text


def test_ids_are_of_the_official_form() -> None:
    assert re.fullmatch("chatcmpl-[A-Za-z0-9]{29}", completion_id(bytes(range(200, 229))))
    assert completion_id(bytes(29)) != completion_id(bytes([1] * 29))
    with pytest.raises(ValueError, match="29"):
        completion_id(bytes(28))
