"""The commands `chat2api users …` for local users; they work on the records, beside a running server or without one."""

import argparse
import getpass
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from chat2api.clock import Clock
from chat2api.errors import InvalidRequestError
from chat2api.keys.command import add_terms, said_terms
from chat2api.keys.issue import KeyRing
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LEAST_PASSWORD, LocalUsers, check_password, read_terms
from chat2api.storage.records import Records


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[argparse.ArgumentParser]:
    """Add the actions to the command `users`, and give their parsers."""
    add = actions.add_parser(
        "add",
        help="make a user",
        description="Make a user who signs in with POST /auth/login. The password is asked for, or read from standard input. "
        "The user gets an issued key of their own, on the terms said here; `keys change` changes them later.",
    )
    add.add_argument("username", metavar="NAME", help="the name to sign in with")
    add_terms(add)
    add.set_defaults(act=_add)

    listing = actions.add_parser("list", help="list the users", description="List the users with their keys.")
    listing.set_defaults(act=_list)

    remove = actions.add_parser(
        "remove",
        help="remove a user",
        description="Remove a user and end their key for ever. A running server refuses them within a second.",
    )
    remove.add_argument("username", metavar="NAME", help="the name to sign in with")
    remove.set_defaults(act=_remove)

    password = actions.add_parser(
        "password",
        help="give a user another password",
        description="Give a user another password, asked for or read from standard input. Who is signed in with the old one "
        "is signed out.",
    )
    password.add_argument("username", metavar="NAME", help="the name to sign in with")
    password.set_defaults(act=_password)
    return [add, listing, remove, password]


async def _add(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    async with _open(records, clock) as (users, ring):
        terms = read_terms(options.username, said_terms(options), clock.now())
        user = await users.add(options.username, _read_password(), terms)
        key = ring.require(user.key_id)
        until = "never" if key.expires_at is None else f"{datetime.fromtimestamp(key.expires_at, UTC):%Y-%m-%d}"
        _say(f"{user.shown_name} may sign in. Their key is {key.id}; it ends: {until}.")


async def _list(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    async with _open(records, clock) as (users, _):
        for line in users.lines():
            made = f"{datetime.fromtimestamp(line.user.created_at, UTC):%Y-%m-%d}"
            _say(f"{line.user.shown_name}  {line.user.key_id}  {line.state:<8} since {made}")
        _say(f"{len(users.all())} user(s)")


async def _remove(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    async with _open(records, clock) as (users, _):
        user = await users.remove(options.username)
        _say(f"{user.shown_name} is removed, and their key is revoked for ever.")


async def _password(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    async with _open(records, clock) as (users, _):
        user = users.require(options.username)
        await users.set_password(user.name, _read_password())
        _say(f"{user.shown_name} has another password.")


@asynccontextmanager
async def _open(records: Records, clock: Clock) -> AsyncIterator[tuple[LocalUsers, KeyRing]]:
    ring = KeyRing(records, clock)
    await ring.start()
    digests = SlowDigests()
    try:
        users = LocalUsers(records, ring, digests, clock)
        await users.start()
        yield users, ring
    finally:
        digests.close()


def _read_password() -> str:
    """Ask for a password twice where somebody sits there, else read the first line of standard input.

    Raises InvalidRequestError for one that cannot be.
    """
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password (at least {LEAST_PASSWORD} characters): ")
        if getpass.getpass("The same again: ") != password:
            raise InvalidRequestError("The two passwords differ.", param="password")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    check_password(password)
    return password


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
