"""The values that records hand out: accounts, their secrets, refresh intents, cooldowns, owners of conversations.

All are frozen: a value is a picture of a row at one moment, and `Account.revision` says which. Nothing here knows
a database; both implementations of `Records` build the same values.
"""

from dataclasses import dataclass, field
from typing import Literal

AccountKind = Literal["refresh", "session", "access", "share", "device"]
"""What the account lives on: a RefreshToken, a session cookie, a bare AccessToken, an `fk-` token, a device id."""

AccountState = Literal["ok", "needs_sign_in", "disabled", "suspect", "in_doubt"]
"""What is stored of an account's health.

ok: may serve. needs_sign_in: its tokens are dead until the operator acts. disabled: set aside by the operator.
suspect: the backend distrusted it; it serves again after its cooldown, and one good answer makes it ok.
in_doubt: a refresh may have consumed its token; it serves until its access token expires.
"""

USABLE_STATES: frozenset[AccountState] = frozenset({"ok", "suspect", "in_doubt"})
"""States whose accounts may be leased."""

ANY_MODEL = "*"
"""The model of a cooldown that holds for the whole account."""

TOMBSTONE_SECONDS = 24 * 3600.0
"""How long a deleted account can be brought back, and how long a replaced token is kept."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account as the records have it. Never holds a token.

    `label` is the short keyed digest that pages and logs show. `workspace_id` is what the operator or caller gave
    and what is sent as Chatgpt-Account-Id; `home_workspace_id` is the one that the token itself names.
    `email` is masked. `expires_at` is the end of the access token, None when unknown. `generation` counts the
    token pairs the account has had. `owner` is the digest of the caller whose private account this is, None for
    the pool's accounts. `rotates` tells whether the last refresh replaced the refresh token, None before any.
    `deleted_at` marks a tombstone. `revision` grows with every change of the row, across all rows.

    `note` and `groups` are the operator's own words. `models` (slugs) and `capabilities` (the backend's names of
    features) are what the backend told at `facts_at`, None before it was ever asked. `last_used_at`, `last_error` (a
    code of ours, never a text of the backend) and `last_error_at` are written late and without a new revision: they
    are as old as this picture, and the pool knows newer ones.
    """

    id: str
    label: str
    kind: AccountKind
    state: AccountState
    reason: str | None
    state_at: float
    plan: str | None
    user_id: str | None
    workspace_id: str | None
    home_workspace_id: str | None
    email: str | None
    device_id: str
    expires_at: float | None
    generation: int
    added_at: float
    owner: str | None
    rotates: bool | None
    deleted_at: float | None
    revision: int
    note: str = ""
    groups: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    facts_at: float | None = None
    last_used_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    @property
    def workspace(self) -> str | None:
        """The workspace it works in: the one given, else the one its token names."""
        return self.workspace_id or self.home_workspace_id

    @property
    def usable(self) -> bool:
        """Whether it may be leased, cooldowns aside."""
        return self.deleted_at is None and self.state in USABLE_STATES


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token tells about its account; None where it tells nothing. `email` is already masked."""

    user_id: str | None = None
    home_workspace_id: str | None = None
    plan: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """An account's tokens in clear. `previous` is the refresh token before the last rotation, for 24 hours.

    `renewable` is a RefreshToken or a session cookie (by the account's kind).
    """

    access: str | None = field(default=None, repr=False)
    renewable: str | None = field(default=None, repr=False)
    previous: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be added, or merged into the one that is already known by a token or by user and workspace.

    `device_id` None lets the records choose one that never changes again.
    """

    kind: AccountKind
    secrets: Secrets
    identity: Identity = Identity()
    workspace_id: str | None = None
    expires_at: float | None = None
    device_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one NewAccount: a new account, news for a known one, or nothing new."""

    account: Account
    outcome: Literal["added", "merged", "unchanged"]


@dataclass(frozen=True, slots=True)
class Known:
    """What the records would make of a NewAccount: the account that it is, None for a new one, which gets `label`.

    Two new ones with the same `merge_key` are one account; None where the token does not tell its user.
    """

    account: Account | None
    label: str
    merge_key: str | None


@dataclass(frozen=True, slots=True)
class RefreshIntent:
    """The promise, on disk, that a token is about to be sent.

    While it stands, nobody knows whether the token is consumed. `retried_at` is set once the same token was sent
    a second time, which happens at most once.
    """

    account_id: str
    generation: int
    token_digest: str
    started_at: float
    replica: str
    retried_at: float | None


@dataclass(frozen=True, slots=True)
class RefreshView:
    """All that a refresh decides on, read in one transaction."""

    account: Account
    secrets: Secrets
    intent: RefreshIntent | None


@dataclass(frozen=True, slots=True)
class FreshTokens:
    """The outcome of a refresh. `renewable` None means that the server did not rotate it."""

    access: str = field(repr=False)
    renewable: str | None = field(repr=False)
    expires_at: float | None
    identity: Identity


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A wait of an account for one model, or for all (`ANY_MODEL`).

    `stated` is True when the backend named the time: such a wait is always kept. `strikes` counts the guessed
    waits in a row, for doubling.
    """

    account_id: str
    model: str
    until_at: float
    stated: bool
    reason: str
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """When an account last served, and the code of its last error; None leaves what is stored."""

    account_id: str
    last_used_at: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the backend told of an account; None leaves what is stored."""

    plan: str | None = None
    models: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that changed after a revision, and the revision up to which they are complete."""

    revision: int
    accounts: tuple[Account, ...]
    cooldowns: tuple[Cooldown, ...]


@dataclass(frozen=True, slots=True)
class ConversationOwner:
    """Who a conversation belongs to: the account it lives on and the digest of the caller who began it."""

    conversation_id: str
    account_id: str
    owner: str
    last_message_id: str | None
    updated_at: float
