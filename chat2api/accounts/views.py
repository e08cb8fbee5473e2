"""Accounts as pages show them: state with its reason, waits with their ends, the last error with what to do about it.

Only words of ours: what the backend or a person wrote never stands here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chat2api.errors import (
    AccountRejectedError,
    CallerTokenRejectedError,
    RefusedError,
    UpstreamError,
    UpstreamRefusedRequestError,
)
from chat2api.sentences import Phrases
from chat2api.storage.values import ANY_MODEL, Account, AccountState

ShownState = AccountState | Literal["cooling"]
"""A stored state, or cooling: well, but waiting with all models."""

_SIGN_IN = "Sign in with a browser and add the new token."
_WAIT = "Nothing needs to be done: it is used again when its wait ends."
_NETWORK = "Check the network, PROXY_URL and CHATGPT_BASE_URL."
_BACKEND = "Try again later; if it stays so, the backend has changed or refuses this account."

_SIGN_IN_REASONS = frozenset(
    {
        "token_revoked",
        "invalid_grant",
        "refresh_token_reused",
        "no_refresh_token",
        "session_ended",
        "needs_sign_in",
        "in_doubt",
    }
)

SAY = Phrases(
    "advice",
    {
        **dict.fromkeys(sorted(_SIGN_IN_REASONS), _SIGN_IN),
        "by_operator": "Enable it when it shall serve again.",
        "unknown_outcome": "Its token may be used up. It serves until its access token ends; sign in again before that.",
        "account_deactivated": "The backend has closed this account. Ask its support, or remove it.",
        "upstream_account": _SIGN_IN,
        "restored_copy": "The records are an older copy. Add the newest tokens, or confirm that the copy may be refreshed.",
        "workspace_not_allowed": "Add its token again with the id of a workspace that it belongs to, or with none.",
        "token_expired": "Its access token has ended, and it has nothing to renew it with. Add a new token.",
        "invalid_jwt": "The backend does not take this for an access token. Copy it again, whole, and add it.",
        "human_check": "Sign in with a browser and do what the website asks for.",
        "distrusted": "Use another exit address (PROXY_URL), or wait: the backend distrusts this one.",
        "upstream_challenge": "Use another exit address (PROXY_URL), or sign in with a browser and do what it asks for.",
        "stated_limit": _WAIT,
        "guessed_limit": _WAIT,
        "failing": _WAIT,
        "rate_limit_exceeded": _WAIT,
        "refresh_failed": "The sign-in server did not answer well. It is asked again when the wait ends.",
        "upstream_transport": _NETWORK,
        "upstream_timeout": _NETWORK,
        "proof_of_work_too_hard": "The backend wants more computing than this server is set to do, mostly because it distrusts "
        "the exit address. Use another one (PROXY_URL), or allow more: PROOF_TIMEOUT gives each search longer, a smaller "
        "POW_DIFFICULTY lets in harder proofs.",
        "other": _BACKEND,
    },
)
"""What to do about a reason or an error's code."""


@dataclass(frozen=True, slots=True)
class WaitView:
    """A wait that lasts: its model (ANY_MODEL for all), its end as an instant and in seconds from now, and why."""

    model: str
    seconds: float
    until_at: float
    stated: bool
    reason: str


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as pages show it, at this moment.

    `reason` is a word for the state, None while nothing is wrong; `advice` a sentence for the operator, "" when
    nothing has to be done. `waits` come with the soonest end first. `last_error` is a code of ours.
    """

    account: Account
    state: ShownState
    reason: str | None
    advice: str
    waits: tuple[WaitView, ...]
    in_flight: int
    last_used_at: float | None
    last_error: str | None
    last_error_at: float | None

    @property
    def until_at(self) -> float | None:
        """When it may serve at all again; None when it does not wait with all models."""
        return max((wait.until_at for wait in self.waits if wait.model == ANY_MODEL), default=None)

    @property
    def last_error_advice(self) -> str:
        """What to do about the last error."""
        return advice_for(self.last_error) if self.last_error is not None else ""


def show_account(
    account: Account,
    waits: Iterable[WaitView],
    *,
    in_flight: int,
    last_used_at: float | None,
    last_error: str | None,
    last_error_at: float | None,
) -> AccountView:
    """Give the view of an account with these waits, which last."""
    ordered = tuple(sorted(waits, key=lambda wait: wait.seconds))
    whole = max((wait for wait in ordered if wait.model == ANY_MODEL), key=lambda wait: wait.seconds, default=None)
    cooling = account.usable and whole is not None
    reason = whole.reason if cooling and whole is not None else account.reason
    advice = ""
    if reason is not None or account.state != "ok":
        known = reason is not None and (account.usable or reason in SAY)
        advice = advice_for(reason if known and reason is not None else account.state)
    return AccountView(
        account=account,
        state="cooling" if cooling else account.state,
        reason=reason,
        advice=advice,
        waits=ordered,
        in_flight=in_flight,
        last_used_at=last_used_at,
        last_error=last_error,
        last_error_at=last_error_at,
    )


def advice_for(code: str) -> str:
    """Give a sentence for the operator about a reason or an error's code; "" for one that asks for nothing."""
    return "" if code == "removed" else SAY(code if code in SAY else "other")


def error_code(error: Exception) -> str | None:
    """Give the word by which an error is kept with its account; None for one that the account is not part of."""
    match error:
        case UpstreamRefusedRequestError() | RefusedError() | CallerTokenRejectedError():
            return None
        case AccountRejectedError():
            return error.reason if error.reason in SAY or error.reason == "removed" else error.code
        case UpstreamError():
            return error.code
        case _:
            return None
