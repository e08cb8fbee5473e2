"""Byte equality: odd but lawful bodies and streams go through the server and come out as they went in, both ways."""

import json
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.simulator.openai_api import Prepared
from tests.api.openai.forwarding import CHAT, Forwarding, open_forwarding

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODIES = 100
STREAMS = 100

_STRINGS = (
    '"plain"', '""', '"\\u0041\\/\\b\\f"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\uDC00 lone"', '"caf\u00e9 \u2028 \U0001f600"',
    '"\\"usage\\":null"',
    '"say \\"error\\": {}"', '"data: {}\\n\\n"', '"\\u0000"', '"[DONE]"', '"org_lower user-friendly"', '",\\"usage\\":null"',
)  # fmt: skip
_NUMBERS = (
    "0",
    "-0",
    "-0.0",
    "1e400",
    "1E+2",
    "12345678901234567890123",
    "0.1000000000000000055511151231257827",
    "1e-7",
    "-1",
)
_BLANKS = ("", "", " ", "\n", "\r\n", "\t", "  \n ")


class Writer:
    """Writes random JSON texts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def blank(self) -> str:
        return self.rng.choice(_BLANKS)

    def value(self, depth: int) -> str:
        draw = self.rng.random()
        if depth == 0 or draw < 0.5:
            return self.rng.choice((self.rng.choice(_STRINGS), self.rng.choice(_NUMBERS), "null", "true", "false"))
        if draw < 0.75:
            return self._join("[", [self.value(depth - 1) for _ in range(self.rng.randint(0, 4))], "]")
        names = [
            self.rng.choice(('"a"', '"\\u0061b"', '""', '"model"', '"caf\u00e9"'))
            for _ in range(self.rng.randint(0, 4))
        ]
        return self._join("{", [self._member(name, self.value(depth - 1)) for name in names], "}")

    def object(self, members: dict[str, str], extra: int) -> str:
        """An object with these members and some unknown ones, in any order; names at the top stand there once."""
        given = [self._member(json.dumps(name), value) for name, value in members.items()]
        given += [self._member(f'"x{number}"', self.value(4)) for number in range(extra)]
        self.rng.shuffle(given)
        return self.blank() + self._join("{", given, "}") + self.blank()

    def request(self) -> bytes:
        """A body of a chat completion."""
        messages = f'[{{"role":{self.blank()}"user", "content":{self.blank()}{self.rng.choice(_STRINGS)}}}]'
        return self.object({"model": '"gpt-4.1"', "messages": messages}, self.rng.randint(0, 5)).encode()

    def answer(self) -> bytes:
        """A body of an answer."""
        usage = '{"prompt_tokens":5 , "completion_tokens": 7,"total_tokens":12}'
        return self.object(
            {"id": '"chatcmpl-1"', "usage": usage, "choices": self.value(3)}, self.rng.randint(0, 8)
        ).encode()

    def stream(self) -> bytes:
        """An event stream with every kind of line, lawful as a whole."""
        end = self.rng.choice(("\n", "\n", "\r\n", "\r"))
        text = "\ufeff" if self.rng.random() < 0.1 else ""
        for number in range(self.rng.randint(1, 12)):
            if self.rng.random() < 0.3:
                text += self.rng.choice((":", ": a comment", ": usage error")) + end * self.rng.randint(1, 2)
            for line in ("event: some", f"id: {number}", "retry: 5", "unknown: \u00e9", "alone"):
                text += line + end if self.rng.random() < 0.15 else ""
            chunk = self.object({"choices": "[]"}, 2).replace("\r\n", " ").replace("\n", " ")
            lead = self.rng.choice(("data: ", "data:", "data:  "))
            text += lead + chunk.strip() + end
            text += f"data: {end}" if self.rng.random() < 0.1 else ""
            text += end
        return (text + f"data: [DONE]{end}{end}" * self.rng.choice((1, 1, 2))).encode()

    def _join(self, left: str, parts: list[str], right: str) -> str:
        return left + self.blank() + ",".join(self.blank() + part + self.blank() for part in parts) + right

    def _member(self, name: str, value: str) -> str:
        return f"{name}{self.blank()}:{self.blank()}{value}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forwarding(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("equality")) as running:
        yield running


def caller(forwarding: Forwarding, seed: int) -> dict[str, str]:
    """By turns the operator and somebody with a key of their own."""
    headers = {"Content-Type": "application/json"}
    return headers if seed % 2 else headers | {"Authorization": f"Bearer {forwarding.api.keys[0]}"}


async def test_bodies_are_the_same_bytes_on_both_sides(forwarding: Forwarding) -> None:
    for seed in range(BODIES):
        writer = Writer(seed)
        sent, answered = writer.request(), writer.answer()
        status = writer.rng.choice((200, 200, 200, 201, 400, 404, 422))
        split = seed if seed % 3 and status < 300 else None  # chunked and cut anywhere, or with its length
        forwarding.api.prepare(Prepared(answered, status=200 if split is not None else status, split=split))
        answer = await forwarding.http.post(CHAT, content=sent, headers=caller(forwarding, seed))
        assert answer.content == answered, seed
        assert answer.status_code == (200 if split is not None else status), seed
        assert forwarding.api.control.requests[-1].request.body == sent, seed
        assert forwarding.api.control.requests[-1].request.header("content-type") == "application/json"


async def test_streams_are_the_same_bytes_however_they_are_cut(forwarding: Forwarding) -> None:
    sent = b'{"stream":true, "model":"gpt-4.1","stream_options":{"include_usage":true},"messages":[{"content":"x"}]}'
    for seed in range(STREAMS):
        answered = Writer(1000 + seed).stream()
        forwarding.api.prepare(Prepared(answered, kind="text/event-stream", split=seed if seed % 4 else None))
        answer = await forwarding.http.post(CHAT, content=sent, headers=caller(forwarding, seed))
        assert answer.content == answered, seed
        assert answer.headers["content-type"] == "text/event-stream"
        assert forwarding.api.control.requests[-1].request.body == sent, seed


async def test_a_body_that_streams_differs_in_one_member_alone(forwarding: Forwarding) -> None:
    for seed in range(50):
        writer = Writer(2000 + seed)
        sent = writer.object(
            {"stream": "true", "model": '"openai/gpt-4.1"', "messages": '[{"role":"user","content":"x"}]'}, 4
        )
        forwarding.api.prepare(Prepared(b"data: [DONE]\n\n", kind="text/event-stream"))
        await forwarding.http.post(CHAT, content=sent.encode(), headers=caller(forwarding, seed))
        got = forwarding.api.control.requests[-1].request.body.decode()
        expected = sent.replace("openai/gpt-4.1", "gpt-4.1", 1)
        front = expected.index("{") + 1
        assert got == expected[:front] + '"stream_options":{"include_usage":true},' + expected[front:], seed


async def test_binary_bodies_are_the_same_bytes(forwarding: Forwarding) -> None:
    rng = random.Random(3)
    body = {"model": "tts-1", "voice": "alloy", "input": "x"}
    for size in (0, 1, 1000, 300_000, 2_000_000):
        answered = rng.randbytes(size)
        for split in (None, size):
            forwarding.api.prepare(Prepared(answered, kind="audio/mpeg", split=split if size < 400_000 else None))
            answer = await forwarding.http.post("/v1/audio/speech", json=body)
            assert answer.content == answered
            assert answer.headers["content-type"] == "audio/mpeg"
