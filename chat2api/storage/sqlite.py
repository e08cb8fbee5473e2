"""SQLite as a safe place: one writer thread, one reader thread, checks before anything is trusted.

Theory of operation. Two connections stand open, each used by one thread of its own, so that no request ever waits on
the event loop for a disk. WAL lets the reader go on while the writer commits; `synchronous=FULL` makes a commit
survive the loss of power (NORMAL may undo it, and a rotated token with it). The WAL is folded back between commits,
not by the one that fills it: a renewed token would wait for that. A new database is built under another
name and renamed when it is whole: an empty file of the right name is therefore never ours and is refused, like
everything else that cannot be read. Nothing here replaces or empties a file that exists.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from chat2api.errors import StorageError
from chat2api.storage.schema import HEAD, metadata
from chat2api.storage.whole_files import name_new, sync_folder, temporary_name

T = TypeVar("T")

APPLICATION_ID = 0x63326170
"""Marks a database file as ours ("c2ap")."""

BUSY_SECONDS = 5.0
"""How long a write waits for another process's write."""

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "davfs", "gpfs", "ocfs2"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "davfs", "davfs2", "rclone", "s3fs", "gcsfuse", "ceph")}
)
"""File systems whose locks or shared memory SQLite's WAL cannot rely on, by their names in Linux's mount table."""

CHECKPOINT_WRITES = 50
"""Transactions after which the WAL is folded back into the file, after their callers have gone on."""

_LARGE_WAL = 10_000
"""Pages at which the commit itself folds it back: large imports, and processes that stay for one command only."""

_MOUNTS = Path("/proc/self/mountinfo")


class Database:
    """An open SQLite database. `read` and `write` run whole transactions on their threads."""

    def __init__(self, path: Path | None, *, max_bytes: int | None = None) -> None:
        """Prepare the connections; nothing is opened before the first use. `path` None keeps it in memory.

        `max_bytes` stops the file's growth there, as a full disk would.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._write_thread = ThreadPoolExecutor(1, "records-write")
        # Two connections to a database in memory would be two databases.
        self._read_thread = self._write_thread if path is None else ThreadPoolExecutor(1, "records-read")
        self._writer = self._engine(immediate=True)
        self._reader = self._writer if path is None else self._engine(immediate=False)
        self._closed = False
        self._writes = 0

    @classmethod
    async def open(cls, path: Path, *, max_bytes: int | None = None, mounts: Path = _MOUNTS) -> Self:
        """Give the database of that path, made, checked and migrated as needed.

        Raises StorageError, which says what to do, for a file that is not ours, is damaged, is newer than this
        release, or lies on a network file system.
        """
        database = cls(path, max_bytes=max_bytes)
        try:
            await database._on_thread(database._write_thread, lambda: database._prepare(path, mounts))
        except BaseException:
            await database.aclose()
            raise
        return database

    @classmethod
    async def in_memory(cls) -> Self:
        """Give a database with empty tables that is gone when it is closed; it has no past to migrate from."""
        database = cls(None)
        await database.write(metadata.create_all)
        return database

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Give what `work` makes of one consistent picture of the database."""
        return await self._on_thread(self._read_thread, lambda: _transact(self._reader, work))

    async def write(self, work: Callable[[sa.Connection], T], after: Callable[[T], None] | None = None) -> T:
        """Run `work` in a transaction and give its result once it is on disk; an exception undoes all of it.

        `after` runs on the same thread once the commit is done. A caller who is cancelled meanwhile does not undo
        a write that has begun.
        """

        def run() -> T:
            result = _transact(self._writer, work)
            self._writes += 1
            if self._writes % CHECKPOINT_WRITES == 0:
                self.do_later(self._checkpoint)
            if after is not None:
                after(result)
            return result

        return await self._on_thread(self._write_thread, run)

    def do_later(self, work: Callable[[], object]) -> None:
        """Run `work` on the writing thread after what waits there, also when the database is closed meanwhile.

        It must not raise; nobody would hear of it.
        """
        if not self._closed:
            self._write_thread.submit(work)

    def _checkpoint(self) -> None:
        with suppress(DBAPIError, sqlite3.Error), self._writer.connect() as connection:
            _driver_of(connection).execute("PRAGMA wal_checkpoint(PASSIVE)")

    async def backup(self, path: Path, finish: Callable[[sqlite3.Connection], object]) -> None:
        """Copy the living database to a new private file; `finish` may change the copy before it is closed."""

        def run() -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.close(descriptor)
            try:
                with self._reader.connect() as connection:
                    copy = sqlite3.connect(path)
                    try:
                        _driver_of(connection).backup(copy)
                        with copy:
                            finish(copy)
                    finally:
                        copy.close()
                sync_folder(path.parent)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

        await self._on_thread(self._read_thread, run)

    async def aclose(self) -> None:
        """Finish running work and close both connections; idempotent."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        # A connection is closed by the thread that used it; the writer last, so that it can fold the WAL back.
        await loop.run_in_executor(self._read_thread, self._reader.dispose)
        await loop.run_in_executor(self._write_thread, self._writer.dispose)
        self._read_thread.shutdown(wait=False)
        self._write_thread.shutdown(wait=False)

    async def _on_thread(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise StorageError("The records are closed.")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except (DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise StorageError(f"The records cannot be used now: {cause}.") from error
        except OSError as error:
            raise StorageError(f"The records cannot be used now: {error.strerror or error}.") from error

    def _engine(self, *, immediate: bool) -> sa.Engine:
        address = sa.URL.create("sqlite", database=":memory:" if self.path is None else str(self.path))
        engine = sa.create_engine(
            address,
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
            hide_parameters=True,  # an error's text must not carry what was to be stored
        )

        def connected(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
            cursor = connection.cursor()
            for name, value in (
                ("synchronous", "FULL"),
                ("fullfsync", "ON"),
                ("checkpoint_fullfsync", "ON"),
                ("foreign_keys", "ON"),
                ("secure_delete", "ON"),
                ("trusted_schema", "OFF"),
                ("temp_store", "MEMORY"),
                ("wal_autocheckpoint", str(_LARGE_WAL)),
            ):
                cursor.execute(f"PRAGMA {name}={value}")
            if self._max_bytes is not None:
                page_size = cursor.execute("PRAGMA page_size").fetchone()[0]
                cursor.execute(f"PRAGMA max_page_count={max(1, self._max_bytes // page_size)}")
            cursor.close()

        def begin(connection: sa.Connection) -> None:
            # Asking for the write lock at once waits for another writer; upgrading a read later would fail instead.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

        sa.event.listen(engine, "connect", connected)
        sa.event.listen(engine, "begin", begin)
        return engine

    def _prepare(self, path: Path, mounts: Path) -> None:
        """Check the place and the file, make the database if there is none, bring it to this release's schema."""
        prepare_folder(path.parent)
        refuse_network_file_system(path.parent, mounts)
        if not path.exists():
            _refuse_orphans(path)
            _create(path)
        check_file(path)
        try:
            with self._writer.connect() as connection:
                verdicts = connection.exec_driver_sql("PRAGMA quick_check(1)").scalars().all()
        except DBAPIError as error:
            raise StorageError(_damaged(path, str(error.orig))) from error
        if verdicts != ["ok"]:
            raise StorageError(_damaged(path, str(verdicts[0])))
        with self._writer.connect() as connection:
            # Some ways to copy a database lose this.
            _driver_of(connection).execute("PRAGMA journal_mode=WAL")
        migrate(self._writer)


