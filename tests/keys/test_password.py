"""The password is compared slowly, two at once, off the loop."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chat2api.errors import RateLimitedError
from chat2api.keys.password import AT_ONCE, COST, WAITING, Password, SlowDigests

RIGHT = "correct horse battery staple"


@pytest.fixture
async def digests() -> AsyncIterator[SlowDigests]:
    """Digests that are quick to make."""
    made = SlowDigests(cost=2**4)
    yield made
    made.close()


@pytest.fixture
def password(digests: SlowDigests) -> Password:
    return Password(RIGHT, digests)


async def test_only_the_password_itself_matches(password: Password) -> None:
    assert await password.matches(RIGHT)
    for wrong in ("", RIGHT.upper(), RIGHT + " ", RIGHT[:-1], "\udcff", "x" * 1000):
        assert not await password.matches(wrong)


async def test_S12_the_cost_is_as_promised_and_the_real_one_works() -> None:
    assert COST == 2**17
    digests = SlowDigests()
    password = Password(RIGHT, digests)
    try:
        assert await password.matches(RIGHT)
        assert not await password.matches("wrong")
    finally:
        digests.close()


async def test_S12_two_are_compared_at_once_and_off_the_loop(
    monkeypatch: pytest.MonkeyPatch, password: Password
) -> None:
    assert await password.matches(RIGHT)
    running, most, names = 0, 0, set()
    lock, both = threading.Lock(), threading.Barrier(AT_ONCE)
    real = hashlib.scrypt

    def slow(*args: Any, **options: Any) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            names.add(threading.current_thread().name)
        both.wait(10)
        with lock:
            running -= 1
        return real(*args, **options)

    monkeypatch.setattr(hashlib, "scrypt", slow)
    assert not any(await asyncio.gather(*(password.matches(f"wrong {number}") for number in range(8))))
    assert most == AT_ONCE
    assert all(name.startswith("password") for name in names)


async def test_S12_a_burst_is_refused_beyond_what_may_wait(password: Password) -> None:
    results = await asyncio.gather(
        *(password.matches(f"wrong {number}") for number in range(200)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, RateLimitedError)]
    assert len(refused) == 200 - AT_ONCE - WAITING
    assert results.count(False) == AT_ONCE + WAITING
    assert await password.matches(RIGHT), "afterwards there is room again"


@pytest.mark.nightly
async def test_S12_a_burst_leaves_the_loop_alone() -> None:
    digests = SlowDigests()
    password = Password(RIGHT, digests)
    lags: list[float] = []
    try:
        burst = asyncio.gather(*(password.matches(f"{number}") for number in range(18)), return_exceptions=True)
        while not burst.done():
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - before - 0.005)
        await burst
    finally:
        digests.close()
    assert sorted(lags)[int(len(lags) * 0.99)] < 0.2


# Digests that are stored


async def test_a_stored_digest_knows_its_password_and_its_own_cost(digests: SlowDigests) -> None:
    stored = await digests.make(RIGHT)
    assert stored.startswith("scrypt$16$")
    assert len(stored) <= 200, "as much as the column holds"
    assert await digests.matches(RIGHT, stored)
    assert not await digests.matches(RIGHT + "x", stored)
    dearer = SlowDigests(cost=2**5)
    try:
        assert await dearer.matches(RIGHT, stored), "one that was made at another cost still works"
    finally:
        dearer.close()


async def test_the_same_password_never_has_the_same_digest(digests: SlowDigests) -> None:
    assert len({await digests.make(RIGHT) for _ in range(5)}) == 5


async def test_S12_nobodys_password_costs_as_much_as_a_wrong_one(
    monkeypatch: pytest.MonkeyPatch, digests: SlowDigests
) -> None:
    stored = await digests.make(RIGHT)
    costs: list[int] = []
    real = hashlib.scrypt

    def counted(*arguments: Any, **options: Any) -> bytes:
        costs.append(options["n"])
        return real(*arguments, **options)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    assert not await digests.matches("wrong", stored)
    assert not await digests.matches("wrong", None)
    assert not await digests.matches(RIGHT, None)
    assert costs == [2**4] * 3


async def test_a_digest_of_another_kind_is_no_password(digests: SlowDigests) -> None:
    with pytest.raises(ValueError, match="kind"):
        await digests.matches(RIGHT, "md5$1$AA==$AA==")
