"""`SqlKeyRecords`: issued keys in one table."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from chat2api.storage.keys import IssuedKey, KeyChanges, KeyLimits, KeyScope, NewKey
from chat2api.storage.schema import issued_keys, meta
from chat2api.storage.sqlite import Database

_REVISION = "keys_revision"
_STOPPED = "keys_stopped"
_SCOPE = tuple(field.name for field in fields(KeyScope))
_LIMITS = tuple(field.name for field in fields(KeyLimits))
_CHANGEABLE = {"name", "note", "expires_at", "scope", "limits", "tier"}


class SqlKeyRecords:
    """`KeyRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def revision(self) -> int:
        """See KeyRecords."""
        return await self._database.read(_revision)

    async def changes(self, since: int = 0) -> KeyChanges:
        """See KeyRecords."""
        query = sa.select(issued_keys).where(issued_keys.c.revision > since).order_by(issued_keys.c.position)

        def look(connection: sa.Connection) -> KeyChanges:
            rows = connection.execute(query).mappings()
            return KeyChanges(
                _revision(connection), tuple(_to_key(row) for row in rows), _meta(connection, _STOPPED) == "1"
            )

        return await self._database.read(look)

    async def key(self, key_id: str) -> IssuedKey | None:
        """See KeyRecords."""
        return await self._database.read(lambda connection: _find(connection, key_id))

    async def add(self, new: NewKey, digest: str, shown: str, now: float) -> IssuedKey:
        """See KeyRecords."""
        return await self._database.write(lambda connection: insert_key(connection, new, digest, shown, now))

    async def change(self, key: IssuedKey, fields: Mapping[str, object]) -> IssuedKey | None:
        """See KeyRecords."""
        if unknown := set(fields) - _CHANGEABLE:
            raise ValueError(f"no field of a key that may be changed: {', '.join(sorted(unknown))}")
        columns = dict(fields)
        scope, limits = columns.pop("scope", None), columns.pop("limits", None)
        if isinstance(scope, KeyScope):
            columns |= _scope_columns(scope)
        if isinstance(limits, KeyLimits):
            columns |= asdict(limits)
        return await self._update(key, columns)

    async def rotate(
        self, key: IssuedKey, digest: str, shown: str, *, previous_until_at: float | None, now: float
    ) -> IssuedKey | None:
        """See KeyRecords."""
        return await self._update(
            key,
            {
                "digest": digest,
                "shown": shown,
                "rotated_at": now,
                "previous_digest": None if previous_until_at is None else key.digest,
                "previous_until_at": previous_until_at,
            },
        )

    async def revoke(self, key_id: str, now: float) -> IssuedKey | None:
        """See KeyRecords."""

        def change(connection: sa.Connection) -> IssuedKey | None:
            found = _find(connection, key_id)
            if found is None or found.revoked_at is not None:
                return found
            _set(connection, key_id, {"revoked_at": now, "previous_digest": None, "previous_until_at": None})
            return _found(connection, key_id)

        return await self._database.write(change)

    async def stop(self, stopped: bool) -> None:
        """See KeyRecords."""

        def change(connection: sa.Connection) -> int:
            _set_meta(connection, _STOPPED, "1" if stopped else "0")
            return _next_revision(connection)

        await self._database.write(change)

    async def _update(self, key: IssuedKey, columns: Mapping[str, object]) -> IssuedKey | None:
        def change(connection: sa.Connection) -> IssuedKey | None:
            present = _find(connection, key.id)
            if present is None or present.revision != key.revision:
                return None
            _set(connection, key.id, columns)
            return _found(connection, key.id)

        return await self._database.write(change)


def insert_key(connection: sa.Connection, new: NewKey, digest: str, shown: str, now: float) -> IssuedKey:
    """Store a new key as part of a transaction; see KeyRecords.add."""
    key_id = f"key_{secrets.token_hex(8)}"
    last = connection.scalar(sa.select(sa.func.max(issued_keys.c.position)))
    connection.execute(
        sa.insert(issued_keys).values(
            id=key_id,
            position=(last or 0) + 1,
            name=new.name,
            note=new.note,
            shown=shown,
            digest=digest,
            created_at=now,
            expires_at=new.expires_at,
            tier=new.tier,
            revision=_next_revision(connection),
            **_scope_columns(new.scope),
            **asdict(new.limits),
        )
    )
    return _found(connection, key_id)


def _meta(connection: sa.Connection, name: str) -> str | None:
    return connection.scalar(sa.select(meta.c.value).where(meta.c.name == name))


def _set_meta(connection: sa.Connection, name: str, value: str) -> None:
    if not connection.execute(sa.update(meta).where(meta.c.name == name).values(value=value)).rowcount:
        connection.execute(sa.insert(meta).values(name=name, value=value))


def _revision(connection: sa.Connection) -> int:
    return int(_meta(connection, _REVISION) or 0)


def _next_revision(connection: sa.Connection) -> int:
    """Raise the revision by one and give it; the row stays locked until the transaction ends."""
    value = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _REVISION).with_for_update())
    number = int(value or 0) + 1
    _set_meta(connection, _REVISION, str(number))
    return number


def _set(connection: sa.Connection, key_id: str, columns: Mapping[str, object]) -> None:
    same = issued_keys.c.id == key_id
    connection.execute(sa.update(issued_keys).where(same).values(**columns, revision=_next_revision(connection)))


def _find(connection: sa.Connection, key_id: str) -> IssuedKey | None:
    row = connection.execute(sa.select(issued_keys).where(issued_keys.c.id == key_id)).mappings().one_or_none()
    return _to_key(row) if row else None


def _found(connection: sa.Connection, key_id: str) -> IssuedKey:
    found = _find(connection, key_id)
    assert found is not None
    return found


def _scope_columns(scope: KeyScope) -> dict[str, str | None]:
    return {name: None if value is None else json.dumps(value) for name, value in asdict(scope).items()}


def _to_key(row: Mapping[str, Any] | sa.RowMapping) -> IssuedKey:
    scope = {name: None if row[name] is None else tuple(json.loads(row[name])) for name in _SCOPE}
    limits = {name: row[name] for name in _LIMITS}
    own = {field.name: row[field.name] for field in fields(IssuedKey) if field.name not in ("scope", "limits")}
    return IssuedKey(**own, scope=KeyScope(**scope), limits=KeyLimits(**limits))
