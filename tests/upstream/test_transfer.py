import asyncio
from collections.abc import Callable
from math import inf

import pytest

from chat2api.errors import TransportError, UpstreamProtocolError, UpstreamTimeoutError
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.exchange import Request
from chat2api.upstream.transfer import HELD_LIMIT, PAUSE, Limits, Receiver, Transfer
from chat2api.upstream.urls import locate

URL = "http://host.test/path"
SOON = 5.0


class FakeHandle:
    """Records what is asked of it, and says about the connection what the test wrote down."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connected: float | None = None
        self.counts = (0, 0)
        self.resume_code = 0
        self.to_offer: bytes | None = None
        self.frames: list[tuple[int, bytes]] = []
        self.frame_code = 0
        self.waiting: list[Callable[[], None]] = []
        self._receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def settle(self, *, shared: bool) -> None:
        self.asked.append(f"settle shared={shared}")

    def afterwards(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def end_act(self) -> None:
        """Do what libcurl does when it has given all that there is."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()

    def resume(self) -> int:
        self.asked.append("resume")
        if self.to_offer is not None and self._receiver is not None:
            self._receiver.on_data(self.to_offer)
        return self.resume_code

    def stop(self) -> None:
        self.asked.append("stop")

    def release(self, *, keep: bool) -> None:
        self.asked.append(f"release keep={keep}")

    def send_frame(self, kind: int, payload: bytes) -> int:
        self.frames.append((kind, payload))
        return self.frame_code

    def connected_after(self) -> float | None:
        return self.connected

    def sent(self) -> tuple[int, int]:
        return self.counts

    def tunnel_stands(self) -> bool:
        return False


class FakeOwner:
    def __init__(self) -> None:
        self.alarms = Alarms(asyncio.get_running_loop())
        self.told: list[str] = []

    def arrive(self, transfer: Transfer, set_cookies: list[str]) -> None:
        self.told.append(f"arrive {set_cookies}")

    def end(self, transfer: Transfer, *, failed: bool) -> None:
        self.told.append(f"end failed={failed}")


class Scene:
    """A transfer between a fake handle and a fake owner; limits in seconds from now."""

    def __init__(
        self,
        *,
        connect: float = SOON,
        headers: float = SOON,
        whole: float = inf,
        max_bytes: int | None = None,
        proxy: str | None = None,
        body: bytes | None = None,
    ) -> None:
        self.handle, self.owner = FakeHandle(), FakeOwner()
        now = asyncio.get_running_loop().time()
        limits = Limits(now + connect, headers, now + whole, max_bytes)
        request = Request("GET" if body is None else "POST", URL, (), body)
        self.transfer = Transfer(self.handle, self.owner, request, locate(URL), proxy, limits)
        self.transfer.start()

    def head(self, status: bytes = b"200 OK", version: bytes = b"HTTP/1.1", *more: bytes) -> None:
        for line in (version + b" " + status + b"\r\n", *more, b"\r\n"):
            self.transfer.head.write(line)


async def test_a_stream_gives_what_came_and_then_its_end() -> None:
    scene = Scene()
    waiting = asyncio.get_running_loop().create_task(scene.transfer.wait_for_head())
    await asyncio.sleep(0)
    scene.head(b"200 OK", b"HTTP/1.1", b"Set-Cookie: a=1\r\n")
    await waiting
    assert (scene.transfer.status, scene.handle.asked) == (200, ["settle shared=False"])
    assert scene.owner.told == ["arrive ['a=1']"]
    for piece in (b"a", b"b"):
        assert scene.transfer.on_data(piece) == 1
    assert await scene.transfer.read() == b"ab"
    scene.transfer.on_end(0, None)
    assert [await scene.transfer.read() for _ in range(2)] == [b"", b""]
    await scene.transfer.aclose()
    assert (scene.handle.asked[1:], scene.owner.told[1:]) == (["release keep=True"], ["end failed=False"])


