"""The program's commands: how they are declared, and how they ask and speak.

A command is a function that `run` names; it is given what was typed as attributes. Groups of commands, such as `keys`, hand
their defaults on to those beneath them.
"""

import argparse
import getpass
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from chat2api.errors import InvalidRequestError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""A place to which commands can be added."""


@dataclass(frozen=True, slots=True)
class Argument:
    """Something that a command takes, in argparse's words."""

    names: tuple[str, ...]
    options: Mapping[str, Any]


def argument(*names: str, **options: Any) -> Argument:
    """Give an argument as `ArgumentParser.add_argument` takes it."""
    return Argument(names, options)


def add_command(
    commands: Commands, name: str, *takes: Argument, help: str, description: str = "", **defaults: object
) -> argparse.ArgumentParser:
    """Add a command that takes these arguments; `description` is the help unless said otherwise."""
    parser = commands.add_parser(name, help=help, description=description or f"{help[:1].upper()}{help[1:]}.")
    for one in takes:
        parser.add_argument(*one.names, **one.options)
    parser.set_defaults(**defaults)
    return parser


def add_group(commands: Commands, name: str, *, help: str, description: str, **defaults: object) -> Commands:
    """Add a command that is nothing without one of those that are added to what this gives."""
    parser = add_command(commands, name, help=help, description=description, **defaults)
    return parser.add_subparsers(title="actions", metavar="ACTION", required=True)


def say(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(line + "\n")


def spell_time(at: float) -> str:
    """Give an instant to the minute."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def spell_day(at: float) -> str:
    """Give an instant's day in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def ask_secret(what: str, *, twice: bool) -> str:
    """Ask whoever sits at the terminal for a secret that is not shown. Raises InvalidRequestError for two that differ."""
    secret = getpass.getpass(f"{what}: ")
    if twice and getpass.getpass("The same again: ") != secret:
        raise InvalidRequestError("The two differ.")
    return secret
