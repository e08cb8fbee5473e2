"""`SqlRecords`: the records in one SQLite file of the data folder, or in memory for the demo.

In memory it is the same code on a database without a file: two implementations of when accounts merge, and of which
writer is too late, would be two sets of rules.
"""

import asyncio
import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Self, TypedDict, TypeVar

import sqlalchemy as sa

from chat2api.errors import StorageError
from chat2api.storage.folder_use import FolderUse
from chat2api.storage.schema import conversations, keyring
from chat2api.storage.sealing import Keyring, Sealer, WrappedKey, WrapSecret, setting_secret
from chat2api.storage.sql_actions import SqlActionRecords
from chat2api.storage.sql_api_keys import SqlApiKeyRecords
from chat2api.storage.sql_api_objects import SqlApiObjectRecords
from chat2api.storage.sql_files import SqlFileRecords
from chat2api.storage.sql_invitations import SqlInvitationRecords
from chat2api.storage.sql_keyring import (
    Keys,
    move_keyring,
    open_keyring,
    read_keyring,
    uses_old_keys,
    write_keyring,
)
from chat2api.storage.sql_keys import SqlKeyRecords
from chat2api.storage.sql_restore import Restoration, bring_back
from chat2api.storage.sql_sign_ins import SqlSignInRecords
from chat2api.storage.sql_tables import Tables
from chat2api.storage.sql_usage import SqlUsageRecords
from chat2api.storage.sql_users import SqlUserRecords
from chat2api.storage.sqlite import Database
from chat2api.storage.values import (
    TOMBSTONE_SECONDS,
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
from chat2api.storage.whole_files import remove_leftovers, write_private

T = TypeVar("T")

log = logging.getLogger(__name__)

DATABASE_NAME = "records.db"
KEY_NAME = "records.key"
MARK_NAME = "records.db.mark"

_ADD_BATCH = 100
"""Accounts added in one transaction: a long import must not keep a renewed token waiting for its commit."""


TURN_SECONDS = 0.15
"""Pause of long work between its transactions: SQLite's waiting writers look ten times a second, and do not queue."""


class Mark(TypedDict):
    """What the file beside the database says: whose it is and how many refreshes that database had seen."""

    store: str
    rotations: int


class SqlRecords:
    """`Records` on SQLAlchemy Core. Make one with `open` or `in_memory`."""

    def __init__(
        self, database: Database, ring: Keyring, secret: WrapSecret | None, use: FolderUse | None = None
    ) -> None:
        """Serve this database. `secret` wraps the ring's keys; None keeps them in memory only. `use` is ended at the end."""
        self.keys = SqlKeyRecords(database)
        self.invitations = SqlInvitationRecords(database)
        self.usage = SqlUsageRecords(database)
        self.sign_ins = SqlSignInRecords(database)
        self.actions = SqlActionRecords(database)
        self.api_keys = SqlApiKeyRecords(database)
        self.api_objects = SqlApiObjectRecords(database)
        self.files = SqlFileRecords(database)
        self.users = SqlUserRecords(database)
        self._database = database
        self._sealer = Sealer(ring)
        self._secret = secret
        self._use = use
        self._seen_version: int | None = None
        self._revision = 0

    @classmethod
    async def open(cls, folder: Path, *, secret_key: str | None = None, max_bytes: int | None = None) -> Self:
        """Give the records of a data folder, made if there are none.

        `secret_key` is the setting SECRET_KEY; records that exist must be sealed with it, or by the key file if there is no
        such setting. `max_bytes` stops the database's growth there. Raises StorageError, which says what to do.
        """
        setting = setting_secret(secret_key) if secret_key else None
        return await cls._open(folder, lambda db: open_keyring(db, folder / KEY_NAME, setting), max_bytes=max_bytes)

    @classmethod
    async def open_moved(cls, folder: Path, secret_key: str, *, former: str | None = None) -> Self:
        """Give the records of a data folder that nobody else has open, sealed with that SECRET_KEY from now on.

        `former` is the SECRET_KEY so far, None when it was the key file. Records that have moved already are given as they
        are, so this can be repeated. Raises StorageError, and then nothing has changed.
        """
        to, before = setting_secret(secret_key), setting_secret(former) if former else None
        return await cls._open(folder, lambda db: move_keyring(db, folder / KEY_NAME, to, before), alone=True)

    @classmethod
    async def _open(
        cls,
        folder: Path,
        find_keys: Callable[[sa.Connection], Keys],
        *,
        max_bytes: int | None = None,
        alone: bool = False,
    ) -> Self:
        database = await Database.open(folder / DATABASE_NAME, max_bytes=max_bytes)
        use = None
        try:
            use = FolderUse(folder, alone=alone)
            ring, secret = await database.write(find_keys)
            records = cls(database, ring, secret, use)
            await records._write(lambda tables: _compare_mark(tables, folder / MARK_NAME), after=records._leave_mark)
        except BaseException:
            await database.aclose()
            if use is not None:
                use.end()
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
        if self._database.path is not None:
            await asyncio.to_thread(remove_leftovers, self._database.path.parent, now - TOMBSTONE_SECONDS)

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

    async def rotate_keys(
        self,
        *,
        batch: int = 200,
        pause: float = TURN_SECONDS,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Seal all secrets with a new data key, in short transactions between which others write; give how many.

        When an earlier run was cut off, this one goes on with that run's key instead of making another; so do two
        that run at once. `on_progress` is told how many are done; `pause` is the time between two transactions, in
        seconds. ValueError for records in memory.
        """
        await self._change_keyring(lambda db, ring: ring if len(ring.data_keys) > 1 else ring.with_new_key())
        total = 0
        while (count := await self._write(lambda tables: tables.tokens.reseal(batch))) > 0:
            total += count
            if on_progress is not None:
                on_progress(total)
            await asyncio.sleep(pause)
        await self._change_keyring(lambda db, ring: ring if uses_old_keys(db, ring) else ring.without_old_keys())
        return total

    async def backup(self, path: Path, *, material: bytes | None = None) -> None:
        """See Records. The copy knows that it is one.

        It needs the same SECRET_KEY or key file; with `material`, which then wraps its keys, it needs that alone.
        """
        if material is not None and self._secret is None:
            raise ValueError("records in memory have no stored keys")

        def finish(copy: sqlite3.Connection) -> None:
            copy.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('restored', '1')")
            if material is not None and self._secret is not None:
                # The copy's own keys: those in memory may be older, when another process has replaced them.
                found = copy.execute("SELECT name, version, source, salt, wrapped FROM keyring").fetchall()
                ring = Keyring.unwrap([WrappedKey(*row) for row in found], self._secret)
                copy.execute("DELETE FROM keyring")
                copy.executemany(
                    "INSERT INTO keyring (name, version, source, salt, wrapped) VALUES (?, ?, ?, ?, ?)",
                    [astuple(row) for row in ring.wrap(WrapSecret("file", material))],
                )

        await self._database.backup(path, finish)

    async def bring_back(self, copy: Path, material: bytes, now: float, *, dry_run: bool = False) -> Restoration:
        """Take over a copy that `backup` made with that material, in one transaction, beside whatever runs.

        With dry_run all of it is undone at the end, so that what is told is what would happen. Raises StorageError when the
        copy cannot be used. ValueError for records in memory.
        """
        secret = self._secret
        if secret is None:
            raise ValueError("records in memory have no stored keys")
        database = await Database.open(copy)
        try:
            ring = await database.read(lambda db: Keyring.unwrap(read_keyring(db), WrapSecret("file", material)))
        finally:
            await database.aclose()
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(copy)), poolclass=sa.NullPool)

        def take_over(connection: sa.Connection) -> tuple[Restoration, Sealer, Mark]:
            self._tables(connection)  # with the keys as they are by now
            after = Sealer(ring.with_new_key(beyond=self._sealer.version))
            with engine.connect() as source:
                told = bring_back(connection, source, self._sealer, after, now)
            write_keyring(connection, after.keyring.wrap(secret))
            if dry_run:
                raise _UndoneError(told)
            return told, after, _read_mark(Tables(connection, after))

        def adopt(result: tuple[Restoration, Sealer, Mark]) -> None:
            self._sealer = result[1]
            self._leave_mark(result[2])

        try:
            return (await self._database.write(take_over, adopt))[0]
        except _UndoneError as undone:
            return undone.told
        finally:
            engine.dispose()

    async def aclose(self) -> None:
        """See Records."""
        await self._database.aclose()
        if self._use is not None:
            self._use.end()

    async def _read(self, work: Callable[[Tables], T]) -> T:
        return await self._database.read(lambda connection: work(self._tables(connection)))

    async def _write(self, work: Callable[[Tables], T], after: Callable[[T], None] | None = None) -> T:
        return await self._database.write(lambda connection: work(self._tables(connection)), after)

    def _tables(self, connection: sa.Connection) -> Tables:
        """Give the tables, with the keys as they are by now: another process may have replaced them."""
        newest = connection.scalar(sa.select(sa.func.max(keyring.c.version)))
        if newest is not None and newest != self._sealer.version and self._secret is not None:
            self._sealer = Sealer(Keyring.unwrap(read_keyring(connection), self._secret))
        return Tables(connection, self._sealer)

    async def _change_keyring(self, change: Callable[[sa.Connection, Keyring], Keyring]) -> None:
        """Replace the stored keys by what `change` makes of them as they are by now."""
        secret = self._secret
        if secret is None:
            raise ValueError("records in memory have no stored keys")

        def run(connection: sa.Connection) -> Keyring:
            before = Keyring.unwrap(read_keyring(connection), secret)
            after = change(connection, before)
            if after is not before:
                write_keyring(connection, after.wrap(secret))
            return after

        self._sealer = Sealer(await self._database.write(run))

    def _leave_mark(self, mark: Mark) -> None:
        """Write beside the database how far it has come, so that an older copy in its place is noticed."""
        if self._database.path is None:
            return
        try:
            write_private(self._database.path.with_name(MARK_NAME), json.dumps(mark).encode())
        except OSError as error:
            # The tokens are safe; only the recognition of older copies lags behind.
            log.warning("cannot write %s: %s", MARK_NAME, error.strerror)


class _UndoneError(Exception):
    """Carries what a dry run found out of the transaction that it undoes."""

    def __init__(self, told: Restoration) -> None:
        super().__init__()
        self.told = told


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
