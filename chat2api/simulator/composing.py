"""What every answer of the simulator is written in: messages, how they grow and end, and the events beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chat2api.simulator.options import AnswerKind, SimulatorOptions
from chat2api.simulator.replies import cut_words
from chat2api.simulator.script import CODE, TEXT, Change, Grow, Open, Patch, Side, Step, play
from chat2api.simulator.wire import JSON, Object

STOP: Object = {"type": "stop", "stop_tokens": [200002]}
TOOL_CALL: Object = {"type": "stop", "stop_tokens": [200012]}


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What an answer depends on. Ids are made by `new_id`; `new_image` and `new_file` store bytes and give ids."""

    conversation_id: str
    turn_id: str
    encoding: str
    model: str
    requested_model: str
    plan: str
    parent_id: str
    title: str
    pieces: Sequence[str]
    prompt: str
    now: float
    resume_token: str
    first_turn: bool
    echoes: Sequence[Object]
    options: SimulatorOptions
    new_id: Callable[[], str]
    new_image: Callable[[str], str]
    new_file: Callable[[str, str, bytes], None]
    """Message id, path in the sandbox, content."""


@dataclass(slots=True)
class Turn:
    """A composed turn.

    `steps` are streamed. `stored` are the messages that the conversation holds afterwards, `pending` those that
    come later by themselves. `resume` is what the resume call streams. `said` and `unsaid` are the halves
    of a text cut by max_tokens, for `continue`.
    """

    steps: list[Step] = field(default_factory=list)
    stored: list[Object] = field(default_factory=list)
    pending: list[Object] = field(default_factory=list)
    resume: list[Step] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    async_status: int | None = None
    """What the conversation says of the work beside it: 1 while it goes on, 4 once it is over, None without any."""


