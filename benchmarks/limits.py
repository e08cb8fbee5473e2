"""What issued keys cost a request: looking the key up, admitting, picking an account, counting, settling and booking.

All of it is the server's own code on records in memory, without HTTP and without a backend. The time is the whole
process's CPU, so the ledger's writes count, too. Start it by `python -m benchmarks.limits`.
"""

import asyncio
import random
import time
from types import SimpleNamespace
from typing import cast

from quart import Quart

from benchmarks.processes import BenchmarkError
from chat2api.accounts.pool import AccountPool, Outcome
from chat2api.api.charging import Charge, check_model
from chat2api.clock import SystemClock
from chat2api.gateway.provider import Caller
from chat2api.keys.issue import KeyRing
from chat2api.keys.ledger import Ledger
from chat2api.keys.quota import Quotas
from chat2api.keys.scope import AccountScopes
from chat2api.protocol.events import Event, Finished, Started, TextDelta
from chat2api.protocol.openai.usage import load_tokenizer
from chat2api.protocol.prompt import Message, TextPart
from chat2api.runtime import Runtime
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.quotas import MemoryQuotas
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.values import NewAccount, Secrets

ACCOUNTS, KEYS = 1000, 100
ROUNDS = 5
REQUESTS = 2000
"""Requests a round; the median round counts."""

_LIMITS = KeyLimits(10**6, 10**9, 10**6, 10**6, 10**9, 10**9, 10**12)
_MESSAGES = (Message("user", (TextPart("Name three rivers in Europe and say in one sentence each where they flow."),)),)
_EVENTS: tuple[Event, ...] = (
    Started("c", "m", "gpt-5"),
    *(TextDelta(f"word {number} ") for number in range(20)),
    Finished("stop", "c", "m", "gpt-5"),
)


def run(*, rounds: int = ROUNDS, requests: int = REQUESTS) -> dict[str, float]:
    """Measure; milliseconds of CPU a request, `with_keys` in all, `pick` for the account alone."""
    return asyncio.run(_measured(rounds, requests))


async def _measured(rounds: int, requests: int) -> dict[str, float]:
    async with Quart("benchmark").app_context():
        return await _measure(rounds, requests)


async def _measure(rounds: int, requests: int) -> dict[str, float]:
    load_tokenizer()
    clock = SystemClock()
    records = await SqlRecords.in_memory()
    new = [
        NewAccount("access", Secrets(access=f"token-{number:06}"), expires_at=clock.now() + 1e6)
        for number in range(ACCOUNTS)
    ]
    await records.add_accounts(new, clock.now())
    pool = AccountPool(records, clock, rng=random.Random(1))
    await pool.start()
    accounts = pool.accounts()
    ring = KeyRing(records, clock)
    secrets = []
    for number in range(KEYS):
        # Every other key is held to half of the accounts and to some models.
        labels = tuple(account.label for account in accounts[number % 2 :: 2]) if number % 2 else None
        scope = KeyScope(models=("gpt-4*", "gpt-5*") if number % 2 else None, accounts=labels)
        secrets.append((await ring.issue(NewKey(f"key {number}", None, scope=scope, limits=_LIMITS))).secret)
    parts = SimpleNamespace(
        clock=clock,
        quotas=Quotas(MemoryQuotas(clock)),
        ledger=Ledger(records.usage, clock, lambda work, name: asyncio.get_running_loop().create_task(work)),
    )
    runtime = cast(Runtime, parts)
    scopes = AccountScopes(pool.accounts, clock)
    writing = asyncio.get_running_loop().create_task(parts.ledger.run())
    following = asyncio.get_running_loop().create_task(ring.run())

    async def pick(owner: str, allowed: frozenset[str] | None) -> str:
        lease = await pool.lease(model="gpt-5", owner=owner, affinity=owner, allowed=allowed)
        await lease.release(Outcome.SERVED)
        return lease.account.label

    async def request(secret: str) -> None:
        key = ring.look_up(secret)
        if key is None or key.ended(clock.now()) is not None:
            raise BenchmarkError("a key was not found")
        caller = Caller("issued_key", owner=f"issued:{key.id}", key=key, allowed=scopes.allowed(key))
        check_model(caller, "gpt-5")
        charge = Charge(runtime, caller, _MESSAGES)
        await charge.reserve("gpt-5", 500, 1)
        charge.facts.account, charge.facts.model = await pick(caller.owner, caller.allowed), "gpt-5"
        charge.add(_EVENTS)
        await parts.quotas.rooms(key)  # for the answer's headers
        await charge.settle(failed=False)

    async def cpu(count: int, *, whole: bool) -> float:
        await asyncio.sleep(0)
        began = time.process_time()
        for number in range(count):
            secret = secrets[number % KEYS]
            if whole:
                await request(secret)
            else:
                await pick(f"owner {number % KEYS}", None)
            if number % 20 == 0:
                await asyncio.sleep(0)
        return (time.process_time() - began) / count * 1000

    await cpu(KEYS * 2, whole=True)
    told = {
        "with_keys": sorted([await cpu(requests, whole=True) for _ in range(rounds)])[rounds // 2],
        "pick": sorted([await cpu(requests, whole=False) for _ in range(rounds)])[rounds // 2],
    }
    for task in (writing, following):
        task.cancel()
    await asyncio.gather(writing, following, return_exceptions=True)
    await parts.ledger.flush()
    booked = sum(row.requests for row in await records.usage.rows())
    await records.aclose()
    if booked != KEYS * 2 + rounds * requests:
        raise BenchmarkError(f"{booked} requests were booked, not all that were made")
    return told


if __name__ == "__main__":
    for name, milliseconds in run().items():
        print(f"{name}: {milliseconds:.3f} ms")
