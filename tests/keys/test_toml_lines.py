"""Where entries stand, for every way in which TOML lets them be written."""

import tomllib

import pytest

from chat2api.keys.toml_lines import TomlLines, TomlPath

TEXT = '''\
# a comment with [brackets] and "quotes"

name = "top"
[a]
one = 1
text = """
[not.a.table]
two = 2
"""
"quoted.name" = true

[a.b.c]   # a head with a comment
list = [
  1, # ]
  2,
]
inner = { deep = { deeper = 1 } }
dotted.name.here = 3
[ "x y" . z ]
last = 1
[[many]]
first = 1
[[many]]
second = 1
'''

PLACES: dict[TomlPath, int] = {
    ("name",): 3,
    ("a",): 4,
    ("a", "one"): 5,
    ("a", "text"): 6,
    ("a", "quoted.name"): 10,
    ("a", "b", "c"): 12,
    ("a", "b", "c", "list"): 13,
    ("a", "b", "c", "inner", "deep", "deeper"): 17,
    ("a", "b", "c", "dotted", "name", "here"): 18,
    ("x y", "z"): 19,
    ("x y", "z", "last"): 20,
    ("many",): 21,
    ("many", "first"): 22,
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_an_entry_stands_where_it_is_written(path: TomlPath, ending: str) -> None:
    text = TEXT.replace("\n", ending)
    tomllib.loads(text)
    assert TomlLines(text).line_of(path) == PLACES[path]


@pytest.mark.parametrize(
    ("path", "line"), [(("a", "missing"), 4), (("a", "b", "c", "x", "y"), 12), (("nothing",), 1), ((), 1)]
)
def test_what_is_not_there_is_told_by_the_table_around_it(path: TomlPath, line: int) -> None:
    assert TomlLines(TEXT).line_of(path) == line


def test_an_empty_text_has_its_first_line() -> None:
    assert TomlLines("").line_of(("a",)) == 1
