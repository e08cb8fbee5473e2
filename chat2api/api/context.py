"""What belongs to the request being served: its id, its caller, and the Runtime behind the app."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from quart import Quart, Request, g
from quart.ctx import _AppCtxGlobals
from quart.globals import _cv_app, _cv_request  # what stands behind `current_app`, `g` and `request`: see below

from chat2api.errors import Chat2APIError
from chat2api.gateway.provider import Caller
from chat2api.keys.tiers import Tier
from chat2api.runtime import Interruptible, Runtime
from chat2api.storage.actions import Action

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
    runtime: Runtime = _cv_app.get().app.extensions[_EXTENSION]
    return runtime


def current_request() -> Request:
    """Give the current request itself.

    By way of Quart's `request` each look at it takes three calls more, and a request is looked at some forty times.
    """
    return _cv_request.get().request


def current_app() -> Quart:
    """Give the app itself that serves the current request."""
    return _cv_app.get().app


def current_globals() -> _AppCtxGlobals:
    """Give what Quart's `g` stands for, for the same reason."""
    return _cv_app.get().g


def find_runtime(app: Quart) -> Runtime | None:
    """Give the runtime behind an app, None before it has started."""
    return cast("Runtime | None", app.extensions.get(_EXTENSION))


def current_tier() -> Tier | None:
    """Give the tier under whose path the current request lies, None for all other paths."""
    scope: Mapping[str, Any] = _cv_request.get().request.scope
    tier: Tier | None = scope.get(TIER)
    return tier


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who stands before a page or an admin route, decided once by `api/admission.py`.

    An operator, or a person with an issued key (`key_id`). `who` is how the journal names them, without any secret.
    `cookie` is the value of the sign-in's cookie, None when a key was sent as bearer; `csrf` the token that its forms
    carry. A page is also shown to nobody; that is None, not a Visitor.
    """

    role: Literal["operator", "person"]
    who: str
    key_id: str | None = None
    cookie: str | None = field(default=None, repr=False)
    csrf: str | None = field(default=None, repr=False)


def set_visitor(visitor: Visitor | None) -> None:
    """Remember who stands before the current page."""
    g.visitor = visitor


def current_visitor() -> Visitor | None:
    """Give who stands before the current page; None for nobody, and on routes of other classes."""
    return cast("Visitor | None", g.get("visitor"))


def paste_owner() -> str:
    """Give a word for the sign-in that asks, by which `runtime.pastes` keeps something for it and for nobody else."""
    visitor = current_visitor()
    assert visitor is not None  # only pages of people who have signed in keep anything
    return visitor.csrf or visitor.who


def set_caller(caller: Caller) -> None:
    """Remember who makes the current request."""
    _cv_app.get().g.caller = caller


def current_caller() -> Caller:
    """Give who makes the current request; only routes with access class `api` have one."""
    caller: Caller = _cv_app.get().g.caller
    return caller


async def record_action(what: str, target: str = "") -> None:
    """Note in the journal that the current visitor did `what` to `target` (a label, id or count), never a secret (G7).

    Call it once the thing is done. Raises StorageError.
    """
    runtime, visitor = current_runtime(), current_visitor()
    who = visitor.who if visitor is not None else "nobody"
    log.info("%s: %s %s", who, what, target)
    await runtime.records.actions.add(Action(runtime.clock.now(), who, what, target))


def on_request_end(clean_up: Callable[[], Awaitable[None]]) -> None:
    """Have clean_up awaited once when the current request is over, however it ends; the last one first.

    A response's own iterator is no place for that: it may never be started when the client leaves early.
    """
    scope: Mapping[str, Any] = _cv_request.get().request.scope
    clean_ups: CleanUps = scope[CLEAN_UPS]
    clean_ups.add(clean_up)


@asynccontextmanager
async def tried_first() -> AsyncIterator[None]:
    """Try an answer in whose place another may come: when it fails, what it left for the request's end is done at once.

    Until then it would hold a place among its caller's requests beside the other.
    """
    scope: Mapping[str, Any] = _cv_request.get().request.scope
    clean_ups: CleanUps = scope[CLEAN_UPS]
    before = len(clean_ups)
    try:
        yield
    except Chat2APIError:
        await asyncio.shield(current_runtime().spawn(clean_ups.run(keep=before), name="first try"))
        raise


def track_answer(answer: Interruptible, key_id: str | None) -> None:
    """Have the runtime know an answer and the issued key that asked for it, until the current request is over.

    What ends and settles the answer is added after this, and so comes first: an answer that is not known any more holds
    nothing.
    """
    answers = current_runtime().answers
    answers[answer] = key_id

    async def forget() -> None:
        del answers[answer]

    on_request_end(forget)


TIER = "chat2api.tier"
"""Key in the ASGI scope of the tier that `api/tiers.py` found."""

CLEAN_UPS = "chat2api.clean_ups"
"""Key in the ASGI scope of the request's CleanUps."""


class CleanUps:
    """What is to be done when a request is over."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._left: list[Callable[[], Awaitable[None]]] = []

    def add(self, clean_up: Callable[[], Awaitable[None]]) -> None:
        """Do this before all that was added earlier."""
        self._left.append(clean_up)

    def __len__(self) -> int:
        """Give how much is to be done."""
        return len(self._left)

    async def run(self, *, keep: int = 0) -> None:
        """Do all of it but the first so many, each whether or not the one before fails; raise the last failure."""
        while len(self._left) > keep:
            try:
                await self._left.pop()()
            except BaseException:
                await self.run(keep=keep)
                raise
