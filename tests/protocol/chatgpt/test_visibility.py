"""Which messages a reader sees, and as what."""

from typing import Any

import pytest

from chat2api.protocol.chatgpt.visibility import (
    FoundFile,
    Show,
    canvas_text,
    classify,
    fence_language,
    find_files,
    read_text,
    role_of,
)
from tests.protocol.chatgpt.streams import message

CODE = {"content_type": "code", "language": "unknown", "text": "x"}
OUTPUT = {"content_type": "execution_output", "text": "x"}


def of_type(content_type: str, **fields: Any) -> dict[str, Any]:
    return {"content_type": content_type, **fields}


def mixed(parts: list[Any] | None) -> dict[str, Any]:
    return {"content_type": "multimodal_text", "parts": parts}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (message("Hi"), Show.TEXT),
        (message("Hi", channel="final"), Show.TEXT),
        (message("Hi", role="user"), Show.NOTHING),
        (message("Hi", role="system"), Show.NOTHING),
        (message("Hi", role="developer"), Show.NOTHING),
        (message("Hi", is_visually_hidden_from_conversation=True), Show.NOTHING),
        (message("Hi", channel="commentary"), Show.NOTHING),
        (message("Hi", channel="analysis"), Show.REASONING),
        (message("Hi", reasoning_status="is_reasoning"), Show.REASONING),
        (message("Hi", channel="final", reasoning_status="is_reasoning"), Show.TEXT),
        (message("I'll look.", is_thinking_preamble_message=True), Show.REASONING),
        (message("I'll look.", is_thinking_preamble_message=True, channel="commentary"), Show.REASONING),
        (message("Hi", image_gen_async=True), Show.NOTHING),
        (message(content=mixed(["Hi"])), Show.TEXT),
        (message(content=of_type("thoughts", thoughts=[]), channel="analysis"), Show.THOUGHTS),
        (message(content=of_type("reasoning_recap", content="Thought for 3s")), Show.NOTHING),
        (message(content=of_type("model_editable_context", model_set_context="x")), Show.NOTHING),
        (message(content=of_type("user_editable_context", user_profile="x")), Show.NOTHING),
        (message(content=of_type("system_error", name="x", text="y")), Show.NOTHING),
        (message(content=CODE, recipient="python"), Show.CODE),
        (message("x = 1", recipient="python"), Show.CODE),
        (message(content=CODE, recipient="python", channel="analysis"), Show.NOTHING),
        (message(content=CODE, recipient="python_user_visible", channel="commentary"), Show.CODE),
        (message(content=CODE), Show.CODE),
        (message(content=CODE, channel="commentary"), Show.NOTHING),
        (message(content=CODE, recipient="browser"), Show.NOTHING),
        (message(content=CODE, recipient="web.run"), Show.NOTHING),
        (message(content=CODE, recipient="dalle.text2im"), Show.NOTHING),
        (message("likes cows", recipient="bio"), Show.NOTHING),
        (message(content=CODE, recipient="canmore.create_textdoc"), Show.CANVAS),
        (message(content=CODE, recipient="canmore.update_textdoc"), Show.NOTHING),
        (message(role="tool", name="python", content=OUTPUT), Show.OUTPUT),
        (message(role="tool", name="python", content=OUTPUT, channel="analysis"), Show.NOTHING),
        (message(role="tool", name="container.exec", content=OUTPUT), Show.NOTHING),
        (message("Make no mention of this.", role="tool", name="dalle.text2im"), Show.NOTHING),
        (message("hm", role="tool", name="a8km123", initial_text="Thinking"), Show.REASONING),
        (message("hm", role="tool", name="a8km123"), Show.REASONING),
        (message("hm", role="tool", name="x9", finished_text="Thought for 2s"), Show.REASONING),
        (message(role="tool", content=of_type("tether_quote", text="x")), Show.NOTHING),
    ],
    ids=str,
)
def test_a_message_is_shown_as_what_it_is(given: dict[str, Any], expected: Show) -> None:
    assert classify(given) is expected


def test_a_marker_makes_reasoning_of_text_outside_the_final_channel() -> None:
    assert classify(message("Hi"), is_marked_reasoning=True) is Show.REASONING
    assert classify(message("Hi", channel="final"), is_marked_reasoning=True) is Show.TEXT


def test_the_role_of_2022_stands_beside_the_author() -> None:
    assert role_of({"role": "assistant"}) == "assistant"
    assert role_of({"author": {"role": "tool"}, "role": None}) == "tool"
    assert role_of({"author": "x"}) == ""


def test_a_message_that_names_no_author_is_the_answer() -> None:
    assert role_of({"content": {"content_type": "text", "parts": ["Hi"]}}) == "assistant"
    assert role_of({"id": "m-1"}) == ""


