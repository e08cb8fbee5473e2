"""Which files the conversations of callers hold: the door to their rows.

A file of the backend belongs to an account, which many people may share. What is known of a person's own is that it stood
in a conversation of theirs, so a file is theirs, and lies on an account, as that conversation does, and for as long.
"""

from collections.abc import Collection
from typing import Protocol


class FileRecords(Protocol):
    """The rows of files; every method is one atomic intention and raises StorageError."""

    async def put(self, conversation_id: str, files: Collection[str]) -> None:
        """Store that a conversation holds those files, by their ids; a conversation that nobody owns holds none."""
        ...

    async def of(self, conversation_id: str) -> frozenset[str]:
        """Give the files that a conversation is known to hold."""
        ...

    async def accounts(self, file: str, owner: str) -> frozenset[str]:
        """Give the accounts on which an owner's conversations hold a file; none for a file that is not theirs."""
        ...
