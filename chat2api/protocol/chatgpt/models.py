"""Models: the caller's name, the backend's slug, and the name that the reply bears.

A name is looked up whole, never by a part of it: `gpt-4` must not swallow `gpt-4.1`. In this order:

1. a custom GPT: `gpt-4-gizmo-g-…`, `<model>-gizmo-g-…`, or the bare `g-…`;
2. a slug that the accounts offer, as given or with `-` for `.`;
3. the table below;
4. both again without a date or `-latest` at the end, with `-deep-research` taken for a hint, or without the provider
   that clients of several put before it (`openai/gpt-4o`);
5. the default, and the name is remembered as not understood.

Sources: the 2024 names from chat2api 1.4.9; later ones from public clients of 2025 and 2026.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from chat2api.errors import NotFoundError, UpstreamProtocolError
from chat2api.protocol.prompt import ModelChoice

AUTO = "auto"
DEFAULT_2024 = "text-davinci-002-render-sha"
"""The slug of GPT-3.5 in 2024; a backend that no longer offers it takes `auto` in its place."""

_DEFAULT = "(default)"
_GPT_4O = "gpt-4o"

# Names whose slug is another word. Names that are slugs themselves are in _SLUGS.
_ALIASES: dict[str, str] = {
    "chatgpt-4o-latest": _GPT_4O,
    "gpt-3.5": _DEFAULT,
    "gpt-3.5-turbo": _DEFAULT,
    "gpt-3.5-turbo-0125": _DEFAULT,
    "gpt-3.5-turbo-0301": _DEFAULT,
    "gpt-3.5-turbo-0613": _DEFAULT,
    "gpt-3.5-turbo-1106": _DEFAULT,
    "gpt-3.5-turbo-16k": _DEFAULT,
    "gpt-3.5-turbo-16k-0613": _DEFAULT,
    "gpt-3.5-turbo-instruct": _DEFAULT,
    "gpt-4-0125-preview": "gpt-4",
    "gpt-4-0314": "gpt-4",
    "gpt-4-0613": "gpt-4",
    "gpt-4-1106-preview": "gpt-4",
    "gpt-4-1106-vision-preview": "gpt-4",
    "gpt-4-32k": "gpt-4",
    "gpt-4-32k-0314": "gpt-4",
    "gpt-4-32k-0613": "gpt-4",
    "gpt-4-turbo": "gpt-4",
    "gpt-4-turbo-preview": "gpt-4",
    "gpt-4-vision-preview": "gpt-4",
    "gpt-4-5-preview": "gpt-4-5",
    "o3-mini-low": "o3-mini",
    "o3-mini-medium": "o3-mini",
    "o4-mini-low": "o4-mini",
    "o4-mini-medium": "o4-mini",
}

_SLUGS = frozenset(
    {
        AUTO,
        DEFAULT_2024,
        "gpt-4",
        "gpt-4-1",
        "gpt-4-1-mini",
        "gpt-4-5",
        "gpt-4-5o",
        "gpt-4-mobile",
        _GPT_4O,
        "gpt-4o-canmore",
        "gpt-4o-mini",
        "gpt-5",
        "gpt-5-1",
        "gpt-5-2",
        "gpt-5-5",
        "gpt-5-5-instant",
        "gpt-5-5-pro",
        "gpt-5-5-thinking",
        "gpt-5-6",
        "gpt-5-6-pro",
        "gpt-5-mini",
        "gpt-5-pro",
        "gpt-5-thinking",
        "o1",
        "o1-mini",
        "o1-preview",
        "o1-pro",
        "o3",
        "o3-mini",
        "o3-mini-high",
        "o4-mini",
        "o4-mini-high",
    }
)

# Names of a mode rather than of a model: the web client sends `auto` with a hint.
_REASONING = frozenset({"gpt-5-6-t-mini", "gpt-5-6-thinking"})

# What replies are named, where the API of that time named a dated model.
_REPLY_NAMES: dict[str, str] = {
    "gpt-3.5": "gpt-3.5-turbo-0125",
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-3.5-turbo-16k": "gpt-3.5-turbo-16k-0613",
    "gpt-4": "gpt-4-0613",
    "gpt-4-32k": "gpt-4-32k-0613",
    "gpt-4-turbo": "gpt-4-turbo-2024-04-09",
    "gpt-4-turbo-preview": "gpt-4-0125-preview",
    "gpt-4-vision-preview": "gpt-4-1106-vision-preview",
    "gpt-4o": "gpt-4o-2024-05-13",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "o1-mini": "o1-mini-2024-09-12",
    "o1-preview": "o1-preview-2024-09-12",
    DEFAULT_2024: "gpt-3.5-turbo-0125",
}

_GIZMO = re.compile(r"(?:(?P<model>.+?)-gizmo-)?(?P<id>g-[A-Za-z0-9][A-Za-z0-9-]*)")
_PROJECT = re.compile(r"(?:.+-gizmo-)?g-p-.*", re.IGNORECASE | re.DOTALL)
_DATED = re.compile(r"(?P<name>.+?)(?:-\d{4}-\d{2}-\d{2}|-\d{4}|-chat-latest|-latest)")
_HAS_DATE = re.compile(r"-\d{4}(?:-\d{2}-\d{2}|(?:-vision)?-preview)?\Z")
_RESEARCH = "deep-research"


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model of the backend's listing; `title` is for people, `max_tokens` None where it is not told."""

    slug: str
    title: str
    max_tokens: int | None


