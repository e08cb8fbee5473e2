"""The pieces of OpenAPI documents."""

import pytest

from chat2api.protocol.openai.openapi_parts import array, errors, json_content, nullable, object_of, parameter, ref

TEXT: dict[str, object] = {"type": "string"}


def test_an_objects_properties_are_required_unless_some_are_named() -> None:
    assert object_of({"a": TEXT, "b": TEXT})["required"] == ["a", "b"]
    assert object_of({"a": TEXT, "b": TEXT}, ("b",))["required"] == ["b"]
    assert object_of({"a": TEXT}, ())["required"] == []


@pytest.mark.parametrize(("place", "needed"), [("path", True), ("query", False)])
def test_only_what_stands_in_the_path_is_needed(place: str, needed: bool) -> None:
    made = parameter("page", place, "From 1.", TEXT)
    assert (made["name"], made["in"], made["required"], made["schema"]) == ("page", place, needed, TEXT)


def test_pieces_say_what_they_stand_for() -> None:
    assert ref("Key") == {"$ref": "#/components/schemas/Key"}
    assert nullable(TEXT) == {"anyOf": [TEXT, {"type": "null"}]}
    assert array(TEXT) == {"type": "array", "items": TEXT}
    assert json_content(TEXT) == {"application/json": {"schema": TEXT}}
    assert errors(400, 404) == {
        "400": {"$ref": "#/components/responses/Error400"},
        "404": {"$ref": "#/components/responses/Error404"},
    }
