"""What the server tells of its work: metrics for Prometheus at /metrics, and one line in the log for each request.

A request's notes are begun before its guard and finished after everything else has been cleaned up, so they know how it
really ended. While it runs, notes are only written into an object. All else that /metrics tells is counted where it
happens, in plain numbers, and read here when it is asked for.

Labels are few and bounded: routes as they are registered, statuses, states, words of ours, and models by the slugs that
served, of which a bounded number is told apart. Nothing that a caller or the backend made up becomes a label without
bound, and no secret, person's address, prompt or key becomes one at all.
"""

import asyncio
import logging
import re
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from quart import Blueprint, Quart, Response

from chat2api.api.auth import access_class
from chat2api.api.context import current_app, current_globals, current_request, current_runtime, on_request_end
from chat2api.api.hours import HourlyCounts
from chat2api.gateway.key_views import count_keys
from chat2api.gateway.provider import Caller
from chat2api.protocol.openai.usage import Usage
from chat2api.runtime import Runtime

log = logging.getLogger(__name__)
blueprint = Blueprint("metrics", __name__)

LAG_SECONDS = 0.25
"""How often the event loop's lag is measured."""

MAX_MODELS = 50
"""Models told apart as labels; the ones after them count as `other`."""

CLIENT_LEFT = 499
"""The status noted for a request whose client left before it was answered."""

WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Seconds by which durations of requests are told apart."""

_EXTENSION = "chat2api_metrics"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LAGS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_QUIET = frozenset({"health.healthz", "health.readyz", "bare_health.healthz", "bare_health.readyz", "metrics.metrics"})


@dataclass(slots=True)
class RequestNotes:
    """What is known of one request. `key` is the id of its issued key, or the kind of caller; `first` in seconds.

    `is_turn` tells calls that want an answer made from those that look something up and from pages.
    """

    began: float
    route: str = "none"
    endpoint: str = ""
    method: str = ""
    status: int = CLIENT_LEFT
    first: float | None = None
    key: str = ""
    model: str = ""
    account: str = ""
    usage: Usage | None = None
    failed: bool = False
    is_turn: bool = False

    def answer(self, *, key: str, model: str, account: str, usage: Usage, failed: bool) -> None:
        """Note what the answer cost whom; `failed` says that an error ended it, also in the middle."""
        self.key, self.model, self.account, self.usage, self.failed = key, model, account, usage, failed


def current_metrics() -> "Metrics":
    """Give the numbers of the server behind the current request."""
    counted: Metrics = current_app().extensions[_EXTENSION]
    return counted


def current_notes() -> RequestNotes | None:
    """Give the notes of the current request, None where none are taken."""
    notes: RequestNotes | None = current_globals().get("notes")
    return notes


def install_metrics(app: Quart) -> None:
    """Take notes of every request. Call it before other hooks are added; `start_metrics` follows once there is a runtime."""
    app.before_request(_begin)
    app.after_request(_note_response)


def start_metrics(app: Quart, runtime: Runtime) -> None:
    """Begin to count for this app, and to measure the event loop's lag until the runtime closes."""
    metrics = app.extensions[_EXTENSION] = Metrics(runtime)
    runtime.spawn(metrics.watch_loop(), name="loop lag")


@blueprint.get("/metrics")
async def metrics() -> Response:
    """Everything that is counted, as Prometheus reads it."""
    counted = current_metrics()
    return Response(generate_latest(counted.registry), content_type=_CONTENT_TYPE)


