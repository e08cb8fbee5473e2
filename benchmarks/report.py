"""Figures, the goals that they are held to, and the table that shows both."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from chat2api import __version__

_PACKAGES = ("quart", "hypercorn", "curl_cffi", "orjson")


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure, from below or from above; `of` says on what: the figure itself or its ratio to the baseline."""

    bound: float
    above: bool
    of_ratio: bool
    unit: str = ""

    def holds(self, figure: "Figure") -> bool:
        """Say whether the figure keeps to it; without the ratio that it is about, it does not."""
        value = figure.ratio if self.of_ratio else figure.ours
        if value is None:
            return False
        return value >= self.bound if self.above else value <= self.bound

    def __str__(self) -> str:
        """Give it as the table shows it."""
        unit = "x" if self.of_ratio else f" {self.unit}".rstrip()
        return f"{'≥' if self.above else '≤'} {_number(self.bound)}{unit}"


def ratio_at_least(bound: float) -> Goal:
    """Ask that ours is at least so many times the baseline's."""
    return Goal(bound, above=True, of_ratio=True)


def ratio_at_most(bound: float) -> Goal:
    """Ask that ours is at most so many times the baseline's."""
    return Goal(bound, above=False, of_ratio=True)


def at_most(bound: float, unit: str) -> Goal:
    """Ask that ours is at most so much."""
    return Goal(bound, above=False, of_ratio=False, unit=unit)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `baseline` is None where the plain server was not measured, `goal` where none is set."""

    benchmark: str
    name: str
    unit: str
    ours: float
    baseline: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the baseline's."""
        return self.ours / self.baseline if self.baseline else None

    @property
    def passed(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else self.goal.holds(self)

    def to_json(self) -> dict[str, Any]:
        """Give it for a file, verdict included."""
        goal = None if self.goal is None else str(self.goal)
        return {**asdict(self), "goal": goal, "ratio": self.ratio, "passed": self.passed}


def table(figures: Iterable[Figure]) -> str:
    """Give the figures as a Markdown table."""
    rows = [("benchmark", "figure", "chat2api", "plain server", "ratio", "goal", "verdict")]
    for figure in figures:
        rows.append(
            (
                figure.benchmark,
                figure.name,
                f"{_number(figure.ours)} {figure.unit}".rstrip(),
                "-" if figure.baseline is None else f"{_number(figure.baseline)} {figure.unit}".rstrip(),
                "-" if figure.ratio is None else f"{figure.ratio:.2f}x",
                "-" if figure.goal is None else str(figure.goal),
                {None: "-", True: "pass", False: "**FAIL**"}[figure.passed],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    head, *body = (_row(row, widths) for row in rows)
    return "\n".join((head, _row(["-" * width for width in widths], widths), *body))


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _number(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def describe_machine() -> dict[str, str]:
    """Name what the figures depend on: processor, cores, memory, system and versions."""
    information = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", information, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    vectors = next((name for name in ("avx512f", "avx2") if re.search(rf"\b{name}\b", information)), "neither")
    return {
        "processor": model[1] if model else platform.machine(),
        "vectors": vectors.upper() if vectors != "neither" else "no AVX2, no AVX-512",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1048576:.0f} GiB" if memory else "unknown",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "chat2api": __version__,
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def machine_lines(machine: dict[str, str]) -> str:
    """Give the machine's description as Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in machine.items())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
