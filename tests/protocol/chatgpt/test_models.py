"""Model names, both ways."""

import pytest

from chat2api.errors import NotFoundError, UpstreamProtocolError
from chat2api.protocol.chatgpt.models import (
    AUTO,
    DEFAULT_2024,
    OfferedModel,
    check_shared_model,
    choose_model,
    parse_models,
    reply_name,
)
from chat2api.protocol.prompt import ModelChoice

LIVE_2024 = frozenset({"gpt-4o", "gpt-4", "gpt-4o-mini", "o1-preview", "o1-mini", AUTO, DEFAULT_2024})
LIVE_2026 = frozenset({AUTO, "gpt-5-2", "gpt-5-6", "gpt-5-6-thinking", "o3", "gpt-7-new"})

NAMES: list[tuple[str, str]] = [
    ("gpt-4", "gpt-4"),
    ("gpt-4-0613", "gpt-4"),
    ("gpt-4-0314", "gpt-4"),
    ("gpt-4-32k", "gpt-4"),
    ("gpt-4-turbo", "gpt-4"),
    ("gpt-4-turbo-2024-04-09", "gpt-4"),
    ("gpt-4-turbo-preview", "gpt-4"),
    ("gpt-4-0125-preview", "gpt-4"),
    ("gpt-4-1106-preview", "gpt-4"),
    ("gpt-4-vision-preview", "gpt-4"),
    ("gpt-4-mobile", "gpt-4-mobile"),
    ("gpt-4o", "gpt-4o"),
    ("GPT-4o", "gpt-4o"),
    ("gpt-4o-2024-08-06", "gpt-4o"),
    ("chatgpt-4o-latest", "gpt-4o"),
    ("gpt-4o-canmore", "gpt-4o-canmore"),
    ("gpt-4o-mini", "gpt-4o-mini"),
    ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
    ("gpt-4.1", "gpt-4-1"),
    ("gpt-4.1-mini-2025-04-14", "gpt-4-1-mini"),
    ("gpt-4.5-preview", "gpt-4-5"),
    ("gpt-4.5o", "gpt-4-5o"),
    ("o1", "o1"),
    ("o1-2024-12-17", "o1"),
    ("o1-preview", "o1-preview"),
    ("o1-preview-2024-09-12", "o1-preview"),
    ("o1-mini", "o1-mini"),
    ("o1-pro", "o1-pro"),
    ("o3", "o3"),
    ("o3-mini-high", "o3-mini-high"),
    ("o3-mini-medium", "o3-mini"),
    ("o3-mini-low", "o3-mini"),
    ("o4-mini-high", "o4-mini-high"),
    ("gpt-5", "gpt-5"),
    ("gpt-5-chat-latest", "gpt-5"),
    ("gpt-5.2", "gpt-5-2"),
    ("gpt-5-2", "gpt-5-2"),
    ("gpt-5.2-2025-12-11", "gpt-5-2"),
    ("gpt-5.5-thinking", "gpt-5-5-thinking"),
    ("gpt-5-pro", "gpt-5-pro"),
    ("auto", AUTO),
]


@pytest.mark.parametrize("name, slug", NAMES)
def test_known_names_have_their_slug(name: str, slug: str) -> None:
    assert choose_model(name) == ModelChoice(slug)


@pytest.mark.parametrize(
    "name",
    [
        "gpt-3.5", "gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-1106", "gpt-3.5-turbo-16k",
        "gpt-3.5-turbo-2026-01-01",
    ],
)  # fmt: skip
def test_gpt_3_5_is_the_default_of_its_time(name: str) -> None:
    assert choose_model(name, LIVE_2024) == ModelChoice(DEFAULT_2024)
    assert choose_model(name, LIVE_2026) == ModelChoice(AUTO)
    assert choose_model(name) == ModelChoice(AUTO)


