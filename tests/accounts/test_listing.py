"""`chat2api/accounts/listing.py`."""

import time
from dataclasses import replace
from typing import Any

import pytest

from chat2api.accounts.listing import SORTS, STATES, list_accounts
from chat2api.accounts.views import AccountView, show_account
from chat2api.errors import InvalidRequestError
from chat2api.storage.values import Account

NOW = 1_790_000_000.0


def view(number: int, **values: Any) -> AccountView:
    account = Account(
        id=f"acc_{number:04d}",
        label=f"{number:010x}",
        kind="refresh",
        state="ok",
        reason=None,
        state_at=NOW,
        plan="plus",
        user_id=f"user-{number}",
        workspace_id=None,
        home_workspace_id=f"home-{number}",
        email=f"a•••@b{number}.test",
        device_id="d",
        expires_at=NOW + number,
        generation=0,
        added_at=NOW + number,
        owner=None,
        rotates=None,
        deleted_at=None,
        revision=number,
    )
    in_flight = values.pop("in_flight", 0)
    used = values.pop("last_used_at", None)
    return show_account(
        replace(account, **values), (), in_flight=in_flight, last_used_at=used, last_error=None, last_error_at=None
    )


def numbers(listed: Any) -> list[int]:
    return [int(row.account.id[4:]) for row in listed.rows]


def test_pages_cut_the_list_and_the_last_one_is_what_is_left() -> None:
    views = [view(number) for number in range(25)]

    first = list_accounts(views, per_page=10)
    last = list_accounts(views, per_page=10, page=3)

    assert (numbers(first), first.pages, first.found, first.total) == (list(range(10)), 3, 25, 25)
    assert numbers(last) == [20, 21, 22, 23, 24]
    assert list_accounts(views, per_page=10, page=99).page == 3
    assert list_accounts([], page=4).rows == ()
    assert list_accounts([], page=4).page == 1


def test_every_word_of_a_search_must_occur_somewhere() -> None:
    views = [
        view(1, note="For Anna", groups=("family",)),
        view(2, plan="team", workspace_id="team-9"),
        view(3, note="anna and team", groups=("work",)),
    ]

    assert numbers(list_accounts(views, search="ANNA")) == [1, 3]
    assert numbers(list_accounts(views, search="team anna")) == [3]
    assert numbers(list_accounts(views, search="family")) == [1]
    assert numbers(list_accounts(views, search="team-9")) == [2]
    assert numbers(list_accounts(views, search="0000000002")) == [2]
    assert numbers(list_accounts(views, search="b3.test")) == [3]
    assert numbers(list_accounts(views, group="work")) == [3]
    assert numbers(list_accounts(views, search="user-1")) == [], "user ids are not shown, and not searched"


def test_states_are_counted_for_the_whole_search() -> None:
    views = [view(1), view(2, state="disabled"), view(3, state="needs_sign_in"), view(4, state="disabled")]

    listed = list_accounts(views, state="disabled")

    assert numbers(listed) == [2, 4]
    assert listed.states == {"ok": 1, "disabled": 2, "needs_sign_in": 1}
    assert (listed.found, listed.total) == (2, 4)


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("added", [1, 2, 3]),
        ("-added", [3, 2, 1]),
        ("state", [1, 3, 2]),
        ("plan", [3, 1, 2]),
        ("-plan", [1, 3, 2]),
        ("last_used", [2, 3, 1]),
        ("-last_used", [3, 2, 1]),
        ("-in_flight", [3, 1, 2]),
        ("note", [2, 1, 3]),
    ],
)
def test_lists_are_sorted_with_what_is_not_known_last(sort: str, order: list[int]) -> None:
    views = [
        view(1, plan="plus", note="b"),
        view(2, plan=None, state="disabled", last_used_at=NOW, note="A"),
        view(3, plan="free", state="needs_sign_in", last_used_at=NOW + 1, in_flight=2),
    ]

    assert numbers(list_accounts(views, sort=sort)) == order


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"sort": "token"}, "sort"),
        ({"sort": "--label"}, "sort"),
        ({"state": "fine"}, "state"),
        ({"page": 0}, "page"),
        ({"per_page": 0}, "per_page"),
        ({"per_page": 100_000}, "per_page"),
        ({"search": "x" * 1000}, "search"),
    ],
)
def test_what_cannot_be_asked_is_told_by_name(wish: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as told:
        list_accounts([], **wish)
    assert told.value.param == param


def test_a_thousand_accounts_are_listed_in_any_order_in_time() -> None:
    views = [view(number, state=STATES[number % 5], note=f"note {number % 7}") for number in range(2000)]

    started = time.perf_counter()
    for sort in SORTS:
        list_accounts(views, sort=sort, search="note 3", page=2)

    assert (time.perf_counter() - started) / len(SORTS) < 10 * 0.2
