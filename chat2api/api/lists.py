"""What calls and pages ask of a list, by the same names: `search`, `state`, `sort`, `page`, and how many rows a page has.

Over REST `-` in front of `sort` turns it round, `per_page` is said, and what cannot be asked is refused. A page's address has
`order` beside `sort`, so that its links stay readable; its list begins with the newest.
"""

from collections.abc import Callable, Mapping
from typing import TypedDict, TypeVar
from urllib.parse import urlencode

from quart import current_app, request

from chat2api.api.body import check_names
from chat2api.api.shell import shell_of
from chat2api.errors import InvalidRequestError
from chat2api.listing import PER_PAGE, Listing, ListPage

T = TypeVar("T")

NAMES = ("page", "per_page", "sort", "search", "state")

Json = dict[str, object]
Filter = tuple[str, str, int]


class ListOptions(TypedDict):
    """What `Listing.page` takes beside the rows."""

    search: str
    state: str | None
    sort: str | None
    page: int
    per_page: int


def read_query(*allowed: str) -> dict[str, str]:
    """Give the parameters of the current request's address; InvalidRequestError for unknown or repeated ones."""
    check_names(request.args, allowed)
    for name in request.args:
        if len(request.args.getlist(name)) > 1:
            raise InvalidRequestError("Send this parameter once.", param=name)
    return dict(request.args)


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Give what a call asks of a list by `NAMES`. Raises InvalidRequestError with `param`."""
    return {
        "search": query.get("search", ""),
        "state": query.get("state") or None,
        "sort": query.get("sort") or None,
        "page": _whole(query, "page", 1),
        "per_page": _whole(query, "per_page", PER_PAGE),
    }


def list_object(found: ListPage[T], data: list[Json]) -> Json:
    """Give a page of a list as calls are answered; `data` are its rows as they are shown."""
    return {
        "object": "list",
        "data": data,
        "page": found.page,
        "pages": found.pages,
        "per_page": found.per_page,
        "found": found.found,
        "total": found.total,
        "states": dict(found.states),
    }


class AskedList:
    """What the address of a page asks of its list, and the addresses of the same list asked otherwise."""

    def __init__(self, listing: Listing[T], *more: str) -> None:
        """Read the current request's address; `more` are names that it has beside those of every list."""
        names = ("search", "state", *more, "sort", "order", "page")
        self.asked = {name: request.args.get(name, "").strip() for name in names}
        self.sort = self.asked["sort"] or next(iter(listing.sorts))
        self.descending = self.asked["order"] != "asc"
        page = self.asked["page"]
        self.options: ListOptions = {
            "search": self.asked["search"],
            "state": self.asked["state"] or None,
            "sort": f"-{self.sort}" if self.descending else self.sort,
            "page": max(1, int(page)) if page.isascii() and page.isdigit() and len(page) <= 9 else 1,
            "per_page": PER_PAGE,
        }

    @property
    def kept(self) -> dict[str, str]:
        """What a search among the same list keeps of the address."""
        return {name: text for name, text in self.asked.items() if name not in ("search", "page")}

    def link(self, **changes: object) -> str:
        """Give the address of this list with other fields; without `page` it leads to the first one."""
        fields = {**self.asked, "page": "", **{name: str(value) for name, value in changes.items()}}
        return "?" + urlencode({name: value for name, value in fields.items() if value})

    def values(self, listing: Listing[T], found: ListPage[T]) -> dict[str, object]:
        """Give what a page needs to show this list: `found` and all around it."""
        state_name = shell_of(current_app).language().get
        shown = [state for state in listing.states if found.states.get(state) or self.asked["state"] == state]
        filters: list[Filter] = [("", state_name("shell.all"), sum(found.states.values()))]
        filters += [(state, state_name(f"state.{state}"), found.states.get(state, 0)) for state in shown]
        state_link: Callable[[str], str] = lambda state: self.link(state=state)  # noqa: E731  # templates call it
        return {
            "found": found,
            "asked": self.asked,
            "kept": self.kept,
            "sort": self.sort,
            "descending": self.descending,
            "filters": filters,
            "state_link": state_link,
            "link": self.link,
        }


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidRequestError("This is a whole number.", param=name)
    return int(text)
