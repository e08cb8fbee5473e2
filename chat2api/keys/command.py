"""The commands `chat2api keys …` for issued keys; they work on the records, beside a running server or without one."""

import argparse
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from chat2api.clock import Clock
from chat2api.commands import Argument, Commands, add_command, argument, say, spell_time
from chat2api.errors import NotFoundError
from chat2api.keys.issue import DEFAULT_OVERLAP, Issued, KeyRing
from chat2api.keys.reports import by, read_period, table, to_csv, total
from chat2api.keys.scope import unknown_names
from chat2api.keys.terms import (
    EXPIRY,
    FIELD_NAMES,
    LIMIT_NAMES,
    SCOPE_NAMES,
    TIER,
    Json,
    read_changes,
    read_new_key,
    read_overlap,
    show_key,
)
from chat2api.storage.keys import IssuedKey
from chat2api.storage.records import Records
from chat2api.storage.usage import UsageRow, day_of

Act = Callable[[argparse.Namespace, Records, Clock], Coroutine[Any, Any, str | None]]
"""What an action does; a parsed action has it as `act`. It gives what the journal is told, None where nothing was changed,
and `what` is how the journal calls it."""

_SCOPE_HELP = {
    "models": "models that it may ask for, patterns with * (default: all)",
    "accounts": "labels of the accounts that it may use, as `tokens list` shows them (default: all)",
    "groups": "groups of accounts that it may use (default: all)",
}


def _limit(name: str) -> Argument:
    words = name.replace("_", " ").replace("per", "a").replace("total", "in all")
    return argument(f"--{name.replace('_', '-')}", metavar="N", help=f"{words}, or `unlimited`")


TERMS = (
    argument("--note", help="a note for yourself"),
    argument(f"--{EXPIRY.replace('_', '-')}", metavar="DAYS", help="when it ends; `never` for no end"),
    argument(f"--{TIER}", help="the tier that it is for, or `none` (default: none)"),
    *(argument(f"--{name}", metavar="A,B", help=_SCOPE_HELP[name]) for name in SCOPE_NAMES),
    *(_limit(name) for name in LIMIT_NAMES),
)
"""The terms of a key, as commands are told them."""

_KEY = argument("key", metavar="KEY", help="its id, its name, or its first characters")


def add_actions(keys: Commands) -> None:
    """Add the actions to the group `keys`."""
    add_command(
        keys,
        "create",
        argument("name", metavar="NAME", help="whose key it is, or what it is for"),
        *TERMS,
        help="make a key for somebody",
        description="Make a key and print it, once: it cannot be shown again. Unless said otherwise it takes 60 requests a "
        "minute, 5 at once, and ends after 90 days; say `unlimited` or `never` where you want no bound.",
        act=_create,
        what="keys.create",
    )
    add_command(
        keys,
        "change",
        _KEY,
        argument("--name", help="another name"),
        *TERMS,
        help="change a key's terms",
        description="Change what is said of a key; the rest stays as it is.",
        act=_change,
        what="keys.change",
    )
    add_command(
        keys,
        "list",
        argument("--all", action="store_true", help="also those that were revoked or have expired"),
        help="list the keys",
        description="List the keys by their first characters.",
        act=_list,
    )
    add_command(
        keys, "show", _KEY, help="show all of a key but itself", description="Show a key's terms and use.", act=_show
    )
    add_command(
        keys,
        "revoke",
        _KEY,
        help="end a key for ever",
        description="End a key for ever. A running server refuses it, and ends its answers, within a second.",
        act=_revoke,
        what="keys.revoke",
    )
    add_command(
        keys,
        "rotate",
        _KEY,
        argument(
            "--overlap-hours",
            type=float,
            default=DEFAULT_OVERLAP / 3600,
            metavar="HOURS",
            help="how long the old one works; 0 ends it at once (default: %(default)g)",
        ),
        help="replace a key",
        description="Print a new key in a key's place. The old one works for a while more.",
        act=_rotate,
        what="keys.rotate",
    )
    add_command(
        keys,
        "stop",
        help="stop all keys",
        description="Stop all keys, and what runs under them.",
        act=_stop,
        stopped=True,
        what="keys.stop",
    )
    add_command(
        keys, "resume", help="let keys that were stopped work again", act=_stop, stopped=False, what="keys.resume"
    )
    usage = add_command(
        keys,
        "usage",
        argument("key", nargs="?", metavar="KEY", help="one key's only: its id or name"),
        argument("--since", metavar="DATE", help="first day, such as 2026-11-01 (default: 30 days)"),
        argument("--until", metavar="DATE", help="last day (default: today, in UTC)"),
        help="tell who used how much",
        description="Tell who used how much, by key; as CSV or JSON also by day, account and model. A running server "
        "writes at least every second.",
        act=_usage,
    )
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="all rows as CSV")
    form.add_argument("--json", action="store_true", help="all rows as JSON")


def said_terms(options: argparse.Namespace) -> Json:
    """Give the terms that were typed, as numbers and lists where they are."""
    said: Json = {}
    for name in FIELD_NAMES:
        text: str | None = getattr(options, name, None)
        if text is None:
            continue
        if name in SCOPE_NAMES:
            said[name] = text if text == "all" else text.split(",")
        elif name in LIMIT_NAMES:
            said[name] = int(text) if text.isascii() and text.isdigit() else text
        elif name == EXPIRY:
            said[name] = _number(text)
        else:
            said[name] = text
    return said


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


