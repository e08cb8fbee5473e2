"""Who has a data folder open: any number of processes together, or one alone that changes how everything is sealed; and
which of them is its server, of which there is one.

They are advisory locks (flock), on the folder itself and on a file in it: the system takes them back from a process that was
killed.
"""

import fcntl
import logging
import os
from pathlib import Path

from chat2api.errors import StorageError

log = logging.getLogger(__name__)


LOCK_NAME = "server.lock"
"""The file that a folder's server holds locked; it is empty, and means nothing where nobody holds it."""


class FolderUse:
    """One use of a data folder, from now until `end`."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        """Begin to use a folder that exists. Raises StorageError when another process stands in the way."""
        self._descriptor: int | None = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.end()
            if alone:
                raise StorageError(
                    f"A server or another command uses {folder}. Stop it first; nothing was changed."
                ) from error
            raise StorageError(
                f"The records in {folder} are moving to another SECRET_KEY. Try again in a moment."
            ) from error
        except OSError as error:
            # A file system without such locks: it serves as well, only nobody can be sure of being alone.
            if alone:
                self.end()
                raise StorageError(
                    f"Whether a server uses {folder} cannot be told there: {error.strerror}. Nothing was changed."
                ) from error

    def end(self) -> None:
        """Let others have it; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class ServerPlace:
    """The place of a folder's server, from now until `end`."""

    def __init__(self, folder: Path) -> None:
        """Take the place in a folder that exists. Raises StorageError when another server has it."""
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.end()
            raise StorageError(
                f"Another server uses {folder}: both would allow all limits, each for itself. Stop that one first, or give "
                "this one a folder of its own in DATA_DIR."
            ) from error
        except OSError as error:  # no such locks there: one that is not held keeps nobody out
            log.warning("whether another server uses %s cannot be told there: %s", folder, error.strerror)

    def end(self) -> None:
        """Leave the place to another server; idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
