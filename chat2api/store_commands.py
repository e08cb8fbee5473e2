"""The commands for the store as a whole: back it up, bring a backup back, replace the key that seals it."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from chat2api import __version__
from chat2api.clock import SystemClock
from chat2api.commands import Commands, add_command, argument, ask_secret, say, spell_time
from chat2api.config import Config
from chat2api.errors import ConfigError, InvalidRequestError, StorageError
from chat2api.storage.actions import Action
from chat2api.storage.backup import open_backup, restore_backup, write_backup
from chat2api.storage.records import Records
from chat2api.storage.sql_records import KEY_NAME, SqlRecords
from chat2api.storage.sql_restore import Restoration

_PASSPHRASE = argument(
    "--passphrase-file",
    metavar="FILE",
    help="read the passphrase from the first line of a file, or of standard input (-), instead of asking for it",
)


def add_commands(commands: Commands) -> None:
    """Add the commands of this module to the program's."""
    add_command(
        commands,
        "backup",
        argument("file", metavar="FILE", help="the file to write; there must be none of that name yet"),
        _PASSPHRASE,
        help="write everything into one encrypted file",
        description="Write accounts, keys, usage and all else that is stored into one new file, encrypted with a passphrase. "
        "The server may run meanwhile. The file needs neither SECRET_KEY nor the data folder, only its passphrase.",
        run=_backup,
    )
    add_command(
        commands,
        "restore",
        argument("file", metavar="FILE", help="a file that `chat2api backup` wrote"),
        argument("--dry-run", action="store_true", help="only say what would change"),
        _PASSPHRASE,
        help="bring a backup back",
        description="Bring back what a backup has. The server may run meanwhile. Accounts that were renewed since keep their "
        "newer tokens; accounts that the backup does not know are removed and can be brought back for 24 hours; issued keys "
        "that were revoked since stay so. Unless all tokens are known to be the newest, none is renewed until `chat2api "
        "tokens confirm-restored`.",
        run=_restore,
    )
    add_command(
        commands,
        "reseal",
        argument(
            "--to-secret-key",
            action="store_true",
            help="also move the records to the SECRET_KEY that is set now; stop the server first",
        ),
        argument(
            "--former",
            metavar="FILE",
            help="where they move from another SECRET_KEY: that one, as the first line of a file or of standard input (-); "
            "else they move from the key file in the data folder",
        ),
        help="replace the key that seals the stored tokens",
        description="Make a new data key and seal all stored secrets with it. The server may run meanwhile. If this is cut "
        "off, run it again: it goes on where it was.",
        run=_reseal,
    )


@asynccontextmanager
async def open_records(config: Config, opened: Awaitable[SqlRecords] | None = None) -> AsyncIterator[SqlRecords]:
    """Open the records for one command, beside a running server if there is one; `opened` opens them otherwise."""
    records = await (opened or SqlRecords.open(config.folder, secret_key=config.secret_key or None))
    try:
        yield records
    finally:
        await records.aclose()


async def record(records: Records, what: str, target: str) -> None:
    """Note in the journal what was done from the command line (G7)."""
    await records.actions.add(Action(SystemClock().now(), "command line", what, target))


