"""The model list."""

import pytest

from chat2api.protocol.openai.models import model_list, model_not_found, public_alias


@pytest.mark.parametrize(
    "slug, alias",
    [
        ("gpt-5-2", "gpt-5.2"),
        ("gpt-4-1-mini", "gpt-4.1-mini"),
        ("gpt-5-6-t-mini", "gpt-5.6-t-mini"),
        ("gpt-12-10", "gpt-12.10"),
        ("gpt-5", None),
        ("gpt-4o", None),
        ("gpt-4-0613", None),
        ("gpt-4-32k", None),
        ("gpt-4-1106-preview", None),
        ("o3-mini", None),
        ("text-davinci-002-render-sha", None),
        ("auto", None),
    ],
)
def test_versions_are_spelled_with_a_point(slug: str, alias: str | None) -> None:
    assert public_alias(slug) == alias


def test_list_is_sorted_and_holds_each_name_once() -> None:
    listing = model_list(["o3", "gpt-5-2", "auto", "o3"])
    assert listing["object"] == "list"
    assert [model["id"] for model in listing["data"]] == ["auto", "gpt-5-2", "gpt-5.2", "o3"]


def test_list_does_not_change_from_call_to_call() -> None:
    assert model_list({"b", "a"}) == model_list(["a", "b"])
    assert {model["owned_by"] for model in model_list(["a"])["data"]} == {"openai"}


def test_a_model_that_is_not_found_is_named_no_longer_than_a_name_is() -> None:
    error = model_not_found("gpt-9" * 100)
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "gpt-9" in error.message
    assert len(error.message) < 300
