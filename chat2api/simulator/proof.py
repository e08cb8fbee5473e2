"""Verifies proofs of work as the backend does.

A proof token is `gAAAAAB`, then base64 of a JSON array that describes a browser, then perhaps `~` and more, which is
not hashed. The digest of seed and base64 text, in hex, must begin with a prefix that is not above the difficulty.
"""

import base64
import binascii
import hashlib
import json
from typing import Literal

PROOF_PREFIX = "gAAAAAB"
REQUIREMENTS_PREFIX = "gAAAAAC"
_MIN_ITEMS = 13
_NONCE = 3
_USER_AGENT = 4

HashName = Literal["sha3", "fnv"]


class ProofError(Exception):
    """The proof does not hold; the text says why."""


def sha3_hex(seed: str, answer: str) -> str:
    """Give SHA3-512 of seed and answer as lower-case hex; what the single-stage form uses."""
    return hashlib.sha3_512(seed.encode() + answer.encode()).hexdigest()


def fnv_hex(text: str) -> str:
    """Give 32-bit FNV-1a of the text's UTF-16 units with a mixing end, as 8 hex digits; what two stages use."""
    value = 2_166_136_261
    units = text.encode("utf-16-le")
    for low, high in zip(units[::2], units[1::2], strict=True):
        value = ((value ^ (low | high << 8)) * 16_777_619) & 0xFFFFFFFF
    value ^= value >> 16
    value = value * 2_246_822_507 & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 3_266_489_909 & 0xFFFFFFFF
    value ^= value >> 16
    return f"{value:08x}"


def decode_config(token: str, prefix: str) -> list[object]:
    """Give the array inside a proof or requirements token. Raises ProofError."""
    if not token.startswith(prefix):
        raise ProofError(f"does not begin with {prefix}")
    answer = token[len(prefix) :].partition("~")[0]
    try:
        config = json.loads(base64.b64decode(answer, validate=True).decode())
    except (binascii.Error, ValueError) as error:  # not base64, not UTF-8 or not JSON
        raise ProofError("does not decode to JSON") from error
    if not isinstance(config, list) or len(config) < _MIN_ITEMS:
        raise ProofError(f"is not an array of {_MIN_ITEMS} or more items")
    return config


def check_proof(token: str, *, seed: str, difficulty: str, user_agent: str, hash_name: HashName) -> None:
    """Return when the proof holds for the seed and difficulty issued and for the request's own User-Agent.

    Raises ProofError with the first reason found.
    """
    config = decode_config(token, PROOF_PREFIX)
    if isinstance(config[_NONCE], bool) or not isinstance(config[_NONCE], int):
        raise ProofError("has no whole number as its nonce")
    if config[_USER_AGENT] != user_agent:
        raise ProofError("names another User-Agent than the request")
    answer = token[len(PROOF_PREFIX) :].partition("~")[0]
    digest = sha3_hex(seed, answer) if hash_name == "sha3" else fnv_hex(seed + answer)
    if digest[: len(difficulty)] > difficulty:
        raise ProofError("is not good enough for the difficulty")
