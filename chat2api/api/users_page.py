"""`/local-users`: the operator's pages for people who sign in by name. A password is never shown, here or anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime, record_action
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.terms import read_new_key
from chat2api.keys.users import LEAST_PASSWORD, check_name
from chat2api.storage.users import LocalUser

blueprint = Blueprint("users_page", __name__, url_prefix="/local-users")

NOTICES = frozenset({"added", "removed", "password"})
"""What a page may be asked to say on top of itself, after something was done."""


@dataclass(frozen=True, slots=True)
class Line:
    """One user of the list, with the state of their key."""

    user: LocalUser
    state: str


@blueprint.get("")
async def index() -> str:
    """All users, and the form for another one."""
    return await _list({})


@blueprint.post("")
async def add() -> ResponseReturnValue:
    """Make a user with a key of the usual limits, which the key's own page changes."""
    runtime = current_runtime()
    form = await request.form
    try:
        name = check_name(form.get("username", ""))
        user = await runtime.users.add(name, _password(form), read_new_key({"name": name}, runtime.clock.now()))
    except InvalidRequestError as error:
        return await _list(form, error), 400
    await record_action("users.add", user.shown_name)
    return redirect(f"{_base()}?done=added", 303)


@blueprint.get("/<key_id>")
async def show(key_id: str) -> str:
    """One user: another password, removal."""
    return await _page(_find(key_id))


@blueprint.post("/<key_id>/password")
async def set_password(key_id: str) -> ResponseReturnValue:
    """Give a user another password."""
    user = _find(key_id)
    try:
        await current_runtime().users.set_password(user.name, _password(await request.form))
    except InvalidRequestError as error:
        return await _page(user, error), 400
    await record_action("users.password", user.shown_name)
    return redirect(f"{_base()}/{quote(key_id, safe='')}?done=password", 303)


@blueprint.post("/<key_id>/remove")
async def remove(key_id: str) -> ResponseReturnValue:
    """Remove a user, once that is sure."""
    user = _find(key_id)
    if (await request.form).get("sure") != "yes":
        here = f"{_base()}/{quote(key_id, safe='')}"
        return await render_template("confirm_user.html", user=user, action=f"{here}/remove", fields={}, back=here)
    await current_runtime().users.remove(user.name)
    await record_action("users.remove", user.shown_name)
    return redirect(f"{_base()}?done=removed", 303)


def _find(key_id: str) -> LocalUser:
    """Give the user of a key. Raises NotFoundError."""
    for user in current_runtime().users.all():
        if user.key_id == key_id:
            return user
    raise NotFoundError("There is no such user.", code="user_not_found")


def _password(form: Mapping[str, str]) -> str:
    """Give the password that a form holds twice. Raises InvalidRequestError where the two differ."""
    password = form.get("password", "")
    if form.get("repeated", "") != password:
        raise InvalidRequestError("The two passwords differ.", param="repeated")
    return password


async def _list(values: Mapping[str, str], error: InvalidRequestError | None = None) -> str:
    runtime = current_runtime()
    return await render_template(
        "users.html",
        lines=[Line(user, _state(user)) for user in runtime.users.all()],
        username=values.get("username", ""),
        **_form_values(error),
    )


async def _page(user: LocalUser, error: InvalidRequestError | None = None) -> str:
    return await render_template("user.html", user=user, state=_state(user), **_form_values(error))


def _form_values(error: InvalidRequestError | None) -> dict[str, object]:
    done = request.args.get("done")
    return {
        "wrong": None if error is None else "taken" if error.code == "name_taken" else error.param,
        "least": LEAST_PASSWORD,
        "done": done if done in NOTICES else None,
    }


def _state(user: LocalUser) -> str:
    runtime = current_runtime()
    key = runtime.keys.get(user.key_id)
    return "revoked" if key is None else key.ended(runtime.clock.now()) or "ok"


def _base() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/local-users" if prefix else "/local-users"
