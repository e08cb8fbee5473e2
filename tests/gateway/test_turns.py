"""One turn to its real end: what is followed, in which order it is given, and how long it may take."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from chat2api.errors import (
    AnswerElsewhereError,
    StreamInterruptedError,
    UpstreamError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.gateway.deadlines import AnswerLimits
from chat2api.gateway.elsewhere import AnswerSource
from chat2api.gateway.turns import MAX_CONTINUES, MAX_MISSES, MAX_MOVES, POLL_SECONDS, TurnFollower
from chat2api.protocol.chatgpt.request import PICTURE_HINT
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
    TakeEvents,
    TextDelta,
)
from chat2api.protocol.prompt import Message, ModelChoice, Prompt, TextPart
from chat2api.simulator.faults import Fault
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session
from tests.clocks import FakeClock
from tests.e2e.harness import until
from tests.upstream.chatgpt.bench import Bench, open_bench

QUESTION = Prompt((Message("user", (TextPart("Name three rivers."),)),), ModelChoice("auto"), temporary=False)
PATIENT = AnswerLimits(first_content=30, between_events=30, whole=60)
ANSWER = "Nile, Amazon, Danube."
SESSION = Session("account-1", "device-1", "http://127.0.0.1:1", None, "token")

START = Started("c-1", "m-1", "gpt-5-5")
END = Finished("stop", "c-1", "m-1", "gpt-5-5")
CUT = Finished("length", "c-1", "m-1", "gpt-5-5", continuable=True)
PICTURE = FilePointer("sediment://file_1", "image", "a picture", "c-1", "m-1")


class Script:
    """An answer whose batches are written down; then an empty list for ever, or silence."""

    def __init__(self, *batches: Sequence[Event] | Exception, silent: bool = False, raw_text: str = "") -> None:
        self._batches = list(batches)
        self._silent = silent
        self.raw_text = raw_text
        self.unknown = Counter[str]()
        self.closed = 0

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        if not self._batches:
            if self._silent:
                await asyncio.Event().wait()
            return []
        batch = self._batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return list(batch)

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class ScriptedClient:
    """A client that answers what is written down, and notes what it was asked."""

    rests: list[AnswerSource | UpstreamError] = field(default_factory=list)
    url: str | None = "https://files.test/1"
    calls: list[str] = field(default_factory=list)

    async def continue_turn(
        self, session: Session, model: ModelChoice, cut: Finished, *, sent_text: str, temporary: bool
    ) -> AnswerSource:
        self.calls.append(f"continue after {sent_text!r}")
        rest = self.rests.pop(0)
        if isinstance(rest, UpstreamError):
            raise rest
        return rest

    async def file_url(self, session: Session, pointer: FilePointer) -> str | None:
        self.calls.append(f"file {pointer.pointer}")
        return self.url


def follow(
    turn: AnswerSource,
    client: ScriptedClient | ChatGPTClient | None = None,
    *,
    limits: AnswerLimits = PATIENT,
    prompt: Prompt = QUESTION,
    session: Session = SESSION,
    clock: FakeClock | None = None,
) -> TurnFollower:
    return TurnFollower(
        cast(ChatGPTClient, client or ScriptedClient()),
        clock or FakeClock(),
        session,
        prompt,
        limits,
        asyncio.get_running_loop().time() + limits.first_content,
        turn,
    )


async def batches_of(follower: TurnFollower) -> list[list[Event]]:
    batches = []
    try:
        while batch := await follower.next():
            batches.append(batch)
        return batches
    finally:
        await follower.aclose()


async def events_of(follower: TurnFollower) -> list[Event]:
    return [event for batch in await batches_of(follower) for event in batch]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# What comes is given


async def test_events_that_came_together_are_given_together() -> None:
    turn = Script([START, TextDelta("a")], [TextDelta("b"), ReasoningDelta("c")], [END])
    assert await batches_of(follow(turn)) == [
        [START, TextDelta("a")],
        [TextDelta("b"), ReasoningDelta("c")],
        [END],
    ]
    assert turn.closed == 1


async def test_R14_an_answer_that_ends_without_an_end_is_an_error() -> None:
    for batches in ([], [[START]], [[START, TextDelta("a")]]):
        with pytest.raises(StreamInterruptedError):
            await events_of(follow(Script(*batches)))


async def test_a_failure_inside_the_stream_is_the_error_it_stands_for() -> None:
    failed = Failed("Something went wrong", None, "c-1")
    with pytest.raises(UpstreamServerError):
        await events_of(follow(Script([START, failed])))


async def test_R14_text_before_a_failure_of_the_same_read_is_given_first() -> None:
    follower = follow(Script([START, TextDelta("a"), Failed("x", None, "c-1")]))
    assert await follower.next() == [START, TextDelta("a")]
    with pytest.raises(UpstreamServerError):
        await follower.next()


async def test_a_file_is_replaced_by_where_it_can_be_had() -> None:
    client = ScriptedClient()
    events = await events_of(follow(Script([START, TextDelta("Here: "), PICTURE, END]), client))
    assert events == [START, TextDelta("Here: "), FileLink("https://files.test/1", "image", "a picture"), END]
    assert client.calls == ["file sediment://file_1"]


async def test_a_file_that_cannot_be_had_ends_nothing() -> None:
    events = await events_of(follow(Script([START, PICTURE, END]), ScriptedClient(url=None)))
    assert events == [START, FileLink(None, "image", "a picture"), END]


# The rest of a cut answer


async def test_a_cut_answer_is_one_answer_with_one_beginning_and_one_end() -> None:
    first, second = Script([START, TextDelta("a"), CUT], raw_text="a"), Script([START, TextDelta("b"), END])
    client = ScriptedClient([second])
    assert await events_of(follow(first, client)) == [START, TextDelta("a"), TextDelta("b"), END]
    assert client.calls == ["continue after 'a'"]
    assert (first.closed, second.closed) == (1, 1)


async def test_an_answer_that_is_cut_again_and_again_ends_as_cut() -> None:
    rests: list[AnswerSource | UpstreamError] = [Script([TextDelta("b"), CUT]) for _ in range(MAX_CONTINUES + 2)]
    client = ScriptedClient(rests)
    events = await events_of(follow(Script([START, TextDelta("a"), CUT]), client))
    assert text_of(events) == "a" + "b" * MAX_CONTINUES
    assert events[-1] == CUT
    assert len(client.calls) == MAX_CONTINUES


async def test_a_rest_that_is_refused_ends_the_answer_as_cut() -> None:
    client = ScriptedClient([UpstreamServerError("no", upstream_status=500)])
    events = await events_of(follow(Script([START, TextDelta("a"), CUT]), client))
    assert events == [START, TextDelta("a"), CUT]


async def test_a_cut_without_a_place_is_the_end() -> None:
    cut = Finished("length", None, None, None, continuable=True)
    client = ScriptedClient()
    assert (await events_of(follow(Script([START, TextDelta("a"), cut]), client)))[-1] == cut
    assert client.calls == []


# Limits


@pytest.mark.parametrize(
    ("turn", "limits", "phase"),
    [
        (Script(silent=True), AnswerLimits(0.02, 30, 60), "first_content"),
        (Script([START], silent=True), AnswerLimits(0.02, 30, 60), "first_content"),
        (Script([START, TextDelta("a")], silent=True), AnswerLimits(30, 0.02, 60), "between_events"),
        (Script([START, ReasoningDelta("a")], silent=True), AnswerLimits(30, 0.02, 60), "between_events"),
        (Script([START, PICTURE], silent=True), AnswerLimits(30, 0.02, 60), "between_events"),
        (Script(silent=True), AnswerLimits(30, 30, 0.02), "whole_answer"),
        (Script([START, TextDelta("a")], silent=True), AnswerLimits(30, 30, 0.02), "whole_answer"),
    ],
)
async def test_R1_silence_ends_with_the_phase_that_was_too_long(turn: Script, limits: AnswerLimits, phase: str) -> None:
    with pytest.raises(UpstreamTimeoutError) as caught:
        await events_of(follow(turn, limits=limits))
    assert caught.value.phase == phase
    assert turn.closed == 1


async def test_R1_a_beginning_without_content_does_not_begin_the_answer() -> None:
    """Started says nothing yet: the limit of the first content holds on."""
    turn = Script(*[[START]] * 3, silent=True)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamTimeoutError):
        await events_of(follow(turn, limits=AnswerLimits(0.05, 30, 60)))
    assert asyncio.get_running_loop().time() - begun < 2


# Answers that moved, as the simulator moves them


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made


async def simulated(bench: Bench, prompt: Prompt = QUESTION, **choice: Any) -> TurnFollower:
    """Start a turn at the simulator that goes as chosen, and follow it."""
    bench.control.set_options(**choice)
    session = bench.session()
    turn = await bench.client.start_turn(session, prompt)
    return follow(turn, bench.client, prompt=prompt, session=session, clock=bench.clock)


@pytest.mark.parametrize("offset", [0, 1, 2])
async def test_a_handed_off_answer_is_resumed(bench: Bench, offset: int) -> None:
    bench.control.set_options(resume_offset=offset)
    events = await events_of(await simulated(bench, answer="handoff", encoding="v1"))
    assert text_of(events) == ANSWER
    assert sum(isinstance(event, Started) for event in events) == 1
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("polls", [0, 1, 3])
async def test_an_answer_that_cannot_be_resumed_is_read_from_the_stored_conversation(bench: Bench, polls: int) -> None:
    bench.control.set_options(pending_polls=polls)
    events = await events_of(await simulated(bench, answer="handoff_poll", encoding="v1"))
    assert text_of(events) == ANSWER
    assert isinstance(events[-1], Finished)
    assert bench.clock.slept == [POLL_SECONDS] * polls
    assert bench.routes.count("history_get") == polls + 1


async def test_a_temporary_answer_that_cannot_be_resumed_is_interrupted(bench: Bench) -> None:
    temporary = Prompt(QUESTION.messages, QUESTION.model)
    with pytest.raises(AnswerElsewhereError, match="temporary"):
        await events_of(await simulated(bench, temporary, answer="handoff_poll", encoding="v1"))
    assert "history_get" not in bench.routes


async def test_a_temporary_answer_that_was_handed_off_is_resumed_all_the_same(bench: Bench) -> None:
    temporary = Prompt(QUESTION.messages, QUESTION.model)
    assert text_of(await events_of(await simulated(bench, temporary, answer="handoff", encoding="v1"))) == ANSWER


@pytest.mark.parametrize("temporary", [True, False])
async def test_an_answer_on_a_socket_of_2024_is_read_there(bench: Bench, temporary: bool) -> None:
    prompt = Prompt(QUESTION.messages, QUESTION.model, temporary=temporary)
    for _ in range(3):
        events = await events_of(await simulated(bench, prompt, answer="websocket_2024"))
        assert text_of(events) == ANSWER
        assert isinstance(events[-1], Finished)
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


@pytest.mark.parametrize("temporary", [True, False])
async def test_an_answer_that_cannot_be_resumed_is_read_from_its_topic(bench: Bench, temporary: bool) -> None:
    prompt = Prompt(QUESTION.messages, QUESTION.model, temporary=temporary)
    bench.control.refuse("resume", "not_found", times=None)
    events = await events_of(await simulated(bench, prompt, answer="handoff", encoding="v1"))
    assert text_of(events) == ANSWER
    assert "history_get" not in bench.routes


async def test_an_answer_that_moves_on_and_on_is_read_from_where_it_is_stored() -> None:
    class Mover(StoredClient):
        async def resume_turn(self, session: Session, handed: HandedOff) -> AnswerSource:
            self.calls.append("resume")
            return Script([START, MOVED])

    client = Mover("all of it")
    assert text_of(await events_of(follow(Script([START, MOVED]), client))) == "all of it"
    assert client.calls == ["resume"] * MAX_MOVES


async def test_an_answer_that_is_not_stored_yet_is_asked_for_again(bench: Bench) -> None:
    follower = await simulated(bench, answer="handoff_poll", encoding="v1")
    bench.control.refuse("history_get", "conversation_not_found", times=MAX_MISSES)
    assert text_of(await events_of(follower)) == ANSWER


async def test_an_answer_that_is_never_stored_is_out_of_reach(bench: Bench) -> None:
    follower = await simulated(bench, answer="handoff_poll", encoding="v1")
    bench.control.refuse("history_get", "conversation_not_found", times=None)
    with pytest.raises(AnswerElsewhereError):
        await events_of(follower)
    assert bench.clock.slept == [POLL_SECONDS] * MAX_MISSES


async def test_a_picture_that_was_given_up_is_not_waited_for(bench: Bench) -> None:
    picture = Prompt(QUESTION.messages, ModelChoice("auto", hints=(PICTURE_HINT,)), temporary=False)
    with pytest.raises(AnswerElsewhereError, match="without"):
        await events_of(await simulated(bench, picture, answer="image_given_up"))
    assert bench.clock.slept == []


@pytest.mark.parametrize("polls", [0, 2])
async def test_a_picture_that_comes_later_is_waited_for(bench: Bench, polls: int) -> None:
    bench.control.set_options(pending_polls=polls)
    picture = Prompt(QUESTION.messages, ModelChoice("auto", hints=(PICTURE_HINT,)), temporary=False)
    events = await events_of(await simulated(bench, picture, answer="image_async"))
    (link,) = [event for event in events if isinstance(event, FileLink)]
    assert link.url is not None
    assert isinstance(events[-1], Finished)
    assert bench.clock.slept == [POLL_SECONDS] * polls


@pytest.mark.parametrize(
    "body", ["null", "[]", "5", "{}", "<html>", '{"mapping": 5}', '{"mapping": {}, "current_node": ["x"]}']
)
async def test_R14_a_stored_conversation_of_a_wrong_shape_never_ends_as_a_crash(bench: Bench, body: str) -> None:
    follower = await simulated(bench, answer="handoff_poll", encoding="v1")
    headers = (("content-type", "application/json"),)
    bench.control.fail("history_get", Fault("answer", status=200, headers=headers, body=body), times=1)
    try:
        assert text_of(await events_of(follower)) == ANSWER, "an empty one is asked for again"
        assert bench.routes.count("history_get") > 1
    except UpstreamError:
        assert bench.routes.count("history_get") == 1


async def test_R1_a_stored_answer_that_is_never_finished_is_given_up(bench: Bench) -> None:
    bench.control.set_options(pending_polls=10_000)
    follower = await simulated(bench, answer="handoff_poll", encoding="v1")
    # The stream, which is read before, takes some milliseconds.
    follower.first_by = asyncio.get_running_loop().time() + 1.0
    with pytest.raises(UpstreamTimeoutError) as caught:
        await events_of(follower)
    assert caught.value.phase == "stored_answer"


class StoredClient(ScriptedClient):
    """A client whose resume call has nothing and whose stored conversation holds one answer."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    async def resume_turn(self, session: Session, handed: HandedOff) -> AnswerSource:
        raise StreamInterruptedError("not there")

    async def stored_conversation(self, session: Session, conversation_id: str) -> dict[str, object]:
        answer = {
            "id": "m-1",
            "author": {"role": "assistant"},
            "status": "finished_successfully",
            "end_turn": True,
            "recipient": "all",
            "content": {"content_type": "text", "parts": [self._text]},
            "metadata": {"finish_details": {"type": "stop"}, "is_complete": True},
        }
        question = {"id": "q", "author": {"role": "user"}, "content": {"content_type": "text", "parts": ["?"]}}
        return {
            "conversation_id": conversation_id,
            "current_node": "m-1",
            "mapping": {
                "q": {"id": "q", "parent": None, "children": ["m-1"], "message": question},
                "m-1": {"id": "m-1", "parent": "q", "children": [], "message": answer},
            },
        }


