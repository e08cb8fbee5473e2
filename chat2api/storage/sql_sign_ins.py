"""`SqlSignInRecords`: sign-ins in one table."""

from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.schema import sign_ins
from chat2api.storage.sign_ins import IDLE_SECONDS, LONGEST_SECONDS, SignIn
from chat2api.storage.sqlite import Database


class SqlSignInRecords:
    """`SignInRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def begin(self, sign_in: SignIn) -> None:
        """See SignInRecords."""
        idle, old = sign_in.began_at - IDLE_SECONDS, sign_in.began_at - LONGEST_SECONDS
        over = sa.or_(sign_ins.c.used_at <= idle, sign_ins.c.began_at <= old)

        def change(connection: sa.Connection) -> None:
            connection.execute(sa.delete(sign_ins).where(over))
            connection.execute(sa.insert(sign_ins).values(**asdict(sign_in)))

        await self._database.write(change)

    async def find(self, digest: str) -> SignIn | None:
        """See SignInRecords."""
        query = sa.select(sign_ins).where(sign_ins.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return SignIn(**row) if row else None

    async def touch(self, digest: str, now: float) -> None:
        """See SignInRecords."""
        statement = sa.update(sign_ins).where(sign_ins.c.digest == digest).values(used_at=now)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def end(self, digest: str) -> None:
        """See SignInRecords."""
        statement = sa.delete(sign_ins).where(sign_ins.c.digest == digest)
        await self._database.write(lambda connection: connection.execute(statement).rowcount)
