"""Which account a caller's user or key stays with: a bounded table, and how many stay with each account.

Hashing alone would spread a few dozen keys unevenly, so a new key goes to the account with the fewest, and the table
remembers where. Keys are kept as digests: they are words of callers.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping

CAPACITY = 10_000
"""Keys remembered; the longest unused are forgotten."""


class Affinity:
    """Keys with their accounts. Everything is O(1)."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Make an empty table."""
        self._capacity = capacity
        self._accounts: OrderedDict[bytes, str] = OrderedDict()
        self._load: dict[str, int] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._accounts)

    @property
    def load(self) -> Mapping[str, int]:
        """How many keys stay with each account; accounts without any are left out."""
        return self._load

    def find(self, key: str) -> str | None:
        """Give the account that a key stays with."""
        digest = _digest(key)
        account_id = self._accounts.get(digest)
        if account_id is not None:
            self._accounts.move_to_end(digest)
        return account_id

    def bind(self, key: str, account_id: str) -> Iterator[str]:
        """Let the key stay with that account from now on; yield the accounts that have fewer keys for it.

        Run through it: the table changes as it goes.
        """
        digest = _digest(key)
        before = self._accounts.pop(digest, None)
        self._accounts[digest] = account_id
        self._load[account_id] = self._load.get(account_id, 0) + 1
        if before is not None:
            yield self._drop(before)
        if len(self._accounts) > self._capacity:
            yield self._drop(self._accounts.popitem(last=False)[1])

    def _drop(self, account_id: str) -> str:
        left = self._load[account_id] - 1
        if left:
            self._load[account_id] = left
        else:
            del self._load[account_id]
        return account_id


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
