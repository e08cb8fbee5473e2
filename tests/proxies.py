"""Two small proxies on loopback ports: HTTP (CONNECT and absolute-form) and SOCKS5, with counts and faults."""

import asyncio
import base64
import socket
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.origin import server_context

Mode = Literal["serve", "refuse", "stall"]
"""serve: relay; refuse: answer that the target may not be reached; stall: take the request and never answer."""


class _Proxy:
    """What both proxies share: the listener, the counts, the relay."""

    scheme = ""

    def __init__(self, *, mode: Mode = "serve", credentials: str | None = None, tls: bool = False) -> None:
        """Make a proxy; `credentials` is the "user:password" that it insists on."""
        self.mode = mode
        self.credentials = credentials
        self.connections = 0
        self.open_connections = 0
        self.targets: list[tuple[str, int]] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Start on a free port."""
        context = server_context() if self._tls else None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and drop every connection."""
        await self._stop()
        if self._held is not None:
            self._held.close()

    async def die(self) -> None:
        """Stop, and refuse connections for as long as the proxy is entered: nobody else is given its port meanwhile."""
        await self._stop()
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the ends of its connections linger
        self._held.bind(("127.0.0.1", self.port))

    async def _stop(self) -> None:
        self._server.close()
        for _ in range(5):  # what was accepted just now becomes a connection some turns of the loop later
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, credentials: str | None = None, scheme: str | None = None) -> str:
        """Give the proxy's URL, with the credentials to present if any."""
        return f"{scheme or self.scheme}://{credentials + '@' if credentials else ''}127.0.0.1:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        task = asyncio.get_running_loop().create_task(self._answer(reader, writer))
        self._tasks.add(task)

        # Not a `finally` of the task: one that is cancelled before its first step has none.
        def end(task: asyncio.Task[None]) -> None:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.transport.abort()

        task.add_done_callback(end)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _relay(
        self,
        host: str,
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        greeting: bytes,
        head: bytes,
    ) -> None:
        """Connect to the target, tell the client `greeting`, the target `head`, then copy both ways till one side ends."""
        far_reader, far_writer = await asyncio.open_connection(host, port)
        try:
            writer.write(greeting)
            far_writer.write(head)
            copies = [
                asyncio.get_running_loop().create_task(_copy(reader, far_writer)),
                asyncio.get_running_loop().create_task(_copy(far_reader, writer)),
            ]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.gather(*copies, return_exceptions=True)
            with suppress(ConnectionError):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        finally:
            far_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class HttpProxy(_Proxy):
    """An HTTP proxy; `methods` are those that it was asked with, CONNECT included."""

    scheme = "http"

    def __init__(self, *, mode: Mode = "serve", credentials: str | None = None, tls: bool = False) -> None:
        """Make a proxy; with `tls` it is an https proxy."""
        super().__init__(mode=mode, credentials=credentials, tls=tls)
        self.methods: list[str] = []
        if tls:
            self.scheme = "https"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        self.methods.append(method)
        wanted = base64.b64encode(self.credentials.encode()).decode() if self.credentials else ""
        if wanted and not any(field.lower() == f"proxy-authorization: basic {wanted}".lower() for field in rest):
            writer.write(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        if self.mode == "stall":
            await reader.read()
            return
        if self.mode == "refuse":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = parts.hostname or "", parts.port or 80
        self.targets.append((host, port))
        if method == "CONNECT":
            greeting = b"HTTP/1.1 200 Established\r\nX-Proxy: yes\r\nSet-Cookie: proxy=1\r\n\r\n"
            await self._relay(host, port, reader, writer, greeting, b"")
        else:
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            onward = "\r\n".join([f"{method} {path} {version}", *rest])
            await self._relay(host, port, reader, writer, b"", onward.encode("latin-1"))


class Socks5Proxy(_Proxy):
    """A SOCKS5 proxy (RFC 1928, user and password after RFC 1929); `names` are host names that it was told to resolve."""

    scheme = "socks5h"

    def __init__(self, *, mode: Mode = "serve", credentials: str | None = None) -> None:
        """Make a proxy."""
        super().__init__(mode=mode, credentials=credentials)
        self.names: list[str] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if self.mode == "stall":
            await reader.read()
            return
        if self.credentials:
            if 2 not in methods:
                writer.write(b"\x05\xff")
                await writer.drain()
                return
            writer.write(b"\x05\x02")
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = f"{user.decode()}:{password.decode()}" == self.credentials
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                await writer.drain()
                return
        else:
            writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = ".".join(str(part) for part in await reader.readexactly(4))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            self.names.append(host)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append((host, port))
        if self.mode == "refuse":
            writer.write(b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00")
            await writer.drain()
            return
        await self._relay(host, port, reader, writer, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", b"")
