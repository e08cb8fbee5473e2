"""`SqlApiKeyRecords`: what is known of API keys, in one table."""

from collections.abc import Collection, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.api_keys import KeyRest
from chat2api.storage.schema import api_key_rests
from chat2api.storage.sqlite import Database

KEPT_SECONDS = 24 * 3600.0
"""How long a wait that has ended is kept, for its count of strikes."""


class SqlApiKeyRecords:
    """`ApiKeyRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def put(self, rests: Sequence[KeyRest]) -> None:
        """See ApiKeyRecords."""
        if not rests:
            return
        same = sa.and_(
            api_key_rests.c.key == sa.bindparam("old_key"), api_key_rests.c.model == sa.bindparam("old_model")
        )

        def change(connection: sa.Connection) -> None:
            connection.execute(
                sa.delete(api_key_rests).where(same), [{"old_key": one.key, "old_model": one.model} for one in rests]
            )
            connection.execute(sa.insert(api_key_rests), [asdict(one) for one in rests])

        await self._database.write(change)

    async def of(self, keys: Collection[str]) -> list[KeyRest]:
        """See ApiKeyRecords."""
        query = sa.select(api_key_rests).where(api_key_rests.c.key.in_(keys))
        query = query.order_by(api_key_rests.c.key, api_key_rests.c.model)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [KeyRest(**row) for row in rows]

    async def accept(self, key: str) -> None:
        """See ApiKeyRecords."""
        statement = sa.delete(api_key_rests).where(api_key_rests.c.key == key, api_key_rests.c.until_at.is_(None))
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def sweep(self, now: float) -> None:
        """See ApiKeyRecords."""
        statement = sa.delete(api_key_rests).where(api_key_rests.c.until_at < now - KEPT_SECONDS)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)
