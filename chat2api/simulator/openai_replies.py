"""What the simulated OpenAI API answers with: the shapes of its reference, as plain JSON and as events."""

import base64
import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from chat2api.simulator.wire import JSON, Frame, Object

_PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(64))).decode()


def event(value: JSON, *, name: str | None = None, delta: bool = False) -> Frame:
    """Give an event as the API writes it."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return Frame(head + b"data: " + orjson.dumps(value) + b"\n\n", delta)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat completion of these words."""

    id: str
    created: int
    model: str
    words: Sequence[str]
    prompt_tokens: int

    def whole(self, choices: int) -> Object:
        """Give it at once."""
        text = "".join(self.words)
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
                for index in range(choices)
            ],
            "usage": self._usage(choices),
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }

    def events(self, choices: int, *, include_usage: bool) -> Iterator[Frame]:
        """Yield it as chunks."""
        for index in range(choices):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None}, None, include_usage)
        for word in self.words:
            for index in range(choices):
                yield self._chunk(index, {"content": word}, None, include_usage, delta=True)
        for index in range(choices):
            yield self._chunk(index, {}, "stop", include_usage)
        if include_usage:
            yield event({**self._head(), "choices": [], "usage": self._usage(choices)})
        yield Frame(b"data: [DONE]\n\n")

    def _chunk(
        self, index: int, said: Object, reason: str | None, include_usage: bool, *, delta: bool = False
    ) -> Frame:
        choice: Object = {"index": index, "delta": said, "logprobs": None, "finish_reason": reason}
        usage: Object = {"usage": None} if include_usage else {}
        return event({**self._head(), "choices": [choice], **usage, "obfuscation": "x"}, delta=delta)

    def _head(self) -> Object:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }

    def _usage(self, choices: int) -> Object:
        said = len(self.words) * choices
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": said,
            "total_tokens": self.prompt_tokens + said,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }


@dataclass(frozen=True, slots=True)
class Response:
    """A response of these words, after an item for each tool of these that is used."""

    id: str
    created: int
    model: str
    words: Sequence[str]
    input_tokens: int
    tools: Sequence[str] = ()

    def whole(self) -> Object:
        """Give it at once."""
        return self._object("completed", self.items(), self._usage())

    def items(self) -> list[JSON]:
        """Give what it consists of."""
        return [*map(self._tool_item, self.tools), self._message("completed", "".join(self.words))]

    def events(self) -> Iterator[Frame]:
        """Yield it as events, which are numbered."""
        number = 0

        def send(name: str, members: Object, *, is_text: bool = False) -> Frame:
            nonlocal number
            number += 1
            return event({"type": name, "sequence_number": number - 1, **members}, name=name, delta=is_text)

        last = len(self.tools)
        place: Object = {"item_id": f"msg_{self.id[5:]}", "output_index": last, "content_index": 0}
        text = "".join(self.words)
        yield send("response.created", {"response": self._object("in_progress", [], None)})
        yield send("response.in_progress", {"response": self._object("in_progress", [], None)})
        for index, tool in enumerate(self.tools):
            item = self._tool_item(tool)
            begun: Object = {**item, "status": "in_progress", **({"result": None} if "result" in item else {})}
            yield send("response.output_item.added", {"output_index": index, "item": begun})
            yield send("response.output_item.done", {"output_index": index, "item": item})
        yield send("response.output_item.added", {"output_index": last, "item": self._message("in_progress", None)})
        yield send("response.content_part.added", {**place, "part": _text_part("")})
        for word in self.words:
            yield send("response.output_text.delta", {**place, "delta": word, "logprobs": []}, is_text=True)
        yield send("response.output_text.done", {**place, "text": text, "logprobs": []})
        yield send("response.content_part.done", {**place, "part": _text_part(text)})
        yield send("response.output_item.done", {"output_index": last, "item": self._message("completed", text)})
        yield send("response.completed", {"response": self.whole()})

    def _object(self, status: str, output: list[JSON], usage: JSON) -> Object:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
            "metadata": {},
        }

    def _tool_item(self, tool: str) -> Object:
        if tool == "image_generation":
            big = _PIXEL * 4000
            return {"id": f"ig_{self.id[5:]}", "type": f"{tool}_call", "status": "completed", "result": big}
        container = f"cntr_{self.id[5:]}"
        said: Object = {"code": "1 + 1", "container_id": container, "outputs": []}
        return {"id": f"ci_{self.id[5:]}", "type": "code_interpreter_call", "status": "completed", **said}

    def _message(self, status: str, text: str | None) -> Object:
        content: list[JSON] = [] if text is None else [_text_part(text)]
        return {
            "id": f"msg_{self.id[5:]}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _usage(self) -> Object:
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(self.words),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + len(self.words),
        }


