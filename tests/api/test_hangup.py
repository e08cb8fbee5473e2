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

    watch.watch(sock, left.set)
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


async def test_nothing_is_said_once_it_is_forgotten() -> None:
    watch = HangupWatch()
    client, sock = _connected()
    left: list[bool] = []

    def note() -> None:
        left.append(True)

    watch.watch(sock, note)
    watch.forget(sock, note)
    client.close()
    await asyncio.sleep(0.02)

    assert not left
    watch.close()
    sock.close()


async def test_a_connection_closed_while_watched_does_not_disturb_the_next_with_its_descriptor() -> None:
    watch = HangupWatch()
    left: list[str] = []
    noticed = asyncio.Event()
    client, sock = _connected()

    def first() -> None:
        left.append("first")

    def second() -> None:
        left.append("second")
        noticed.set()

    watch.watch(sock, first)
    sock.close()
    client.close()
    client, sock = _connected()
    watch.watch(sock, second)
    watch.forget(sock, first)
    client.close()
    await asyncio.wait_for(noticed.wait(), WAIT)

    assert left == ["second"]
    watch.close()
    sock.close()


async def test_a_closed_socket_is_not_watched() -> None:
    watch = HangupWatch()
    client, sock = _connected()
    sock.close()

    watch.watch(sock, lambda: None)
    watch.forget(sock, lambda: None)
    client.close()
    watch.close()
