"""`SqlRecords`: the records in one SQLite file of the data folder, or in memory for the demo.

In memory it is the same code on a database without a file: two implementations of when accounts merge, and of which
writer is too late, would be two sets of rules.
"""

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self, TypedDict, TypeVar

import sqlalchemy as sa

from chat2api.errors import StorageError
from chat2api.storage.schema import conversations, keyring, tokens
from chat2api.storage.sealing import (
    Keyring,
    Sealer,
    WrappedKey,
    WrapSecret,
    create_key_file,
    read_key_file,
    setting_secret,
    write_private,
)
from chat2api.storage.sql_actions import SqlActionRecords
from chat2api.storage.sql_keys import SqlKeyRecords
from chat2api.storage.sql_sign_ins import SqlSignInRecords
from chat2api.storage.sql_tables import Tables
from chat2api.storage.sql_usage import SqlUsageRecords
from chat2api.storage.sqlite import Database
from chat2api.storage.values import (
    Account,
    AccountFacts,
    AccountState,
    Activity,
    Added,
    Changes,
    ConversationOwner,
    Cooldown,
    FreshTokens,
    Known,
    NewAccount,
    RefreshIntent,
    RefreshView,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

DATABASE_NAME = "records.db"
KEY_NAME = "records.key"
MARK_NAME = "records.db.mark"

_ADD_BATCH = 100
"""Accounts added in one transaction: a long import must not keep a renewed token waiting for its commit."""


class Mark(TypedDict):
    """What the file beside the database says: whose it is and how many refreshes that database had seen."""

    store: str
    rotations: int


class SqlRecords:
    """`Records` on SQLAlchemy Core. Make one with `open` or `in_memory`."""

    def __init__(self, database: Database, ring: Keyring, secret: WrapSecret | None) -> None:
        """Serve this database. `secret` wraps the ring's keys; None keeps them in memory only."""
        self.keys = SqlKeyRecords(database)
        self.usage = SqlUsageRecords(database)
        self.sign_ins = SqlSignInRecords(database)
        self.actions = SqlActionRecords(database)
        self._database = database
        self._sealer = Sealer(ring)
        self._secret = secret
        self._seen_version: int | None = None
        self._revision = 0

    @classmethod
    async def open(cls, folder: Path, *, secret_key: str | None = None, max_bytes: int | None = None) -> Self:
        """Give the records of a data folder, made if there are none.

        `secret_key` is the setting SECRET_KEY; records that were sealed by the key file move to it at once.
        `max_bytes` stops the database's growth there. Raises StorageError, which says what to do.
        """
        database = await Database.open(folder / DATABASE_NAME, max_bytes=max_bytes)
        try:
            setting = setting_secret(secret_key) if secret_key else None
            ring, secret = await database.write(lambda db: _open_keyring(db, folder / KEY_NAME, setting))
            records = cls(database, ring, secret)
            await records._write(lambda tables: _compare_mark(tables, folder / MARK_NAME), after=records._leave_mark)
        except BaseException:
            await database.aclose()
            raise
        return records

    @classmethod
    async def in_memory(cls) -> Self:
        """Give empty records that leave nothing behind."""
        return cls(await Database.in_memory(), Keyring.generate(), None)

    async def revision(self) -> int:
        """See Records. Costs one PRAGMA while nothing was written."""

        def look(connection: sa.Connection) -> int:
            version = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            # The version tells of other connections only, and a database in memory has just one.
            if version != self._seen_version or self._database.path is None:
                self._revision = int(self._tables(connection).get_meta("revision") or 0)
                self._seen_version = version
            return self._revision

        return await self._database.read(look)

    async def changes(self, since: int = 0) -> Changes:
        """See Records."""
        return await self._read(lambda tables: tables.changes(since))

    async def account(self, account_id: str) -> Account | None:
        """See Records."""
        return await self._read(lambda tables: tables.account(account_id))

    async def find_by_token(self, token: str) -> Account | None:
        """See Records."""
        account = await self._read(lambda tables: tables.account_by_token(token))
        return account if account is not None and account.deleted_at is None else None

    async def add_accounts(self, new: Sequence[NewAccount], now: float) -> tuple[Added, ...]:
        """See Records."""
        added: list[Added] = []
        for start in range(0, len(new), _ADD_BATCH):
            batch = new[start : start + _ADD_BATCH]
            added += await self._write(lambda tables, batch=batch: [tables.add(one, now) for one in batch])  # type: ignore[misc]  # a default binds the loop's value
        return tuple(added)

    async def known_accounts(self, new: Sequence[NewAccount]) -> tuple[Known, ...]:
        """See Records."""
        known: list[Known] = []
        for start in range(0, len(new), _ADD_BATCH):
            batch = new[start : start + _ADD_BATCH]
            known += await self._read(lambda tables, batch=batch: [tables.known(one) for one in batch])  # type: ignore[misc]  # a default binds the loop's value
        return tuple(known)

    async def set_state(self, account: Account, state: AccountState, reason: str | None, now: float) -> Account | None:
        """See Records."""
        return await self._write(lambda tables: tables.set_state(account, state, reason, now))

    async def set_enabled(self, account_id: str, enabled: bool, now: float) -> Account | None:
        """See Records."""
        return await self._write(lambda tables: tables.set_enabled(account_id, enabled, now))

    async def set_details(
        self, account_id: str, *, note: str | None = None, groups: Sequence[str] | None = None
    ) -> Account | None:
        """See Records."""
        return await self._write(lambda tables: tables.set_details(account_id, note=note, groups=groups))

    async def put_facts(self, account_id: str, facts: AccountFacts, now: float) -> Account | None:
        """See Records."""
        return await self._write(lambda tables: tables.put_facts(account_id, facts, now))

    async def put_activity(self, activity: Sequence[Activity]) -> None:
        """See Records."""
        await self._write(lambda tables: tables.put_activity(activity))

    async def delete_accounts(self, ids: Sequence[str] | None, now: float) -> int:
        """See Records."""
        return await self._write(lambda tables: tables.delete(ids, now))

    async def deleted_accounts(self, now: float) -> tuple[Account, ...]:
        """See Records."""
        return await self._read(lambda tables: tables.deleted(now))

    async def restore_accounts(self, now: float, ids: Sequence[str] | None = None) -> int:
        """See Records."""
        return await self._write(lambda tables: tables.restore(now, ids))

    async def sweep(self, now: float) -> None:
        """See Records."""
        await self._write(lambda tables: tables.sweep(now))

    async def refresh_view(self, account_id: str) -> RefreshView | None:
        """See Records."""
        return await self._read(lambda tables: tables.refresh_view(account_id))

    async def begin_refresh(self, account: Account, replica: str, now: float) -> RefreshIntent | None:
        """See Records."""
        return await self._write(lambda tables: tables.begin_refresh(account, replica, now))

    async def complete_refresh(self, intent: RefreshIntent, tokens: FreshTokens, now: float) -> Account | None:
        """See Records."""

        def change(tables: Tables) -> tuple[Account | None, Mark]:
            return tables.complete_refresh(intent, tokens, now), _read_mark(tables)

        account, mark = await self._write(change)
        # The tokens are on disk. The mark only tells older copies, and its own writes need not be waited for.
        self._database.do_later(lambda: self._leave_mark(mark))
        return account

    async def abandon_refresh(
        self, intent: RefreshIntent, now: float, *, state: AccountState | None = None, reason: str | None = None
    ) -> Account | None:
        """See Records."""
        return await self._write(lambda tables: tables.abandon_refresh(intent, now, state, reason))

    async def claim_doubt(self, intent: RefreshIntent, replica: str, now: float) -> RefreshIntent | None:
        """See Records."""
        return await self._write(lambda tables: tables.tokens.claim_doubt(intent, replica, now))

    async def doubts(self) -> tuple[RefreshIntent, ...]:
        """See Records."""
        return await self._read(lambda tables: tables.tokens.doubts())

    async def put_cooldowns(self, cooldowns: Sequence[Cooldown]) -> None:
        """See Records."""
        await self._write(lambda tables: tables.put_cooldowns(cooldowns))

    async def put_conversation(self, conversation: ConversationOwner) -> None:
        """See Records."""
        values = {
            "account_id": conversation.account_id,
            "owner": conversation.owner,
            "last_message_id": conversation.last_message_id,
            "updated_at": conversation.updated_at,
        }
        same = conversations.c.conversation_id == conversation.conversation_id

        def change(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(conversations).where(same).values(**values)).rowcount:
                connection.execute(
                    sa.insert(conversations).values(conversation_id=conversation.conversation_id, **values)
                )

        await self._database.write(change)

    async def conversation(self, conversation_id: str) -> ConversationOwner | None:
        """See Records."""
        query = sa.select(conversations).where(conversations.c.conversation_id == conversation_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return ConversationOwner(**row) if row else None

    async def conversations(self, owner: str) -> tuple[ConversationOwner, ...]:
        """See Records."""
        query = sa.select(conversations).where(conversations.c.owner == owner)
        query = query.order_by(conversations.c.updated_at.desc(), conversations.c.conversation_id)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(ConversationOwner(**row) for row in rows)

    async def forget_conversation(self, conversation_id: str) -> None:
        """See Records."""
        query = sa.delete(conversations).where(conversations.c.conversation_id == conversation_id)
        await self._database.write(lambda connection: connection.execute(query).rowcount)

    async def get_meta(self, name: str) -> str | None:
        """See Records."""
        return await self._read(lambda tables: tables.get_meta(name))

    async def set_meta(self, name: str, value: str) -> None:
        """See Records."""
        await self._write(lambda tables: tables.set_meta(name, value))

    def digest(self, purpose: str, text: str) -> str:
        """See Records."""
        return self._sealer.digest(purpose, text)

    async def check(self) -> None:
        """See Records."""
        verdict = await self._database.read(lambda db: db.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if verdict != "ok":
            raise StorageError(f"The records are damaged ({verdict}). Restore a backup.")
        await self.set_meta("checked", secrets.token_hex(4))

    async def restored(self) -> bool:
        """See Records."""
        return await self.get_meta("restored") == "1"

    async def confirm_restored(self) -> None:
        """See Records."""

        def change(tables: Tables) -> Mark:
            tables.set_meta("restored", "0")
            return _read_mark(tables)

        await self._write(change, after=self._leave_mark)

    async def rotate_keys(self, *, batch: int = 500) -> int:
        """Seal all secrets with a new data key, in short transactions between which others write; give how many.

        When an earlier run was cut off, this one goes on with that run's key instead of making another. ValueError
        for records in memory.
        """
        if len(self._sealer.keyring.data_keys) == 1:
            await self._store_keyring(self._sealer.keyring.with_new_key())
        total = 0
        while (count := await self._write(lambda tables: tables.tokens.reseal(batch))) > 0:
            total += count
        await self._store_keyring(self._sealer.keyring.without_old_keys())
        return total

    async def rewrap(self, secret_key: str) -> None:
        """Change SECRET_KEY: from now on the records open with this value only."""
        await self._store_keyring(self._sealer.keyring, setting_secret(secret_key))

    async def backup(self, path: Path) -> None:
        """See Records. The copy needs the same SECRET_KEY or key file, and knows that it is a copy."""
        await self._database.backup(
            path, lambda copy: copy.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('restored', '1')")
        )

    async def aclose(self) -> None:
        """See Records."""
        await self._database.aclose()

    async def _read(self, work: Callable[[Tables], T]) -> T:
        return await self._database.read(lambda connection: work(self._tables(connection)))

    async def _write(self, work: Callable[[Tables], T], after: Callable[[T], None] | None = None) -> T:
        return await self._database.write(lambda connection: work(self._tables(connection)), after)

    def _tables(self, connection: sa.Connection) -> Tables:
        """Give the tables, with the keys as they are by now: another process may have replaced them."""
        newest = connection.scalar(sa.select(sa.func.max(keyring.c.version)))
        if newest is not None and newest != self._sealer.version and self._secret is not None:
            self._sealer = Sealer(Keyring.unwrap(_read_keyring(connection), self._secret))
        return Tables(connection, self._sealer)

    async def _store_keyring(self, ring: Keyring, secret: WrapSecret | None = None) -> None:
        used = secret or self._secret
        if used is None:
            raise ValueError("records in memory have no stored keys")
        wrapped = ring.wrap(used)
        await self._database.write(lambda connection: _write_keyring(connection, wrapped))
        self._sealer, self._secret = Sealer(ring), used

    def _leave_mark(self, mark: Mark) -> None:
        """Write beside the database how far it has come, so that an older copy in its place is noticed."""
        if self._database.path is None:
            return
        try:
            write_private(self._database.path.with_name(MARK_NAME), json.dumps(mark).encode())
        except OSError as error:
            # The tokens are safe; only the recognition of older copies lags behind.
            log.warning("cannot write %s: %s", MARK_NAME, error.strerror)


def _open_keyring(connection: sa.Connection, key_file: Path, setting: WrapSecret | None) -> tuple[Keyring, WrapSecret]:
    """Give the stored keys and what wraps them; make them for a new database."""
    rows = _read_keyring(connection)
    if not rows:
        if connection.scalar(sa.select(sa.func.count()).select_from(tokens)):
            raise StorageError("The database lacks its keys. Restore it from a backup; nothing was changed.")
        secret = setting or read_key_file(key_file) or create_key_file(key_file)
        ring = Keyring.generate()
        _write_keyring(connection, ring.wrap(secret))
        return ring, secret
    if rows[0].source == "setting":
        if setting is None:
            raise StorageError("The stored tokens were sealed with SECRET_KEY, which is not set now. Set it again.")
        ring, secret = Keyring.unwrap(rows, setting), setting
    else:
        secret = _stored_key_file(key_file)
        ring = Keyring.unwrap(rows, secret)
        if setting is not None:
            _write_keyring(connection, ring.wrap(setting))
            secret = setting
    unknown = set(connection.scalars(sa.select(tokens.c.key_version).distinct())) - set(ring.data_keys)
    if unknown:
        raise StorageError(
            f"Stored tokens were sealed with key version {min(unknown)}, which is not here. Restore a backup; nothing "
            "was changed."
        )
    return ring, secret


def _stored_key_file(key_file: Path) -> WrapSecret:
    secret = read_key_file(key_file)
    if secret is None:
        raise StorageError(
            f"The key file {key_file} is missing, and without it no stored token can be read. Put it back from a "
            "backup, or move the database away to begin with empty records."
        )
    return secret


def _read_keyring(connection: sa.Connection) -> list[WrappedKey]:
    return [WrappedKey(**row) for row in connection.execute(sa.select(keyring)).mappings()]


def _write_keyring(connection: sa.Connection, rows: list[WrappedKey]) -> None:
    connection.execute(sa.delete(keyring))
    connection.execute(sa.insert(keyring), [asdict(row) for row in rows])


def _read_mark(tables: Tables) -> Mark:
    store, rotations = tables.mark()
    return {"store": store, "rotations": rotations}


def _compare_mark(tables: Tables, path: Path) -> Mark:
    """Note in the database whether the mark beside it has seen a later state; give the mark to be left now."""
    if tables.get_meta("store_id") is None:
        tables.set_meta("store_id", secrets.token_hex(8))
    here = _read_mark(tables)
    try:
        read = json.loads(path.read_bytes())
        there = Mark(store=str(read["store"]), rotations=int(read["rotations"]))
    except (OSError, ValueError, KeyError, TypeError):
        return here
    if there["store"] == here["store"] and there["rotations"] <= here["rotations"]:
        return here
    tables.set_meta("restored", "1")
    # Left as it is until the operator confirms: it is the only witness if the copy is brought back once more.
    return there