class _Waits:
    """How many of some durations lie in each of the steps of WAITS, and their sum."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(WAITS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(WAITS, seconds)] += 1
        self._sum += seconds

    def write(self, family: HistogramMetricFamily, label: str) -> None:
        bounds = [*map(floatToGoString, WAITS), "+Inf"]
        family.add_metric((label,), list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


@dataclass(slots=True)
class _ModelTokens:
    """What the answers of one model were estimated at."""

    prompt: int = 0
    completion: int = 0


@dataclass(slots=True)
class _Place:
    """Requests of one route, status and model; what they share with others is shared here, too."""

    whole: _Waits
    first: _Waits
    tokens: _ModelTokens
    requests: int = 0


class Metrics:
    """The numbers of one server."""

    def __init__(self, runtime: Runtime) -> None:
        """Count for that runtime, in a registry of its own."""
        self.registry = CollectorRegistry()
        self.hours = HourlyCounts(runtime.clock)
        self._models: dict[str, str] = {}
        self._places: dict[tuple[str, int, str], _Place] = {}
        self._first: defaultdict[str, _Waits] = defaultdict(_Waits)
        self._whole: defaultdict[str, _Waits] = defaultdict(_Waits)
        self._tokens: defaultdict[str, _ModelTokens] = defaultdict(_ModelTokens)
        self._cut = Counter(
            "chat2api_answers_cut",
            "Answers that an error ended after they had begun.",
            ("route",),
            registry=self.registry,
        )
        self._lag = Histogram(
            "chat2api_loop_lag_seconds", "How late the event loop runs.", buckets=_LAGS, registry=self.registry
        )
        self.registry.register(_Snapshot(runtime, self._requests))
        ProcessCollector(namespace="chat2api", registry=self.registry)

    def finish(self, notes: RequestNotes, seconds: float) -> None:
        """Count a request that is over, and log it."""
        model = self._model_label(notes.model)
        place = (notes.route, notes.status, model)
        found = self._places.get(place)
        if found is None:
            route = notes.route
            found = self._places[place] = _Place(self._whole[route], self._first[route], self._tokens[model])
        found.requests += 1
        found.whole.add(seconds)
        if notes.first is not None:
            found.first.add(notes.first)
        if notes.failed and notes.status < 400:
            self._cut.labels(notes.route).inc()
        if notes.usage is not None:
            found.tokens.prompt += notes.usage.prompt_tokens
            found.tokens.completion += notes.usage.completion_tokens
        if notes.is_turn:
            self.hours.add(
                failed=notes.failed or (notes.status >= 400 and notes.status != CLIENT_LEFT),
                tokens=notes.usage.prompt_tokens + notes.usage.completion_tokens if notes.usage is not None else 0,
                first=notes.first if notes.status < 400 else None,
            )
        level = logging.DEBUG if notes.endpoint in _QUIET else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", request_line(notes, seconds))

    async def watch_loop(self) -> None:
        """Measure how late the event loop wakes, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag.observe(max(0.0, loop.time() - due))

    def _requests(self) -> Iterator[Metric]:
        """Yield what was counted of requests."""
        requests = CounterMetricFamily(
            "chat2api_requests",
            "Requests by route, status and the model that served.",
            labels=("route", "status", "model"),
        )
        for (route, status, model), place in list(self._places.items()):
            requests.add_metric((route, str(status), model), place.requests)
        yield requests
        for name, text, waits in (
            ("chat2api_first_byte_seconds", "Time to the first byte of an answer.", self._first),
            ("chat2api_request_seconds", "Time to the end of a request.", self._whole),
        ):
            family = HistogramMetricFamily(name, text, labels=("route",))
            for route, found in list(waits.items()):
                found.write(family, route)
            yield family
        tokens = CounterMetricFamily("chat2api_tokens", "Tokens of answers, estimated.", labels=("kind", "model"))
        for model, counted in list(self._tokens.items()):
            tokens.add_metric(("prompt", model), counted.prompt)
            tokens.add_metric(("completion", model), counted.completion)
        yield tokens

    def _model_label(self, model: str) -> str:
        label = self._models.get(model)
        if label is None:
            if len(self._models) >= MAX_MODELS:
                return "other"
            label = self._models[model] = _word(model)
        return label


def request_line(notes: RequestNotes, seconds: float) -> str:
    """Give the log's line of a request: words of the form name=value, `-` for what is not known. Its id is the record's."""
    first = "-" if notes.first is None else f"{notes.first:.3f}"
    asked, told = ("-", "-") if notes.usage is None else (notes.usage.prompt_tokens, notes.usage.completion_tokens)
    cut = "yes" if notes.failed and notes.status < 400 else "no"
    return (
        f"request method={notes.method or '-'} route={notes.route or '-'} status={notes.status} "
        f"key={_word(notes.key) or '-'} model={_word(notes.model) or '-'} account={_word(notes.account) or '-'} "
        f"first={first} seconds={seconds:.3f} prompt_tokens={asked} completion_tokens={told} cut={cut}"
    )


@lru_cache(maxsize=1024)
def _word(text: str) -> str:
    """Give a name as one short word of plain characters."""
    return re.sub(r"[^A-Za-z0-9_.:+-]", "_", text[:64])


async def _begin() -> None:
    clock = current_runtime().clock
    counted = current_metrics()
    asked = current_request()
    rule = asked.url_rule
    endpoint = "" if rule is None else rule.endpoint
    found = current_globals()  # it is gone when the request is finished
    notes = found.notes = RequestNotes(
        clock.monotonic(),
        route="none" if rule is None else rule.rule,
        endpoint=endpoint,
        method="" if rule is None else asked.method,
        is_turn=_is_turn(asked.method, endpoint),
    )

    async def finish() -> None:
        caller: Caller | None = found.get("caller")
        notes.key = notes.key or (caller.payer if caller is not None else "")
        counted.finish(notes, clock.monotonic() - notes.began)

    on_request_end(finish)


def _is_turn(method: str, endpoint: str) -> bool:
    access = access_class(current_app(), endpoint)
    return (method == "POST" and access == "api") or (access == "site" and endpoint.endswith(".create_turn"))


async def _note_response(response: Response) -> Response:
    notes = current_notes()
    if notes is not None:
        notes.status = response.status_code
        notes.first = current_runtime().clock.monotonic() - notes.began
    return response


