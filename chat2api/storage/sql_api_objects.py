"""`SqlApiObjectRecords`: owners of the API's objects in one table."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.api_objects import RESPONSE_SECONDS, ApiObject, ObjectKind
from chat2api.storage.schema import api_objects
from chat2api.storage.sqlite import Database

_BATCH = 500
"""Ids that are asked for at once."""

# Written out, since SQLAlchemy has this clause once for each database; SQLite and PostgreSQL read the same words. An id of
# an item that is told again, by whatever means, must not change hands.
_PUT = sa.text("""
    INSERT INTO api_objects (id, kind, key, owner, created_at) VALUES (:id, :kind, :key, :owner, :created_at)
    ON CONFLICT (id) DO UPDATE SET
        kind = excluded.kind, key = excluded.key, owner = excluded.owner, created_at = excluded.created_at
    WHERE excluded.kind <> 'item'
""")


class SqlApiObjectRecords:
    """`ApiObjectRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def put(self, made: Sequence[ApiObject]) -> None:
        """See ApiObjectRecords."""
        values = [asdict(one) for one in made]
        if values:
            await self._database.write(lambda connection: connection.execute(_PUT, values).rowcount)

    async def find(self, identifiers: Collection[str]) -> list[ApiObject]:
        """See ApiObjectRecords."""
        wanted = sorted(identifiers)
        queries = [
            sa.select(api_objects).where(api_objects.c.id.in_(wanted[at : at + _BATCH]))
            for at in range(0, len(wanted), _BATCH)
        ]

        def look(connection: sa.Connection) -> list[ApiObject]:
            return [ApiObject(**row) for query in queries for row in connection.execute(query).mappings()]

        return await self._database.read(look) if queries else []

    async def of(self, owner: str, kind: ObjectKind) -> list[ApiObject]:
        """See ApiObjectRecords."""
        query = sa.select(api_objects).where(api_objects.c.owner == owner, api_objects.c.kind == kind)
        query = query.order_by(api_objects.c.created_at.desc(), api_objects.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [ApiObject(**row) for row in rows]

    async def forget(self, identifier: str) -> None:
        """See ApiObjectRecords."""
        statement = sa.delete(api_objects).where(api_objects.c.id == identifier)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def sweep(self, now: float) -> None:
        """See ApiObjectRecords."""
        old = sa.and_(api_objects.c.kind != "file", api_objects.c.created_at < now - RESPONSE_SECONDS)
        await self._database.write(lambda connection: connection.execute(sa.delete(api_objects).where(old)).rowcount)
