"""The pool's accounts as a list: what is searched in them, what they are sorted by."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast, get_args

from chat2api.accounts.views import AccountView, ShownState
from chat2api.listing import PER_PAGE, Listing, ListPage
from chat2api.storage.values import AccountState

STATES: tuple[ShownState, ...] = (*cast("tuple[AccountState, ...]", get_args(AccountState)), "cooling")
"""All states that can be asked for, as AccountView shows them."""


def _texts(view: AccountView) -> Iterable[str | None]:
    account = view.account
    return (account.label, account.email, account.plan, account.kind, account.workspace, account.note, *account.groups)


ACCOUNTS: Listing[AccountView] = Listing(
    texts=_texts,
    state=lambda view: view.state,
    states=STATES,
    sorts={
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
    },
)

SORTS = tuple(ACCOUNTS.sorts)
"""What lists can be sorted by; with `-` in front, the other way round."""


def list_accounts(
    views: Sequence[AccountView],
    *,
    search: str = "",
    state: str | None = None,
    group: str | None = None,
    sort: str | None = None,
    page: int = 1,
    per_page: int | None = PER_PAGE,
) -> ListPage[AccountView]:
    """Give a page of accounts, of one group where one is asked for; the rest is as for `Listing.page`."""
    within = views if group is None else [view for view in views if group in view.account.groups]
    found = ACCOUNTS.page(within, search=search, state=state, sort=sort, page=page, per_page=per_page)
    return found if group is None else replace(found, total=len(views))
