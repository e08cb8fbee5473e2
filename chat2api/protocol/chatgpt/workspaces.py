"""The workspaces of an account, as the backend's account check tells them: plan, features, whether they are closed.

Seen in the web app's answers of 2023 to 2026; `default` repeats one of the workspaces that stand under their own id.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chat2api.errors import UpstreamProtocolError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,79}")
_MAX_FEATURES = 200


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace: its account id, the plan where it is told, names of features, and whether it was closed."""

    account_id: str
    plan: str | None
    features: tuple[str, ...]
    deactivated: bool


def parse_workspaces(body: object) -> tuple[Workspace, ...]:
    """Give the workspaces in the backend's own order. Raises UpstreamProtocolError when there is no list of them."""
    accounts = body.get("accounts") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(accounts, Mapping):
        raise UpstreamProtocolError("The backend's account check has an unknown shape.")
    found = {one.account_id: one for one in _read(accounts)}
    ordering = body.get("account_ordering")
    order = [name for name in ordering if isinstance(name, str)] if isinstance(ordering, list) else []
    first = [found.pop(name) for name in dict.fromkeys(order) if name in found]
    return (*first, *found.values())


def choose_workspace(workspaces: Sequence[Workspace], account_id: str | None) -> Workspace | None:
    """Give the workspace of that id, or without one the first; None when it is not there."""
    if account_id is None:
        return workspaces[0] if workspaces else None
    return next((one for one in workspaces if one.account_id == account_id), None)


def _read(accounts: Mapping[object, object]) -> Iterator[Workspace]:
    for key, entry in accounts.items():
        account = entry.get("account") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(account, Mapping):
            continue
        account_id = account.get("account_id", key)
        if not isinstance(account_id, str) or account_id == "default":
            continue
        plan, features = account.get("plan_type"), entry.get("features")
        yield Workspace(
            account_id,
            plan if isinstance(plan, str) and _NAME.fullmatch(plan) else None,
            known_names(features),
            account.get("is_deactivated") is True,
        )


def known_names(values: object) -> tuple[str, ...]:
    """Give the words of a list that can be names, each once and not without end: they are kept and shown."""
    if not isinstance(values, list | tuple):
        return ()
    names = dict.fromkeys(value for value in values if isinstance(value, str) and _NAME.fullmatch(value))
    return tuple(names)[:_MAX_FEATURES]
