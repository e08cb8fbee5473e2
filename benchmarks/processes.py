"""Starts the processes that are measured, reads what they cost from /proc, and ends them.

Everything listens on 127.0.0.1, on ports that the system picks. A process belongs to a `with` block and is gone behind
it, its children too. CPU is user and system time of the whole tree, in ticks of 10 ms; memory is resident memory of
the whole tree. Linux only, for /proc.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.load import LoadResult, Plan, Spread

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_START_LIMIT = 30.0
_END_LIMIT = 10.0
HOST = "127.0.0.1"


class BenchmarkError(Exception):
    """A measurement cannot be made; the text says what went wrong."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores a process may use; empty for all."""

    numbers: frozenset[int] = frozenset()


ALL_CORES = Cores()


def split_cores() -> tuple[Cores, Cores]:
    """Give the core of the measured server and the core of simulator and load; all for both on a single core."""
    numbers = sorted(os.sched_getaffinity(0))
    if len(numbers) < 2:
        return ALL_CORES, ALL_CORES
    return Cores(frozenset(numbers[:1])), Cores(frozenset(numbers[1:2]))


def free_port() -> int:
    """Give a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Running:
    """A process under measurement and its children."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        """Take over a started process."""
        self._process = process
        self.port = port
        self.log = log

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time so far, of the tree, ended children included."""
        fields = (_stat(pid) for pid in self._tree())
        return sum(sum(int(ticks) for ticks in stat[11:15]) for stat in fields if stat) / _TICK

    def resident_bytes(self) -> int:
        """Resident memory of the tree now."""
        return sum(int(stat[21]) for pid in self._tree() if (stat := _stat(pid))) * _PAGE

    def descriptors(self) -> int:
        """How many file descriptors the tree holds now."""
        count = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))
        return count

    def _tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (stat := _stat(int(name))):
                children.setdefault(int(stat[1]), []).append(int(name))
        tree = [self._process.pid]
        for pid in tree:
            tree += children.get(pid, ())
        return tree

    def tail(self) -> str:
        """The last lines that the process wrote, for a complaint."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def end(self) -> None:
        """Ask the process to end, and end it with its children when it does not within 10 s."""
        tree = self._tree()
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()


def _stat(pid: int) -> list[str]:
    """Give the fields of /proc/<pid>/stat from the third on; nothing when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


@contextlib.contextmanager
def bound_to(cores: Cores) -> Iterator[None]:
    """Let processes that are started inside inherit these cores."""
    before = os.sched_getaffinity(0)
    if cores.numbers:
        os.sched_setaffinity(0, cores.numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    folder: Path,
    cores: Cores,
    environment: Mapping[str, str],
    health: str,
) -> Iterator[Running]:
    """Start a server, wait until its `health` URL answers, and end it behind the block.

    What it writes goes into a file of the folder. Raises BenchmarkError when it ends early or does not answer in 30 s.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as output, bound_to(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**plain_environment(), **environment},
            cwd=Path(__file__).parents[1],
        )
    server = Running(process, port, log)
    try:
        _wait_until_healthy(name, server, health)
        yield server
    finally:
        server.end()


def plain_environment() -> dict[str, str]:
    """Give our environment without what could change a server's settings or send its requests elsewhere."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _wait_until_healthy(name: str, server: Running, health: str) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline:
        if not server.alive:
            raise BenchmarkError(f"{name} ended while starting:\n{server.tail()}")
        try:
            fetch(health)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BenchmarkError(f"{name} did not answer within {_START_LIMIT:g} s:\n{server.tail()}")


def fetch(url: str, body: Any = None) -> bytes:
    """Make one plain HTTP call on this machine, a POST with a JSON body if one is given. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=10.0) as answer:
        content: bytes = answer.read()
    return content


class LoadProcess:
    """A load generator at work."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take over a started process."""
        self._process = process

    def wait_open(self) -> int:
        """Wait until the load holds its streams open and give their number."""
        line = self._read()
        if line.get("state") != "open":
            raise BenchmarkError(f"the load ended early: {line}")
        return int(line["open"])

    def release(self) -> None:
        """Let a load that holds go on."""
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write("go on\n")
        stdin.flush()

    def result(self) -> LoadResult:
        """Wait for the end and give what came of the plan."""
        fields = self._read()
        return LoadResult(**{**fields, **{name: Spread(**fields[name]) for name in ("first_content", "whole")}})

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the load generator ended with status {self._process.wait()}")
        parsed: dict[str, Any] = json.loads(line)
        return parsed


@contextlib.contextmanager
def loading(plan: Plan, cores: Cores) -> Iterator[LoadProcess]:
    """Start a load process; it ends itself by its plan's limit, and is ended behind the block in any case."""
    with bound_to(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=plain_environment(),
            cwd=Path(__file__).parents[1],
        )
    try:
        yield LoadProcess(process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