MOVED = HandedOff("c-1", None, "token")


@pytest.mark.parametrize(
    ("given", "stored", "rest"),
    [
        ((), "all of it", "all of it"),
        (("all ", "of"), "all of it", " it"),
        (("all of it",), "all of it", ""),
        (("something else",), "all of it", "all of it"),
        (("all of it and more",), "all of it", ""),
    ],
)
async def test_what_was_given_before_is_not_given_again(given: tuple[str, ...], stored: str, rest: str) -> None:
    turn = Script([START, *map(TextDelta, given), MOVED])
    events = await events_of(follow(turn, StoredClient(stored)))
    assert text_of(events) == "".join(given) + rest
    assert isinstance(events[-1], Finished)
    assert TextDelta("") not in events


async def test_an_image_still_being_made_in_no_known_conversation_is_interrupted() -> None:
    with pytest.raises(StreamInterruptedError):
        await events_of(follow(Script([START, ImagePending(None, None)])))


async def test_R10_leaving_closes_what_is_being_read() -> None:
    first, second = Script([START, TextDelta("a"), CUT]), Script(silent=True)
    follower = follow(first, ScriptedClient([second]))
    reading = asyncio.ensure_future(events_of(follower))
    await until(lambda: first.closed == 1, "the first part was not left")
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert (first.closed, second.closed) == (1, 1)


