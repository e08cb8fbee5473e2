"""How commands are declared, and how they ask and speak."""

import argparse
from collections.abc import Iterator

import pytest

from chat2api.commands import add_command, add_group, argument, ask_secret, say, spell_day, spell_time
from chat2api.errors import InvalidRequestError


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="program")
    parser.set_defaults(run="nothing")
    commands = parser.add_subparsers()
    group = add_group(commands, "keys", help="manage keys", description="Manage keys.", run="one of keys")
    name = argument("name", metavar="NAME", help="its name")
    add_command(group, "make", name, argument("--days", type=int), help="make a key", what="make")
    add_command(group, "special", help="be special", description="Be very special.", run="special")
    return parser


def test_a_command_has_its_defaults_and_those_of_its_group(parser: argparse.ArgumentParser) -> None:
    made = parser.parse_args(["keys", "make", "Ada", "--days", "3"])
    assert vars(made) == {"run": "one of keys", "what": "make", "name": "Ada", "days": 3}
    assert parser.parse_args(["keys", "special"]).run == "special"
    assert parser.parse_args([]).run == "nothing"


def test_a_group_alone_and_an_unknown_command_are_refused(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["keys"], ["keys", "lose"], ["keys", "make"]):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
    assert "ACTION" in capsys.readouterr().err


def test_the_description_is_the_help_unless_said_otherwise(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    for action, told in (("make", "Make a key."), ("special", "Be very special.")):
        with pytest.raises(SystemExit):
            parser.parse_args(["keys", action, "--help"])
        assert told in capsys.readouterr().out


def test_instants_are_spelt_in_UTC(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{spell_time(1_790_000_000.0)}, {spell_day(0)}")
    assert capsys.readouterr().out == "2026-09-21 14:13 UTC, 1970-01-01\n"


def test_a_secret_is_asked_for_once_or_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    typed: Iterator[str] = iter(["one", "two", "two", "two", "three"])

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return next(typed)

    monkeypatch.setattr("getpass.getpass", answer)
    assert ask_secret("Passphrase", twice=False) == "one"
    assert ask_secret("Passphrase", twice=True) == "two"
    with pytest.raises(InvalidRequestError, match="differ"):
        ask_secret("Password", twice=True)
    assert asked == ["Passphrase: ", "Passphrase: ", "The same again: ", "Password: ", "The same again: "]
