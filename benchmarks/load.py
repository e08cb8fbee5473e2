"""A lean load generator: many chat completions at once over keep-alive HTTP/1.1, each answer checked word for word.

It runs as a process of its own (`python -m benchmarks.load`), so that neither its CPU nor its pauses belong to the
server that is measured. While answers arrive it only cuts them out of the chunked coding and notes two instants; what
they say is checked after the clock has stopped. It can also drive the simulator itself (`--kind backend`), hold streams
open, and stop reading.

A plan that holds makes it write `{"state": "open", ...}` on standard output once every stream is open and wait for a
line on standard input; then it looks at what each stream has brought so far and drops them all. Its last line of output
is the result.
"""

import argparse
import asyncio
import json
import re
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import orjson

from benchmarks import backend_calls

Kind = Literal["api", "backend"]

_HOST = "127.0.0.1"
_FIRST_WORD = b"word1 "
_SMALL_BUFFER = 4096
_MAX_REASONS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: `answers` requests in all, `at_once` at any time, each to be answered with so many numbered words.

    `starting` bounds how many may wait for their first content at one time. `limit` is in seconds and ends the run;
    what has no answer by then counts as `late`. With `reads` False each connection stops reading at once.
    """

    port: int
    key: str
    words: int
    kind: Kind = "api"
    model: str = "auto"
    at_once: int = 1
    answers: int = 1
    starting: int = 1_000_000
    limit: float = 120.0
    hold: bool = False
    reads: bool = True


@dataclass(frozen=True, slots=True)
class Spread:
    """How a time spreads over the answers, in seconds; zeros when there are none."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up some times."""
        ordered = sorted(values)
        if not ordered:
            return cls(0.0, 0.0, 0.0, 0.0)
        last = len(ordered) - 1
        p90, p99 = (ordered[min(last, int(share * len(ordered)))] for share in (0.90, 0.99))
        return cls(statistics.median(ordered), p90, p99, ordered[-1])


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of a plan. `good` answers were whole and right; `failed` counts the others by reason.

    `seconds` runs from the first request to the last answer's end. `chunks` counts the events that carried text, which
    are fewer than the words where the server joins words that arrive together. `held` is how many streams of a plan
    that holds were open at the same moment with nothing but the right words in them.
    """

    good: int
    failed: dict[str, int]
    seconds: float
    words: int
    chunks: int
    held: int
    first_content: Spread
    whole: Spread


class AnswerError(Exception):
    """An answer is not what was asked for; the text says why, without what differs from answer to answer."""


class _Reply:
    """One response as it comes in. `opened` is done at its first content or at its end, `ended` at its end."""

    __slots__ = ("content_at", "ended", "ended_at", "opened", "parts", "status")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0
        self.parts: list[bytes] = []
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.content_at = 0.0
        self.ended_at = 0.0

    def open(self) -> None:
        if not self.opened.done():
            self.content_at = time.perf_counter()
            self.opened.set_result(None)

    def end(self) -> None:
        self.open()
        if not self.ended.done():
            self.ended_at = time.perf_counter()
            self.ended.set_result(None)

    def fail(self, reason: str) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(AnswerError(reason))
                future.exception()  # a caller that has left does not ask for it


class _Body:
    """Cuts one response's body out of the bytes of its connection."""

    def __init__(self, head: bytes) -> None:
        lowered = head.lower()
        self._chunked = b"\r\ntransfer-encoding: chunked" in lowered
        length = re.search(rb"\r\ncontent-length: *(\d+)", lowered)
        if not self._chunked and length is None:
            raise AnswerError("response without a length")
        self._left = int(length[1]) if length is not None and not self._chunked else 0
        self._rest = b""
        self.ended = not self._chunked and not self._left

    def feed(self, data: bytes, parts: list[bytes]) -> None:
        """Append what of the body is complete; set `ended` behind its last byte."""
        if not self._chunked:
            parts.append(data)
            self._left -= len(data)
            self.ended = self._left <= 0
            return
        data = self._rest + data if self._rest else data
        position, size = 0, len(data)
        while position < size:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            length = int(data[position:line_end], 16)
            end = line_end + 2 + length
            if end + 2 > size:
                break
            if not length:
                self.ended = True
                return
            parts.append(data[line_end + 2 : end])
            position = end + 2
        self._rest = data[position:]


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at most."""

    def __init__(self, reads: bool) -> None:
        """Make one; with `reads` False it stops reading behind the head of the first response."""
        self._reads = reads
        self._transport: asyncio.Transport | None = None
        self._reply: _Reply | None = None
        self._head = b""
        self._body: _Body | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def request(self, data: bytes) -> _Reply:
        """Send a request and give what becomes its reply."""
        self._reply = _Reply()
        self._head, self._body = b"", None
        if self._transport is None or self._transport.is_closing():
            self._reply.fail("connection closed between two requests")
        else:
            self._transport.write(data)
        return self._reply

    def data_received(self, data: bytes) -> None:
        """Take bytes of the reply."""
        if self._reply is None:
            return
        try:
            self._take(data, self._reply)
        except (AnswerError, ValueError):
            self._reply.fail("unreadable response")
            self.drop()

    def _take(self, data: bytes, reply: _Reply) -> None:
        if self._body is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            reply.status = int(self._head[9:12])
            self._body = _Body(self._head[: end + 2])
            data = self._head[end + 4 :]
            if not self._reads and self._transport is not None:
                self._transport.pause_reading()
                reply.open()
                return
        if data:
            self._body.feed(data, reply.parts)
        if not reply.opened.done() and _FIRST_WORD in b"".join(reply.parts):
            reply.open()
        if self._body.ended:
            reply.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        if self._reply is not None:
            self._reply.fail("connection cut")

    def body_so_far(self) -> bytes | None:
        """Give what has come of an answer that has begun and goes on, up to the end of an event; None otherwise."""
        reply = self._reply
        if reply is None or reply.ended.done() or not reply.opened.done():
            return None
        body = b"".join(reply.parts)
        return body[: body.rfind(b"\n\n") + 2]

    def drop(self) -> None:
        """Close without a farewell."""
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes
    first_content: float
    whole: float


class Load:
    """Carries out one plan. Make one and await `run` once."""

    def __init__(self, plan: Plan) -> None:
        """Prepare; nothing is sent yet."""
        self._plan = plan
        self._origin = f"http://{_HOST}:{plan.port}"
        self._answers: list[_Answer] = []
        self._failed: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._left = plan.answers
        self._open = 0
        self._held = 0
        self._begun = 0
        self._all_begun = asyncio.Event()
        self._starting = asyncio.Semaphore(plan.starting)
        self._last_end = 0.0

    async def run(self) -> LoadResult:
        """Send the requests, gather the answers, check them and give the result."""
        plan = self._plan
        began = time.perf_counter()
        workers = [asyncio.create_task(self._work()) for _ in range(min(plan.at_once, plan.answers))]
        try:
            async with asyncio.timeout(plan.limit):
                if plan.hold:
                    await self._all_begun.wait()
                    await self._hold()
                await asyncio.gather(*workers)
        except TimeoutError:
            pass
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._drop_all()
        late = plan.answers - len(self._answers) - self._failed.total()
        if late:
            self._failed["late"] = late
        return self._sum_up((self._last_end or time.perf_counter()) - began)

    async def _hold(self) -> None:
        """Say that all is open, wait until told to go on, look at the open streams and drop them."""
        print(json.dumps({"state": "open", "open": self._open}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        expected = simulator_text(self._plan.words)
        for connection in self._connections:
            body = connection.body_so_far()
            try:
                self._held += body is not None and expected.startswith("".join(_read_events(body)[0]))
            except AnswerError as error:
                self._failed[str(error)] += 1
        self._drop_all()

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)

    async def _work(self) -> None:
        """Be one caller: a connection on which one request follows the other; a new one after a failure."""
        connection: Connection | None = None
        while self._left > 0:
            self._left -= 1
            try:
                connection = await self._call(connection)
            except (AnswerError, OSError) as error:
                self._failed[str(error) or type(error).__name__] += 1
                connection = None
        if connection is not None:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.drop()

    async def _connect(self) -> Connection:
        plan = self._plan
        sock = socket.socket()
        sock.setblocking(False)
        if not plan.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, (_HOST, plan.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await loop.create_connection(lambda: Connection(plan.reads), sock=sock)
        except BaseException:
            sock.close()
            raise
        self._connections.add(connection)
        return connection

    async def _call(self, connection: Connection | None) -> Connection:
        """Make one request, from its first byte out to its last byte in; give the connection for the next one.

        Raises AnswerError or OSError; the connection is then closed.
        """
        try:
            async with self._starting:
                try:
                    connection = connection or await self._connect()
                    began = time.perf_counter()
                    reply = connection.request(await self._next_request(connection))
                    await reply.opened
                finally:
                    self._note_begun()
            self._open += 1
            try:
                await reply.ended
            finally:
                self._open -= 1
            body = b"".join(reply.parts)
            if reply.status != 200:
                raise AnswerError(f"status {reply.status}{_error_code(body)}")
        except BaseException:
            if connection is not None:
                self._drop(connection)
            raise
        self._last_end = reply.ended_at
        self._answers.append(_Answer(body, reply.content_at - began, reply.ended_at - began))
        return connection

    def _note_begun(self) -> None:
        self._begun += 1
        if self._begun >= min(self._plan.at_once, self._plan.answers):
            self._all_begun.set()

    async def _next_request(self, connection: Connection) -> bytes:
        """Give the request's bytes. Towards the simulator this makes the requirements call first, as any client has to."""
        plan = self._plan
        if plan.kind == "api":
            body: dict[str, Any] = {
                "model": plan.model,
                "stream": True,
                "messages": [{"role": "user", "content": "Write the numbers in words."}],
            }
            headers = {"Authorization": f"Bearer {plan.key}", "Content-Type": "application/json", "Accept": "*/*"}
            return _render("/v1/chat/completions", plan.port, headers, body)
        headers = backend_calls.call_headers(plan.key, self._origin)
        body = dict(backend_calls.requirements_body())
        reply = connection.request(_render(backend_calls.REQUIREMENTS_PATH, plan.port, headers, body))
        await reply.ended
        requirements = orjson.loads(b"".join(reply.parts))
        if reply.status != 200:
            raise AnswerError(f"requirements: status {reply.status}")
        headers = backend_calls.conversation_headers(plan.key, self._origin, requirements)
        body = backend_calls.conversation_body("Write the numbers in words.", plan.model)
        return _render(backend_calls.CONVERSATION_PATH, plan.port, headers, body)

    def _sum_up(self, seconds: float) -> LoadResult:
        """Check what was gathered."""
        plan = self._plan
        read = read_api_answer if plan.kind == "api" else read_backend_answer
        expected = simulator_text(plan.words)
        good, chunks = 0, 0
        for answer in self._answers:
            try:
                texts = read(answer.body)
                if "".join(texts) != expected:
                    raise AnswerError("words missing, doubled or out of order")
            except AnswerError as error:
                self._failed[str(error)] += 1
                continue
            good += 1
            chunks += len(texts)
        return LoadResult(
            good=good,
            failed=dict(self._failed.most_common(_MAX_REASONS)),
            seconds=seconds,
            words=good * plan.words,
            chunks=chunks,
            held=self._held,
            first_content=Spread.of([answer.first_content for answer in self._answers]),
            whole=Spread.of([answer.whole for answer in self._answers]),
        )


