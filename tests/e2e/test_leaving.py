"""Clients that leave, in every phase (R10, R11), that do not read (R12), and a server that stops (R24)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import pytest_asyncio

from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, QUESTION, WIRES, Bench, Benches, Caller, answering_tasks, open_house, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CYCLES = 8
"""Clients that leave at once, in each phase, form and wire."""

MEBIBYTE = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Benches]:
    async with Benches(
        tmp_path_factory, POW_DIFFICULTY="0000000000", PROOF_TIMEOUT="30", CLIENT_WRITE_TIMEOUT="4"
    ) as benches:
        yield benches


@pytest_asyncio.fixture(loop_scope="module")
async def bench(request: pytest.FixtureRequest, benches: Benches) -> Bench:
    return await benches.at(request.param)


@dataclass(frozen=True)
class Phase:
    """A phase in which answers are made to stand still, and how it shows that they do."""

    name: str
    lay: Callable[[Bench, Credentials], object]
    route: str = "conversation"
    wires: tuple[str, ...] = WIRES


def _stall(route: str, at: str, after: int = 0) -> Callable[[Bench, Credentials], object]:
    return lambda bench, _: bench.control.fail(route, Fault("stall", at=at, after=after), times=None)  # type: ignore[arg-type]


PHASES = [
    Phase("preparation", _stall("requirements", "before_headers"), "requirements"),
    Phase(
        "proof-of-work",
        lambda bench, _: bench.control.choose("requirements", times=None, difficulty="0000000000"),
        "requirements",
    ),
    Phase("before-headers", _stall("conversation", "before_headers")),
    Phase("mid-headers", _stall("conversation", "mid_headers"), wires=("plain",)),  # half a frame breaks all of HTTP/2
    Phase("before-content", _stall("conversation", "before_content")),
    Phase("mid-stream", lambda bench, _: bench.control.choose(times=None, events=100_000, delay=0.01)),
    Phase("stalled", _stall("conversation", "mid_stream", 2)),
]


def _cases() -> list[Any]:
    """Give wire, phase, form of the answer and way to leave: all over the plain wire, each once over the others."""
    cases = []
    for phase in PHASES:
        for wire in phase.wires:
            for stream, reset in ((False, False), (False, True), (True, False), (True, True)):
                if wire == "plain" or stream is not reset:
                    name = f"{wire}-{phase.name}-{'streamed' if stream else 'whole'}-{'rst' if reset else 'fin'}"
                    cases.append(pytest.param(wire, phase, stream, reset, id=name))
    return cases


@pytest.mark.parametrize(("bench", "phase", "stream", "reset"), _cases(), indirect=["bench"])
async def test_R10_what_a_client_that_left_had_asked_for_is_aborted(
    bench: Bench, phase: Phase, stream: bool, reset: bool
) -> None:
    async with bench.case() as (account,):
        phase.lay(bench, account)
        callers = [Caller(bench, stream) for _ in range(CYCLES)]
        for caller in callers:
            await caller.send()
        await bench.control.wait_until(lambda: len(bench.control.requests_to(phase.route)) == CYCLES)
        await until(lambda: bench.house.in_flight == CYCLES, "not all of them hold an account")
        if phase.name == "mid-stream" and stream:
            for caller in callers:
                await caller.read_until(b"word2")
        left_at = time.monotonic()
        for caller in callers:
            caller.leave(reset=reset)
        await bench.settled()
        await until(lambda: not answering_tasks(), "tasks are left")
        assert time.monotonic() - left_at < 2.0
        assert len(bench.control.requests_to("conversation")) <= CYCLES, "nobody is asked again for a client that left"
        bench.control.reset()
        assert (await bench.ask(stream)).text() == ANSWER, "the account serves on"


@pytest.mark.parametrize("bench", ["plain", "tls"], indirect=True)
async def test_R10_descriptors_stay_as_they_were(bench: Bench) -> None:
    process = psutil.Process()
    async with bench.case():
        bench.control.choose(times=None, events=100_000, delay=0.01)
        counts = []
        for _ in range(6):
            callers = [Caller(bench, True) for _ in range(5)]
            for caller in callers:
                await caller.send()
                await caller.read_until(b"word1")
            for caller in callers:
                caller.leave()
            await bench.settled()
            counts.append(process.num_fds())
    assert counts[-1] <= counts[0] + 5


@pytest.mark.parametrize("bench", WIRES, indirect=True)
async def test_R10_R11_a_renewal_outlives_the_client_that_caused_it(bench: Bench) -> None:
    async with bench.case():
        await bench.clear()
        account = bench.control.add_account()
        await bench.add(account.refresh_token)
        bench.control.fail("oauth_token", Fault("stall", seconds=0.4))
        callers = [Caller(bench, True) for _ in range(CYCLES)]
        for caller in callers:
            await caller.send()
        await bench.control.wait_until(lambda: len(bench.control.requests_to("oauth_token")) == 1)
        await until(lambda: bench.house.in_flight == CYCLES, "not all wait for the renewal")
        for caller in callers:
            caller.leave()
        await until(lambda: bench.house.in_flight == 0, "an account is still leased")
        await bench.settled()
        assert (await bench.ask()).text() == ANSWER
        assert len(bench.control.requests_to("oauth_token")) == 1


@pytest.mark.parametrize("bench", WIRES, indirect=True)
async def test_R12_a_client_that_does_not_read_slows_the_backend_and_is_sent_away(bench: Bench) -> None:
    process = psutil.Process()
    async with bench.case():
        bench.control.set_options(text=("w" * 1000 + " ") * 24 * 1024, encoding="v1")
        callers = [Caller(bench, True) for _ in range(2)]
        for caller in callers:
            await caller.send(receive_buffer=16 * 1024)
        await bench.control.wait_until(lambda: bench.control.counters.open_streams == len(callers))
        before = process.memory_info().rss  # the simulator, which lives here too, has made its answers by now
        await _stands_still(bench)
        written = bench.control.counters.bytes_written
        assert written < len(callers) * 12 * MEBIBYTE, "what sockets and buffers on both sides hold"
        assert process.memory_info().rss - before < 24 * MEBIBYTE
        await bench.settled()
        assert bench.control.counters.bytes_written == written, "nothing more is drawn once the client is given up"
        assert [reply.outcome for reply in bench.control.streams] == ["aborted"] * len(callers)
        for caller in callers:
            caller.leave()


async def _stands_still(bench: Bench) -> None:
    """Return once the backend has not been able to write for a moment."""
    seen, since = -1, time.monotonic()

    def is_still() -> bool:
        nonlocal seen, since
        if bench.control.counters.bytes_written != seen:
            seen, since = bench.control.counters.bytes_written, time.monotonic()
        return time.monotonic() - since > 0.5

    await until(is_still, "the backend writes on", 20.0)


@pytest.mark.parametrize("bench", WIRES, indirect=True)
async def test_R12_a_client_that_reads_late_gets_everything(bench: Bench) -> None:
    async with bench.case():
        bench.control.choose(events=60_000, encoding="v1")
        caller = Caller(bench, True)
        await caller.send(receive_buffer=16 * 1024)
        await _stands_still(bench)
        body = await caller.read_until(b"[DONE]")
        caller.leave()
    chunks = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == "".join(f"word{number} " for number in range(1, 60_001))


async def test_F6_R24_a_running_stream_is_finished_before_the_server_stops(tmp_path: Path) -> None:
    async with (
        Simulator() as sim,
        open_house(tmp_path / "data", sim, tokens=[sim.control.accounts[0].access_token], DRAIN_ACCEPT="0.2") as house,
        house.client() as client,
    ):
        sim.control.choose(events=40, delay=0.03)
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        parts = [(await anext(aiter(stream))).choices[0].delta.content or ""]
        house.shutdown.request()
        assert house.runtime.readiness() in ("ready", "draining")
        await until(lambda: house.runtime.readiness() == "draining", "the server does not say that it is draining")
        async for chunk in stream:
            parts.append(chunk.choices[0].delta.content or "")
        assert "".join(parts) == "".join(f"word{number} " for number in range(1, 41))
        assert await asyncio.wait_for(house.serving, 10.0) == 0


async def test_R24_a_second_request_to_stop_ends_streams_with_an_error_in_them(tmp_path: Path) -> None:
    async with (
        Simulator() as sim,
        open_house(tmp_path / "data", sim, tokens=[sim.control.accounts[0].access_token]) as house,
        house.client(max_retries=0) as client,
    ):
        sim.control.choose(times=None, events=100_000, delay=0.03)
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        await anext(aiter(stream))
        house.shutdown.request()
        house.shutdown.request()
        asked_at = time.monotonic()
        with pytest.raises(openai.APIError) as told:
            async for _ in stream:
                pass
        assert told.value.code == "draining"
        await asyncio.wait_for(house.serving, 10.0)
        assert time.monotonic() - asked_at < 4.0
        await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)


async def test_R24_a_whole_answer_is_finished_too(tmp_path: Path) -> None:
    async with (
        Simulator() as sim,
        open_house(tmp_path / "data", sim, tokens=[sim.control.accounts[0].access_token]) as house,
        house.client() as client,
    ):
        sim.control.choose(events=20, delay=0.03)
        asking = asyncio.get_running_loop().create_task(
            client.chat.completions.create(model="auto", messages=[{"role": "user", "content": QUESTION}])
        )
        await sim.control.wait_until(lambda: sim.control.counters.open_streams == 1)
        house.shutdown.request()
        answer = await asking
        assert (answer.choices[0].message.content or "").endswith("word20 ")
        assert await asyncio.wait_for(house.serving, 10.0) == 0