@pytest.mark.parametrize(
    "name", ["gpt-9", "claude-3", "my-gpt-4", "gpt-4x", "gpt-40", "co1", "o1x", "xgpt-4o", "gpt-4-1x", "", "gpt", "o"]
)
def test_unknown_names_fall_to_auto_and_are_remembered(name: str) -> None:
    assert choose_model(name, LIVE_2026) == ModelChoice(AUTO, fallback_from=name)


@pytest.mark.parametrize("name", ["gpt-7-new", "gpt-7.new", "gpt-7-new-2027-01-01"])
def test_what_the_accounts_offer_is_understood(name: str) -> None:
    assert choose_model(name, LIVE_2026) == ModelChoice("gpt-7-new")
    assert choose_model(name).fallback_from == name


@pytest.mark.parametrize(
    "name, slug",
    [("openai/gpt-4o", "gpt-4o"), ("openrouter/openai/gpt-5.5", "gpt-5-5"), ("OpenAI/gpt-4o-2024-08-06", "gpt-4o")],
)
def test_a_provider_before_the_name_is_passed_over(name: str, slug: str) -> None:
    assert choose_model(name) == ModelChoice(slug)
    assert choose_model(name, [name.lower()]) == ModelChoice(name.lower())
    assert choose_model("openai/gpt-9").fallback_from == "openai/gpt-9"
    assert choose_model("openai/").fallback_from == "openai/"


def test_thinking_names_are_a_hint_unless_offered_as_a_slug() -> None:
    for name in ("gpt-5-6-thinking", "gpt-5.6-thinking", "gpt-5-6-t-mini"):
        assert choose_model(name) == ModelChoice(AUTO, hints=("reason",))
    assert choose_model("gpt-5.6-thinking", LIVE_2026) == ModelChoice("gpt-5-6-thinking")


@pytest.mark.parametrize(
    "name, slug",
    [
        ("o3-deep-research", "o3"),
        ("o3-deep-research-2025-06-26", "o3"),
        ("o4-mini-deep-research", "o4-mini"),
        ("gpt-5.2-deep-research", "gpt-5-2"),
        ("deep-research", AUTO),
    ],
)
def test_deep_research_is_a_hint(name: str, slug: str) -> None:
    assert choose_model(name) == ModelChoice(slug, hints=("research",))


@pytest.mark.parametrize(
    "name, choice",
    [
        ("gpt-4-gizmo-g-AbC123", ModelChoice("gpt-4o", "g-AbC123")),
        ("gpt-4-gizmo-g-2fkFE8rbu-dall-e", ModelChoice("gpt-4o", "g-2fkFE8rbu-dall-e")),
        ("gpt-5.2-gizmo-g-AbC123", ModelChoice("gpt-5-2", "g-AbC123")),
        ("g-AbC123", ModelChoice(AUTO, "g-AbC123")),
        ("nothing-gizmo-g-AbC123", ModelChoice(AUTO, "g-AbC123", fallback_from="nothing")),
    ],
)
def test_custom_gpts(name: str, choice: ModelChoice) -> None:
    assert choose_model(name) == choice


def test_without_an_account_there_is_the_default_only() -> None:
    assert choose_model("gpt-3.5-turbo", anonymous=True) == ModelChoice(AUTO)
    assert choose_model("auto", anonymous=True) == ModelChoice(AUTO)
    assert choose_model("gpt-3.5-turbo", LIVE_2024, anonymous=True) == ModelChoice(DEFAULT_2024)
    for name in ("gpt-4", "g-AbC", "gpt-5-6-thinking", "unheard-of"):
        assert choose_model(name, LIVE_2024, anonymous=True) == ModelChoice(DEFAULT_2024, fallback_from=name)


def test_the_operator_s_names_come_first() -> None:
    assert choose_model("gpt-4", aliases={"gpt-4": "o3", "house": "gpt-5.2"}) == ModelChoice("o3")
    assert choose_model("house", aliases={"house": "gpt-5.2"}) == ModelChoice("gpt-5-2")


