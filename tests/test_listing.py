"""`chat2api/listing.py`, on rows that are (name, state, number or None)."""

from typing import Any

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.listing import Listing

Row = tuple[str, str, int | None]

LISTING: Listing[Row] = Listing(
    texts=lambda row: (row[0], None),
    state=lambda row: row[1],
    states=("on", "off"),
    sorts={"number": lambda row: row[2], "name": lambda row: row[0].casefold()},
)
ROWS: list[Row] = [("Anna Straße", "on", 3), ("Bruno", "off", None), ("anna two", "off", 1), ("Clara", "on", 2)]


def names(**wish: Any) -> list[str]:
    return [row[0] for row in LISTING.page(ROWS, **wish).rows]


def test_the_first_order_is_the_usual_one_and_what_is_not_known_comes_last_either_way() -> None:
    assert names() == ["anna two", "Clara", "Anna Straße", "Bruno"]
    assert names(sort="-number") == ["Anna Straße", "Clara", "anna two", "Bruno"]
    assert names(sort="name") == ["Anna Straße", "anna two", "Bruno", "Clara"]


def test_every_word_of_a_search_must_occur_in_whatever_case() -> None:
    assert names(search="ANNA") == ["anna two", "Anna Straße"]
    assert names(search="strasse anna") == ["Anna Straße"]
    assert names(search="  ") == names()
    assert names(search="none") == [], "what is not there is not searched"


def test_states_are_counted_for_the_whole_search() -> None:
    found = LISTING.page(ROWS, search="anna", state="on")
    assert (found.found, found.total, found.states) == (1, 4, {"on": 1, "off": 1})


def test_pages_cut_the_list_and_a_page_behind_the_last_gives_the_last() -> None:
    assert [names(per_page=3, page=page) for page in (1, 2, 9)] == [names()[:3], ["Bruno"], ["Bruno"]]
    whole = LISTING.page(ROWS, per_page=None)
    assert (len(whole.rows), whole.page, whole.pages) == (4, 1, 1)
    nothing = LISTING.page([], page=3)
    assert (nothing.rows, nothing.page, nothing.pages) == ((), 1, 1)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"sort": "token"}, "sort"),
        ({"sort": "--name"}, "sort"),
        ({"state": "fine"}, "state"),
        ({"page": 0}, "page"),
        ({"per_page": 0}, "per_page"),
        ({"per_page": 201}, "per_page"),
        ({"search": "x" * 201}, "search"),
    ],
)
def test_what_cannot_be_asked_is_told_by_name(wish: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as told:
        names(**wish)
    assert told.value.param == param
