"""Files that are whole or not there, whenever the process dies: each is written under another name first."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_LEFTOVER = re.compile(r"\.(?:backup|restore|records\.(?:db|key|db\.mark))\.[0-9a-f]{8}(?:-wal|-shm|-journal)?")
"""Temporary names in a data folder."""


def temporary_name(path: Path) -> Path:
    """Give a name that nobody has yet, beside a file that is to come."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file of mode 0600 so that after a crash it is either the old or the new one. Raises OSError."""
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def name_new(temporary: Path, path: Path) -> None:
    """Give a finished file its name. Raises FileExistsError when there is such a file, and then changes nothing."""
    try:
        # Unlike a rename, a link fails when another process was quicker.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links: memory cards, folders shared with another system.
        if path.exists():
            raise FileExistsError(None, "there is such a file already", str(path)) from None
        temporary.rename(path)
    else:
        temporary.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, until: float) -> None:
    """Remove a data folder's files of temporary names that nobody has touched since then: their writers were killed.

    Never raises because of one that is gone meanwhile, or that belongs to somebody else.
    """
    for name in os.listdir(folder):
        if _LEFTOVER.fullmatch(name):
            with suppress(OSError):
                if os.stat(path := folder / name).st_mtime <= until:
                    path.unlink()
