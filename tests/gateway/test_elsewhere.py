"""Answers that are read in more than one place: nothing twice, nothing lost, wherever the first place broke off."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given as property_given
from hypothesis import strategies as st

from chat2api.errors import StreamInterruptedError, TransportError, UpstreamError
from chat2api.gateway.elsewhere import AnswerSource, Given, MovedAnswer, NewEvents, StoredAnswer, Way
from chat2api.protocol.events import (
    Event,
    FilePointer,
    Finished,
    OnlyStored,
    ReasoningDelta,
    Started,
    TakeEvents,
    TextDelta,
)

START = Started("c-1", "m-1", "gpt-5-5")
END = Finished("stop", "c-1", "m-1", "gpt-5-5")
TEXT = "Nile, Amazon, Danube."


class Place:
    """A place with some batches of an answer; then its failure, silence, or an empty end."""

    def __init__(self, *batches: Sequence[Event], failure: Exception | None = None, silent: bool = False) -> None:
        self._batches = [list(batch) for batch in batches]
        self._failure = failure
        self._silent = silent
        self.raw_text = "raw"
        self.unknown = Counter(["type: odd"])
        self.closed = 0

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        if self._batches:
            return self._batches.pop(0)
        if self._silent:
            await asyncio.Event().wait()
        if self._failure is not None:
            raise self._failure
        return []

    async def aclose(self) -> None:
        self.closed += 1


def way_to(place: Place | UpstreamError) -> Way:
    async def open_place() -> AnswerSource:
        if isinstance(place, UpstreamError):
            raise place
        return place

    return open_place


async def read(answer: MovedAnswer, given: Given) -> list[Event]:
    """Read to the end, as the follower of a turn does."""
    events: list[Event] = []
    while batch := await answer.next():
        for event in batch:
            given.note(event)
        events += batch
    await answer.aclose()
    return events


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def texts(*pieces: str) -> list[list[Event]]:
    return [[TextDelta(piece)] for piece in pieces]


@property_given(
    st.lists(st.text("ab ", max_size=4), max_size=8),
    st.lists(st.text("ab ", max_size=4), max_size=8),
)
def test_a_text_that_begins_anew_is_continued_wherever_it_was_cut(same: list[str], more: list[str]) -> None:
    given = Given()
    given.text = ["".join(same)]
    pieces = [*same, *more]
    new = NewEvents(given)
    told = text_of([event for piece in pieces for event in new.of([TextDelta(piece)])])
    assert told == "".join(more)
    joined = NewEvents(given).of([TextDelta("".join(pieces))])
    assert text_of(joined) == "".join(more)


@pytest.mark.parametrize(
    ("before", "pieces", "told"),
    [
        ("abc", ["d", "e"], "de"),
        ("abc", ["ab", "x"], "abx"),
        ("abc", ["abx"], "abx"),
        ("abc", ["ab"], ""),
        ("", ["ab"], "ab"),
        ("abc", [], ""),
    ],
    ids=["rest-only", "begins-alike", "other", "shorter", "nothing-before", "nothing-new"],
)
def test_what_differs_from_what_was_given_is_given_whole(before: str, pieces: list[str], told: str) -> None:
    given = Given()
    given.text = list(before)
    new = NewEvents(given)
    assert text_of([event for piece in pieces for event in new.of([TextDelta(piece)])]) == told


def test_reasoning_and_files_are_not_told_twice_either() -> None:
    picture = FilePointer("sediment://1", "image", "", "c-1", "m-1")
    other = FilePointer("sediment://2", "image", "", "c-1", "m-1")
    given = Given()
    for event in (ReasoningDelta("Thinking"), picture):
        given.note(event)
    events: list[Event] = [START, ReasoningDelta("Thinking hard"), picture, other, TextDelta("Done"), END]
    assert NewEvents(given).of(events) == [START, ReasoningDelta(" hard"), other, TextDelta("Done"), END]


async def test_a_stored_answer_gives_once_what_is_new() -> None:
    given = Given()
    given.text = ["Nile,"]
    stored = StoredAnswer([START, TextDelta(TEXT), END], given)
    assert await stored.next() == [START, TextDelta(" Amazon, Danube."), END]
    assert await stored.next() == []
    await stored.aclose()


async def test_the_first_place_that_has_the_answer_is_enough() -> None:
    given = Given()
    first, second = Place([START], *texts("Nile"), [END]), Place()
    answer = MovedAnswer([way_to(TransportError("no")), way_to(first), way_to(second)], "c-1", given)
    assert await read(answer, given) == [START, TextDelta("Nile"), END]
    assert (first.closed, second.closed) == (1, 0)


@pytest.mark.parametrize("failure", [TransportError("cut", phase="body"), StreamInterruptedError("cut"), None])
@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
async def test_where_one_place_breaks_off_the_next_goes_on(cut: int, failure: Exception | None) -> None:
    given = Given()
    first = Place(*texts(*TEXT[:cut]), failure=failure)
    second = Place([START, TextDelta(TEXT[:7])], [TextDelta(TEXT[7:]), END])
    answer = MovedAnswer([way_to(first), way_to(second)], "c-1", given)
    events = await read(answer, given)
    assert text_of(events) == TEXT
    assert events[-1] == END
    assert (first.closed, second.closed) == (1, 1)


async def test_after_the_last_place_it_is_only_stored() -> None:
    given = Given()
    begun = Place(*texts("Nile"), failure=TransportError("cut"))
    answer = MovedAnswer([way_to(TransportError("no"))], "c-1", given, begun)
    assert answer.raw_text == "raw"
    assert await read(answer, given) == [TextDelta("Nile"), OnlyStored("c-1")]
    assert begun.closed == 1
    assert answer.raw_text == ""
    assert answer.unknown == {"type: odd": 1}


async def test_a_place_that_says_nothing_from_the_beginning_is_left() -> None:
    given = Given()
    silent = Place(silent=True)
    answer = MovedAnswer([way_to(silent)], "c-1", given, patience=0.01)
    assert await asyncio.wait_for(read(answer, given), 5) == [OnlyStored("c-1")]
    assert silent.closed == 1


async def test_R1_a_place_that_has_begun_is_waited_for_by_whoever_reads() -> None:
    silent = Place(*texts("Nile"), silent=True)
    answer = MovedAnswer([way_to(silent)], "c-1", Given(), patience=0.01)
    assert await answer.next() == [TextDelta("Nile")]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer.next(), 0.1)
    assert silent.closed == 0
    await answer.aclose()
    assert silent.closed == 1


async def test_R10_a_place_that_came_with_the_answer_is_closed_though_nobody_read_it() -> None:
    begun = Place()
    answer = MovedAnswer([], "c-1", Given(), begun)
    await answer.aclose()
    assert begun.closed == 1
    assert await answer.next() == []