class Composition:
    """A turn that is being written, and the words it is written in. `parent` is the id of the last message."""

    def __init__(self, context: TurnContext) -> None:
        """Start with an empty script."""
        self.context = context
        self.options = context.options
        self.parent = context.parent_id
        self.turn = Turn()
        self._v1 = context.encoding == "v1"
        self._hidden_ids = {message["id"] for message in context.echoes}

    # Around the answer

    def messages_to_keep(self, steps: Sequence[Step]) -> list[Object]:
        """The messages of the answer as the stored conversation holds them: without the echoes."""
        return [message for message in play(steps) if message["id"] not in self._hidden_ids]

    def begin(self) -> None:
        """Add what comes before the answer: side events and echoes."""
        context = self.context
        if self._v1 and self.options.side_events:
            token = {"kind": "topic", "token": context.resume_token}
            self.side("resume_conversation_token", **token)
            for message in context.echoes if self.options.echoes else ():
                if message["author"] == {"role": "user"}:
                    self.side("input_message", input_message=message)
        if self.options.echoes:
            hidden: Object = {"is_visually_hidden_from_conversation": True}
            system = self.message("system", text_content(""), end_turn=True, metadata=hidden, weight=0.0)
            self.parent = context.parent_id
            self._hidden_ids.add(system["id"])
            self.turn.steps.append(Open(system))
            if not self._v1:
                self.turn.steps += [Open(message) for message in context.echoes]

    def epilogue(self, begun: int, kind: AnswerKind) -> None:
        """Add what comes after an answer whose first step is number `begun`."""
        steps = self.turn.steps
        title = self.options.title
        if title in ("middle", "twice"):
            self._put_title_in_the_middle(begun)
        good = kind not in ("error_midway", "error_late", "blocked", "interrupted")
        if title in ("end", "twice") and good:
            self.side("title_generation", title=self.context.title)
        if not self._v1:
            if self.options.side_events and good:
                steps.append(Side(self.moderation(flagged=False, blocked=False)))
            return
        if self.options.complete and good:
            self.side("message_stream_complete")
        if self.options.side_events:
            limits: Object = {"banner_info": None, "model_limits": [], "limits_progress": []}
            self.side("conversation_detail_metadata", **limits, default_model_slug="auto")
        if self.options.late_events:
            self.side("conversation_async_status", status="idle")
            steps.append(Side({"type": "beacon_ui_response", "conversation_id": self.context.conversation_id}))

    def _put_title_in_the_middle(self, begun: int) -> None:
        """Cut the longest growth of the answer in two, with a title event between."""
        steps = self.turn.steps
        growths = [number for number in range(begun, len(steps)) if isinstance(steps[number], Grow)]
        side = Side({"type": "title_generation", "title": "New chat", "conversation_id": self.context.conversation_id})
        if not growths:
            steps.insert(begun, side)
            return
        number = max(growths, key=lambda at: _length(steps[at]))
        growth = steps[number]
        assert isinstance(growth, Grow)
        half = len(growth.pieces) // 2
        parts = [Grow(growth.path, piece, growth.as_lists) for piece in (growth.pieces[:half], growth.pieces[half:])]
        steps[number : number + 1] = [parts[0], side, parts[1]]

    def side(self, kind: str, /, **values: JSON) -> None:
        """Add an event beside the messages."""
        payload: Object = {"type": kind, **values, "conversation_id": self.context.conversation_id}
        self.turn.steps.append(Side(payload))

    def server_metadata(self, message_id: JSON, *, tool: bool, use_case: str = "text") -> None:
        """Add the backend's own account of how it serves the turn, where it gives one."""
        if not self._v1 or not self.options.side_events:
            return
        context = self.context
        metadata: Object = {
            "model_slug": context.model,
            "is_first_turn": context.first_turn,
            "tool_invoked": tool,
            "turn_use_case": use_case,
            "plan_type": context.plan,
            "turn_exchange_id": context.turn_id,
        }
        self.side("server_ste_metadata", metadata=metadata)
        self.marker(message_id, "user_visible_token", "first")

    def marker(self, message_id: JSON, marker: str, event: str) -> None:
        """Add a marker of a message's tokens, where there are such."""
        if self._v1 and self.options.side_events:
            self.side("message_marker", message_id=message_id, marker=marker, event=event)

    def moderation(self, *, flagged: bool, blocked: bool) -> Object:
        """Make moderation's word on the last message."""
        return {
            "conversation_id": self.context.conversation_id,
            "message_id": self.parent,
            "is_completion": True,
            "moderation_response": {"flagged": flagged, "blocked": blocked, "moderation_id": "modr-1"},
        }

    def error(self, text: str) -> None:
        """Add an error in a message's place."""
        payload: Object = {"message": None, "conversation_id": self.context.conversation_id, "error": text}
        self.turn.steps.append(Side(payload))

    # Messages

    def message(
        self,
        role: str,
        content: Object,
        *,
        status: str = "finished_successfully",
        end_turn: bool | None = None,
        name: str | None = None,
        recipient: str = "all",
        channel: str | None = None,
        metadata: Object | None = None,
        weight: float = 1.0,
    ) -> Object:
        """Make a message below the last one, which it becomes."""
        message_id = self.context.new_id()
        own: Object = {
            "message_type": "next",
            "model_slug": self.context.model,
            "resolved_model_slug": self.context.model,
            "default_model_slug": self.context.requested_model,
            "parent_id": self.parent,
        }
        message: Object = {
            "id": message_id,
            "author": {"role": role, "name": name, "metadata": {}},
            "create_time": self.context.now,
            "update_time": None,
            "content": content,
            "status": status,
            "end_turn": end_turn,
            "weight": weight,
            "metadata": {**(own if role in ("assistant", "tool") else {}), **(metadata or {})},
            "recipient": recipient,
            "channel": channel,
        }
        self.parent = message_id
        return message

    def whole(self, message: Object, *, delta: bool = False) -> None:
        """Add a message as it is."""
        self.turn.steps.append(Open(message, delta))

    def growing(
        self, message: Object, path: str, pieces: Sequence[str], *closing: Change, as_lists: bool = False
    ) -> None:
        """Open a message, let all pieces but the last grow, and put the last into the closing patch."""
        steps = self.turn.steps
        steps.append(Open(message))
        if len(pieces) > 1:
            steps.append(Grow(path, pieces[:-1], as_lists))
        last = tuple(Change(path, "append", piece) for piece in pieces[-1:])
        steps.append(Patch((*last, *closing), delta=True))

    def closing(self, *, end_turn: bool | None = True, finish: Object | None = None) -> tuple[Change, ...]:
        """Make the changes that finish a message."""
        return (
            Change("/message/status", "replace", "finished_successfully"),
            Change("/message/end_turn", "replace", end_turn),
            Change("/message/metadata", "append", {"is_complete": True, "finish_details": finish or STOP}),
        )

    def final_message(self, text: str = "", **more: JSON) -> Object:
        """Make the visible answer's message, which grows."""
        metadata: Object = {"citations": [], "content_references": [], **more}
        return self.message("assistant", text_content(text), status="in_progress", channel="final", metadata=metadata)

    def say(self, pieces: Sequence[str], *, tool: bool = False, as_lists: bool = False) -> None:
        """The visible answer, to its good end."""
        message = self.final_message()
        if self.options.early_markers:
            self.marker(message["id"], "final_channel_token|user_visible_token", "first")
        self.turn.steps.append(Open(message))
        self.server_metadata(message["id"], tool=tool)
        if not self.options.early_markers:
            self.marker(message["id"], "final_channel_token|user_visible_token", "first")
        if len(pieces) > 1:
            self.turn.steps.append(Grow(TEXT, pieces[:-1], as_lists))
        last = tuple(Change(TEXT, "append", piece) for piece in pieces[-1:])
        closing = self.closing()
        if self.options.finish == "together":
            self.turn.steps.append(Patch((*last, *closing), delta=True))
        else:
            self.turn.steps.append(Patch((*last, closing[0]), delta=True))
        if self.options.finish == "late":
            self.turn.steps.append(Patch(closing[1:]))
        self.marker(message["id"], "last_token", "last")

    def tool_call(self, recipient: str, language: str, code: str) -> None:
        """Add a call of a tool."""
        content: Object = {"content_type": "code", "language": language, "response_format_name": None, "text": ""}
        call = self.message("assistant", content, status="in_progress", recipient=recipient, channel="commentary")
        self.growing(call, CODE, cut_words(code), *self.closing(end_turn=False, finish=TOOL_CALL))


def text_content(text: str) -> Object:
    """Make the content of a plain text."""
    return {"content_type": "text", "parts": [text]}


def _length(step: Step) -> int:
    return len(step.pieces) if isinstance(step, Grow) else 0
