"""Passwords of people: compared by a slow digest, off the event loop, two at once (S12).

People choose passwords, so a guess has to cost something even to one who sends many from many places. The digest of
ADMIN_PASSWORD is made at start from the setting and never stored; those of local users are stored with their terms.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from chat2api.errors import RateLimitedError

COST = 2**17
"""scrypt's N; with r = 8 one comparison takes 128 MiB and some tenths of a second."""
AT_ONCE = 2
WAITING = 16
"""Comparisons that may wait; beyond, callers are asked to come back."""

_SCHEME = "scrypt"
_BLOCK = 8
_MEMORY = 160 * 1024 * 1024
_NICE = 10

T = TypeVar("T")


class SlowDigests:
    """Makes and compares digests of passwords, two at once. Close it when done."""

    def __init__(self, *, cost: int = COST) -> None:
        """Make new digests at that cost."""
        self._cost = cost
        self._workers = ThreadPoolExecutor(AT_ONCE, "password", initializer=_stand_back)
        self._pending = 0
        self._decoy = _write(cost, secrets.token_bytes(16), secrets.token_bytes(32))

    async def make(self, password: str) -> str:
        """Give the digest of a password with its terms, fit to be stored. Raises RateLimitedError as `matches`."""
        return await self._work(lambda: _make(password, self._cost))

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether a password is the one of a stored digest; with None the same work is done for nothing.

        Raises RateLimitedError when too many wait to know.
        """
        return await self._work(lambda: _is_of(password, stored or self._decoy)) and stored is not None

    def begin(self, password: str) -> "Future[str]":
        """Have the digest made by the first worker that is free."""
        return self._workers.submit(_make, password, self._cost)

    async def matches_begun(self, password: str, right: "Future[str]") -> bool:
        """Whether a password is the one of a digest that was begun. Raises as `matches`."""
        return await self._work(lambda: _is_of(password, right.result()))

    def close(self) -> None:
        """Let the workers end; comparisons that wait are given up."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _work(self, work: Callable[[], T]) -> T:
        if self._pending >= AT_ONCE + WAITING:
            raise RateLimitedError("Too many sign-ins at once. Try again in a moment.", retry_after=5)
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._workers, work)
        finally:
            self._pending -= 1


class Password:
    """A password that is known here, and can be compared."""

    def __init__(self, password: str, digests: SlowDigests) -> None:
        """Take a password; nothing but its digest is kept."""
        self._digests = digests
        self._right = digests.begin(password)

    async def matches(self, presented: str) -> bool:
        """Whether this is the password. Raises RateLimitedError when too many wait to know."""
        return await self._digests.matches_begun(presented, self._right)


def _make(password: str, cost: int) -> str:
    salt = secrets.token_bytes(16)
    return _write(cost, salt, _digest(password, cost, salt))


def _is_of(password: str, stored: str) -> bool:
    scheme, cost, salt, digest = stored.split("$")
    if scheme != _SCHEME:
        raise ValueError("the digest of a password is of an unknown kind")
    made = _digest(password, int(cost), base64.b64decode(salt))
    return hmac.compare_digest(made, base64.b64decode(digest))


def _write(cost: int, salt: bytes, digest: bytes) -> str:
    return "$".join((_SCHEME, str(cost), base64.b64encode(salt).decode(), base64.b64encode(digest).decode()))


def _digest(password: str, cost: int, salt: bytes) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=cost, r=_BLOCK, p=1, maxmem=_MEMORY, dklen=32)


def _stand_back() -> None:
    """Let the answers of others go first; only Linux can do that for one thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
