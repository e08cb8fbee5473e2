"""The whole house on loopback: the simulator, the real server in front of it, the official client in front of that.

A house is started once for many cases. What one case leaves behind must not reach the next: `Bench.case` gives each
its own accounts, forgets the simulator's scripts and records, and lets enough time pass (on the house's own clock) for
every guessed wait and every open breaker to end.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import httpx
import openai
import pytest

from chat2api.accounts.importing import parse_import
from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.api.server import Address, Shutdown
from chat2api.clock import Clock, SystemClock
from chat2api.config import Config
from chat2api.gateway.sources import host_of
from chat2api.launch import run_server
from chat2api.logs import Redactor
from chat2api.runtime import Runtime
from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator
from chat2api.simulator.control import Control
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.sql_records import SqlRecords
from tests.proxies import HttpProxy, Socks5Proxy

OPERATOR_KEY = "operator-key-for-the-suite-0123456789"
SECOND_KEY = "another-operator-key-of-the-suite-9876543210"

QUESTION = "Name three rivers."
ANSWER = "Nile, Amazon, Danube."

NOWHERE = "http://127.0.0.1:9"
"""An origin where nobody listens: what a house asks for that stands in front of no simulator."""

SOON = 5.0
"""How long anything may take that ought to happen at once; generous, for busy machines."""

Wire = Literal["plain", "tls", "http_proxy", "socks5_proxy"]
"""How the server reaches the simulator: HTTP/1.1; HTTP/2 over TLS; through a proxy of the suite, over TLS again."""

WIRES: tuple[Wire, ...] = ("plain", "tls", "http_proxy", "socks5_proxy")


class HouseClock:
    """The machine's time, made to run faster and to jump forward, so that waits cost the suite little."""

    def __init__(self, speed: float = 1.0) -> None:
        """Let time run `speed` times as fast."""
        self._speed = speed
        self._ahead = 0.0
        self._born = time.monotonic()
        self._born_at = time.time()

    def now(self) -> float:
        """Unix seconds."""
        return self._born_at + self._passed()

    def monotonic(self) -> float:
        """Seconds since some start."""
        return self._born + self._passed()

    async def sleep(self, seconds: float) -> None:
        """Suspend for that many seconds of this clock."""
        await asyncio.sleep(seconds / self._speed)

    def advance(self, seconds: float) -> None:
        """Jump forward."""
        self._ahead += seconds

    def _passed(self) -> float:
        return (time.monotonic() - self._born) * self._speed + self._ahead


class _SimulatorClock:
    """Dates as the house's clock has them; pauses as long as the script says."""

    def __init__(self, house: HouseClock) -> None:
        self._house = house

    def now(self) -> float:
        return self._house.now()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class House:
    """A running server. `base` is its origin; `shutdown` stops it and `serving` then gives its exit status."""

    base: str
    runtime: Runtime
    shutdown: Shutdown
    serving: "asyncio.Task[int]"

    def client(self, key: str = OPERATOR_KEY, **options: object) -> openai.AsyncOpenAI:
        """Give the official client for a key, at its defaults but for what is said."""
        return openai.AsyncOpenAI(base_url=f"{self.base}/v1", api_key=key, **options)  # type: ignore[arg-type]

    @property
    def in_flight(self) -> int:
        """Leases that are out, of all callers."""
        sources = self.runtime.sources
        return sources.pool.pool.statistics().in_flight + sources.visitors.pool.statistics().in_flight


@asynccontextmanager
async def open_house(
    data_dir: Path,
    sim: Simulator | None = None,
    *,
    tokens: Sequence[str] = (),
    demo: bool = False,
    clock: Clock | None = None,
    **settings: str,
) -> AsyncIterator[House]:
    """Run a server on a free port of loopback, with these accounts, in front of the simulator.

    `settings` are environment variables by name; the base URL and the sign-in server are the simulator's plain origin
    unless they say otherwise.
    """
    environ = {
        "PORT": "0",
        "DATA_DIR": str(data_dir),
        "AUTHORIZATION": OPERATOR_KEY,
        "DRAIN_ACCEPT": "0",
        "ACCOUNT_CONCURRENCY": "1000",
        "CHATGPT_BASE_URL": NOWHERE,
        "OPENAI_AUTH_TOKEN_URL": f"{NOWHERE}/oauth/token",
        "OPENAI_BASE_URL": f"{NOWHERE}/v1",
    }
    if sim is not None:
        environ |= {"CHATGPT_BASE_URL": sim.url, "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token"}
    config = Config.from_env(environ | settings)
    if tokens:
        await add_tokens(data_dir, tokens)
    ready: asyncio.Future[House] = asyncio.get_running_loop().create_future()
    shutdown = Shutdown()

    def on_ready(runtime: Runtime, addresses: Sequence[Address]) -> None:
        ready.set_result(House(f"http://127.0.0.1:{addresses[0][1]}", runtime, shutdown, serving))

    serving = asyncio.get_running_loop().create_task(
        run_server(config, Redactor(), demo=demo, shutdown=shutdown, clock=clock, on_ready=on_ready)
    )
    waiting: list[asyncio.Future[Any]] = [ready, serving]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    house = ready.result()
    try:
        yield house
    finally:
        shutdown.request()
        shutdown.request()
        await serving