def _backup(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    passphrase = _read_passphrase(options.passphrase_file, twice=True)

    async def run() -> None:
        async with open_records(config) as records:
            size = await write_backup(
                records,
                Path(options.file),
                passphrase,
                folder=config.data_dir,
                release=__version__,
                now=SystemClock().now(),
            )
            await record(records, "store.backup", f"{size} bytes")
        say(f"{options.file} was written, {size:,} bytes. Without its passphrase nobody can read it, neither can you.")

    asyncio.run(run())
    return 0


def _restore(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    passphrase = _read_passphrase(options.passphrase_file, twice=False)

    async def run() -> None:
        async with (
            open_records(config) as records,
            open_backup(Path(options.file), passphrase, folder=config.data_dir) as opened,
        ):
            made = spell_time(opened.made_at)
            say(f"A backup of {made}, made by chat2api {opened.release}.")
            told = await restore_backup(records, opened, SystemClock().now(), dry_run=options.dry_run)
            if not options.dry_run:
                await record(records, "store.restore", f"of {made}")
        for line in describe_restoration(told, dry_run=options.dry_run):
            say(line)

    asyncio.run(run())
    return 0


def _reseal(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    moves: bool = options.to_secret_key
    if moves and not config.secret_key:
        raise ConfigError("SECRET_KEY is not set. Set it to the value that the records shall move to.")
    if options.former is not None and not moves:
        raise ConfigError("--former goes with --to-secret-key.")
    former = _read_line(options.former, "former SECRET_KEY") if options.former is not None else None

    async def run() -> None:
        opened = SqlRecords.open_moved(config.folder, config.secret_key, former=former) if moves else None
        async with open_records(config, opened) as records:
            count = await records.rotate_keys()
            await record(records, "store.reseal", f"{count} secret(s)" + (", to SECRET_KEY" if moves else ""))
        if moves:
            say("The records open with SECRET_KEY alone now. Start everything with it.")
        say(f"{count:,} stored secret(s) were sealed with a new key.")
        if moves and (unused := config.data_dir / KEY_NAME).exists():
            say(f"{unused} opens none of them any more; remove it, and copies of the folder from before.")

    asyncio.run(run())
    return 0


def describe_restoration(told: Restoration, *, dry_run: bool) -> list[str]:
    """Say what bringing a backup back changed, or would change, line by line, accounts by label and keys by name."""
    groups: Sequence[tuple[str, Sequence[str]]] = (
        ("Accounts that come", told.accounts_added),
        ("Accounts that change", told.accounts_changed),
        ("Accounts that stay as they are, since they were renewed later", told.accounts_kept),
        (
            "Accounts that go, for the backup has them not (`tokens remove --undo` brings them back)",
            told.accounts_removed,
        ),
        ("Accounts in doubt, whose tokens may be used up", told.accounts_in_doubt),
        ("Keys that come", told.keys_added),
        ("Keys that change", told.keys_changed),
        ("Keys that are revoked, for the backup has them not", told.keys_revoked),
        ("Keys that stay revoked or replaced, as they were since", told.keys_kept),
    )
    lines = [f"{text}: {len(names)} ({', '.join(names)})" for text, names in groups if names]
    if told.conversations_added:
        lines.append(f"Conversations that come back: {told.conversations_added}")
    if not lines:
        lines.append("Nothing differs.")
    if told.keys_added:
        lines.append(
            "Nothing here knows the keys that come: one that was revoked or replaced after the backup was made works as it did "
            "then. Look through `chat2api keys list`, and revoke it again."
        )
    if told.must_confirm:
        lines.append(
            "Its tokens may be used up: no token is renewed until `chat2api tokens confirm-restored`. Say that only if "
            "nothing else has used these accounts since the backup was made; otherwise add new tokens."
        )
    lines.append("Nothing was changed: this was a dry run." if dry_run else "All of this is done.")
    return lines


def _read_passphrase(source: str | None, *, twice: bool) -> str:
    """Give the passphrase; InvalidRequestError or StorageError, fit to be printed, when there is none."""
    if source is None:
        if not sys.stdin.isatty():
            raise InvalidRequestError(
                "There is no terminal to ask for the passphrase: use --passphrase-file FILE, or -."
            )
        return ask_secret("Passphrase", twice=twice)
    return _read_line(source, "passphrase")


def _read_line(source: str, what: str) -> str:
    """Give the first line of a file, or of standard input (-); StorageError, fit to be printed, when it cannot be read."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"The {what} cannot be read from {source}: {error}.") from error
    return text.split("\n", 1)[0].rstrip("\r")