class _Snapshot(Collector):
    """What is counted elsewhere, read when it is asked for."""

    def __init__(self, runtime: Runtime, requests: Callable[[], Iterable[Metric]]) -> None:
        self._runtime = runtime
        self._requests = requests

    def describe(self) -> Sequence[Metric]:
        """Give nothing: without this the registry would collect once at the start to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        yield from self._requests()
        runtime = self._runtime
        calls = CounterMetricFamily(
            "chat2api_upstream_calls", "Calls to the backend by kind and outcome.", labels=("kind", "outcome")
        )
        for (kind, outcome), count in list(runtime.transport.calls.items()):
            calls.add_metric((kind, outcome), count)
        yield calls
        yield from self._attempts()
        yield from self._exits()
        yield from self._accounts()
        yield from self._api_keys()
        yield CounterMetricFamily(
            "chat2api_guesses_refused",
            "Keys and passwords that were not compared, since their address had sent too many wrong ones.",
            value=runtime.guesses.refused,
        )
        yield from self._refreshes()
        yield GaugeMetricFamily("chat2api_open_answers", "Answers on their way.", value=len(runtime.answers))
        yield from self._drift()

    def _attempts(self) -> Iterator[Metric]:
        sources = self._runtime.sources
        budgets = [source.budget for source in (sources.pool, sources.visitors, sources.demo) if source is not None]
        budgets.append(self._runtime.openai.budget)
        yield CounterMetricFamily(
            "chat2api_retries", "Attempts after a request's first.", value=sum(budget.made for budget in budgets)
        )
        yield CounterMetricFamily(
            "chat2api_retries_refused",
            "Attempts that the retry budget did not allow.",
            value=sum(budget.refused for budget in budgets),
        )

    def _exits(self) -> Iterator[Metric]:
        states = self._runtime.sources.pool.exits.states()
        count = Tally({"closed": 0, "open": 0, "half_open": 0})
        count.update(one.state for one in states)
        family = GaugeMetricFamily(
            "chat2api_exits", "Exits by the state of their breakers, each once for every host.", labels=("state",)
        )
        for state, number in count.items():
            family.add_metric((state,), number)
        yield family
        rests = GaugeMetricFamily(
            "chat2api_exit_rest_seconds",
            "For how long an exit (its place in PROXY_URL, or direct) is not used for some host; 0 when it is for all.",
            labels=("exit",),
        )
        longest: dict[str, float] = {}
        for one in states:
            longest[one.name] = max(one.seconds, longest.get(one.name, 0.0))
        for name, seconds in longest.items():
            rests.add_metric((name,), seconds)
        yield rests

    def _accounts(self) -> Iterator[Metric]:
        statistics = self._runtime.pool.statistics()
        states = Tally({"ok": 0, "cooling": 0, "suspect": 0, "in_doubt": 0, "needs_sign_in": 0, "disabled": 0})
        states.update(statistics.by_state)
        family = GaugeMetricFamily("chat2api_accounts", "The pool's accounts by state.", labels=("state",))
        for state, count in states.items():
            family.add_metric((state,), count)
        yield family
        yield GaugeMetricFamily("chat2api_accounts_in_flight", "Requests on accounts now.", value=statistics.in_flight)

    def _api_keys(self) -> Iterator[Metric]:
        provider = self._runtime.openai
        family = GaugeMetricFamily("chat2api_api_keys", "The operator's API keys by state.", labels=("state",))
        for state, count in count_keys(provider).items():
            family.add_metric((state,), count)
        yield family
        in_flight = provider.pool.statistics().in_flight
        yield GaugeMetricFamily("chat2api_api_keys_in_flight", "Requests on API keys now.", value=in_flight)

    def _refreshes(self) -> Iterator[Metric]:
        keeper = self._runtime.keeper
        yield CounterMetricFamily(
            "chat2api_refresh_in_doubt", "Refreshes whose outcome is not known.", value=keeper.in_doubt_total
        )
        yield CounterMetricFamily(
            "chat2api_refresh_reused", "Refresh tokens that were used before: alarm at 1.", value=keeper.reused_total
        )
        window = GaugeMetricFamily(
            "chat2api_refresh_window_seconds",
            "From a renewed token's arrival until it is on disk, of the last hundred.",
            labels=("quantile",),
        )
        took = sorted(keeper.commit_seconds)
        for quantile in (0.5, 0.99, 1.0) if took else ():
            window.add_metric((str(quantile),), took[min(len(took) - 1, int(quantile * len(took)))])
        yield window

    def _drift(self) -> Iterator[Metric]:
        drift = self._runtime.drift
        yield CounterMetricFamily(
            "chat2api_backend_answers", "Answers of the backend that were read.", value=drift.answers
        )
        shapes = CounterMetricFamily(
            "chat2api_unknown_shapes", "Answers with a shape that is not understood.", labels=("shape",)
        )
        for shape, count in list(drift.shapes.items()):
            shapes.add_metric((shape,), count)
        yield shapes
        yield GaugeMetricFamily(
            "chat2api_drift", "1 while too many answers are not understood.", value=bool(self._runtime.drifted)
        )