@pytest.mark.parametrize(
    ("show", "content", "expected"),
    [
        (Show.TEXT, {"parts": ["a"]}, ("a", "/message/content/parts/0")),
        (Show.TEXT, {"parts": [""]}, ("", "/message/content/parts/0")),
        (Show.TEXT, {"parts": [42, None, True]}, ("42", None)),
        (Show.TEXT, {"parts": ["a", "b"]}, ("a\nb", "/message/content/parts/1")),
        (Show.TEXT, {"parts": ["a", {"asset_pointer": "sediment://x"}]}, ("a", None)),
        (Show.TEXT, {"parts": [{"content_type": "audio_transcription", "text": "spoken"}]}, ("spoken", None)),
        (Show.TEXT, {"parts": ["a", {"content_type": "text", "text": "b"}]}, ("a\nb", None)),
        (Show.TEXT, {"parts": "a"}, ("a", "/message/content/text")),
        (Show.TEXT, {"refusal": "no"}, ("no", "/message/content/text")),
        (Show.TEXT, {"parts": []}, ("", None)),
        (Show.TEXT, {}, ("", "/message/content/text")),
        (Show.CODE, {"text": "x"}, ("x", "/message/content/text")),
        (Show.NOTHING, {"parts": ["a"]}, ("", None)),
        (Show.THOUGHTS, {"thoughts": [{"summary": "S", "content": "c"}, {"content": "d"}]},
         ("S\nc\n\nd", "/message/content/thoughts/1/content")),
        (Show.THOUGHTS, {"thoughts": [{"summary": "S", "content": ""}]}, ("S", "/message/content/thoughts/0/summary")),
        (Show.THOUGHTS, {"thoughts": [{"summary": "S", "chunks": ["a", "b"]}]}, ("S\nab", None)),
        (Show.THOUGHTS, {"thoughts": ["x", None]}, ("", None)),
        (Show.THOUGHTS, {"thoughts": None}, ("", None)),
    ],
)  # fmt: skip
def test_the_text_and_where_it_grows(show: Show, content: dict[str, Any], expected: tuple[str, str | None]) -> None:
    assert read_text(show, content) == expected


def picture(pointer: str, **metadata: Any) -> dict[str, Any]:
    return {"content_type": "image_asset_pointer", "asset_pointer": pointer, "metadata": metadata}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (message(role="tool", content=mixed(["Here", picture("sediment://file_1")])),
         [FoundFile("sediment://file_1", "image", "")]),
        (message(role="tool", content=mixed([picture("file-service://f", dalle={"prompt": "a\nb"})])),
         [FoundFile("file-service://f", "image", "a b")]),
        (message(role="tool", content=mixed([picture("sediment://f")]), image_gen_title="Boat"),
         [FoundFile("sediment://f", "image", "Boat")]),
        (message(role="tool", content=mixed(["sediment://f"])), [FoundFile("sediment://f", "image", "")]),
        (message(role="assistant", content=mixed([picture("sediment://f")])),
         [FoundFile("sediment://f", "image", "")]),
        (message(role="tool", name="python", content=OUTPUT,
                 aggregate_result={"messages": [{"message_type": "image", "image_url": "file-service://p"}, {"x": 1}]}),
         [FoundFile("file-service://p", "image", "")]),
        (message(role="user", content=mixed([picture("sediment://f")])), []),
        (message(role="tool", name="container.open_image", content=mixed([picture("sediment://f")])), []),
        (message(role="tool", channel="analysis", content=mixed([picture("sediment://f")])), []),
        (message(role="tool", content=mixed([picture("file-service://file_upload"), picture("http://x")])), []),
        (message(role="tool", content=mixed(None)), []),
    ],
    ids=str,
)  # fmt: skip
def test_files_of_a_message(given: dict[str, Any], expected: list[FoundFile]) -> None:
    assert find_files(given) == expected


def test_a_fence_is_labelled_by_language_tool_or_role() -> None:
    assert fence_language(message(content=CODE, recipient="python"), Show.CODE) == "python"
    assert fence_language(message(content={**CODE, "language": "sh"}, recipient="python"), Show.CODE) == "sh"
    assert fence_language(message(content=CODE), Show.CODE) == ""
    assert fence_language(message(role="tool", content=OUTPUT), Show.OUTPUT) == "Output"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('{"type": "document", "content": "# T"}', "# T"),
        ('{"type": "code/python", "content": "x = 1\\n"}', "```python\nx = 1\n```"),
        ('{"type": "code/python"}', ""),
        ('{"type": ', ""),
        ("[]", ""),
    ],
)
def test_a_canvas_call_gives_its_document(call: str, expected: str) -> None:
    assert canvas_text(call) == expected
