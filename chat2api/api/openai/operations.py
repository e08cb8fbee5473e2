"""The API's other operations, forwarded: responses, embeddings, moderations, images, speech, files, completions.

What calls by the operator's keys make (files, stored responses) belongs to the caller who made it: to everybody else it is
not there (S8), and it stays with the key that made it. Who sends a key of their own is held to nothing of that: the API
itself knows whose it is.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal

import orjson
from quart import Blueprint, Response, request

from chat2api.api.body import check_names, read_body
from chat2api.api.charging import check_model, held_to_rate, open_charge
from chat2api.api.context import current_caller, current_runtime
from chat2api.api.openai.forward import Forwarding, forward
from chat2api.api.openai.objects import is_id, key_of, not_there
from chat2api.errors import Chat2APIError, InvalidRequestError, NotFoundError, UpstreamRefusedRequestError
from chat2api.gateway.api_answers import read_list
from chat2api.gateway.attempts import affinity_of
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.keys.quota import EXPECTED_COMPLETION
from chat2api.protocol.openai.fields import is_object, require_text, wrong_type
from chat2api.protocol.openai.forwarded import expected_picture_tokens, prepare_body
from chat2api.protocol.openai.references import references
from chat2api.protocol.prompt import Message, TextPart
from chat2api.storage.api_objects import ObjectKind
from chat2api.upstream.openai import ApiCall

log = logging.getLogger(__name__)

blueprint = Blueprint("operations", __name__)

_QUERY = ("after", "before", "include", "include[]", "limit", "order", "purpose", "starting_after", "stream")
"""Parameters that are passed on."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation with a JSON body. `model` is what the API takes where a body names none, None where it must.

    `says` that its answer is text of any length, `makes` what it leaves with the API unless it is told not to, `asks` that no
    model works for it.
    """

    path: tuple[str, ...]
    kind: Literal["chat", "responses", "other"] = "other"
    model: str | None = None
    says: bool = False
    makes: ObjectKind | None = None
    asks: bool = False


OPERATIONS = {
    "/v1/responses": Operation(("responses",), "responses", says=True, makes="response"),
    "/v1/responses/compact": Operation(("responses", "compact"), says=True),
    "/v1/responses/input_tokens": Operation(("responses", "input_tokens"), asks=True),
    "/v1/completions": Operation(("completions",), "chat", says=True),
    "/v1/embeddings": Operation(("embeddings",)),
    "/v1/moderations": Operation(("moderations",), model="omni-moderation-latest"),
    "/v1/images/generations": Operation(("images", "generations"), model="dall-e-2"),
    "/v1/audio/speech": Operation(("audio", "speech")),
}
"""By route."""


@blueprint.post("/v1/responses")
@blueprint.post("/v1/responses/compact")
@blueprint.post("/v1/responses/input_tokens")
@blueprint.post("/v1/completions")
@blueprint.post("/v1/embeddings")
@blueprint.post("/v1/moderations")
@blueprint.post("/v1/images/generations")
@blueprint.post("/v1/audio/speech")
async def operate() -> Response:
    """Forward an operation whose body names its model."""
    caller = current_caller()
    path = "/v1/" + request.path.rstrip("/").rpartition("/v1/")[2]
    operation = OPERATIONS[path]
    body = await read_body()
    if not is_object(body.value):
        raise wrong_type("body", "an object", body.value)
    model = operation.model if body.value.get("model") is None else None
    route = await current_runtime().routing.route_to_keys(caller, model or require_text(body.value, "model"))
    forwarded = prepare_body(
        body.data,
        body.value,
        model=route.model if route.named else None,
        is_chat=operation.kind == "chat",
    )
    key = await key_of(caller, references(body.value))
    is_picture = operation.path[0] == "images"
    longest: int | None = 1
    if is_picture:
        longest = expected_picture_tokens(route.model, body.value.get("quality"), body.value.get("size"))
    elif operation.says:
        longest = forwarded.max_tokens
    forwarding = Forwarding(
        "POST",
        operation.path,
        route.model,
        body=forwarded.data,
        stream=forwarded.stream,
        asked_usage=forwarded.asked_usage,
        plain_body=forwarded.plain,
        kind=operation.kind,
        count_images=lambda: forwarded.choices if is_picture else 0,
        affinity=f"{caller.owner}\0{forwarded.user}" if forwarded.user else affinity_of(caller),
        key=key,
        longest=(longest or EXPECTED_COMPLETION) if body.value.get("background") is True else None,
        makes=operation.makes if body.value.get("store") is not False else None,
    )
    if operation.asks:
        return await _ask(forwarding)
    charge = await open_charge(
        (Message("user", (TextPart(forwarded.text),)),),
        model=route.model,
        max_tokens=longest,
        choices=forwarded.choices if operation.kind == "chat" or is_picture else 1,
        more_tokens=forwarded.tokens,
    )
    return await forward(forwarding, charge)


async def _ask(forwarding: Forwarding) -> Response:
    """Forward a call for which no model works."""
    check_model(current_caller(), forwarding.model)
    async with held_to_rate():
        return await forward(forwarding, None)


# Responses that are kept


@blueprint.get("/v1/responses/<identifier>")
async def get_response(identifier: str) -> Response:
    """Forward a look at a stored response."""
    return await _forward_object("GET", ("responses", identifier), identifier)


@blueprint.delete("/v1/responses/<identifier>")
async def delete_response(identifier: str) -> Response:
    """Forward the removal of a stored response."""
    return await _forward_object("DELETE", ("responses", identifier), identifier, deletes=True)


@blueprint.post("/v1/responses/<identifier>/cancel")
async def cancel_response(identifier: str) -> Response:
    """Forward the end of a response that is made in the background."""
    return await _forward_object("POST", ("responses", identifier, "cancel"), identifier)


@blueprint.get("/v1/responses/<identifier>/input_items")
async def list_input_items(identifier: str) -> Response:
    """Forward a look at what a stored response was given."""
    return await _forward_object("GET", ("responses", identifier, "input_items"), identifier)


# Files


@blueprint.get("/v1/files")
async def list_files() -> Response:
    """Forward the list of files: of the caller's own key as it is, by the operator's keys those of the caller."""
    caller = current_caller()
    await current_runtime().routing.route_to_keys(caller, "files")
    async with held_to_rate():
        if caller.kind == "own_key":
            return await forward(Forwarding("GET", ("files",), "files", query=_query()), None)
        files, whole = await _own_files(caller)
        page = _page_of(files)
        if not whole:
            page.headers["x-chat2api-incomplete"] = "true"
        return page


@blueprint.get("/v1/files/<identifier>")
async def get_file(identifier: str) -> Response:
    """Forward a look at a file."""
    return await _forward_object("GET", ("files", identifier), identifier)


@blueprint.get("/v1/files/<identifier>/content")
async def get_file_content(identifier: str) -> Response:
    """Forward a file's content."""
    return await _forward_object("GET", ("files", identifier, "content"), identifier)


