"""Chat completions: the body of a request, and the chunks or the whole reply made of a turn's events.

Source: the OpenAI API reference, "Chat Completions", as of 2026. Ours beyond it: `conversation_id`,
`parent_message_id`, `history_disabled` and `ChatGPT-Account-ID` in the request; `conversation_id` and `message_id` in
the answer; `reasoning_content` beside `content`; `usage.estimated`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import orjson

from chat2api.errors import InvalidRequestError
from chat2api.protocol.events import (
    Event,
    Failed,
    FileLink,
    FilePointer,
    Finished,
    FinishReason,
    HandedOff,
    ImagePending,
    ReasoningDelta,
    Started,
    TextDelta,
)
from chat2api.protocol.openai.errors import error_object
from chat2api.protocol.openai.fields import (
    JsonObject,
    is_object,
    read_flag,
    read_integer,
    read_object,
    read_text,
    read_word,
    require_text,
    wrong_type,
    wrong_value,
)
from chat2api.protocol.openai.ignored import read_ignored
from chat2api.protocol.openai.messages import parse_messages
from chat2api.protocol.openai.usage import Usage, clean_text
from chat2api.protocol.prompt import Message, ThinkingEffort

DEFAULT_MODEL = "gpt-3.5-turbo-0125"
"""What a request without a model asks for, as in 2024."""

MAX_CHOICES = 8
MAX_STOPS = 4
MAX_STOP_LENGTH = 1024

_EFFORTS: dict[str, ThinkingEffort] = {
    "none": "standard",
    "minimal": "standard",
    "low": "standard",
    "medium": "extended",
    "high": "max",
    "xhigh": "max",
    "max": "max",
}

# A name that nobody knows is told back in a header.
_MODEL = re.compile(r"[\x20-\x7e]{1,256}")

# Ids go into paths, headers and bodies of upstream calls.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ACCOUNT_KEY = "chatgpt-account-id"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion request that passed all checks.

    `ignored` names, sorted, the parameters that ask for something the backend cannot do. `history_disabled` is None
    where the server's setting decides.
    """

    messages: tuple[Message, ...]
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    stop: tuple[str, ...]
    n: int
    thinking_effort: ThinkingEffort | None
    user: str | None
    conversation_id: str | None
    parent_message_id: str | None
    history_disabled: bool | None
    workspace_id: str | None
    ignored: tuple[str, ...]


def parse_chat_request(body: object) -> ChatRequest:
    """Check the JSON body of a chat completion request.

    Unknown fields are accepted, since clients send extras; so are `stream_options` without a stream, which ask for
    nothing, and limits of 0 and -1, with which several clients spell "no limit". Raises InvalidRequestError with
    `param`.
    """
    if not is_object(body):
        raise wrong_type("body", "an object", body)
    stream = read_flag(body, "stream") or False
    options = read_object(body, "stream_options")
    max_tokens = _read_limit(body, "max_completion_tokens")
    older_max_tokens = _read_limit(body, "max_tokens")
    return ChatRequest(
        messages=parse_messages(body),
        model=read_model(body),
        stream=stream,
        include_usage=_read_include_usage(options) and stream,
        max_tokens=older_max_tokens if max_tokens is None else max_tokens,
        stop=_read_stop(body),
        n=read_integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1,
        thinking_effort=_read_effort(body),
        user=_read_user(body),
        conversation_id=_read_id(body, "conversation_id"),
        parent_message_id=_read_id(body, "parent_message_id"),
        history_disabled=read_flag(body, "history_disabled"),
        workspace_id=_read_workspace(body),
        ignored=read_ignored(body),
    )


def read_model(body: object) -> str:
    """Give the model's name in a request's body, the default where it names none. Raises InvalidRequestError."""
    if not is_object(body):
        raise wrong_type("body", "an object", body)
    if body.get("model") is None:
        return DEFAULT_MODEL
    model = require_text(body, "model").strip()
    if not _MODEL.fullmatch(model):
        raise wrong_value("model", "expected a model's name, at most 256 characters of ASCII.")
    return model


