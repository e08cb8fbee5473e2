"""Sends one reply, at its pace and with its fault.

Bytes go out no faster than the peer takes them: `Exchange.send_data` waits for the connection's write buffer (64 KiB)
or for the HTTP/2 window, and the frames behind it are not even made. Without a delay, frames are gathered to 16 KiB
before they are sent, because on a small machine one send costs as much as making dozens of events.
"""

import asyncio
import random
from dataclasses import replace
from typing import Literal

import orjson

from chat2api.clock import Clock
from chat2api.simulator.faults import Fault
from chat2api.simulator.recorder import Recorder, ReplyRecord
from chat2api.simulator.wire import Answer, EventStream, Exchange, Headers, PeerGone, Reply, Socket

_GATHER = 16_384
_BLOCK = 65_536


class Delivery:
    """One reply on its way out. Make one for each reply and await `run` once."""

    def __init__(
        self,
        exchange: Exchange,
        reply: Reply,
        fault: Fault | None,
        headers: Headers,
        record: ReplyRecord,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        """Prepare; `headers` go in front of the reply's own."""
        self._exchange = exchange
        self._reply = reply
        self._fault = fault
        self._headers = headers
        self._record = record
        self._recorder = recorder
        self._clock = clock
        self._drip: float | None = None
        self._cutter = (
            random.Random(reply.split) if isinstance(reply, EventStream) and reply.split is not None else None
        )

    async def run(self) -> Literal["completed", "faulted"]:
        """Send it all, or as much as the fault lets. Raises PeerGone when the peer leaves first."""
        if isinstance(self._reply, EventStream):
            self._recorder.start_stream(self._record)
        if self._fault_at("before_headers") and not await self._act():
            return "faulted"
        if isinstance(self._reply, Socket):
            return await self._run_socket(self._reply)
        status = self._reply.status if isinstance(self._reply, Answer) else 200
        length = len(self._reply.body) if isinstance(self._reply, Answer) else None
        headers = (*self._headers, *self._reply.headers)
        if self._fault_at("mid_headers"):
            await self._exchange.send_partial_headers(status, headers)
            return await self._halt()
        await self._exchange.send_headers(status, headers, length)
        self._record.status = status
        self._record.headers_at = self._clock.monotonic()
        if self._fault_at("before_content") and not await self._act():
            return "faulted"
        whole = await (
            self._send_answer(self._reply) if isinstance(self._reply, Answer) else self._send_stream(self._reply)
        )
        if not whole:
            return "faulted"
        await self._exchange.end()
        return "completed"

    async def _run_socket(self, socket: Socket) -> Literal["completed", "faulted"]:
        cut = False

        async def before_frame() -> bool:
            nonlocal cut
            fault = self._fault
            if fault is not None and fault.at == "mid_stream" and self._record.deltas == fault.after:
                cut = fault.do == "end" or not await self._act()
            self._record.deltas += 1
            return not cut

        try:
            await self._exchange.open_socket(replace(socket, before_frame=before_frame))
        except PeerGone:
            if not cut:
                raise
        return "faulted" if cut else "completed"

    def _fault_at(self, at: str) -> bool:
        return self._fault is not None and self._fault.at == at

    async def _halt(self) -> Literal["completed", "faulted"]:
        """After half of the headers nothing sensible can follow: act, and close if the act was only a pause."""
        if await self._act():
            self._exchange.close()
        return "faulted"

    async def _send_answer(self, answer: Answer) -> bool:
        fault = self._fault
        if fault is not None and fault.do == "answer" and fault.truncate is not None:
            await self._send(answer.body[: fault.truncate])
            self._exchange.close()
            return False
        if self._fault_at("mid_stream"):
            half = len(answer.body) // 2
            await self._send(answer.body[:half])
            if not await self._act(answer.body[half:]):
                return False
            await self._send(answer.body[half:])
            return True
        await self._send(answer.body)
        return True

    async def _send_stream(self, stream: EventStream) -> bool:
        gathered: list[bytes] = []
        size = 0
        stop_at = self._fault.after if self._fault is not None and self._fault.at == "mid_stream" else -1
        if stream.first_delay:
            await self._clock.sleep(stream.first_delay)
        for data, is_delta in stream.frames:
            if is_delta:
                if self._record.deltas == stop_at:
                    await self._send(b"".join(gathered))
                    gathered.clear()
                    size = 0
                    stop_at = -1
                    if not await self._act(data):
                        return False
                if stream.delay:
                    await self._send(b"".join(gathered))
                    gathered.clear()
                    size = 0
                    await self._clock.sleep(stream.delay)
                self._record.deltas += 1
            gathered.append(data)
            size += len(data)
            if size >= _GATHER or stream.delay:
                await self._send(b"".join(gathered))
                gathered.clear()
                size = 0
        await self._send(b"".join(gathered))
        return True

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._drip is not None:
            for offset in range(len(data)):
                await self._send_piece(data[offset : offset + 1])
                await self._clock.sleep(self._drip)
        elif self._cutter is not None:
            offset = 0
            while offset < len(data):
                end = offset + self._cutter.randint(1, 48)
                await self._send_piece(data[offset:end])
                offset = end
        else:
            await self._send_piece(data)

    async def _send_piece(self, data: bytes) -> None:
        self._recorder.add_bytes(self._record, len(data))
        await self._exchange.send_data(data)

    async def _act(self, following: bytes = b"") -> bool:
        """Do what the fault says; give whether the reply goes on. `following` is what would be sent next."""
        fault = self._fault
        if fault is None or fault.do == "answer":
            return True
        exchange = self._exchange
        match fault.do:
            case "stall":
                await self._pause(fault.seconds)
                return True
            case "reset":
                exchange.reset()
            case "close":
                exchange.close()
            case "end":
                await exchange.end()
            case "reset_stream":
                exchange.reset_stream()
            case "go_away":
                exchange.go_away()
            case "error_event":
                await self._send_error_event(fault)
            case "cut_frame":
                await self._send(following[: max(1, len(following) // 2)])
                exchange.close()
            case "cut_character":
                await self._send('data: {"v":"caf\u00e9'.encode()[:-1])
                exchange.close()
            case "endless_line":
                await self._send(b'data: {"v":"')
                await self._send_filler(fault.size)
                exchange.close()
            case _:
                await self._act_and_go_on(fault)
                return True
        return False

    async def _act_and_go_on(self, fault: Fault) -> None:
        match fault.do:
            case "bytes":
                await self._send(fault.body.encode("latin-1"))
            case "oversized_event":
                await self._send(b'data: {"type":"conversation_async_status","filler":"')
                await self._send_filler(fault.size)
                await self._send(b'"}\n\n')
            case "flood":
                event = b'data: {"type":"conversation_async_status","filler":"' + b"f" * 900 + b'"}\n\n'
                for _ in range(-(-fault.size // (len(event) * 64))):
                    await self._send(event * 64)
            case "drip":
                self._drip = fault.seconds if fault.seconds is not None else 0.01

    async def _pause(self, seconds: float | None) -> None:
        """Wait; with None until the connection ends this task."""
        if seconds is None:
            await asyncio.Event().wait()
        else:
            await self._clock.sleep(seconds)

    async def _send_filler(self, size: int) -> None:
        for start in range(0, size, _BLOCK):
            await self._send(b"a" * min(_BLOCK, size - start))

    async def _send_error_event(self, fault: Fault) -> None:
        event = {
            "message": None,
            "conversation_id": None,
            "error": fault.body or "Something went wrong.",
            **fault.values,
        }
        await self._send(b"data: " + orjson.dumps(event) + b"\n\ndata: [DONE]\n\n")
        await self._exchange.end()
