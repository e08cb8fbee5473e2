"""How the suite is run: the same cases each time, and as many processes as there are cores for them."""

import gc
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from chat2api.errors import TransportError
from chat2api.upstream.transport import Channel, CurlTransport, Request
from chat2api.upstream.urls import locate

MOST_WORKERS = 4
"""More processes than this gain little: the longest file decides."""

# What a run of the suite finds depends on the code and on nothing else. `make nightly` tries new cases each time.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("new", database=None, deadline=None, max_examples=500, print_blob=True)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)  # plain pytest does without that plugin
def pytest_xdist_auto_num_workers() -> int:
    """Give the number of processes for `-n auto`: one for each core that we may use; 0, which is none, on one core."""
    ours = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    cores = min(ours, allowed_cores(Path("/sys/fs/cgroup/cpu.max")), MOST_WORKERS)
    return cores if cores > 1 else 0


def allowed_cores(limit: Path) -> int:
    """Give how many whole cores a container may use, by the kernel's file; MOST_WORKERS where it states no limit."""
    try:
        quota, period = limit.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):  # no such file on other systems; "max" for no limit
        return MOST_WORKERS


@pytest.fixture(scope="session", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Look for what was never closed while there still is a test that can fail for it.

    pytest looks once more after the last test, but what it finds in another process then is told to nobody.
    """
    yield
    for _ in range(5):  # what is freed may free more
        gc.collect()


def is_outside(host: str | bytes | None, *, address: bool = False) -> bool:
    """Whether a name is not of this machine, or with `address` an address; names under `.invalid` are nobody's."""
    name = (host.decode() if isinstance(host, bytes) else host or "").strip("[]").lower()
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return name != "" and name != "localhost" and not name.endswith((".localhost", ".invalid"))
    return address and not (number.is_loopback or number.is_unspecified)


@pytest.fixture(scope="session")
def outside() -> Iterator[list[str]]:
    """The hosts outside this machine that somebody wanted to reach, by Python or by libcurl; nobody is let through."""
    wanted: list[str] = []
    look_up = socket.getaddrinfo

    def look_up_inside(host: Any, *arguments: Any, **options: Any) -> Any:
        if is_outside(host):
            wanted.append(str(host))
            raise socket.gaierror(socket.EAI_NONAME, "outside this machine")
        return look_up(host, *arguments, **options)

    def stay_inside(call: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def checked(
            self: CurlTransport, channel: Channel, asked: Request | str, *more: Any, **limits: Any
        ) -> Any:
            url, address = (asked, None) if isinstance(asked, str) else (asked.url, asked.address)
            host = locate(url if channel.proxy is None else channel.proxy).host
            if address is None and is_outside(host, address=True):
                wanted.append(host)
                raise TransportError("Tests do not leave this machine.", phase="resolve")
            return await call(self, channel, asked, *more, **limits)

        return checked

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up_inside)
        for name in ("fetch", "open", "connect"):
            patch.setattr(CurlTransport, name, stay_inside(getattr(CurlTransport, name)))
        yield wanted


@pytest.fixture(autouse=True)
def nobody_leaves_the_machine(outside: list[str]) -> Iterator[None]:
    """Fail the test during which somebody wanted to."""
    yield
    hosts, outside[:] = set(outside), []
    assert not hosts, f"a test reaches for {', '.join(sorted(hosts))}"
