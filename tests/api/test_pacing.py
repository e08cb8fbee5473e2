"""Pacing: nobody waits while the loop is quiet; together while it is busy."""

import asyncio
from contextlib import ExitStack

from chat2api.api.pacing import Pacer


async def test_a_lone_stream_is_never_held() -> None:
    pacer = Pacer(beat=3600)
    with pacer.stream():
        await asyncio.wait_for(pacer.hold(), 1)


async def test_busy_streams_leave_on_one_beat() -> None:
    pacer = Pacer(beat=0.02, busy_streams=2)
    released: list[int] = []

    async def writer(number: int) -> None:
        await pacer.hold()
        released.append(number)

    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(pacer.stream())
        writers = [asyncio.get_running_loop().create_task(writer(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert released == []
        await asyncio.wait(writers, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert sorted(released) == [0, 1, 2]
    assert pacer.live == 0


async def test_a_cancelled_stream_does_not_disturb_the_others() -> None:
    pacer = Pacer(beat=0.01, busy_streams=0)
    with pacer.stream():
        waiting = [asyncio.get_running_loop().create_task(pacer.hold()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait_for(waiting[1], 1)
    assert waiting[0].cancelled()
