"""HTTP/1.1 on one connection: h11 reads the requests, replies are written as they are.

h11 would refuse to write many of the broken replies that the simulator must be able to give, so it only parses. Each
request gets a parser of its own, which takes over the bytes that the one before left unread.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import h11

from chat2api.simulator.backend import Backend
from chat2api.simulator.peer import PeerConnection, abort_with_reset
from chat2api.simulator.tasks import Tasks
from chat2api.simulator.websocket import WebSocket, accept_value
from chat2api.simulator.wire import Headers, PeerGone, Request, Socket

_MAX_HEADERS = 65_536
_MAX_BODY = 256 * 1024 * 1024


class HTTP1Connection(PeerConnection):
    """Serves the requests of one connection one after the other."""

    def __init__(self, backend: Backend, tasks: Tasks, scheme: str, number: int, received: bytes = b"") -> None:
        """Make one; `received` is what was already read from the transport."""
        super().__init__(backend, tasks, scheme, number, received)
        self._parser = _new_parser()
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._keep_alive = True
        self._closing = False
        self._socket: WebSocket | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer."""
        if self._closing:
            return
        if self._socket is not None:
            self._socket.feed(data)
            return
        self._parser.receive_data(data)
        if self._task is None:
            self._read_request()

    def leave(self) -> None:
        """Stop what is being answered: the peer is gone."""
        self._closing = True
        super().leave()
        if self._task is not None:
            self._task.cancel()

    def _read_request(self) -> None:
        assert self.transport is not None
        try:
            while True:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    if self._parser.they_are_waiting_for_100_continue:
                        self.transport.write(
                            self._parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                        )
                    return
                if isinstance(event, h11.Request):
                    self._request = event
                    self._body.clear()
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > _MAX_BODY:
                        self.transport.abort()
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._start()
                    return
                else:  # ConnectionClosed or PAUSED: nothing more to read
                    return
        except h11.RemoteProtocolError as error:
            self._closing = True
            status = HTTPStatus(error.error_status_hint)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(head.encode("ascii"))
            self.close()

    def _start(self) -> None:
        assert self._request is not None
        headers: Headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in self._request.headers
        )
        self._keep_alive = ("connection", "close") not in ((name, value.lower()) for name, value in headers)
        request = Request(
            method=self._request.method.decode("ascii"),
            target=self._request.target.decode("latin-1"),
            headers=headers,
            body=bytes(self._body),
            http_version="1.1",
            scheme=self.scheme,
            connection=self.number,
        )
        self._task = self.tasks.start(self._serve(request), f"http1-{self.number}")

    async def _serve(self, request: Request) -> None:
        exchange = HTTP1Exchange(self, request)
        whole = False
        try:
            await self.backend.serve(request, exchange)
            whole = True
        finally:
            if not whole:
                self.shut_down()
        self._task = None
        if exchange.ended and self._keep_alive and not self._closing:
            rest, _ = self._parser.trailing_data
            self._parser = _new_parser()
            if rest:
                self._parser.receive_data(rest)
            self._read_request()
        elif self.transport is not None and not self._closing:
            self._closing = True
            super().close()

    async def write(self, data: bytes) -> None:
        """Send bytes and wait while the peer does not read. Raises PeerGone."""
        if self.gate.broken or self.transport is None or self.transport.is_closing():
            raise PeerGone
        self.transport.write(data)
        await self.gate.wait()

    async def open_socket(self, socket: Socket) -> None:
        """Speak web socket until it is closed; bytes that came with the handshake are its first. Raises PeerGone."""
        assert self.transport is not None
        self._socket = WebSocket(socket, self.write, self.transport.write)
        rest, _ = self._parser.trailing_data
        if rest:
            self._socket.feed(rest)
        try:
            await self._socket.run()
        finally:
            socket.on_close()

    def close(self) -> None:
        """Send what is buffered, then FIN."""
        self._closing = True
        super().close()

    def reset(self) -> None:
        """Send RST."""
        self._closing = True
        if self.transport is not None:
            abort_with_reset(self.transport)


class HTTP1Exchange:
    """The way out for one reply over HTTP/1.1."""

    def __init__(self, connection: HTTP1Connection, request: Request) -> None:
        """Make one for the reply to this request."""
        self._connection = connection
        self._request = request
        self._without_body = request.method == "HEAD"
        self._chunked = False
        self.ended = False

    async def send_headers(self, status: int, headers: Sequence[tuple[str, str]], length: int | None) -> None:
        """Send the head; a body of unknown length is chunked."""
        self._chunked = length is None
        await self._connection.write(_render_head(status, headers, length))

    async def send_partial_headers(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send the first half of the head's bytes."""
        head = _render_head(status, headers, None)
        await self._connection.write(head[: len(head) // 2])

    async def send_data(self, data: bytes) -> None:
        """Send one piece of the body, as one chunk when chunked."""
        if self._without_body or not data:
            return
        await self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        """Send the last chunk."""
        if self._chunked and not self._without_body:
            await self._connection.write(b"0\r\n\r\n")
        self.ended = True

    async def open_socket(self, socket: Socket) -> None:
        """Answer the handshake and speak web socket; 400 for a request that asks for none."""
        key = self._request.header("sec-websocket-key")
        if key is None or (self._request.header("upgrade") or "").lower() != "websocket":
            await self.send_headers(400, (), 0)
            await self.end()
            return
        lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade"]
        lines.append(f"sec-websocket-accept: {accept_value(key)}")
        if socket.sub_protocol is not None:
            lines.append(f"sec-websocket-protocol: {socket.sub_protocol}")
        await self._connection.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await self._connection.open_socket(socket)

    def close(self) -> None:
        """Send FIN."""
        self._connection.close()

    def reset(self) -> None:
        """Send RST."""
        self._connection.reset()

    def reset_stream(self) -> None:
        """Send RST: there are no streams here."""
        self._connection.reset()

    def go_away(self) -> None:
        """Send FIN: there is no GOAWAY here."""
        self._connection.close()


def _new_parser() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)


def _render_head(status: int, headers: Sequence[tuple[str, str]], length: int | None) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