def _read_include_usage(options: JsonObject | None) -> bool:
    if options is None:
        return False
    read_flag(options, "include_obfuscation", "stream_options")
    return read_flag(options, "include_usage", "stream_options") or False


def _read_limit(body: JsonObject, key: str) -> int | None:
    limit = read_integer(body, key, minimum=-1)
    return limit if limit is None or limit > 0 else None


def _read_effort(body: JsonObject) -> ThinkingEffort | None:
    """Give the effort asked for, also in the form `reasoning: {effort}` of the Responses API; "" asks for none."""
    if read_text(body, "reasoning_effort"):
        effort: object = read_word(body, "reasoning_effort", _EFFORTS)
    else:
        nested = body.get("reasoning")
        effort = nested.get("effort") if is_object(nested) else None
    return _EFFORTS.get(effort) if isinstance(effort, str) else None


def _read_user(body: JsonObject) -> str | None:
    """Give the end user's name; a whole user object, as web front ends send it to their plug-ins, is none."""
    return None if is_object(body.get("user")) else read_text(body, "user")


def _read_stop(body: JsonObject) -> tuple[str, ...]:
    value = body.get("stop")
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (_check_stop(value, "stop"),)
    if not isinstance(value, list):
        raise wrong_type("stop", "a string or an array of strings", value)
    if len(value) > MAX_STOPS:
        raise InvalidRequestError(
            f"Invalid 'stop': array too long. Expected at most {MAX_STOPS} sequences, but got {len(value)}.",
            param="stop",
            code="array_above_max_length",
        )
    return tuple(_check_stop(stop, f"stop[{index}]") for index, stop in enumerate(value) if stop != "")


def _check_stop(value: object, param: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    if len(value) > MAX_STOP_LENGTH:
        raise InvalidRequestError(
            f"Invalid '{param}': string too long. Expected at most {MAX_STOP_LENGTH} characters.",
            param=param,
            code="string_above_max_length",
        )
    return value


def _read_id(body: JsonObject, key: str) -> str | None:
    value = read_text(body, key)
    if not value:
        return None
    if not _ID.fullmatch(value):
        raise wrong_value(key, "expected an id of letters, digits, '-' and '_'.")
    return value


def _read_workspace(body: JsonObject) -> str | None:
    """Give the workspace of the key `ChatGPT-Account-ID`, in whatever case it is written."""
    for key in body:
        if key.lower() == _ACCOUNT_KEY:
            return _read_id(body, key)
    return None


# ---- the answer ----

_Piece = tuple[Literal["content", "reasoning_content"], str]


class _Answer:
    """What one response knows of itself: its ids, and how far each of its choices has come.

    The encoder and the folder differ only in what they do with the pieces that `read` gives.
    """

    def __init__(
        self,
        completion_id: str,
        created: int,
        reply_model: Callable[[str | None], str],
        choices: int,
        tell_conversation: bool,
    ) -> None:
        self.completion_id = completion_id
        self.created = created
        self.choices = choices
        self.reasons: dict[int, FinishReason] = {}
        self.model = reply_model(None)
        self.fingerprint: str | None = None
        self.ids: dict[int, dict[str, str]] = {index: {} for index in range(choices)}
        self._reply_model = reply_model
        self._served: str | None = None
        self._tell_conversation = tell_conversation

    def read(self, events: Iterable[Event], index: int) -> Iterator[_Piece]:
        """Yield what a choice says, adjacent text of one kind joined; note ids, model and end."""
        kind: Literal["content", "reasoning_content"] = "content"
        pending: list[str] = []
        for event in events:
            if index in self.reasons:
                raise ValueError(f"event after the end of choice {index}: {type(event).__name__}")
            match event:
                case TextDelta(text=text):
                    piece: _Piece = ("content", text)
                case ReasoningDelta(text=text):
                    piece = ("reasoning_content", text)
                case FileLink():
                    piece = ("content", render_link(event))
                case Started():
                    self._note(event, index)
                    continue
                case Finished():
                    self._note(event, index)
                    self.reasons[index] = event.reason
                    continue
                case FilePointer() | Failed() | HandedOff() | ImagePending():
                    raise ValueError(f"{type(event).__name__} must be dealt with before the answer is made")
            if piece[0] != kind and pending:
                yield kind, "".join(pending)
                pending = []
            kind = piece[0]
            pending.append(piece[1])
        if pending:
            yield kind, "".join(pending)

    def _note(self, event: Started | Finished, index: int) -> None:
        if event.model is not None and event.model != self._served:
            self._served = event.model
            self.model = self._reply_model(event.model)
            # Clients compare it to see whether what serves them has changed; the slug is all that we know of that.
            self.fingerprint = f"fp_{sha256(event.model.encode()).hexdigest()[:10]}"
        if self._tell_conversation:
            if event.conversation_id is not None:
                self.ids[index]["conversation_id"] = event.conversation_id
            if event.message_id is not None:
                self.ids[index]["message_id"] = event.message_id

    def envelope(self, kind: str, index: int = 0) -> dict[str, object]:
        """Give the fields that chunks and the whole reply begin with; the ids are those of one choice."""
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            **self.ids[index],
        }

    def check_finished(self) -> None:
        if len(self.reasons) != self.choices:
            raise ValueError(f"{self.choices - len(self.reasons)} of {self.choices} choices have no end")


