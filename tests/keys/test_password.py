"""The password is compared slowly, two at once, off the loop."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chat2api.errors import RateLimitedError
from chat2api.keys.password import AT_ONCE, COST, WAITING, Password

RIGHT = "correct horse battery staple"


@pytest.fixture
async def password() -> AsyncIterator[Password]:
    password = Password(RIGHT, cost=2**4)
    yield password
    password.close()


async def test_only_the_password_itself_matches(password: Password) -> None:
    assert await password.matches(RIGHT)
    for wrong in ("", RIGHT.upper(), RIGHT + " ", RIGHT[:-1], "\udcff", "x" * 1000):
        assert not await password.matches(wrong)


async def test_S12_the_cost_is_as_promised_and_the_real_one_works() -> None:
    assert COST == 2**17
    password = Password(RIGHT)
    try:
        assert await password.matches(RIGHT)
        assert not await password.matches("wrong")
    finally:
        password.close()


async def test_S12_two_are_compared_at_once_and_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    password = Password(RIGHT, cost=2**4)
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
    try:
        assert not any(await asyncio.gather(*(password.matches(f"wrong {number}") for number in range(8))))
    finally:
        password.close()
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
    password = Password(RIGHT)
    lags: list[float] = []
    try:
        burst = asyncio.gather(*(password.matches(f"{number}") for number in range(18)), return_exceptions=True)
        while not burst.done():
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - before - 0.005)
        await burst
    finally:
        password.close()
    assert sorted(lags)[int(len(lags) * 0.99)] < 0.2
