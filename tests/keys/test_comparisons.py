"""S11: no secret is compared but by the one helper, whose time tells nothing."""

import ast
import gc
import hashlib
import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from chat2api.keys.digests import find_digest

PACKAGE = Path(__file__).parents[2] / "chat2api"
SECRET = re.compile(
    r"(?:^|_)(?:secrets?|tokens?|passwords?|passphrase|bearer|cookies?|digests?|proof|pepper|csrf|credentials?|renewable"
    r"|(?:operator|api|auth|issued|secret)_keys?)$"
)
"""Names of what may be a secret, or its digest."""

_QUERY = "a condition of a query: the store looks for a keyed digest, which nobody can steer"
_OWN = "the account's own tokens before and after a renewal, no guess of anybody's"
_WORK = "the proof of work's digest, which is shown to the backend"

_TWICE = "both were typed by the same person, just now"
HARMLESS: dict[tuple[str, str], str] = {
    ("api/users_page.py", "form.get('repeated', '') != password"): _TWICE,
    ("commands.py", "getpass.getpass('The same again: ') != secret"): _TWICE,
    ("keys/guesses.py", "digest in entry.guesses"): "what an address itself tried before",
    ("keys/guesses.py", "(address, digest) in self._known"): "a look-up by a randomised hash of the whole digest",
    (
        "keys/issue.py",
        "_checksum(bearer[:-_CHECKSUM_LENGTH]) == bearer[-_CHECKSUM_LENGTH:]",
    ): "a checksum that everybody can compute: it tells a slip of the pen from a key",
    ("keys/issue.py", "key.digest != digest"): "which of the key's two digests was found: both are keyed",
    ("logs.py", "secret in text"): "redaction: the text is the log's own",
    ("protocol/chatgpt/proof_of_work.py", "digest.digest()[:size] <= limit"): _WORK,
    (
        "protocol/chatgpt/proof_of_work.py",
        "_digest(self.algorithm, self.seed.encode() + text)[:len(self.difficulty)] <= self.difficulty",
    ): _WORK,
    ("protocol/openai/limits.py", "tokens > self._left"): "tokens of text, counted",
    ("storage/sql_invitations.py", "invitations.c.digest == digest"): _QUERY,
    ("storage/sql_restore.py", "token_digests.c.digest == digest"): _QUERY,
    ("storage/sql_sign_ins.py", "sign_ins.c.digest == digest"): _QUERY,
    ("storage/sql_tables.py", "fresh.renewable != old"): _OWN,
    ("storage/sql_tables.py", "self.tokens.digest(old) != intent.token_digest"): _OWN,
    ("storage/sql_tables.py", "renewable != held.renewable"): _OWN,
    ("storage/sql_tokens.py", "token_digests.c.digest == sa.bindparam('digest')"): _QUERY,
    ("storage/sql_tokens.py", "token_digests.c.digest == sa.bindparam('seen')"): _QUERY,
    ("storage/sql_tokens.py", "token_digests.c.digest == self.digest(token)"): _QUERY,
    (
        "upstream/headers.py",
        "cookie != known.cookies",
    ): "whether cookies were added to those that came with the call itself",
}
"""Comparisons of what is no secret although its name sounds so, each with its reason."""


def secret_names(node: ast.expr) -> Iterator[str]:
    """Give the names in an expression that may stand for a secret's value; what is made of it by a call need not be one."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            if SECRET.search(name):
                yield name
        case ast.Call(func=func):
            yield from secret_names(func)
        case ast.Subscript(value=value):
            yield from secret_names(value)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                yield from secret_names(part)
        case ast.BinOp(left=left, right=right):
            yield from secret_names(left)
            yield from secret_names(right)


def is_written_here(node: ast.expr) -> bool:
    """Whether an operand is a constant of the source, which is no secret."""
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Tuple | ast.List | ast.Set) and all(map(is_written_here, node.elts))
    )


def comparisons(source: str) -> list[str]:
    """Give the comparisons by value in a module that may touch a secret."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(operator, ast.Is | ast.IsNot) or is_written_here(left) or is_written_here(right):
                continue
            looked_up = isinstance(operator, ast.In | ast.NotIn)
            if any(secret_names(left)) or (not looked_up and any(secret_names(right))):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "bearer == key", "key != self.token", "password in known", "given.digest not in digests", "a < secret_digest(b)",
        "operator_key == x", "[one for one in all if one == cookie]", "tokens[0] == other", "(name, secret) == found",
    ],
)  # fmt: skip
def test_S11_the_check_finds(source: str) -> None:
    assert len(comparisons(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["token is None", "bearer == ''", "kind in ('a', 'b')", "max_tokens_left == 3", "len(token) > least", "a == b"],
)
def test_S11_the_check_leaves_alone(source: str) -> None:
    assert comparisons(source) == []


def test_S11_no_comparison_touches_a_secret() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), comparison)
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "simulator"  # it plays the backend, with invented tokens
        for comparison in comparisons(path.read_text(encoding="utf-8"))
    }
    assert found - HARMLESS.keys() == set()
    assert HARMLESS.keys() - found == set(), "an excuse for what is not there any more"


# Time


CALLS = 100_000
RIGHT = hashlib.sha256(b"the right one").digest()
OTHERS = (hashlib.sha256(b"another").digest(), RIGHT, hashlib.sha256(b"a third").digest())
FIRST_WRONG = bytes([RIGHT[0] ^ 1]) + RIGHT[1:]
LAST_WRONG = RIGHT[:-1] + bytes([RIGHT[-1] ^ 1])


def leaky_find(presented: bytes, candidates: Sequence[bytes]) -> int | None:
    """Compare byte by byte up to the first difference, as nobody should."""
    for index, candidate in enumerate(candidates):
        for left, right in zip(presented, candidate, strict=True):
            if left != right:
                break
        else:
            return index
    return None


def timing_score(find: Callable[[bytes, Sequence[bytes]], int | None], calls: int) -> float:
    """Give Welch's t of the times for a guess that is wrong in its first byte and for one that is in its last.

    Both come in random order, and the slowest tenth of all is left out: those were interrupted.
    """
    order = random.Random(11).choices((0, 1), k=2 * calls)
    # Where an object happens to lie changes its time by more than is looked for here, so there are many of each.
    pairs = [(bytes(bytearray(FIRST_WRONG)), bytes(bytearray(LAST_WRONG))) for _ in range(512)]
    times: tuple[list[int], list[int]] = ([], [])
    clock = time.perf_counter_ns
    gc.disable()
    try:
        for number, which in enumerate(order):
            guess = pairs[number & 511][which]
            begun = clock()
            find(guess, OTHERS)
            times[which].append(clock() - begun)
    finally:
        gc.enable()
    limit = sorted(times[0] + times[1])[int(0.9 * 2 * calls)]
    early, late = ([each for each in part if each <= limit] for part in times)
    spread = statistics.variance(early) / len(early) + statistics.variance(late) / len(late)
    return (statistics.fmean(late) - statistics.fmean(early)) / math.sqrt(spread)


@pytest.mark.alone
def test_S11_a_comparison_that_tells_where_a_guess_is_wrong_would_be_seen() -> None:
    assert timing_score(leaky_find, 2000) > 4.5


@pytest.mark.nightly
def test_S11_the_time_of_a_comparison_tells_nothing() -> None:
    scores = []
    for _ in range(3):  # what leaks does so every time; what else the machine does, does not
        scores.append(timing_score(find_digest, CALLS))
        if abs(scores[-1]) < 4.5:
            return
    pytest.fail(f"t was {scores}")
