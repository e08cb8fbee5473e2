"""Callers' own RefreshTokens and session tokens, kept as their private accounts.

So a token that rotates is not lost for a caller who goes on to send the first one.
"""

from collections import OrderedDict

from chat2api.accounts.pool import AccountPool
from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.clock import Clock
from chat2api.errors import CallerTokenRejectedError
from chat2api.storage.records import Records
from chat2api.storage.values import Account

REMEMBERED = 10_000
"""Tokens whose account is known without asking the records; the longest unused are asked for again."""


class Adoptions:
    """Finds or makes the accounts of callers who bring a token that can be renewed."""

    def __init__(self, records: Records, pool: AccountPool, clock: Clock) -> None:
        """Keep them in these records and this pool."""
        self._records = records
        self._pool = pool
        self._clock = clock
        self._adopted: OrderedDict[str, str] = OrderedDict()

    async def adopt(self, token: str, owner: str, workspace_id: str | None = None) -> Account:
        """Give the account of a token; `owner` is the caller's digest.

        Raises CallerTokenRejectedError for a token that cannot be renewed.
        """
        digest = self._records.digest("token", token)
        known = self._pool.account(self._adopted.get(digest, ""))
        if known is not None and known.deleted_at is None:
            self._adopted.move_to_end(digest)
            return known
        account = await self._records.find_by_token(token)
        if account is None:
            try:
                credential = to_credential(token, workspace_id)
            except ValueError as error:
                raise CallerTokenRejectedError(str(error)) from error
            if credential.kind not in ("refresh", "session"):
                raise CallerTokenRejectedError("This token cannot be renewed, so there is nothing to keep for it.")
            new = to_new_account(credential, owner=owner)
            account = (await self._records.add_accounts([new], self._clock.now()))[0].account
        self._pool.put(account)
        self._adopted[digest] = account.id
        if len(self._adopted) > REMEMBERED:
            self._adopted.popitem(last=False)
        return account
