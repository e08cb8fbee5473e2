"""Where the entries of a TOML text stand, which Python's own parser does not tell.

Theory of operation. A valid TOML text is a row of statements, each of which is valid by itself: a table's head or one
entry, over one line or several. So lines are gathered until the parser takes them, and what it makes of that statement
alone says which paths begin there. Nothing of TOML is known here but that a head is what makes tables and no values.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence

TomlPath = tuple[str, ...]

_CLOSING = ("]", "}", '"""', "'''")
"""One of these stands in the last line of every entry that takes several."""


class TomlLines:
    """The lines of a valid TOML text in which its tables and entries begin; arrays of tables count as one entry."""

    def __init__(self, text: str) -> None:
        """Look through a text that the parser has taken as a whole."""
        self._lines: dict[TomlPath, int] = {}
        head: TomlPath = ()
        for number, statement in _statements(text):
            paths = list(_paths(tomllib.loads(statement)))
            if _is_head(statement):
                head = max(paths, key=len, default=())
                paths = [head]
            else:
                paths = [head + path for path in paths]
            for path in paths:
                for length in range(1, len(path) + 1):
                    self._lines.setdefault(path[:length], number)

    def line_of(self, path: Sequence[str]) -> int:
        """Give the line, counted from 1, of an entry, or of the table around one that is not there."""
        for length in range(len(path), 0, -1):
            if (line := self._lines.get(tuple(path[:length]))) is not None:
                return line
        return 1


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Give each statement with the number of its first line; comments and blank lines among them."""
    first, gathered = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not gathered:
            first = number
        gathered += line + "\n"
        if number > first and not any(sign in line for sign in _CLOSING):
            continue
        try:
            tomllib.loads(gathered)
        except tomllib.TOMLDecodeError:
            continue
        yield first, gathered
        gathered = ""


def _is_head(statement: str) -> bool:
    return statement.lstrip().startswith("[")


def _paths(value: Mapping[str, object]) -> Iterator[TomlPath]:
    """Give the paths of all entries of a table, those of the tables in it too."""
    for name, inner in value.items():
        yield (name,)
        table = inner[0] if isinstance(inner, list) and inner and isinstance(inner[0], dict) else inner
        if isinstance(table, dict):
            yield from ((name, *path) for path in _paths(table))
