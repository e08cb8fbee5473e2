"""`SqlFileRecords`: the files of conversations in one table, whose rows go when their conversation goes."""

from collections.abc import Collection

import sqlalchemy as sa

from chat2api.storage.schema import conversation_files, conversations
from chat2api.storage.sqlite import Database


class SqlFileRecords:
    """`FileRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def put(self, conversation_id: str, files: Collection[str]) -> None:
        """See FileRecords."""
        there = sa.select(conversations.c.owner).where(conversations.c.conversation_id == conversation_id)

        def change(connection: sa.Connection) -> None:
            if connection.scalar(there) is None:
                return
            known = set(connection.scalars(_files_of(conversation_id)))
            rows = [{"conversation_id": conversation_id, "file": file} for file in sorted({*files} - known)]
            if rows:
                connection.execute(sa.insert(conversation_files), rows)

        await self._database.write(change)

    async def of(self, conversation_id: str) -> frozenset[str]:
        """See FileRecords."""
        query = _files_of(conversation_id)
        return frozenset(await self._database.read(lambda connection: connection.scalars(query).all()))

    async def accounts(self, file: str, owner: str) -> frozenset[str]:
        """See FileRecords."""
        query = sa.select(conversations.c.account_id).join(conversation_files)
        query = query.where(conversation_files.c.file == file, conversations.c.owner == owner)
        return frozenset(await self._database.read(lambda connection: connection.scalars(query).all()))


def _files_of(conversation_id: str) -> sa.Select[str]:
    return sa.select(conversation_files.c.file).where(conversation_files.c.conversation_id == conversation_id)