async def add_tokens(data_dir: Path, tokens: Sequence[str]) -> None:
    """Put accounts into the records of a data folder, as another process would."""
    records = await SqlRecords.open(data_dir)
    try:
        found = parse_import("\n".join(tokens))
        await records.add_accounts([to_new_account(item) for item in found.credentials], SystemClock().now())
    finally:
        await records.aclose()


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told: a whole answer, or all of a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which must be all of the body."""
        (only,) = self.json.items()
        assert only[0] == "error"
        return dict(only[1])

    @property
    def comments(self) -> int:
        """How many comment lines the stream has."""
        return sum(block.startswith(b":") for block in self.body.split(b"\n\n"))

    @property
    def data(self) -> list[str]:
        """The payloads of the stream's events, in order."""
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == "", "the stream ends in the middle of an event"
        return [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]

    @property
    def chunks(self) -> list[Any]:
        """The events that are chunks."""
        documents = [json.loads(text) for text in self.data if text != "[DONE]"]
        return [document for document in documents if "error" not in document]

    @property
    def stream_errors(self) -> list[dict[str, Any]]:
        """The error objects among the events."""
        documents = [json.loads(text) for text in self.data if text != "[DONE]"]
        return [document["error"] for document in documents if "error" in document]

    def text(self, index: int = 0, kind: str = "content") -> str:
        """Give what a choice says, whichever form the answer has."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            (choice,) = [choice for choice in self.json["choices"] if choice["index"] == index]
            return choice["message"].get(kind) or ""
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk["choices"] if choice["index"] == index]
        return "".join(delta.get(kind) or "" for delta in deltas)

    def finish_reasons(self, index: int = 0) -> list[str]:
        """Give the reasons with which a choice ended: one, if all is well."""
        whole = not self.headers["content-type"].startswith("text/event-stream")
        choices = [choice for document in ([self.json] if whole else self.chunks) for choice in document["choices"]]
        return [choice["finish_reason"] for choice in choices if choice["index"] == index and choice["finish_reason"]]


def chat_body(stream: bool = False, *, content: str = QUESTION, **fields: Any) -> dict[str, object]:
    """Give the body of a chat completion."""
    return {"model": "auto", "messages": [{"role": "user", "content": content}], "stream": stream, **fields}


@dataclass(slots=True)
class Bench:
    """A simulator, a house in front of it, and a plain HTTP client; for many cases, one after the other."""

    sim: Simulator
    house: House
    clock: HouseClock
    http: httpx.AsyncClient

    @property
    def control(self) -> Control:
        """The simulator's."""
        return self.sim.control

    @property
    def calls(self) -> int:
        """How many conversation calls arrived."""
        return len(self.control.requests_to("conversation"))

    async def ask(
        self,
        stream: bool = False,
        *,
        key: str | None = OPERATOR_KEY,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Told:
        """Ask for a chat completion and read all of the answer."""
        bearer = {} if key is None else {"Authorization": f"Bearer {key}"}
        answer = await self.http.post(
            "/v1/chat/completions",
            json=chat_body(stream, **fields),
            headers=bearer | dict(headers or {}),
        )
        return Told(answer.status_code, answer.headers, answer.content)

    @asynccontextmanager
    async def case(self, accounts: int = 1) -> AsyncIterator[tuple[Credentials, ...]]:
        """Run a case with that many fresh accounts in the pool, used in their order; check that it leaves nothing."""
        await self.settled()
        self.control.reset()
        self.open_way()
        given = tuple(self.control.add_account() for _ in range(accounts))
        await self.add(*(account.access_token for account in given))
        try:
            yield given
            await self.settled()
            await until(lambda: not answering_tasks(), "tasks are left")
        finally:
            await self.clear()

    def open_way(self) -> None:
        """End what breakers and exits remember of earlier cases."""
        self.clock.advance(61.0)
        source = self.house.runtime.sources.pool
        for used in source.exits.all:
            for origin in source.origins:
                source.exits.report(used, host_of(origin), None)

    async def add(self, *tokens: str) -> None:
        """Add accounts to the pool by their tokens."""
        runtime = self.house.runtime
        for token in tokens:
            await runtime.records.add_accounts([to_new_account(to_credential(token))], self.clock.now())
        await runtime.pool.reload()

    async def clear(self) -> None:
        """Take all accounts out of the pool."""
        await self.house.runtime.records.delete_accounts(None, self.clock.now())
        await self.house.runtime.pool.reload()

    async def settled(self) -> None:
        """Return once nothing is open upstream and no account is leased."""
        counters = self.control.counters
        await self.control.wait_until(lambda: self.control.counters.open_replies == 0, SOON)
        assert counters.open_streams == 0
        await until(lambda: self.house.in_flight == 0, "an account is still leased")


@asynccontextmanager
async def open_bench(
    folder: Path, wire: Wire = "plain", *, speed: float = 20.0, options: SimulatorOptions | None = None, **settings: str
) -> AsyncIterator[Bench]:
    """Run a bench whose server reaches the simulator over that wire; `settings` are the server's."""
    async with AsyncExitStack() as stack:
        clock = HouseClock(speed)
        sim = Simulator(options or SimulatorOptions(accounts=0), tls=wire != "plain", clock=_SimulatorClock(clock))
        await stack.enter_async_context(sim)
        given: dict[str, Any] = {"RANDOM_TOKEN": "false"}
        if wire != "plain":
            given |= {
                "CHATGPT_BASE_URL": sim.tls_url,
                "OPENAI_AUTH_TOKEN_URL": f"{sim.tls_url}/oauth/token",
                "UPSTREAM_CA_FILE": str(sim.write_ca(folder / "ca.pem")),
            }
        if wire == "http_proxy":
            given["PROXY_URL"] = (await stack.enter_async_context(HttpProxy())).url()
        elif wire == "socks5_proxy":
            given["PROXY_URL"] = (await stack.enter_async_context(Socks5Proxy())).url()
        house = await stack.enter_async_context(open_house(folder / "data", sim, clock=clock, **(given | settings)))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=house.base, timeout=60.0, trust_env=False))
        yield Bench(sim, house, clock, http)


