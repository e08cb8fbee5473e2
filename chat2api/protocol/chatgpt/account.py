"""What the backend tells of an account: its plan and features, by workspace.

Source: `GET accounts/check/v4-2023-04-27` of the web client, as public clients of 2023 to 2026 read it: `accounts` maps
workspace ids, and sometimes `default`, to an account with its features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """One workspace of an account. `plan` None when it is not told; `features` in the backend's words, sorted."""

    plan: str | None
    features: tuple[str, ...]
    is_deactivated: bool


def parse_account_check(answer: Mapping[str, object], workspace: str | None) -> AccountInfo | None:
    """Read the entry of a workspace, of the default one for None or an unknown one; None when nothing can be read."""
    accounts = answer.get("accounts")
    if not isinstance(accounts, dict) or not accounts:
        return None
    entry = accounts.get(workspace, accounts.get(_DEFAULT, next(iter(accounts.values()))))
    account = entry.get("account") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(account, dict):
        return None
    plan, features = account.get("plan_type"), entry.get("features")
    names = {name for name in features if isinstance(name, str)} if isinstance(features, list) else set()
    return AccountInfo(
        plan if isinstance(plan, str) and plan else None, tuple(sorted(names)), account.get("is_deactivated") is True
    )
