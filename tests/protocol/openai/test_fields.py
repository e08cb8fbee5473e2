"""Typed reading of JSON fields."""

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai import fields


def test_null_and_absent_are_the_same() -> None:
    for body in ({}, {"x": None}):
        assert fields.read_text(body, "x") is None
        assert fields.read_flag(body, "x") is None
        assert fields.read_integer(body, "x") is None
        assert fields.read_number(body, "x", 0, 1) is None
        assert fields.read_object(body, "x") is None
        assert fields.read_list(body, "x") is None


@pytest.mark.parametrize("value", [True, 1.5, "1", [], {}])
def test_an_integer_is_neither_boolean_nor_fraction(value: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fields.read_integer({"n": value}, "n")
    assert caught.value.param == "n"
    assert caught.value.code == "invalid_type"
    assert f"got {'an' if isinstance(value, list | dict) else 'a'} {fields.type_name(value)} instead" in str(
        caught.value
    )


def test_an_integer_may_be_spelled_as_a_decimal() -> None:
    assert fields.read_integer({"n": 4096.0}, "n", minimum=1) == 4096


def test_bounds_belong_to_the_range() -> None:
    assert fields.read_number({"x": 2}, "x", 0, 2) == 2
    assert fields.read_integer({"x": 1}, "x", minimum=1, maximum=1) == 1
    with pytest.raises(InvalidRequestError) as low:
        fields.read_integer({"x": 0}, "x", minimum=1)
    assert low.value.code == "integer_below_min_value"
    with pytest.raises(InvalidRequestError) as high:
        fields.read_number({"x": 2.5}, "x", 0, 2)
    assert high.value.code == "decimal_above_max_value"
    assert "<= 2" in str(high.value)


def test_path_leads_to_the_field() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fields.require_text({}, "name", "tools[0].function")
    assert caught.value.param == "tools[0].function.name"
    assert caught.value.code == "missing_required_parameter"


def test_long_values_are_not_repeated_whole() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fields.read_word({"x": "y" * 10_000}, "x", ("a", "b", "c"))
    assert len(str(caught.value)) < 200
    assert "'a', 'b', and 'c'" in str(caught.value)


def test_text_has_a_largest_length() -> None:
    assert fields.read_text({"x": "abc"}, "x", max_length=3) == "abc"
    with pytest.raises(InvalidRequestError) as caught:
        fields.read_text({"x": "abcd"}, "x", max_length=3)
    assert caught.value.code == "string_above_max_length"
