"""The door to what outlives the process: `Records`, one Protocol with an SQL and an in-memory implementation.

Every method is one whole, atomic intention. A change is checked against the row as its writer saw it (`revision`,
or `generation` where tokens are concerned): a writer who is late gets None, never an overwrite. Instants are passed
in, so that replayed time works in tests. All methods raise StorageError when the store cannot be read or written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from chat2api.storage.actions import ActionRecords
from chat2api.storage.api_keys import ApiKeyRecords
from chat2api.storage.api_objects import ApiObjectRecords
from chat2api.storage.files import FileRecords
from chat2api.storage.invitations import InvitationRecords
from chat2api.storage.keys import KeyRecords
from chat2api.storage.sign_ins import SignInRecords
from chat2api.storage.usage import UsageRecords
from chat2api.storage.users import UserRecords
from chat2api.storage.values import (
    Account,
    AccountFacts,
    AccountState,
    Activity,
    Added,
    Changes,
    ConversationOwner,
    Cooldown,
    FreshTokens,
    Known,
    NewAccount,
    RefreshIntent,
    RefreshView,
)


class PoolRecords(Protocol):
    """What a pool needs of the records; see Records, which has it all."""

    async def revision(self) -> int:
        """Give the number that grows with every change."""
        ...

    async def changes(self, since: int = 0) -> Changes:
        """Give the accounts and waits that changed after a revision."""
        ...

    async def account(self, account_id: str) -> Account | None:
        """Give an account, None for an unknown one."""
        ...

    async def set_state(self, account: Account, state: AccountState, reason: str | None, now: float) -> Account | None:
        """Set an account's state; None when its row is newer than this picture of it."""
        ...

    async def put_activity(self, activity: Sequence[Activity]) -> None:
        """Store when accounts served and what went wrong."""
        ...

    async def put_cooldowns(self, cooldowns: Sequence[Cooldown]) -> None:
        """Store waits."""
        ...


