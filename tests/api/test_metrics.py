"""What the server tells of its work, through the real server and its simulator."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio
from prometheus_client import Histogram
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from chat2api.api.metrics import LAG_SECONDS, MAX_MODELS, WAITS, Metrics, RequestNotes, request_line
from chat2api.errors import RateLimitedError
from chat2api.gateway.sources import host_of
from chat2api.keys.digests import secret_digest
from chat2api.keys.guesses import GUESSES
from chat2api.protocol.openai.usage import Usage
from chat2api.simulator.faults import Fault
from tests.e2e.harness import OPERATOR_KEY, Bench, Caller, open_bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("metrics")) as bench:
        yield bench


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(bench: Bench) -> Samples:
    answer = await bench.http.get("/metrics", headers=OPERATOR)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    told = [record.getMessage() for record in caplog.records if record.name == "chat2api.api.metrics"]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in told]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-c2a-nobody"}, {"Authorization": "Bearer wrong"}])
async def test_M1_metrics_are_for_the_operator_alone(bench: Bench, headers: dict[str, str]) -> None:
    answer = await bench.http.get("/metrics", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_an_answer_is_counted_and_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.metrics")
    async with bench.case(1):
        label = bench.house.runtime.pool.views()[0].account.label
        before = await scrape(bench)
        for stream in (False, True):
            assert (await bench.ask(stream)).status == 200
        await until(lambda: len(lines(caplog)) == 2, "a request was not logged")
        after = await scrape(bench)
    for line in lines(caplog):
        assert (line["route"], line["method"], line["status"], line["cut"]) == (CHAT, "POST", "200", "no")
        assert (line["key"], line["account"], line["model"]) == ("operator", label, lines(caplog)[0]["model"])
        assert 0 <= float(line["first"]) <= float(line["seconds"])
        assert int(line["prompt_tokens"]) > 0 and int(line["completion_tokens"]) > 0
    model = lines(caplog)[0]["model"]
    tokens = sum(int(line["completion_tokens"]) for line in lines(caplog))
    assert grown(before, after, "chat2api_requests_total", route=CHAT, status="200", model=model) == 2
    assert grown(before, after, "chat2api_tokens_total", kind="completion", model=model) == tokens
    assert grown(before, after, "chat2api_first_byte_seconds_count", route=CHAT) == 2
    assert grown(before, after, "chat2api_request_seconds_count", route=CHAT) == 2
    assert grown(before, after, "chat2api_upstream_calls_total", kind="conversation", outcome="2xx") == 2
    assert grown(before, after, "chat2api_backend_answers_total") == 2
    assert value(after, "chat2api_accounts", state="ok") == 1
    assert value(after, "chat2api_open_answers") == 0
    assert value(after, "chat2api_drift") == 0


async def test_R9_the_loops_lag_is_measured(bench: Bench) -> None:
    await asyncio.sleep(2 * LAG_SECONDS)
    assert value(await scrape(bench), "chat2api_loop_lag_seconds_count") > 0


async def test_failures_retries_and_waits_are_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.metrics")
    async with bench.case(2) as (first, _):
        before = await scrape(bench)
        bench.control.refuse("conversation", "model_cap", account=first.user_id, clears_in=600)
        bench.control.fail("conversation", Fault("close", at="mid_stream", after=2))
        told = await bench.ask(True)
        assert told.stream_errors
        await until(lambda: len(lines(caplog)) == 1, "the request was not logged")
        assert (await bench.ask(content="x" * 10, model=["not a name"])).status == 400
        during = await scrape(bench)
    assert lines(caplog)[0]["status"] == "200"
    assert lines(caplog)[0]["cut"] == "yes"
    assert lines(caplog)[1]["status"] == "400"
    assert lines(caplog)[1]["model"] == "-"
    assert grown(before, during, "chat2api_retries_total") == 1
    assert grown(before, during, "chat2api_answers_cut_total", route=CHAT) == 1
    assert grown(before, during, "chat2api_upstream_calls_total", kind="conversation", outcome="429") == 1
    assert grown(before, during, "chat2api_requests_total", route=CHAT, status="400", model="") == 1


async def test_R5_S14_exits_that_rest_and_refused_guesses_are_told(bench: Bench) -> None:
    async with bench.case(1):
        exits, host = bench.house.runtime.sources.pool.exits, host_of(bench.sim.url)
        guesses = bench.house.runtime.guesses
        before = await scrape(bench)
        exits.report(None, host, "distrusted")
        for number in range(GUESSES + 1):
            with suppress(RateLimitedError):
                guesses.check("198.51.100.7", secret_digest(f"wrong {number}"))
            guesses.failed("198.51.100.7", secret_digest(f"wrong {number}"))
        during = await scrape(bench)
        bench.clock.advance(3600)
        exits.report(None, host, None)
        after = await scrape(bench)
    assert grown(before, during, "chat2api_exits", state="open") == 1
    assert 0 < value(during, "chat2api_exit_rest_seconds", exit="direct") <= 60
    assert value(after, "chat2api_exit_rest_seconds", exit="direct") == 0
    assert value(after, "chat2api_exits", state="open") == 0
    assert grown(before, during, "chat2api_guesses_refused_total") == 1


async def test_a_client_that_leaves_is_noted_as_that(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.metrics")
    async with bench.case(1):
        bench.control.fail("conversation", Fault("stall", at="before_headers"))
        caller = Caller(bench, stream=False)
        await caller.send()
        await until(lambda: bench.calls == 1, "the call did not arrive")
        caller.leave(reset=True)
        await until(lambda: len(lines(caplog)) == 1, "the request was not logged")
    assert lines(caplog)[0]["status"] == "499"


async def test_names_that_callers_make_up_never_become_labels(bench: Bench) -> None:
    async with bench.case(1):
        for number in range(5):
            await bench.ask(model=f"canary-model-{number}")
            await bench.http.get(f"/canary-path-{number}", headers=OPERATOR)
            await bench.http.get(f"/v1/models/canary-name-{number}", headers=OPERATOR)
            await bench.http.request(f"CANARY{number}", "/v1/models", headers=OPERATOR)
        samples = await scrape(bench)
    assert "canary" not in str(samples).lower()
    assert value(samples, "chat2api_requests_total", route="none", status="404", model="") >= 5


async def test_S17_no_secret_stands_among_the_metrics_and_lines(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with bench.case(1) as (account,):
        await bench.ask(content="canary-prompt")
        text = (await bench.http.get("/metrics", headers=OPERATOR)).text
    for secret in (
        OPERATOR_KEY,
        account.access_token,
        account.refresh_token,
        account.user_id,
        "canary-prompt",
        "127.0.0.1",
    ):
        assert secret not in text
        assert secret not in str(lines(caplog))


async def test_health_checks_are_not_logged_at_the_usual_level(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.metrics")
    for path in ("/healthz", "/readyz", "/metrics"):
        await bench.http.get(path, headers=OPERATOR)
    await bench.http.get("/v1/models", headers=OPERATOR)
    await until(lambda: bool(lines(caplog)), "the request was not logged")
    assert [line["route"] for line in lines(caplog)] == ["/v1/models"]


async def test_R28_doubts_reuse_and_the_refresh_window_are_told(bench: Bench) -> None:
    keeper = bench.house.runtime.keeper
    before = (keeper.in_doubt_total, keeper.reused_total, keeper.commit_seconds)
    try:
        keeper.in_doubt_total, keeper.reused_total = 3, 1
        keeper.commit_seconds = [0.001 * number for number in range(100, 0, -1)]
        samples = await scrape(bench)
    finally:
        keeper.in_doubt_total, keeper.reused_total, keeper.commit_seconds = before
    assert value(samples, "chat2api_refresh_in_doubt_total") == 3
    assert value(samples, "chat2api_refresh_reused_total") == 1
    assert value(samples, "chat2api_refresh_window_seconds", quantile="0.5") == pytest.approx(0.051)
    assert value(samples, "chat2api_refresh_window_seconds", quantile="0.99") == pytest.approx(0.1)


async def test_R15_shapes_are_told_with_their_numbers(bench: Bench) -> None:
    drift = bench.house.runtime.drift
    drift.note({'object: a"b\n': 1}, bench.house.runtime.clock.monotonic())
    samples = await scrape(bench)
    assert value(samples, "chat2api_unknown_shapes_total", shape='object: a"b\n') == 1
    assert value(samples, "chat2api_drift") == bool(bench.house.runtime.drifted)


async def test_durations_are_told_as_prometheus_counts_them(bench: Bench) -> None:
    counted = Metrics(bench.house.runtime)
    theirs = Histogram("theirs", "The same.", buckets=WAITS, registry=None)
    for seconds in (0.0, 0.05, 0.0500001, 1.0, 2.5, 899.0, 901.0):
        counted.finish(RequestNotes(0.0, route=CHAT, status=200, first=seconds / 2), seconds)
        theirs.observe(seconds)

    def samples(metric: Metric, suffix: str) -> list[tuple[str | None, float]]:
        told = [sample for sample in metric.samples if sample.name.endswith(suffix)]
        return [(sample.labels.get("le"), sample.value) for sample in told]

    ours = {family.name: family for family in counted.registry.collect()}["chat2api_request_seconds"]
    for suffix in ("_bucket", "_sum", "_count"):
        assert samples(ours, suffix) == samples(next(iter(theirs.collect())), suffix)


async def test_models_told_apart_are_bounded(bench: Bench) -> None:
    counted = Metrics(bench.house.runtime)
    for number in range(MAX_MODELS + 10):
        counted.finish(RequestNotes(0.0, model=f"model {number}", status=200), 1.0)
    labels = {
        sample.labels["model"]
        for family in counted.registry.collect()
        if family.name == "chat2api_requests"
        for sample in family.samples
    }
    assert len(labels) == MAX_MODELS + 1
    assert {"model_0", "other"} <= labels


@pytest.mark.alone
async def test_the_hot_path_pays_some_microseconds(bench: Bench) -> None:
    counted = Metrics(bench.house.runtime)
    notes = RequestNotes(0.0, route=CHAT, status=200, first=0.1, model="auto", usage=Usage(1, 2))
    logging.getLogger("chat2api.api.metrics").setLevel(logging.WARNING)
    try:
        best = 1.0
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(100):
                counted.finish(notes, 0.2)
            best = min(best, (time.perf_counter() - begun) / 100)
    finally:
        logging.getLogger("chat2api.api.metrics").setLevel(logging.NOTSET)
    assert best < 200e-6, "ten times what it takes"


async def test_the_lag_of_the_loop_is_measured(bench: Bench) -> None:
    counted = Metrics(bench.house.runtime)
    watching = asyncio.get_running_loop().create_task(counted.watch_loop())
    await until(lambda: "chat2api_loop_lag_seconds_count 0.0" not in text_of(counted), "nothing was measured")
    watching.cancel()


def text_of(counted: Metrics) -> str:
    return "\n".join(
        f"{sample.name} {sample.value}" for family in counted.registry.collect() for sample in family.samples
    )


async def test_a_line_is_made_of_plain_words() -> None:
    notes = RequestNotes(
        0.0, route=CHAT, method="POST", status=200, model="gpt\n4 x=y", key="k" * 200, usage=Usage(3, 4)
    )
    assert request_line(notes, 1.23456) == (
        f"request method=POST route={CHAT} status=200 key={'k' * 64} model=gpt_4_x_y account=- first=- seconds=1.235 "
        "prompt_tokens=3 completion_tokens=4 cut=no"
    )
