"""The proof-of-work search in machine code; absent where there was no compiler. See `proof_of_work.py`."""

import ctypes
from typing import Literal

def search(
    algorithm: Literal["sha3-512", "fnv1a-32"],
    seed: bytes,
    head: bytes,
    middle: bytes | None,
    tail: bytes,
    start: int,
    stop: int,
    limit: int,
    cancel: bytearray | ctypes.Array[ctypes.c_ubyte],
    variant: str | None = None,
    /,
) -> int | None:
    """Give the first nonce in [start, stop) whose hash is at most limit, None when there is none or cancel is set.

    `limit` bounds the leading 64 bits of SHA3-512, or all 32 bits of FNV. Raises ValueError for an unknown algorithm
    or variant, texts of more than 64 KiB together, a stop over 10^18, and a middle of one byte.
    """

def variants() -> list[str]:
    """Give the names of the variants that this processor can run, fastest first."""
