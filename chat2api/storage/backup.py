"""Backups: the whole store in one file that nobody reads without its passphrase.

The file holds a copy of the database, in which the keys of the sealed secrets are wrapped by a key of the backup's own
that lies beside it: a backup needs neither SECRET_KEY nor the key file. All of it is encrypted with AES-256-GCM in
chunks, each bound to its place and the last one marked as such, so that a file that was cut, joined or altered does not
open. The key comes from the passphrase by scrypt.

    magic (16) | salt (16) | log2 of scrypt's N (1) | chunks of 64 KiB, each with a tag of 16 bytes
    in clear: length of the manifest (4) | manifest, JSON | database
"""

import asyncio
import base64
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chat2api.errors import InvalidRequestError, StorageError
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.sql_restore import Restoration
from chat2api.storage.whole_files import name_new, temporary_name

MAGIC = b"chat2api backup1"
CHUNK = 64 * 1024
SHORTEST_PASSPHRASE = 8
"""Characters. Whoever has the file may guess as long as they like; scrypt makes each guess cost a third of a second."""

_LOG_N = 17
_LOG_N_RANGE = range(10, 21)
"""What is taken from a file: a forged one must not make us fill the memory."""

_TAG = 16
_HEADER = len(MAGIC) + 16 + 1


@dataclass(frozen=True, slots=True)
class OpenedBackup:
    """A backup that was decrypted and found whole: its database, as a file, and what its manifest says."""

    database: Path
    material: bytes = field(repr=False)
    made_at: float
    release: str


async def write_backup(
    records: SqlRecords, path: Path, passphrase: str, *, folder: Path, release: str, now: float
) -> int:
    """Write a backup of the living store to a new file and give its size in bytes.

    `folder` is the data folder, where the copy stands until it is encrypted. Raises InvalidRequestError for a
    passphrase that is too short, StorageError when a file cannot be written or is there already.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InvalidRequestError(f"A passphrase has at least {SHORTEST_PASSPHRASE} characters.", param="passphrase")
    material = secrets.token_bytes(32)
    copy = temporary_name(folder / "backup")
    manifest = {"release": release, "made_at": now, "wrap": base64.b64encode(material).decode()}
    try:
        await records.backup(copy, material=material)
        return await asyncio.to_thread(_encrypt, copy, path, passphrase, json.dumps(manifest).encode())
    except OSError as error:
        raise StorageError(f"The backup {path} cannot be written: {error.strerror or error}.") from error
    finally:
        copy.unlink(missing_ok=True)


@asynccontextmanager
async def open_backup(path: Path, passphrase: str, *, folder: Path) -> AsyncIterator[OpenedBackup]:
    """Decrypt a backup into the data folder for as long as it is looked at.

    Raises StorageError for a file that is no backup, is damaged, or does not open with this passphrase.
    """
    copy = temporary_name(folder / "restore")
    try:
        try:
            manifest = await asyncio.to_thread(_decrypt, path, copy, passphrase)
        except OSError as error:
            raise StorageError(f"The backup {path} cannot be read: {error.strerror or error}.") from error
        yield OpenedBackup(copy, base64.b64decode(manifest["wrap"]), float(manifest["made_at"]), manifest["release"])
    finally:
        for name in ("", "-wal", "-shm"):
            copy.with_name(copy.name + name).unlink(missing_ok=True)


async def restore_backup(records: SqlRecords, opened: OpenedBackup, now: float, *, dry_run: bool) -> Restoration:
    """Bring the store to what the backup has, and say what that changes; with dry_run only say it."""
    return await records.bring_back(opened.database, opened.material, now, dry_run=dry_run)


def _encrypt(source: Path, path: Path, passphrase: str, manifest: bytes) -> int:
    """Write the encrypted file under another name first: a backup of that name is always whole."""
    temporary = temporary_name(path)
    header = MAGIC + secrets.token_bytes(16) + bytes([_LOG_N])
    cipher = AESGCM(_derive(passphrase, header))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target, source.open("rb") as plain:
            target.write(header)
            for number, chunk, is_last in _cut(len(manifest).to_bytes(4, "big") + manifest, plain):
                target.write(cipher.encrypt(_nonce(number, is_last=is_last), chunk, header))
            target.flush()
            os.fsync(target.fileno())
            size = target.tell()
        name_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _cut(start: bytes, rest: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (number, chunk, is_last) of what stands in `start` and then in `rest`."""
    held, number = start + rest.read(2 * CHUNK - len(start)), 0
    while True:
        chunk, held = held[:CHUNK], held[CHUNK:]
        held += rest.read(CHUNK)
        yield number, chunk, not held
        if not held:
            return
        number += 1


def _decrypt(path: Path, target: Path, passphrase: str) -> dict[str, str]:
    """Write the database of a backup to a new file and give the manifest."""
    with path.open("rb") as source:
        header = source.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(MAGIC) or header[-1] not in _LOG_N_RANGE:
            raise StorageError(f"{path} is no backup of this program, or of a newer release.")
        cipher = AESGCM(_derive(passphrase, header))
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as copy:
            chunks = _open_chunks(cipher, header, source, path)
            first = next(chunks)
            end = 4 + int.from_bytes(first[:4], "big")
            manifest: dict[str, str] = json.loads(first[4:end])
            copy.write(first[end:])
            for chunk in chunks:
                copy.write(chunk)
    return manifest


def _open_chunks(cipher: AESGCM, header: bytes, source: BinaryIO, path: Path) -> Iterator[bytes]:
    held, number = source.read(CHUNK + _TAG), 0
    while True:
        following = source.read(CHUNK + _TAG)
        try:
            yield cipher.decrypt(_nonce(number, is_last=not following), held, header)
        except (InvalidTag, ValueError) as error:
            reason = "is damaged" if number else "does not open: the passphrase is another one, or it is damaged"
            raise StorageError(f"The backup {path} {reason}. Nothing was changed.") from error
        if not following:
            return
        held, number = following, number + 1


def _nonce(number: int, *, is_last: bool) -> bytes:
    """Give a chunk's nonce, unique under the file's own key; it tells its place and whether it is the last."""
    return number.to_bytes(11, "big") + bytes([is_last])


def _derive(passphrase: str, header: bytes) -> bytes:
    salt, log_n = header[len(MAGIC) : -1], header[-1]
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=2**log_n, r=8, p=1, maxmem=2**log_n * 1025 + 2**20, dklen=32
    )
