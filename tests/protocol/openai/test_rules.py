"""The rules of tiers on bodies of chat completions: what is changed, what is refused, and that nothing else is touched."""

import copy
import json
from typing import Any

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.rules import Rules, hold_chat_to

TEXT = {"role": "user", "content": "Name three rivers."}
SYSTEM = {"role": "system", "content": "Be brief."}
DEVELOPER = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
STRICT = Rules(system="drop", text_only=True, max_answer_tokens=100)


def body(*messages: object, **fields: object) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **fields}


def refused(rules: Rules, said: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        hold_chat_to(rules, said)
    return raised.value


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (Rules(), body(SYSTEM, TEXT, max_tokens=10**9, modalities=["audio"])),
        (STRICT, body(TEXT, max_tokens=100)),
        (STRICT, body(TEXT, max_completion_tokens=1, max_tokens=5)),
        (STRICT, body(TEXT, max_tokens=5, modalities=["text"], audio=None, tools=[])),
        (Rules(system="reject"), body(TEXT, {"role": "assistant", "content": None})),
    ],
)
def test_a_body_that_keeps_the_rules_is_given_as_it_is(rules: Rules, said: dict[str, Any]) -> None:
    assert hold_chat_to(rules, said) is said


@pytest.mark.parametrize("said", [None, [], "text", 3, {}, {"messages": 3}, {"messages": [3, None]}])
def test_what_is_no_body_is_left_to_the_parser(said: object) -> None:
    assert hold_chat_to(Rules(system="drop", text_only=True), said) is said


def test_system_messages_are_left_out_and_all_else_stays() -> None:
    said = body(SYSTEM, TEXT, DEVELOPER, {"role": "assistant", "content": "Nile"}, TEXT, temperature=0.5, max_tokens=7)
    before = copy.deepcopy(said)
    held = hold_chat_to(Rules(system="drop"), said)
    assert held == {**said, "messages": [TEXT, {"role": "assistant", "content": "Nile"}, TEXT]}
    assert said == before


def test_only_system_messages_leave_nothing_to_answer() -> None:
    assert refused(Rules(system="drop"), body(SYSTEM, DEVELOPER)).param == "messages"


@pytest.mark.parametrize(
    "message",
    [SYSTEM, DEVELOPER, *({**SYSTEM, "role": role} for role in ("System", " system", "DEVELOPER\n", "sys\0tem"))],
)
def test_a_system_message_is_refused_where_the_rule_says_so(message: object) -> None:
    error = refused(Rules(system="reject"), body(TEXT, message))
    assert (error.param, error.code) == ("messages[1].role", "system_not_allowed")


@pytest.mark.parametrize(
    "kind", ["image_url", "input_image", "input_audio", "file", "input_file", "video_url", "", None]
)
def test_only_text_passes_a_tier_for_text(kind: object) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, "image_url": {"url": "data:,"}}]
    error = refused(Rules(text_only=True), body(SYSTEM, {"role": "user", "content": parts}))
    assert (error.param, error.code) == ("messages[1].content[1].type", "text_only")


def test_a_part_outside_of_a_list_is_no_text() -> None:
    content = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert refused(Rules(text_only=True), body({"role": "user", "content": content})).param == "messages[0].content"


@pytest.mark.parametrize("fields", [{"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy"}}])
def test_only_text_is_answered_in_a_tier_for_text(fields: dict[str, object]) -> None:
    assert refused(Rules(text_only=True), body(TEXT, **fields)).code == "text_only"


def test_an_earlier_spoken_answer_is_no_text() -> None:
    spoken = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert refused(Rules(text_only=True), body(TEXT, spoken, TEXT)).param == "messages[1].audio"


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ({}, {"max_completion_tokens": 100}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 100}),
        ({"max_tokens": 101}, {"max_tokens": 100}),
        ({"max_tokens": -1}, {"max_tokens": 100}),
        ({"max_tokens": 0}, {"max_tokens": 100}),
        ({"max_tokens": 1e30}, {"max_tokens": 100}),
        ({"max_tokens": 50, "max_completion_tokens": 200}, {"max_tokens": 50, "max_completion_tokens": 100}),
        ({"max_tokens": "many"}, {"max_tokens": "many"}),
        ({"max_tokens": True}, {"max_tokens": True}),
    ],
)
def test_the_longest_answer_is_written_into_the_body(said: dict[str, object], held: dict[str, object]) -> None:
    assert hold_chat_to(Rules(max_answer_tokens=100), body(TEXT, **said)) == body(TEXT, **held)


def test_not_a_number_is_held_to_the_longest_answer() -> None:
    said = json.loads('{"max_tokens": NaN}')
    assert hold_chat_to(Rules(max_answer_tokens=100), body(TEXT, **said)) == body(TEXT, max_tokens=100)
