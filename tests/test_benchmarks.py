"""The benchmarks' own parts: the command line, the check of answers, the goals, and the load generator at work."""

import base64
import json

import pytest

from benchmarks import __main__ as command
from benchmarks import limits
from benchmarks.backend_calls import AnswerText, find_answer
from benchmarks.load import AnswerError, Load, Plan, Spread, read_api_answer
from benchmarks.report import Figure, at_most, ratio_at_least, ratio_at_most, table
from benchmarks.scenarios import SCENARIOS
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions


def chunk(text: str | None = None, finish_reason: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    payload = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return f"data: {json.dumps(payload)}\n\n".encode()


STOP = chunk(finish_reason="stop")
DONE = b"data: [DONE]\n\n"


def test_the_command_line_takes_names_and_refuses_unknown_ones(capsys: pytest.CaptureFixture[str]) -> None:
    options = command.parser().parse_args(["burst", "short", "--quick", "--json", "figures.json"])

    assert (options.name, options.quick, options.json.name) == (["burst", "short"], True, "figures.json")
    with pytest.raises(SystemExit) as exit_info:
        command.main(["no-such-benchmark"])
    assert exit_info.value.code == 2
    assert "no-such-benchmark" in capsys.readouterr().err


def test_every_benchmark_says_what_it_measures() -> None:
    assert all(measure.__doc__ for measure in SCENARIOS.values())


def test_a_whole_answer_gives_its_pieces_and_skips_comments() -> None:
    assert read_api_answer(chunk("one ") + b": keep-alive\n\n" + chunk("two ") + STOP + DONE) == ["one ", "two "]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "DONE"),
        (chunk("one ") + STOP, "DONE"),
        (chunk("one ") + STOP + DONE + chunk("more"), "DONE"),
        (chunk("one ") + STOP + DONE[:-1], "DONE"),
        (chunk("one ") + DONE, "0 finish"),
        (chunk("one ") + STOP + STOP + DONE, "2 finish"),
        (chunk("one ") + b'data: {"error":{"message":"cut"}}\n\n' + DONE, "error"),
        (b"data: {\n\n" + DONE, "JSON"),
        (b"data: []\n\n" + DONE, "chunk"),
    ],
)
def test_an_answer_that_is_not_whole_is_told_apart(body: bytes, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        read_api_answer(body)


def test_the_plain_proof_is_the_published_one() -> None:
    config = [
        4016,
        "Tue Oct 01 2024 07:00:00 GMT-0500 (Eastern Standard Time)",
        4294705152,
        0,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36",
        None,
        "prod-test-build",
        "en-US",
        "en-US,es-US,en,es",
        0,
        "vendor−Google Inc.",
        "location",
        "alert",
        1234.5,
        "00000000-0000-4000-8000-000000000001",
    ]

    answer = find_answer("0.8216273", "000fff", config)

    assert len(answer) == 456
    assert json.loads(base64.b64decode(answer))[3] == 2859


def test_the_plain_reader_reads_both_encodings() -> None:
    message = {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["one "]}}
    longer = {**message, "content": {"content_type": "text", "parts": ["one two "]}}
    deltas, cumulative = AnswerText(), AnswerText()

    from_deltas = [
        deltas.take({"v": {"message": message}, "c": 1}),
        deltas.take({"p": "/message/content/parts/0", "o": "append", "v": "two "}),
        deltas.take({"v": "three "}),
        deltas.take({"p": "", "o": "patch", "v": [{"p": "/message/content/parts/0", "o": "append", "v": "four "}]}),
        deltas.take({"p": "/message/status", "o": "replace", "v": "finished_successfully"}),
    ]

    assert from_deltas == ["one ", "two ", "three ", "four ", ""]
    assert [cumulative.take({"message": message}), cumulative.take({"message": longer})] == ["one ", "two "]


def test_a_goal_is_about_the_figure_or_about_its_ratio() -> None:
    cheap = Figure("burst", "CPU", "ms", 2.0, 10.0, ratio_at_most(1 / 3))
    slow = Figure("short", "rate", "/s", 200.0, 100.0, ratio_at_least(2.5))
    alone = Figure("streams", "memory", "MB", 251.0, goal=at_most(250, "MB"))
    unknown = Figure("short", "rate", "/s", 200.0, None, ratio_at_least(2.5))

    assert [figure.passed for figure in (cheap, slow, alone, unknown)] == [True, False, False, False]
    assert table([cheap, slow]).count("**FAIL**") == 1


def test_a_spread_of_nothing_is_zero_and_of_one_is_that_one() -> None:
    assert Spread.of([]) == Spread(0.0, 0.0, 0.0, 0.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0)


async def test_the_load_generator_checks_every_word_of_the_simulator() -> None:
    async with Simulator(SimulatorOptions(events=20, encoding="v1")) as simulator:
        port = int(simulator.url.rpartition(":")[2])
        key = simulator.control.accounts[0].access_token
        right = await Load(Plan(port, key, words=20, kind="backend", at_once=4, answers=12)).run()
        wrong = await Load(Plan(port, key, words=21, kind="backend", at_once=2, answers=2)).run()

    assert (right.good, right.failed, right.words) == (12, {}, 240)
    assert 0 < right.first_content.p50 <= right.whole.max
    assert (wrong.good, wrong.failed) == (0, {"words missing, doubled or out of order": 2})


def test_the_cost_of_limits_is_measured_on_requests_that_are_all_booked() -> None:
    told = limits.run(rounds=1, requests=50)

    # Ten times the goal: the machine may be busy.
    assert 0 < told["pick"] < told["with_keys"] < 3
