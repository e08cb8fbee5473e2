"""What an operator pasted waits in memory, for ten minutes and for nobody else."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from chat2api.accounts import pastes
from chat2api.accounts.pastes import KEPT_SECONDS, Pastes
from chat2api.errors import NotFoundError
from tests.clocks import FakeClock


class Kept(Pastes):
    """Pastes whose tasks of forgetting a test runs itself."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks: list[asyncio.Task[None]] = []
        super().__init__(self.clock, self._start)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))


async def test_a_paste_is_given_once_to_its_owner() -> None:
    kept = Kept()
    paste = kept.hold("mine", "rt_secret")
    with pytest.raises(NotFoundError):
        kept.take("other", paste)
    kept.drop("other", paste)
    assert kept.take("mine", paste) == "rt_secret"
    with pytest.raises(NotFoundError):
        kept.take("mine", paste)


async def test_a_dropped_paste_is_gone() -> None:
    kept = Kept()
    paste = kept.hold("mine", "text")
    kept.drop("mine", paste)
    kept.drop("mine", paste)
    with pytest.raises(NotFoundError):
        kept.take("mine", paste)


async def test_S17_a_paste_is_forgotten_after_ten_minutes_though_nobody_asks() -> None:
    kept = Kept()
    kept.hold("mine", "rt_secret")
    assert "rt_secret" not in repr(vars(kept)), "no log could show it"
    await asyncio.gather(*kept.tasks)
    assert kept.clock.monotonic() >= KEPT_SECONDS
    assert not vars(kept)["_pastes"]


async def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pastes, "MAX_CHARACTERS", 10)
    kept = Kept()
    first, second = kept.hold("mine", "x" * 6), kept.hold("mine", "y" * 6)
    with pytest.raises(NotFoundError):
        kept.take("mine", first)
    assert kept.take("mine", second) == "y" * 6
    large = kept.hold("mine", "z" * 20)
    assert kept.take("mine", large) == "z" * 20, "one alone is bounded by the body that brought it"
