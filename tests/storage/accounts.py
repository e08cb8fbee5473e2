"""Accounts and tokens with invented content, for tests that need some."""

from chat2api.storage.records import Records
from chat2api.storage.values import Account, FreshTokens, Identity, NewAccount, Secrets

NOW = 1_790_000_000.0
DAY = 24 * 3600.0


def rotating(number: int) -> str:
    """A RefreshToken of today's form."""
    return f"rt_{number:060d}"


def new_account(
    number: int,
    *,
    renewable: str | None = None,
    access: str | None = None,
    user: str | None = None,
    workspace: str | None = None,
    owner: str | None = None,
) -> NewAccount:
    """An account with a RefreshToken, if no token is named."""
    if renewable is None and access is None:
        renewable = rotating(number)
    return NewAccount(
        kind="refresh" if renewable else "access",
        secrets=Secrets(access=access, renewable=renewable),
        identity=Identity(user_id=user, home_workspace_id="home" if user else None),
        workspace_id=workspace,
        owner=owner,
    )


async def add(records: Records, new: NewAccount, now: float = NOW) -> Account:
    """Add one account and give it."""
    return (await records.add_accounts([new], now))[0].account


def fresh(access: str = "access-2", renewable: str | None = None, user: str | None = None) -> FreshTokens:
    """What a refresh brought."""
    return FreshTokens(access, renewable, NOW + DAY, Identity(user_id=user, home_workspace_id="home" if user else None))
