"""The model list in OpenAI's shape, made of the slugs that the backend offers."""

import re
from collections.abc import Collection, Iterable
from typing import Literal, TypedDict

from chat2api.errors import NotFoundError

# The backend tells no dates. Clients want a number that does not change: this is the API's own for gpt-3.5-turbo.
_CREATED = 1_677_610_602
_OWNER = "openai"

# A version's second number has one or two digits; `gpt-4-0613` and `gpt-4-32k` have none.
_VERSION = re.compile(r"(gpt-\d+)-(\d{1,2})(?=-|\Z)")


class ModelObject(TypedDict):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """The answer of `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelObject]


def public_alias(slug: str) -> str | None:
    """Give a slug's name as the API spells it (`gpt-5.2` for `gpt-5-2`); None where both are the same."""
    alias = _VERSION.sub(r"\1.\2", slug, count=1)
    return alias if alias != slug else None


def model_list(slugs: Collection[str]) -> ModelList:
    """Give all models that can be asked for, slugs and their public names, sorted."""
    names = {*slugs, *filter(None, map(public_alias, slugs))}
    return {"object": "list", "data": [_model(name) for name in sorted(names)]}


def model_not_found(name: str, there_are: Iterable[str] = ()) -> NotFoundError:
    """Make the error for a model that does not exist, or not for this key; `there_are` are told in its place."""
    names = ", ".join(f"`{other}`" for other in there_are)
    return NotFoundError(
        f"The model `{name[:200]}` does not exist or you do not have access to it."
        + (names and f" There are: {names}."),
        param="model",
        code="model_not_found",
    )


def _model(name: str) -> ModelObject:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": _OWNER}
