"""How long each phase may take."""

import asyncio

import pytest

from chat2api.config import Config
from chat2api.errors import UpstreamTimeoutError
from chat2api.gateway.deadlines import AnswerLimits, Watchdog, answer_limits, deadline, is_reasoning
from chat2api.protocol.prompt import ModelChoice


@pytest.mark.parametrize(
    "slug", ["o1", "o1-mini", "o3", "o4-mini", "o4-mini-high", "gpt-5-6-thinking", "gpt-5-pro", "gpt-5-thinking-mini"]
)
def test_R1_reasoning_models_are_known_by_their_slug(slug: str) -> None:
    assert is_reasoning(ModelChoice(slug))


@pytest.mark.parametrize(
    "slug", ["auto", "gpt-4o", "gpt-4o-mini", "gpt-5-5-instant", "text-davinci-002-render-sha", "o"]
)
def test_R1_other_models_are_not(slug: str) -> None:
    assert not is_reasoning(ModelChoice(slug))


def test_R1_a_hint_makes_any_model_reason() -> None:
    assert is_reasoning(ModelChoice("auto", hints=("reason",)))
    assert is_reasoning(ModelChoice("auto", hints=("search", "research")))
    assert not is_reasoning(ModelChoice("auto", hints=("search",)))


def test_R1_the_limits_are_those_of_the_settings() -> None:
    config = Config(
        first_content_timeout=1,
        first_content_timeout_reasoning=2,
        event_timeout=3,
        answer_timeout=4,
        answer_timeout_reasoning=5,
    )
    assert answer_limits(config, reasoning=False) == AnswerLimits(1, 3, 4)
    assert answer_limits(config, reasoning=True) == AnswerLimits(2, 3, 5)


def test_R1_the_defaults_are_the_promised_figures() -> None:
    assert answer_limits(Config(), reasoning=False) == AnswerLimits(60, 60, 900)
    assert answer_limits(Config(), reasoning=True) == AnswerLimits(300, 60, 1800)


async def test_R1_what_is_late_is_cut_and_named() -> None:
    cleaned = []
    with pytest.raises(UpstreamTimeoutError) as caught:
        async with deadline(asyncio.get_running_loop().time() + 0.01, "first_content", "Too slow."):
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)
    assert (caught.value.phase, caught.value.message, caught.value.status) == ("first_content", "Too slow.", 504)
    assert cleaned == [True]


async def test_R1_a_deadline_that_has_passed_cuts_the_first_wait() -> None:
    with pytest.raises(UpstreamTimeoutError):
        async with deadline(asyncio.get_running_loop().time() - 1, "first_content", "Too slow."):
            await asyncio.Event().wait()


async def test_what_is_in_time_passes_and_so_does_its_own_failure() -> None:
    at = asyncio.get_running_loop().time() + 60
    async with deadline(at, "first_content", "Too slow."):
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        async with deadline(at, "first_content", "Too slow."):
            raise KeyError


async def test_a_shorter_limit_inside_is_not_taken_for_this_one() -> None:
    at = asyncio.get_running_loop().time() + 60
    with pytest.raises(TimeoutError):
        async with deadline(at, "first_content", "Too slow."):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()


async def test_R10_leaving_is_no_lateness() -> None:
    async def wait() -> None:
        async with deadline(asyncio.get_running_loop().time() + 60, "first_content", "Too slow."):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_watchdog_cuts_a_wait_at_its_limit_and_goes_on_watching() -> None:
    dog = Watchdog()
    now = asyncio.get_running_loop().time
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await dog.wait(asyncio.Event().wait(), now() + 0.01)
    assert await dog.wait(asyncio.sleep(0, "done"), now() + 0.01) == "done"
    dog.close()


async def test_a_watchdog_whose_limit_moves_on_cuts_only_at_the_last_one() -> None:
    dog = Watchdog()
    now = asyncio.get_running_loop().time
    for _ in range(11):  # longer than the first limit in all
        await dog.wait(asyncio.sleep(0.03), now() + 0.3)
    begin = now()
    with pytest.raises(TimeoutError):
        await dog.wait(asyncio.Event().wait(), begin + 0.03)
    assert now() - begin >= 0.025
    dog.close()


async def test_a_watchdog_cuts_nothing_between_waits() -> None:
    dog = Watchdog()
    now = asyncio.get_running_loop().time
    await dog.wait(asyncio.sleep(0), now() + 0.005)
    await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):
        await dog.wait(asyncio.Event().wait(), now() + 0.005)
    dog.close()


async def test_a_cancel_from_elsewhere_passes_through_a_watchdog() -> None:
    dog = Watchdog()
    far = asyncio.get_running_loop().time() + 60
    task = asyncio.ensure_future(dog.wait(asyncio.Event().wait(), far))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    dog.close()


async def test_blocks_and_waits_share_a_watchdog_one_after_another() -> None:
    dog = Watchdog()
    now = asyncio.get_running_loop().time
    async with deadline(now() + 60, "first_content", "Too slow.", dog):
        await asyncio.sleep(0)
    with pytest.raises(UpstreamTimeoutError, match="Too slow"):
        async with deadline(now() + 0.01, "first_content", "Too slow.", dog):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        await dog.wait(asyncio.Event().wait(), now() + 0.01)
    async with deadline(now() + 0.01, "first_content", "Too slow.", dog):
        pass
    await asyncio.sleep(0.02)  # nobody is watched, so nobody is cut
    dog.close()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
