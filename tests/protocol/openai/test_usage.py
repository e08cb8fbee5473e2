"""Token counts agree with OpenAI's own tokenizer, and no text is too much for them."""

import json
import threading
import time
from pathlib import Path
from typing import TypedDict, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat2api.protocol.events import FileLink, Finished, ReasoningDelta, TextDelta
from chat2api.protocol.openai import usage
from chat2api.protocol.openai.usage import (
    CompletionMeter,
    Usage,
    clean_text,
    count_each,
    count_tokens,
    cut_tokens,
    load_tokenizer,
    prompt_tokens,
)
from chat2api.protocol.prompt import Message, Role, TextPart, ToolCall


class Sample(TypedDict):
    """A text of the fixture and its tokens, counted by tiktoken."""

    name: str
    text: str
    tokens: int


SAMPLES: list[Sample] = json.loads(
    (Path(__file__).parents[2] / "data" / "usage" / "o200k.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["name"])
def test_count_agrees_with_openai_s_own_tokenizer(sample: Sample) -> None:
    assert count_tokens(sample["text"]) == pytest.approx(sample["tokens"], rel=0.02)


def test_fixture_covers_many_languages_and_notations() -> None:
    assert len({sample["name"] for sample in SAMPLES}) >= 60
    assert sum(sample["tokens"] for sample in SAMPLES) > 3000


@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "!", "Aa", "漢字", "👩‍👩‍👧", "ab ", "a\u0301"])
def test_a_million_characters_are_counted_in_linear_time(unit: str) -> None:
    load_tokenizer()
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    tokens = count_tokens(text)
    assert 0 < tokens <= len(text.encode())
    assert time.process_time() - started < 2.0


@settings(deadline=None)
@given(st.text(st.sampled_from("ab 1\n<|>é漢🧠\u0301") | st.characters(), max_size=60))
def test_a_text_has_as_many_tokens_by_itself_as_beside_one_that_is_long(text: str) -> None:
    assert count_each([text]) == count_each([text, "long " * 4096])[:1]


def test_special_tokens_count_as_the_text_that_they_are() -> None:
    assert count_tokens("<|endoftext|>") > 1
    assert count_tokens("<|im_start|><|endofprompt|>") > 2


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud800\ud800", "\udc00\ud800", "\x00"])
def test_lone_surrogates_and_controls_are_counted(text: str) -> None:
    assert count_tokens(text) >= 1


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_can_be_written_as_utf_8(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert clean_text(cleaned) == cleaned


def test_clean_text_joins_surrogate_pairs() -> None:
    assert clean_text("\ud83c\udf89\ud83c!") == "🎉\ufffd!"


@settings(deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_counting_each_of_many_gives_what_counting_one_gives(texts: list[str]) -> None:
    assert count_each(texts) == [count_tokens(text) for text in texts]


@settings(deadline=None)
@given(st.text(), st.integers(0, 30))
def test_a_cut_is_a_start_of_the_text_and_not_too_long(text: str, limit: int) -> None:
    head = cut_tokens(text, limit)
    assert text.startswith(head)
    assert count_tokens(text) > limit or head == text
    assert len(head.encode()) >= min(limit, len(text.encode())) - 3


def test_prompt_counts_text_roles_names_calls_and_frames() -> None:
    hello = Message("user", (TextPart("Hello there"),))
    # 3 for the start of the answer, 3 for the message, 1 for its role, 2 for its text.
    assert prompt_tokens([hello]) == 9
    assert prompt_tokens([hello, hello]) == 15
    named = Message("user", (TextPart("Hello there"),), name="Ann")
    assert prompt_tokens([named]) == 9 + 1 + count_tokens("Ann")
    call = ToolCall("c1", "look_up", '{"q":"tea"}')
    calling = Message("assistant", (), tool_calls=(call,))
    assert prompt_tokens([calling]) == 3 + 3 + 1 + count_tokens("look_up") + count_tokens('{"q":"tea"}')


def test_a_role_is_always_one_token() -> None:
    assert [usage.count_tokens(role) for role in get_args(Role)] == [1, 1, 1, 1, 1]


def test_usage_object_is_openai_s_and_says_that_it_is_an_estimate() -> None:
    body = Usage(10, 7, 3).to_object()
    assert body["total_tokens"] == 17
    assert body["completion_tokens_details"]["reasoning_tokens"] == 3
    assert body["estimated"] is True


def test_meter_counts_joined_text_not_single_deltas() -> None:
    meter = CompletionMeter()
    for letter in "international cooperation":
        meter.add([TextDelta(letter)])
    assert meter.usage(0).completion_tokens == count_tokens("international cooperation")


def test_meter_counts_reasoning_as_part_of_the_completion() -> None:
    meter = CompletionMeter()
    meter.add([ReasoningDelta("Let me see."), TextDelta("Yes."), FileLink(None, "file", "x")])
    meter.add([TextDelta("No."), Finished("stop", None, None, None)], index=1)
    total = meter.usage(5)
    assert total.reasoning_tokens == count_tokens("Let me see.")
    assert total.completion_tokens == total.reasoning_tokens + count_tokens("Yes.") + count_tokens("No.")
    assert total.prompt_tokens == 5


def test_meter_does_not_hold_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(texts: list[str]) -> list[int]:
        counted.append(sum(map(len, texts)))
        return [len(text) for text in texts]

    monkeypatch.setattr(usage, "count_each", count)
    meter = CompletionMeter()
    for _ in range(4000):
        meter.add([TextDelta("forty characters, give or take a few....")])
    assert meter.usage(0).completion_tokens == 160_000
    assert len(counted) >= 4
    assert max(counted) <= CompletionMeter.BLOCK + 40


def test_R9_tokenizer_lets_other_threads_run_while_it_counts() -> None:
    load_tokenizer()
    text = "The quick brown fox jumps over the lazy dog. " * 400_000
    thread = threading.Thread(target=count_tokens, args=(text,))
    ticks = 0
    thread.start()
    while thread.is_alive():
        thread.join(0.001)
        ticks += 1
    # A count that kept the lock would leave time for a tick at its start and one at its end.
    assert ticks > 5
