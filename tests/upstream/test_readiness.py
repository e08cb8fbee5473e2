import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from chat2api.upstream import readiness as readiness_module
from chat2api.upstream.readiness import BEAT, BUSY_STREAMS, IN, OUT, TURN, LoopReadiness, Readiness, watch_sockets

SOON = 5.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="beats need epoll")

if sys.platform == "linux":
    from chat2api.upstream.readiness import EpollReadiness


class Pairs:
    """Connected sockets: what is written to `far` makes `near` readable."""

    def __init__(self, count: int) -> None:
        self._stack = ExitStack()
        pairs = [socket.socketpair() for _ in range(count)]
        for near, far in pairs:
            near.setblocking(False)
            self._stack.enter_context(near)
            self._stack.enter_context(far)
        self.near = [near for near, _ in pairs]
        self.far = {near.fileno(): far for near, far in pairs}
        self.fds = [near.fileno() for near in self.near]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def pairs() -> Iterator[Callable[[int], Pairs]]:
    made: list[Pairs] = []

    def make(count: int) -> Pairs:
        made.append(Pairs(count))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Log:
    """Takes what is ready, reads it, and remembers when."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, bytes, float]] = []

    def __call__(self, fd: int, bits: int) -> None:
        data = os.read(fd, 4096) if bits & IN else b""
        self.seen.append((fd, bits, data, time.perf_counter()))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


@pytest.fixture(params=["epoll", "loop"])
async def each(request: pytest.FixtureRequest) -> AsyncIterator[Readiness]:
    loop = asyncio.get_running_loop()
    made: Readiness = EpollReadiness(loop) if request.param == "epoll" else LoopReadiness(loop)
    yield made
    made.close()
    made.close()


@pytest.fixture
async def beating() -> AsyncIterator["EpollReadiness"]:
    made = EpollReadiness(asyncio.get_running_loop())
    yield made
    made.close()


async def test_what_is_ready_is_told_with_its_bits(each: Readiness, pairs: Callable[[int], Pairs]) -> None:
    two, log = pairs(2), Log()
    each.watch(two.fds[0], IN, log)
    each.watch(two.fds[1], OUT, log)
    await until(lambda: bool(log.seen))
    each.unwatch(two.fds[1])
    two.far[two.fds[0]].send(b"x")
    await until(lambda: any(bits == IN for _, bits, _, _ in log.seen))
    assert {(fd, bits, data) for fd, bits, data, _ in log.seen} == {(two.fds[0], IN, b"x"), (two.fds[1], OUT, b"")}


async def test_a_watch_replaces_the_one_before(each: Readiness, pairs: Callable[[int], Pairs]) -> None:
    one, old, new = pairs(1), Log(), Log()
    fd = one.fds[0]
    each.watch(fd, IN | OUT, old)
    each.watch(fd, IN, new)
    for _ in range(5):
        await asyncio.sleep(0)
    one.far[fd].send(b"x")
    await until(lambda: bool(new.seen))
    assert (old.seen, [entry[:3] for entry in new.seen]) == ([], [(fd, IN, b"x")])
    each.unwatch(fd)
    each.unwatch(fd)
    one.far[fd].send(b"y")
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(new.seen) == 1


async def test_a_number_that_passed_to_a_new_socket_is_watched_again(
    each: Readiness, pairs: Callable[[int], Pairs]
) -> None:
    log = Log()
    near, far = socket.socketpair()
    fd = near.fileno()
    each.watch(fd, IN, log)
    two = pairs(1)
    far.close()
    os.dup2(two.fds[0], fd)  # closes the socket behind the number and puts another one there
    each.watch(fd, IN, log, renewed=True)
    two.far[two.fds[0]].send(b"x")
    await until(lambda: bool(log.seen))
    assert log.seen[0][:3] == (fd, IN, b"x")
    each.unwatch(fd)
    near.close()
    each.unwatch(fd)


async def test_a_hang_up_reaches_who_watches(each: Readiness, pairs: Callable[[int], Pairs]) -> None:
    one, seen = pairs(1), asyncio.Event()
    each.watch(one.fds[0], IN, lambda fd, bits: seen.set())
    one.far[one.fds[0]].close()
    async with asyncio.timeout(SOON):
        await seen.wait()


async def test_what_one_callback_unwatches_is_not_told_any_more(each: Readiness, pairs: Callable[[int], Pairs]) -> None:
    two = pairs(2)
    told: list[int] = []

    def on_ready(fd: int, bits: int) -> None:
        told.append(fd)
        for each_fd in two.fds:
            each.unwatch(each_fd)

    for fd in two.fds:
        two.far[fd].send(b"x")
        each.watch(fd, IN, on_ready)
    for _ in range(5):
        await asyncio.sleep(0)
    if isinstance(each, LoopReadiness):
        told = told[:1]  # the loop has both callbacks in hand by then, as it always had
    assert len(told) == 1


async def test_more_sockets_than_a_turn_takes_are_all_handled_with_turns_of_others_between(
    beating: "EpollReadiness", pairs: Callable[[int], Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness_module, "TURN", 8)
    many, log = pairs(30), Log()
    for fd in many.fds:
        many.far[fd].send(b"x")
        beating.watch(fd, IN, log)
    sizes: list[int] = []
    while len(log.seen) < 30:
        before = len(log.seen)
        await asyncio.sleep(0)
        sizes.append(len(log.seen) - before)
    assert max(sizes) <= 8 < TURN
    assert sorted(fd for fd, _, _, _ in log.seen) == sorted(many.fds)


class Busy:
    """As many settled streams as asked for, each brought to the calm side by a first byte."""

    def __init__(self, readiness: "EpollReadiness", pairs: Pairs) -> None:
        self.pairs = pairs
        self.log = Log()
        self._readiness = readiness
        for fd in pairs.fds:
            readiness.watch(fd, IN, self.log)
            readiness.settle(fd)
            readiness.begin_stream()

    async def warm_up(self) -> None:
        """Send until the readiness has gone over to beats."""
        deadline = time.monotonic() + SOON
        while not self._readiness.in_beats:
            assert time.monotonic() < deadline
            self.send()
            count = len(self.log.seen)
            await until(lambda count=count: len(self.log.seen) > count)  # type: ignore[misc]

    def send(self, data: bytes = b".") -> None:
        for far in self.pairs.far.values():
            far.send(data)


async def test_few_streams_are_never_held_back(beating: "EpollReadiness", pairs: Callable[[int], Pairs]) -> None:
    few = Busy(beating, pairs(BUSY_STREAMS))
    for _ in range(50):
        before = len(few.log.seen)
        few.send()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(few.log.seen) == before + BUSY_STREAMS
        assert not beating.in_beats


async def test_many_streams_come_once_a_beat_with_nothing_lost_and_in_order(
    beating: "EpollReadiness", pairs: Callable[[int], Pairs]
) -> None:
    many = Busy(beating, pairs(BUSY_STREAMS + 4))
    await many.warm_up()
    many.log.seen.clear()
    for number in range(30):
        many.send(b"%02d;" % number)
        await asyncio.sleep(0.001)
    await until(lambda: all(_text(many, fd).endswith(b"29;") for fd in many.pairs.fds))
    expected = b"".join(b"%02d;" % number for number in range(30))
    for fd in many.pairs.fds:
        assert _text(many, fd).lstrip(b".") == expected
    looks = sum(1 for entry in many.log.seen if entry[0] == many.pairs.fds[0])
    assert looks <= 15, "a wake-up for every other event at most, where each event had its own"


def _text(busy: Busy, fd: int) -> bytes:
    return b"".join(data for seen, _, data, _ in busy.log.seen if seen == fd)


async def test_R9_an_event_waits_for_one_beat_at_most(beating: "EpollReadiness", pairs: Callable[[int], Pairs]) -> None:
    many = Busy(beating, pairs(BUSY_STREAMS + 4))
    delays = []
    for _ in range(20):
        await many.warm_up()
        await asyncio.sleep(0)
        before, sent_at = len(many.log.seen), time.perf_counter()
        many.pairs.far[many.pairs.fds[0]].send(b"x")
        await until(lambda before=before: len(many.log.seen) > before)  # type: ignore[misc]
        delays.append(many.log.seen[before][3] - sent_at)
    assert sorted(delays)[10] <= 10 * BEAT


async def test_urgent_sockets_do_not_wait_for_a_beat(beating: "EpollReadiness", pairs: Callable[[int], Pairs]) -> None:
    many, log = Busy(beating, pairs(50)), Log()
    await many.warm_up()
    one = pairs(1)
    beating.watch(one.fds[0], IN, log)
    one.far[one.fds[0]].send(b"x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [entry[2] for entry in log.seen] == [b"x"]


async def test_hurry_takes_a_socket_out_of_the_beats(beating: "EpollReadiness", pairs: Callable[[int], Pairs]) -> None:
    many = Busy(beating, pairs(BUSY_STREAMS + 4))
    await many.warm_up()
    fd = many.pairs.fds[0]
    await until(lambda: many.log.seen[-1][3] + BEAT < time.perf_counter() or not beating.in_beats)
    beating.hurry(fd)
    many.log.seen.clear()
    many.pairs.far[fd].send(b"x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [entry[2] for entry in many.log.seen if entry[0] == fd] == [b"x"]


async def test_no_beat_runs_when_nothing_comes_and_the_first_event_after_a_rest_is_not_late(
    beating: "EpollReadiness", pairs: Callable[[int], Pairs]
) -> None:
    many = Busy(beating, pairs(BUSY_STREAMS + 4))
    await many.warm_up()
    await until(lambda: not beating.in_beats)
    await asyncio.sleep(BEAT)
    before = len(many.log.seen)
    many.pairs.far[many.pairs.fds[0]].send(b"x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(many.log.seen) == before + 1
    assert not beating.in_beats


async def test_beats_end_when_the_streams_become_few(beating: "EpollReadiness", pairs: Callable[[int], Pairs]) -> None:
    many = Busy(beating, pairs(BUSY_STREAMS + 1))
    await many.warm_up()
    beating.end_stream()
    assert not beating.in_beats
    before = len(many.log.seen)
    many.send()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(many.log.seen) == before + BUSY_STREAMS + 1


async def test_closing_gives_the_descriptors_back_also_in_beats(pairs: Callable[[int], Pairs]) -> None:
    many = pairs(BUSY_STREAMS + 4)
    before = len(os.listdir("/proc/self/fd"))
    made = EpollReadiness(asyncio.get_running_loop())
    await Busy(made, many).warm_up()
    made.close()
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_best_of_this_machine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    best = watch_sockets(loop)
    assert isinstance(best, EpollReadiness)
    best.close()
    monkeypatch.setattr(sys, "platform", "another")
    assert isinstance(watch_sockets(loop), LoopReadiness)
