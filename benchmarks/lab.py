"""The three servers of a measurement: the simulated backend, chat2api in front of it, and the plain server in front of it.

Each benchmark starts its own, in a folder that is removed afterwards, so that none inherits another's pools or memory.
The measured server has one core for itself and simulator and load share another, unless a benchmark wants all cores.
"""

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.load import LoadResult, Plan
from benchmarks.processes import (
    HOST,
    BenchmarkError,
    Cores,
    Running,
    fetch,
    free_port,
    loading,
    plain_environment,
    running,
    split_cores,
)

Product = Literal["chat2api", "plain"]
PRODUCTS: tuple[Product, ...] = ("chat2api", "plain")


@dataclass(frozen=True, slots=True)
class Backend:
    """A running simulator: its URL for the servers, tokens of its accounts, and its authority if it has TLS."""

    port: int
    url: str
    tokens: tuple[str, ...]
    authority: Path | None

    def choose(self, **options: Any) -> None:
        """Replace some of the simulator's options for all calls from now on."""
        _control(self.port, "options", options)

    def bytes_written(self) -> int:
        """How many body bytes the simulator has handed to its connections."""
        return int(_control(self.port, "counters")["bytes_written"])


def _control(port: int, path: str, body: Any = None) -> Any:
    """Make a call to a simulator's control interface and give the JSON that it answers."""
    return json.loads(fetch(f"http://{HOST}:{port}/__control__/{path}", body))


@dataclass(frozen=True, slots=True)
class Round:
    """One load on one server: what came of it and the CPU seconds that the server's processes spent."""

    result: LoadResult
    cpu: float


@dataclass(frozen=True, slots=True)
class Sum:
    """Several rounds of one server taken together."""

    rounds: tuple[Round, ...]

    @property
    def cpu_per_event(self) -> float:
        """CPU seconds for each word of the answers."""
        return sum(part.cpu for part in self.rounds) / max(1, sum(part.result.words for part in self.rounds))

    @property
    def cpu_per_answer(self) -> float:
        """CPU seconds for each answer."""
        return sum(part.cpu for part in self.rounds) / max(1, sum(part.result.good for part in self.rounds))

    @property
    def rate(self) -> float:
        """Whole answers a second."""
        return sum(part.result.good for part in self.rounds) / sum(part.result.seconds for part in self.rounds)

    @property
    def first_content(self) -> float:
        """Median of the rounds' median time to the first content, in seconds."""
        ordered = sorted(part.result.first_content.p50 for part in self.rounds)
        return ordered[len(ordered) // 2]


class Lab:
    """Starts servers and lays loads on them."""

    def __init__(self, folder: Path, *, quick: bool = False, encoding: str = "v1") -> None:
        """Work in this folder; `quick` asks benchmarks for fewer rounds, `encoding` is the backend's way to stream."""
        self.folder = folder
        self.quick = quick
        self.encoding = encoding
        self.server_core, self.other_core = split_cores()
        self._key = secrets.token_hex(32)

    @contextlib.contextmanager
    def backend(self, *, tls: bool = False, accounts: int = 4, **options: Any) -> Iterator[Backend]:
        """Run a simulator with these of its options (SimulatorOptions); with `tls` the servers reach it over HTTP/2."""
        port = free_port()
        authority = self.folder / "authority.pem" if tls else None
        command = [sys.executable, "-m", "chat2api", "simulate", "--port", str(port), "--accounts", str(accounts)]
        command += ["--delay", "0", "--encoding", self.encoding, "--no-record"]
        if authority is not None:
            command += ["--tls", "--ca-file", str(authority)]
        control = f"http://{HOST}:{port}/__control__"
        with running(
            "simulator",
            command,
            port=port,
            folder=self.folder,
            cores=self.other_core,
            environment={},
            health=f"{control}/counters",
        ):
            tokens = tuple(account["access_token"] for account in _control(port, "state")["accounts"])
            url = f"http://{HOST}:{port}" if authority is None else f"https://{HOST}:{port + 1}"
            backend = Backend(port, url, tokens, authority)
            backend.choose(**options)
            yield backend

    @contextlib.contextmanager
    def server(self, product: Product, backend: Backend, cores: Cores | None = None) -> Iterator[Running]:
        """Run a server in front of the simulator; `cores` None gives it the measured server's own."""
        port = free_port()
        start = self._chat2api if product == "chat2api" else self._plain
        command, environment = start(port, backend)
        with running(
            product,
            command,
            port=port,
            folder=self.folder,
            cores=self.server_core if cores is None else cores,
            environment=environment,
            health=f"http://{HOST}:{port}/healthz",
        ) as server:
            yield server

    def _chat2api(self, port: int, backend: Backend) -> tuple[list[str], dict[str, str]]:
        data = self.folder / f"data-{port}"
        environment = {
            "HOST": HOST,
            "PORT": str(port),
            "DATA_DIR": str(data),
            "AUTHORIZATION": self._key,
            "CHATGPT_BASE_URL": backend.url,
            "ACCOUNT_CONCURRENCY": "1000",  # a few accounts stand for many
        }
        if backend.authority is not None:
            environment["UPSTREAM_CA_FILE"] = str(backend.authority)
        added = subprocess.run(
            [sys.executable, "-m", "chat2api", "tokens", "add", "-"],
            input="\n".join(backend.tokens),
            text=True,
            capture_output=True,
            env={**plain_environment(), **environment},
            cwd=Path(__file__).parents[1],
            timeout=60.0,
        )
        if added.returncode:
            raise BenchmarkError(f"the accounts could not be added:\n{added.stderr}")
        return [sys.executable, "-m", "chat2api", "serve"], environment

    def _plain(self, port: int, backend: Backend) -> tuple[list[str], dict[str, str]]:
        environment = {"CHATGPT_BASE_URL": backend.url, "BASELINE_TOKEN": backend.tokens[0]}
        if backend.authority is not None:
            environment["REQUESTS_CA_BUNDLE"] = str(backend.authority)
        module = "benchmarks.baseline_app:create_app()"
        options = ["-w", "1", "-k", "asyncio", "--backlog", "4096", "-b", f"{HOST}:{port}"]
        return [sys.executable, "-m", "hypercorn", *options, module], environment

    def plan(self, server: Running, **fields: Any) -> Plan:
        """Make a plan for a server started here."""
        return Plan(port=server.port, key=self._key, **fields)

    def load(self, plan: Plan, server: Running, cores: Cores | None = None) -> Round:
        """Lay one load on a server."""
        with loading(plan, self.other_core if cores is None else cores) as process:
            before = server.cpu_seconds()
            result = process.result()
            return Round(result, server.cpu_seconds() - before)

    def load_directly(self, backend: Backend, *, words: int, answers: int) -> LoadResult:
        """Ask the simulator itself, one question at a time."""
        plan = Plan(port=backend.port, key=backend.tokens[0], kind="backend", words=words, answers=answers)
        with loading(plan, self.other_core) as process:
            return process.result()