def _text_part(text: str) -> Object:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def compacted(identifier: str, created: int, tokens: int) -> Object:
    """Give a conversation of that many tokens, shortened to what the API alone can read."""
    item: Object = {"id": f"cmp_{identifier[5:]}", "type": "compaction", "encrypted_content": "sealed"}
    usage: Object = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + 5,
    }
    return {"id": identifier, "object": "response.compaction", "created_at": created, "output": [item], "usage": usage}


def last_text(value: object) -> str:
    """Give the last text of a list of messages, or the text itself."""
    if isinstance(value, list):
        return last_text(value[-1]) if value else ""
    return last_text(value.get("content", value.get("text", ""))) if isinstance(value, dict) else str(value)


def embeddings(model: str, inputs: Sequence[object], tokens: int) -> Object:
    """Give one vector for each input, packed as base64, as the official clients ask."""
    data: list[JSON] = []
    for index, one in enumerate(inputs):
        digest = hashlib.sha256(orjson.dumps(one)).digest()
        vector = struct.pack("<8f", *(byte / 255 for byte in digest[:8]))
        data.append({"object": "embedding", "index": index, "embedding": base64.b64encode(vector).decode()})
    usage: Object = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def moderation(count: int) -> Object:
    """Give a verdict for each input."""
    names = ("harassment", "hate", "self-harm", "sexual", "violence")
    result: Object = {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": dict.fromkeys(names, 0.01),
        "category_applied_input_types": {name: ["text"] for name in names},
    }
    return {"id": "modr-simulated", "model": "omni-moderation-latest", "results": [result for _ in range(count)]}


def images(created: int, count: int) -> Object:
    """Give pictures as base64."""
    data: list[JSON] = [{"b64_json": _PIXEL} for _ in range(count)]
    return {"created": created, "background": "opaque", "data": data, "usage": _image_usage()}


def image_events(created: int) -> Iterator[Frame]:
    """Yield a picture in two steps."""
    common: Object = {"created_at": created, "size": "1024x1024", "quality": "high", "output_format": "png"}
    name = "image_generation.partial_image"
    yield event({"type": name, "b64_json": _PIXEL, "partial_image_index": 0, **common}, name=name, delta=True)
    name = "image_generation.completed"
    big = _PIXEL * 4000
    yield event({"type": name, "b64_json": big, "usage": _image_usage(), **common}, name=name, delta=True)


def _image_usage() -> Object:
    details: Object = {"text_tokens": 10, "image_tokens": 0}
    return {"total_tokens": 210, "input_tokens": 10, "output_tokens": 200, "input_tokens_details": details}


def transcription(size: int) -> Object:
    """Give what was said in a sound of that many bytes."""
    usage: Object = {"type": "tokens", "input_tokens": size % 1000, "output_tokens": 5, "total_tokens": size % 1000 + 5}
    return {"text": "Nile, Amazon, Danube.", "usage": usage}


def transcript_events(size: int) -> Iterator[Frame]:
    """Yield what was said as events, which have no names."""
    for word in ("Nile,", " Amazon,", " Danube."):
        yield event({"type": "transcript.text.delta", "delta": word}, delta=True)
    yield event({"type": "transcript.text.done", **transcription(size)})


def file(identifier: str, created: int, size: int, purpose: str) -> Object:
    """Give a file's object."""
    return {
        "id": identifier,
        "object": "file",
        "bytes": size,
        "created_at": created,
        "expires_at": None,
        "filename": "upload.bin",
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def model(name: str) -> Object:
    """Give a model's object."""
    return {"id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system"}


def models(names: Sequence[str]) -> Object:
    """Give the list of models."""
    return {"object": "list", "data": [model(name) for name in names]}
