"""The kinds of answers, as scripts.

Each kind is a method of `Composer` named like the kind; it adds steps for the stream and says what stays in the stored
conversation. Kinds that end the turn elsewhere (hand-off, asynchronous image) fill `pending` or `resume`.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chat2api.simulator.options import AnswerKind, SimulatorOptions
from chat2api.simulator.refusals import UNUSUAL_ACTIVITY_TEXT
from chat2api.simulator.replies import cut_words
from chat2api.simulator.script import CODE, TEXT, Change, Grow, Open, Patch, Side, Step, play
from chat2api.simulator.wire import JSON, Object

_STOP: Object = {"type": "stop", "stop_tokens": [200002]}
_TOOL_CALL: Object = {"type": "stop", "stop_tokens": [200012]}
_THOUGHTS = "/message/content/thoughts"
IMAGE_TOOL = "t2uay3k.sj1i4kz"

_SOURCES = (
    ("https://rivers.example.test/nile?utm_source=chatgpt.com", "The Nile", "rivers.example.test"),
    ("https://atlas.example.test/amazon", "The Amazon", "atlas.example.test"),
)


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


def compose_turn(kind: AnswerKind, context: TurnContext) -> Turn:
    """Give the script of one answer."""
    return Composer(context).compose(kind)


class Composer:
    """Writes one turn."""

    def __init__(self, context: TurnContext) -> None:
        """Start with an empty script."""
        self._context = context
        self._options = context.options
        self._parent = context.parent_id
        self._turn = Turn()
        self._v1 = context.encoding == "v1"
        self._hidden_ids = {message["id"] for message in context.echoes}

    def compose(self, kind: AnswerKind) -> Turn:
        """Write prologue, answer and epilogue."""
        turn = self._turn
        if kind == "empty":
            return turn
        self._begin()
        if kind == "error":
            self._error(UNUSUAL_ACTIVITY_TEXT)
            return turn
        if kind in ("handoff", "handoff_poll"):
            self._hand_off()
            return turn
        begun = len(turn.steps)
        getattr(self, "text" if kind == "websocket_2024" else kind)()
        self._epilogue(begun, kind)
        turn.stored = self._messages_to_keep(turn.steps)
        return turn

    # Around the answer

    def _messages_to_keep(self, steps: Sequence[Step]) -> list[Object]:
        """The messages of the answer as the stored conversation holds them: without the echoes."""
        return [message for message in play(steps) if message["id"] not in self._hidden_ids]

    def _begin(self) -> None:
        context = self._context
        if self._v1 and self._options.side_events:
            token = {"kind": "topic", "token": context.resume_token}
            self._side("resume_conversation_token", **token)
            for message in context.echoes if self._options.echoes else ():
                if message["author"] == {"role": "user"}:
                    self._side("input_message", input_message=message)
        if self._options.echoes:
            hidden: Object = {"is_visually_hidden_from_conversation": True}
            system = self._message("system", _text(""), end_turn=True, metadata=hidden, weight=0.0)
            self._parent = context.parent_id
            self._hidden_ids.add(system["id"])
            self._turn.steps.append(Open(system))
            if not self._v1:
                self._turn.steps += [Open(message) for message in context.echoes]

    def _epilogue(self, begun: int, kind: AnswerKind) -> None:
        steps = self._turn.steps
        title = self._options.title
        if title in ("middle", "twice"):
            self._put_title_in_the_middle(begun)
        good = kind not in ("error_midway", "error_late", "blocked", "interrupted")
        if title in ("end", "twice") and good:
            self._side("title_generation", title=self._context.title)
        if not self._v1:
            if self._options.side_events and good:
                steps.append(Side(self._moderation(flagged=False, blocked=False)))
            return
        if self._options.complete and good:
            self._side("message_stream_complete")
        if self._options.side_events:
            limits: Object = {"banner_info": None, "model_limits": [], "limits_progress": []}
            self._side("conversation_detail_metadata", **limits, default_model_slug="auto")
        if self._options.late_events:
            self._side("conversation_async_status", status="idle")
            steps.append(Side({"type": "beacon_ui_response", "conversation_id": self._context.conversation_id}))

    def _put_title_in_the_middle(self, begun: int) -> None:
        """Cut the longest growth of the answer in two, with a title event between."""
        steps = self._turn.steps
        growths = [number for number in range(begun, len(steps)) if isinstance(steps[number], Grow)]
        side = Side({"type": "title_generation", "title": "New chat", "conversation_id": self._context.conversation_id})
        if not growths:
            steps.insert(begun, side)
            return
        number = max(growths, key=lambda at: _length(steps[at]))
        growth = steps[number]
        assert isinstance(growth, Grow)
        half = len(growth.pieces) // 2
        parts = [Grow(growth.path, piece, growth.as_lists) for piece in (growth.pieces[:half], growth.pieces[half:])]
        steps[number : number + 1] = [parts[0], side, parts[1]]

    def _side(self, kind: str, /, **values: JSON) -> None:
        payload: Object = {"type": kind, **values, "conversation_id": self._context.conversation_id}
        self._turn.steps.append(Side(payload))

    def _server_metadata(self, message_id: JSON, *, tool: bool, use_case: str = "text") -> None:
        if not self._v1 or not self._options.side_events:
            return
        context = self._context
        metadata: Object = {
            "model_slug": context.model,
            "is_first_turn": context.first_turn,
            "tool_invoked": tool,
            "turn_use_case": use_case,
            "plan_type": context.plan,
            "turn_exchange_id": context.turn_id,
        }
        self._side("server_ste_metadata", metadata=metadata)
        self._marker(message_id, "user_visible_token", "first")

    def _marker(self, message_id: JSON, marker: str, event: str) -> None:
        if self._v1 and self._options.side_events:
            self._side("message_marker", message_id=message_id, marker=marker, event=event)

    def _moderation(self, *, flagged: bool, blocked: bool) -> Object:
        return {
            "conversation_id": self._context.conversation_id,
            "message_id": self._parent,
            "is_completion": True,
            "moderation_response": {"flagged": flagged, "blocked": blocked, "moderation_id": "modr-1"},
        }

    def _error(self, text: str) -> None:
        payload: Object = {"message": None, "conversation_id": self._context.conversation_id, "error": text}
        self._turn.steps.append(Side(payload))

    # Messages

    def _message(
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
        message_id = self._context.new_id()
        own: Object = {
            "message_type": "next",
            "model_slug": self._context.model,
            "resolved_model_slug": self._context.model,
            "default_model_slug": self._context.requested_model,
            "parent_id": self._parent,
        }
        message: Object = {
            "id": message_id,
            "author": {"role": role, "name": name, "metadata": {}},
            "create_time": self._context.now,
            "update_time": None,
            "content": content,
            "status": status,
            "end_turn": end_turn,
            "weight": weight,
            "metadata": {**(own if role in ("assistant", "tool") else {}), **(metadata or {})},
            "recipient": recipient,
            "channel": channel,
        }
        self._parent = message_id
        return message

    def _whole(self, message: Object, *, delta: bool = False) -> None:
        self._turn.steps.append(Open(message, delta))

    def _growing(
        self, message: Object, path: str, pieces: Sequence[str], *closing: Change, as_lists: bool = False
    ) -> None:
        """Open a message, let all pieces but the last grow, and put the last into the closing patch."""
        steps = self._turn.steps
        steps.append(Open(message))
        if len(pieces) > 1:
            steps.append(Grow(path, pieces[:-1], as_lists))
        last = tuple(Change(path, "append", piece) for piece in pieces[-1:])
        steps.append(Patch((*last, *closing), delta=True))

    def _closing(self, *, end_turn: bool | None = True, finish: Object | None = None) -> tuple[Change, ...]:
        return (
            Change("/message/status", "replace", "finished_successfully"),
            Change("/message/end_turn", "replace", end_turn),
            Change("/message/metadata", "append", {"is_complete": True, "finish_details": finish or _STOP}),
        )

    def _final_message(self, text: str = "", **more: JSON) -> Object:
        metadata: Object = {"citations": [], "content_references": [], **more}
        return self._message("assistant", _text(text), status="in_progress", channel="final", metadata=metadata)

    def _say(self, pieces: Sequence[str], *, tool: bool = False, as_lists: bool = False) -> None:
        """The visible answer, to its good end."""
        message = self._final_message()
        if self._options.early_markers:
            self._marker(message["id"], "final_channel_token|user_visible_token", "first")
        self._turn.steps.append(Open(message))
        self._server_metadata(message["id"], tool=tool)
        if not self._options.early_markers:
            self._marker(message["id"], "final_channel_token|user_visible_token", "first")
        if len(pieces) > 1:
            self._turn.steps.append(Grow(TEXT, pieces[:-1], as_lists))
        last = tuple(Change(TEXT, "append", piece) for piece in pieces[-1:])
        closing = self._closing()
        if self._options.finish == "together":
            self._turn.steps.append(Patch((*last, *closing), delta=True))
        else:
            self._turn.steps.append(Patch((*last, closing[0]), delta=True))
        if self._options.finish == "late":
            self._turn.steps.append(Patch(closing[1:]))
        self._marker(message["id"], "last_token", "last")

    def _tool_call(self, recipient: str, language: str, code: str) -> None:
        content: Object = {"content_type": "code", "language": language, "response_format_name": None, "text": ""}
        call = self._message("assistant", content, status="in_progress", recipient=recipient, channel="commentary")
        self._growing(call, CODE, cut_words(code), *self._closing(end_turn=False, finish=_TOOL_CALL))

    # The kinds

    def text(self) -> None:
        """Words one by one, the last inside the final patch."""
        self._say(self._context.pieces)

    def whole_add(self) -> None:
        """The whole text in the event that opens the message, nothing appended."""
        message = self._final_message("".join(self._context.pieces), finish_details=_STOP, is_complete=True)
        message |= {"status": "finished_successfully", "end_turn": True}
        self._whole(message, delta=True)

    def final_patch(self) -> None:
        """The whole text in the final patch."""
        self._say(["".join(self._context.pieces)])

    def bare_lists(self) -> None:
        """Text in patches without path and operation."""
        self._say(self._context.pieces, as_lists=True)

    def code(self) -> None:
        """Python code, its output, then the text."""
        self._tool_call("python", "python", "total = sum(range(10))\nprint(total)")
        self._whole(self._message("tool", {"content_type": "execution_output", "text": "45\n"}, name="python"))
        self._say(self._context.pieces, tool=True)

    def thoughts(self) -> None:
        """Reasoning in a message of its own, its recap, then the text."""
        content: Object = {"content_type": "thoughts", "thoughts": [], "source_analysis_msg_id": self._context.new_id()}
        message = self._message("assistant", content, status="in_progress", channel="analysis")
        self._whole(message)
        self._marker(message["id"], "cot_token", "first")
        for number, (summary, sentence) in enumerate(_REASONING):
            thought: Object = {"summary": summary, "content": "", "chunks": [], "finished": False}
            self._turn.steps.append(Patch((Change(_THOUGHTS, "append", [thought]),)))
            self._turn.steps.append(Grow(f"{_THOUGHTS}/{number}/content", cut_words(sentence)))
            self._turn.steps.append(Patch((Change(f"{_THOUGHTS}/{number}/finished", "replace", True),)))
        self._turn.steps.append(Patch(self._closing(end_turn=False)))
        recap: Object = {"content_type": "reasoning_recap", "content": "Thought for 6s"}
        ended: Object = {"reasoning_status": "reasoning_ended", "finished_duration_sec": 6}
        self._whole(self._message("assistant", recap, metadata=ended))
        self._say(self._context.pieces)

    def o1(self) -> None:
        """Reasoning as a tool's text, as the first reasoning models sent it."""
        metadata: Object = {"initial_text": "Thinking", "finished_text": "Thought for a few seconds"}
        tool = self._message("tool", _text(""), status="in_progress", name="a8km123", metadata=metadata)
        pieces = cut_words("\n\n".join(f"**{summary}**\n\n{sentence}" for summary, sentence in _REASONING))
        self._growing(tool, TEXT, pieces, *self._closing(end_turn=False))
        self._say(self._context.pieces)

    def channels(self) -> None:
        """Text on the channels commentary and analysis before the one on final."""
        for channel in ("commentary", "analysis"):
            message = self._message("assistant", _text(""), status="in_progress", channel=channel)
            words = cut_words(f"This is {channel} and not for the reader.")
            self._growing(message, TEXT, words, *self._closing(end_turn=False))
        self._say(self._context.pieces)

    def memory(self) -> None:
        """A tool call that looks like plain text, and hidden messages to all."""
        call = self._message("assistant", _text(""), status="in_progress", recipient="bio", channel="commentary")
        self._growing(call, TEXT, cut_words("Likes rivers."), *self._closing(end_turn=False, finish=_TOOL_CALL))
        self._whole(self._message("tool", _text("Model set context updated."), name="bio"))
        context: Object = {"content_type": "model_editable_context", "model_set_context": "1. Likes rivers."}
        self._whole(self._message("assistant", context))
        self._say(self._context.pieces)

    def citations(self) -> None:
        """Private-use markers, cut inside, and the references in metadata."""
        mark = "\ue200cite\ue202turn0search0\ue202turn0search1\ue201"
        self._tool_call("web.run", "json", '{"search_query":[{"q":"longest river"}]}')
        text = f"The Nile is long {mark} and the Amazon is wide \ue200cite\ue202turn0search1\ue201."
        message = self._final_message()
        self._whole(message)
        self._server_metadata(message["id"], tool=True)
        pieces = [piece for word in cut_words(text) for piece in _cut_marks(word)]
        groups: list[JSON] = [
            {"type": "search_result_group", "domain": domain, "entries": [_entry(number, url, title)]}
            for number, (url, title, domain) in enumerate(_SOURCES)
        ]
        references: list[JSON] = [
            _reference(text, mark, (0, 1)),
            _reference(text, "\ue200cite\ue202turn0search1\ue201", (1,)),
        ]
        steps = self._turn.steps
        steps.append(Patch((Change("/message/metadata/search_result_groups", "append", groups),)))
        steps.append(Grow(TEXT, pieces))
        steps.append(Patch((Change("/message/metadata/content_references", "append", references[:1]),)))
        steps.append(Patch((Change("/message/metadata/content_references/1", "add", references[1]), *self._closing())))

    def citations_2024(self) -> None:
        """Marks in black brackets, offsets in metadata."""
        text = "The Nile is long【0†source】 and the Amazon is wide【1†source】."
        citations: list[JSON] = []
        for number, (url, title, _) in enumerate(_SOURCES):
            mark = f"【{number}†source】"
            start = text.index(mark)
            metadata: Object = {"type": "webpage", "title": title, "url": url, "text": ""}
            kind: Object = {"citation_format_type": "tether_og", "metadata": metadata}
            citations.append({"start_ix": start, "end_ix": start + len(mark), **kind})
        message = self._final_message()
        pieces = [piece for word in cut_words(text) for piece in _cut_marks(word)]
        closing = (Change("/message/metadata/citations", "append", citations), *self._closing())
        self._growing(message, TEXT, pieces, *closing)

    def image(self) -> None:
        """A finished picture with a sediment pointer, then the end."""
        self._tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river","size":"1024x1024"}')
        self._whole(self._picture(self._context.new_image("sediment")))
        self._server_metadata(self._parent, tool=True, use_case="image gen")
        self._say(cut_words("Here is the picture."), tool=True)

    def image_2024(self) -> None:
        """The call as JSON text, then a picture with a file-service pointer."""
        self._tool_call("dalle.text2im", "json", '{"prompt":"A boat on a river","size":"1024x1024"}')
        self._whole(
            self._picture(self._context.new_image("file-service"), name="dalle.text2im", prompt="A boat on a river")
        )
        self._say(cut_words("Here is the picture."), tool=True)

    def image_async(self) -> None:
        """A waiting card only; the picture appears in the stored conversation later."""
        self._waiting_card()
        self._turn.async_status = 1
        self._turn.pending.append(self._picture(self._context.new_image("sediment")))

    def image_given_up(self) -> None:
        """A waiting card, and the work on the picture ends without one."""
        self._waiting_card()
        self._turn.async_status = 4

    def _waiting_card(self) -> None:
        self._tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river"}')
        task: Object = {"image_gen_task_id": "imagegen_1", "async_task_type": "image_gen", "image_gen_title": "A boat"}
        card = self._message("tool", _text("Processing image"), name=IMAGE_TOOL, metadata=task)
        self._whole(card)
        self._server_metadata(self._parent, tool=True, use_case="image gen")

    def image_refused(self) -> None:
        """A tool message that says the picture was refused by policy."""
        self._tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river"}')
        metadata: Object = {
            "is_error": True,
            "async_task_type": "image_gen",
            "error": {"type": "content_policy_violation", "code": "content_policy_violation"},
        }
        text = "The picture was not made because the request goes against our content policy."
        self._whole(self._message("tool", _text(text), name=IMAGE_TOOL, metadata=metadata))
        self._say(cut_words("I cannot make that picture."), tool=True)

    def interpreter_file(self) -> None:
        """Code that writes a file, and a text that links to it."""
        self._tool_call("python", "python", "open('/mnt/data/rivers.csv', 'w').write('name\\nNile\\n')")
        self._whole(self._message("tool", {"content_type": "execution_output", "text": "10"}, name="python"))
        self._say(cut_words("Your table: [Download rivers.csv](sandbox:/mnt/data/rivers.csv)"), tool=True)
        self._context.new_file(self._parent, "/mnt/data/rivers.csv", b"name\nNile\n")

    def blocked(self) -> None:
        """A text that begins, then moderation's block."""
        message = self._final_message()
        self._whole(message)
        self._turn.steps.append(Grow(TEXT, self._context.pieces[:2]))
        self._side("moderation", message_id=message["id"], is_completion=True)
        self._turn.steps.append(Side(self._moderation(flagged=True, blocked=True)))

    def system_error(self) -> None:
        """An error as a message."""
        content: Object = {"content_type": "system_error", "name": "ToolTimeout", "text": "The tool took too long."}
        self._whole(self._message("tool", content, name="python", end_turn=True))

    def interrupted(self) -> None:
        """A turn that the user stopped."""
        message = self._final_message()
        finish: Object = {"type": "interrupted", "reason": "client_stopped"}
        self._growing(message, TEXT, self._context.pieces, *self._closing(end_turn=None, finish=finish))

    def max_tokens(self) -> None:
        """Half of the text, cut by the backend's own limit; `continue` gives the rest."""
        half = max(1, len(self._context.pieces) // 2)
        self._turn.said = list(self._context.pieces[:half])
        self._turn.unsaid = list(self._context.pieces[half:])
        message = self._final_message()
        finish: Object = {"type": "max_tokens"}
        self._growing(message, TEXT, self._context.pieces[:half], *self._closing(end_turn=False, finish=finish))

    def error_midway(self) -> None:
        """Half of the text, then an error inside the stream."""
        half = max(1, len(self._context.pieces) // 2)
        self._whole(self._final_message())
        self._turn.steps.append(Grow(TEXT, self._context.pieces[:half]))
        self._error("Something went wrong while generating the response.")

    def error_late(self) -> None:
        """The whole answer, finished, and then an error all the same."""
        self._say(self._context.pieces)
        self._error("Something went wrong after the answer.")

    def _hand_off(self) -> None:
        """Say where the answer is; write it for the resume call and for those who poll."""
        context = self._context
        topic = f"conversation-turn-{context.turn_id}"
        kinds = ("resume_sse_endpoint", "subscribe_ws_topic")
        shapes: Object = {
            "list": [{"type": kind, "topic_id": topic} for kind in kinds],
            "object": {"transport": "sse", "resume_token": context.resume_token},
        }
        shape = self._options.handoff_options
        more: Object = {"options": shapes[shape]} if shape in shapes else {}
        before = len(self._turn.steps)
        self._side("stream_handoff", turn_exchange_id=context.turn_id, **more)
        said = self._turn.steps
        self._turn.steps = said[:before]
        self._say(context.pieces)
        self._epilogue(before, "text")
        self._turn.resume = self._turn.steps
        self._turn.pending = self._messages_to_keep(self._turn.resume)
        self._turn.steps = said

    def _picture(self, pointer: str, *, name: str = IMAGE_TOOL, prompt: str = "") -> Object:
        generated: Object = {"gen_id": "gen-1", "gen_size": "image", "height": 1024, "width": 1024}
        part: Object = {
            "content_type": "image_asset_pointer",
            "asset_pointer": pointer,
            "size_bytes": 70,
            "width": 1024,
            "height": 1024,
            "fovea": None,
            "metadata": {"dalle": {"gen_id": "gen-1", "prompt": prompt, "seed": None}, "generation": generated},
        }
        content: Object = {"content_type": "multimodal_text", "parts": [part]}
        metadata: Object = {"async_task_type": "image_gen", "async_task_id": "imagegen_1", "image_gen_title": "A boat"}
        return self._message("tool", content, name=name, metadata=metadata)


_REASONING = (
    ("Reading the question", "The user wants a short answer. I look for what is asked."),
    ("Choosing the words", "A plain sentence will do."),
)


def _text(text: str) -> Object:
    return {"content_type": "text", "parts": [text]}


def _length(step: Step) -> int:
    return len(step.pieces) if isinstance(step, Grow) else 0


def _cut_marks(word: str) -> list[str]:
    """Cut a word behind each character that opens or separates a mark, so that marks end chunks."""
    pieces = [""]
    for character in word:
        pieces[-1] += character
        if character in "\ue200\ue202【†":
            pieces.append("")
    return [piece for piece in pieces if piece]


def _entry(number: int, url: str, title: str) -> Object:
    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC).timestamp()
    ref: Object = {"turn_index": 0, "ref_type": "search", "ref_index": number}
    return {
        "type": "search_result",
        "url": url,
        "title": title,
        "snippet": f"About {title}.",
        "ref_id": ref,
        "pub_date": day,
    }


def _reference(text: str, mark: str, sources: tuple[int, ...]) -> Object:
    """One reference; offsets count code points and include the marks."""
    start = text.index(mark)
    items: list[JSON] = []
    refs: list[JSON] = []
    for number in sources:
        url, title, domain = _SOURCES[number]
        items.append({"title": title, "url": url, "attribution": domain, "snippet": f"About {title}.", "refs": []})
        refs.append({"turn_index": 0, "ref_type": "search", "ref_index": number})
    return {
        "matched_text": mark,
        "start_idx": start,
        "end_idx": start + len(mark),
        "type": "grouped_webpages",
        "items": items,
        "fallback_items": None,
        "refs": refs,
        "alt": None,
        "prompt_text": None,
    }