class ChatEncoder:
    """Makes the event stream of one chat completion, all of its choices.

    `completion_id` is as of `completion_id`, `created` in Unix seconds; `reply_model` gives the public name of the
    slug that serves, None while unknown. With `tell_conversation` chunks carry `conversation_id` and `message_id`.
    """

    def __init__(
        self,
        completion_id: str,
        created: int,
        reply_model: Callable[[str | None], str],
        *,
        choices: int = 1,
        include_usage: bool = False,
        tell_conversation: bool = False,
    ) -> None:
        """Make an encoder for one response."""
        self._answer = _Answer(completion_id, created, reply_model, choices, tell_conversation)
        self._include_usage = include_usage
        self._begun: set[int] = set()
        self._heads: dict[int, tuple[str, dict[str, str], bytes]] = {}
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def encode(self, events: Iterable[Event], index: int = 0) -> bytes:
        """Give the chunks of a batch of one choice's events; text deltas side by side share a chunk."""
        out: list[bytes] = []
        ended = index in self._answer.reasons
        for kind, text in self._answer.read(events, index):
            if index not in self._begun:
                self._begin(out, index)
            if text:
                self._add_chunk(out, index, b'{"%b":%b}' % (kind.encode(), _encode_text(text)), b"null")
        if not ended and index in self._answer.reasons:
            self._begin(out, index)
            self._add_chunk(out, index, b"{}", b'"%b"' % self._answer.reasons[index].encode())
        return b"".join(out)

    def start(self, index: int = 0) -> bytes:
        """Give the first chunk of a choice (role and empty content) unless it has been sent; encode does it, too."""
        out: list[bytes] = []
        self._begin(out, index)
        return b"".join(out)

    def finish(self, usage: Usage | None = None) -> bytes:
        """Give the good end of the stream, once every choice has ended; usage goes out where it was asked for."""
        self._answer.check_finished()
        if not self._include_usage or usage is None:
            return b"data: [DONE]\n\n"
        chunk = {**self._answer.envelope(_CHUNK), "choices": [], "usage": usage.to_object()}
        return b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(chunk)

    def fail(self, exc: BaseException) -> bytes:
        """Give the bad end of the stream: one error event, and no `[DONE]`."""
        _, body, _ = error_object(exc)
        return b"data: %b\n\n" % orjson.dumps(body)

    def _begin(self, out: list[bytes], index: int) -> None:
        if index not in self._begun:
            self._begun.add(index)
            self._add_chunk(out, index, b'{"role":"assistant","content":""}', b"null")

    def _add_chunk(self, out: list[bytes], index: int, delta: bytes, reason: bytes) -> None:
        out.append(
            b'%b,"choices":[{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}]%b'
            % (self._chunk_head(index), index, delta, reason, self._tail)
        )

    def _chunk_head(self, index: int) -> bytes:
        """Give the start of a chunk; encoded anew only when model or ids have changed."""
        answer = self._answer
        known = self._heads.get(index)
        if known is not None and known[0] == answer.model and known[1] == answer.ids[index]:
            return known[2]
        head = b"data: " + orjson.dumps(answer.envelope(_CHUNK, index))[:-1]
        self._heads[index] = (answer.model, dict(answer.ids[index]), head)
        return head


