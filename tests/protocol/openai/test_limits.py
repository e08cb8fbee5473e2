"""Cuts at stop sequences and at a number of tokens fall at the same place, however the text was split."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat2api.protocol.events import (
    Event,
    Failed,
    FileLink,
    Finished,
    HandedOff,
    ImagePending,
    ReasoningDelta,
    Started,
    TextDelta,
)
from chat2api.protocol.openai.limits import TurnLimiter
from chat2api.protocol.openai.usage import count_tokens

STARTED = Started("c-1", "m-1", "gpt-4o")
END = Finished("stop", "c-1", "m-9", "gpt-4o")


def _run(limiter: TurnLimiter, pieces: Sequence[str]) -> list[Event]:
    out = limiter.feed([STARTED])
    for piece in pieces:
        out += limiter.feed([TextDelta(piece)])
    return out + limiter.feed([END])


def _text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def _split(text: str, cuts: Sequence[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def _reason(events: Sequence[Event]) -> str:
    end = events[-1]
    assert isinstance(end, Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    return end.reason


TEXTS = st.text(st.sampled_from("ab cd \n.é漢😀"), max_size=60) | st.text(st.sampled_from("abxyz"), max_size=700)
STOPS = st.sampled_from([(), ("a",), ("ab", "b c"), ("  ",), ("abcd", "cd"), ("ba", "aba"), ("漢",)])


@settings(max_examples=300, deadline=None)
@given(TEXTS, STOPS, st.none() | st.integers(1, 40), st.lists(st.integers(0, 2000), max_size=12))
@example("a" * 600, (), 50, list(range(600)))
@example("abcdabcd", ("abcd", "cd"), None, list(range(8)))
def test_any_split_gives_the_same_text_and_reason(
    text: str, stop: tuple[str, ...], max_tokens: int | None, cuts: list[int]
) -> None:
    whole = _run(TurnLimiter(max_tokens, stop), [text])
    split = _run(TurnLimiter(max_tokens, stop), _split(text, cuts))
    assert _text(split) == _text(whole)
    assert _reason(split) == _reason(whole)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 40))
def test_no_more_tokens_pass_than_allowed(text: str, max_tokens: int) -> None:
    events = _run(TurnLimiter(max_tokens), [text])
    # Segments without a blank are counted apart, which can cost a token at their seam.
    assert count_tokens(_text(events)) <= max_tokens + 2
    if _reason(events) == "stop":
        assert _text(events) == text
    else:
        assert text.startswith(_text(events))
        assert len(_text(events)) < len(text)


@settings(deadline=None)
@given(TEXTS, STOPS)
def test_text_ends_before_the_stop_sequence_that_is_complete_first(text: str, stop: tuple[str, ...]) -> None:
    ends = [(text.find(each) + len(each), text.find(each)) for each in stop if each in text]
    expected = text[: min(ends)[1]] if ends else text
    assert _text(_run(TurnLimiter(None, stop), [text])) == expected


def test_without_limits_events_pass_as_they_are() -> None:
    events: list[Event] = [
        STARTED,
        ReasoningDelta("r"),
        TextDelta("a"),
        FileLink("u", "file", "n"),
        TextDelta("b"),
        END,
    ]
    limiter = TurnLimiter(None)
    assert limiter.feed(events) == events
    assert limiter.done


def test_text_is_not_held_back_longer_than_a_stop_sequence_could_need() -> None:
    limiter = TurnLimiter(None, ("END",))
    assert limiter.feed([TextDelta("The EN")]) == [TextDelta("The ")]
    assert limiter.feed([TextDelta("T")]) == [TextDelta("ENT")]
    assert not limiter.done


def test_a_stop_ends_the_turn_with_what_is_known_of_it() -> None:
    limiter = TurnLimiter(None, ("END",))
    limiter.feed([STARTED])
    out = limiter.feed([TextDelta("one E"), TextDelta("ND two"), TextDelta("three")])
    assert out == [TextDelta("one "), Finished("stop", "c-1", "m-1", "gpt-4o")]
    assert limiter.done
    assert limiter.feed([TextDelta("more"), END]) == []


def test_the_length_cut_ends_the_turn() -> None:
    limiter = TurnLimiter(3)
    out = _run(limiter, ["one", " two", " three", " four", " five"])
    assert _text(out) == "one two three"
    assert out[-1] == Finished("length", "c-1", "m-1", "gpt-4o")
    assert limiter.done


def test_exactly_as_many_tokens_as_allowed_are_no_cut() -> None:
    assert _run(TurnLimiter(3), ["one two", " three"])[-1] == END


def test_far_from_the_limit_nothing_is_held_back() -> None:
    limiter = TurnLimiter(1000)
    for word in ("Hyphen", "ation is har", "d."):
        assert limiter.feed([TextDelta(word)]) == [TextDelta(word)]


def test_reasoning_uses_up_tokens_but_is_not_searched_for_stops() -> None:
    events: list[Event] = [ReasoningDelta("one two END"), TextDelta("three four")]
    out = TurnLimiter(4, ("END",)).feed([*events, END])
    assert "".join(event.text for event in out if isinstance(event, ReasoningDelta)) == "one two END"
    assert _text(out) == "three"
    assert _reason(out) == "length"


def test_a_file_keeps_its_place_in_the_text() -> None:
    link = FileLink("https://files.example/x", "file", "x")
    limiter = TurnLimiter(500, ("END",))
    out = limiter.feed([TextDelta("See E"), link, TextDelta("ND"), END])
    assert out == [TextDelta("See "), TextDelta("E"), link, TextDelta("ND"), END]


@pytest.mark.parametrize("moved", [HandedOff("c", None, None), ImagePending("c", "m")])
def test_an_answer_that_goes_on_elsewhere_is_not_over(moved: Event) -> None:
    limiter = TurnLimiter(100, ("END",))
    assert limiter.feed([TextDelta("a E"), moved]) == [TextDelta("a "), moved]
    assert limiter.feed([TextDelta("ND b")]) == [Finished("stop", None, None, None)]


def test_a_failure_ends_the_turn_after_what_was_held_back() -> None:
    failed = Failed("no", None, None)
    limiter = TurnLimiter(None, ("END",))
    assert limiter.feed([TextDelta("a EN"), failed]) == [TextDelta("a "), TextDelta("EN"), failed]
    assert limiter.done


def test_a_long_answer_under_a_high_limit_costs_little() -> None:
    limiter = TurnLimiter(1_000_000)
    text = "word " * 40_000
    assert _text(_run(limiter, _split(text, list(range(0, len(text), 7))))) == text
