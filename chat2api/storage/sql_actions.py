"""`SqlActionRecords`: the journal of operators' actions in one table."""

from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.actions import KEPT_SECONDS, LONGEST_TEXT, Action
from chat2api.storage.schema import actions
from chat2api.storage.sqlite import Database


class SqlActionRecords:
    """`ActionRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def add(self, action: Action) -> None:
        """See ActionRecords."""
        values = {
            name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in asdict(action).items()
        }

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(actions).where(actions.c.at <= action.at - KEPT_SECONDS))
            connection.execute(sa.insert(actions).values(**values))

        await self._database.write(change)

    async def latest(self, limit: int = 100, offset: int = 0) -> tuple[Action, ...]:
        """See ActionRecords."""
        query = sa.select(actions.c.at, actions.c.who, actions.c.what, actions.c.target)
        query = query.order_by(actions.c.id.desc()).limit(limit).offset(offset)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(Action(**row) for row in rows)
