"""The one place where secrets are compared: digests of equal length, every candidate each time."""

import hashlib
import hmac
from collections.abc import Sequence


def secret_digest(secret: str) -> bytes:
    """Give the SHA-256 of a secret: enough for keys of 128 random bits and more, which nobody can guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def find_digest(presented: bytes, candidates: Sequence[bytes]) -> int | None:
    """Give the index of the candidate equal to the presented digest, None when there is none.

    All candidates are compared in constant time, so that the duration tells neither which one matched nor how
    much of a guess was right.
    """
    found = None
    for index, candidate in enumerate(candidates):
        if hmac.compare_digest(presented, candidate):
            found = index
    return found
