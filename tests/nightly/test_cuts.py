"""Answers cut in the middle, again and again: nothing is asked for twice and no character is said twice (R2)."""

import random
from pathlib import Path

import pytest

from chat2api.simulator.faults import Fault
from tests.e2e.harness import WIRES, Bench, Told, Wire, open_bench

WORDS = 40
WHOLE = "".join(f"word{number} " for number in range(1, WORDS + 1))
KINDS = (
    "reset",
    "close",
    "end",
    "cut_frame",
    "cut_character",
    "reset_stream",
    "go_away",
    "endless_line",
    "error_event",
)


def check(told: Told, *, stream: bool) -> None:
    """Check that what was said is a beginning of the answer and ends with the error, or is the error alone."""
    if not stream:
        assert told.status == 502, told.body
        return
    assert told.status == 200, told.body
    assert len(told.stream_errors) == 1
    assert "[DONE]" not in told.data
    assert not told.finish_reasons()
    text = told.text()
    assert text, "content had begun"
    assert WHOLE.startswith(text), text


async def cut(bench: Bench, rng: random.Random, number: int) -> None:
    """Cut one answer at a random word in a random way."""
    fault = Fault(rng.choice(KINDS), at="mid_stream", after=rng.randrange(1, WORDS), size=1_100_000)  # type: ignore[arg-type]
    bench.control.choose(
        events=WORDS,
        delay=rng.choice((0.0, 0.0005, 0.002)),
        encoding=rng.choice(("v1", "classic")),
        split=None if fault.do == "endless_line" else rng.choice((None, number)),
    )
    bench.control.fail("conversation", fault)
    before, stream = bench.calls, rng.random() < 0.8
    check(await bench.ask(stream), stream=stream)
    assert bench.calls - before == 1, "the answer had begun"


LONG = (pytest.mark.nightly, pytest.mark.timeout(1200))


@pytest.mark.parametrize(
    ("wire", "cuts"), [("plain", 50), ("tls", 50), *(pytest.param(wire, 250, marks=LONG) for wire in WIRES)]
)
async def test_R2_cuts_in_mid_answer_cause_no_second_call_and_repeat_no_character(
    tmp_path: Path, wire: Wire, cuts: int
) -> None:
    rng = random.Random(f"{wire} {cuts}")
    async with open_bench(tmp_path, wire, RETRY_TIMES="3") as bench, bench.case(3):
        for number in range(cuts):
            await cut(bench, rng, number)
            bench.open_way()