def simulator_text(words: int) -> str:
    """Give the text that the simulator answers with when it is told a number of events."""
    return "".join(f"word{number} " for number in range(1, words + 1))


def read_api_answer(body: bytes) -> list[str]:
    """Give the pieces of text of one streamed chat completion, which must be whole.

    Whole means: events only, no error among them, one finish reason, `[DONE]` at the very end. Raises AnswerError.
    """
    if not body.endswith(b"\n\ndata: [DONE]\n\n"):
        raise AnswerError("no [DONE] at the end")
    texts, finishes = _read_events(body[: -len(b"data: [DONE]\n\n")])
    if finishes != 1:
        raise AnswerError(f"{finishes} finish reasons")
    return texts


def _read_events(body: bytes) -> tuple[list[str], int]:
    """Give the pieces of text and the number of finish reasons in some whole events. Raises AnswerError."""
    texts: list[str] = []
    finishes = 0
    for line in body.split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        payload = _parse(line)
        if "error" in payload:
            raise AnswerError("error in the stream")
        try:
            for choice in payload["choices"]:
                if text := choice["delta"].get("content"):
                    texts.append(text)
                finishes += choice["finish_reason"] is not None
        except (KeyError, TypeError) as error:
            raise AnswerError("an event that is no chunk") from error
    return texts, finishes