def choose_model(
    name: str,
    live: Collection[str] = frozenset(),
    *,
    anonymous: bool = False,
    aliases: Mapping[str, str] | None = None,
) -> ModelChoice:
    """Give what to ask the backend for when a caller asks for name.

    `live` are the slugs that the accounts offer, empty while unknown. Without an account (`anonymous`) there is the
    default only. `aliases` are the operator's own names, which come before everything else.
    """
    if aliases and name in aliases:
        name = aliases[name]
    choice = _find(name, live) or ModelChoice(AUTO, fallback_from=name)
    if not anonymous:
        return choice
    default = _default_slug(live)
    understood = choice.gizmo_id is None and not choice.hints and choice.slug in (AUTO, default)
    return ModelChoice(default, fallback_from=None if understood and choice.fallback_from is None else name)


def check_shared_model(*names: str) -> None:
    """Raise NotFoundError where one of the models is a project of an account that others share: one like any unknown GPT."""
    if any(_PROJECT.fullmatch(name.strip()) for name in names):
        raise NotFoundError(
            "The model or custom GPT does not exist, or this account may not use it.",
            param="model",
            code="model_not_found",
        )


def reply_name(name: str, choice: ModelChoice, served: str | None) -> str:
    """Give the model that a reply names, when name was asked for, choice was sent and the slug `served` answered.

    That is what answered: the dated name where that model has one, else its slug; the name as given for a custom
    GPT. None for `served` means that the backend has not told (yet).
    """
    if choice.gizmo_id is not None:
        return name
    slug = served or choice.slug
    asked = name.strip().lower()
    if slug == AUTO and _ALIASES.get(asked) != _DEFAULT:
        return AUTO
    # A date that was asked for is kept, as far as the slug, which has none, can tell the two apart.
    if choice.fallback_from is None and slug == choice.slug and (asked in _REPLY_NAMES or _HAS_DATE.search(asked)):
        return _REPLY_NAMES.get(asked, asked)
    return _REPLY_NAMES.get(slug, slug)


def parse_models(body: object) -> tuple[OfferedModel, ...]:
    """Give the models of the backend's listing, in its order, each once.

    `models` may be an array or an object of models by slug; a model names itself `slug`, `id` or `model_slug`, itself
    or under `model`. Entries without a name are skipped. Raises UpstreamProtocolError when there is no list at all.
    """
    listing = body.get("models", body.get("data")) if isinstance(body, dict) else body
    if isinstance(listing, dict):
        found = [_parse_model(key, value) for key, value in listing.items()]
    elif isinstance(listing, list):
        found = [_parse_model(None, value) for value in listing]
    else:
        raise UpstreamProtocolError("The backend's list of models has an unknown shape.")
    return tuple({model.slug: model for model in found if model is not None}.values())


def _find(name: str, live: Collection[str]) -> ModelChoice | None:
    gizmo = _GIZMO.fullmatch(name.strip())
    if gizmo:
        return _find_gizmo(gizmo, live)
    for candidate in _spellings(name.strip().lower()):
        choice = _look_up(candidate, live)
        if choice is not None:
            return choice
        base = candidate.removesuffix(_RESEARCH).removesuffix("-")
        if base != candidate:
            found = _look_up(base or AUTO, live)
            if found is not None:
                return ModelChoice(found.slug, hints=("research",))
    return None


def _find_gizmo(gizmo: re.Match[str], live: Collection[str]) -> ModelChoice | None:
    model = gizmo["model"]
    if model is None:
        return ModelChoice(AUTO, gizmo_id=gizmo["id"])
    if model.lower() == "gpt-4":
        # The 2024 form, whose GPTs run on GPT-4o.
        return ModelChoice(_GPT_4O, gizmo_id=gizmo["id"])
    base = _find(model, live)
    if base is None:
        return ModelChoice(AUTO, gizmo_id=gizmo["id"], fallback_from=model)
    return ModelChoice(base.slug, gizmo_id=gizmo["id"], hints=base.hints)


def _spellings(name: str) -> Iterator[str]:
    """Yield the ways to read a name, the most exact first."""
    yield name
    dashed = name.replace(".", "-")
    if dashed != name:
        yield dashed
    dated = _DATED.fullmatch(name)
    if dated:
        yield from _spellings(dated["name"])
    provider, slash, own = name.rpartition("/")
    if slash and provider:
        yield from _spellings(own)


def _look_up(name: str, live: Collection[str]) -> ModelChoice | None:
    if name in live:
        return ModelChoice(name)
    if name in _ALIASES:
        slug = _ALIASES[name]
        return ModelChoice(_default_slug(live) if slug == _DEFAULT else slug)
    if name in _REASONING:
        return ModelChoice(AUTO, hints=("reason",))
    return ModelChoice(name) if name in _SLUGS else None


def _default_slug(live: Collection[str]) -> str:
    return DEFAULT_2024 if DEFAULT_2024 in live else AUTO


def _parse_model(key: str | None, value: object) -> OfferedModel | None:
    if isinstance(value, str):
        return OfferedModel(key or value, value, None)
    if not isinstance(value, dict):
        return None
    nested = value.get("model")
    fields = {**nested, **value} if isinstance(nested, dict) else value
    names = (fields.get("slug"), fields.get("id"), fields.get("model_slug"), nested, key)
    slug = next((name for name in names if isinstance(name, str) and name), None)
    if slug is None:
        return None
    title, limit = fields.get("title"), fields.get("max_tokens")
    return OfferedModel(
        slug,
        title if isinstance(title, str) and title else slug,
        limit if isinstance(limit, int) and not isinstance(limit, bool) else None,
    )
