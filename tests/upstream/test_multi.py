import asyncio

import pytest

from chat2api.upstream.alarms import Alarms
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import Lines, Plan
from chat2api.upstream.multi import _HANDLES_KEPT, _PLANS_KEPT, MultiHandle
from chat2api.upstream.profiles import PROFILES
from chat2api.upstream.readiness import watch_sockets
from chat2api.upstream.transfer import Limits, Transfer
from chat2api.upstream.urls import locate
from tests.origin import Exchange, Origin

NOTHING = Lines(Plan((), ()), [])


class Owner:
    def __init__(self) -> None:
        self.alarms = Alarms(asyncio.get_running_loop())

    def arrive(self, transfer: Transfer, set_cookies: list[str]) -> None: ...

    def end(self, transfer: Transfer, *, failed: bool) -> None: ...


@pytest.fixture
async def multi() -> MultiHandle:
    return MultiHandle(Channel("a", None, PROFILES[0]), None, watch_sockets(asyncio.get_running_loop()))


async def _answer(exchange: Exchange) -> None:
    await exchange.respond(200)
    await exchange.send(b"hello")
    await exchange.finish()


def _begin(multi: MultiHandle, url: str) -> Transfer:
    request = Request("GET", url)
    limits = Limits(asyncio.get_running_loop().time() + 5, max_bytes=100)
    transfer = Transfer(multi.take(request, NOTHING, None), Owner(), request, locate(url), None, limits)
    transfer.start()
    return transfer


async def test_requests_that_begin_in_one_turn_of_the_loop_all_end(multi: MultiHandle) -> None:
    async with Origin(_answer) as origin, asyncio.timeout(5):
        transfers = [_begin(multi, origin.url) for _ in range(20)]
        assert [await transfer.take_whole() for transfer in transfers] == [b"hello"] * 20
        multi.close()


async def test_a_handle_whose_request_ended_well_serves_the_next_of_its_shape(multi: MultiHandle) -> None:
    get = Request("GET", "http://a.test/")
    first = multi.take(get, NOTHING, None)
    first.release(keep=True)
    assert multi.take(Request("POST", "http://a.test/", body=b"x"), NOTHING, None) is not first
    again = multi.take(get, NOTHING, None)
    assert again is first
    other = multi.take(get, NOTHING, None)
    assert other is not first
    again.release(keep=False)
    other.release(keep=False)
    multi.close()


async def test_only_so_many_handles_are_kept(multi: MultiHandle) -> None:
    handles = [multi.take(Request("GET", "http://a.test/"), NOTHING, None) for _ in range(_HANDLES_KEPT + 1)]
    for handle in handles:
        handle.release(keep=True)
    assert [handle.pointer is None for handle in handles] == [False] * _HANDLES_KEPT + [True]
    multi.close()
    assert all(handle.pointer is None for handle in handles)


async def test_plans_of_lines_are_known_again_and_only_so_many(multi: MultiHandle) -> None:
    plan = Plan((b"A: 1",), ())
    first = multi.line_lists(plan)
    assert multi.line_lists(plan) is first
    for _ in range(_PLANS_KEPT):
        multi.line_lists(Plan((b"A: 1",), ()))
    assert multi.line_lists(plan) is not first
    multi.close()


async def test_a_transfer_that_is_aborted_leaves_the_others_alone(multi: MultiHandle) -> None:
    async with Origin(_answer) as origin, asyncio.timeout(5):
        one, other = _begin(multi, origin.url), _begin(multi, origin.url)
        await one.aclose()
        assert await other.take_whole() == b"hello"
        multi.close()
