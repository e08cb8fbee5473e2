"""HTTP/2 on one connection, by the h2 package: each stream is served by a task of its own."""

import asyncio
from collections.abc import Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from chat2api.simulator.backend import Backend
from chat2api.simulator.peer import PeerConnection, abort_with_reset
from chat2api.simulator.tasks import Tasks
from chat2api.simulator.wire import PeerGone, Request, Socket

_MAX_BODY = 256 * 1024 * 1024


class _Stream:
    """A request that is being read, and then its reply."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self.headers = headers
        self.body = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.window = asyncio.Event()


class HTTP2Connection(PeerConnection):
    """Serves the streams of one connection side by side."""

    def __init__(self, backend: Backend, tasks: Tasks, scheme: str, number: int, received: bytes = b"") -> None:
        """Make one; `received` is what was already read from the transport."""
        super().__init__(backend, tasks, scheme, number, received)
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config=config)
        self._streams: dict[int, _Stream] = {}

    def begin(self) -> None:
        """Send the settings."""
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer."""
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self.close()
            return
        for event in events:
            self._take(event)
        self._flush()

    def leave(self) -> None:
        """Stop what is being answered: the peer is gone."""
        super().leave()
        for stream in self._streams.values():
            if stream.task is not None:
                stream.task.cancel()
        self._streams.clear()

    def _flush(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(self._h2.data_to_send())

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._streams[event.stream_id] = _Stream([(_text(name), _text(value)) for name, value in event.headers])
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.body += event.data
                if len(stream.body) > _MAX_BODY:
                    self.reset_stream(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._start(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None and stream.task is not None:
                stream.task.cancel()
        elif isinstance(event, h2.events.WindowUpdated):
            for number, stream in self._streams.items():
                if event.stream_id in (0, number):
                    stream.window.set()
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            for stream in self._streams.values():
                stream.window.set()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.close()

    def _start(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        pseudo = {name: value for name, value in stream.headers if name.startswith(":")}
        plain = tuple((name, value) for name, value in stream.headers if not name.startswith(":"))
        request = Request(
            method=pseudo.get(":method", "GET"),
            target=pseudo.get(":path", "/"),
            headers=(("host", pseudo.get(":authority", "")), *plain),
            body=bytes(stream.body),
            http_version="2",
            scheme=self.scheme,
            connection=self.number,
        )
        stream.task = self.tasks.start(self._serve(number, request), f"http2-{self.number}-{number}")

    async def _serve(self, number: int, request: Request) -> None:
        whole = False
        try:
            await self.backend.serve(request, HTTP2Exchange(self, number, request.method == "HEAD"))
            whole = True
        finally:
            if not whole:
                self.reset_stream(number)
            self._streams.pop(number, None)

    def _check_open(self, number: int) -> _Stream:
        stream = self._streams.get(number)
        if stream is None or self.gate.broken or self.transport is None or self.transport.is_closing():
            raise PeerGone
        return stream

    async def send_headers(self, number: int, headers: Sequence[tuple[str, str]], end: bool) -> None:
        """Send a HEADERS frame. Raises PeerGone."""
        self._check_open(number)
        self._h2.send_headers(number, headers, end_stream=end)
        self._flush()
        await self.gate.wait()

    async def send_partial_headers(self, number: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send the first half of a HEADERS frame's bytes. Raises PeerGone."""
        self._check_open(number)
        self._h2.send_headers(number, headers)
        data = self._h2.data_to_send()
        if self.transport is not None:
            self.transport.write(data[: len(data) // 2])
        await self.gate.wait()

    async def send_data(self, number: int, data: bytes) -> None:
        """Send DATA frames as the windows allow. Raises PeerGone."""
        view = memoryview(data)
        while view:
            stream = self._check_open(number)
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                stream.window.clear()
                await stream.window.wait()
                continue
            self._h2.send_data(number, bytes(view[:room]))
            view = view[room:]
            self._flush()
            await self.gate.wait()

    async def end(self, number: int) -> None:
        """Send END_STREAM. Raises PeerGone."""
        self._check_open(number)
        self._h2.end_stream(number)
        self._flush()
        await self.gate.wait()

    def reset_stream(self, number: int) -> None:
        """Send RST_STREAM."""
        if number in self._streams:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.INTERNAL_ERROR)
            self._flush()

    def go_away(self) -> None:
        """Send GOAWAY and FIN."""
        self._h2.close_connection(h2.errors.ErrorCodes.NO_ERROR)
        self._flush()
        self.close()

    def reset(self) -> None:
        """Send RST."""
        if self.transport is not None:
            abort_with_reset(self.transport)


class HTTP2Exchange:
    """The way out for one reply over HTTP/2."""

    def __init__(self, connection: HTTP2Connection, number: int, without_body: bool) -> None:
        """Make one; `without_body` for HEAD."""
        self._connection = connection
        self.number = number
        self._without_body = without_body

    async def send_headers(self, status: int, headers: Sequence[tuple[str, str]], length: int | None) -> None:
        """Send the headers."""
        await self._connection.send_headers(self.number, _with_status(status, headers, length), self._without_body)

    async def send_partial_headers(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send half of the headers' frame."""
        await self._connection.send_partial_headers(self.number, _with_status(status, headers, None))

    async def send_data(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not self._without_body:
            await self._connection.send_data(self.number, data)

    async def end(self) -> None:
        """End the stream."""
        if not self._without_body:
            await self._connection.end(self.number)

    async def open_socket(self, socket: Socket) -> None:
        """Refuse: browsers open web sockets over HTTP/1.1 unless the server offers extended CONNECT."""
        await self.send_headers(400, (), 0)
        await self.end()

    def close(self) -> None:
        """Send FIN: the whole connection ends."""
        self._connection.close()

    def reset(self) -> None:
        """Send RST: the whole connection ends."""
        self._connection.reset()

    def reset_stream(self) -> None:
        """Send RST_STREAM."""
        self._connection.reset_stream(self.number)

    def go_away(self) -> None:
        """Send GOAWAY."""
        self._connection.go_away()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _with_status(status: int, headers: Sequence[tuple[str, str]], length: int | None) -> list[tuple[str, str]]:
    out = [(":status", str(status)), *((name.lower(), value) for name, value in headers)]
    if length is not None:
        out.append(("content-length", str(length)))
    return out
