"""The commands for tiers: check their file, and make, list and end invitations."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from chat2api.api.pages import public_base
from chat2api.api.tiers import taken_segments
from chat2api.app import create_app
from chat2api.clock import SystemClock
from chat2api.commands import Commands, add_command, add_group, argument, say, spell_time
from chat2api.config import Config
from chat2api.keys.invitations import DEFAULT_DAYS, Invitations, read_invitation
from chat2api.keys.issue import KeyRing
from chat2api.keys.terms import NEVER
from chat2api.keys.tier_book import TierBook
from chat2api.keys.tier_file import TiersError
from chat2api.storage.keys import DEFAULT_EXPIRY_DAYS
from chat2api.storage.records import Records
from chat2api.store_commands import open_records, record


def add_commands(commands: Commands) -> None:
    """Add the commands of this module to the program's."""
    tiers = add_group(commands, "tiers", help="check the tiers' file", description="Work with the tiers' file.")
    add_command(
        tiers,
        "check",
        argument("file", nargs="?", metavar="FILE", help="the file (default: that of TIERS_FILE)"),
        help="tell what is wrong with a file",
        description="Tell each mistake of a file with its line and field, and change nothing. Status 0: there is none.",
        run=_check,
    )
    invites = add_group(
        commands,
        "invites",
        help="manage invitations",
        description="Manage invitations: links that give whoever opens one first an issued key of a tier.",
    )
    add_command(
        invites,
        "create",
        argument("tier", metavar="TIER", help="the tier that the key is for"),
        argument("--name", help="what the key is called (default: invited)"),
        argument("--expires-in-days", type=float, metavar="DAYS", help=f"when the link ends (default: {DEFAULT_DAYS})"),
        argument(
            "--key-expires-in-days",
            type=_days,
            metavar="DAYS",
            help=f"how long the key works once it is taken; `{NEVER}` for ever (default: {DEFAULT_EXPIRY_DAYS})",
        ),
        help="make an invitation",
        description="Make an invitation and print its link, once.",
        run=_create,
    )
    add_command(invites, "list", help="list the invitations", run=_list)
    add_command(
        invites,
        "revoke",
        argument("invitation", metavar="ID", help="its id, as `invites list` shows it"),
        help="end an invitation",
        description="End an invitation that nobody has used.",
        run=_revoke,
    )


def _days(text: str) -> float | str:
    return text if text == NEVER else float(text)


def _check(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    path = Path(options.file or config.tiers_file) if options.file or config.tiers_file else None
    book = _book(config, path)
    try:
        asyncio.run(book.load())
    except TiersError as error:
        for problem in error.problems:
            say(str(problem))
        return 1
    names = ", ".join(tier.name for tier in book.tiers)
    say(f"{path if path is not None else 'The built-in tier'}: {len(book.tiers)} tier(s), no mistake: {names}")
    return 0


def _create(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    said = {"tier": options.tier}
    for name in ("name", "expires_in_days", "key_expires_in_days"):
        if getattr(options, name) is not None:
            said[name] = getattr(options, name)

    async def create() -> None:
        new = read_invitation(said, SystemClock().now())
        await check_tier(config, new.tier)
        async with open_records(config) as records:
            made = await _invitations(records).make(new)
            await record(records, "invites.create", f"{made.invitation.id}: {new.tier}")
        prefix = f"/{config.api_prefix}" if config.api_prefix else ""
        say(f"{public_base(config)}{prefix}/invite/{made.token}")  # alone on standard output, for scripts
        sys.stdout.flush()
        until = spell_time(made.invitation.expires_at)
        sys.stderr.write(f"\nThis link gives one key of the tier {new.tier}, until {until}. It is not shown again.\n")
        if not config.public_origins:
            sys.stderr.write("It says localhost, since PUBLIC_ORIGINS does not name the address of this server.\n")

    asyncio.run(create())
    return 0


def _list(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def show() -> None:
        async with open_records(config) as records:
            found = await _invitations(records).all()
        now = SystemClock().now()
        for one in found:
            key = f"  {one.key_id}" if one.key_id is not None else ""
            state = one.ended(now) or "open"
            say(f"{one.id}  {state:<8} until {spell_time(one.expires_at)}  {one.tier}  {one.name}{key}")
        say(f"{len(found)} invitation(s)")

    asyncio.run(show())
    return 0


def _revoke(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def revoke() -> None:
        async with open_records(config) as records:
            revoked = await _invitations(records).revoke(options.invitation)
            await record(records, "invites.revoke", revoked.id)
        say(f"{revoked.id} is {revoked.ended(SystemClock().now())}.")

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