async def test_what_comes_in_one_act_is_handed_over_as_one_piece_at_its_end_and_without_a_turn_of_the_loop() -> None:
    scene = Scene()
    scene.head()
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return len(taken) < 2

    passing = asyncio.get_running_loop().create_task(scene.transfer.pass_on(take))
    await asyncio.sleep(0)
    for piece in (b"a", b"b"):
        scene.transfer.on_data(piece)
    assert taken == []
    scene.handle.end_act()
    assert taken == [b"ab"]
    scene.transfer.on_data(b"c")
    scene.handle.end_act()
    assert taken == [b"ab", b"c"]
    assert await passing is True
    await scene.transfer.aclose()


async def test_F4_the_loop_turns_between_any_two_times_that_bytes_are_handed_over() -> None:
    scene = Scene()
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    waiting = asyncio.get_running_loop().create_task(scene.transfer.wait_for_head())
    await asyncio.sleep(0)
    scene.head()
    await waiting
    counting = asyncio.get_running_loop().create_task(count())
    before: list[int] = []

    def take(data: bytes) -> bool:
        before.append(len(turns))
        scene.transfer.on_data(b"more")
        return False

    scene.transfer.on_data(b"x")
    for _ in range(4):
        assert await scene.transfer.pass_on(take) is True
    assert before[0] == 0, "the wait for the head was one"
    assert before[1:] == sorted({*before[1:]}), "and there is one before each of the others"
    counting.cancel()
    await scene.transfer.aclose()


async def test_an_act_that_brings_the_end_as_well_leaves_the_rest_to_the_reader() -> None:
    scene = Scene()
    scene.head()
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    passing = asyncio.get_running_loop().create_task(scene.transfer.pass_on(take))
    await asyncio.sleep(0)
    scene.transfer.on_data(b"a")
    scene.transfer.on_end(0, None)
    scene.handle.end_act()
    assert await passing is False
    assert taken == [b"a"]


@pytest.mark.parametrize(("version", "shared"), [(b"HTTP/1.0", False), (b"HTTP/1.1", False), (b"HTTP/2", True)])
async def test_a_stream_is_settled_once_and_as_its_http_version_allows(version: bytes, shared: bool) -> None:
    scene = Scene()
    scene.head(b"103 Early Hints", version)
    assert scene.handle.asked == []
    scene.head(b"200", version)
    scene.transfer.head.write(b"X-Trailer: 1\r\n")
    scene.transfer.head.write(b"\r\n")
    assert scene.handle.asked == [f"settle shared={shared}"]
    await scene.transfer.aclose()


async def test_R12_what_is_held_has_a_bound_and_is_offered_again_when_it_was_taken() -> None:
    scene = Scene()
    scene.head()
    assert scene.transfer.on_data(b"x" * HELD_LIMIT) == HELD_LIMIT
    assert scene.transfer.on_data(b"y") == PAUSE
    scene.handle.to_offer = b"y"
    assert await scene.transfer.read() == b"x" * HELD_LIMIT
    assert scene.handle.asked[-1] == "resume"
    assert await scene.transfer.read() == b"y"
    assert scene.handle.asked.count("resume") == 1
    await scene.transfer.aclose()


async def test_a_transfer_that_cannot_be_resumed_is_aborted() -> None:
    scene = Scene()
    scene.head()
    scene.transfer.on_data(b"x" * HELD_LIMIT)
    scene.transfer.on_data(b"y")
    scene.handle.resume_code = 56
    await scene.transfer.read()
    assert scene.handle.asked[-2:] == ["stop", "release keep=False"]
    with pytest.raises(TransportError, match="curl 56"):
        await scene.transfer.read()


async def test_a_whole_answer_wakes_its_reader_once_and_is_never_settled() -> None:
    scene = Scene(max_bytes=4)
    waiting = asyncio.get_running_loop().create_task(scene.transfer.take_whole())
    await asyncio.sleep(0)
    scene.head()
    scene.transfer.on_data(b"ab")
    scene.transfer.on_data(b"cd")
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.transfer.on_end(0, None)
    assert await waiting == b"abcd"
    assert scene.handle.asked == ["release keep=True"]


