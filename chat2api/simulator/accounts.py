"""The accounts of the simulated backend: their workspaces, tokens and sign-ins.

An access token is a JWT that looks signed: its last part is a keyed digest stretched to the length of an RS256
signature. It is checked by making it again, so tokens of an earlier run with the same seed are known too. A *grant* is
one sign-in: the chain of refresh tokens that follow each other, and all access tokens made from it.
"""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from chat2api.simulator.refusals import refuse
from chat2api.simulator.wire import Object, Request

IOS_CLIENT = "pdlLIX2Y72MIl2rhLhTE9VV9bN905kBh"
CODEX_CLIENT = "app_EMoamEEZ73f0CkXaXp7hrann"
PLATFORM_CLIENT = "app_2SKx67EdpoN0G6j64rFvigXD"

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" * 4
"""Translates any byte to a letter that may stand in a token."""
_AUTH_CLAIM = "https://api.openai.com/auth"
_PAID = frozenset({"go", "plus", "pro", "prolite", "team", "business", "edu", "enterprise"})


@dataclass(slots=True)
class Workspace:
    """A personal account or a team that the user belongs to; `account_id` goes into Chatgpt-Account-Id."""

    account_id: str
    plan: str
    structure: Literal["personal", "workspace"]
    name: str | None = None
    deactivated: bool = False

    @property
    def paid(self) -> bool:
        """Whether the plan is a paid one."""
        return self.plan in _PAID


