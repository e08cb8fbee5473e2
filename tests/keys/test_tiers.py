"""Tiers as values, and the one that is built in."""

from pathlib import Path

import pytest

from chat2api.keys.tier_file import read_tiers
from chat2api.keys.tiers import BUILT_IN

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "tiers.example.toml"


def test_the_built_in_tier_is_the_first_of_the_example() -> None:
    assert read_tiers(EXAMPLE.read_text(encoding="utf-8"))[0] == BUILT_IN


def test_G4_the_built_in_tier_bounds_everybody_and_every_model() -> None:
    assert BUILT_IN.per_person.requests_per_minute is not None
    assert BUILT_IN.per_person.requests_at_once is not None
    assert BUILT_IN.rules.max_answer_tokens is not None
    for model in BUILT_IN.models:
        assert model.limits.requests_per_minute is not None
        assert model.limits.tokens_per_minute is not None


@pytest.mark.parametrize(
    ("asked", "found"),
    [("gpt-3.5-turbo", "gpt-3.5-turbo"), ("GPT-3-5-turbo", "gpt-3.5-turbo"), ("gpt-4o-mini ", "gpt-4o-mini")],
)
def test_a_model_is_found_however_its_version_is_spelt(asked: str, found: str) -> None:
    model = BUILT_IN.find_model(asked)
    assert model is not None
    assert model.name == found


@pytest.mark.parametrize("asked", ["gpt-4o", "gpt-4o-mini-2024-07-18", "", "gpt-3.5"])
def test_a_model_that_is_not_named_is_not_there(asked: str) -> None:
    assert BUILT_IN.find_model(asked) is None


def test_a_shared_key_is_not_shown_with_the_tier() -> None:
    (_, readers) = read_tiers(EXAMPLE.read_text(encoding="utf-8"))
    assert readers.shared_key
    assert readers.shared_key not in repr(readers)
