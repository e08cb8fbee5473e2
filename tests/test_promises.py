"""Which promises are shown by which tests: every promise has an id, and every id stands in the name of a test (T10).

A test that shows a promise begins with its id, or with several: `test_R10_…`, `test_S3_S4_…`. What is not built yet has
its line in LATER; whoever builds it names a test after the id and takes the line out. `python -m tests.test_promises`
prints all ids with the number of tests that carry them.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).parent

IDS = (
    *(f"F{number}" for number in range(1, 13)),
    *("M1", "M2"),
    *(f"S{number}" for number in range(1, 41)),
    *("R1", "R2", "R3", "R3a"),
    *(f"R{number}" for number in range(4, 31)),
    *(f"T{number}" for number in range(1, 11)),
    *(f"G{number}" for number in range(1, 8)),
)
"""Facts of the libraries that force the design, access, security, reliability, suites, guardrails."""

LATER = {
    "S20": "a second origin, beside a mirror",
    "S26": "sign-in by a token in the address",
    "S28": "the mirror",
    "S29": "the mirror",
    "S30": "the mirror",
    "S31": "the mirror",
    "S32": "the mirror's web socket",
    "S34": "fetching by URL",
    "S35": "fetching by URL",
    "S36": "fetching by URL",
    "R19": "shared state in Redis",
    "R20": "records in PostgreSQL",
    "T5": "a schema run over the interface's document",
}
"""Ids whose feature is not there yet."""


def carried(name: str) -> list[str]:
    """Give the ids with which a test's name begins."""
    words = name.removeprefix("test_").split("_")
    found = []
    for word in words:
        if not re.fullmatch(r"[FMSRTG]\d+a?", word):
            break
        found.append(word)
    return found


def names_by_id() -> dict[str, list[str]]:
    """Give the tests of the whole suite that carry an id, as `file::name`, by id."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _functions(ast.parse(path.read_text(encoding="utf-8"))):
            for promise in carried(name):
                found.setdefault(promise, []).append(f"{path.relative_to(TESTS)}::{name}")
    return found


def _functions(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield node.name


def problems(found: Mapping[str, list[str]]) -> list[str]:
    """Give what is wrong between the ids, the tests that carry them, and what is not built yet; one sentence each."""
    unshown = [f"{promise} has no test" for promise in IDS if promise not in found and promise not in LATER]
    built = [
        f"{promise} has a test, so its line in LATER goes: {found[promise][0]}" for promise in LATER if promise in found
    ]
    unknown = [f"{promise} is no promise: {found[promise][0]}" for promise in found if promise not in IDS]
    return unshown + built + unknown


def test_T10_every_promise_has_a_test_or_is_not_built_yet() -> None:
    assert problems(names_by_id()) == []


def test_T10_what_is_not_built_yet_is_a_promise() -> None:
    assert set(LATER) <= set(IDS)
    assert len(set(IDS)) == len(IDS)


def test_T10_ids_are_read_from_the_front_of_a_name() -> None:
    assert carried("test_S3_S4_what_is_not_there") == ["S3", "S4"]
    assert carried("test_R3a_clients") == ["R3a"]
    assert carried("test_what_R3_says") == []
    assert carried("test_T1") == ["T1"]


def test_T10_each_kind_of_mistake_is_told() -> None:
    shown = {promise: ["a.py::test"] for promise in IDS if promise not in LATER}
    assert problems(shown) == []
    assert problems({promise: tests for promise, tests in shown.items() if promise != "R7"}) == ["R7 has no test"]
    assert len(problems(shown | {"R19": ["a.py::test"]})) == 1
    assert len(problems(shown | {"R99": ["a.py::test"]})) == 1


if __name__ == "__main__":
    counted = names_by_id()
    for promise in IDS:
        sys.stdout.write(f"{promise:4} {len(counted.get(promise, [])):4}  {LATER.get(promise, '')}\n")
