"""What is said on the backend's two kinds of web sockets.

2024: a turn's POST answers JSON with `wss_url`; its event stream comes in base64 pieces with sequence ids. The address
stays good for more turns, so it can also be opened first, with an address from register-websocket.

2026: one socket for the user; commands subscribe to topics. A turn that was handed off is a topic: what was said so
far comes as catch-ups in the reply (with repeats, to be told by their item ids), the rest as messages.
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field

from chat2api.simulator.accounts import AccountBook
from chat2api.simulator.refusals import refuse, refuse_text
from chat2api.simulator.routes import API, Call, Route, route
from chat2api.simulator.wire import JSON, Answer, Object, Socket, json_answer

SUB_PROTOCOL = "json.reliable.webpubsub.azure.v1"
_PIECE = 300
_CATCH_UPS = 3


@dataclass(slots=True)
class _PubSubSession:
    """The 2024 kind: sends what turns put into it; wants acknowledgements now and then."""

    outgoing: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    acknowledged: list[int] = field(default_factory=list)

    def receive(self, text: str) -> None:
        """Take a sequenceAck; anything else is ignored, as there."""
        try:
            frame = json.loads(text)
        except ValueError:
            return
        if isinstance(frame, dict) and frame.get("type") == "sequenceAck":
            self.acknowledged.append(int(frame.get("sequenceId", 0)))


@dataclass(slots=True)
class _TopicSession:
    """The 2026 kind: answers commands."""

    topics: dict[str, list[str]]
    outgoing: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)

    def receive(self, text: str) -> None:
        """Answer each command; close on what is no command."""
        try:
            frames = json.loads(text)
        except ValueError:
            self.outgoing.put_nowait(None)
            return
        for frame in frames if isinstance(frames, list) else [frames]:
            command = frame.get("command") if isinstance(frame, dict) else None
            if isinstance(command, dict):
                self._answer(frame.get("id"), command)

    def _answer(self, number: JSON, command: Object) -> None:
        if command.get("type") != "subscribe":
            self._put({"type": "reply", "id": number, "reply": {"type": str(command.get("type"))}})
            return
        topic = str(command.get("topic_id"))
        items = [_item(topic, index, text) for index, text in enumerate(self.topics.get(topic, []))]
        catch_ups: list[JSON] = [*items[:_CATCH_UPS]]
        self._put({"type": "reply", "id": number, "reply": {"topic_id": topic, "catchups": catch_ups}})
        for item in items[max(0, _CATCH_UPS - 1) :]:  # one of the catch-ups comes again
            self._put(item)

    def _put(self, frame: Object) -> None:
        self.outgoing.put_nowait(json.dumps(frame))


def _item(topic: str, index: int, text: str) -> Object:
    payload: Object = {"type": "stream-item", "encoded_item": text, "stream_item_id": f"{topic}-{index}"}
    return {
        "type": "message",
        "topic_id": topic,
        "payload": {"type": "conversation-turn-stream", "payload": payload},
    }


class Sockets:
    """Gives out addresses, opens sockets, and takes what turns have to say on them."""

    def __init__(self, book: AccountBook) -> None:
        """Start with nothing open."""
        self._book = book
        self._owners: dict[str, str] = {}
        self._sessions: dict[str, list[_PubSubSession]] = {}
        self._waiting: dict[str, list[str]] = {}
        self._topics: dict[str, dict[str, list[str]]] = {}
        self._sequence = 0

    def routes(self) -> list[Route]:
        """Give the operations."""
        return [
            route("register_websocket", "POST", API + "/register-websocket", self.register),
            route("celsius", "GET", API + "/celsius/ws/user", self.celsius),
            route("websocket_2024", "GET", "/client/hubs/conversations", self.open_2024, "open"),
            route("websocket_2026", "GET", "/celsius/connect", self.open_2026, "open"),
        ]

    def register(self, call: Call) -> Answer:
        """Answer an address of the 2024 kind."""
        return json_answer({"wss_url": self.address_2024(call), "expires_at": "2099-01-01T00:00:00.000000+00:00"})

    def celsius(self, call: Call) -> Answer:
        """Answer an address of the 2026 kind."""
        if call.options.answer == "handoff_poll":
            raise refuse("not_found")
        return json_answer({"websocket_url": self._address(call, "/celsius/connect?token=")})

    def address_2024(self, call: Call) -> str:
        """Give an address that the caller may open."""
        return self._address(call, "/client/hubs/conversations?access_token=")

    def _address(self, call: Call, path: str) -> str:
        token = self._book.random_text("websocket", 80)
        self._owners[token] = call.caller.key
        scheme = "wss" if call.request.scheme == "https" else "ws"
        return f"{scheme}://{call.request.header('host')}{path}{token}"

    def open_2024(self, call: Call) -> Socket:
        """Open a socket of the 2024 kind and send what waited for it."""
        owner = self._owner(call, "access_token")
        if SUB_PROTOCOL not in (call.request.header("sec-websocket-protocol") or ""):
            raise refuse_text(400, "Unsupported sub-protocol")
        session = _PubSubSession()
        session.outgoing.put_nowait(json.dumps({"type": "system", "event": "connected", "userId": owner}))
        for frame in self._waiting.pop(owner, []):
            session.outgoing.put_nowait(frame)
        self._sessions.setdefault(owner, []).append(session)

        def forget() -> None:
            self._sessions[owner].remove(session)

        return Socket(session.outgoing, session.receive, forget, SUB_PROTOCOL)

    def open_2026(self, call: Call) -> Socket:
        """Open a socket of the 2026 kind."""
        session = _TopicSession(self._topics.setdefault(self._owner(call, "token"), {}))
        return Socket(session.outgoing, session.receive, lambda: None)

    def _owner(self, call: Call, name: str) -> str:
        owner = self._owners.get(call.request.query.get(name, ""))
        if owner is None:
            raise refuse("unauthorized")
        return owner

    def say_2024(self, owner: str, conversation_id: str, response_id: str, stream: bytes) -> None:
        """Send a turn's event stream to all sockets of its owner, or keep it until one is opened."""
        pieces = [stream[start : start + _PIECE] for start in range(0, len(stream), _PIECE)]
        frames = []
        for number, piece in enumerate(pieces, 1):
            self._sequence += 1
            data: Object = {
                "type": "http.response.body",
                "conversation_id": conversation_id,
                "response_id": response_id,
                "more_body": number < len(pieces),
                "body": base64.b64encode(piece).decode(),
            }
            frame: Object = {
                "type": "message",
                "from": "group",
                "group": owner,
                "sequenceId": self._sequence,
                "dataType": "json",
                "data": data,
            }
            frames.append(json.dumps(frame))
        sessions = self._sessions.get(owner)
        if not sessions:
            self._waiting.setdefault(owner, []).extend(frames)
            return
        for session in sessions:
            for text in frames:
                session.outgoing.put_nowait(text)

    def say_2026(self, owner: str, topic: str, items: list[str]) -> None:
        """Make a turn readable under its topic."""
        self._topics.setdefault(owner, {})[topic] = items
