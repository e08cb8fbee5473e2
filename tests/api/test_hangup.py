"""Clients that leave while nothing is read from them."""

import asyncio
import socket
import struct
import sys

import pytest

from chat2api.api.hangup import HangupWatch
from tests.api.raw_http import WAIT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll elsewhere")


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.mark.parametrize("how", ["fin", "half", "rst"])
async def test_R10_a_client_that_leaves_is_noticed_behind_bytes_that_nobody_reads(how: str) -> None:
    watch = HangupWatch()
    client, sock = _connected()
    left = asyncio.Event()
    client.send(b"unread" * 1000)

    with watch.watching(sock, left.set):
        await asyncio.sleep(0.02)
        assert not left.is_set()  # bytes alone are no news
        if how == "half":
            client.shutdown(socket.SHUT_WR)
        else:
            if how == "rst":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await asyncio.wait_for(left.wait(), WAIT)

    watch.close()
    client.close()
    sock.close()


async def test_nothing_is_said_after_the_block() -> None:
    watch = HangupWatch()
    client, sock = _connected()
    left: list[bool] = []

    with watch.watching(sock, lambda: left.append(True)):
        pass
    client.close()
    await asyncio.sleep(0.02)

    assert not left
    watch.close()
    sock.close()


async def test_a_connection_closed_during_the_block_does_not_disturb_the_next_with_its_descriptor() -> None:
    watch = HangupWatch()
    left: list[str] = []
    client, sock = _connected()
    with watch.watching(sock, lambda: left.append("first")):
        sock.close()
        client.close()
    client, sock = _connected()
    with watch.watching(sock, lambda: left.append("second")):
        client.close()
        async with asyncio.timeout(WAIT):
            await asyncio.sleep(0.05)

    assert left == ["second"]
    watch.close()
    sock.close()


async def test_a_closed_socket_is_not_watched() -> None:
    watch = HangupWatch()
    client, sock = _connected()
    sock.close()

    with watch.watching(sock, lambda: None):
        client.close()
    watch.close()
