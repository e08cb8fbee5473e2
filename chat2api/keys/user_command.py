"""The commands `chat2api users …` for local users; they work on the records, beside a running server or without one."""

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat2api.clock import Clock
from chat2api.commands import Commands, add_command, argument, ask_secret, say, spell_day
from chat2api.keys.command import TERMS, said_terms
from chat2api.keys.issue import KeyRing
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LEAST_PASSWORD, LocalUsers, check_password, read_terms
from chat2api.storage.records import Records

_USER = argument("username", metavar="NAME", help="the name to sign in with")


def add_actions(users: Commands) -> None:
    """Add the actions to the group `users`; they are as those of `keys`."""
    add_command(
        users,
        "add",
        _USER,
        *TERMS,
        help="make a user",
        description="Make a user who signs in with POST /auth/login. The password is asked for, or read from standard input. "
        "The user gets an issued key of their own, on the terms said here; `keys change` changes them later.",
        act=_add,
        what="users.add",
    )
    add_command(users, "list", help="list the users", description="List the users with their keys.", act=_list)
    add_command(
        users,
        "remove",
        _USER,
        help="remove a user",
        description="Remove a user and end their key for ever. A running server refuses them within a second.",
        act=_remove,
        what="users.remove",
    )
    add_command(
        users,
        "password",
        _USER,
        help="give a user another password",
        description="Give a user another password, asked for or read from standard input. Who is signed in with the old one "
        "is signed out.",
        act=_password,
        what="users.password",
    )


async def _add(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    async with _open(records, clock) as (users, ring):
        terms = read_terms(options.username, said_terms(options), clock.now())
        user = await users.add(options.username, _read_password(), terms)
        key = ring.require(user.key_id)
        until = "never" if key.expires_at is None else spell_day(key.expires_at)
        say(f"{user.shown_name} may sign in. Their key is {key.id}; it ends: {until}.")
        return user.shown_name


async def _list(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    async with _open(records, clock) as (users, _):
        for line in users.lines():
            user = line.user
            say(f"{user.shown_name}  {user.key_id}  {line.state:<8} since {spell_day(user.created_at)}")
        say(f"{len(users.all())} user(s)")


async def _remove(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    async with _open(records, clock) as (users, _):
        user = await users.remove(options.username)
        say(f"{user.shown_name} is removed, and their key is revoked for ever.")
        return user.shown_name


async def _password(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    async with _open(records, clock) as (users, _):
        user = users.require(options.username)
        await users.set_password(user.name, _read_password())
        say(f"{user.shown_name} has another password.")
        return user.shown_name


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
        password = ask_secret(f"Password (at least {LEAST_PASSWORD} characters)", twice=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    check_password(password)
    return password
