"""The operator's API keys as pages and metrics show them: by label, with state, waits, and what to do about the last error."""

from dataclasses import dataclass
from typing import Literal

from chat2api.accounts.views import AccountView, WaitView
from chat2api.gateway.doctor import REMEDY
from chat2api.gateway.openai import OpenAIProvider
from chat2api.sentences import Sentence

KeyState = Literal["ok", "cooling", "refused"]
"""ok: may serve, though perhaps not with every model. cooling: waits with all models. refused: the API does not accept it."""

KEY_STATES: tuple[KeyState, ...] = ("ok", "cooling", "refused")

_REMEDIES = {
    "upstream_account": "api_key",
    "permission_denied": "api_rights",
    "upstream_transport": "api_network",
    "upstream_timeout": "api_network",
    "upstream_protocol": "api_base",
}
"""By the code of the last error."""


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key at this moment. `waits` come with the soonest end first; `last_error` is a code of ours.

    `advice` is what to do about the state or the last error, None where that is nothing.
    """

    label: str
    state: KeyState
    waits: tuple[WaitView, ...]
    last_used_at: float | None
    last_error: str | None
    last_error_at: float | None
    advice: Sentence | None


def key_views(provider: OpenAIProvider) -> list[KeyView]:
    """Give all keys in the order of the setting."""
    return [_show(provider.keys[view.account.id].label, view) for view in provider.pool.views()]


def count_keys(provider: OpenAIProvider) -> dict[KeyState, int]:
    """Count the keys by state."""
    count: dict[KeyState, int] = dict.fromkeys(KEY_STATES, 0)
    for view in provider.pool.views():
        count[_state(view)] += 1
    return count


def _state(view: AccountView) -> KeyState:
    if not view.account.usable:
        return "refused"
    return "cooling" if view.until_at is not None else "ok"


def _show(label: str, view: AccountView) -> KeyView:
    return KeyView(
        label, _state(view), view.waits, view.last_used_at, view.last_error, view.last_error_at, _advice(view)
    )


def _advice(view: AccountView) -> Sentence | None:
    if not view.account.usable:
        return REMEDY("api_key")
    if any(wait.reason == "guessed_limit" for wait in view.waits):
        return REMEDY("api_credit")
    if view.waits:
        return REMEDY("api_wait")
    is_over = (view.last_used_at or 0.0) > (view.last_error_at or 0.0) or view.last_error == "rate_limit_exceeded"
    if view.last_error is None or is_over:
        return None
    return REMEDY(_REMEDIES.get(view.last_error, "api_later"))
