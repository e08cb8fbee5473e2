"""A server after a month of use: accounts in every state, keys, users, a ledger, hours, a journal. Nothing in it is real."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from chat2api import launch
from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.api.hours import HourlyCounts
from chat2api.app import create_app
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LocalUsers
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.actions import Action
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import UsageRow, day_of
from chat2api.storage.values import ANY_MODEL, Account, AccountFacts, AccountState, Activity, Cooldown
from tests.e2e.harness import House, HouseClock, open_house

DAY = 86400.0
NOON = datetime(2026, 11, 18, 12, 40, tzinfo=UTC).timestamp()
"""When it is in a furnished house, whenever the suite runs: its pages look the same on every day."""

NAMES = ("Ada's laptop", "Grace, telescope control", "Family tablet", "Homework helper", "Nightly summaries", "阅读小组",
         "Editor plug-in", "Translation desk", "Guest", "Old phone")  # fmt: skip
USERS = ("Ada", "Grace", "阅读小组", "somebody-of-the-reading-group@family.example.org")
NOTE = "For the weekend project"
MODELS = (("gpt-5", 0.5), ("gpt-5-mini", 0.3), ("o4-mini", 0.15), ("gpt-4o", 0.05))
TROUBLES: tuple[tuple[AccountState, str | None], ...] = (
    ("needs_sign_in", "refresh_token_reused"),
    ("needs_sign_in", "token_expired"),
    ("in_doubt", "unknown_outcome"),
    ("suspect", "distrusted"),
    ("disabled", "by_operator"),
)
SECRET = "furnished" * 6
ERRORS = ("upstream_timeout", "rate_limit_exceeded", "proof_of_work_too_hard", "upstream_challenge")


class StandingClock(HouseClock):
    """The house's time, which begins a day before that certain noon."""

    def now(self) -> float:
        """Unix seconds."""
        return NOON - DAY + self.monotonic() - self._born


@asynccontextmanager
async def open_furnished(folder: Path, accounts: int = 12, keys: int = len(NAMES)) -> AsyncIterator[House]:
    """Run a server with that many accounts and keys and a month behind it, in front of a simulator."""
    clock = StandingClock()
    hours = HourlyCounts(clock)
    _count_a_day(hours, clock)
    apps: list[Quart] = []
    real = create_app

    def keep(*args: Any, **options: Any) -> Quart:
        apps.append(real(*args, **options))
        return apps[-1]

    async with Simulator(SimulatorOptions(accounts=0, delay=0.0), clock=clock) as sim, AsyncExitStack() as house_stack:
        tokens = [
            sim.control.add_account(("plus", "free", "pro")[number % 3], team=number % 5 == 4).access_token
            for number in range(accounts)
        ]
        labels = await _furnish(folder / "data", tokens)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "create_app", keep)
            opened = open_house(
                folder / "data", sim, clock=clock, SECRET_KEY=SECRET,
                PUBLIC_ORIGINS="https://chat.example.org", TRUSTED_PROXIES="192.0.2.1",
            )  # fmt: skip
            house = await house_stack.enter_async_context(opened)
        apps[0].extensions["chat2api_metrics"].hours = hours
        await _issue_all(house, keys, labels)
        await _add_users(house)
        yield house


async def _furnish(folder: Path, tokens: Sequence[str]) -> list[str]:
    """Write accounts with all that a month does to them; give their labels."""
    chance = random.Random(7)
    await asyncio.to_thread(folder.mkdir, parents=True)
    records = await SqlRecords.open(folder, secret_key=SECRET)
    try:
        added = await records.add_accounts([to_new_account(to_credential(token)) for token in tokens], NOON - 20 * DAY)
        for one in added:
            await records.put_facts(one.account.id, AccountFacts(models=tuple(name for name, _ in MODELS)), NOON - DAY)
        await _trouble(records, [one.account for one in added], chance)
        for ago, what, target in (
            (19 * DAY, "accounts.import", "job_7d1c02a94be05f13"),
            (17 * DAY, "keys.create", "key_3c6e0b8a9c15224a"),
            (6 * DAY, "account.refresh", added[0].account.label),
            (2 * DAY, "keys.change", "key_3c6e0b8a9c15224a"),
            (7200.0, "sign in", ""),
        ):
            await records.actions.add(Action(NOON - ago, "operator key c83a9266", what, target))
        return [one.account.label for one in added]
    finally:
        await records.aclose()


