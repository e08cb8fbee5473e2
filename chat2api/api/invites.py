"""Invitations: the operator's REST under /keys/invites, and the page behind an invitation's link.

Opening a link uses nothing up, since programs that preview links open them too; the button on the page does.
"""

from quart import Blueprint, current_app, render_template, request

from chat2api.api.admission import Guess
from chat2api.api.body import read_fields
from chat2api.api.context import current_runtime, record_action
from chat2api.api.pages import public_base
from chat2api.api.sessions import check_transport
from chat2api.api.shell import shell_of
from chat2api.api.tiers import base_of
from chat2api.errors import NotFoundError
from chat2api.keys.invitations import FIELD_NAMES, Made, read_invitation, show_invitation
from chat2api.keys.terms import Json
from chat2api.keys.tiers import Tier
from chat2api.storage.actions import Action
from chat2api.storage.invitations import NewInvitation

operator = Blueprint("invites", __name__, url_prefix="/keys/invites")
links = Blueprint("invite", __name__, url_prefix="/invite")


@operator.get("")
async def index() -> Json:
    """List all invitations, those that are over too; none shows its link."""
    runtime = current_runtime()
    now = runtime.clock.now()
    return {"object": "list", "data": [show_invitation(one, now) for one in await runtime.invitations.all()]}


@operator.post("")
async def create() -> tuple[Json, int]:
    """Make an invitation; the member `url` of the answer is its link, told this once."""
    runtime = current_runtime()
    fields = await read_fields(*FIELD_NAMES)
    made = await make_invitation(read_invitation(fields, runtime.clock.now()))
    return show_invitation(made.invitation, runtime.clock.now()) | {"url": link_of(made.token)}, 201


@operator.delete("/<invitation_id>")
async def revoke(invitation_id: str) -> Json:
    """End an invitation that nobody has used; a key that was taken with it stays."""
    await read_fields()
    runtime = current_runtime()
    revoked = await runtime.invitations.revoke(invitation_id)
    await record_action("invites.revoke", invitation_id)
    return show_invitation(revoked, runtime.clock.now())


@links.get("/<token>")
async def show(token: str) -> str:
    """Say what the link is good for, with a button that takes the key."""
    guess = Guess(request, token)
    try:
        invitation = await current_runtime().invitations.look_up(token)
        tier = _tier(invitation.tier)
    except NotFoundError:
        guess.was_wrong()
        raise
    return await render_template("invite.html", invitation=invitation, tier=tier)


@links.post("/<token>")
async def take(token: str) -> str:
    """Use the invitation up and show the key, this once."""
    runtime = current_runtime()
    check_transport(request, runtime.config)
    guess = Guess(request, token)
    try:
        _tier((await runtime.invitations.look_up(token)).tier)
        invitation, issued = await runtime.invitations.redeem(token)
    except NotFoundError:
        guess.was_wrong()
        raise
    action = Action(runtime.clock.now(), f"invitation {invitation.id}", "invites.take", issued.key.id)
    await runtime.records.actions.add(action)
    tier = _tier(invitation.tier)
    say = shell_of(current_app).language().get
    return await render_template(
        "own_key.html",
        title=say("invite.key_title"),
        lead=say("invite.key_lead", tier=tier.name),
        key=issued.key,
        secret=issued.secret,
        base_url=base_of(tier),
        model=tier.models[0].name,
    )


async def make_invitation(new: NewInvitation) -> Made:
    """Make an invitation for the operator who asks. Raises InvalidRequestError for a tier that there is not."""
    runtime = current_runtime()
    runtime.tiers.require(new.tier)
    made = await runtime.invitations.make(new)
    await record_action("invites.create", f"{made.invitation.id}: {new.tier}")
    return made


def link_of(token: str) -> str:
    """Give an invitation's link, by the origin that people use."""
    config = current_runtime().config
    prefix = f"/{config.api_prefix}" if config.api_prefix else ""
    return f"{public_base(config)}{prefix}/invite/{token}"


def _tier(name: str) -> Tier:
    tier = current_runtime().tiers.get(name)
    if tier is None:
        raise NotFoundError(
            "This invitation is for a tier that this server has not now. Ask its operator.", code="invitation_not_found"
        )
    return tier
