"""The relay: bounded, in order, ended exactly once, failures after what came before them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any

import pytest

from chat2api.api.relay import OUTBOX_LIMIT, AnswerRelay, size_of_events
from chat2api.errors import DrainingError, NoAccountError, StreamInterruptedError
from chat2api.protocol.events import Event, TakeEvents, TextDelta
from chat2api.upstream.alarms import Alarms


def spawn(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(work, name=name)


def relay_of(*sources: AsyncGenerator[Sequence[Event]]) -> AnswerRelay[Sequence[Event]]:
    left = iter(sources)
    alarms = Alarms(asyncio.get_running_loop())
    return AnswerRelay(lambda take: next(left), spawn, size_of_events, alarms, choices=len(sources))


async def texts(*parts: str, then: Exception | None = None) -> AsyncGenerator[Sequence[Event]]:
    for part in parts:
        yield [TextDelta(part)]
        await asyncio.sleep(0)
    if then is not None:
        raise then


def joined(batches: list[tuple[int, Sequence[Event]]], index: int = 0) -> str:
    return "".join(
        event.text for tag, events in batches if tag == index for event in events if isinstance(event, TextDelta)
    )


async def drain(relay: AnswerRelay[Sequence[Event]]) -> list[tuple[int, Sequence[Event]]]:
    taken = []
    while batches := await relay.next():
        taken += batches
    return taken


async def test_everything_comes_once_and_in_order() -> None:
    relay = relay_of(texts(*map(str, range(100))))
    assert joined(await drain(relay)) == "".join(map(str, range(100)))
    await relay.aclose()


async def test_choices_share_one_relay() -> None:
    relay = relay_of(texts("a", "b"), texts("x", "y", "z"))
    batches = await drain(relay)
    assert (joined(batches, 0), joined(batches, 1)) == ("ab", "xyz")


async def test_waiting_gives_up_after_the_timeout_and_loses_nothing() -> None:
    gate = asyncio.Event()

    async def late() -> AsyncGenerator[Sequence[Event]]:
        await gate.wait()
        yield [TextDelta("late")]

    relay = relay_of(late())
    assert await relay.wait(0.01) is False
    gate.set()
    assert joined(await drain(relay)) == "late"


async def test_each_wait_has_its_own_time_although_they_share_a_timer() -> None:
    doors = [asyncio.Event() for _ in range(3)]

    async def in_turn() -> AsyncGenerator[Sequence[Event]]:
        for door in doors:
            await door.wait()
            yield [TextDelta("x")]

    loop = asyncio.get_running_loop()
    relay = relay_of(in_turn())
    loop.call_later(0.03, doors[0].set)
    assert await relay.wait(0.06) is True
    relay.take()

    begun = loop.time()
    assert await relay.wait(0.06) is False  # the timer of the first wait fires in its middle
    assert loop.time() - begun >= 0.055

    loop.call_soon(doors[1].set)
    assert await relay.wait(60) is True
    relay.take()

    begun = loop.time()
    assert await relay.wait(0.01) is False  # the timer that is set would be far too late
    assert loop.time() - begun < 5
    await relay.aclose()


async def test_R2_a_failure_before_content_is_told_at_once() -> None:
    relay = relay_of(texts(then=NoAccountError("none")))
    assert await relay.wait(1)
    with pytest.raises(NoAccountError):
        relay.check_begun()
    await relay.aclose()


async def test_R2_a_failure_after_content_comes_after_the_content() -> None:
    relay = relay_of(texts("begun", then=StreamInterruptedError("cut")))
    await relay.wait(1)
    relay.check_begun()
    assert joined(await relay.next()) == "begun"
    with pytest.raises(StreamInterruptedError):
        await relay.next()
    await relay.aclose()


async def test_a_failing_choice_ends_the_answer_although_others_go_on() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[Sequence[Event]]:
        try:
            while True:
                yield [TextDelta("x")]
                await asyncio.sleep(0)
        finally:
            closed.set()

    relay = relay_of(endless(), texts(then=StreamInterruptedError("cut")))
    with pytest.raises(StreamInterruptedError):
        for _ in range(1000):
            await relay.next()
    await relay.aclose()
    assert closed.is_set()


async def test_R12_a_reader_that_stops_stops_the_source() -> None:
    made = 0

    async def fast() -> AsyncGenerator[Sequence[Event]]:
        nonlocal made
        while True:
            made += 1
            yield [TextDelta("x" * 1024)]
            await asyncio.sleep(0)

    relay = relay_of(fast())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert made * 1024 <= OUTBOX_LIMIT + 2048
    relay.take()
    for _ in range(10):
        await asyncio.sleep(0)
    assert made * 1024 > OUTBOX_LIMIT
    await relay.aclose()


async def test_R10_closing_closes_the_sources_wherever_they_are() -> None:
    closed = []

    async def source(number: int) -> AsyncGenerator[Sequence[Event]]:
        try:
            if number == 1:
                yield [TextDelta("x" * OUTBOX_LIMIT)]
                yield [TextDelta("never taken")]
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(number)

    relay = relay_of(source(0), source(1))
    await relay.wait(1)
    await relay.aclose()
    await relay.aclose()
    assert sorted(closed) == [0, 1]


async def test_R24_an_interruption_comes_after_what_has_arrived() -> None:
    async def half() -> AsyncGenerator[Sequence[Event]]:
        yield [TextDelta("half")]
        await asyncio.Event().wait()

    relay = relay_of(half())
    await relay.wait(1)
    relay.interrupt(DrainingError("stopping"))
    assert joined(await relay.next()) == "half"
    with pytest.raises(DrainingError):
        await relay.next()
    await relay.aclose()


async def test_deltas_are_taken_where_they_stand_only_while_the_response_waits_for_them() -> None:
    offers: list[TakeEvents] = []
    go_on = asyncio.Event()

    async def source() -> AsyncGenerator[Sequence[Event]]:
        yield [TextDelta("first ")]
        await go_on.wait()
        yield [TextDelta("last")]

    def open_source(take: TakeEvents) -> AsyncGenerator[Sequence[Event]]:
        offers.append(take)
        return source()

    relay = AnswerRelay(open_source, spawn, size_of_events, Alarms(asyncio.get_running_loop()))
    taken: list[str] = []

    def sink(index: int, events: Sequence[Event]) -> bool:
        taken.append(joined([(index, events)]))
        return True

    await relay.wait(1)
    relay.sink = sink
    assert offers[0]([TextDelta("early")]) is False, "what came before is still held"
    assert joined(relay.take()) == "first "
    assert offers[0]([TextDelta("busy")]) is False, "the response is not waiting"
    waiting = asyncio.ensure_future(relay.wait(1))
    await asyncio.sleep(0)
    assert offers[0]([TextDelta("at once")]) is True
    go_on.set()
    assert await waiting is True
    assert (taken, joined(relay.take())) == (["at once"], "last")
    await relay.aclose()


async def test_what_the_sink_does_not_take_goes_the_usual_way() -> None:
    offers: list[TakeEvents] = []

    async def silent() -> AsyncGenerator[Sequence[Event]]:
        await asyncio.Event().wait()
        yield []

    def open_source(take: TakeEvents) -> AsyncGenerator[Sequence[Event]]:
        offers.append(take)
        return silent()

    relay = AnswerRelay(open_source, spawn, size_of_events, Alarms(asyncio.get_running_loop()))
    relay.sink = lambda index, events: False
    waiting = asyncio.ensure_future(relay.wait(1))
    await asyncio.sleep(0)
    assert offers[0]([TextDelta("slow client")]) is False
    relay.interrupt(DrainingError("stopping"))
    await waiting
    await relay.aclose()
