"""Forwarding to an API against a minimal relay on the same simulator: CPU, rate, and what is added to the first byte."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.lab import PRODUCTS, Lab, Product, Round, Sum
from benchmarks.load import Plan
from benchmarks.processes import HOST, BenchmarkError, Running, fetch, free_port, loading, running
from benchmarks.report import Figure, ratio_at_least, ratio_at_most
from chat2api.simulator.openai_api import make_key

MODEL = "gpt-4.1"
KEY = "benchmark-operator-key-0123456789"


class Forwarding:
    """A simulated API with both servers in front of it."""

    def __init__(self, lab: Lab, api: int, servers: dict[Product, Running]) -> None:
        """Measure these."""
        self._lab = lab
        self._api = api
        self._servers = servers

    def choose(self, **options: Any) -> None:
        """Replace options of the simulated API."""
        fetch(f"http://{HOST}:{self._api}/__control__/options", options)

    def load(self, product: Product | None, **fields: Any) -> Round:
        """Lay one load on a server, or on the simulated API itself. Raises BenchmarkError when an answer is not right."""
        server = self._servers[product or "chat2api"]
        port, key = (server.port, KEY) if product is not None else (self._api, make_key("simulator", 0))
        plan = Plan(port=port, key=key, model=MODEL, **fields)
        with loading(plan, self._lab.other_core) as process:
            before = server.cpu_seconds()
            done = Round(process.result(), server.cpu_seconds() - before)
        if done.result.failed:
            raise BenchmarkError(f"{product}: answers failed, so the rest says nothing: {done.result.failed}")
        return done

    def compare(self, rounds: int, **fields: Any) -> dict[Product, Sum]:
        """Lay one load on both servers in turn."""
        gathered: dict[Product, list[Round]] = {product: [] for product in PRODUCTS}
        for product in PRODUCTS:
            self.load(product, **{**fields, "answers": fields["at_once"]})
        for _ in range(rounds):
            for product in PRODUCTS:
                gathered[product].append(self.load(product, **fields))
        return {product: Sum(tuple(parts)) for product, parts in gathered.items()}


@contextlib.contextmanager
def open_forwarding(lab: Lab) -> Iterator[Forwarding]:
    """Start the simulated API and both servers."""
    api, key = free_port(), make_key("simulator", 0)
    base = f"http://{HOST}:{api}/v1"
    simulate = [
        sys.executable,
        "-m",
        "chat2api",
        "simulate",
        "--openai",
        "--port",
        str(api),
        "--delay",
        "0",
        "--no-record",
    ]
    ours, plain = free_port(), free_port()
    serve = [sys.executable, "-m", "chat2api", "serve"]
    environment = {
        "HOST": HOST,
        "PORT": str(ours),
        "DATA_DIR": str(lab.folder / "data"),
        "AUTHORIZATION": KEY,
        "OPENAI_BASE_URL": base,
        "OPENAI_API_KEYS": json.dumps([key]),
    }
    options = ["-w", "1", "-k", "asyncio", "--backlog", "4096", "-b", f"{HOST}:{plain}"]
    relay = [sys.executable, "-m", "hypercorn", *options, "benchmarks.relay_app:create_app()"]
    health = "http://" + HOST + ":{}/healthz"
    counters = f"http://{HOST}:{api}/__control__/counters"
    folder, core = lab.folder, lab.server_core
    with (
        running("api", simulate, port=api, folder=folder, cores=lab.other_core, environment={}, health=counters),
        running(
            "chat2api", serve, port=ours, folder=folder, cores=core, environment=environment, health=health.format(ours)
        ) as first,
        running(
            "relay",
            relay,
            port=plain,
            folder=folder,
            cores=core,
            environment={"OPENAI_BASE_URL": base, "OPENAI_API_KEY": key},
            health=health.format(plain),
        ) as second,
    ):
        yield Forwarding(lab, api, {"chat2api": first, "plain": second})


def measure_forwarding(lab: Lab) -> Iterator[Figure]:
    """Forwarding to an API, against a minimal relay: CPU for each event, answers a second, what is added to the first byte."""
    rounds = 1 if lab.quick else 2
    with open_forwarding(lab) as both:
        both.choose(events=100, delay=0.005)
        paced = both.compare(rounds, words=100, at_once=64, answers=64 if lab.quick else 256)
        ours, plain = (paced[product].cpu_per_event * 1e6 for product in PRODUCTS)
        label = "64 streams, an event each 5 ms"
        yield Figure("forwarding", f"CPU for 1,000 events; {label}", "ms", ours, plain, ratio_at_most(1.0))
        both.choose(events=10, delay=0.0)
        short = both.compare(rounds, words=10, at_once=64, answers=500 if lab.quick else 3000)
        capacity = (1 / short["chat2api"].cpu_per_answer, 1 / short["plain"].cpu_per_answer)
        label = "64 at once, 10 events"
        yield Figure("forwarding", f"answers for a second of CPU; {label}", "/s", *capacity, ratio_at_least(1.0))
        yield Figure("forwarding", f"answers a second; {label}", "/s", short["chat2api"].rate, short["plain"].rate)
        one = {"words": 10, "at_once": 1, "answers": 100 if lab.quick else 500}
        direct = both.load(None, **one).result.first_content.p50
        single = both.compare(rounds, **one)
        added = [(single[product].first_content - direct) * 1e3 for product in PRODUCTS]
        yield Figure(
            "forwarding", "added to the first byte, one at a time", "ms", added[0], added[1], ratio_at_most(1.0)
        )
