"""`SqlApiObjectRecords`: owners of the API's objects in one table."""

from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.api_objects import RESPONSE_SECONDS, ApiObject, ObjectKind
from chat2api.storage.schema import api_objects
from chat2api.storage.sqlite import Database


class SqlApiObjectRecords:
    """`ApiObjectRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def put(self, made: ApiObject) -> None:
        """See ApiObjectRecords."""
        old = sa.and_(api_objects.c.kind == "response", api_objects.c.created_at < made.created_at - RESPONSE_SECONDS)
        same = api_objects.c.id == made.id

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(api_objects).where(sa.or_(same, old)))
            connection.execute(sa.insert(api_objects).values(**asdict(made)))

        await self._database.write(change)

    async def find(self, identifier: str) -> ApiObject | None:
        """See ApiObjectRecords."""
        query = sa.select(api_objects).where(api_objects.c.id == identifier)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return ApiObject(**row) if row else None

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
