"""The kinds of answers, as scripts.

Each kind is a method of `Composer` named like the kind; it adds steps for the stream and says what stays in the stored
conversation. Kinds that end the turn elsewhere (hand-off, asynchronous image) fill `pending` or `resume`.
"""

import datetime

from chat2api.simulator.composing import STOP, TOOL_CALL, Composition, Turn, TurnContext, text_content
from chat2api.simulator.options import AnswerKind
from chat2api.simulator.refusals import UNUSUAL_ACTIVITY_TEXT
from chat2api.simulator.replies import cut_words
from chat2api.simulator.script import TEXT, Change, Grow, Patch, Side
from chat2api.simulator.wire import JSON, Object

_THOUGHTS = "/message/content/thoughts"
IMAGE_TOOL = "t2uay3k.sj1i4kz"

_SOURCES = (
    ("https://rivers.example.test/nile?utm_source=chatgpt.com", "The Nile", "rivers.example.test"),
    ("https://atlas.example.test/amazon", "The Amazon", "atlas.example.test"),
)


def compose_turn(kind: AnswerKind, context: TurnContext) -> Turn:
    """Give the script of one answer."""
    return Composer(context).compose(kind)


class Composer(Composition):
    """Writes one turn."""

    def compose(self, kind: AnswerKind) -> Turn:
        """Write prologue, answer and epilogue."""
        turn = self.turn
        if kind == "empty":
            return turn
        self.begin()
        if kind == "error":
            self.error(UNUSUAL_ACTIVITY_TEXT)
            return turn
        if kind in ("handoff", "handoff_poll"):
            self._hand_off()
            return turn
        begun = len(turn.steps)
        getattr(self, "text" if kind == "websocket_2024" else kind)()
        self.epilogue(begun, kind)
        turn.stored = self.messages_to_keep(turn.steps)
        return turn

    # The kinds

    def text(self) -> None:
        """Words one by one, the last inside the final patch."""
        self.say(self.context.pieces)

    def whole_add(self) -> None:
        """The whole text in the event that opens the message, nothing appended."""
        message = self.final_message("".join(self.context.pieces), finish_details=STOP, is_complete=True)
        message |= {"status": "finished_successfully", "end_turn": True}
        self.whole(message, delta=True)

    def final_patch(self) -> None:
        """The whole text in the final patch."""
        self.say(["".join(self.context.pieces)])

    def bare_lists(self) -> None:
        """Text in patches without path and operation."""
        self.say(self.context.pieces, as_lists=True)

    def code(self) -> None:
        """Python code, its output, then the text."""
        self.tool_call("python", "python", "total = sum(range(10))\nprint(total)")
        self.whole(self.message("tool", {"content_type": "execution_output", "text": "45\n"}, name="python"))
        self.say(self.context.pieces, tool=True)

    def thoughts(self) -> None:
        """Reasoning in a message of its own, its recap, then the text."""
        content: Object = {"content_type": "thoughts", "thoughts": [], "source_analysis_msg_id": self.context.new_id()}
        message = self.message("assistant", content, status="in_progress", channel="analysis")
        self.whole(message)
        self.marker(message["id"], "cot_token", "first")
        for number, (summary, sentence) in enumerate(_REASONING):
            thought: Object = {"summary": summary, "content": "", "chunks": [], "finished": False}
            self.turn.steps.append(Patch((Change(_THOUGHTS, "append", [thought]),)))
            self.turn.steps.append(Grow(f"{_THOUGHTS}/{number}/content", cut_words(sentence)))
            self.turn.steps.append(Patch((Change(f"{_THOUGHTS}/{number}/finished", "replace", True),)))
        self.turn.steps.append(Patch(self.closing(end_turn=False)))
        recap: Object = {"content_type": "reasoning_recap", "content": "Thought for 6s"}
        ended: Object = {"reasoning_status": "reasoning_ended", "finished_duration_sec": 6}
        self.whole(self.message("assistant", recap, metadata=ended))
        self.say(self.context.pieces)

    def o1(self) -> None:
        """Reasoning as a tool's text, as the first reasoning models sent it."""
        metadata: Object = {"initial_text": "Thinking", "finished_text": "Thought for a few seconds"}
        tool = self.message("tool", text_content(""), status="in_progress", name="a8km123", metadata=metadata)
        pieces = cut_words("\n\n".join(f"**{summary}**\n\n{sentence}" for summary, sentence in _REASONING))
        self.growing(tool, TEXT, pieces, *self.closing(end_turn=False))
        self.say(self.context.pieces)

    def channels(self) -> None:
        """Text on the channels commentary and analysis before the one on final."""
        for channel in ("commentary", "analysis"):
            message = self.message("assistant", text_content(""), status="in_progress", channel=channel)
            words = cut_words(f"This is {channel} and not for the reader.")
            self.growing(message, TEXT, words, *self.closing(end_turn=False))
        self.say(self.context.pieces)

    def memory(self) -> None:
        """A tool call that looks like plain text, and hidden messages to all."""
        call = self.message("assistant", text_content(""), status="in_progress", recipient="bio", channel="commentary")
        self.growing(call, TEXT, cut_words("Likes rivers."), *self.closing(end_turn=False, finish=TOOL_CALL))
        self.whole(self.message("tool", text_content("Model set context updated."), name="bio"))
        context: Object = {"content_type": "model_editable_context", "model_set_context": "1. Likes rivers."}
        self.whole(self.message("assistant", context))
        self.say(self.context.pieces)

    def citations(self) -> None:
        """Private-use markers, cut inside, and the references in metadata."""
        mark = "\ue200cite\ue202turn0search0\ue202turn0search1\ue201"
        self.tool_call("web.run", "json", '{"search_query":[{"q":"longest river"}]}')
        text = f"The Nile is long {mark} and the Amazon is wide \ue200cite\ue202turn0search1\ue201."
        message = self.final_message()
        self.whole(message)
        self.server_metadata(message["id"], tool=True)
        pieces = [piece for word in cut_words(text) for piece in _cut_marks(word)]
        groups: list[JSON] = [
            {"type": "search_result_group", "domain": domain, "entries": [_entry(number, url, title)]}
            for number, (url, title, domain) in enumerate(_SOURCES)
        ]
        references: list[JSON] = [
            _reference(text, mark, (0, 1)),
            _reference(text, "\ue200cite\ue202turn0search1\ue201", (1,)),
        ]
        steps = self.turn.steps
        steps.append(Patch((Change("/message/metadata/search_result_groups", "append", groups),)))
        steps.append(Grow(TEXT, pieces))
        steps.append(Patch((Change("/message/metadata/content_references", "append", references[:1]),)))
        steps.append(Patch((Change("/message/metadata/content_references/1", "add", references[1]), *self.closing())))

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
        message = self.final_message()
        pieces = [piece for word in cut_words(text) for piece in _cut_marks(word)]
        closing = (Change("/message/metadata/citations", "append", citations), *self.closing())
        self.growing(message, TEXT, pieces, *closing)

    def image(self) -> None:
        """A finished picture with a sediment pointer, then the end."""
        self.tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river","size":"1024x1024"}')
        self.whole(self._picture(self.context.new_image("sediment")))
        self.server_metadata(self.parent, tool=True, use_case="image gen")
        self.say(cut_words("Here is the picture."), tool=True)

    def image_2024(self) -> None:
        """The call as JSON text, then a picture with a file-service pointer."""
        self.tool_call("dalle.text2im", "json", '{"prompt":"A boat on a river","size":"1024x1024"}')
        self.whole(
            self._picture(self.context.new_image("file-service"), name="dalle.text2im", prompt="A boat on a river")
        )
        self.say(cut_words("Here is the picture."), tool=True)

    def image_async(self) -> None:
        """A waiting card only; the picture appears in the stored conversation later."""
        self._waiting_card()
        self.turn.async_status = 1
        self.turn.pending.append(self._picture(self.context.new_image("sediment")))

    def image_given_up(self) -> None:
        """A waiting card, and the work on the picture ends without one."""
        self._waiting_card()
        self.turn.async_status = 4

    def _waiting_card(self) -> None:
        self.tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river"}')
        task: Object = {"image_gen_task_id": "imagegen_1", "async_task_type": "image_gen", "image_gen_title": "A boat"}
        card = self.message("tool", text_content("Processing image"), name=IMAGE_TOOL, metadata=task)
        self.whole(card)
        self.server_metadata(self.parent, tool=True, use_case="image gen")

    def image_refused(self) -> None:
        """A tool message that says the picture was refused by policy."""
        self.tool_call(IMAGE_TOOL, "json", '{"prompt":"A boat on a river"}')
        metadata: Object = {
            "is_error": True,
            "async_task_type": "image_gen",
            "error": {"type": "content_policy_violation", "code": "content_policy_violation"},
        }
        text = "The picture was not made because the request goes against our content policy."
        self.whole(self.message("tool", text_content(text), name=IMAGE_TOOL, metadata=metadata))
        self.say(cut_words("I cannot make that picture."), tool=True)

    def interpreter_file(self) -> None:
        """Code that writes a file, and a text that links to it."""
        self.tool_call("python", "python", "open('/mnt/data/rivers.csv', 'w').write('name\\nNile\\n')")
        self.whole(self.message("tool", {"content_type": "execution_output", "text": "10"}, name="python"))
        self.say(cut_words("Your table: [Download rivers.csv](sandbox:/mnt/data/rivers.csv)"), tool=True)
        self.context.new_file(self.parent, "/mnt/data/rivers.csv", b"name\nNile\n")

    def blocked(self) -> None:
        """A text that begins, then moderation's block."""
        message = self.final_message()
        self.whole(message)
        self.turn.steps.append(Grow(TEXT, self.context.pieces[:2]))
        self.side("moderation", message_id=message["id"], is_completion=True)
        self.turn.steps.append(Side(self.moderation(flagged=True, blocked=True)))

    def system_error(self) -> None:
        """An error as a message."""
        content: Object = {"content_type": "system_error", "name": "ToolTimeout", "text": "The tool took too long."}
        self.whole(self.message("tool", content, name="python", end_turn=True))

    def interrupted(self) -> None:
        """A turn that the user stopped."""
        message = self.final_message()
        finish: Object = {"type": "interrupted", "reason": "client_stopped"}
        self.growing(message, TEXT, self.context.pieces, *self.closing(end_turn=None, finish=finish))

    def max_tokens(self) -> None:
        """Half of the text, cut by the backend's own limit; `continue` gives the rest."""
        half = max(1, len(self.context.pieces) // 2)
        self.turn.said = list(self.context.pieces[:half])
        self.turn.unsaid = list(self.context.pieces[half:])
        message = self.final_message()
        finish: Object = {"type": "max_tokens"}
        self.growing(message, TEXT, self.context.pieces[:half], *self.closing(end_turn=False, finish=finish))

    def error_midway(self) -> None:
        """Half of the text, then an error inside the stream."""
        half = max(1, len(self.context.pieces) // 2)
        self.whole(self.final_message())
        self.turn.steps.append(Grow(TEXT, self.context.pieces[:half]))
        self.error("Something went wrong while generating the response.")

    def error_late(self) -> None:
        """The whole answer, finished, and then an error all the same."""
        self.say(self.context.pieces)
        self.error("Something went wrong after the answer.")

    def _hand_off(self) -> None:
        """Say where the answer is; write it for the resume call and for those who poll."""
        context = self.context
        topic = f"conversation-turn-{context.turn_id}"
        kinds = ("resume_sse_endpoint", "subscribe_ws_topic")
        shapes: Object = {
            "list": [{"type": kind, "topic_id": topic} for kind in kinds],
            "object": {"transport": "sse", "resume_token": context.resume_token},
        }
        shape = self.options.handoff_options
        more: Object = {"options": shapes[shape]} if shape in shapes else {}
        before = len(self.turn.steps)
        self.side("stream_handoff", turn_exchange_id=context.turn_id, **more)
        said = self.turn.steps
        self.turn.steps = said[:before]
        self.say(context.pieces)
        self.epilogue(before, "text")
        self.turn.resume = self.turn.steps
        self.turn.pending = self.messages_to_keep(self.turn.resume)
        self.turn.steps = said

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
        return self.message("tool", content, name=name, metadata=metadata)


_REASONING = (
    ("Reading the question", "The user wants a short answer. I look for what is asked."),
    ("Choosing the words", "A plain sentence will do."),
)


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
