"""The keys that seal the records, as the database has them, and what wraps them: found, made, moved to another SECRET_KEY.

Every function runs inside a transaction of its caller, so what is stored is wrapped either as before or anew, never in
between. Opening the records changes nothing of how they are sealed: whoever runs a command with a SECRET_KEY that does not
fit is told so, and a server that runs without it goes on.
"""

from dataclasses import asdict
from pathlib import Path

import sqlalchemy as sa

from chat2api.errors import StorageError
from chat2api.storage.schema import keyring, tokens
from chat2api.storage.sealing import Keyring, WrappedKey, WrapSecret, create_key_file, read_key_file

Keys = tuple[Keyring, WrapSecret]
"""The keys, and what wraps them."""


def open_keyring(connection: sa.Connection, key_file: Path, setting: WrapSecret | None) -> Keys:
    """Give the stored keys; make them for a new database, wrapped by the setting if there is one.

    Raises StorageError when the setting, or the lack of one, does not fit what is stored.
    """
    rows = read_keyring(connection)
    if not rows:
        return _make_keyring(connection, setting or read_key_file(key_file) or create_key_file(key_file))
    if rows[0].source == "setting":
        if setting is None:
            raise StorageError("The stored tokens were sealed with SECRET_KEY, which is not set now. Set it again.")
        secret = setting
    elif setting is None:
        secret = _stored_key_file(key_file)
    else:
        raise StorageError(
            f"SECRET_KEY is set, but the records in {key_file.parent} are sealed with {key_file.name}; nothing was changed. "
            "Unset it, or stop the server and move the records to it: chat2api reseal --to-secret-key"
        )
    return _checked(connection, Keyring.unwrap(rows, secret)), secret


def move_keyring(connection: sa.Connection, key_file: Path, to: WrapSecret, former: WrapSecret | None) -> Keys:
    """Wrap the stored keys by `to`, whatever wraps them now: `to` itself already, `former`, or the key file.

    Raises StorageError when it is none of them.
    """
    rows = read_keyring(connection)
    if not rows:
        return _make_keyring(connection, to)
    if rows[0].source == "file":
        ring = Keyring.unwrap(rows, _stored_key_file(key_file))
    else:
        try:
            return _checked(connection, Keyring.unwrap(rows, to)), to
        except StorageError:
            if former is None:
                raise
        ring = Keyring.unwrap(rows, former)
    write_keyring(connection, _checked(connection, ring).wrap(to))
    return ring, to


def uses_old_keys(connection: sa.Connection, ring: Keyring) -> bool:
    """Whether a secret is sealed with another key than the newest."""
    query = sa.select(tokens.c.account_id).where(tokens.c.key_version != ring.version).limit(1)
    return connection.scalar(query) is not None


def read_keyring(connection: sa.Connection) -> list[WrappedKey]:
    """Give the stored keys as they are stored, none for a new database."""
    return [WrappedKey(**row) for row in connection.execute(sa.select(keyring)).mappings()]


def write_keyring(connection: sa.Connection, rows: list[WrappedKey]) -> None:
    """Store these keys and no others."""
    connection.execute(sa.delete(keyring))
    connection.execute(sa.insert(keyring), [asdict(row) for row in rows])


def _make_keyring(connection: sa.Connection, secret: WrapSecret) -> Keys:
    if connection.scalar(sa.select(sa.func.count()).select_from(tokens)):
        raise StorageError("The database lacks its keys. Restore it from a backup; nothing was changed.")
    ring = Keyring.generate()
    write_keyring(connection, ring.wrap(secret))
    return ring, secret


def _stored_key_file(key_file: Path) -> WrapSecret:
    secret = read_key_file(key_file)
    if secret is None:
        raise StorageError(
            f"The key file {key_file} is missing, and without it no stored token can be read. Put it back from a "
            "backup, or move the database away to begin with empty records."
        )
    return secret


def _checked(connection: sa.Connection, ring: Keyring) -> Keyring:
    """Give the ring if it has the keys of all stored secrets."""
    unknown = set(connection.scalars(sa.select(tokens.c.key_version).distinct())) - set(ring.data_keys)
    if unknown:
        raise StorageError(
            f"Stored tokens were sealed with key version {min(unknown)}, which is not here. Restore a backup; nothing "
            "was changed."
        )
    return ring
