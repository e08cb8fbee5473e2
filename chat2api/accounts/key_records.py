"""The records of a pool whose accounts are API keys: they come from the settings, and what is known of them is kept.

Other processes write the same rows, such as a doctor who finds a key refused or good again. Their few rows are read at every
look for news, and what is new in them counts here; what was decided here and could not be written counts for more.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chat2api.errors import StorageError
from chat2api.storage.api_keys import ApiKeyRecords, KeyRest
from chat2api.storage.values import Account, AccountState, Activity, Changes, Cooldown

log = logging.getLogger(__name__)

_THE_KEY = ""
"""Stands for a model where the key itself is refused."""

_REFUSED = "upstream_account"
"""The reason that is kept of it: a word of ours, since the API's could hold anything."""


class KeyPoolRecords:
    """`PoolRecords` of API keys."""

    def __init__(self, rests: ApiKeyRecords, labels: Mapping[str, str], now: float) -> None:
        """Give a pool the keys with these labels, by their digests; `rests` keeps what is learnt of them."""
        self._rests = rests
        self._accounts = {key: _to_account(key, label, now) for key, label in labels.items()}
        self._seen: list[KeyRest] = []
        self._revision = 1
        self._unwritten: set[str] = set()
        """Keys whose state here is not, or not yet, that of their rows."""

    async def revision(self) -> int:
        """Give a number that is another one once the rows are others than those given last. Raises StorageError."""
        if not self._accounts:
            return self._revision
        return self._revision + (await self._rests.of(self._accounts) != self._seen)

    async def changes(self, since: int = 0) -> Changes:
        """Give all keys as they are kept."""
        before = {key: account.revision for key, account in self._accounts.items()}
        rests = await self._rests.of(self._accounts)
        if rests != self._seen:
            self._seen = rests
            self._revision += 1
        refused = {rest.key: rest.reason for rest in rests if rest.until_at is None}
        for key, account in self._accounts.items():
            if account.usable == (key in refused) and key not in self._unwritten and account.revision == before[key]:
                state: AccountState = "needs_sign_in" if key in refused else "ok"
                self._accounts[key] = replace(
                    account, state=state, reason=refused.get(key), revision=account.revision + 1
                )
        cooldowns = tuple(
            Cooldown(rest.key, rest.model, rest.until_at, rest.stated, rest.reason, rest.strikes)
            for rest in rests
            if rest.until_at is not None
        )
        return Changes(self._revision, tuple(self._accounts.values()), cooldowns)

    async def account(self, account_id: str) -> Account | None:
        """Give a key as it is now."""
        return self._accounts.get(account_id)

    async def set_state(self, account: Account, state: AccountState, reason: str | None, now: float) -> Account | None:
        """Set a key's state, which counts here even when it cannot be written down."""
        known = self._accounts[account.id]
        changed = replace(known, state=state, reason=reason, state_at=now, revision=known.revision + 1)
        self._accounts[account.id] = changed
        self._unwritten.add(changed.id)
        try:
            if changed.usable:
                await self._rests.accept(changed.id)
            else:
                await self._rests.put([KeyRest(changed.id, _THE_KEY, None, True, _REFUSED)])
            self._unwritten.discard(changed.id)
        except StorageError as error:
            log.warning("it cannot be stored that API %s is %s: %s", changed.label, state, error)
        return changed

    async def put_activity(self, activity: Sequence[Activity]) -> None:
        """Keep nothing: when a key served last is told of this run alone."""

    async def put_cooldowns(self, cooldowns: Sequence[Cooldown]) -> None:
        """Store waits. Raises StorageError."""
        await self._rests.put(
            [KeyRest(one.account_id, one.model, one.until_at, one.stated, one.reason, one.strikes) for one in cooldowns]
        )


def _to_account(key: str, label: str, now: float) -> Account:
    return Account(
        id=key,
        label=label,
        kind="access",
        state="ok",
        reason=None,
        state_at=now,
        plan=None,
        user_id=None,
        workspace_id=None,
        home_workspace_id=None,
        email=None,
        device_id="",
        expires_at=None,
        generation=0,
        added_at=now,
        owner=None,
        rotates=None,
        deleted_at=None,
        revision=1,
    )