async def test_S37_a_whole_answer_past_its_bound_is_refused() -> None:
    scene = Scene(max_bytes=4)
    scene.head()
    scene.transfer.on_data(b"abcd")
    with pytest.raises(UpstreamProtocolError) as caught:
        scene.transfer.on_data(b"e")
    scene.transfer.on_end(23, caught.value)  # curl gives back what its callback raised
    with pytest.raises(UpstreamProtocolError, match="longer than 4 bytes"):
        await scene.transfer.take_whole()
    assert scene.handle.asked == ["release keep=False"]


async def test_R10_closing_stops_and_releases_once_and_tells_who_waits() -> None:
    scene = Scene()
    scene.head()
    waiting = asyncio.get_running_loop().create_task(scene.transfer.read())
    await asyncio.sleep(0)
    await scene.transfer.aclose()
    await scene.transfer.aclose()
    with pytest.raises(TransportError):
        await waiting
    assert scene.handle.asked[1:] == ["stop", "release keep=False"]
    assert scene.owner.told[-1] == "end failed=True"


async def test_an_end_without_a_head_is_an_error_that_says_whether_the_request_left() -> None:
    for counts, sent in (((0, 0), False), ((300, 1), False), ((300, 2), True)):
        scene = Scene(body=b"{}")
        scene.handle.counts = counts
        scene.transfer.on_end(0, None)
        with pytest.raises(TransportError) as caught:
            await scene.transfer.wait_for_head()
        assert (caught.value.phase, caught.value.request_sent) == ("headers", sent)


async def test_a_second_reader_is_a_mistake_and_the_first_is_not_disturbed() -> None:
    scene = Scene()
    scene.head()
    first = asyncio.get_running_loop().create_task(scene.transfer.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await scene.transfer.read()
    scene.transfer.on_data(b"x")
    assert await first == b"x"
    await scene.transfer.aclose()


async def test_a_reader_that_is_cancelled_can_be_followed_by_another() -> None:
    scene = Scene()
    scene.head()
    first = asyncio.get_running_loop().create_task(scene.transfer.read())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    scene.transfer.on_data(b"x")
    assert await scene.transfer.read() == b"x"
    await scene.transfer.aclose()


@pytest.mark.parametrize(
    ("connected", "limits", "phase"),
    [
        (None, {"connect": 0.02}, "connect"),
        (None, {"connect": 0.04, "headers": 0.01}, "connect"),
        (0.01, {"connect": 0.01, "headers": 0.02}, "headers"),
        (None, {"whole": 0.02}, "whole"),
        (0.01, {"whole": 0.02}, "whole"),
    ],
)
async def test_R1_each_limit_ends_the_transfer_in_its_own_name(
    connected: float | None, limits: dict[str, float], phase: str
) -> None:
    scene = Scene(**limits)  # type: ignore[arg-type]  # the limits alone
    scene.handle.connected = connected
    async with asyncio.timeout(SOON):
        with pytest.raises(UpstreamTimeoutError) as caught:
            await scene.transfer.wait_for_head()
    assert caught.value.phase == phase
    assert scene.handle.asked == ["stop", "release keep=False"]


async def test_R1_a_stream_whose_head_came_has_no_limit_here() -> None:
    scene = Scene(connect=0.02, headers=0.02)
    scene.head()
    await scene.transfer.wait_for_head()
    await asyncio.sleep(0.05)
    assert scene.handle.asked == ["settle shared=False"]
    await scene.transfer.aclose()


async def test_a_407_is_the_proxys_only_where_there_is_one() -> None:
    plain, by_proxy = Scene(), Scene(proxy="http://proxy.test")
    for scene in (plain, by_proxy):
        scene.head(b"407 Proxy Authentication Required")
    await plain.transfer.wait_for_head()
    with pytest.raises(TransportError, match="proxy"):
        await by_proxy.transfer.wait_for_head()
    await plain.transfer.aclose()
    await by_proxy.transfer.aclose()
