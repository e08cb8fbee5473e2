"""The website's conversation calls as REST: at the root, under /backend-api and under /chatgpt/backend-api.

What a caller sends is read by `protocol/chatgpt/website*.py`, which let through what they know; the sentinel's tokens and
the proof of work are added on the way. Errors are `{"errorMessage": …}`.
"""

import logging
import re
from collections.abc import AsyncGenerator, Sequence

import orjson
from quart import Blueprint, Response, request

from chat2api.api.body import read_json
from chat2api.api.charging import Charge, begin_answer, check_model, held_to_rate, open_charge
from chat2api.api.context import current_caller, current_runtime
from chat2api.api.dispatch import LastPiece
from chat2api.api.errors import WriteError, site_error
from chat2api.api.relay import AnswerRelay, size_of_events
from chat2api.errors import Chat2APIError, PermissionDeniedError
from chat2api.gateway.site_turns import Piece
from chat2api.keys.scope import may_use_model
from chat2api.protocol.chatgpt.website import (
    SiteCall,
    attachment_call,
    feedback_call,
    file_call,
    hide_all_call,
    read_call,
    read_page,
    sandbox_call,
    title_call,
    update_call,
)
from chat2api.protocol.chatgpt.website_turns import read_turn
from chat2api.protocol.event_stream import encode_comment, encode_event
from chat2api.protocol.openai.errors import error_object

log = logging.getLogger(__name__)

blueprint = Blueprint("site", __name__)

Pieces = Sequence[Piece]

_KEEP_ALIVE = encode_comment("keep-alive")

_PLACES = re.compile(
    r"/(?:(?:chatgpt/)?backend-api(?:/.*)?|conversations?(?:/.*)?|files/.*|models|accounts/check(?:/.*)?|auth/login)"
)


def is_site_path(prefix: str, path: str) -> bool:
    """Whether a path is, or would be, one of the website's calls; `prefix` is that of API_PREFIX."""
    return path.startswith(prefix) and _PLACES.fullmatch(path.removeprefix(prefix).rstrip("/")) is not None


def error_writer(prefix: str, path: str) -> WriteError:
    """Give the shape of the errors on a path, also of those that end a request before it is anybody's."""
    return site_error if is_site_path(prefix, path) else error_object


@blueprint.post("/conversation")
async def create_turn() -> Response:
    """Send a turn and pass the backend's event stream on as it comes."""
    runtime, caller, label = current_runtime(), current_caller(), _account_label()
    turn = read_turn(await read_json(), runtime.conversations.surroundings())
    for model in turn.public_models:
        check_model(caller, model)
    charge = await open_charge(turn.prompt, model=turn.model)
    relay = begin_answer(
        charge, lambda _: runtime.conversations.turn(caller, turn, charge.facts, label), _size_of_pieces
    )
    if await relay.wait(runtime.config.keep_alive_interval):
        relay.check_begun()
    response = Response(
        _stream(relay, charge, runtime.config.keep_alive_interval), content_type="text/event-stream; charset=utf-8"
    )
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"
    if turn.ignored:
        response.headers["x-chat2api-ignored"] = ", ".join(turn.ignored)
    if charge.facts.upstream is not None:
        response.headers["x-chat2api-upstream"] = charge.facts.upstream
    response.timeout = None  # Quart would cut the stream after a minute without a word
    return response


async def _stream(relay: AnswerRelay[Pieces], charge: Charge, interval: float) -> AsyncGenerator[bytes]:
    """Yield the pieces' bytes, comments between events while nothing comes, and one event that says so where it fails."""
    end = b""
    try:
        while True:
            if not await relay.wait(interval):
                if end in (b"", b"\n\n"):
                    yield _KEEP_ALIVE
                continue
            if not (batches := relay.take()):
                break
            for _, pieces in batches:
                for piece in pieces:
                    charge.add(piece.events)
                    if piece.data:
                        end = piece.data[-2:]
                        yield piece.data
        yield LastPiece()
    except Chat2APIError as error:
        yield LastPiece(_failure(error, end))
    except Exception as error:  # what the error handler is for answers that have not begun
        log.error("unexpected failure in the middle of an answer", exc_info=error)
        yield LastPiece(_failure(error, end))


