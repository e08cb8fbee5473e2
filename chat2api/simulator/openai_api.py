"""A second role of the simulator: the OpenAI API, with API keys, rate-limit headers and the published shapes of replies.

    async with ApiSimulator() as api:
        api.url + "/v1", api.keys[0]                 # a base URL and a key that is good there
        api.control.fail("chat", limited("tokens", "20s"), account=api.keys[0][-4:])
        api.prepare(Prepared(body=b'data: {"a":1}\\r\\n\\r\\n', kind="text/event-stream", split=7))

Rules, faults and records are those of the web backend's role; `account` is the last four characters of a key. Routes are
called chat, responses, embeddings, moderations, images, speech, transcriptions, files, models and so on (see `_ROUTES`).
Sources: the API reference of 2025 and 2026 and what official clients send and take.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate

import orjson

from chat2api.clock import Clock
from chat2api.simulator import openai_replies as replies
from chat2api.simulator.accounts import Caller
from chat2api.simulator.app import Simulator
from chat2api.simulator.backend import Backend
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.routes import Call, Handler, Route, route
from chat2api.simulator.wire import (
    JSON,
    Answer,
    EventStream,
    Frame,
    Headers,
    Object,
    Refusal,
    Reply,
    Request,
    json_answer,
)

MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "o4-mini", "text-embedding-3-small", "whisper-1", "tts-1",
          "gpt-image-1", "omni-moderation-latest", "gpt-4o-transcribe")  # fmt: skip
"""What the simulated API lists and serves."""

ORGANISATION = "org-simulatedOrganisation01"
"""Told in headers and in messages, as the API does."""

_COMMON: Headers = (
    ("openai-organization", ORGANISATION),
    ("openai-project", "proj_simulatedProject01"),
    ("openai-processing-ms", "42"),
    ("openai-version", "2020-10-01"),
    ("set-cookie", "__cf_bm=simulated; path=/; HttpOnly; Secure"),
    ("server", "cloudflare"),
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-limit-tokens", "30000"),
    ("x-ratelimit-remaining-requests", "499"),
    ("x-ratelimit-remaining-tokens", "29900"),
    ("x-ratelimit-reset-requests", "120ms"),
    ("x-ratelimit-reset-tokens", "200ms"),
)
_ID = r"(?P<id>[A-Za-z0-9_-]+)"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reply that is given as it is, whatever is asked: chunked and cut at random places with `split`, else whole."""

    body: bytes
    kind: str = "application/json"
    status: int = 200
    headers: Headers = ()
    split: int | None = None


