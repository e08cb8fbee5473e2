"""One turn put together: the backend's messages in, neutral events out.

Theory of operation. Messages come as whole snapshots, again and again (classic streams, stored conversations), or grow
by appends (v1 streams); both end in `update` and `append`, which remember of each message what was seen of it and pass on
only what is new. So one turn gives the same events whichever way it was told.

What was passed on cannot be taken back: `message_view` decides what is told of a text that the backend rewrote, and
`transcript` keeps what was said.

Of several answers that are written side by side for the reader to choose from (seen in 2023 and 2025) the one that began
first is shown; another takes its place only if it goes on with the very text of the first, or alone comes to an end. The
end of the turn is decided in one place, `conclude`, from what was gathered: see there.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from chat2api.errors import StreamInterruptedError, UpstreamProtocolError
from chat2api.protocol.chatgpt.citations import Sources
from chat2api.protocol.chatgpt.continuation import Continuation
from chat2api.protocol.chatgpt.message_view import View, join_surrogates
from chat2api.protocol.chatgpt.patches import Document, Json, Rope, note_unknown, text_of
from chat2api.protocol.chatgpt.transcript import Facts, Transcript
from chat2api.protocol.chatgpt.visibility import (
    KNOWN_TYPES,
    Show,
    canvas_text,
    classify,
    fence_language,
    find_files,
    mapping_of,
    read_text,
    role_of,
)
from chat2api.protocol.events import (
    Event,
    Failed,
    FilePointer,
    Finished,
    FinishReason,
    HandedOff,
    ImagePending,
)

_CUT_CHARACTERS = "\ufffd" + "".join(map(chr, range(0xD800, 0xDC00)))


class Turn:
    """The state of one turn, and the events that wait to be taken.

    `own_message_ids` are the ids of the messages that the request itself sent; their echo is not the answer.
    `continued_text` is the raw text (see `raw_text`) of a message that a `continue` call goes on with: of its text only
    what comes after is passed on, whether the backend begins it again or sends just the rest.
    """

    def __init__(self, unknown: Counter[str], *, own_message_ids: Iterable[str] = (), continued_text: str = "") -> None:
        """Begin a turn; `unknown` counts kinds of content that were not understood."""
        self.facts = Facts()
        self.resume_token: str | None = None
        self.is_blocked = False
        self.is_complete = False
        self.is_closed_well = False
        self.is_ended = False
        self._unknown = unknown
        self._own_ids = set(own_message_ids)
        self._views: dict[str, View] = {}
        self._found: dict[str, dict[str, Json]] = {}
        self._last: View | None = None
        self._answer: View | None = None
        """The answer's last message so far."""
        self._thinks_on = False
        """Whether reasoning or a hand-off followed that message when it was finished: it only announced the answer."""
        self._cot_ids: set[str] = set()
        self._continuation = Continuation(continued_text)
        self._transcript = Transcript(self.facts)
        self._pointers: set[str] = set()
        self._turn_exchange_id: str | None = None
        self._use_case = ""
        self._handoff: dict[str, Json] | None = None
        self._received: int | None = None
        self._pending_image: View | None = None
        self._failure: tuple[str, str | None] | None = None
        """A tool's error: its words and its code."""
        self._said_before_failure = 0

    @property
    def raw_text(self) -> str:
        """The raw text of the last visible message so far, with what a continued turn began from."""
        return self._continuation.whole(str(self._answer.seen) if self._answer else "")

    def take(self) -> list[Event]:
        """Give the events since the last call; neighbouring deltas of one kind come as one."""
        return self._transcript.take()

    # What the backend tells

    def update(self, document: Document) -> None:
        """Take a document's message as it is now, whole."""
        if conversation_id := text_of(document.get("conversation_id")):
            self.facts.conversation_id = conversation_id
        if document.get("error"):
            self.fail(document["error"], document.get("error_code"))
            return
        message = document.get("message")
        if type(message) is not dict:
            return
        view = self._view_of(message)
        if view is not None:
            self._read_state(view)
            self._read_content(view)

    def may_append(self, document: Document, path: str) -> bool:
        """Tell whether several appends at this path may come as one: the message is not read anew for each of them."""
        view = self._known(document)
        if view is None or view.show is Show.NOTHING or view.show is Show.CANVAS:
            return view is not None
        return view.path == path and view.cut is None

    def append(self, document: Document, path: str, text: str) -> bool:
        """Take text that was appended at this path of the document's message; tell whether all of it was read anew."""
        view = self._last
        if view is None or view.message is not document.get("message"):
            view = self._known(document)
        if view is not None and (view.show is Show.NOTHING or view.show is Show.CANVAS):
            return False
        if view is not None and view.path == path and view.cut is None:
            view.seen.append(text)
            self._write(view, text)
            return False
        self.update(document)
        return True

    def amend(self, document: Document, paths: Collection[str]) -> None:
        """Take changes beside the content: status, metadata, recipient, error; one call for all of a delta."""
        view = self._known(document)
        if view is None or "/error" in paths:
            self.update(document)
            return
        self._read_state(view)
        if not view.has_written or (view.status != "in_progress" and not view.is_done):
            self._read_content(view)

    def mark(self, message_id: str, marker: str) -> None:
        """Take a marker of a message's tokens, several joined with "|" maybe; it may come before the message."""
        if "user_visible_token" in marker or "final_channel_token" in marker:
            is_cot = False
        elif "cot_token" in marker:
            is_cot = True
        else:
            return
        if is_cot == (message_id in self._cot_ids):
            return
        if is_cot:
            self._cot_ids.add(message_id)
        else:
            self._cot_ids.discard(message_id)
        view = self._views.get(message_id)
        if view is not None and not view.has_written:
            self._read_content(view)

    def ignore(self, message: Json) -> None:
        """Take note of an echo of what was sent."""
        if identifier := text_of(mapping_of(message).get("id")):
            self._own_ids.add(identifier)

    def note_server(self, metadata: Json) -> None:
        """Take the backend's own account of how it serves the turn."""
        facts = mapping_of(metadata)
        self.facts.server_model = text_of(facts.get("model_slug")) or self.facts.server_model
        self._turn_exchange_id = text_of(facts.get("turn_exchange_id")) or self._turn_exchange_id
        self._use_case = text_of(facts.get("turn_use_case")) or self._use_case

    def hand_off(self, event: dict[str, Json], received: int | None = None) -> None:
        """Take the word that the answer comes another way: what was said before was an announcement of it.

        `received` is how many events came until then, this one included.
        """
        self._handoff = event
        self._received = received
        self._thinks_on = self._answer is not None
        self._turn_exchange_id = text_of(event.get("turn_exchange_id")) or self._turn_exchange_id

    def fail(self, error: Json, code: Json = None) -> None:
        """Take an error; after a finished answer it spoils nothing and is only counted."""
        if self.is_ended:
            return
        if self._answer is not None and self._answer.is_answered:
            note_unknown(self._unknown, "error after the answer")
            return
        if type(error) is dict:
            code = code or error.get("code") or error.get("error_code")
            error = error.get("message") or error.get("detail") or error.get("content") or code
        message = text_of(error) or "The backend reported an error without a text."
        self._transcript.leave()
        self.end(Failed(message, text_of(code) or None, self.facts.conversation_id))

    # Reading messages

    def _known(self, document: Document) -> View | None:
        message = document.get("message")
        view = self._last
        if view is not None and view.message is message:
            return view
        view = self._views.get(text_of(message.get("id"))) if type(message) is dict else None
        return view if view is not None and view.message is message else None

    def _view_of(self, message: dict[str, Json]) -> View | None:
        identifier, role = text_of(message.get("id")), role_of(message)
        if identifier in self._own_ids or role not in ("assistant", "tool"):
            return None
        # A message without an id is the one before as long as its author stays the same.
        key = identifier or f"{role} without id"
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(identifier or None, Sources(self._found))
        view.message = message
        view.role = role
        self._last = view
        return view

    def _read_state(self, view: View) -> None:
        message = view.message
        metadata = mapping_of(message.get("metadata"))
        status = message.get("status")
        view.status = status if type(status) is str or status is None else text_of(status)
        end_turn = message.get("end_turn")
        view.end_turn = end_turn if type(end_turn) is bool else None
        if details := metadata.get("finish_details"):
            view.finish = text_of(mapping_of(details).get("type")) or view.finish
        view.parent_id = text_of(metadata.get("parent_id")) or view.parent_id
        model = text_of(metadata.get("resolved_model_slug")) or text_of(metadata.get("model_slug"))
        self.facts.model = model or self.facts.model
        is_image = (
            metadata.get("image_gen_task_id")
            or metadata.get("image_gen_async")
            or metadata.get("async_task_type") == "image_gen"
        )
        if is_image:
            # A picture that was refused is not being made: nothing comes later.
            self._pending_image = None if metadata.get("is_error") else view
        if type(metadata) is dict:
            view.sources.metadata = metadata
            if view.id and metadata.get("search_result_groups"):
                self._found[view.id] = metadata
        if view.show is Show.TEXT and not view.rewriter.is_idle:
            self._transcript.pass_on(view, view.rewriter.retry())

    def _read_content(self, view: View) -> None:
        message = view.message
        content = mapping_of(message.get("content"))
        content_type = text_of(content.get("content_type"))
        if content_type and content_type not in KNOWN_TYPES:
            note_unknown(self._unknown, f"content_type: {content_type}")
        if not view.has_written:
            view.show = classify(message, is_marked_reasoning=view.id in self._cot_ids)
            if view.show is Show.CODE or view.show is Show.OUTPUT:
                view.language = fence_language(message, view.show)
        if view.role == "assistant" and view.show is Show.TEXT and not self._is_beside_the_answer(view):
            self._thinks_on = self._thinks_on and view is self._answer
            self._answer = view
        elif view.is_reasoning and self._answer is not None and self._answer.is_done and not view.has_written:
            self._thinks_on = True
        text, view.path = read_text(view.show, content)
        if view.show is not Show.CANVAS:
            self._read_snapshot(view, text, is_growing=view.status == "in_progress")
        is_done = view.status is None or view.status != "in_progress"
        if is_done and not view.is_done:
            view.is_done = view.status is not None
            self._read_finished(view, content_type, text)

    def _read_snapshot(self, view: View, text: str, *, is_growing: bool) -> None:
        if is_growing:
            # Cut inside a character: its stand-in, or its first half, will be another in the next snapshot.
            text = text.rstrip(_CUT_CHARACTERS)
        seen = str(view.seen)
        if not (text.isascii() and seen.isascii()):
            text, seen = join_surrogates(text), join_surrogates(seen.removesuffix(view.carry))
        if text == seen:
            return
        view.seen, view.carry = Rope(seen), ""
        if not seen and self._goes_on_with_the_answer(view, text):
            self._take_place_of_the_answer(view)
        news = view.find_news(text)
        if news is not None:
            self._write(view, news)
        view.seen = Rope(text)

    # Answers side by side

    def _is_beside_the_answer(self, view: View) -> bool:
        """Tell whether this text is another version of the one that is being written."""
        answer = self._answer
        if view.is_alternative:
            return True
        if answer is None or answer is view or view.has_written or not answer.has_written:
            return False
        if answer.status != "in_progress":
            return False
        if view.parent_id and answer.parent_id:
            return not self._descends(view, answer)
        # Where no parents are told: nothing else was said since that one began.
        for other in reversed(self._views.values()):
            if other is answer:
                break
            if other is not view and not other.is_alternative:
                return False
        return True

    def _descends(self, view: View, ancestor: View) -> bool:
        """Tell whether a message follows another, as far as the parents told lead."""
        seen: set[str] = set()
        while view.parent_id and view.parent_id not in seen:
            if view.parent_id == ancestor.id:
                return True
            seen.add(view.parent_id)
            view = self._views.get(view.parent_id, view)
        return False

    def _goes_on_with_the_answer(self, view: View, text: str) -> bool:
        if view.show is not Show.TEXT or not self._is_beside_the_answer(view):
            return False
        return self._answer is not None and text.startswith(str(self._answer.seen))

    def _take_place_of_the_answer(self, view: View) -> None:
        """Let a message go on where the answer stands: the same message, under the id that it was given meanwhile."""
        before = self._answer
        if before is None:
            return
        view.seen, view.rewriter, view.carry, view.sources = before.seen, before.rewriter, before.carry, before.sources
        view.sources.metadata = dict(mapping_of(view.message.get("metadata")))
        view.has_written = before.is_alternative = True
        if self._transcript.current is before:
            self._transcript.current = view
        self._answer = view

    def _choose_alternative(self) -> None:
        """Tell another version of the answer when the one that was shown did not come to its end."""
        others = [view for view in self._views.values() if view.is_alternative and not view.has_written]
        if not others or self._answer is None or self._answer.is_answered:
            return
        view = next((other for other in others if other.is_answered), others[-1])
        text = str(view.seen)
        view.is_alternative = False
        if text.startswith(str(self._answer.seen)):
            text = text[len(str(self._answer.seen)) :]
            self._take_place_of_the_answer(view)
        self._answer = view
        self._write(view, text)

    def _read_finished(self, view: View, content_type: str, text: str) -> None:
        if view.show is Show.CANVAS and (document := canvas_text(text)):
            self._transcript.turn_to(view)
            self._transcript.pass_on(view, [*view.rewriter.feed(document), *view.rewriter.flush()])
        metadata = mapping_of(view.message.get("metadata"))
        if content_type == "system_error" or (view.role == "tool" and metadata.get("is_error")):
            content = mapping_of(view.message.get("content"))
            reason = text_of(content.get("text")) or read_text(Show.TEXT, content)[0]
            code = text_of(content.get("name")) or text_of(metadata.get("error_code")) or None
            self._failure = (reason or "A tool of the backend failed.", code)
            self._said_before_failure = self._transcript.said
        for file in find_files(view.message):
            if not view.is_alternative and file.pointer not in self._pointers:
                self._pointers.add(file.pointer)
                self._transcript.leave()
                self._transcript.separate()
                self._transcript.point(
                    view, FilePointer(file.pointer, file.kind, file.name, self.facts.conversation_id, view.id)
                )

    # Passing on

    def _write(self, view: View, text: str) -> None:
        if view.carry or not text.isascii():
            text = view.join_halves(text)
        if view.show is Show.TEXT:
            if not view.has_written and self._is_beside_the_answer(view):
                view.is_alternative = True
                return
            if view.role == "assistant":
                self._answer = view
                self._thinks_on = False
            if self._continuation.is_open:
                text = self._continuation.read(view, text)
            if view.rewriter.pass_plain(text):
                self._transcript.say(view, text)
            else:
                self._transcript.pass_on(view, view.rewriter.feed(text))
        elif view.show is Show.REASONING or view.show is Show.THOUGHTS:
            self._transcript.reason(view, text)
        elif view.show is not Show.NOTHING:
            self._transcript.say(view, text)

    def end(self, event: Event) -> None:
        """End the turn with this event."""
        self._transcript.end(event, self._answer or self._last)
        self.is_ended = True

    # The end

    @property
    def has_content(self) -> bool:
        """Whether anything was passed on that a caller sees."""
        return self._transcript.has_text or self._transcript.has_reasoned

    @property
    def may_conclude(self) -> bool:
        """Whether there is an end to tell before the last byte: an answer is whole and nothing is awaited."""
        return self._handoff is None and self._is_whole()

    def conclude(self) -> None:
        """Decide how the turn ended, now that the backend says no more.

        In this order: a hand-off whose answer did not come here after all; a block by moderation; a tool's error after
        which nothing more was said; a picture still being made; a whole answer. The answer is whole when the backend
        declared the stream complete, or when its last message says that it ends the turn and no reasoning followed; of the
        messages of 2022, which had no status, the end mark of the stream says so (`is_closed_well`).

        Raises StreamInterruptedError when content had begun, else UpstreamProtocolError.
        """
        if self.is_ended:
            return
        self._choose_alternative()
        self._transcript.leave()
        if self._answer is not None and (rest := self._continuation.close()):
            self._transcript.say(self._answer, rest)
            self._transcript.leave()
        answer = self._answer
        is_whole = self._is_whole()
        is_announced = self._thinks_on and not self.is_complete
        if self._handoff is not None and (answer is None or not answer.is_answered or is_announced):
            self.end(self._handed_off(self._handoff))
        elif self.is_blocked:
            self.end(self._finished("content_filter"))
        elif self._failure is not None and self._transcript.said == self._said_before_failure:
            self.end(Failed(self._failure[0], self._failure[1], self.facts.conversation_id))
        elif self._is_image_pending(is_whole=is_whole):
            view = self._pending_image or self._last
            self.end(ImagePending(self.facts.conversation_id, view.id if view else None))
        elif is_whole:
            finish = answer.finish if answer is not None else ""
            cut = self._last is not None and self._last.finish == "max_tokens"
            reason: FinishReason = "stop"
            if finish == "max_tokens" or cut:
                reason = "length"
            elif finish == "content_filter":
                reason = "content_filter"
            # Only text can be gone on with: a block of code that is told anew could not be told apart from more of it.
            self.end(self._finished(reason, continuable=finish == "max_tokens"))
        elif self.has_content:
            raise StreamInterruptedError("The backend's answer broke off before its end.")
        else:
            raise UpstreamProtocolError("The backend ended its stream without an answer.")

    def _is_whole(self) -> bool:
        answer = self._answer
        if self.is_complete and (self.has_content or (answer is not None and answer.is_answered)):
            return True
        if self._transcript.files and (self._last is None or self._last.is_done):
            return True
        last = answer if self._last is None or self._last.is_alternative else self._last
        if last is not None and last.was_cut and self.has_content:
            return True
        if self._thinks_on:
            return False
        if last is not None and last.ends_turn:
            return True
        if answer is None:
            return False
        if answer.end_turn is True or answer.was_cut:
            return True
        # What follows a message that does not end the turn (a tool's call, say) was not the end either.
        return answer is last and (
            answer.is_answered or (answer.status is None and self.is_closed_well and self._transcript.has_text)
        )

    def _is_image_pending(self, *, is_whole: bool) -> bool:
        if self._transcript.files:
            return False
        if self._pending_image is not None:
            return True
        return self._use_case == "image gen" and not self._transcript.has_text and is_whole

    def _handed_off(self, event: dict[str, Json]) -> HandedOff:
        options = event.get("options")
        choices = options if type(options) is list else [options, event]
        topic, token = text_of(event.get("topic_id")), ""
        for choice in choices:
            topic = topic or text_of(mapping_of(choice).get("topic_id"))
            token = token or text_of(mapping_of(choice).get("resume_token"))
        if not topic and self._turn_exchange_id:
            topic = f"conversation-turn-{self._turn_exchange_id}"
        token = token or self.resume_token or ""
        return HandedOff(self.facts.conversation_id, topic or None, token or None, received=self._received)

    def _finished(self, reason: FinishReason, *, continuable: bool = False) -> Finished:
        last = self._answer or self._last
        model = self.facts.server_model or self.facts.model
        return Finished(reason, self.facts.conversation_id, last.id if last else None, model, continuable)