@pytest.mark.parametrize(
    "name, served, told",
    [
        ("gpt-4o", "gpt-4o", "gpt-4o-2024-05-13"),
        ("gpt-4o", None, "gpt-4o-2024-05-13"),
        ("gpt-4o-2024-08-06", "gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-mini", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("gpt-4", "gpt-4", "gpt-4-0613"),
        ("gpt-4-32k", "gpt-4", "gpt-4-32k-0613"),
        ("gpt-4-turbo", "gpt-4", "gpt-4-turbo-2024-04-09"),
        ("gpt-4-turbo-preview", "gpt-4", "gpt-4-0125-preview"),
        ("gpt-4-vision-preview", "gpt-4", "gpt-4-1106-vision-preview"),
        ("gpt-4-1106-preview", "gpt-4", "gpt-4-1106-preview"),
        ("gpt-4-mobile", "gpt-4-mobile", "gpt-4-mobile"),
        ("o1", "o1", "o1"),
        ("o1-preview", "o1-preview", "o1-preview-2024-09-12"),
        ("o1-mini", "o1-mini", "o1-mini-2024-09-12"),
        ("gpt-3.5-turbo", DEFAULT_2024, "gpt-3.5-turbo-0125"),
        ("gpt-3.5-turbo", "gpt-5-2", "gpt-5-2"),
        ("gpt-3.5-turbo", None, "gpt-3.5-turbo-0125"),
        ("gpt-5.2", "gpt-5-2", "gpt-5-2"),
        ("gpt-5.2", "gpt-5-2-mini", "gpt-5-2-mini"),
        ("auto", None, "auto"),
        ("auto", "gpt-5-2", "gpt-5-2"),
        ("unheard-of", None, "auto"),
        ("unheard-of", "gpt-4o", "gpt-4o-2024-05-13"),
        ("gpt-4-gizmo-g-AbC", "gpt-4o", "gpt-4-gizmo-g-AbC"),
    ],
)
def test_replies_name_what_answered(name: str, served: str | None, told: str) -> None:
    assert reply_name(name, choose_model(name), served) == told


def test_listing_as_an_array() -> None:
    body = {"models": [{"slug": "gpt-4o", "max_tokens": 8192, "title": "GPT-4o"}, {"slug": "auto"}], "categories": []}
    assert parse_models(body) == (OfferedModel("gpt-4o", "GPT-4o", 8192), OfferedModel("auto", "auto", None))


def test_listing_as_an_object() -> None:
    body = {"models": {"gpt-4o": {"title": "GPT-4o"}, "x": {"slug": "y"}, "z": "Title of z"}}
    assert [model.slug for model in parse_models(body)] == ["gpt-4o", "y", "z"]


def test_listing_with_other_names_of_the_slug() -> None:
    body = {
        "models": [
            {"id": "a"}, {"model_slug": "b"}, {"model": {"slug": "c", "title": "C"}}, {"model": "d"}, "e",
            {"slug": "a"}, {"title": "none"}, 5, None, {"slug": 7}, {"slug": "f", "max_tokens": True},
        ]
    }  # fmt: skip
    models = parse_models(body)
    assert [model.slug for model in models] == ["a", "b", "c", "d", "e", "f"]
    assert models[2].title == "C"
    assert models[5].max_tokens is None


def test_an_empty_listing_is_one() -> None:
    assert parse_models({"models": []}) == ()


@pytest.mark.parametrize("body", [None, "x", 5, {}, {"detail": "Unauthorized"}, {"models": "x"}])
def test_what_is_no_listing_is_not_understood(body: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_models(body)


@pytest.mark.parametrize(
    "name", ["g-p-0123", "gpt-4-gizmo-g-p-0123", "gpt-4-gizmo-g-P-0123", " g-p-0123-trip ", "g-p-"]
)
def test_S8_a_project_of_a_shared_account_is_like_a_gpt_that_nobody_knows(name: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        check_shared_model("auto", name)
    assert refused.value.code == "model_not_found"


def test_custom_gpts_and_models_are_for_all() -> None:
    check_shared_model("", "auto", "g-Abc", "gpt-4-gizmo-g-pAbc", "gpt-4o", "bag-p-1")