def error(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> Answer:
    """Give a refusal in the API's shape."""
    return json_answer({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def fault(answer: Answer) -> Fault:
    """Give a fault that answers so."""
    return Fault("answer", status=answer.status, body=answer.body.decode(), headers=answer.headers)


def limited(what: str = "requests", time: str = "20s", *, header: bool = True) -> Fault:
    """Give the refusal of a key that has reached its limit of requests or tokens for that time."""
    message = (
        f"Rate limit reached for gpt-4o in organization {ORGANISATION} on {what} per min. Limit: 3 / min. Please try again "
        f"in {time}. Visit https://platform.openai.com/account/rate-limits to learn more. You can increase your rate limit "
        "by adding a payment method to your account at https://platform.openai.com/account/billing."
    )
    headers: Headers = ()
    if header:
        headers = ((f"x-ratelimit-remaining-{what}", "0"), (f"x-ratelimit-reset-{what}", time))
    answer = error(429, message, what, "rate_limit_exceeded")
    return fault(Answer(429, answer.body, (*answer.headers, *headers)))


def out_of_credit() -> Fault:
    """Give the refusal of a key without credit."""
    text = "You exceeded your current quota, please check your plan and billing details."
    return fault(error(429, text, "insufficient_quota", "insufficient_quota"))


def wrong_key(key: str) -> Answer:
    """Give the refusal of a key that is not known, which repeats parts of it."""
    shown = f"{key[:8]}{'*' * 8}{key[-4:]}"
    return error(
        401,
        f"Incorrect API key provided: {shown}. You can find your API key at https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


class ApiBackend(Backend):
    """What stands behind the simulated API."""

    def __init__(self, options: SimulatorOptions, clock: Clock) -> None:
        """Make the keys."""
        super().__init__(options, clock)
        self.keys = [make_key(options.seed, number) for number in range(max(options.accounts, 1))]
        self.prepared: list[Prepared] = []
        self.stored: dict[str, tuple[str, Object, bytes]] = {}
        """Files and responses by id: whose they are (the end of a key), what they say of themselves, and their content."""
        self.items: dict[str, str] = {}
        """What stored responses consist of, by id: whose it is."""
        self.routes = [route(name, method, pattern, handler) for name, method, pattern, handler in self._routes()]

    def _routes(self) -> list[tuple[str, str, str, Handler]]:
        return [
            ("chat", "POST", "/v1/chat/completions", self._chat),
            ("responses", "POST", "/v1/responses", self._responses),
            ("compact", "POST", "/v1/responses/compact", self._compact),
            ("input_tokens", "POST", "/v1/responses/input_tokens", self._input_tokens),
            ("response", "GET", f"/v1/responses/{_ID}", self._stored_object),
            ("response_deleted", "DELETE", f"/v1/responses/{_ID}", self._delete),
            ("response_cancelled", "POST", f"/v1/responses/{_ID}/cancel", self._stored_object),
            ("response_items", "GET", f"/v1/responses/{_ID}/input_items", self._items),
            ("embeddings", "POST", "/v1/embeddings", self._embeddings),
            ("moderations", "POST", "/v1/moderations", self._moderations),
            ("images", "POST", "/v1/images/generations", self._images),
            ("image_edits", "POST", "/v1/images/edits", self._image_form),
            ("image_variations", "POST", "/v1/images/variations", self._image_form),
            ("speech", "POST", "/v1/audio/speech", self._speech),
            ("transcriptions", "POST", "/v1/audio/transcriptions", self._transcriptions),
            ("translations", "POST", "/v1/audio/translations", self._transcriptions),
            ("file_upload", "POST", "/v1/files", self._upload),
            ("files", "GET", "/v1/files", self._files),
            ("file", "GET", f"/v1/files/{_ID}", self._stored_object),
            ("file_content", "GET", f"/v1/files/{_ID}/content", self._content),
            ("file_deleted", "DELETE", f"/v1/files/{_ID}", self._delete),
            ("models", "GET", "/v1/models", lambda call: json_answer(replies.models(MODELS))),
            ("model", "GET", "/v1/models/(?P<id>.+)", self._model),
        ]

    def known_caller(self, request: Request) -> str | None:
        """Give the last four characters of the key, if it is known."""
        key = _bearer(request)
        return key[-4:] if key in self.keys else None

    def headers(self) -> Headers:
        """Give the headers of every reply."""
        return (("date", formatdate(self.clock.now(), usegmt=True)), ("x-request-id", "req_simulated"), *_COMMON)

    def handle(self, request: Request, found: tuple[Route, dict[str, str]] | None, options: SimulatorOptions) -> Reply:
        """Answer a request."""
        if _bearer(request) not in self.keys:
            return wrong_key(_bearer(request) or "")
        if self.prepared:
            return _prepared(self.prepared.pop(0))
        if found is None:
            return error(404, f"Invalid URL ({request.method} {request.path})")
        one, parts = found
        try:
            return one.handler(Call(request, options, parts, self.clock.now(), Caller(None, None, None)))
        except Refusal as refusal:
            return refusal.answer

    # Text

    def _chat(self, call: Call) -> Reply:
        body, model = self._body(call, "messages")
        options = body.get("stream_options")
        if options is not None and body.get("stream") is not True:
            raise Refusal(error(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled."))
        if not isinstance(body["messages"], list) or not body["messages"]:
            raise Refusal(error(400, "Invalid 'messages': empty array. Expected an array with minimum length 1."))
        words = _words(call, replies.last_text(body["messages"]))
        made = replies.Chat(self._id("chatcmpl-", call), int(call.now), model, words, _count_words(body["messages"]))
        choices = body.get("n", 1)
        count = choices if isinstance(choices, int) and choices > 0 else 1
        if body.get("stream") is not True:
            return json_answer(made.whole(count))
        include = isinstance(options, dict) and options.get("include_usage") is True
        return _stream(call, made.events(count, include_usage=include))

    def _responses(self, call: Call) -> Reply:
        body, model = self._body(call, "input")
        words = _words(call, replies.last_text(body["input"]))
        previous = body.get("previous_response_id")
        if isinstance(previous, str):
            self._find(call, previous)
        for item in body["input"] if isinstance(body["input"], list) else ():
            self._look_up_item(call, item)
        tools = _tools_used(body.get("tools"))
        made = replies.Response(
            self._id("resp_", call), int(call.now), model, words, _count_words(body["input"]), tools
        )
        if body.get("store") is not False:
            self.stored[made.id] = (_owner(call), made.whole(), b"")
            for item in made.items():
                if isinstance(item, dict):
                    self.items[str(item["id"])] = _owner(call)
        if body.get("stream") is not True:
            return json_answer(made.whole())
        return _stream(call, made.events())

    def _compact(self, call: Call) -> Reply:
        body, _ = self._body(call, "input")
        return json_answer(replies.compacted(self._id("resp_", call), int(call.now), _count_words(body["input"])))

    def _input_tokens(self, call: Call) -> Reply:
        body, _ = self._body(call, "input")
        return json_answer({"object": "response.input_tokens", "input_tokens": _count_words(body["input"])})

    def _look_up_item(self, call: Call, item: JSON) -> None:
        """Refuse an item that is named by its id alone and is not there, as the API does."""
        if not isinstance(item, dict) or not isinstance(identifier := item.get("id"), str):
            return
        kind = item.get("type", "item_reference" if "content" not in item else "message")
        is_named = kind == "item_reference" or (kind == "image_generation_call" and not item.get("result"))
        if is_named and self.items.get(identifier) != _owner(call):
            raise Refusal(error(404, f"Item with id '{identifier}' not found."))

    def _embeddings(self, call: Call) -> Reply:
        body, model = self._body(call, "input")
        given = body["input"]
        inputs = given if isinstance(given, list) else [given]
        return json_answer(replies.embeddings(model, inputs, _count_words(given)))

    def _moderations(self, call: Call) -> Reply:
        body, _ = self._body(call, "input", default="omni-moderation-latest")
        given = body["input"]
        return json_answer(replies.moderation(len(given) if isinstance(given, list) else 1))

    def _images(self, call: Call) -> Reply:
        body, _ = self._body(call, "prompt", default="gpt-image-1")
        if body.get("stream") is True:
            return _stream(call, replies.image_events(int(call.now)))
        return json_answer(replies.images(int(call.now), _read_count(body.get("n"))))

    def _image_form(self, call: Call) -> Reply:
        fields, files = _form(call)
        if not any(name.startswith("image") for name in files):
            raise Refusal(error(400, "Missing required parameter: 'image'."))
        return json_answer(
            replies.images(
                int(call.now), _read_count(int(fields["n"]) if fields.get("n", "").isdigit() else fields.get("n"))
            )
        )

    def _speech(self, call: Call) -> Reply:
        body, _ = self._body(call, "input")
        text = str(body["input"])
        sound = b"ID3\x04" + hashlib.sha256(text.encode()).digest() * 600
        return EventStream(
            (Frame(sound[at : at + 4096], True) for at in range(0, len(sound), 4096)),
            headers=(("content-type", "audio/mpeg"),),
            delay=call.options.delay,
        )

    def _transcriptions(self, call: Call) -> Reply:
        fields, files = _form(call)
        if "file" not in files:
            raise Refusal(error(400, "Missing required parameter: 'file'."))
        if fields.get("model") not in MODELS:
            raise Refusal(_unknown_model(fields.get("model", "")))
        if fields.get("stream") == "true":
            return _stream(call, replies.transcript_events(len(files["file"])))
        if fields.get("response_format") == "text":
            return Answer(200, b"Nile, Amazon, Danube.\n", (("content-type", "text/plain; charset=utf-8"),))
        return json_answer(replies.transcription(len(files["file"])))

    # What is kept

    def _upload(self, call: Call) -> Reply:
        fields, files = _form(call)
        if "file" not in files or "purpose" not in fields:
            raise Refusal(error(400, "Missing required parameter: 'purpose'."))
        made = replies.file(self._id("file-", call), int(call.now), len(files["file"]), fields["purpose"])
        self.stored[str(made["id"])] = (_owner(call), made, files["file"])
        return json_answer(made)

    def _files(self, call: Call) -> Reply:
        mine = [made for owner, made, _ in self.stored.values() if owner == _owner(call) and made["object"] == "file"]
        return json_answer({"object": "list", "data": [*mine], "has_more": False})

    def _stored_object(self, call: Call) -> Reply:
        return json_answer(self._find(call, call.parts["id"])[0])

    def _content(self, call: Call) -> Reply:
        return Answer(200, self._find(call, call.parts["id"])[1], (("content-type", "application/octet-stream"),))

    def _delete(self, call: Call) -> Reply:
        made, _ = self._find(call, call.parts["id"])
        del self.stored[call.parts["id"]]
        return json_answer({"id": call.parts["id"], "object": made["object"], "deleted": True})

    def _items(self, call: Call) -> Reply:
        self._find(call, call.parts["id"])
        return json_answer({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})

    def _model(self, call: Call) -> Reply:
        if call.parts["id"] not in MODELS:
            raise Refusal(_unknown_model(call.parts["id"]))
        return json_answer(replies.model(call.parts["id"]))

    def _find(self, call: Call, identifier: str) -> tuple[Object, bytes]:
        owner, made, content = self.stored.get(identifier, ("", {}, b""))
        if owner != _owner(call):
            raise Refusal(error(404, f"No such object: {identifier}", code="not_found"))
        return made, content

    def _body(self, call: Call, needed: str, *, default: str | None = None) -> tuple[Object, str]:
        """Give a JSON body and its model."""
        if not (call.request.header("content-type") or "").startswith("application/json"):
            raise Refusal(error(415, "Unsupported media type. Send 'application/json'."))
        try:
            body = call.request.json()
        except ValueError as failure:
            raise Refusal(error(400, "We could not parse the JSON body of your request.")) from failure
        if not isinstance(body, dict):
            raise Refusal(error(400, "We could not parse the JSON body of your request."))
        if needed not in body:
            raise Refusal(error(400, f"Missing required parameter: '{needed}'.", code="missing_required_parameter"))
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise Refusal(error(400, "Invalid type for 'stream': expected a boolean.", code="invalid_type"))
        model = body.get("model", default)
        if not isinstance(model, str):
            raise Refusal(error(400, "you must provide a model parameter"))
        if model not in MODELS:
            raise Refusal(_unknown_model(model))
        return body, model

    def _id(self, prefix: str, call: Call) -> str:
        text = f"{prefix}{self.recorder.counters.requests}{call.now}{_owner(call)}"
        return prefix + hashlib.sha256(text.encode()).hexdigest()[:29]


class ApiSimulator(Simulator):
    """One simulated API; an async context manager that listens while it is entered."""

    _backend: ApiBackend

    def _make_backend(self, options: SimulatorOptions, clock: Clock) -> ApiBackend:
        return ApiBackend(options, clock)

    @property
    def keys(self) -> list[str]:
        """The keys that are good; a test may add and remove some."""
        return self._backend.keys

    def prepare(self, *prepared: Prepared) -> None:
        """Have these replies given to the next requests."""
        self._backend.prepared += prepared


def make_key(seed: str, number: int) -> str:
    """Give an API key of the simulator, the same for the same seed."""
    return "sk-proj-" + hashlib.sha256(f"{seed} key {number}".encode()).hexdigest()[:48]


def _bearer(request: Request) -> str:
    scheme, _, key = (request.header("authorization") or "").partition(" ")
    return key if scheme == "Bearer" else ""


def _owner(call: Call) -> str:
    return _bearer(call.request)[-4:]


def _unknown_model(model: str) -> Answer:
    text = f"The model `{model}` does not exist or you do not have access to it."
    return error(404, text, code="model_not_found")


def _words(call: Call, text: str) -> list[str]:
    """Give the answer, cut into tokens as the API cuts them."""
    options = call.options
    if options.events is not None:
        return [f"word{number} " for number in range(1, options.events + 1)]
    answer = options.text or ("Nile, Amazon, Danube." if "river" in text else f"You said: {text}")
    return re.findall(r"\s*\S+", answer) or [answer]


def _tools_used(tools: JSON) -> list[str]:
    """Give those of the tools offered that the answer uses."""
    kinds = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [str(kind) for kind in kinds if kind in ("image_generation", "code_interpreter")]


def _read_count(value: object) -> int:
    """Give how many pictures are asked for. Raises Refusal."""
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10:
        raise Refusal(error(400, "Invalid 'n': expected an integer from 1 to 10.", code="invalid_value"))
    return value


def _count_words(value: object) -> int:
    return len(re.findall(r"\w+", orjson.dumps(value).decode())) + 3


def _stream(call: Call, frames: Iterator[Frame]) -> EventStream:
    return EventStream(
        frames,
        headers=(("content-type", "text/event-stream; charset=utf-8"),),
        delay=call.options.delay,
        first_delay=call.options.first_delay,
        split=call.options.split,
    )


def _prepared(one: Prepared) -> Reply:
    headers = (("content-type", one.kind), *one.headers)
    if one.split is None:
        return Answer(one.status, one.body, headers)
    return EventStream(iter((Frame(one.body, True),)), headers=headers, split=one.split)


def _form(call: Call) -> tuple[dict[str, str], dict[str, bytes]]:
    """Give the fields and files of a form. Raises Refusal."""
    match = re.fullmatch(r'multipart/form-data;\s*boundary="?([^";]+)"?', call.request.header("content-type") or "")
    if match is None:
        raise Refusal(error(415, "Unsupported media type. Send 'multipart/form-data'."))
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in call.request.body.split(b"--" + match[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        name = re.search(rb'\bname="([^"]*)"', head)
        if name is None:
            continue
        if b"filename=" in head:
            files[name[1].decode()] = content
        else:
            fields[name[1].decode()] = content.decode()
    return fields, files
