"""ADMIN_PASSWORD: compared by a slow digest, off the event loop, two at once (S12).

People choose passwords, so a guess has to cost something even to one who sends many from many places. The digest is made
at start from the setting, with a salt of its own; it is never stored.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from chat2api.errors import RateLimitedError

COST = 2**17
"""scrypt's N; with r = 8 one comparison takes 128 MiB and some tenths of a second."""
AT_ONCE = 2
WAITING = 16
"""Comparisons that may wait; beyond, callers are asked to come back."""

_BLOCK = 8
_MEMORY = 160 * 1024 * 1024
_NICE = 10


class Password:
    """A password that can be compared. Close it when done."""

    def __init__(self, password: str, *, cost: int = COST) -> None:
        """Take a password; its digest is made by the first worker that is free."""
        self._cost = cost
        self._salt = secrets.token_bytes(16)
        self._workers = ThreadPoolExecutor(AT_ONCE, "password", initializer=_stand_back)
        self._right = self._workers.submit(self._digest, password)
        self._pending = 0

    async def matches(self, presented: str) -> bool:
        """Whether this is the password. Raises RateLimitedError when too many wait to know."""
        if self._pending >= AT_ONCE + WAITING:
            raise RateLimitedError("Too many sign-ins at once. Try again in a moment.", retry_after=5)
        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._workers, self._compare, presented)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Let the workers end; comparisons that wait are given up."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _compare(self, presented: str) -> bool:
        right = self._right.result()
        return hmac.compare_digest(self._digest(presented), right)

    def _digest(self, password: str) -> bytes:
        data = password.encode("utf-8", "surrogatepass")
        return hashlib.scrypt(data, salt=self._salt, n=self._cost, r=_BLOCK, p=1, maxmem=_MEMORY, dklen=32)


def _stand_back() -> None:
    """Let the answers of others go first; only Linux can do that for one thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
