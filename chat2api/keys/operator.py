"""The operator's keys: those of AUTHORIZATION, or else one that is made at the first start.

Of the generated key only the digest is kept, in the records; the key itself is written once to a file of mode 0600 in
the data folder. If that cannot be done, everything that needs the key stays shut.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from chat2api.errors import StorageError
from chat2api.keys.digests import find_digest, secret_digest

KEY_FILE = "operator.key"
"""Name of the file in the data folder that holds the generated key."""

_META_NAME = "operator_key_digest"


class MetaStore(Protocol):
    """What is needed of the records here."""

    async def get_meta(self, name: str) -> str | None:
        """Give a stored value, None when there is none."""
        ...

    async def set_meta(self, name: str, value: str) -> None:
        """Store a value durably."""
        ...


@dataclass(frozen=True, slots=True)
class OperatorKeys:
    """The keys that open the pool, as digests.

    `shut` says why there is none, in words for the caller, when the generated key could not be kept.
    """

    digests: tuple[bytes, ...]
    shut: str | None = None

    @classmethod
    def configured(cls, keys: Sequence[str]) -> "OperatorKeys":
        """Take the keys of AUTHORIZATION."""
        return cls(tuple(secret_digest(key) for key in keys))

    def matches(self, bearer: str) -> bool:
        """Whether the bearer is one of the keys."""
        return find_digest(secret_digest(bearer), self.digests) is not None


async def load_operator_key(meta: MetaStore, data_dir: Path) -> OperatorKeys:
    """Give the generated key's digest; make the key where there is none yet."""
    stored = await meta.get_meta(_META_NAME)
    if stored is not None:
        return OperatorKeys((bytes.fromhex(stored),))
    try:
        await make_operator_key(meta, data_dir)
    except StorageError as error:
        return OperatorKeys((), shut=error.message)
    return await load_operator_key(meta, data_dir)


async def make_operator_key(meta: MetaStore, data_dir: Path) -> Path:
    """Make a new key that replaces the generated one, and give the file that holds it.

    The file is written before the digest: a crash between the two leaves a key that does not open anything yet, never
    a server that nobody can open. Raises StorageError when the file cannot be written.
    """
    key = "op-" + secrets.token_urlsafe(32)
    path = data_dir / KEY_FILE
    try:
        await asyncio.to_thread(_write_private, path, key + "\n")
    except OSError as error:
        raise StorageError(
            f"The operator key cannot be written to the folder that DATA_DIR names ({error.strerror}), so everything "
            "that needs the key stays shut. Make the folder writable, or set AUTHORIZATION."
        ) from error
    await meta.set_meta(_META_NAME, secret_digest(key).hex())
    return path


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
