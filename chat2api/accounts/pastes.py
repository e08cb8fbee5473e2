"""Texts with tokens between their preview and their saving: in memory, for ten minutes, for one sign-in.

A page that shows a preview names the paste by a random id, so that pasted tokens never travel back to a browser.
"""

import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from chat2api.clock import Clock
from chat2api.errors import NotFoundError

KEPT_SECONDS = 600.0
"""How long a paste waits to be saved."""

MAX_CHARACTERS = 32 * 1024 * 1024
"""Characters of all pastes together; the oldest ones make room."""


@dataclass(frozen=True, slots=True)
class _Paste:
    owner: str
    text: str
    ends: float

    def __repr__(self) -> str:
        return f"_Paste({len(self.text)} characters)"


class Pastes:
    """Holds pastes. `owner` is a word for the sign-in that they belong to."""

    def __init__(self, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None], str], object]) -> None:
        """Forget pastes by tasks that `spawn` starts and ends with the server."""
        self._clock = clock
        self._spawn = spawn
        self._pastes: dict[str, _Paste] = {}

    def hold(self, owner: str, text: str) -> str:
        """Keep a text; give the id by which its owner gets it back."""
        paste_id = secrets.token_urlsafe(16)
        self._pastes[paste_id] = _Paste(owner, text, self._clock.monotonic() + KEPT_SECONDS)
        while len(self._pastes) > 1 and sum(len(one.text) for one in self._pastes.values()) > MAX_CHARACTERS:
            del self._pastes[next(iter(self._pastes))]
        self._spawn(self._forget(paste_id), "forget a paste")
        return paste_id

    def take(self, owner: str, paste_id: str) -> str:
        """Give a text and forget it. Raises NotFoundError for one that is gone, or somebody else's."""
        paste = self._pastes.get(paste_id)
        if paste is None or paste.owner != owner or paste.ends <= self._clock.monotonic():
            raise NotFoundError("This paste is gone: it is kept for ten minutes. Paste it again.", code="paste_gone")
        del self._pastes[paste_id]
        return paste.text

    def drop(self, owner: str, paste_id: str) -> None:
        """Forget a text of this owner, if it is still there."""
        paste = self._pastes.get(paste_id)
        if paste is not None and paste.owner == owner:
            del self._pastes[paste_id]

    async def _forget(self, paste_id: str) -> None:
        await self._clock.sleep(KEPT_SECONDS)
        self._pastes.pop(paste_id, None)
