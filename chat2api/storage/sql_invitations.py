"""`SqlInvitationRecords`: invitations in one table."""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from chat2api.storage.invitations import KEPT_SECONDS, Invitation, NewInvitation
from chat2api.storage.keys import IssuedKey, NewKey
from chat2api.storage.schema import invitations
from chat2api.storage.sql_keys import insert_key
from chat2api.storage.sqlite import Database


class SqlInvitationRecords:
    """`InvitationRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def add(self, new: NewInvitation, digest: str, now: float) -> Invitation:
        """See InvitationRecords."""
        invitation_id = f"inv_{secrets.token_hex(8)}"

        def change(connection: sa.Connection) -> Invitation:
            connection.execute(sa.delete(invitations).where(invitations.c.expires_at <= now - KEPT_SECONDS))
            row = {"id": invitation_id, "digest": digest, "created_at": now, **asdict(new)}
            connection.execute(sa.insert(invitations).values(**row))
            return _find(connection, invitations.c.id == invitation_id)

        return await self._database.write(change)

    async def all(self) -> tuple[Invitation, ...]:
        """See InvitationRecords."""
        query = sa.select(invitations).order_by(invitations.c.created_at.desc(), invitations.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(_to_invitation(row) for row in rows)

    async def find(self, digest: str) -> Invitation | None:
        """See InvitationRecords."""
        query = sa.select(invitations).where(invitations.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return _to_invitation(row) if row else None

    async def redeem(self, digest: str, key: NewKey, key_digest: str, shown: str, now: float) -> IssuedKey | None:
        """See InvitationRecords."""
        is_open = sa.and_(
            invitations.c.digest == digest,
            invitations.c.used_at.is_(None),
            invitations.c.revoked_at.is_(None),
            invitations.c.expires_at > now,
        )

        def change(connection: sa.Connection) -> IssuedKey | None:
            if not connection.execute(sa.update(invitations).where(is_open).values(used_at=now)).rowcount:
                return None
            issued = insert_key(connection, key, key_digest, shown, now)
            connection.execute(sa.update(invitations).where(invitations.c.digest == digest).values(key_id=issued.id))
            return issued

        return await self._database.write(change)

    async def revoke(self, invitation_id: str, now: float) -> Invitation | None:
        """See InvitationRecords."""
        same = invitations.c.id == invitation_id
        unused = sa.and_(same, invitations.c.used_at.is_(None), invitations.c.revoked_at.is_(None))

        def change(connection: sa.Connection) -> Invitation | None:
            connection.execute(sa.update(invitations).where(unused).values(revoked_at=now))
            row = connection.execute(sa.select(invitations).where(same)).mappings().one_or_none()
            return _to_invitation(row) if row else None

        return await self._database.write(change)


def _find(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Invitation:
    return _to_invitation(connection.execute(sa.select(invitations).where(where)).mappings().one())


def _to_invitation(row: Mapping[str, Any] | sa.RowMapping) -> Invitation:
    return Invitation(**{field.name: row[field.name] for field in fields(Invitation)})
