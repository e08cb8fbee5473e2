"""The conversation calls: prepare, the turn itself in its classic and its `f` form, resume and stop."""

import uuid
from collections.abc import Sequence

from chat2api.simulator.accounts import AccountBook
from chat2api.simulator.answers import compose_turn
from chat2api.simulator.composing import Turn, TurnContext
from chat2api.simulator.encoders import encode
from chat2api.simulator.files import Files
from chat2api.simulator.history import Conversation, History, user_texts
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.recorder import Recorder
from chat2api.simulator.refusals import named_answer, refuse, refuse_field, refuse_text
from chat2api.simulator.replies import NumberedWords, compose_reply, compose_title, cut_words
from chat2api.simulator.request_body import TurnRequest, parts_of, read_turn_request
from chat2api.simulator.routes import BASE, Call, Route, route
from chat2api.simulator.script import Step
from chat2api.simulator.sentinel import Sentinel
from chat2api.simulator.sockets import Sockets
from chat2api.simulator.wire import Answer, EventStream, Object, Reply, json_answer

_STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
_DEFAULT_MODEL = "gpt-5-5"
"""What serves `auto`."""
_GONE = {404: "not_found", 405: "method_not_allowed", 410: "gone"}


class Conversations:
    """Opens turns and keeps what is needed to go on with them."""

    def __init__(
        self,
        book: AccountBook,
        sentinel: Sentinel,
        history: History,
        files: Files,
        sockets: Sockets,
        recorder: Recorder,
    ) -> None:
        """Work on these parts of the backend."""
        self._book = book
        self._sentinel = sentinel
        self._history = history
        self._files = files
        self._sockets = sockets
        self._recorder = recorder
        self._conduits: dict[str, tuple[str, str | None]] = {}
        """Owner and turn trace id by conduit token."""

    def routes(self) -> list[Route]:
        """Give the operations."""
        return [
            route(
                "conversation",
                "POST",
                r"/(?P<base>backend-api|backend-anon|backend-alt)/conversation",
                self.classic,
                "anybody",
            ),
            route("prepare", "POST", BASE + "/f/conversation/prepare", self.prepare, "anybody"),
            route("conversation", "POST", BASE + "/f/conversation", self.modern, "anybody"),
            route("resume", "POST", BASE + "/f/conversation/resume", self.resume, "anybody"),
            route("stop", "POST", BASE + "/stop_conversation", self.stop, "anybody"),
        ]

    def prepare(self, call: Call) -> Answer:
        """Answer a conduit token for the turn to come."""
        if call.options.endpoints == "classic":
            return named_answer(_GONE[call.options.endpoint_gone])
        body = call.body()
        if body.get("action") not in ("next", "continue", "variant"):
            raise refuse_field("action", "Input should be 'next', 'continue' or 'variant'", "enum")
        if not isinstance(body.get("model"), str):
            raise refuse_field("model", "Input should be a valid string", "string_type")
        before = call.request.header("x-conduit-token")
        if before not in (None, "", "no-token") and self._conduits.pop(before, None) is None:
            raise refuse_text(400, "Invalid conduit token")
        if call.options.conduit == "null":
            return json_answer({"status": "ok", "conduit_token": None})
        token = (
            "eyJhbGciOiJIUzI1NiJ9."
            + self._book.random_text("conduit", 90)
            + "."
            + self._book.random_text("conduit", 43)
        )
        self._conduits[token] = (call.caller.key, call.request.header("x-oai-turn-trace-id"))
        return json_answer({"status": "ok", "conduit_token": token})

    def classic(self, call: Call) -> Reply:
        """Answer /conversation."""
        if call.options.endpoints == "f":
            return named_answer(_GONE[call.options.endpoint_gone])
        return self._turn(call)

    def modern(self, call: Call) -> Reply:
        """Answer /f/conversation."""
        if call.options.endpoints == "classic":
            return named_answer(_GONE[call.options.endpoint_gone])
        self._check_conduit(call)
        return self._turn(call)

    def _check_conduit(self, call: Call) -> None:
        token = call.request.header("x-conduit-token") or ""
        if call.options.conduit == "null":
            if token:
                raise refuse_text(400, "Invalid conduit token")
            return
        if not token and call.options.conduit == "optional":
            return
        owner, trace = self._conduits.pop(token, (None, None))
        if owner != call.caller.key:
            raise refuse_text(400, "Invalid conduit token")
        if trace is not None and trace != call.request.header("x-oai-turn-trace-id"):
            raise refuse_text(400, "Turn trace id differs from the prepared one")

    def _turn(self, call: Call) -> Reply:
        self._check_headers(call)
        self._sentinel.redeem(call)
        wanted = read_turn_request(call.body(), call.options.max_prompt)
        for file_id in wanted.pointers:
            if not self._files.usable(call, file_id):
                raise refuse_text(400, f"File {file_id} not found")
        conversation = self._open_conversation(call, wanted)
        turn_id = str(uuid.UUID(bytes=self._book.random_bytes("turn", 16), version=4))
        encoding = call.options.encoding
        if encoding == "auto":
            encoding = "v1" if wanted.wants_v1 else "classic"
        context = self._context(call, wanted, conversation, turn_id, encoding)
        turn = compose_turn(call.options.answer, context)
        self._store(call, conversation, turn, context.resume_token)
        if turn.resume:
            frames = encode(turn.resume, "v1", conversation.id, call.options)
            items = [frame.data.decode() for frame in frames]
            self._sockets.say_2026(call.caller.key, f"conversation-turn-{turn_id}", items)
        stream = self._stream(call, turn.steps, encoding, conversation)
        if call.options.answer == "websocket_2024":
            return self._websocket_answer(call, conversation, stream)
        return stream

    def _check_headers(self, call: Call) -> None:
        if "text/event-stream" not in (call.request.header("accept") or ""):
            self._recorder.add_violation("a conversation call does not accept text/event-stream")
        if call.request.header("oai-device-id") is None:
            self._recorder.add_violation("a conversation call has no Oai-Device-Id")

    def _open_conversation(self, call: Call, wanted: TurnRequest) -> Conversation:
        """Find or start the chat and hang the new messages into it."""
        if wanted.conversation_id is None:
            conversation = self._history.new_conversation(call, temporary=wanted.temporary, gizmo_id=wanted.gizmo_id)
            parent = conversation.current_node
        else:
            conversation = self._history.find(call, wanted.conversation_id, stored=False)
            parent = wanted.parent_message_id
            if parent not in conversation.nodes:
                raise refuse_text(400, "Parent message not found")
        if wanted.action == "continue" and not conversation.unsaid:
            raise refuse_text(400, "There is nothing to continue")
        conversation.current_node = parent
        for message in wanted.messages:
            if message["id"] in conversation.nodes:
                raise refuse_text(400, "Message id already used")
            stored = {"status": "finished_successfully", "recipient": "all", "create_time": call.now, **message}
            conversation.add_message(stored, conversation.current_node)
        conversation.updated_at = call.now
        return conversation

    def _context(
        self, call: Call, wanted: TurnRequest, conversation: Conversation, turn_id: str, encoding: str
    ) -> TurnContext:
        chain = conversation.chain(conversation.current_node)
        prompts = ["\n".join(texts) for message in chain if (texts := user_texts(message))]
        pictures = sum(isinstance(part, dict) for message in wanted.messages for part in parts_of(message))
        workspace = call.caller.workspace
        echoes = [_echo(message) for message in wanted.messages[-1:] if _role(message) == "user"]

        def new_file(message_id: str, path: str, content: bytes) -> None:
            if not conversation.temporary:  # temporary chats have no links to the interpreter's files
                self._files.add_interpreter_file(conversation.id, message_id, path, content)

        return TurnContext(
            conversation_id=conversation.id,
            turn_id=turn_id,
            encoding=encoding,
            model=call.options.served_model or (_DEFAULT_MODEL if wanted.model == "auto" else wanted.model),
            requested_model=wanted.model,
            plan=workspace.plan if workspace is not None else "free",
            parent_id=conversation.current_node,
            title=compose_title(prompts[0] if prompts else ""),
            pieces=self._pieces(call.options, conversation, wanted, prompts, pictures),
            prompt=prompts[-1] if prompts else "",
            now=call.now,
            resume_token=self._book.random_text("resume", 120),
            first_turn=len(prompts) <= 1,
            echoes=echoes,
            options=call.options,
            new_id=lambda: self._book.random_uuid("message"),
            new_image=lambda scheme: f"{scheme}://" + self._files.add_image(call, conversation.id, scheme),
            new_file=new_file,
        )

    def _pieces(
        self,
        options: SimulatorOptions,
        conversation: Conversation,
        wanted: TurnRequest,
        prompts: Sequence[str],
        pictures: int,
    ) -> Sequence[str]:
        if wanted.action == "continue":
            said, pieces = conversation.said, conversation.unsaid
            conversation.said, conversation.unsaid = [], []
            return said + pieces if options.continuation == "whole" else pieces
        if options.events is not None:
            return NumberedWords(1, options.events)
        return cut_words(compose_reply(prompts, pictures) if options.text is None else options.text)

    def _store(self, call: Call, conversation: Conversation, turn: Turn, resume_token: str) -> None:
        for message in turn.stored:
            conversation.add_message(message, conversation.current_node)
        conversation.pending = turn.pending
        conversation.polls_left = call.options.pending_polls
        conversation.async_status = turn.async_status
        conversation.resume_steps = turn.resume
        conversation.resume_token = resume_token
        conversation.said, conversation.unsaid = turn.said, turn.unsaid
        prompts = [text for message in conversation.chain(conversation.current_node) for text in user_texts(message)]
        if conversation.title == "New chat" and prompts:
            conversation.title = compose_title(prompts[0])

    def _stream(self, call: Call, steps: Sequence[Step], encoding: str, conversation: Conversation) -> EventStream:
        options = call.options
        cookie = f"conv_key={self._book.random_text('cookie', 32)}; Path=/; Secure; HttpOnly"
        return EventStream(
            encode(steps, encoding, conversation.id, options),
            headers=(*_STREAM_HEADERS, ("set-cookie", cookie)),
            delay=options.delay,
            first_delay=options.first_delay,
            split=options.split,
        )

    def _websocket_answer(self, call: Call, conversation: Conversation, stream: EventStream) -> Answer:
        """Answer where the stream is, and put it there."""
        response_id = self._book.random_uuid("response")
        self._sockets.say_2024(
            call.caller.key, conversation.id, response_id, b"".join(frame.data for frame in stream.frames)
        )
        answer: Object = {
            "wss_url": self._sockets.address_2024(call),
            "conversation_id": conversation.id,
            "response_id": response_id,
            "websocket_request_id": self._book.random_uuid("websocket"),
        }
        return json_answer(answer)

    def resume(self, call: Call) -> Reply:
        """Answer the rest of a handed-off turn, from the offset on at which there is something."""
        body = call.body()
        conversation_id, offset = body.get("conversation_id"), body.get("offset")
        if not isinstance(conversation_id, str):
            raise refuse_field("conversation_id", "Input should be a valid string", "string_type")
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise refuse_field("offset", "Input should be a valid integer", "int_type")
        conversation = self._history.find(call, conversation_id, stored=False)
        if call.request.header("x-conduit-token") != conversation.resume_token:
            raise refuse_text(403, "Invalid resume token")
        nothing_there = not conversation.resume_steps or offset < call.options.resume_offset
        if nothing_there or call.options.answer == "handoff_poll":
            raise refuse("not_found")
        steps, conversation.resume_steps = conversation.resume_steps, []
        encoding = "classic" if call.options.encoding == "classic" else "v1"
        conversation.polls_left = 0
        conversation.poll()
        return self._stream(call, steps, encoding, conversation)

    def stop(self, call: Call) -> Answer:
        """Stop a turn; what was said stays."""
        conversation = self._history.find(call, str(call.body().get("conversation_id")), stored=False)
        conversation.pending.clear()
        return json_answer({"status": "ok"})


def _role(message: Object) -> str:
    author = message.get("author")
    role = author.get("role") if isinstance(author, dict) else None
    return role if isinstance(role, str) else ""


def _echo(message: Object) -> Object:
    """The user's message as the stream repeats it."""
    return {
        "id": message["id"],
        "author": {"role": "user"},
        "content": message["content"],
        "status": "finished_successfully",
        "metadata": {"timestamp_": "absolute", "message_type": None},
        "recipient": "all",
    }
