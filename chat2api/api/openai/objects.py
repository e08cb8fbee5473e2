"""Whose the objects are that a call names: a caller by the operator's keys has those that they made, and no others (S8)."""

import re

from chat2api.api.context import current_runtime
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.gateway.provider import Caller

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def is_id(text: str) -> bool:
    """Whether a text may be an object's id."""
    return _ID.fullmatch(text) is not None


async def key_of(caller: Caller, identifiers: set[str]) -> str | None:
    """Give the label of the key that knows these objects, None for any key.

    Raises NotFoundError for one that is not the caller's, InvalidRequestError where no key knows them all. Who brings a key
    of their own is believed: the API knows what belongs to it.
    """
    if caller.kind == "own_key" or not identifiers:
        return None
    found = await current_runtime().api_objects.find({one for one in identifiers if is_id(one)})
    keys: set[str] = set()
    for identifier in sorted(identifiers):
        made = found.get(identifier)
        if made is None or made.owner != caller.owner:
            raise not_there(identifier)
        keys.add(made.key)
    if len(keys) > 1:
        raise InvalidRequestError(
            "These objects were made by different API keys and cannot be used together. Upload the files again in one go.",
            code="objects_of_different_keys",
        )
    return next(iter(keys), None)


def not_there(identifier: str) -> NotFoundError:
    """Give what an object that is not the caller's is answered with."""
    told = identifier[:200].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be told
    return NotFoundError(f"No such object: {told}", param="id", code="not_found")
