"""`SqlUserRecords`: local users in one table."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from chat2api.storage.schema import local_users, meta
from chat2api.storage.sqlite import Database
from chat2api.storage.users import LocalUser

_REVISION = "users_revision"


class SqlUserRecords:
    """`UserRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def revision(self) -> int:
        """See UserRecords."""
        return await self._database.read(_revision)

    async def all(self) -> tuple[int, tuple[LocalUser, ...]]:
        """See UserRecords."""
        query = sa.select(local_users).order_by(local_users.c.created_at, local_users.c.name)

        def look(connection: sa.Connection) -> tuple[int, tuple[LocalUser, ...]]:
            rows = connection.execute(query).mappings()
            return _revision(connection), tuple(_to_user(row) for row in rows)

        return await self._database.read(look)

    async def add(self, user: LocalUser) -> bool:
        """See UserRecords."""

        def change(connection: sa.Connection) -> bool:
            if _find(connection, user.name) is not None:
                return False
            connection.execute(sa.insert(local_users).values(**asdict(user)))
            _next_revision(connection)
            return True

        return await self._database.write(change)

    async def set_password(self, name: str, password: str, now: float) -> LocalUser | None:
        """See UserRecords."""
        statement = sa.update(local_users).where(local_users.c.name == name)

        def change(connection: sa.Connection) -> LocalUser | None:
            if connection.execute(statement.values(password=password, changed_at=now)).rowcount:
                _next_revision(connection)
            return _find(connection, name)

        return await self._database.write(change)

    async def remove(self, name: str) -> LocalUser | None:
        """See UserRecords."""

        def change(connection: sa.Connection) -> LocalUser | None:
            found = _find(connection, name)
            if found is not None:
                connection.execute(sa.delete(local_users).where(local_users.c.name == name))
                _next_revision(connection)
            return found

        return await self._database.write(change)


def _revision(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.select(meta.c.value).where(meta.c.name == _REVISION)) or 0)


def _next_revision(connection: sa.Connection) -> None:
    value = str(_revision(connection) + 1)
    if not connection.execute(sa.update(meta).where(meta.c.name == _REVISION).values(value=value)).rowcount:
        connection.execute(sa.insert(meta).values(name=_REVISION, value=value))


def _find(connection: sa.Connection, name: str) -> LocalUser | None:
    row = connection.execute(sa.select(local_users).where(local_users.c.name == name)).mappings().one_or_none()
    return _to_user(row) if row else None


def _to_user(row: Mapping[str, Any] | sa.RowMapping) -> LocalUser:
    return LocalUser(**row)
