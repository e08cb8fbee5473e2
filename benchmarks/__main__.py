"""The command line: `python -m benchmarks [NAME ...] [--quick] [--json FILE]`."""

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, describe_machine, machine_lines, table
from benchmarks.scenarios import SCENARIOS

EXIT_PASSED, EXIT_MISSED, EXIT_BROKEN = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """Give the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure chat2api against a plain server on this machine, and hold the figures to their goals.",
        epilog="Benchmarks: "
        + " ".join(f"{name}: {(measure.__doc__ or '').splitlines()[0]}" for name, measure in SCENARIOS.items())
        + " Exit status: 0 all goals met, 1 a goal missed, 2 a measurement could not be made.",
    )
    made.add_argument("name", nargs="*", help=f"what to measure; all by default: {', '.join(SCENARIOS)}")
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds, about a minute in all")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures into a file")
    made.add_argument(
        "--encoding", choices=("v1", "classic"), default="v1", help="how the backend streams: deltas, or whole messages"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and give the exit status."""
    made = parser()
    options = made.parse_args(arguments)
    names = options.name or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        made.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    _prepare_process()
    machine = describe_machine()
    figures: list[Figure] = []
    broken: list[str] = []
    for name in names:
        began = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="chat2api-benchmark-") as folder:
            lab = Lab(Path(folder), quick=options.quick, encoding=options.encoding)
            try:
                figures += SCENARIOS[name](lab)
            except BenchmarkError as error:
                broken.append(f"{name}: {error}")
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"{table(figures)}\n\n{machine_lines(machine)}")
    for line in broken:
        print(f"\nNot measured: {line}")
    if options.json is not None:
        content = {"machine": machine, "figures": [figure.to_json() for figure in figures], "not_measured": broken}
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if broken:
        return EXIT_BROKEN
    return EXIT_MISSED if any(figure.passed is False for figure in figures) else EXIT_PASSED


def _prepare_process() -> None:
    """Let SIGTERM end the servers too, and let them hold thousands of connections."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_BROKEN))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