class Caller:
    """A client of its own connection, which can leave rudely or not read; made for a bench."""

    def __init__(self, bench: Bench, stream: bool, *, key: str = OPERATOR_KEY, **fields: Any) -> None:
        """Prepare a request for a chat completion."""
        body = json.dumps(chat_body(stream, **fields)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self._port = int(bench.house.base.rpartition(":")[2])
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)

    async def send(self, receive_buffer: int | None = None) -> None:
        """Connect and send the request; nothing is read of the answer but by `read`."""
        loop = asyncio.get_running_loop()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(self._socket, self.request)

    async def read(self, size: int = 65536) -> bytes:
        """Give what has come, b"" after the end; waits for the first byte."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, size), SOON)

    async def read_until(self, part: bytes) -> bytes:
        """Give all up to where the part has come."""
        data = b""
        while part not in data:
            more = await self.read()
            assert more, f"the answer ended before {part!r}: {data!r}"
            data += more
        return data

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection: with FIN, or with a reset."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Benches:
    """One bench for each wire and settings, opened when it is first asked for; an async context manager."""

    def __init__(self, folders: pytest.TempPathFactory, *, speed: float = 20.0, **settings: str) -> None:
        """Keep the benches' data in folders from there; `settings` are the servers'."""
        self._folders = folders
        self._speed = speed
        self._settings = settings
        self._open: dict[tuple[Wire, frozenset[tuple[str, str]]], Bench] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close all."""
        await self._stack.aclose()

    async def at(self, wire: Wire, **settings: str) -> Bench:
        """Give the bench of a wire whose server has these settings beside those of all."""
        which = wire, frozenset(settings.items())
        if which not in self._open:
            folder = self._folders.mktemp(wire)
            self._open[which] = await self._stack.enter_async_context(
                open_bench(folder, wire, speed=self._speed, **cast(dict[str, Any], self._settings | settings))
            )
        return self._open[which]


def answering_tasks() -> set[str]:
    """Give the names of the tasks that work for an answer; the server's own, begun once, are not among them."""
    ours = ("chat2api/gateway/", "chat2api/upstream/", "chat2api/api/relay", "quart/")
    found = set()
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and any(part in code.co_filename for part in ours):
            found.add(task.get_name())
    return found - {"transport housekeeping"}


async def until(holds: Callable[[], bool], what: str, seconds: float = 4 * SOON) -> None:
    """Return once `holds()` is true, looking every few milliseconds; fail with `what` when that takes too long."""
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at, what
        await asyncio.sleep(0.005)