class Offering(Script):
    """An answer that offers each batch before it gives it, as a BackendTurn does."""

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        while True:
            batch = await super().next()
            if not batch or take is None or not take(batch):
                return batch


async def test_only_deltas_after_the_first_content_are_offered() -> None:
    taken: list[Event] = []

    def take(events: Sequence[Event]) -> bool:
        taken.extend(events)
        return True

    turn = Offering([START, TextDelta("a")], [TextDelta("b")], [ReasoningDelta("c")], [TextDelta("d"), PICTURE], [END])
    follower = follow(turn)
    follower.take = take
    events = await events_of(follower)
    assert taken == [TextDelta("b"), ReasoningDelta("c")]
    assert events == [
        START,
        TextDelta("a"),
        TextDelta("d"),
        FileLink("https://files.test/1", "image", "a picture"),
        END,
    ]


async def test_deltas_that_were_taken_count_as_given_when_the_answer_is_read_again_elsewhere() -> None:
    turn = Offering([START, TextDelta("all ")], [TextDelta("of")], [MOVED])
    follower = follow(turn, StoredClient("all of it"))
    follower.take = lambda events: True
    assert text_of(await events_of(follower)) == "all  it"


async def test_R1_a_delta_that_was_taken_puts_the_silence_off() -> None:
    limits = AnswerLimits(first_content=5, between_events=0.7, whole=60)
    seen: list[float] = []
    clock = asyncio.get_running_loop().time

    class Slow(Offering):
        async def next(self, take: TakeEvents | None = None) -> list[Event]:
            if not self._batches:
                for _ in range(8):
                    await asyncio.sleep(0.1)
                    assert take is not None and take([TextDelta("x")])
                    seen.append(clock())
            return await super().next(take)

    follower = follow(Slow([START, TextDelta("a")], silent=True), limits=limits)
    follower.take = lambda events: True
    with pytest.raises(UpstreamTimeoutError) as caught:
        await events_of(follower)
    assert (caught.value.phase, len(seen)) == ("between_events", 8)
