"""Who has a data folder open: any number of processes together, or one alone that changes how everything is sealed.

It is an advisory lock (flock) on the folder itself: the system takes it back from a process that was killed, and it leaves
no file behind.
"""

import fcntl
import os
from pathlib import Path

from chat2api.errors import StorageError


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