class Records(Protocol):
    """Accounts, sealed tokens, refresh intents, cooldowns, owners of conversations, and a few single values.

    Parts with rows of their own are doors of their own: `keys`, `usage`.
    """

    @property
    def keys(self) -> KeyRecords:
        """The keys that were issued to people."""
        ...

    @property
    def invitations(self) -> InvitationRecords:
        """The links that give keys."""
        ...

    @property
    def usage(self) -> UsageRecords:
        """The usage ledger."""
        ...

    @property
    def sign_ins(self) -> SignInRecords:
        """Who is signed in to the pages."""
        ...

    @property
    def api_keys(self) -> ApiKeyRecords:
        """What is known of the operator's API keys."""
        ...

    @property
    def api_objects(self) -> ApiObjectRecords:
        """Whose the files, responses and items are that were made by API keys."""
        ...

    @property
    def files(self) -> FileRecords:
        """Which files the conversations of callers hold."""
        ...

    @property
    def actions(self) -> ActionRecords:
        """The journal of what operators did."""
        ...

    @property
    def users(self) -> UserRecords:
        """The people who sign in with a name and a password."""
        ...

    # Accounts

    async def revision(self) -> int:
        """Give the number of the last change of accounts or cooldowns, whoever made it; cheap enough to poll."""
        ...

    async def changes(self, since: int = 0) -> Changes:
        """Give the accounts and cooldowns that changed after that revision, tombstones included; 0 gives all.

        Accounts come in the order in which they were added. An erased account is not told: it was told as a
        tombstone a day before.
        """
        ...

    async def account(self, account_id: str) -> Account | None:
        """Give one account, also a tombstone; None when there is none."""
        ...

    async def find_by_token(self, token: str) -> Account | None:
        """Give the living account that has, or ever had, this token."""
        ...

    async def add_accounts(self, new: Sequence[NewAccount], now: float) -> tuple[Added, ...]:
        """Add accounts or merge them into known ones; answers in the same order.

        Each account is added whole or not at all. An import that was cut off can be repeated: it merges.
        Known means: one of its tokens was seen before, or user and workspace are the same. A tombstone that is
        met comes back to life. New tokens of a known account replace its tokens, settle its doubts and make it
        ok. The operator's import of a caller's private account makes it the pool's; never the other way round.
        """
        ...

    async def known_accounts(self, new: Sequence[NewAccount]) -> tuple[Known, ...]:
        """Say what `add_accounts` would find for each, in the same order; nothing is changed."""
        ...

    async def set_state(self, account: Account, state: AccountState, reason: str | None, now: float) -> Account | None:
        """Set the state if the row is still as `account` shows it; give the new row, or None.

        What the operator disabled stays disabled, whatever else is learnt of it.
        """
        ...

    async def set_enabled(self, account_id: str, enabled: bool, now: float) -> Account | None:
        """Set an account aside until the operator enables it again; give the row, None when there is none.

        An enabled account is ok, or in doubt when its token may be used up; if it is dead, its next use will tell.
        """
        ...

    async def set_details(
        self, account_id: str, *, note: str | None = None, groups: Sequence[str] | None = None
    ) -> Account | None:
        """Store the operator's note or groups, None leaves them; give the row, None when there is no such account."""
        ...

    async def put_facts(self, account_id: str, facts: AccountFacts, now: float) -> Account | None:
        """Store what the backend told of an account; give the row, None when there is no such account."""
        ...

    async def put_activity(self, activity: Sequence[Activity]) -> None:
        """Store how accounts fared, without new revisions; unknown accounts are skipped."""
        ...

    async def delete_accounts(self, ids: Sequence[str] | None, now: float) -> int:
        """Turn the accounts, or with None all of the pool's, into tombstones; give how many."""
        ...

    async def deleted_accounts(self, now: float) -> tuple[Account, ...]:
        """Give the accounts whose deletion can be undone, the last deleted first."""
        ...

    async def restore_accounts(self, now: float, ids: Sequence[str] | None = None) -> int:
        """Undo deletions of the last 24 hours, all or those of these accounts; give how many came back."""
        ...

    async def sweep(self, now: float) -> None:
        """Erase tombstones and previous tokens older than 24 hours, and cooldowns that have ended.

        Callers' private accounts whose token brought nothing in 24 hours become tombstones: anybody can make up tokens.
        """
        ...

    # Tokens

    async def refresh_view(self, account_id: str) -> RefreshView | None:
        """Give an account, its tokens in clear and its open intent, all of one moment."""
        ...

    async def begin_refresh(self, account: Account, replica: str, now: float) -> RefreshIntent | None:
        """Commit the intent to send the account's token.

        None when the generation has moved on, another intent stands, or there is no token. When it returns, the
        intent is on disk.
        """
        ...

    async def complete_refresh(self, intent: RefreshIntent, tokens: FreshTokens, now: float) -> Account | None:
        """Commit the new tokens, keep the old one as previous, end the intent; give the new row.

        The account becomes ok. Another account that turns out to be the same user and workspace is folded into
        this one. None, with nothing stored, when the account has another token by now or somebody else took the intent
        over. Where it is gone since the very token was imported again meanwhile, the answer still counts.
        """
        ...

    async def abandon_refresh(
        self, intent: RefreshIntent, now: float, *, state: AccountState | None = None, reason: str | None = None
    ) -> Account | None:
        """End the intent with the tokens as they are; None when it was gone.

        A state that is given is set, unless the account got other tokens meanwhile.
        """
        ...

    async def claim_doubt(self, intent: RefreshIntent, replica: str, now: float) -> RefreshIntent | None:
        """Commit that the token of an intent without result is now sent once more.

        Give the intent as it stands then, or None when it was settled or claimed before.
        """
        ...

    async def doubts(self) -> tuple[RefreshIntent, ...]:
        """Give all intents that stand."""
        ...

    # Cooldowns

    async def put_cooldowns(self, cooldowns: Sequence[Cooldown]) -> None:
        """Store waits, each in place of the one for the same account and model; unknown accounts are skipped."""
        ...

    # Conversations

    async def put_conversation(self, conversation: ConversationOwner) -> None:
        """Store or replace the owner of a conversation."""
        ...

    async def conversation(self, conversation_id: str) -> ConversationOwner | None:
        """Give the owner of a conversation."""
        ...

    async def conversations(self, owner: str) -> tuple[ConversationOwner, ...]:
        """Give all conversations of an owner, the last used first."""
        ...

    async def forget_conversation(self, conversation_id: str) -> None:
        """Forget the owner of a conversation; unknown ones are no error."""
        ...

    # Single values

    async def get_meta(self, name: str) -> str | None:
        """Give a single value, such as the last run of the scheduled refresh."""
        ...

    async def set_meta(self, name: str, value: str) -> None:
        """Store a single value."""
        ...

    def digest(self, purpose: str, text: str) -> str:
        """Give the keyed digest of a text, 64 hexadecimal digits, for look-ups and labels; computed, never read."""
        ...

    # The store itself

    async def check(self) -> None:
        """Look whether the store is whole and can be written; StorageError, in words for the operator, if not."""
        ...

    async def restored(self) -> bool:
        """Tell whether this is an older copy brought back: its refresh tokens may be consumed already."""
        ...

    async def confirm_restored(self) -> None:
        """Take the operator's word that the copy may be refreshed."""
        ...

    async def backup(self, path: Path) -> None:
        """Write a whole copy of the living store to a new file, mode 0600; StorageError if the file exists."""
        ...

    async def aclose(self) -> None:
        """Finish what is being written and close; idempotent."""
        ...
