"""The commands for tiers: check their file, and make, list and end invitations."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from chat2api.api.pages import public_base
from chat2api.api.tiers import taken_segments
from chat2api.app import create_app
from chat2api.clock import SystemClock
from chat2api.config import Config
from chat2api.keys.invitations import DEFAULT_DAYS, Invitations, read_invitation
from chat2api.keys.issue import KeyRing
from chat2api.keys.terms import NEVER
from chat2api.keys.tier_book import TierBook
from chat2api.keys.tier_file import TiersError
from chat2api.storage.actions import Action
from chat2api.storage.keys import DEFAULT_EXPIRY_DAYS
from chat2api.storage.records import Records
from chat2api.storage.sql_records import SqlRecords


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands of this module to the program's."""
    tiers = commands.add_parser("tiers", help="check the tiers' file", description="Work with the tiers' file.")
    actions = tiers.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="tell what is wrong with a file",
        description="Tell each mistake of a file with its line and field, and change nothing. Status 0: there is none.",
    )
    check.add_argument("file", nargs="?", metavar="FILE", help="the file (default: that of TIERS_FILE)")
    check.set_defaults(run=_check)

    invites = commands.add_parser(
        "invites",
        help="manage invitations",
        description="Manage invitations: links that give whoever opens one first an issued key of a tier.",
    )
    actions = invites.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser(
        "create", help="make an invitation", description="Make an invitation and print its link, once."
    )
    create.add_argument("tier", metavar="TIER", help="the tier that the key is for")
    create.add_argument("--name", help="what the key is called (default: invited)")
    create.add_argument(
        "--expires-in-days", type=float, metavar="DAYS", help=f"when the link ends (default: {DEFAULT_DAYS})"
    )
    create.add_argument(
        "--key-expires-in-days",
        type=_days,
        metavar="DAYS",
        help=f"how long the key works once it is taken; `{NEVER}` for ever (default: {DEFAULT_EXPIRY_DAYS})",
    )
    create.set_defaults(run=_create)
    listing = actions.add_parser("list", help="list the invitations", description="List the invitations.")
    listing.set_defaults(run=_list)
    revoke = actions.add_parser(
        "revoke", help="end an invitation", description="End an invitation that nobody has used."
    )
    revoke.add_argument("invitation", metavar="ID", help="its id, as `invites list` shows it")
    revoke.set_defaults(run=_revoke)


def _days(text: str) -> float | str:
    return text if text == NEVER else float(text)


def _check(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    path = Path(options.file or config.tiers_file) if options.file or config.tiers_file else None
    book = _book(config, path)
    try:
        asyncio.run(book.load())
    except TiersError as error:
        for problem in error.problems:
            _say(str(problem))
        return 1
    names = ", ".join(tier.name for tier in book.tiers)
    _say(f"{path if path is not None else 'The built-in tier'}: {len(book.tiers)} tier(s), no mistake: {names}")
    return 0


def _create(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    said = {"tier": options.tier}
    for name in ("name", "expires_in_days", "key_expires_in_days"):
        if getattr(options, name) is not None:
            said[name] = getattr(options, name)

    async def create() -> None:
        new = read_invitation(said, SystemClock().now())
        await check_tier(config, new.tier)
        records = await _open(config)
        try:
            made = await _invitations(records).make(new)
            await _record(records, "invites.create", f"{made.invitation.id}: {new.tier}")
        finally:
            await records.aclose()
        prefix = f"/{config.api_prefix}" if config.api_prefix else ""
        _say(f"{public_base(config)}{prefix}/invite/{made.token}")  # alone on standard output, for scripts
        sys.stdout.flush()
        until = _date(made.invitation.expires_at)
        sys.stderr.write(f"\nThis link gives one key of the tier {new.tier}, until {until}. It is not shown again.\n")

    asyncio.run(create())
    return 0


def _list(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def show() -> None:
        records = await _open(config)
        try:
            found = await _invitations(records).all()
        finally:
            await records.aclose()
        now = SystemClock().now()
        for one in found:
            key = f"  {one.key_id}" if one.key_id is not None else ""
            state = one.ended(now) or "open"
            _say(f"{one.id}  {state:<8} until {_date(one.expires_at)}  {one.tier}  {one.name}{key}")
        _say(f"{len(found)} invitation(s)")

    asyncio.run(show())
    return 0


def _revoke(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def revoke() -> None:
        records = await _open(config)
        try:
            revoked = await _invitations(records).revoke(options.invitation)
            await _record(records, "invites.revoke", revoked.id)
        finally:
            await records.aclose()
        _say(f"{revoked.id} is {revoked.ended(SystemClock().now())}.")

    asyncio.run(revoke())
    return 0


async def check_tier(config: Config, name: str | None) -> None:
    """Raise InvalidRequestError for a tier that there is not; None and `none` are no tier, which is well."""
    if name is not None:
        book = _book(config, Path(config.tiers_file) if config.tiers_file else None)
        await book.load()
        book.check(name)


def _book(config: Config, path: Path | None) -> TierBook:
    prefix = f"/{config.api_prefix}" if config.api_prefix else ""
    taken = taken_segments(create_app(config), prefix)
    return TierBook(path, public=config.public_mode, taken=taken, keys=config.authorization)


def _invitations(records: Records) -> Invitations:
    clock = SystemClock()
    return Invitations(records, KeyRing(records, clock), clock)


async def _open(config: Config) -> SqlRecords:
    return await SqlRecords.open(config.folder, secret_key=config.secret_key or None)


async def _record(records: Records, what: str, target: str) -> None:
    """Note in the journal what was done from the command line (G7)."""
    await records.actions.add(Action(SystemClock().now(), "command line", what, target))


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