@blueprint.delete("/v1/files/<identifier>")
async def delete_file(identifier: str) -> Response:
    """Forward the removal of a file."""
    return await _forward_object("DELETE", ("files", identifier), identifier, deletes=True)


async def _forward_object(method: str, path: tuple[str, ...], identifier: str, *, deletes: bool = False) -> Response:
    caller = current_caller()
    await current_runtime().routing.route_to_keys(caller, path[0])
    if not is_id(identifier):
        raise not_there(identifier)
    key = await key_of(caller, {identifier})
    forwarding = Forwarding(
        method,
        path,
        path[0],
        stream=(streamed := request.args.get("stream") == "true"),
        kind="responses" if streamed else "other",
        query=_query(),
        key=key,
        deletes=identifier if deletes else None,
    )
    async with held_to_rate():
        return await forward(forwarding, None)


async def _own_files(caller: Caller) -> tuple[list[dict[str, object]], bool]:
    """Give the caller's files as the API tells them now, asked of each key that has some, and whether all keys told.

    Raises the failure of one key when none told.
    """
    owned = await current_runtime().api_objects.of(caller.owner, "file")
    keys = sorted({one.key for one in owned})
    answers = await asyncio.gather(*(_files_of(caller, key) for key in keys))
    failures = [answer for answer in answers if isinstance(answer, Chat2APIError)]
    if failures and len(failures) == len(answers):
        raise failures[0]
    listed: list[dict[str, object]] = []
    for key, answer in zip(keys, answers, strict=True):
        known = {one.id for one in owned if one.key == key}
        if isinstance(answer, Chat2APIError):
            log.warning("the files of API %s are missing in a list: %s", key, answer)
        else:
            listed += [one for one in answer if one.get("id") in known]
    return listed, not failures


async def _files_of(caller: Caller, key: str) -> list[dict[str, object]] | Chat2APIError:
    """Give the files of a key, or why they cannot be had; none of a key that is not configured any more."""
    openai, seconds = current_runtime().openai, current_runtime().config.preparation_timeout
    call = ApiCall("GET", ("files",), seconds, query=(("limit", "10000"),))
    first_by = asyncio.get_running_loop().time() + seconds
    try:
        answer = await openai.open(caller, call, model="files", first_by=first_by, facts=AnswerFacts(), key=key)
        body = await answer.read_whole(seconds)
        if answer.status >= 400:
            return UpstreamRefusedRequestError("The API does not list its files for this key.")
        return read_list(body)
    except NotFoundError:
        return []
    except Chat2APIError as error:
        return error


def _page_of(files: list[dict[str, object]]) -> Response:
    """Give the part of a list that the current request asks for."""
    check_names(request.args, ("after", "limit", "order", "purpose"))
    purpose, order, after = (request.args.get(name) for name in ("purpose", "order", "after"))
    limit = request.args.get("limit", "10000")
    if (
        not limit.isascii()
        or not limit.isdigit()
        or not 1 <= int(limit) <= 10_000
        or order not in (None, "asc", "desc")
    ):
        raise InvalidRequestError("`limit` is a number from 1 to 10000, `order` asc or desc.", param="limit")
    chosen = [one for one in files if purpose is None or one.get("purpose") == purpose]
    chosen.sort(key=_age, reverse=order != "asc")
    if after is not None:
        places = [place for place, one in enumerate(chosen) if one["id"] == after]
        chosen = chosen[places[0] + 1 :] if places else []
    page, more = chosen[: int(limit)], len(chosen) > int(limit)
    told = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": more,
    }
    return Response(orjson.dumps(told), content_type="application/json")


def _age(file: dict[str, object]) -> tuple[float, str]:
    made = file.get("created_at")
    return (made if isinstance(made, int | float) else 0, str(file["id"]))


def _query() -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in request.args.items(multi=True) if name in _QUERY)
