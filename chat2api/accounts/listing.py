"""The pool's accounts as a list that is searched, filtered, sorted and cut into pages: pure, from views in memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from chat2api.accounts.views import AccountView, ShownState
from chat2api.errors import InvalidRequestError
from chat2api.storage.values import AccountState

MAX_PER_PAGE = 200
MAX_SEARCH = 200

STATES: tuple[ShownState, ...] = (*cast("tuple[AccountState, ...]", get_args(AccountState)), "cooling")
"""All states that can be asked for, as AccountView shows them."""

_KEYS: dict[str, Callable[[AccountView], Any]] = {
    "added": lambda view: view.account.added_at,
    "label": lambda view: view.account.label,
    "state": lambda view: STATES.index(view.state),
    "plan": lambda view: view.account.plan,
    "email": lambda view: view.account.email,
    "kind": lambda view: view.account.kind,
    "note": lambda view: view.account.note.lower() or None,
    "expires": lambda view: view.account.expires_at,
    "last_used": lambda view: view.last_used_at,
    "last_error": lambda view: view.last_error_at,
    "in_flight": lambda view: view.in_flight,
}
"""What a list is sorted by. None, which stands for what is not known, comes last either way."""

SORTS = tuple(_KEYS)
"""What lists can be sorted by; with `-` in front, the other way round."""


@dataclass(frozen=True, slots=True)
class AccountList:
    """One page. `found` counts what matches search and state, `states` what matches the search, by state."""

    rows: tuple[AccountView, ...]
    page: int
    pages: int
    per_page: int
    found: int
    total: int
    states: dict[ShownState, int]


def list_accounts(
    views: Sequence[AccountView],
    *,
    search: str = "",
    state: str | None = None,
    group: str | None = None,
    sort: str = "added",
    page: int = 1,
    per_page: int | None = 50,
) -> AccountList:
    """Give a page of accounts. A page behind the last one gives the last one; `per_page` None puts all on one.

    Every word of `search` must occur in an account's label, email, plan, kind, workspace, note or groups. Raises
    InvalidRequestError with `param` for what cannot be asked.
    """
    reverse, key = sort.startswith("-"), sort.removeprefix("-")
    if key not in _KEYS:
        raise InvalidRequestError(f"Lists are sorted by one of {', '.join(SORTS)}; `-` turns them round.", param="sort")
    if state is not None and state not in STATES:
        raise InvalidRequestError(f"The state is one of {', '.join(STATES)}.", param="state")
    if page < 1:
        raise InvalidRequestError("Pages are counted from 1.", param="page")
    if per_page is not None and not 1 <= per_page <= MAX_PER_PAGE:
        raise InvalidRequestError(f"A page has 1 to {MAX_PER_PAGE} rows.", param="per_page")
    if len(search) > MAX_SEARCH:
        raise InvalidRequestError(f"A search has at most {MAX_SEARCH} characters.", param="search")
    words = search.lower().split()
    matching = [view for view in views if _matches(view, words) and (group is None or group in view.account.groups)]
    states = Counter(view.state for view in matching)
    found = [view for view in matching if state is None or view.state == state]
    found = _sorted(found, _KEYS[key], reverse=reverse)
    per_page = per_page or max(1, len(found))
    pages = max(1, -(-len(found) // per_page))
    page = min(page, pages)
    rows = tuple(found[(page - 1) * per_page : page * per_page])
    return AccountList(rows, page, pages, per_page, len(found), len(views), dict(states))


def _matches(view: AccountView, words: Sequence[str]) -> bool:
    if not words:
        return True
    account = view.account
    texts = (account.label, account.email, account.plan, account.kind, account.workspace, account.note, *account.groups)
    text = "\n".join(part for part in texts if part).lower()
    return all(word in text for word in words)


def _sorted(views: list[AccountView], key: Callable[[AccountView], Any], *, reverse: bool) -> list[AccountView]:
    known = [view for view in views if key(view) is not None]
    return sorted(known, key=key, reverse=reverse) + [view for view in views if key(view) is None]
