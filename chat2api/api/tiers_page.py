"""`/tokens/tiers`: the operator's page for tiers: what there is, who may enter, invitations, and reading the file anew."""

from collections.abc import Mapping

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime, record_action
from chat2api.api.invites import link_of, make_invitation
from chat2api.errors import InvalidRequestError
from chat2api.keys.invitations import DEFAULT_DAYS, MAX_INVITATION_DAYS, read_invitation

blueprint = Blueprint("tiers_page", __name__, url_prefix="/tokens/tiers")

NOTICES = frozenset({"reloaded", "revoked"})
"""What the page may be asked to say on top of itself, after something was done."""


@blueprint.get("")
async def index() -> str:
    """All tiers as they are now, and what was wrong when their file was read last."""
    return await _page()


@blueprint.post("")
async def reload() -> ResponseReturnValue:
    """Read the file anew; a mistake in it changes nothing and is told on the page."""
    runtime = current_runtime()
    if not await runtime.tiers.reload():
        return redirect(_path(), 303)
    await record_action("tiers.reload", ", ".join(tier.name for tier in runtime.tiers.tiers)[:200])
    return redirect(f"{_path()}?done=reloaded", 303)


@blueprint.post("/invite")
async def invite() -> ResponseReturnValue:
    """Make an invitation and show its link, this once."""
    form = await request.form
    said: dict[str, object] = {"tier": form.get("tier", ""), "expires_in_days": _number(form.get("days", ""))}
    if form.get("name", "").strip():
        said["name"] = form["name"]
    try:
        made = await make_invitation(read_invitation(said, current_runtime().clock.now()))
    except InvalidRequestError as error:
        return await _page(error.param, form), 400
    return await render_template("invite_once.html", invitation=made.invitation, link=link_of(made.token))


@blueprint.post("/revoke")
async def revoke() -> ResponseReturnValue:
    """End an invitation that nobody has used."""
    revoked = await current_runtime().invitations.revoke((await request.form).get("invitation", ""))
    await record_action("invites.revoke", revoked.id)
    return redirect(f"{_path()}?done=revoked#invitations", 303)


async def _page(wrong: str | None = None, values: Mapping[str, str] | None = None) -> str:
    runtime = current_runtime()
    now = runtime.clock.now()
    keys: dict[str, int] = {}
    for key in runtime.keys.all():
        if key.tier is not None and key.ended(now) is None:
            keys[key.tier] = keys.get(key.tier, 0) + 1
    book = runtime.tiers
    done = request.args.get("done")
    return await render_template(
        "tiers.html",
        book=book,
        keys=keys,
        strays={name: count for name, count in keys.items() if book.get(name) is None},
        invitations=[one for one in await runtime.invitations.all() if one.ended(now) is None],
        done=done if done in NOTICES and not (done == "reloaded" and book.problems) else None,
        wrong=wrong,
        values=values or {"days": str(DEFAULT_DAYS)},
        most_days=int(MAX_INVITATION_DAYS),
    )


def _number(text: str) -> object:
    """Give the number that a box holds; what is none is given as it is, to be refused."""
    return int(text) if text.strip().isdecimal() else text


def _path() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/tokens/tiers" if prefix else "/tokens/tiers"