class ChatFolder:
    """Makes the whole reply of one chat completion of the same events that ChatEncoder makes chunks of."""

    def __init__(
        self,
        completion_id: str,
        created: int,
        reply_model: Callable[[str | None], str],
        *,
        choices: int = 1,
        tell_conversation: bool = False,
    ) -> None:
        """Make a folder for one response; the arguments are those of ChatEncoder."""
        self._answer = _Answer(completion_id, created, reply_model, choices, tell_conversation)
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def add(self, events: Iterable[Event], index: int = 0) -> None:
        """Add events of one choice."""
        for kind, text in self._answer.read(events, index):
            self._pieces.setdefault((index, kind), []).append(text)

    def reply(self, usage: Usage) -> dict[str, object]:
        """Give the body of the reply, once every choice has ended."""
        self._answer.check_finished()
        return {
            **self._answer.envelope("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": self._message(index),
                    "logprobs": None,
                    "finish_reason": self._answer.reasons[index],
                }
                for index in range(self._answer.choices)
            ],
            "usage": usage.to_object(),
        }

    def _message(self, index: int) -> dict[str, object]:
        content = "".join(self._pieces.get((index, "content"), ()))
        message: dict[str, object] = {"role": "assistant", "content": clean_text(content), "refusal": None}
        reasoning = "".join(self._pieces.get((index, "reasoning_content"), ()))
        if reasoning:
            message["reasoning_content"] = clean_text(reasoning)
        return message


_CHUNK = "chat.completion.chunk"
_ID_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LETTER_OF = bytes(_ID_LETTERS[byte % len(_ID_LETTERS)] for byte in range(256))


def completion_id(entropy: bytes) -> str:
    """Give `chatcmpl-` and 29 letters and digits, made of at least 29 random bytes."""
    if len(entropy) < 29:
        raise ValueError("29 random bytes are needed")
    return "chatcmpl-" + entropy[:29].translate(_LETTER_OF).decode()


def render_link(link: FileLink) -> str:
    """Give the Markdown of a file: an image in its own paragraph, any other file as a link in the text."""
    name = re.sub(r"\s+", " ", link.name.translate(_NOT_IN_LABELS)).strip()
    if link.url is None:
        return "\nFailed to load the image.\n" if link.kind == "image" else f"{name or 'file'} (failed to load)"
    url = link.url.translate(_NOT_IN_TARGETS)
    return f"\n![{name or 'image'}]({url})\n" if link.kind == "image" else f"[{name or 'file'}]({url})"


_NOT_IN_LABELS = str.maketrans({"[": "(", "]": ")"})
_NOT_IN_TARGETS = str.maketrans({" ": "%20", "(": "%28", ")": "%29", "<": "%3C", ">": "%3E", "\n": "", "\r": ""})


def _encode_text(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:  # a lone surrogate, which JSON can spell but UTF-8 cannot
        return orjson.dumps(clean_text(text))