def migrate(engine: sa.Engine) -> None:
    """Bring the database to this release's schema, all steps in one transaction.

    Raises StorageError when the database was written by a newer release, and when a step fails; then nothing has
    changed.
    """
    with engine.connect() as connection:
        exists = sa.inspect(connection).has_table("alembic_version")
        current = connection.scalar(sa.text("SELECT version_num FROM alembic_version")) if exists else None
    if current == HEAD:
        return
    # Alembic is needed on the rare start that changes the schema; importing it costs a tenth of a second.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise StorageError(
            f"The records were written by a newer release (schema {current}, this one knows {HEAD}). Install that "
            "release, or restore the backup from before the upgrade; nothing was changed."
        )
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
    except DBAPIError as error:
        raise StorageError(
            f"The records could not be brought to this release's schema: {error.orig}. Nothing was changed; run the "
            "earlier release or report this."
        ) from error


def check_file(path: Path) -> None:
    """Raise StorageError unless the file is a whole database of ours; make it private."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise StorageError(
            f"The records in {path} cannot be read: {error.strerror}. Give them to the server's user."
        ) from error
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise StorageError(_damaged(path, "the file is not a database"))
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StorageError(f"{path} is a database of another program. Move it away or choose another data folder.")
    try:
        path.chmod(0o600)
    except OSError as error:
        raise StorageError(
            f"{path} belongs to another user: {error.strerror}. Give it to the server's user."
        ) from error


def prepare_folder(folder: Path) -> None:
    """Make the data folder if it is missing, and keep it private; StorageError when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise StorageError(
            f"The data folder {folder} cannot be used: {error.strerror}. Give it to the server's user, name another in "
            "DATA_DIR, or set DATA_DIR=none to keep nothing."
        ) from error


def refuse_network_file_system(folder: Path, mounts: Path = _MOUNTS) -> None:
    """Raise StorageError when the mount table says that the folder is on a network file system.

    Systems without such a table (all but Linux) are not judged.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    place = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        # Linux, proc(5): id parent major:minor root mount-point options [fields] - type source options
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        # On equal depth the later mount lies on top.
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), right.split(" ")[0]
    if kind in NETWORK_FILE_SYSTEMS:
        raise StorageError(
            f"The data folder {folder} is on a network file system ({kind}), where tokens may be lost. Choose a "
            "folder on a local disk."
        )


def _create(path: Path) -> None:
    """Make an empty database with our mark, whole before it has its name."""
    temporary = temporary_name(path)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        with suppress(FileExistsError):  # another process made the database meanwhile
            name_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_orphans(path: Path) -> None:
    """Raise StorageError when something shows that there was a database here before."""
    for suffix in ("-wal", ".mark"):
        witness = path.with_name(path.name + suffix)
        if witness.exists():
            raise StorageError(
                f"{witness.name} says that there were records in {path.parent}, but {path.name} is missing. Put it "
                f"back from a backup, or remove {witness.name} to begin with empty records."
            )


def _damaged(path: Path, detail: str) -> str:
    return (
        f"The records in {path} cannot be read ({detail}). They are left as they are: restore a backup over them, or "
        "move them away to begin with empty records."
    )


def _driver_of(connection: sa.Connection) -> sqlite3.Connection:
    """Give the connection beneath, for what is done outside of transactions."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _transact(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)