async def _trouble(records: SqlRecords, accounts: Sequence[Account], chance: random.Random) -> None:
    """Give accounts the states that accounts come to, notes, groups and errors."""
    activity, cooldowns = [], []
    for number, account in enumerate(accounts):
        if number % 9 in (3, 7) or number == 1:
            state, reason = TROUBLES[number % len(TROUBLES)]
            current = await records.account(account.id)
            assert current is not None
            await records.set_state(current, state, reason, NOON - chance.randrange(200, 200_000))
        elif number % 6 == 5:
            model = ANY_MODEL if number % 4 else "gpt-5"
            cooldowns.append(Cooldown(account.id, model, NOON + chance.randrange(1200, 9000), True, "stated_limit"))
        note = ("shared with the study group", "backup", "travel")[number % 3] if number % 4 == 1 else None
        groups = (("family", "work")[number % 2],) if number % 3 == 0 else None
        await records.set_details(account.id, note=note, groups=groups)
        failed = number % 5 == 2
        activity.append(
            Activity(
                account.id,
                last_used_at=NOON - chance.randrange(20, 90_000),
                last_error=ERRORS[number // 5 % len(ERRORS)] if failed else None,
                last_error_at=NOON - chance.randrange(600, 300_000) if failed else None,
            )
        )
    await records.put_activity(activity)
    await records.put_cooldowns(cooldowns)


async def _issue_all(house: House, keys: int, labels: Sequence[str]) -> None:
    """Issue keys, and book what they used."""
    chance = random.Random(5)
    now = house.runtime.clock.now()
    ids = [await _issue(house, number, now) for number in range(keys)]
    rows = []
    for back in range(90):
        weekday = datetime.fromtimestamp(now - back * DAY, UTC).weekday()
        for key_id in ids:
            busy = chance.random() * (0.4 if weekday >= 5 else 1.0) * (1.2 - back / 120)
            for model, share in MODELS:
                count = int(busy * share * 60)
                if not count:
                    continue
                rows.append(
                    UsageRow(day_of(now - back * DAY), key_id, chance.choice(labels[:12]), model, requests=count,
                             prompt_tokens=count * chance.randint(200, 900),
                             completion_tokens=count * chance.randint(100, 500), errors=int(chance.random() < 0.08))
                )  # fmt: skip
    await house.runtime.records.usage.add(rows, {key_id: now - chance.randrange(60, 50_000) for key_id in ids})


async def _issue(house: House, number: int, now: float) -> str:
    limits = KeyLimits(requests_per_minute=60, requests_per_day=400 if number % 2 else None,
                       tokens_per_day=(None, 200_000, 1_000_000)[number % 3], requests_at_once=5)  # fmt: skip
    name = NAMES[number % len(NAMES)] + (f" {number // len(NAMES) + 1}" if number >= len(NAMES) else "")
    scope = KeyScope(models=("gpt-5*", "o4-mini")) if number % 3 == 2 else KeyScope()
    ends = None if number == 4 else now + (number * 11 - 4) * DAY if number != 9 else now - DAY
    issued = await house.runtime.keys.issue(
        NewKey(name, ends, note=NOTE if number % 4 == 1 else "", scope=scope, limits=limits)
    )
    if number % len(NAMES) == 8:
        await house.runtime.keys.revoke(issued.key.id)
    return issued.key.id


async def _add_users(house: House) -> None:
    """Make users; the key of one has been revoked, that of another has expired."""
    runtime = house.runtime
    digests = SlowDigests(cost=2**4)
    try:
        quick = LocalUsers(runtime.records, runtime.keys, digests, runtime.clock)
        for number, name in enumerate(USERS):
            ends = runtime.clock.now() + (-DAY if number == 2 else 30 * DAY)
            user = await quick.add(name, f"the password of user {number}", NewKey(name, ends))
            if number == 1:
                await runtime.keys.revoke(user.key_id)
    finally:
        digests.close()
    await runtime.users.reload()


def _count_a_day(hours: HourlyCounts, clock: StandingClock) -> None:
    """Let the server count a day: busy by daylight, quiet at night."""
    chance = random.Random(11)
    for _ in range(24):
        clock.advance(3600.0)
        busy = 8 if datetime.fromtimestamp(clock.now(), UTC).hour < 6 else 60
        for _ in range(chance.randrange(busy // 2, busy)):
            fails = chance.random() < 0.04
            first = None if fails else 0.4 + chance.expovariate(1.6)
            hours.add(failed=fails, tokens=0 if fails else chance.randrange(200, 3000), first=first)