async def _create(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    ring = await _open(records, clock)
    issued = await ring.issue(read_new_key(said_terms(options), clock.now()))
    _say_issued(issued, clock)
    await _warn_of_unknown(issued.key, records)
    return issued.key.id


async def _change(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    ring = await _open(records, clock)
    make = read_changes(said_terms(options), clock.now())
    changed = await ring.change(_named(ring, options.key).id, lambda key: make(key.scope, key.limits))
    say(_describe(changed, clock))
    await _warn_of_unknown(changed, records)
    return changed.id


async def _list(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    ring = await _open(records, clock)
    keys = [key for key in ring.all() if options.all or key.ended(clock.now()) is None]
    for key in keys:
        until = "never ends" if key.expires_at is None else f"until {spell_time(key.expires_at)}"
        state = key.ended(clock.now()) or "active"
        tier = f" ({TIER} {key.tier})" if key.tier is not None else ""
        say(f"{key.id}  {key.shown}…  {state:<8} {until:<17} {key.name}{tier}")
    say(f"{len(keys)} key(s)" + (", all of them stopped: `chat2api keys resume`" if ring.stopped else ""))


async def _show(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    ring = await _open(records, clock)
    key = _named(ring, options.key)
    used = (await records.usage.totals(day_of(clock.now()))).get(key.id)
    say(_describe(key, clock))
    if used is not None:
        say(f"used today:          {used.requests_today} request(s), {used.tokens_today} token(s)")
        say(f"used in all:         {used.requests} request(s), {used.tokens} token(s)")
        if used.last_at is not None:
            say(f"used last:           {spell_time(used.last_at)}")


async def _revoke(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    ring = await _open(records, clock)
    key = await ring.revoke(_named(ring, options.key).id)
    say(f"{key.id} ({key.name}) is revoked for ever.")
    return key.id


async def _rotate(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    overlap = read_overlap(options.overlap_hours)
    ring = await _open(records, clock)
    issued = await ring.rotate(_named(ring, options.key).id, overlap)
    _say_issued(issued, clock)
    return issued.key.id


async def _stop(options: argparse.Namespace, records: Records, clock: Clock) -> str:
    ring = await _open(records, clock)
    await ring.stop(options.stopped)
    say(
        "All issued keys are stopped. `chat2api keys resume` lets them work again."
        if ring.stopped
        else "Keys work again."
    )
    return "all"


async def _usage(options: argparse.Namespace, records: Records, clock: Clock) -> None:
    ring = await _open(records, clock)
    since, until = read_period(options.since, options.until, day_of(clock.now()))
    # Callers without an issued key are booked under words, such as operator.
    wanted = None if options.key is None else next((key.id for key in _matching(ring, options.key)), options.key)
    rows = await records.usage.rows(since=since, until=until, key=wanted)
    names = {key.id: key.name for key in ring.all()}
    if options.csv:
        sys.stdout.write(to_csv(rows, names))
    elif options.json:
        say(json.dumps({"since": since, "until": until, "total": total(rows), "rows": table(rows, names)}, indent=2))
    else:
        _say_usage(rows, names, since, until)


def _say_usage(rows: Sequence[UsageRow], names: dict[str, str], since: str, until: str) -> None:
    say(f"{since} to {until}")
    say(f"{'requests':>10} {'tokens':>12} {'images':>7} {'errors':>7}  key")
    groups = by("key", rows, lambda row: row.key)
    for group in [*groups, {"key": "all together", **total(rows)}]:
        key = str(group["key"])
        name = names.get(key, key)
        told = f"{group['requests']:>10} {group['total_tokens']:>12} {group['images']:>7} {group['errors']:>7}"
        say(f"{told}  {name}" + (f" ({key})" if name != key else ""))


async def _open(records: Records, clock: Clock) -> KeyRing:
    ring = KeyRing(records, clock)
    await ring.start()
    return ring


def _named(ring: KeyRing, text: str) -> IssuedKey:
    """Give the key that is meant. Raises NotFoundError for none and for several."""
    found = _matching(ring, text)
    if len(found) != 1:
        many = "Several keys are called that" if found else "There is no such key"
        raise NotFoundError(f"{many}. `chat2api keys list --all` shows the ids.")
    return found[0]


def _matching(ring: KeyRing, text: str) -> list[IssuedKey]:
    shown = text.rstrip("…")
    everything = ring.all()
    for fits in (
        [key for key in everything if key.id == text],
        [key for key in everything if key.name == text and key.revoked_at is None],
        [key for key in everything if key.name == text],
        [key for key in everything if shown[: len(key.shown)] == key.shown],
    ):
        if fits:
            return fits
    return []


def _say_issued(issued: Issued, clock: Clock) -> None:
    say(issued.secret)  # alone on standard output, so that a script can take it
    sys.stdout.flush()
    sys.stderr.write(f"\nThis is the key. It is not shown again; keep it now.\n\n{_describe(issued.key, clock)}\n")


async def _warn_of_unknown(key: IssuedKey, records: Records) -> None:
    everything = (await records.changes()).accounts
    there = [account for account in everything if account.owner is None and account.deleted_at is None]
    if unknown := unknown_names(key.scope, there):
        sys.stderr.write(f"There is no account or group of this name now: {', '.join(unknown)}\n")


def _describe(key: IssuedKey, clock: Clock) -> str:
    shown = show_key(key, clock.now())
    limits = cast(dict[str, object], shown.pop("limits"))
    lines = []
    for name, value in (shown | limits).items():
        if name == "object" or value is None or value == "":
            continue
        if name.endswith("_at") and isinstance(value, float):
            value = spell_time(value)
        text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
        lines.append(f"{name.replace('_', ' ') + ':':<20} {text}")
    return "\n".join(lines)
