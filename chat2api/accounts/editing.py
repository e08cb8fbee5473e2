"""What an operator changes by hand: notes, groups, setting accounts aside, removing them and taking that back.

Each change is on disk and in the pool's memory when its method returns.
"""

from collections.abc import Sequence

from chat2api.accounts.pool import AccountPool
from chat2api.clock import Clock
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.storage.records import Records
from chat2api.storage.values import Account

MAX_NOTE = 500
"""Characters of a note."""

MAX_GROUPS = 20
MAX_GROUP_NAME = 64


class AccountEditor:
    """Changes the pool's accounts. Methods of one account raise NotFoundError for an id that the pool does not have."""

    def __init__(self, records: Records, pool: AccountPool, clock: Clock) -> None:
        """Change these records, and tell the pool."""
        self._records = records
        self._pool = pool
        self._clock = clock

    async def set_note(self, account_id: str, note: str) -> Account:
        """Store a note. Raises InvalidRequestError for one that is too long."""
        if len(note) > MAX_NOTE or not _is_text(note.replace("\n", " ")):
            raise InvalidRequestError(f"A note is a text of at most {MAX_NOTE} characters.", param="note")
        self._own(account_id)
        return self._tell(await self._records.set_details(account_id, note=note))

    async def set_groups(self, account_id: str, groups: Sequence[str]) -> Account:
        """Put the account into these groups and no others. Raises InvalidRequestError for names that cannot be."""
        named = list(dict.fromkeys(group.strip() for group in groups))
        if len(named) > MAX_GROUPS or not all(0 < len(name) <= MAX_GROUP_NAME and _is_text(name) for name in named):
            raise InvalidRequestError(
                f"Groups are at most {MAX_GROUPS} names of 1 to {MAX_GROUP_NAME} printable characters.", param="groups"
            )
        self._own(account_id)
        return self._tell(await self._records.set_details(account_id, groups=named))

    async def disable(self, account_id: str) -> Account:
        """Set the account aside until it is enabled again; what it serves now may finish."""
        self._own(account_id)
        return self._tell(await self._records.set_enabled(account_id, False, self._clock.now()))

    async def enable(self, account_id: str) -> Account:
        """Let the account serve again."""
        self._own(account_id)
        return self._tell(await self._records.set_enabled(account_id, True, self._clock.now()))

    async def delete(self, ids: Sequence[str] | None) -> int:
        """Remove these of the pool's accounts, or with None all; give how many. It can be undone for 24 hours."""
        if ids is not None:
            ids = [account_id for account_id in ids if self._pool.view(account_id) is not None]
        count = await self._records.delete_accounts(ids, self._clock.now())
        await self._pool.reload()
        return count

    async def undo_delete(self, ids: Sequence[str] | None = None) -> int:
        """Bring back what was removed in the last 24 hours, all or these; give how many came back."""
        count = await self._records.restore_accounts(self._clock.now(), ids)
        await self._pool.reload()
        return count

    async def deleted(self) -> tuple[Account, ...]:
        """Give the pool's accounts that can be brought back, the last removed first."""
        return await self._records.deleted_accounts(self._clock.now())

    def _own(self, account_id: str) -> None:
        if self._pool.view(account_id) is None:
            raise _unknown()

    def _tell(self, account: Account | None) -> Account:
        if account is None:
            raise _unknown()
        self._pool.put(account)
        return account


def _unknown() -> NotFoundError:
    return NotFoundError("There is no such account.", param="id", code="account_not_found")


def _is_text(text: str) -> bool:
    return text.isprintable()