def _failure(error: Exception, end: bytes) -> bytes:
    """Give the event that ends a stream of which `end` were the last bytes."""
    message = site_error(error)[1]["errorMessage"]
    event = encode_event(orjson.dumps({"message": None, "error": message, "errorMessage": message}))
    return event if end in (b"", b"\n\n") else b"\n\n" + event


def _size_of_pieces(pieces: Pieces) -> int:
    return sum(len(piece.data) + size_of_events(piece.events) for piece in pieces)


@blueprint.get("/conversations")
async def list_conversations() -> Response:
    """One page of the caller's conversations."""
    page = read_page(request.args)
    async with held_to_rate():
        return _json(await current_runtime().conversations.page(current_caller(), page, _account_label()))


@blueprint.route("/conversations", methods=["PATCH", "POST"])
async def hide_conversations() -> Response:
    """Hide all of the caller's conversations."""
    hide_all_call(await read_json())
    async with held_to_rate():
        return _json(await current_runtime().conversations.hide_all(current_caller(), _account_label()))


@blueprint.get("/conversation/<conversation_id>")
async def get_conversation(conversation_id: str) -> Response:
    """One conversation, whole."""
    return await _make(read_call(conversation_id))


@blueprint.route("/conversation/<conversation_id>", methods=["PATCH", "POST"])
async def update_conversation(conversation_id: str) -> Response:
    """Rename, hide or archive a conversation."""
    return await _make(update_call(conversation_id, await read_json()))


@blueprint.post("/conversation/gen_title/<conversation_id>")
async def generate_title(conversation_id: str) -> Response:
    """Have the backend name a conversation."""
    return await _make(title_call(conversation_id, await read_json()))


@blueprint.post("/conversation/message_feedback")
async def give_feedback() -> Response:
    """Rate a message."""
    return await _make(feedback_call(await read_json()))


@blueprint.get("/files/<file>/download")
@blueprint.get("/files/download/<file>")
async def link_file(file: str) -> Response:
    """The link to a file of the caller's."""
    return await _make(file_call(file))


@blueprint.get("/conversation/<conversation_id>/attachment/<file>/download")
async def link_attachment(conversation_id: str, file: str) -> Response:
    """The link to a file of a conversation."""
    return await _make(attachment_call(conversation_id, file))


@blueprint.get("/conversation/<conversation_id>/interpreter/download")
async def link_sandbox_file(conversation_id: str) -> Response:
    """The link to a file that the interpreter wrote."""
    return await _make(sandbox_call(conversation_id, request.args))


@blueprint.get("/models")
async def list_models() -> Response:
    """The backend's models, as far as the caller may use them."""
    caller = current_caller()

    def may_use(slug: str) -> bool:
        return caller.key is None or may_use_model(caller.key.scope, slug)

    async with held_to_rate():
        return _json(await current_runtime().conversations.models(caller, may_use, _account_label()))


@blueprint.get("/accounts/check")
@blueprint.get("/accounts/check/v4-2023-04-27")
async def check_accounts() -> Response:
    """The caller's accounts at the backend."""
    async with held_to_rate():
        return _json(await current_runtime().conversations.accounts(current_caller(), _account_label()))


async def _make(call: SiteCall) -> Response:
    async with held_to_rate():
        return _json(await current_runtime().conversations.call(current_caller(), call, _account_label()))


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _account_label() -> str | None:
    """Give the account that the caller names by `?account=`; that is for the operator of this server alone."""
    label = request.args.get("account")
    if not label:
        return None
    if current_caller().kind != "operator":
        raise PermissionDeniedError("Only the operator's key may name an account.")
    if current_runtime().config.admin_password:
        raise PermissionDeniedError(
            "ADMIN_PASSWORD is set, so operator keys are for API calls only, and see what was made with them alone."
        )
    return label
