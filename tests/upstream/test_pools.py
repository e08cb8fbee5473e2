import asyncio
from collections.abc import Callable

import pytest

from chat2api.errors import TransportError
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import Lines
from chat2api.upstream.pools import Pool
from chat2api.upstream.profiles import PROFILES
from chat2api.upstream.transfer import Limits, Receiver, Transfer
from chat2api.upstream.urls import locate
from tests.clocks import FakeClock

URL = "https://host.test/path"
ORIGIN = "https://host.test"


class FakeConnections:
    """Gives handles that do nothing, and records with what they were asked for."""

    def __init__(self) -> None:
        self.taken: list[tuple[Request, Lines, bytes | None]] = []
        self.handles: list[FakeHandle] = []
        self.closed = False

    def take(self, request: Request, lines: Lines, pinned: bytes | None) -> "FakeHandle":
        self.taken.append((request, lines, pinned))
        self.handles.append(FakeHandle())
        return self.handles[-1]

    def close(self) -> None:
        assert all(handle.released for handle in self.handles)
        self.closed = True


class FakeHandle:
    def __init__(self) -> None:
        self.connected: float | None = None
        self.released = False

    def start(self, receiver: Receiver) -> None:
        """Nothing happens until the test says so."""

    def settle(self, *, shared: bool) -> None: ...

    def afterwards(self, callback: Callable[[], None]) -> None: ...

    def resume(self) -> int:
        return 0

    def stop(self) -> None: ...

    def release(self, *, keep: bool) -> None:
        self.released = True

    def send_frame(self, kind: int, payload: bytes) -> int:
        return 0

    def connected_after(self) -> float | None:
        return self.connected

    def sent(self) -> tuple[int, int]:
        return 0, 0

    def tunnel_stands(self) -> bool:
        return False


class Scene:
    def __init__(self) -> None:
        self.made: list[FakeConnections] = []
        self.clock = FakeClock()
        self.pool = Pool(Channel("a", None, PROFILES[0]), self._connect, self.clock, Alarms(asyncio.get_running_loop()))

    def _connect(self, channel: Channel) -> FakeConnections:
        self.made.append(FakeConnections())
        return self.made[-1]

    def send(self, request: Request | None = None) -> Transfer:
        request = request or Request("GET", URL)
        by = asyncio.get_running_loop().time() + 60
        return self.pool.send(request, locate(request.url), Limits(by))

    @property
    def lines(self) -> list[bytes]:
        return self.made[-1].taken[-1][1].whole()


async def test_connections_are_made_with_the_first_request_and_again_after_they_were_closed() -> None:
    scene = Scene()
    assert (scene.pool.connected, scene.made) == (False, [])
    first = scene.send()
    second = scene.send()
    assert (scene.pool.connected, len(scene.made), scene.pool.running) == (True, 1, {first, second})
    scene.pool.disconnect()
    assert (scene.pool.connected, scene.made[0].closed, scene.pool.running) == (False, True, set())
    with pytest.raises(TransportError, match="stopping"):
        await first.read()
    scene.send()
    assert len(scene.made) == 2
    scene.pool.disconnect()


async def test_the_browsers_headers_and_the_cookies_go_with_a_request() -> None:
    scene = Scene()
    scene.pool.cookies.store(URL, ["held=1; Path=/", "both=held; Path=/"])
    scene.send(Request("POST", URL, (("Cookie", "both=mine"), ("Accept", "x/y")), b"{}"))
    agent = f"User-Agent: {PROFILES[0].user_agent}".encode()
    assert {agent, b"Accept: x/y", b"Content-Length: 2", b"Cookie: both=mine; held=1"} <= set(scene.lines)
    assert sum(line.lower().startswith((b"cookie", b"accept:")) for line in scene.lines) == 2
    scene.send(Request("GET", URL))
    assert b"Cookie: held=1; both=held" in scene.lines
    assert not any(line.startswith(b"Content-Length") for line in scene.lines)
    scene.pool.disconnect()


async def test_cookies_of_an_answer_are_kept_past_the_connections() -> None:
    scene = Scene()
    scene.pool.arrive(scene.send(), ["a=1; Path=/"])
    scene.pool.disconnect()
    scene.send()
    assert b"Cookie: a=1" in scene.lines
    scene.pool.disconnect()


@pytest.mark.parametrize(
    ("address", "entry"), [("127.0.0.1", b"+host.test:443:127.0.0.1"), ("::1", b"+host.test:443:[::1]")]
)
async def test_S33_an_address_is_bound_to_the_host(address: str, entry: bytes) -> None:
    scene = Scene()
    scene.send(Request("GET", URL, address=address))
    assert scene.made[0].taken[0][2] == entry
    scene.pool.disconnect()


async def test_S33_what_is_no_address_is_refused_before_anything_happens() -> None:
    scene = Scene()
    with pytest.raises(ValueError, match="address"):
        scene.send(Request("GET", URL, address="127.0.0.1:80:x"))
    assert (scene.made, scene.pool.running) == ([], set())


async def test_others_wait_only_while_the_first_one_connects() -> None:
    scene = Scene()
    assert not scene.pool.must_wait(ORIGIN)
    scene.send()
    assert (scene.pool.must_wait(ORIGIN), scene.pool.must_wait("https://other.test")) == (True, False)
    waiting = asyncio.get_running_loop().create_task(scene.pool.wait_for_first(ORIGIN, 60))
    await asyncio.sleep(0.005)
    assert not waiting.done()
    scene.made[0].handles[0].connected = 0.01
    async with asyncio.timeout(5):
        await waiting
    scene.pool.disconnect()


async def test_others_wait_no_longer_than_they_want_to() -> None:
    scene = Scene()
    scene.send()
    async with asyncio.timeout(5):
        await scene.pool.wait_for_first(ORIGIN, 0.01)
    assert scene.pool.must_wait(ORIGIN)
    scene.pool.disconnect()


async def test_after_a_failure_the_next_request_is_a_first_one_again() -> None:
    scene = Scene()
    first = scene.send()
    scene.pool.arrive(first, [])
    scene.send()
    assert not scene.pool.must_wait(ORIGIN)
    await first.aclose()
    scene.send()
    assert scene.pool.must_wait(ORIGIN)
    scene.pool.disconnect()


async def test_the_end_of_a_transfer_is_when_the_pool_was_last_used() -> None:
    scene = Scene()
    transfer = scene.send()
    scene.clock.advance(100)
    await transfer.aclose()
    assert scene.pool.used_at == scene.clock.monotonic()


async def test_a_request_that_cannot_even_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(FakeHandle, "start", _refuse)
    with pytest.raises(OSError, match="no more"):
        scene.send()
    assert scene.pool.running == set()
    assert scene.made[0].handles[0].released


def _refuse(self: FakeHandle, receiver: Receiver) -> None:
    raise OSError("no more")