@dataclass(slots=True)
class Grant:
    """One sign-in. `revoked` ends it and all its tokens."""

    id: str
    account: "Account"
    client_id: str
    refresh_token: str
    revoked: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token that was issued at some time. `replaced_at` None means that it is the current one."""

    grant: Grant
    replaced_at: float | None = None


@dataclass(slots=True)
class Account:
    """One user. The first workspace is the personal one."""

    user_id: str
    email: str
    name: str
    workspaces: list[Workspace]
    created_at: float
    tokens_refused: set[str] = field(default_factory=set)
    """Access tokens that were taken back one by one."""

    @property
    def plan(self) -> str:
        """Plan of the personal workspace."""
        return self.workspaces[0].plan


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an operator would import for one account."""

    user_id: str
    email: str
    plan: str
    account_ids: tuple[str, ...]
    access_token: str
    refresh_token: str
    session_cookie: str

    def to_json(self) -> Object:
        """Give them as JSON."""
        return {
            "user_id": self.user_id,
            "email": self.email,
            "plan": self.plan,
            "account_ids": list(self.account_ids),
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "session_cookie": self.session_cookie,
        }


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: an account in one of its workspaces, or nobody known (`account` None)."""

    account: Account | None
    workspace: Workspace | None
    device_id: str | None

    @property
    def key(self) -> str:
        """Who owns what this caller makes."""
        if self.account is None or self.workspace is None:
            return f"anonymous:{self.device_id}"
        return f"{self.account.user_id}/{self.workspace.account_id}"


class AccountBook:
    """All accounts, and which tokens are good."""

    def __init__(self, seed: str, access_token_lifetime: float) -> None:
        """Start empty; the same seed makes the same accounts and tokens."""
        self._seed = seed.encode()
        self._lifetime = access_token_lifetime
        self._count = 0
        self.accounts: dict[str, Account] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}
        self.session_cookies: dict[str, Grant] = {}
        self._grants: dict[str, Grant] = {}

    def random_bytes(self, purpose: str, count: int) -> bytes:
        """Give bytes that follow from the seed, the purpose and how often this was called."""
        self._count += 1
        return hashlib.shake_256(self._seed + f"|{purpose}|{self._count}".encode()).digest(count)

    def random_text(self, purpose: str, length: int) -> str:
        """Give letters, digits, '-' and '_'."""
        return self.random_bytes(purpose, length).translate(_LETTERS).decode("ascii")

    def random_uuid(self, purpose: str) -> str:
        """Give a version 4 UUID."""
        return str(uuid.UUID(bytes=self.random_bytes(purpose, 16), version=4))

    def add_account(
        self, plan: str = "plus", *, now: float, team: bool = False, kind: Literal["rt", "ios"] = "rt"
    ) -> Credentials:
        """Sign a new user up and in; `team` adds a workspace, `kind` chooses the form of the refresh token."""
        number = len(self.accounts) + 1
        workspaces = [Workspace(self.random_uuid("account"), plan, "personal")]
        if team:
            workspaces.append(Workspace(self.random_uuid("account"), "team", "workspace", f"Team {number}"))
        account = Account(
            user_id="user-" + self.random_text("user", 24).replace("-", "a").replace("_", "b"),
            email=f"person{number}@example.test",
            name=f"Person {number}",
            workspaces=workspaces,
            created_at=now - 86_400.0 * 400,
        )
        self.accounts[account.user_id] = account
        return self.sign_in(account, now=now, kind=kind)

    def sign_in(self, account: Account, *, now: float, kind: Literal["rt", "ios"] = "rt") -> Credentials:
        """Start another grant of an account."""
        client_id = CODEX_CLIENT if kind == "rt" else IOS_CLIENT
        grant = Grant("authsess_" + self.random_text("grant", 24), account, client_id, "")
        self._grants[grant.id] = grant
        self.replace_refresh_token(grant, now)
        return Credentials(
            user_id=account.user_id,
            email=account.email,
            plan=account.plan,
            account_ids=tuple(workspace.account_id for workspace in account.workspaces),
            access_token=self.make_access_token(grant, now),
            refresh_token=grant.refresh_token,
            session_cookie=self.make_session_cookie(grant),
        )

    def replace_refresh_token(self, grant: Grant, now: float) -> None:
        """Give the grant its next refresh token; the one before is remembered as replaced."""
        if (old := self.refresh_tokens.get(grant.refresh_token)) is not None:
            old.replaced_at = now
        if grant.client_id == IOS_CLIENT:
            grant.refresh_token = self.random_text("refresh", 45)
        else:
            grant.refresh_token = "rt_" + self.random_text("refresh", 87)
        self.refresh_tokens[grant.refresh_token] = RefreshToken(grant)

    def make_session_cookie(self, grant: Grant) -> str:
        """Give a web login cookie, shaped like an encrypted JWE."""
        parts = (16, 16, 1_600, 22)
        tail = ".".join(self.random_text("cookie", length) for length in parts)
        cookie = f"eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0.{tail}"
        self.session_cookies[cookie] = grant
        return cookie

    def make_access_token(self, grant: Grant, now: float, *, lifetime: float | None = None) -> str:
        """Give an access token with all claims; a negative lifetime makes an expired one."""
        account = grant.account
        workspace = account.workspaces[0]
        issued_at = int(now)
        claims = {
            "iss": "https://auth.openai.com",
            "aud": ["https://api.openai.com/v1"],
            "iat": issued_at,
            "nbf": issued_at,
            "exp": int(now + (self._lifetime if lifetime is None else lifetime)),
            "client_id": grant.client_id,
            "scp": ["openid", "email", "profile", "offline_access"],
            "jti": self.random_uuid("jti"),
            "sub": f"auth0|{account.user_id[5:]}",
            _AUTH_CLAIM: {
                "chatgpt_account_id": workspace.account_id,
                "chatgpt_account_user_id": f"{account.user_id}__{workspace.account_id}",
                "chatgpt_plan_type": workspace.plan,
                "chatgpt_user_id": account.user_id,
                "user_id": account.user_id,
                "session_id": grant.id,
            },
            "https://api.openai.com/profile": {"email": account.email, "email_verified": True},
        }
        header = _b64url(b'{"alg":"RS256","kid":"simulator-1","typ":"JWT"}')
        signed = f"{header}.{_b64url(orjson.dumps(claims))}"
        return f"{signed}.{self._signature(signed)}"

    def _signature(self, signed: str) -> str:
        key = hmac.new(self._seed, signed.encode(), hashlib.sha256).digest()
        return _b64url(hashlib.shake_256(key).digest(256))

    def check_access_token(self, token: str, now: float) -> Account:
        """Give the account of a good token. Raises Refusal (401) as the backend would."""
        signed, _, signature = token.rpartition(".")
        if token.count(".") != 2 or not hmac.compare_digest(signature.encode(), self._signature(signed).encode()):
            raise refuse("invalid_jwt")
        claims = json.loads(_b64url_decode(signed.partition(".")[2]))
        grant = self._grants.get(claims[_AUTH_CLAIM]["session_id"])
        account = self.accounts.get(claims[_AUTH_CLAIM]["user_id"])
        if account is None or token in account.tokens_refused or (grant is not None and grant.revoked):
            raise refuse("token_invalidated")
        if claims["exp"] <= now:
            raise refuse("token_expired")
        if all(workspace.deactivated for workspace in account.workspaces):
            raise refuse("account_deactivated")
        return account

    def grant_of(self, user_id: str) -> Grant:
        """Give the user's newest grant. Raises KeyError."""
        for grant in reversed(self._grants.values()):
            if grant.account.user_id == user_id:
                return grant
        raise KeyError(user_id)

    def find_account(self, request: Request, now: float) -> Account | None:
        """Give the account of the bearer; None without one. Raises Refusal (401) for a bad one."""
        value = request.header("authorization")
        if value is None:
            return None
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise refuse("unauthorized")
        return self.check_access_token(token, now)

    def known_user(self, request: Request) -> str | None:
        """Give the user id that the bearer names, without judging it; for rules and records."""
        value = request.header("authorization") or ""
        parts = value.rpartition(" ")[2].split(".")
        if len(parts) != 3:
            return None
        try:
            user_id = json.loads(_b64url_decode(parts[1]))[_AUTH_CLAIM]["user_id"]
        except (ValueError, KeyError, TypeError):
            return None
        return user_id if isinstance(user_id, str) else None


def select_workspace(account: Account, request: Request) -> Workspace:
    """Give the workspace that Chatgpt-Account-Id names, the personal one without it. Raises Refusal (403)."""
    wanted = request.header("chatgpt-account-id")
    if wanted is None:
        return account.workspaces[0]
    for workspace in account.workspaces:
        if workspace.account_id == wanted and not workspace.deactivated:
            return workspace
    raise refuse("workspace_unknown")


def make_starting_accounts(book: AccountBook, count: int, now: float) -> Sequence[Credentials]:
    """Make the ready-made accounts: plus, free, a team member with an old-style refresh token, then plus again."""
    made = []
    for number in range(count):
        if number == 1:
            made.append(book.add_account("free", now=now))
        elif number == 2:
            made.append(book.add_account("plus", now=now, team=True, kind="ios"))
        else:
            made.append(book.add_account("plus", now=now))
    return tuple(made)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _b64url_decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
