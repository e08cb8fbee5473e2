"""Whatever bytes come, in whatever pieces (T3): the same result for any split, no failure but ours, nothing slow.

The suite tries the same cases each time. The long run tries new ones, as many as FUZZ_SECONDS (default 120) allow; its
seed is told when it fails, and SEED and ROUNDS below then make the short run do the same.
"""

import json
import os
import random
import time
from collections.abc import Callable

import psutil
import pytest

from chat2api.errors import Chat2APIError
from chat2api.protocol.event_stream import EventStreamDecoder
from chat2api.protocol.openai.chat import parse_chat_request
from tests.api.test_request_bytes import CHUNKED, GET, POST, TRAILERS, A, B, C, take_all
from tests.nightly.conftest import Note
from tests.protocol.chatgpt.streams import DATA, decode

SEED = 20261121
ROUNDS = 1000
"""What the suite tries, and how often: some three seconds."""

SLOWEST = 1.0
"""Seconds that no single case may take."""

MEBIBYTE = 1024 * 1024
RECORDED = sorted(DATA.glob("*.sse"))
WORDS = (
    b"data: ", b"event: delta\n", b"\n\n", b"\r\n", b"\r", b":", b"[DONE]", b"null", b'{"v":', b'{"p":"/message/content',
    b'"o":"append"', b'"o":"patch"', b"}", b"]", b"[", b'"', b"\\u00", b"\xed\xa0\x80", b"\xff", b"\x00", b"\xf0\x9f",
    b"1e999", b"-", b'{"message":', b'"parts":[', b'"author":{"role":"assistant"}', b'"status":', b"99999999999999999999",
)  # fmt: skip

Case = Callable[[random.Random], int]
"""Tries something and gives how many bytes went through."""


def cuts(rng: random.Random, size: int) -> list[int]:
    """Give places to cut at: few, many, or all close together."""
    number = rng.choice((1, 2, 3, 10, 50, size // 4))
    around = rng.randrange(size + 1)
    spread = rng.choice((3, 40, size))
    return sorted({min(size, max(0, around + rng.randrange(-spread, spread + 1))) for _ in range(number)})


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes of recorded data: flipped, left out, doubled, replaced by what means something."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        at = rng.randrange(len(changed) + 1)
        until = min(len(changed), at + rng.choice((0, 1, 1, 4, 40, 400)))
        changed[at:until] = rng.choice((b"", rng.choice(WORDS), bytes(changed[at:until]) * 2, rng.randbytes(3)))
    return bytes(changed)


def split_of_a_recorded_stream(rng: random.Random) -> int:
    """Any split of recorded bytes gives the same events."""
    data = rng.choice(RECORDED).read_bytes()
    assert decode(data, *cuts(rng, len(data)))[0] == decode(data)[0]
    return len(data)


def spoilt_stream(rng: random.Random) -> int:
    """A spoilt stream gives events or an error of ours, and the same in two pieces."""
    data = spoilt(rng, rng.choice(RECORDED).read_bytes())
    events, failure = decode(data)
    again, other = decode(data, rng.randrange(len(data) + 1))
    assert (again, type(other)) == (events, type(failure))
    return len(data)


def words_of_the_field(rng: random.Random) -> int:
    """The framing gives the same events for any split of anything."""
    data = b"".join(rng.choices(WORDS, k=rng.randrange(1, 60)))
    whole = EventStreamDecoder()
    expected = [*whole.feed(data), *whole.close()]
    pieces, found, last = EventStreamDecoder(), [], 0
    for at in (*cuts(rng, len(data)), len(data)):
        found += pieces.feed(data[last:at])
        last = at
    assert [*found, *pieces.close()] == expected
    return len(data)


def body_of_a_request(rng: random.Random) -> int:
    """A body of any JSON is a request or is refused in our words."""

    def value(depth: int) -> object:
        kind = rng.randrange(8 if depth else 6)
        if kind == 6:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 7:
            return {rng.choice(names): value(depth - 1) for _ in range(rng.randrange(5))}
        return rng.choice(
            (
                None,
                True,
                rng.randrange(-5, 10**20),
                rng.random() * 1e308,
                "user",
                rng.choice(names),
                "\ud800",
                "x" * 999,
            )
        )

    names = ("model", "messages", "role", "content", "type", "text", "stream", "stop", "n", "max_tokens", "temperature",
             "tools", "stream_options", "include_usage", "image_url", "url", "conversation_id", "reasoning_effort")  # fmt: skip
    body: dict[str, object] = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    body |= {rng.choice(names): value(3) for _ in range(rng.randrange(4))}
    try:
        parse_chat_request(body)
    except Chat2APIError as error:
        assert 400 <= error.status < 500
    return len(json.dumps(body))


def split_of_requests(rng: random.Random) -> int:
    """Any split of requests' bytes gives the same requests."""
    data = GET + POST + CHUNKED + TRAILERS + GET
    assert take_all(data, *cuts(rng, len(data))) == [A, B, C, A]
    return len(data)


def spoilt_requests(rng: random.Random) -> int:
    """Spoilt requests are requests or refused in our words, the same in two pieces."""
    data = spoilt(rng, GET + POST + CHUNKED + TRAILERS + GET)
    outcomes = []
    for places in ((), (rng.randrange(len(data) + 1),)):
        try:
            outcomes.append((take_all(data, *places), 0))
        except Chat2APIError as error:
            assert 400 <= error.status < 600
            outcomes.append(([], error.status))
    assert outcomes[0] == outcomes[1]
    return len(data)


CASES: tuple[Case, ...] = (
    split_of_a_recorded_stream,
    spoilt_stream,
    words_of_the_field,
    body_of_a_request,
    split_of_requests,
    spoilt_requests,
)


def try_all(rng: random.Random, told: str, note: Note, go_on: Callable[[int], bool]) -> None:
    """Try every case again and again while go_on, given the number of rounds so far, says so; hold all to the limits."""
    process = psutil.Process()
    tried, through, slowest = dict.fromkeys(CASES, 0), 0, 0.0
    for case in CASES:  # what is loaded once is loaded now
        case(random.Random(0))
    before, rounds = process.memory_info().rss, 0
    while go_on(rounds):
        for case in CASES:
            began = time.process_time()
            try:
                through += case(rng)
            except Exception as error:
                error.add_note(f"{case.__name__}, {told}, round {rounds}")
                raise
            tried[case] += 1
            slowest = max(slowest, time.process_time() - began)
        rounds += 1
    counts = ", ".join(f"{count:,} {case.__name__}" for case, count in tried.items())
    note(f"{counts}; {through / 1e6:.0f} MB; slowest {slowest * 1000:.0f} ms")
    assert slowest < SLOWEST
    assert process.memory_info().rss - before < 200 * MEBIBYTE


def test_T3_any_bytes_in_any_pieces_are_survived(note: Note) -> None:
    try_all(random.Random(SEED), f"seed {SEED}", note, lambda rounds: rounds < ROUNDS)


@pytest.mark.nightly
@pytest.mark.timeout(100_000)
def test_T3_any_bytes_in_any_pieces_are_survived_for_long(note: Note) -> None:
    seed = random.SystemRandom().randrange(2**32)
    until = time.process_time() + float(os.environ.get("FUZZ_SECONDS", "120"))
    try_all(random.Random(seed), f"seed {seed}", note, lambda rounds: time.process_time() < until)
