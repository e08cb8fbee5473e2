"""The proof of work that the web page does before a turn: search, check, and the token that carries the answer.

Theory of operation
-------------------
The backend gives a seed and a difficulty of n hex digits. The page describes itself in a JSON array (the config array,
`sentinel.py`), counts a nonce i up in item 3 and, in the older form, writes i >> 1 into item 9, until

    hex(hash(seed || base64(json)))[:n] <= difficulty

and sends the base64 text back. A nonce succeeds with the chance (difficulty + 1) / 16^n; the usual hard challenge
00003a takes 284,360 tries on average. The searches that public clients do stop at 500,000 and so miss every fifth of
those; a new array (another time, another id) starts over with fresh luck, so a miss here means "try another array" and
never "failed".

Two hashes are in use. The single-stage exchange takes SHA3-512 and both numbers; the two-stage exchange takes 32-bit
FNV-1a with a murmur finaliser, leaves item 9 alone and marks its texts with a trailing `~S`. (As read
from clients of 2024 to 2026.)

Serialising the array for each nonce would cost more than hashing it: it is serialised once, in slices between the
numbers (`Template`), which gives the same bytes. `search` then runs in `_pow.c`, several nonces at once with the
interpreter's lock released, or where that is not built, in the loops below. Both give the same, first nonce.
"""

import base64
import ctypes
import hashlib
import re
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import orjson

from chat2api.errors import UpstreamProtocolError

try:
    from chat2api.protocol.chatgpt import _pow
except ImportError:  # no compiler when this was installed
    _pow = None  # type: ignore[assignment]  # the stub cannot say that the module may be absent

JSONScalar = str | int | float | None

CancelFlag = bytearray | ctypes.Array[ctypes.c_ubyte]
"""One byte that another thread, or process where it lies in shared memory, sets to 1 to stop a search."""

MISS_LIMIT = 500_000
"""Nonces worth trying on one config array; nobody knows whether the backend takes larger ones."""

REQUIREMENTS_DIFFICULTY = "0fffff"
"""What the page asks of itself for the requirements token, whose hash the backend cannot check."""

PYTHON = "python"
"""Name of the search that needs no compiler, beside the names of the native variants."""

_PROOF_PREFIX = "gAAAAAB"
_REQUIREMENTS_PREFIX = "gAAAAAC"
_NONCE_INDEX = 3
_ELAPSED_INDEX = 9
_MAX_SEED = 1024
_HEX = re.compile(r"[0-9a-f]+")

# Between two looks at the cancel flag: 2 to 5 ms of work in Python.
_SHA3_NONCES_PER_LOOK = 512
_FNV_NONCES_PER_LOOK = 64

_FNV_OFFSET = 2166136261
_FNV_PRIME = 16777619


