"""Local users: signing in at POST /auth/login, and the operator's REST for them under /users.

A sign-in gives a token of this server for a name and a password, good on every route (S12, S14). Users are told apart by
their keys, since a name may hold what no path can; no answer under /users holds a password or a key.
"""

from datetime import UTC, datetime

import orjson
from quart import Blueprint, Response, request

from chat2api.api.admission import Guess
from chat2api.api.body import read_fields
from chat2api.api.context import current_runtime, record_action
from chat2api.api.lists import NAMES, list_object, list_options, read_query
from chat2api.errors import InvalidAPIKeyError, PermissionDeniedError
from chat2api.keys.listing import USERS
from chat2api.keys.terms import TIER, Json
from chat2api.keys.users import MAX_NAME, MAX_PASSWORD, TERM_NAMES, read_terms
from chat2api.protocol.openai.fields import missing, wrong_type, wrong_value

blueprint = Blueprint("users", __name__)
operator = Blueprint("local_users", __name__, url_prefix="/users")


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


@operator.get("")
async def index() -> Json:
    """List the users: `page`, `per_page`, `sort`, `search`, `state`."""
    users = current_runtime().users
    found = USERS.page(users.lines(), **list_options(read_query(*NAMES)))
    return list_object(found, [users.show(line.user) for line in found.rows])


@operator.post("")
async def create() -> tuple[Json, int]:
    """Make a user with a key of their own, which nobody is shown, on the terms that a key may have."""
    runtime = current_runtime()
    fields = await read_fields("username", "password", *TERM_NAMES)
    name, password = _text(fields, "username", MAX_NAME), _text(fields, "password", MAX_PASSWORD)
    runtime.tiers.check(fields.get(TIER))
    terms = {name: value for name, value in fields.items() if name in TERM_NAMES}
    user = await runtime.users.add(name, password, read_terms(name, terms, runtime.clock.now()))
    await record_action("users.add", user.shown_name)
    return runtime.users.show(user), 201


@operator.get("/<key_id>")
async def show(key_id: str) -> Json:
    """Show one user."""
    users = current_runtime().users
    return users.show(users.require_by_key(key_id))


@operator.patch("/<key_id>")
async def change(key_id: str) -> Json:
    """Give a user another password, and sign out who is signed in with the old one."""
    users = current_runtime().users
    fields = await read_fields("password")
    password = _text(fields, "password", MAX_PASSWORD)
    user = await users.set_password(users.require_by_key(key_id).name, password)
    await record_action("users.password", user.shown_name)
    return users.show(user)


@operator.delete("/<key_id>")
async def remove(key_id: str) -> Json:
    """Remove a user and end their key for ever; its row stays in the list of keys, since its usage does."""
    await read_fields()
    users = current_runtime().users
    user = await users.remove(users.require_by_key(key_id).name)
    await record_action("users.remove", user.shown_name)
    return users.show(user)


def _text(said: dict[str, object], name: str, longest: int) -> str:
    value = said.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if len(value) > longest:
        raise wrong_value(name, f"it has at most {longest} characters.")
    return value
