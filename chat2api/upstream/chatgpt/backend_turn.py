"""One answer of the web backend while it comes in: bytes of a stream or a socket, given as events."""

from collections import Counter

from chat2api.errors import UpstreamError
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.events import Event, TakeEvents
from chat2api.upstream.chatgpt.moved import ByteSource, read_pubsub
from chat2api.upstream.exchange import WebSocket


class BackendTurn:
    """One answer of the backend as events, while it comes in. Always `aclose` it."""

    def __init__(self, stream: ByteSource, decoder: ConversationDecoder, early: WebSocket | None = None) -> None:
        """Decode that stream; `early` is a socket that was opened in case the answer comes there instead."""
        self._stream = stream
        self._decoder = decoder
        self._early = early
        self._breach: UpstreamError | None = None
        self._left: list[Event] = []

    @property
    def raw_text(self) -> str:
        """The last visible message so far as the backend wrote it, for a turn that continues this one."""
        return self._decoder.raw_text

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id, once the backend has told it."""
        return self._decoder.conversation_id

    @property
    def unknown(self) -> Counter[str]:
        """How often each shape came so far that was not understood."""
        return self._decoder.unknown

    async def next(self, take: TakeEvents | None = None) -> list[Event]:
        """Give the next events, at least one; an empty list after the end.

        `take` is offered each batch first, without a switch of tasks; what it takes is not given here. Raises
        TransportError when the connection broke, StreamInterruptedError or UpstreamProtocolError when the answer ended
        without an end.
        """
        if self._breach is not None:
            raise self._breach

        def decode(data: bytes) -> bool:
            events = self._decoder.feed(data)
            if events and (take is None or not take(events)):
                self._left = events
                return False
            return not self._decoder.is_ended

        if not self._decoder.is_ended and await self._stream.pass_on(decode) and self._left:
            left, self._left = self._left, []
            return left
        return self._close()

    async def read(self) -> tuple[bytes, list[Event]]:
        """Give the next bytes as they came, with the events that they complete; b"" after the last ones.

        Unlike `next` it goes on behind the answer's end, up to that of the stream. Raises TransportError when the
        connection broke, and with b"" what is wrong with the end.
        """
        if self._breach is not None:
            raise self._breach
        read: list[bytes] = []

        def keep(data: bytes) -> bool:
            read.append(data)
            return False

        if await self._stream.pass_on(keep):
            data = b"".join(read)
            return data, self._decoder.feed(data)
        return b"", self._close()

    def take_early(self) -> "BackendTurn | None":
        """Give the answer on the socket that was opened early, where there is one; it is closed by that turn then."""
        early, self._early = self._early, None
        if early is None:
            return None
        return BackendTurn(read_pubsub(early, self.conversation_id), ConversationDecoder())

    async def aclose(self) -> None:
        """Abort what still comes in."""
        await self._stream.aclose()
        if self._early is not None:
            await self._early.aclose()

    def _close(self) -> list[Event]:
        """Give the last events; what is wrong with the end is raised once all that came before it was given."""
        try:
            return self._decoder.close()
        except UpstreamError as error:
            rest = self._decoder.take_rest()
            if not rest:
                raise
            self._breach = error
            return rest
