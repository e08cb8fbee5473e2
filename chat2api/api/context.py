"""What belongs to the request being served: its id, its caller, and the Runtime behind the app."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

from quart import Quart, current_app, g, request

from chat2api.gateway.provider import Caller
from chat2api.runtime import Runtime

log = logging.getLogger(__name__)

_EXTENSION = "chat2api"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a request came from, after believing the reverse proxies that TRUSTED_PROXIES names.

    `network` is the address itself for IPv4 and the /64 for IPv6; it is used in memory only, never kept or logged.
    """

    network: str
    loopback: bool


def bind_runtime(app: Quart, runtime: Runtime) -> None:
    """Make the runtime known to the app's requests."""
    app.extensions[_EXTENSION] = runtime


def running_runtime(app: Quart) -> Runtime:
    """Give the runtime behind an app that has started."""
    return cast(Runtime, app.extensions[_EXTENSION])


def current_runtime() -> Runtime:
    """Give the runtime behind the current request."""
    return cast(Runtime, current_app.extensions[_EXTENSION])


def set_caller(caller: Caller) -> None:
    """Remember who makes the current request."""
    g.caller = caller


def current_caller() -> Caller:
    """Give who makes the current request; only routes with access class `api` have one."""
    return cast(Caller, g.caller)


async def record_action(action: str, what: str) -> None:
    """Keep that the operator did this; `what` names accounts by label or counts them, and holds nothing secret (G7)."""
    log.info("operator: %s %s", action, what)


def on_request_end(clean_up: Callable[[], Awaitable[None]]) -> None:
    """Have clean_up awaited once when the current request is over, however it ends; the last one first.

    A response's own iterator is no place for that: it may never be started when the client leaves early.
    """
    cast(AsyncExitStack, cast(dict[str, Any], request.scope)[CLEAN_UPS]).push_async_callback(clean_up)


CLEAN_UPS = "chat2api.clean_ups"
"""Key in the ASGI scope of the AsyncExitStack with what `on_request_end` registered."""
