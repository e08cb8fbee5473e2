"""Tests of changes to documents."""

import copy

import pytest

from chat2api.simulator.script import Change, Open, Patch, Step, apply_change, play
from chat2api.simulator.wire import JSON, Object

_DOCUMENT: Object = {"a": {"text": "ab", "list": [1, 2], "map": {"x": 1}, "none": None, "a/b": 1}}


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        (Change("/a/text", "append", "c"), "text", "abc"),
        (Change("/a/text", "replace", "c"), "text", "c"),
        (Change("/a/text", "truncate", 1), "text", "a"),
        (Change("/a/list", "append", [3, 4]), "list", [1, 2, 3, 4]),
        (Change("/a/list", "append", 3), "list", [1, 2, 3]),
        (Change("/a/list/0", "add", 0), "list", [0, 1, 2]),
        (Change("/a/list/-", "add", 3), "list", [1, 2, 3]),
        (Change("/a/list/1", "replace", 9), "list", [1, 9]),
        (Change("/a/list/0", "remove"), "list", [2]),
        (Change("/a/list", "truncate", 1), "list", [1]),
        (Change("/a/map", "append", {"y": 2}), "map", {"x": 1, "y": 2}),
        (Change("/a/map/x", "remove"), "map", {}),
        (Change("/a/none", "append", "new"), "none", "new"),
        (Change("/a/new", "append", ["new"]), "new", ["new"]),
        (Change("/a/a~1b", "replace", 2), "a/b", 2),
    ],
)
def test_each_operation_changes_its_target(change: Change, key: str, value: JSON) -> None:
    document = copy.deepcopy(_DOCUMENT)
    apply_change(document, change)
    inner = document["a"]
    assert isinstance(inner, dict)
    assert inner[key] == value


@pytest.mark.parametrize("path", ["/b/c", "/a/list/7", "/a/text/0"])
def test_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    with pytest.raises((KeyError, IndexError, TypeError)):
        apply_change(copy.deepcopy(_DOCUMENT), Change(path, "replace", 1))


def test_playing_leaves_the_script_as_it_was() -> None:
    message: Object = {"id": "m", "metadata": {"list": []}}
    steps: list[Step] = [Open(message), Patch((Change("/message/metadata/list", "append", [1]),))]
    assert play(steps) == play(steps) == [{"id": "m", "metadata": {"list": [1]}}]
    assert message == {"id": "m", "metadata": {"list": []}}
