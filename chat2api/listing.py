"""Lists that people and programs look through: searched, filtered by state, sorted and cut into pages; pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from chat2api.errors import InvalidRequestError

T = TypeVar("T")

PER_PAGE, MAX_PER_PAGE = 50, 200
MAX_SEARCH = 200


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """One page. `found` counts what matches search and state, `states` what matches the search, by state."""

    rows: tuple[T, ...]
    page: int
    pages: int
    per_page: int
    found: int
    total: int
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """How rows of one kind are listed.

    `texts` gives what is searched in a row, `state` its state, which is one of `states`. A list is sorted by one of
    `sorts`, the first unless said; a row whose value is None, which stands for what is not known, comes last either way.
    """

    texts: Callable[[T], Iterable[str | None]]
    state: Callable[[T], str]
    states: Sequence[str]
    sorts: Mapping[str, Callable[[T], Any]]

    def page(
        self,
        rows: Sequence[T],
        *,
        search: str = "",
        state: str | None = None,
        sort: str | None = None,
        page: int = 1,
        per_page: int | None = PER_PAGE,
    ) -> ListPage[T]:
        """Give a page of rows. A page behind the last one gives the last one; `per_page` None puts all on one.

        Every word of `search` must occur in a row's texts; `-` in front of `sort` turns it round. Raises InvalidRequestError
        with `param` for what cannot be asked.
        """
        sort = sort or next(iter(self.sorts))
        key = self.sorts.get(sort.removeprefix("-"))
        if key is None:
            words = ", ".join(self.sorts)
            raise InvalidRequestError(f"Lists are sorted by one of {words}; `-` turns them round.", param="sort")
        if state is not None and state not in self.states:
            raise InvalidRequestError(f"The state is one of {', '.join(self.states)}.", param="state")
        if page < 1:
            raise InvalidRequestError("Pages are counted from 1.", param="page")
        if per_page is not None and not 1 <= per_page <= MAX_PER_PAGE:
            raise InvalidRequestError(f"A page has 1 to {MAX_PER_PAGE} rows.", param="per_page")
        if len(search) > MAX_SEARCH:
            raise InvalidRequestError(f"A search has at most {MAX_SEARCH} characters.", param="search")
        matching = self._matching(rows, search)
        states = Counter(self.state(row) for row in matching)
        found = [row for row in matching if state is None or self.state(row) == state]
        found = _sorted(found, key, reverse=sort.startswith("-"))
        per_page = per_page or max(1, len(found))
        pages = max(1, -(-len(found) // per_page))
        page = min(page, pages)
        cut = tuple(found[(page - 1) * per_page : page * per_page])
        return ListPage(cut, page, pages, per_page, len(found), len(rows), states)

    def _matching(self, rows: Sequence[T], search: str) -> Sequence[T]:
        words = search.casefold().split()
        if not words:
            return rows
        return [row for row in rows if _has_all("\n".join(text for text in self.texts(row) if text), words)]


def _has_all(text: str, words: Sequence[str]) -> bool:
    folded = text.casefold()
    return all(word in folded for word in words)


def _sorted(rows: Sequence[T], key: Callable[[T], Any], *, reverse: bool) -> list[T]:
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key, reverse=reverse) + [row for row in rows if key(row) is None]
