"""Delta documents: what each operation does, what sticks, and what is told of it."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.protocol.chatgpt.patches import DeltaDocuments, Rope, text_of
from tests.protocol.chatgpt.streams import envelope, message


def plain(value: Any) -> Any:
    """Give the value with ropes as strings."""
    if isinstance(value, Rope):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def nested(depth: int, operation: dict[str, Any]) -> dict[str, Any]:
    """Give a patch of a patch of … of this operation."""
    for _ in range(depth):
        operation = {"p": "", "o": "patch", "v": [operation]}
    return operation


def apply_all(*deltas: dict[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
    unknown: Counter[str] = Counter()
    documents = DeltaDocuments(unknown)
    (change,) = documents.apply(
        {"p": "", "o": "add", "v": {"message": {"a": "x", "list": [1, 2, 3], "object": {"k": 1}}}}
    )
    for delta in deltas:
        documents.apply(delta)
    inner = plain(change.document)["message"]
    assert isinstance(inner, dict)
    return inner, unknown


@pytest.mark.parametrize(
    ("delta", "where", "expected"),
    [
        ({"p": "/message/a", "o": "append", "v": "y"}, "a", "xy"),
        ({"p": "/message/list", "o": "append", "v": [4]}, "list", [1, 2, 3, 4]),
        ({"p": "/message/list", "o": "append", "v": 4}, "list", [1, 2, 3, 4]),
        ({"p": "/message/object", "o": "append", "v": {"l": 2}}, "object", {"k": 1, "l": 2}),
        ({"p": "/message/new", "o": "append", "v": "y"}, "new", "y"),
        ({"p": "/message/new/deep", "o": "append", "v": "y"}, "new", {"deep": "y"}),
        ({"p": "/message/a", "o": "replace", "v": None}, "a", None),
        ({"p": "/message/list/1", "o": "replace", "v": "b"}, "list", [1, "b", 3]),
        ({"p": "/message/list/1", "o": "add", "v": "b"}, "list", [1, "b", 2, 3]),
        ({"p": "/message/list/-", "o": "add", "v": 4}, "list", [1, 2, 3, 4]),
        ({"p": "/message/list/0", "o": "remove"}, "list", [2, 3]),
        ({"p": "/message/list", "o": "truncate", "v": 1}, "list", [1]),
        ({"p": "/message/a", "o": "truncate", "v": 0}, "a", ""),
        ({"p": "/message/object/k", "o": "remove", "v": None}, "object", {}),
        ({"p": "/message/object/x~1y~0", "o": "add", "v": 1}, "object", {"k": 1, "x/y~": 1}),
        ({"v": [{"p": "/message/a", "o": "append", "v": "y"}]}, "a", "xy"),
        ({"o": "patch", "v": [{"p": "/message/a", "o": "append", "v": "y"}]}, "a", "xy"),
        ({"p": "/message", "o": "patch", "v": [{"p": "/a", "o": "append", "v": "y"}]}, "a", "xy"),
        ({"v": [{"p": "/message", "o": "patch", "v": [{"p": "/a", "o": "append", "v": "y"}]}]}, "a", "xy"),
        ({"v": [{"p": "/message/a", "o": "append", "v": "y"}, {"v": "z"}]}, "a", "xyz"),
        ({"v": [{"p": "/message/a", "o": "replace", "v": "y"}, {"p": "/message/new", "v": "z"}]}, "new", "z"),
    ],
)
def test_an_operation_does_what_it_says(delta: dict[str, Any], where: str, expected: object) -> None:
    document, unknown = apply_all(delta)

    assert document[where] == expected
    assert not unknown


@pytest.mark.parametrize(
    "delta",
    [
        {"p": "/message/list/99", "o": "replace", "v": 1},
        {"p": "/message/list/x", "o": "add", "v": 1},
        {"p": "/message/a/b", "o": "append", "v": "y"},
        {"p": "/message/object", "o": "append", "v": 5},
        {"p": "/message/a", "o": "zap", "v": 5},
        {"p": "/message/list/9999999/x", "o": "add", "v": 1},
        {"p": "", "o": "append", "v": 5},
        {"o": "patch", "v": ["x"]},
        {"o": "patch", "v": [{"p": 5}]},
        nested(20, {"p": "/message/a", "o": "append", "v": "y"}),
    ],
)
def test_R14_an_operation_without_sense_changes_nothing_and_is_counted(delta: dict[str, Any]) -> None:
    document, unknown = apply_all(delta)

    assert document == {"a": "x", "list": [1, 2, 3], "object": {"k": 1}}
    assert sum(unknown.values()) == 1


def test_path_and_operation_stick_and_a_patch_does_not_change_them() -> None:
    document, _ = apply_all(
        {"p": "/message/a", "o": "append", "v": "1"},
        {"v": "2"},
        {"v": [{"p": "/message/object/k", "o": "replace", "v": 9}]},
        {"v": "3"},
        {"p": "/message/list", "v": [4]},
        {"v": [5]},
    )

    assert document == {"a": "x123", "list": [1, 2, 3, 4, 5], "object": {"k": 9}}


def test_a_list_of_objects_that_are_no_operations_extends_the_sticky_list() -> None:
    document, _ = apply_all({"p": "/message/list", "o": "append", "v": [{"url": "a"}]}, {"v": [{"url": "b"}]})

    assert document["list"][-2:] == [{"url": "a"}, {"url": "b"}]


def test_an_explicit_operation_on_a_list_of_operations_is_no_patch() -> None:
    value = [{"p": "/message/a", "o": "append", "v": "y"}]
    document, _ = apply_all({"p": "/message/list", "o": "replace", "v": value})

    assert document["list"] == value
    assert document["a"] == "x"


def test_documents_live_side_by_side() -> None:
    documents = DeltaDocuments(Counter())
    (first,) = documents.apply({"v": envelope(message("one", id="1")), "c": 1})
    (second,) = documents.apply({"v": envelope(message("two", id="2")), "c": 2})
    documents.apply({"c": 1})
    documents.apply({"p": "/message/content/parts/0", "o": "append", "v": "!"})
    (change,) = documents.apply({"c": 2, "v": "?"})

    assert plain(first.document)["message"]["content"]["parts"] == ["one!"]
    assert plain(second.document)["message"]["content"]["parts"] == ["two?"]
    assert (change.kind, change.text) == ("text", "?")


def test_a_message_at_a_deeper_path_begins_no_document() -> None:
    document, _ = apply_all({"p": "/message/object", "o": "add", "v": {"message": "hello"}})

    assert document["object"] == {"message": "hello"}


def test_growing_goes_on_only_where_the_last_append_was() -> None:
    documents = DeltaDocuments(Counter())
    documents.apply({"v": envelope(message("")), "c": 1})

    assert documents.grow("x") is None
    documents.apply({"p": "/message/content/parts/0", "o": "append", "v": "a"})
    documents.apply({"v": "b"})
    grown = documents.grow("c")
    assert grown is not None
    assert plain(grown[0])["message"]["content"]["parts"] == ["abc"]
    documents.apply({"p": "/message/status", "o": "replace", "v": "done"})
    assert documents.grow("x") is None


@given(st.lists(st.text(max_size=5)))
def test_a_rope_is_the_string_of_its_parts(parts: list[str]) -> None:
    rope = Rope("")
    for part in parts:
        rope.append(part)
        if len(part) == 1:
            assert str(rope).endswith(part)

    assert text_of(rope) == "".join(parts)


@pytest.mark.parametrize("value", [None, 5, [], {}, True])
def test_what_is_no_string_has_no_text(value: object) -> None:
    assert text_of(value) == ""
