"""Where a caller's accounts come from, and how one of them becomes a session with the backend.

Four kinds of callers, three sets of accounts: the operator's pool (which also keeps callers' own RefreshTokens, as private
accounts, so that a rotated token is never lost), visitors (AccessTokens that callers bring, and sign-in-free chat; in
memory only), and the demo's account at the simulator. All are pools, so limits and waits hold for all alike.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from chat2api.accounts.adoption import Adoptions
from chat2api.accounts.budget import RetryBudget
from chat2api.accounts.exits import Exit, Exits
from chat2api.accounts.health import Verdict
from chat2api.accounts.pool import AccountPool, Lease, Outcome
from chat2api.accounts.refresh import TokenKeeper
from chat2api.accounts.tokens import read_claims, tell_kind
from chat2api.clock import Clock
from chat2api.errors import AllAccountsCoolingError, InvalidAPIKeyError
from chat2api.gateway.provider import Caller
from chat2api.storage.records import Records
from chat2api.storage.values import NewAccount, Secrets
from chat2api.upstream.chatgpt.session import Credential, Session

Way = tuple[str, Exit]
"""A way to the backend: a value of CHATGPT_BASE_URL and an exit."""


@dataclass(frozen=True, slots=True)
class AccountSource:
    """A set of accounts with what renews their tokens, what remembers them, and the backend they belong to.

    `upstream` is told in a response header where it is not None. `token_url` is where RefreshTokens are renewed.
    """

    pool: AccountPool
    keeper: TokenKeeper
    records: Records
    origins: Sequence[str]
    exits: Exits
    upstream: str | None = None
    token_url: str = ""
    budget: RetryBudget = field(default_factory=RetryBudget)

    async def open_session(
        self, lease: Lease, *, workspace: str | None, avoid: Set[Way] = frozenset(), renew: bool = False
    ) -> Session:
        """Give the session of a leased account, its access token renewed where that is due (or `renew` asks for it).

        `workspace` is what the caller asked for; `avoid` are ways that failed this request. Raises
        AccountRejectedError when the account needs a new sign-in, AllAccountsCoolingError when no exit may be used.
        """
        account = lease.account
        origin, proxy = self._choose_way(account.id, avoid)
        credential: Credential = "anonymous" if account.kind == "device" else "account"
        if account.kind == "access" and account.owner is not None:
            credential = "caller"
        token = None if account.kind == "device" else await self.keeper.access_token(account, force=renew)
        # What the backend says of this token is said of the account as it is now, not as it was leased.
        lease.account = self.pool.account(account.id) or account
        return Session(
            key=account.id,
            device_id=account.device_id,
            origin=origin,
            proxy=proxy,
            access_token=token,
            workspace_id=workspace or account.workspace_id,
            credential=credential,
            private=account.owner is not None,
        )

    async def free(self, lease: Lease, session: Session | None, outcome: Outcome | Exception) -> Verdict:
        """Release an account and tell its session's exit, if there was one, how it went; give what the outcome means."""
        verdict = await lease.release(outcome)
        if session is not None:
            self.report(session, verdict if outcome is not Outcome.ABANDONED else None)
        return verdict

    def report(self, session: Session, verdict: Verdict | None) -> None:
        """Tell the session's exit how its calls went; None when nothing was learnt, so that others may be its probe."""
        host = host_of(session.origin)
        if verdict is None:
            self.exits.abandon(session.proxy, host)
        else:
            self.exits.report(session.proxy, host, verdict.exit_fault, seconds=verdict.exit_seconds)

    def _choose_way(self, account_id: str, avoid: Set[Way]) -> Way:
        """Give the account's own origin and exit, or the next ones while those cannot be used or failed just now."""
        if len(self.origins) == 1 and not avoid:
            origin = self.origins[0]
            return origin, self.exits.choose(account_id, host_of(origin))
        proxies = {origin: {way[1] for way in avoid if way[0] == origin} for origin in self.origins}
        order = stable_order(account_id, self.origins)
        order.sort(key=lambda origin: len(proxies[origin]) >= len(self.exits.all))
        blocked: AllAccountsCoolingError | None = None
        for origin in order:
            try:
                return origin, self.exits.choose(account_id, host_of(origin), avoid=proxies[origin])
            except AllAccountsCoolingError as error:
                blocked = error
        assert blocked is not None, "there is always an origin"
        raise blocked


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caller may use: a source, one account of it where only that one is theirs, and those that it is held to."""

    source: AccountSource
    account_id: str | None
    allowed: frozenset[str] | None = None
    """Ids of accounts, None for all."""

    def may_use(self, account_id: str) -> bool:
        """Whether the caller may use that account of the source."""
        return self.allowed is None or account_id in self.allowed


class Sources:
    """Finds the accounts of each caller."""

    def __init__(self, pool: AccountSource, visitors: AccountSource, demo: AccountSource | None, clock: Clock) -> None:
        """Take the sets of accounts; `demo` None where there is no demo."""
        self.pool = pool
        self.visitors = visitors
        self.demo = demo
        self._clock = clock
        self._adoptions = Adoptions(pool.records, pool.pool, clock)
        self._anonymous: str | None = None
        self._beginning = asyncio.Lock()

    async def claim(self, caller: Caller) -> Claim:
        """Give what the caller may use. Raises CallerTokenRejectedError for a token that cannot be one."""
        if caller.kind in ("operator", "issued_key"):
            return Claim(self.pool, None, caller.allowed)
        if caller.kind == "demo":
            if self.demo is None:
                raise InvalidAPIKeyError("The demo key works only while the demo runs.")
            return Claim(self.demo, None)
        if caller.token is None:
            return Claim(self.visitors, await self._anonymous_account())
        if tell_kind(caller.token) == "access":
            return Claim(self.visitors, await self._visiting_account(caller.token, caller.owner))
        account = await self._adoptions.adopt(caller.token, caller.owner, caller.workspace)
        return Claim(self.pool, account.id)

    async def _visiting_account(self, token: str, owner: str) -> str:
        """Give the account of an AccessToken that a caller brought.

        It is known by the token alone: what the token says of its user is not believed here, since anybody can write
        a token that names somebody else's user. The device is the same for the same token, also after a restart.
        """
        device = uuid.UUID(self.pool.records.digest("device", token)[:32], version=4)
        new = NewAccount(
            "access",
            Secrets(access=token),
            expires_at=read_claims(token).expires_at,
            device_id=str(device),
            owner=owner,
        )
        added = await self.visitors.records.add_accounts([new], self._clock.now())
        self.visitors.pool.put(added[0].account)
        return added[0].account.id

    async def _anonymous_account(self) -> str:
        """Give the one device that all sign-in-free chats of this process appear on."""
        async with self._beginning:
            if self._anonymous is None:
                new = NewAccount("device", Secrets(), device_id=str(uuid.uuid4()), owner="anonymous")
                added = await self.visitors.records.add_accounts([new], self._clock.now())
                self.visitors.pool.put(added[0].account)
                self._anonymous = added[0].account.id
            return self._anonymous


def stable_order(key: str, choices: Sequence[str]) -> list[str]:
    """Give the choices in the key's own order, the same always, with few moves when one comes or goes.

    This is rendezvous hashing: each key ranks the choices by a digest of both.
    """
    return sorted(choices, key=lambda choice: hashlib.blake2b(f"{key}\0{choice}".encode(), digest_size=8).digest())


@lru_cache(maxsize=256)
def host_of(origin: str) -> str:
    """Give host and port of an origin."""
    return urlsplit(origin).netloc
