"""The command line: serve, simulate, tokens, keys, users, doctor; backup, restore and reseal are in store_commands."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from chat2api import __version__, store_commands, tier_commands
from chat2api.accounts.importing import parse_import
from chat2api.accounts.tokens import to_new_account
from chat2api.clock import SystemClock
from chat2api.commands import Commands, add_command, add_group, argument, spell_time
from chat2api.config import Config, describe_settings
from chat2api.environment import load_environment, unused_settings
from chat2api.errors import Chat2APIError, ConfigError, NotFoundError, StorageError
from chat2api.keys import command as key_command
from chat2api.keys import user_command
from chat2api.keys.operator import KEY_FILE, load_operator_key, make_operator_key
from chat2api.launch import protect_process, run_server
from chat2api.logs import Redactor, configure_logging
from chat2api.runtime import Runtime
from chat2api.simulator import command as simulator_command
from chat2api.storage.records import Records
from chat2api.storage.values import Account
from chat2api.store_commands import open_records, record

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_UNREAD = 141
"""What a shell reports of a program that a closed pipe ended (128 + SIGPIPE)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status.

    0: done. 1: something failed. 2: wrong settings or usage, or records that cannot be read or written. 130: interrupted.
    141: whoever read the output went away (`chat2api doctor | head`), which needs no words.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where the reader's leaving can be caught, not when the interpreter ends
    except BrokenPipeError:
        # What is still held would be written when the interpreter ends, and be complained about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        environ = load_environment()
        config = Config.from_env(environ)
        protect_process()
        return int(options.run(options, config, environ))
    except (ConfigError, StorageError) as error:
        print(f"chat2api: {error.message}", file=sys.stderr)
        return EXIT_USAGE
    except Chat2APIError as error:
        print(f"chat2api: {error.message}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat2api",
        description="One server through which any OpenAI client uses your ChatGPT accounts. Without a command: serve.",
        epilog="Settings come from the environment and from .env; `chat2api serve --help` lists them.",
    )
    parser.add_argument("--version", action="version", version=f"chat2api {__version__}")
    parser.set_defaults(run=_serve, demo=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    serve = add_command(
        commands,
        "serve",
        argument(
            "--demo",
            action="store_true",
            help="while no account is set up, let the built-in simulator answer a demo key",
        ),
        help="start the server",
        run=_serve,
    )
    serve.epilog, serve.formatter_class = _settings_help(), argparse.RawDescriptionHelpFormatter
    simulate = add_command(
        commands,
        "simulate",
        help="play the ChatGPT backend",
        description="Play the ChatGPT web backend, for trying and testing.",
        run=lambda options, config, environ: simulator_command.run(options),
    )
    simulator_command.add_arguments(simulate)
    _add_tokens(commands)
    keys = add_group(commands, "keys", help="manage the keys", description="Manage the keys of this server.", run=_act)
    add_command(
        keys,
        "operator",
        argument("--new", action="store_true", help="make a new key; the old one stops working"),
        help="tell where the operator key lies, or make a new one",
        description="Tell where the generated operator key lies. With --new, make one that replaces it at once.",
        run=_keys_operator,
    )
    key_command.add_actions(keys)
    users = add_group(
        commands, "users", help="manage the local users", description="Manage who signs in by name.", run=_act
    )
    user_command.add_actions(users)
    store_commands.add_commands(commands)
    tier_commands.add_commands(commands)
    add_command(
        commands,
        "doctor",
        help="tell what works and what does not",
        description="Try each exit and each account, and say what works, what does not and what to do.",
        run=_doctor,
    )
    return parser


def _add_tokens(commands: Commands) -> None:
    tokens = add_group(commands, "tokens", help="manage the accounts", description="Manage the pool's accounts.")
    add_command(
        tokens,
        "add",
        argument("file", metavar="FILE", help="a file, or - for standard input"),
        help="add accounts from a file or standard input",
        description="Add accounts: one token a line (AccessToken, RefreshToken, session token), `token,account-id` for a "
        "workspace, `#` for comments, or a JSON export. A running server uses them within a second.",
        run=_tokens_add,
    )
    add_command(
        tokens,
        "list",
        help="list the accounts",
        description="List the accounts. Tokens are never shown.",
        run=_tokens_list,
    )
    add_command(
        tokens,
        "remove",
        argument("label", nargs="*", metavar="LABEL", help="labels as `tokens list` shows them"),
        argument("--all", action="store_true", help="remove all accounts"),
        argument("--undo", action="store_true", help="bring back what was removed in the last 24 hours"),
        help="remove accounts",
        description="Remove accounts. They can be brought back for 24 hours.",
        run=_tokens_remove,
    )
    add_command(
        tokens,
        "confirm-restored",
        help="let tokens be renewed after an older copy was brought back",
        description="Take your word that the tokens of records that were brought back from a copy are not used up. Nothing is "
        "renewed before: a token that was used since ends the whole sign-in when it is sent again. Issued keys work as in the "
        "copy, so it names those to look through.",
        run=_tokens_confirm_restored,
    )
    add_command(
        tokens,
        "refresh",
        argument("label", nargs="*", metavar="LABEL", help="labels as `tokens list` shows them; none: all"),
        help="renew access tokens now",
        description="Exchange RefreshTokens for new access tokens now.",
        run=_tokens_refresh,
    )


def _settings_help() -> str:
    lines = ["settings (environment or .env):"]
    for setting in describe_settings():
        default = f" [{setting.default}{' ' + setting.unit if setting.unit else ''}]" if setting.default else ""
        lines.append(f"  {setting.name:<32} {setting.text}{default}")
    return "\n".join(lines).replace("`", "")


def _serve(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    redactor = Redactor()
    configure_logging(config.log_level, redactor)
    return asyncio.run(run_server(config, redactor, demo=options.demo, unused=unused_settings(environ)))


def _tokens_add(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    if options.file == "-" and sys.stdin.isatty():
        print("Paste the tokens, one a line. Then press Enter and Ctrl-D.", file=sys.stderr)
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"chat2api: {options.file} cannot be read: {error}", file=sys.stderr)
        return EXIT_FAILED
    found = parse_import(text)

    async def add() -> None:
        async with open_records(config) as records:
            now = SystemClock().now()
            new = await records.add_accounts([to_new_account(item) for item in found.credentials], now)
            if new:
                await record(records, "accounts.import", f"{len(new)} account(s)")
            for added in new:
                print(f"{added.account.label}  {added.outcome}  {describe_account(added.account)}")

    asyncio.run(add())
    for problem in found.problems:
        print(f"line {problem.line}: {problem.message}", file=sys.stderr)
    if not found.credentials and not found.problems:
        print("There was no token in it: one a line is expected.", file=sys.stderr)
    return EXIT_FAILED if found.problems or not found.credentials else EXIT_OK


def _tokens_list(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def show() -> None:
        async with open_records(config) as records:
            accounts = await pool_accounts(records)
            for account in accounts:
                print(f"{account.label}  {account.state:<13} {describe_account(account)}")
            print(f"{len(accounts)} account(s)")

    asyncio.run(show())
    return EXIT_OK


def _tokens_remove(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    if bool(options.label) + options.all + options.undo != 1:
        print("chat2api: name the accounts by label, or say --all or --undo", file=sys.stderr)
        return EXIT_USAGE

    async def remove() -> int:
        async with open_records(config) as records:
            now = SystemClock().now()
            if options.undo:
                restored = await records.restore_accounts(now)
                await record(records, "accounts.undo", f"{restored} account(s)")
                print(f"{restored} account(s) brought back")
                return EXIT_OK
            ids = None if options.all else [account.id for account in await accounts_by_label(records, options.label)]
            removed = await records.delete_accounts(ids, now)
            labels = ", ".join(options.label)
            await record(records, "accounts.delete" if labels else "accounts.clear", labels or f"{removed} account(s)")
            print(f"{removed} account(s) removed; --undo brings them back for 24 hours")
            return EXIT_OK

    return asyncio.run(remove())


def _tokens_refresh(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def refresh() -> int:
        runtime = await Runtime.open(config)
        failed = 0
        try:
            for account in await accounts_by_label(runtime.records, options.label):
                if account.kind not in ("refresh", "session"):
                    if options.label:
                        print(f"{account.label}  has no RefreshToken: nothing to renew")
                    continue
                try:
                    await runtime.keeper.renew(account)
                    print(f"{account.label}  renewed")
                except Chat2APIError as error:
                    failed += 1
                    print(f"{account.label}  {error.message}", file=sys.stderr)
        finally:
            await runtime.aclose()
        return EXIT_FAILED if failed else EXIT_OK

    return asyncio.run(refresh())


def _tokens_confirm_restored(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def confirm() -> None:
        async with open_records(config) as records:
            if not await records.restored():
                print("Nothing was brought back from a copy: tokens are renewed as ever.")
                return
            await records.confirm_restored()
            await record(records, "store.confirm_restored", "")
            print("Confirmed: tokens are renewed again.")
            now = SystemClock().now()
            keys = [key.name for key in (await records.keys.changes()).keys if key.ended(now) is None]
            if keys:
                print(
                    f"{len(keys)} key(s) work as in the copy, those too that were revoked or replaced after it was made: "
                    f"{', '.join(keys)}. Revoke such a one again: chat2api keys revoke"
                )

    asyncio.run(confirm())
    return EXIT_OK


def _act(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def act() -> None:
        await tier_commands.check_tier(config, getattr(options, "tier", None))
        async with open_records(config) as records:
            target = await options.act(options, records, SystemClock())
            if target is not None:
                await record(records, options.what, target)

    asyncio.run(act())
    return EXIT_OK


def _keys_operator(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def tell() -> int:
        if config.authorization:
            print("AUTHORIZATION is set: its values are the operator keys, and no other key is made.")
            return EXIT_OK
        async with open_records(config) as records:
            path = config.data_dir / KEY_FILE
            if options.new:
                path = await make_operator_key(records, config.data_dir)
                await record(records, "keys.operator", "")
                print(f"A new operator key was made; the old one has stopped working. It lies in {path}")
                return EXIT_OK
            keys = await load_operator_key(records, config.data_dir)
            if keys.shut is not None:
                print(f"chat2api: {keys.shut}", file=sys.stderr)
                return EXIT_FAILED
            if path.is_file():
                print(f"The operator key lies in {path}")
            else:
                print(f"{path} is gone, the key that it held still works. Make a new one: chat2api keys operator --new")
            return EXIT_OK

    return asyncio.run(tell())


def _doctor(options: argparse.Namespace, config: Config, environ: Mapping[str, str]) -> int:
    async def examine() -> int:
        runtime = await Runtime.open(config)
        failed = 0
        try:
            async for finding in runtime.doctor.examine():
                print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.text}")
                if not finding.ok:
                    failed += 1
                    print(f"      {finding.advice}")
        finally:
            await runtime.aclose()
        print("All is well." if not failed else f"{failed} problem(s).")
        return EXIT_FAILED if failed else EXIT_OK

    return asyncio.run(examine())


async def pool_accounts(records: Records) -> list[Account]:
    """Give the pool's accounts, in the order in which they were added."""
    everything = (await records.changes()).accounts
    return [account for account in everything if account.owner is None and account.deleted_at is None]


async def accounts_by_label(records: Records, labels: Sequence[str]) -> list[Account]:
    """Give the accounts with those labels, all of the pool's for none. Raises NotFoundError for an unknown label."""
    accounts = await pool_accounts(records)
    known = {account.label for account in accounts}
    for label in labels:
        if label not in known:
            raise NotFoundError(f"There is no account {label}. `chat2api tokens list` shows the labels.")
    return [account for account in accounts if not labels or account.label in labels]


def describe_account(account: Account) -> str:
    """Give what is known of an account in one line, without anything secret."""
    until = None
    if account.expires_at is not None:
        until = f"until {spell_time(account.expires_at)}"
    facts = (f"{account.kind} token", account.plan, account.email, account.workspace_id, until, account.reason)
    return ", ".join(fact for fact in facts if fact)
