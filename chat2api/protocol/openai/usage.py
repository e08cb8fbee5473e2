"""Token counts: estimates, since the web backend tells none.

The tokenizer is o200k_base, which the models since GPT-4o use, through toktok, whose vocabulary is part of its
package: nothing is fetched at run time. It counts in linear time (1 MiB of prose in about 3 ms) and without Python's
global lock, so leave prompts longer than LONG_TEXT to a worker thread. The first count reads the vocabulary, which
takes about 0.4 s and 70 MiB and does keep the lock: call `load_tokenizer` before requests are taken.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import toktok  # type: ignore[import-untyped]  # it has annotations but no py.typed

from chat2api.protocol.events import Event, ReasoningDelta, TextDelta
from chat2api.protocol.prompt import Message

ENCODING = "o200k_base"
LONG_TEXT = 256 * 1024
"""Characters; a longer text is better counted outside the event loop."""

_SHORT_TEXT = 16 * 1024
"""Characters that are counted in less time than a thread takes to start."""

# OpenAI's own recipe for chats: what frames each message and its role (one token), a name, and the start of the answer.
_TOKENS_PER_MESSAGE = 3 + 1
_TOKENS_PER_NAME = 1
_TOKENS_OF_ANSWER_START = 3


class PromptTokensDetails(TypedDict):
    """Parts of prompt_tokens."""

    cached_tokens: int
    audio_tokens: int


class CompletionTokensDetails(TypedDict):
    """Parts of completion_tokens."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageObject(TypedDict):
    """OpenAI's usage object. `estimated` is ours: true because the counts are made here, not by the backend."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    estimated: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; `completion_tokens` includes `reasoning_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """All tokens of the request."""
        return self.prompt_tokens + self.completion_tokens

    def to_object(self) -> UsageObject:
        """Give the object that a reply carries."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            "estimated": True,
        }


def load_tokenizer() -> None:
    """Read the vocabulary now, so that no request waits for it; all threads stand still meanwhile."""
    count_tokens("")


def clean_text(text: str) -> str:
    """Give text that can be written as UTF-8: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def count_tokens(text: str) -> int:
    """Give the number of tokens of any text; the names of special tokens count as the plain text that they are."""
    return count_each((text,))[0]


def count_each(texts: Iterable[str]) -> list[int]:
    """Give the number of tokens of each text.

    Short ones are counted here: for each batch the tokenizer starts a thread, which costs a hundred times as much as a
    line of text.
    """
    cleaned = [clean_text(text) for text in texts]
    if sum([len(text) for text in cleaned]) <= _SHORT_TEXT:
        return [toktok.truncate(text, sys.maxsize, ENCODING)[1] for text in cleaned]
    counts: list[int] = toktok.batch_count(cleaned, ENCODING, 1)
    return counts


def cut_tokens(text: str, max_tokens: int) -> str:
    """Give the longest start of text that is at most max_tokens long and ends at a whole character."""
    if max_tokens <= 0:
        return ""
    head: str = toktok.truncate(clean_text(text), max_tokens, ENCODING)[0]
    return head


def prompt_tokens(messages: Iterable[Message]) -> int:
    """Give the tokens of a whole prompt: texts, roles, names and tool calls, and what frames them."""
    texts: list[str] = []
    frame = _TOKENS_OF_ANSWER_START
    for message in messages:
        frame += _TOKENS_PER_MESSAGE
        texts.append(message.text)
        if message.name is not None:
            frame += _TOKENS_PER_NAME
            texts.append(message.name)
        for call in message.tool_calls:
            texts += (call.name, call.arguments)
    return frame + sum(count_each(texts))


class CompletionMeter:
    """Adds up what an answer says, over all its choices, for its usage.

    Texts are kept until they are counted, which is done once they fill a block, so a long answer is never held
    whole. A word may be cut at the end of a block: the error is at most a token or two for each BLOCK characters.
    """

    BLOCK = 32 * 1024

    def __init__(self) -> None:
        """Make a meter at zero."""
        self._texts: dict[int, list[str]] = {}
        self._reasoning: dict[int, list[str]] = {}
        self._pending = 0
        self._text_tokens = 0
        self._reasoning_tokens = 0

    def add(self, events: Iterable[Event], index: int = 0) -> None:
        """Add the events of one choice, as they are sent to the caller."""
        for event in events:
            if isinstance(event, TextDelta):
                self._texts.setdefault(index, []).append(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.setdefault(index, []).append(event.text)
            else:
                continue
            self._pending += len(event.text)
        if self._pending >= self.BLOCK:
            self._settle()

    def usage(self, prompt_tokens: int) -> Usage:
        """Give the usage of the request, the answer as far as it has been added."""
        self._settle()
        return Usage(prompt_tokens, self._text_tokens + self._reasoning_tokens, self._reasoning_tokens)

    def _settle(self) -> None:
        """Count what is pending."""
        texts = ["".join(pieces) for pieces in self._texts.values()]
        reasoning = ["".join(pieces) for pieces in self._reasoning.values()]
        if texts or reasoning:
            counts = count_each([*texts, *reasoning])
            self._text_tokens += sum(counts[: len(texts)])
            self._reasoning_tokens += sum(counts[len(texts) :])
            self._texts.clear()
            self._reasoning.clear()
            self._pending = 0
