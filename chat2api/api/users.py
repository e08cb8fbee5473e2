"""POST /auth/login: a local user's name and password for a token of this server, good on every route (S12, S14)."""

from datetime import UTC, datetime

import orjson
from quart import Blueprint, Response, request

from chat2api.api.admission import Guess
from chat2api.api.body import read_fields
from chat2api.api.context import current_runtime
from chat2api.errors import InvalidAPIKeyError, PermissionDeniedError
from chat2api.keys.users import MAX_NAME, MAX_PASSWORD
from chat2api.protocol.openai.fields import missing, wrong_type, wrong_value

blueprint = Blueprint("users", __name__)


@blueprint.post("/auth/login")
async def sign_in() -> Response:
    """Give a token for a name and its password; a wrong pair is refused with the same words and in the same time."""
    runtime = current_runtime()
    said = await read_fields("username", "password")
    name, password = _text(said, "username", MAX_NAME), _text(said, "password", MAX_PASSWORD)
    guess = Guess(request, f"{name}\0{password}")
    take_back = guess.was_wrong()  # counted until it has proved right, so that none slips by
    token = await runtime.users.sign_in(name, password)
    if token is None:
        raise InvalidAPIKeyError("Wrong name or password.")
    take_back()
    guess.was_right()
    key = runtime.keys.require(runtime.users.require(name).key_id)
    if (ended := key.ended(runtime.clock.now())) is not None:
        raise PermissionDeniedError(f"Your key is {ended}. Ask the operator of this server.")
    expires = datetime.fromtimestamp(token.expires_at, UTC).isoformat().replace("+00:00", "Z")
    answer = orjson.dumps({"accessToken": token.text, "expires": expires})
    return Response(answer, content_type="application/json", headers={"Cache-Control": "no-store"})


def _text(said: dict[str, object], name: str, longest: int) -> str:
    value = said.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if len(value) > longest:
        raise wrong_value(name, f"it has at most {longest} characters.")
    return value
