"""Secrets at rest: sealed with AES-256-GCM, found again by keyed digests.

Three layers. A data key seals each secret, with its place in the database as associated data, so that a ciphertext
moved to another row does not open. The data keys and the pepper of the digests are wrapped by a wrapping key. The
wrapping key comes from the setting SECRET_KEY if there is one, else from a file of mode 0600 that is made beside the
database; such a file protects a database that was stolen alone, not the whole folder.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chat2api.errors import StorageError
from chat2api.storage.whole_files import write_private

WrapSource = Literal["setting", "file"]

PEPPER = "pepper"
"""The name of the key that digests are made with; it stays the same when data keys are replaced."""

_REMEDIES: Mapping[WrapSource, tuple[str, str]] = {
    "setting": (
        "SECRET_KEY",
        "Put the old value back, or stop the server and move the records from it: chat2api reseal --to-secret-key --former FILE",
    ),
    "file": ("the key file in the data folder", "Put the old file back"),
}
"""What did not fit, and what to do."""

_NONCE_BYTES = 12
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class WrapSecret:
    """What wrapping keys are derived from, and where it came from."""

    source: WrapSource
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """One key as it is stored: a data key (`name` "data", `version` from 1) or the pepper (version 1)."""

    name: str
    version: int
    source: WrapSource
    salt: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Keyring:
    """All data keys by version, and the pepper. New secrets are sealed with the highest version."""

    data_keys: Mapping[int, bytes] = field(repr=False)
    pepper: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Give a ring with one new data key and a new pepper."""
        return cls({1: secrets.token_bytes(_KEY_BYTES)}, secrets.token_bytes(_KEY_BYTES))

    @property
    def version(self) -> int:
        """The version that seals."""
        return max(self.data_keys)

    def with_new_key(self, *, beyond: int = 0) -> "Keyring":
        """Give a ring with one more data key, which seals from now on; its version is above `beyond`, too."""
        version = max(self.version, beyond) + 1
        return Keyring({**self.data_keys, version: secrets.token_bytes(_KEY_BYTES)}, self.pepper)

    def without_old_keys(self) -> "Keyring":
        """Give a ring with the newest data key alone."""
        return Keyring({self.version: self.data_keys[self.version]}, self.pepper)

    def wrap(self, secret: WrapSecret) -> list[WrappedKey]:
        """Give all keys in the form in which they are stored. Slow (0.1 s) on purpose with a SECRET_KEY."""
        salt = secrets.token_bytes(16)
        wrapping = AESGCM(_derive(secret, salt))
        plain = [("data", version, key) for version, key in self.data_keys.items()] + [(PEPPER, 1, self.pepper)]
        rows = []
        for name, version, key in plain:
            nonce = secrets.token_bytes(_NONCE_BYTES)
            wrapped = nonce + wrapping.encrypt(nonce, key, _place("keyring", name, "wrapped", version))
            rows.append(WrappedKey(name, version, secret.source, salt, wrapped))
        return rows

    @classmethod
    def unwrap(cls, rows: list[WrappedKey], secret: WrapSecret) -> Self:
        """Give the ring that was stored; StorageError when the secret is not the one that wrapped it."""
        derived: dict[bytes, AESGCM] = {}
        data_keys: dict[int, bytes] = {}
        pepper: bytes | None = None
        for row in rows:
            wrapping = derived.setdefault(row.salt, AESGCM(_derive(secret, row.salt)))
            place = _place("keyring", row.name, "wrapped", row.version)
            try:
                key = wrapping.decrypt(row.wrapped[:_NONCE_BYTES], row.wrapped[_NONCE_BYTES:], place)
            except (InvalidTag, ValueError) as error:
                where, remedy = _REMEDIES[secret.source]
                raise StorageError(
                    f"The stored tokens cannot be opened: {where} has not the value that sealed them. {remedy}; nothing was "
                    "changed."
                ) from error
            if row.name == PEPPER:
                pepper = key
            else:
                data_keys[row.version] = key
        if pepper is None or not data_keys:
            raise StorageError("The database lacks its keys. Restore it from a backup; nothing was changed.")
        return cls(data_keys, pepper)


class Sealer:
    """Seals and opens secrets and makes digests, with the keys of one ring. Threads may share it."""

    def __init__(self, keyring: Keyring) -> None:
        """Make a sealer for these keys."""
        self.keyring = keyring
        self._ciphers = {version: AESGCM(key) for version, key in keyring.data_keys.items()}

    @property
    def version(self) -> int:
        """The key version that `seal` uses."""
        return self.keyring.version

    def seal(self, table: str, row: str, column: str, plain: str) -> bytes:
        """Give nonce and ciphertext, bound to this place and to the current key version."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        place = _place(table, row, column, self.version)
        return nonce + self._ciphers[self.version].encrypt(nonce, plain.encode(), place)

    def open(self, table: str, row: str, column: str, version: int, sealed: bytes) -> str:
        """Give the secret; StorageError when it was sealed elsewhere, was altered, or its key is not here."""
        cipher = self._ciphers.get(version)
        if cipher is None:
            raise StorageError(f"A stored token was sealed with key version {version}, which is not here.")
        try:
            plain = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(table, row, column, version))
        except (InvalidTag, ValueError) as error:
            raise StorageError("A stored token does not belong to its row or was altered; it is not used.") from error
        return plain.decode()

    def digest(self, purpose: str, text: str) -> str:
        """Give HMAC-SHA-256 under the pepper as 64 hexadecimal digits; equal texts differ between purposes."""
        message = purpose.encode() + b"\0" + text.encode("utf-8", "surrogatepass")
        return hmac.new(self.keyring.pepper, message, hashlib.sha256).hexdigest()


def setting_secret(value: str) -> WrapSecret:
    """Give the secret of the setting SECRET_KEY."""
    return WrapSecret("setting", value.encode())


def read_key_file(path: Path) -> WrapSecret | None:
    """Give the secret of the key file, None when there is no file; StorageError when it holds anything else.

    A file that others may read is made private.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"The key file {path} cannot be read: {error.strerror}. Give it to the server's user."
        ) from error
    try:
        material = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        material = b""
    if len(material) != _KEY_BYTES:
        raise StorageError(
            f"The key file {path} is damaged. Restore it from a backup: without it no token can be read."
        )
    path.chmod(0o600)
    return WrapSecret("file", material)


def create_key_file(path: Path) -> WrapSecret:
    """Make a new key file, on disk before it returns; StorageError when it cannot be written."""
    material = secrets.token_bytes(_KEY_BYTES)
    try:
        write_private(path, base64.b64encode(material) + b"\n")
    except OSError as error:
        raise StorageError(f"The key file {path} cannot be written: {error.strerror}.") from error
    return WrapSecret("file", material)


def _derive(secret: WrapSecret, salt: bytes) -> bytes:
    """Give a wrapping key. A setting may be a word that a person chose, so it is stretched; a file is random."""
    if secret.source == "setting":
        return hashlib.scrypt(secret.material, salt=salt, n=2**15, r=8, p=1, maxmem=64 * 1024 * 1024, dklen=_KEY_BYTES)
    return hmac.new(secret.material, b"chat2api wrapping key\0" + salt, hashlib.sha256).digest()


def _place(table: str, row: str, column: str, version: int) -> bytes:
    """Give the associated data: where the ciphertext belongs and which key made it."""
    return f"{table}|{row}|{column}|{version}".encode()
