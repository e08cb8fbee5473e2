"""`/local-users`: the operator's pages for people who sign in by name. A password is never shown, here or anywhere."""

from collections.abc import Mapping
from urllib.parse import quote

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime, record_action
from chat2api.api.lists import AskedList
from chat2api.errors import InvalidRequestError
from chat2api.keys.listing import USERS
from chat2api.keys.terms import NONE, TIER
from chat2api.keys.users import LEAST_PASSWORD, read_terms
from chat2api.storage.users import LocalUser

blueprint = Blueprint("users_page", __name__, url_prefix="/local-users")

NOTICES = frozenset({"added", "removed", "password"})
"""What a page may be asked to say on top of itself, after something was done."""


@blueprint.get("")
async def index() -> str:
    """The users that match what is searched, a page of them, and the form for another one."""
    return await _list({})


@blueprint.post("")
async def add() -> ResponseReturnValue:
    """Make a user with a key of the usual limits, which the key's own page changes."""
    runtime = current_runtime()
    form = await request.form
    try:
        name, tier = form.get("username", ""), form.get(TIER, NONE)
        runtime.tiers.check(tier)
        terms = read_terms(name, {TIER: tier}, runtime.clock.now())
        user = await runtime.users.add(name, _password(form), terms)
    except InvalidRequestError as error:
        return await _list(form, error), 400
    await record_action("users.add", user.shown_name)
    return redirect(f"{_base()}?done=added", 303)


@blueprint.get("/<key_id>")
async def show(key_id: str) -> str:
    """One user: another password, removal."""
    return await _page(current_runtime().users.require_by_key(key_id))


@blueprint.post("/<key_id>/password")
async def set_password(key_id: str) -> ResponseReturnValue:
    """Give a user another password."""
    user = current_runtime().users.require_by_key(key_id)
    try:
        await current_runtime().users.set_password(user.name, _password(await request.form))
    except InvalidRequestError as error:
        return await _page(user, error), 400
    await record_action("users.password", user.shown_name)
    return redirect(f"{_base()}/{quote(key_id, safe='')}?done=password", 303)


@blueprint.post("/<key_id>/remove")
async def remove(key_id: str) -> ResponseReturnValue:
    """Remove a user, once that is sure."""
    user = current_runtime().users.require_by_key(key_id)
    if (await request.form).get("sure") != "yes":
        here = f"{_base()}/{quote(key_id, safe='')}"
        return await render_template("confirm_user.html", user=user, action=f"{here}/remove", fields={}, back=here)
    await current_runtime().users.remove(user.name)
    await record_action("users.remove", user.shown_name)
    return redirect(f"{_base()}?done=removed", 303)


def _password(form: Mapping[str, str]) -> str:
    """Give the password that a form holds twice. Raises InvalidRequestError where the two differ."""
    password = form.get("password", "")
    if form.get("repeated", "") != password:
        raise InvalidRequestError("The two passwords differ.", param="repeated")
    return password


async def _list(values: Mapping[str, str], error: InvalidRequestError | None = None) -> str:
    runtime, asked = current_runtime(), AskedList(USERS)
    found = USERS.page(runtime.users.lines(), **asked.options)
    return await render_template(
        "users.html",
        username=values.get("username", ""),
        tier=values.get(TIER, NONE),
        tier_names=[tier.name for tier in runtime.tiers.tiers],
        **asked.values(USERS, found),
        **_form_values(error),
    )


async def _page(user: LocalUser, error: InvalidRequestError | None = None) -> str:
    line = current_runtime().users.line(user)
    return await render_template("user.html", user=user, key=line.key, state=line.state, **_form_values(error))


def _form_values(error: InvalidRequestError | None) -> dict[str, object]:
    done = request.args.get("done")
    return {
        "wrong": None if error is None else "taken" if error.code == "name_taken" else error.param,
        "least": LEAST_PASSWORD,
        "done": done if done in NOTICES else None,
    }


def _base() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/local-users" if prefix else "/local-users"
