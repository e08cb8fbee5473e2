"""What a renewal is made of: the exchange of a renewable token at the sign-in server, its answer, and what that means."""

from dataclasses import dataclass, field
from typing import Protocol

from chat2api.accounts.tokens import UNKNOWN_LIFE, read_claims
from chat2api.errors import Chat2APIError, TransportError, UpstreamTimeoutError
from chat2api.storage.values import Account, FreshTokens


@dataclass(frozen=True, slots=True)
class RefreshAnswer:
    """What the sign-in server gave. `renewable` None: it did not rotate. `date_skew`: its clock minus ours, seconds."""

    access: str = field(repr=False)
    renewable: str | None = field(repr=False)
    expires_in: float | None = None
    date_skew: float = 0.0


class Exchange(Protocol):
    """Sends a renewable token once and gives the answer; never tries again by itself.

    Raises AccountRejectedError when the server says that the token is dead (invalid_grant and its like);
    TransportError with `request_sent`, or UpstreamTimeoutError of a phase after connect, when the outcome is
    unknown: no answer, or a 200 that is cut, empty or without an access token; any other Chat2APIError when the token
    cannot have been consumed: 429, 5xx, a page, a connection that never stood, no exit to send through.
    """

    async def __call__(self, account: Account, token: str) -> RefreshAnswer:
        """Exchange a RefreshToken, or a session cookie (`account.kind` tells), for an access token."""
        ...


def outcome_unknown(error: Chat2APIError) -> bool:
    """Whether the server may have acted on a request although we have no answer."""
    if isinstance(error, TransportError):
        return error.request_sent
    return isinstance(error, UpstreamTimeoutError) and error.phase != "connect"


def fresh_tokens(answer: RefreshAnswer, now: float) -> FreshTokens:
    """Give what is stored of an answer; `now` is by the server's clock, as all ends of tokens are."""
    claims = read_claims(answer.access)
    expires_at = claims.expires_at
    if expires_at is None:
        expires_at = now + (answer.expires_in if answer.expires_in is not None else UNKNOWN_LIFE)
    return FreshTokens(answer.access, answer.renewable, expires_at, claims.identity)