def _parse(line: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(line[6:])
    except ValueError as error:
        raise AnswerError("an event that is not JSON") from error
    if not isinstance(payload, dict):
        raise AnswerError("an event that is no chunk")
    return payload


def read_backend_answer(body: bytes) -> list[str]:
    """Give the pieces of text of one of the simulator's answers. Raises AnswerError when it is not whole."""
    answer = backend_calls.AnswerText()
    texts: list[str] = []
    if b"data: [DONE]" not in body[-32:]:
        raise AnswerError("no [DONE] at the end")
    for line in body.splitlines():
        if not line.startswith(b"data: {"):
            continue
        try:
            text = answer.take(_parse(line))
        except ValueError as error:
            raise AnswerError("error in the stream") from error
        if text:
            texts.append(text)
    return texts


def _error_code(body: bytes) -> str:
    """Give `, <code>` of an error object, or nothing."""
    try:
        return f", {orjson.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _render(path: str, port: int, headers: dict[str, str], body: dict[str, Any]) -> bytes:
    data = orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", f"Host: {_HOST}:{port}", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def parser() -> argparse.ArgumentParser:
    """Give the command line of a load process; its options are the fields of Plan."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description="Make many calls at once and check them."
    )
    made.add_argument("plan", help="the plan's fields as a JSON object")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out a plan and write the result as one line of JSON."""
    plan = Plan(**json.loads(parser().parse_args(arguments).plan))
    print(json.dumps(asdict(asyncio.run(Load(plan).run()))), flush=True)


if __name__ == "__main__":
    main()