class Algorithm(Enum):
    """The two forms of the proof. The value is the name that the native search knows."""

    SHA3_512 = "sha3-512"
    FNV1A_32 = "fnv1a-32"

    @property
    def digest_digits(self) -> int:
        """How many hex digits the hash has."""
        return 128 if self is Algorithm.SHA3_512 else 8

    @property
    def suffix(self) -> str:
        """What stands behind the base64 text in a token; it is not hashed."""
        return "" if self is Algorithm.SHA3_512 else "~S"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the backend asks for: a seed, taken as opaque text, and a difficulty in hex, kept in lower case."""

    algorithm: Algorithm
    seed: str
    difficulty: str

    def __post_init__(self) -> None:
        """Raise UpstreamProtocolError where no search can be made of the two texts."""
        difficulty = self.difficulty.lower()
        digits = self.algorithm.digest_digits
        if not _HEX.fullmatch(difficulty):
            raise UpstreamProtocolError("The proof of work's difficulty is empty or not hexadecimal.")
        if len(difficulty) > digits:
            raise UpstreamProtocolError(
                f"The proof of work's difficulty has {len(difficulty)} digits, but the hash only {digits}."
            )
        if not self.seed or len(self.seed) > _MAX_SEED or not self.seed.isascii():
            raise UpstreamProtocolError("The proof of work's seed is empty, too long or not ASCII.")
        object.__setattr__(self, "difficulty", difficulty)

    @property
    def expected_tries(self) -> float:
        """How many nonces a search hashes on average."""
        return float(16 ** len(self.difficulty) / (int(self.difficulty, 16) + 1))

    def accepts(self, text: bytes) -> bool:
        """Say whether this base64 text answers the challenge."""
        return _digest(self.algorithm, self.seed.encode() + text)[: len(self.difficulty)] <= self.difficulty


@dataclass(frozen=True, slots=True)
class Template:
    """A config array in JSON, cut where the numbers go: head, nonce, [middle, half the nonce,] tail.

    `middle` is None where the second number is no part of the search.
    """

    head: bytes
    middle: bytes | None
    tail: bytes

    @classmethod
    def of(cls, config: Sequence[JSONScalar], algorithm: Algorithm) -> "Template":
        """Serialise the array as the page does: no spaces, characters outside ASCII left as they are.

        What stands at the places of the numbers is ignored; ValueError when the array is too short to have them.
        """
        if len(config) <= _ELAPSED_INDEX + 1:
            raise ValueError(f"a config array has more than {_ELAPSED_INDEX + 1} items")
        head = _items(config[:_NONCE_INDEX])
        if algorithm is Algorithm.FNV1A_32:
            return cls(b"[%b," % head, None, b",%b]" % _items(config[_NONCE_INDEX + 1 :]))
        middle = _items(config[_NONCE_INDEX + 1 : _ELAPSED_INDEX])
        return cls(b"[%b," % head, b",%b," % middle, b",%b]" % _items(config[_ELAPSED_INDEX + 1 :]))

    def text(self, nonce: int) -> bytes:
        """Give the base64 text for a nonce."""
        if self.middle is None:
            return base64.b64encode(b"%b%d%b" % (self.head, nonce, self.tail))
        return base64.b64encode(b"%b%d%b%d%b" % (self.head, nonce, self.middle, nonce >> 1, self.tail))


def variants() -> tuple[str, ...]:
    """Name the ways in which this machine can search, fastest first; the last is always PYTHON."""
    return (PYTHON,) if _pow is None else (*_pow.variants(), PYTHON)


def describe() -> str:
    """Say for people which search this machine uses."""
    fastest = variants()[0]
    return "Python (no native search was built)" if fastest == PYTHON else f"native ({fastest})"


def search(
    challenge: Challenge,
    template: Template,
    *,
    start: int = 0,
    stop: int = MISS_LIMIT,
    cancel: CancelFlag | None = None,
    variant: str | None = None,
) -> int | None:
    """Give the first nonce in [start, stop) that answers the challenge, None when there is none.

    Another thread may set `cancel[0]` to 1: the search then ends within 10 ms of work and gives None. `variant` is one
    of `variants()`, None the fastest; they differ in speed only. Raises ValueError for a variant that is not there.
    """
    if cancel is None:
        cancel = bytearray(1)
    if variant == PYTHON or (variant is None and _pow is None):
        if challenge.algorithm is Algorithm.SHA3_512:
            return _search_sha3(challenge, template, start, stop, cancel)
        return _search_fnv(challenge, template, start, stop, cancel)
    if _pow is None:
        raise ValueError(f"the native search is not built, so there is no variant {variant}")
    return _search_native(challenge, template, start, stop, cancel, variant)


def proof_token(challenge: Challenge, template: Template, nonce: int) -> str:
    """Give the token that carries the found nonce to the backend."""
    return _PROOF_PREFIX + template.text(nonce).decode("ascii") + challenge.algorithm.suffix


def requirements_token(algorithm: Algorithm, template: Template, nonce: int) -> str:
    """Give the token `p` that opens the requirements exchange."""
    return _REQUIREMENTS_PREFIX + template.text(nonce).decode("ascii") + algorithm.suffix


def is_harder(difficulty: str, limit: str) -> bool:
    """Say whether a difficulty is strictly harder than another.

    Difficulties are the leading digits of a fraction, and a shorter one accepts every continuation: 00003a accepts
    what 00003aff accepts. So the shorter is filled up with f, and of two equally long texts the smaller is harder.
    """
    width = max(len(difficulty), len(limit))
    return difficulty.lower().ljust(width, "f") < limit.lower().ljust(width, "f")


def fnv1a(data: bytes) -> int:
    """Give the 32-bit FNV-1a hash of the bytes with murmur's finaliser, as the page's script computes it."""
    return _finalise(_fnv_continue(_FNV_OFFSET, data))


def _items(values: Sequence[JSONScalar]) -> bytes:
    """Serialise the items of an array without its brackets."""
    return orjson.dumps(values)[1:-1]


def _digest(algorithm: Algorithm, data: bytes) -> str:
    return hashlib.sha3_512(data).hexdigest() if algorithm is Algorithm.SHA3_512 else f"{fnv1a(data):08x}"


def _search_native(
    challenge: Challenge, template: Template, start: int, stop: int, cancel: CancelFlag, variant: str | None
) -> int | None:
    """Search in `_pow.c`, which compares 64 bits at most: longer difficulties are checked here once more."""
    digits = min(challenge.algorithm.digest_digits, 16)
    limit = int(challenge.difficulty[:digits].ljust(digits, "f"), 16)
    name: Literal["sha3-512", "fnv1a-32"] = challenge.algorithm.value
    seed = challenge.seed.encode()
    while True:
        nonce = _pow.search(
            name, seed, template.head, template.middle, template.tail, start, stop, limit, cancel, variant
        )
        if nonce is None or len(challenge.difficulty) <= digits or challenge.accepts(template.text(nonce)):
            return nonce
        start = nonce + 1


def _search_sha3(challenge: Challenge, template: Template, start: int, stop: int, cancel: CancelFlag) -> int | None:
    """Search in Python. The prefix that no nonce changes is hashed once, which hashlib's copy() makes possible."""
    whole = len(template.head) // 3 * 3
    prefix = hashlib.sha3_512(challenge.seed.encode() + b2a_base64(template.head[:whole], newline=False))
    head, middle, tail = template.head[whole:], template.middle, template.tail
    limit = bytes.fromhex(challenge.difficulty + "f" * (len(challenge.difficulty) % 2))
    size = len(limit)
    for first in range(start, stop, _SHA3_NONCES_PER_LOOK):
        if cancel[0]:
            return None
        for nonce in range(first, min(first + _SHA3_NONCES_PER_LOOK, stop)):
            digest = prefix.copy()
            if middle is None:
                digest.update(b2a_base64(b"%b%d%b" % (head, nonce, tail), newline=False))
            else:
                digest.update(b2a_base64(b"%b%d%b%d%b" % (head, nonce, middle, nonce >> 1, tail), newline=False))
            if digest.digest()[:size] <= limit:
                return nonce
    return None


def _search_fnv(challenge: Challenge, template: Template, start: int, stop: int, cancel: CancelFlag) -> int | None:
    """Search in Python; some 20,000 nonces a second, since each byte is a step of the interpreter."""
    constant = len(template.head) // 3 * 4
    prefix = _fnv_continue(_FNV_OFFSET, challenge.seed.encode() + template.text(0)[:constant])
    limit = int(challenge.difficulty.ljust(8, "f"), 16)
    for first in range(start, stop, _FNV_NONCES_PER_LOOK):
        if cancel[0]:
            return None
        for nonce in range(first, min(first + _FNV_NONCES_PER_LOOK, stop)):
            if _finalise(_fnv_continue(prefix, template.text(nonce)[constant:])) <= limit:
                return nonce
    return None


def _fnv_continue(state: int, data: bytes) -> int:
    for code in data:
        state = ((state ^ code) * _FNV_PRIME) & 0xFFFFFFFF
    return state


def _finalise(state: int) -> int:
    state = ((state ^ state >> 16) * 2246822507) & 0xFFFFFFFF
    state = ((state ^ state >> 13) * 3266489909) & 0xFFFFFFFF
    return state ^ state >> 16
