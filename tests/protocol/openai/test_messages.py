"""Messages: what is accepted, and which field a complaint names."""

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.messages import MAX_MESSAGES, parse_messages
from chat2api.protocol.prompt import Message, TextPart, ToolCall

USER = {"role": "user", "content": "Hi"}


def _parse_one(message: object) -> Message:
    return parse_messages({"messages": [message, USER]})[0]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_roles_are_kept(role: str) -> None:
    assert _parse_one({"role": role, "content": "x"}) == Message(role, (TextPart("x"),))  # type: ignore[arg-type]  # one of Role


def test_parts_are_kept_apart() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "extra": 1}]
    message = _parse_one({"role": "user", "content": content, "name": "Ann"})
    assert message == Message("user", (TextPart("a"), TextPart("b")), "Ann")
    assert message.text == "a\nb"


def test_refusals_of_the_assistant_are_text() -> None:
    assert _parse_one({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}).text == "No."
    assert _parse_one({"role": "assistant", "content": None, "refusal": "No."}).text == "No."


def test_tool_calls_and_results_are_kept() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "raw"}},
    ]
    message = _parse_one({"role": "assistant", "content": None, "tool_calls": calls})
    assert message == Message("assistant", (), tool_calls=(ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "raw")))
    result = parse_messages({"messages": [{"role": "tool", "tool_call_id": "c1", "content": ""}]})[0]
    assert result == Message("tool", (TextPart(""),), tool_call_id="c1")


def test_older_function_messages_become_tool_messages() -> None:
    call = _parse_one({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}})
    assert call.tool_calls == (ToolCall(None, "f", "{}"),)
    assert _parse_one({"role": "function", "name": "f", "content": "42"}) == Message("tool", (TextPart("42"),), "f")
    assert _parse_one({"role": "function", "name": "f", "content": None}).text == ""


WRONG: list[tuple[object, str, str]] = [
    ("hi", "messages[0]", "invalid_type"),
    ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
    ({"role": 3, "content": "x"}, "messages[0].role", "invalid_type"),
    ({"role": "robot", "content": "x"}, "messages[0].role", "invalid_value"),
    ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
    ({"role": "user", "content": None}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": 5}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": {}}, "messages[0].content", "invalid_type"),
    ({"role": "user", "content": []}, "messages[0].content", "empty_array"),
    ({"role": "user", "content": ["x"]}, "messages[0].content[0]", "invalid_type"),
    ({"role": "user", "content": [{}]}, "messages[0].content[0].type", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "missing_required_parameter"),
    ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[0].content[0].text", "invalid_type"),
    ({"role": "user", "content": [{"type": "video"}]}, "messages[0].content[0].type", "invalid_value"),
    (
        {"role": "user", "content": [{"type": "refusal", "refusal": "x"}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    ({"role": "user", "content": "x", "name": 1}, "messages[0].name", "invalid_type"),
    (
        {"role": "user", "content": [{"type": "thinking", "thinking": "x"}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls", "invalid_type"),
    ({"role": "assistant", "tool_calls": [1]}, "messages[0].tool_calls[0]", "invalid_type"),
    ({"role": "assistant", "tool_calls": [{"type": "magic"}]}, "messages[0].tool_calls[0].type", "invalid_value"),
    (
        {"role": "assistant", "tool_calls": [{"id": "c"}]},
        "messages[0].tool_calls[0].function",
        "missing_required_parameter",
    ),
    (
        {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
        "messages[0].tool_calls[0].id",
        "missing_required_parameter",
    ),
    (
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]},
        "messages[0].tool_calls[0].function.arguments",
        "invalid_type",
    ),
    ({"role": "tool", "content": "x"}, "messages[0].tool_call_id", "missing_required_parameter"),
    ({"role": "tool", "tool_call_id": "c"}, "messages[0].content", "missing_required_parameter"),
    ({"role": "function", "content": "x"}, "messages[0].name", "missing_required_parameter"),
]


@pytest.mark.parametrize("message, param, code", WRONG)
def test_a_complaint_names_the_field(message: object, param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": [message, USER]})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param in caught.value.message


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_media_parts_are_refused_by_name(kind: str) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": kind, kind: {}}]
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": [USER, {"role": "user", "content": content}]})
    assert caught.value.param == "messages[1].content[1].type"
    assert kind in caught.value.message


@pytest.mark.parametrize(
    "messages, code", [(None, "missing_required_parameter"), ([], "empty_array"), ("x", "invalid_type")]
)
def test_messages_must_be_a_list_with_something_in_it(messages: object, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": messages})
    assert (caught.value.param, caught.value.code) == ("messages", code)


def test_S37_at_most_2048_messages() -> None:
    assert len(parse_messages({"messages": [USER] * MAX_MESSAGES})) == 2048
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": [USER] * (MAX_MESSAGES + 1)})
    assert caught.value.code == "array_above_max_length"


@pytest.mark.parametrize(
    "last",
    [
        {"role": "user", "content": ""},
        {"role": "user", "content": " \n"},
        {"role": "user", "content": [{"type": "text", "text": ""}]},
        {"role": "assistant", "content": None},
    ],
)
def test_where_nothing_is_said_there_is_nothing_to_answer(last: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": [{"role": "system", "content": ""}, last]})
    assert caught.value.param == "messages[1].content"


def test_tool_calls_without_their_results_cannot_be_answered() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]})
    assert caught.value.param == "messages[1].role"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]},
        {"role": "tool", "tool_call_id": "c", "content": None},
        {"role": "tool", "tool_call_id": "c", "content": []},
    ],
)
def test_answers_and_results_without_content_are_empty(message: object) -> None:
    assert _parse_one(message).parts == ()


def test_parts_typed_as_in_the_responses_api_are_text() -> None:
    content = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    assert _parse_one({"role": "user", "content": content}).text == "a\nb"


def test_reasoning_in_the_history_is_left_out() -> None:
    content = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Yes."}]
    assert _parse_one({"role": "assistant", "content": content}).text == "Yes."


@pytest.mark.parametrize(
    "last",
    [
        {"role": "assistant", "content": "Once upon a"},
        {"role": "user", "content": ""},
        {"role": "system", "content": "Greet me."},
        {"role": "developer", "content": "Greet me."},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "function", "name": "f", "content": None},
    ],
)
def test_instructions_tool_results_begun_answers_and_silence_can_be_answered(last: object) -> None:
    assert len(parse_messages({"messages": [USER, last]})) == 2
