"""`/issued-keys`: the operator's pages for issued keys. A key itself is shown once, after its making."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime, paste_owner, record_action
from chat2api.api.keys import all_key_lines
from chat2api.api.lists import AskedList
from chat2api.api.pages import api_base
from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.keys.issue import Issued
from chat2api.keys.listing import KEYS, state_of
from chat2api.keys.scope import unknown_names
from chat2api.keys.terms import (
    ALL,
    EXPIRY,
    LIMIT_NAMES,
    NEVER,
    NONE,
    SCOPE_NAMES,
    TIER,
    UNLIMITED,
    read_changes,
    read_new_key,
    read_overlap,
)
from chat2api.storage.keys import DEFAULT_EXPIRY_DAYS, IssuedKey, KeyLimits, KeyScope
from chat2api.storage.usage import KeyTotals, day_of

blueprint = Blueprint("keys_page", __name__, url_prefix="/issued-keys")

OVERLAPS = (0, 1, 24, 168)
"""Hours that are offered for how long an old key goes on working."""
NOTICES = frozenset({"changed", "revoked", "shown", "stopped", "resumed"})
"""What a page may be asked to say on top of itself, after something was done."""
MOST_NAMES = 30
"""Groups that are offered beneath the box for them."""


@blueprint.get("")
async def index() -> str:
    """The list, the newest first unless another order is asked for."""
    runtime = current_runtime()
    asked = AskedList(KEYS)
    found = KEYS.page(await all_key_lines(), **asked.options)
    return await render_template("keys.html", stopped=runtime.keys.stopped, done=_done(), **asked.values(KEYS, found))


@blueprint.get("/new")
async def new() -> str:
    """The form for a new key, filled in with what is sensible."""
    return await _form(_written(KeyScope(), KeyLimits()) | {EXPIRY: str(DEFAULT_EXPIRY_DAYS)})


@blueprint.post("/new")
async def create() -> ResponseReturnValue:
    """Make a key; the way leads to where it is shown, once."""
    runtime = current_runtime()
    form = await request.form
    try:
        runtime.tiers.check(form.get(TIER))
        issued = await runtime.keys.issue(read_new_key(_said(form), runtime.clock.now()))
    except InvalidRequestError as error:
        return await _form(form, error), 400
    await record_action("keys.create", issued.key.id)
    return _to_secret(issued)


@blueprint.get("/<key_id>")
async def show(key_id: str) -> ResponseReturnValue:
    """One key: what it may, what it used, and all that can be done to it; with `shown`, a new key itself, this once."""
    runtime = current_runtime()
    key = runtime.keys.require(key_id)
    if ticket := request.args.get("shown"):
        try:
            secret = runtime.pastes.take(paste_owner(), ticket)
        except NotFoundError:
            return redirect(f"{_base()}/{_path(key)}?done=shown", 303)
        return await _shown_once(Issued(key, secret))
    return await _page_of(
        key, _written(key.scope, key.limits) | {"name": key.name, "note": key.note, TIER: key.tier or NONE}
    )


@blueprint.post("/<key_id>")
async def change(key_id: str) -> ResponseReturnValue:
    """Change what the form says; the end stays as it is when nothing is said of it."""
    runtime = current_runtime()
    key = runtime.keys.require(key_id)
    form = await request.form
    said = _said(form)
    if said[EXPIRY] == "":
        del said[EXPIRY]
    try:
        if said.get(TIER) != key.tier:  # one that is gone may stay
            runtime.tiers.check(said.get(TIER))
        make = read_changes(said, runtime.clock.now())
    except InvalidRequestError as error:
        return await _page_of(key, form, error), 400
    await runtime.keys.change(key_id, lambda present: make(present.scope, present.limits))
    await record_action("keys.change", key_id)
    return _back(key_id, "changed")


@blueprint.post("/<key_id>/rotate")
async def rotate(key_id: str) -> ResponseReturnValue:
    """Replace the key; the way leads to where the new one is shown, once. Asks first where the old one would end at once."""
    runtime = current_runtime()
    key = runtime.keys.require(key_id)
    form = await request.form
    overlap = read_overlap(_number(form.get("overlap_hours", "")))
    if overlap == 0 and form.get("sure") != "yes":
        return await _ask("rotate_sure", f"{_base()}/{_path(key)}/rotate", {"overlap_hours": "0"}, key)
    issued = await runtime.keys.rotate(key_id, overlap)
    await record_action("keys.rotate", key_id)
    return _to_secret(issued)


@blueprint.post("/<key_id>/revoke")
async def revoke(key_id: str) -> ResponseReturnValue:
    """End the key for ever, once that is sure."""
    runtime = current_runtime()
    key = runtime.keys.require(key_id)
    if (await request.form).get("sure") != "yes":
        return await _ask("revoke_sure", f"{_base()}/{_path(key)}/revoke", {}, key)
    await runtime.keys.revoke(key_id)
    await record_action("keys.revoke", key_id)
    return _back(key_id, "revoked")


@blueprint.post("/stop")
async def stop() -> ResponseReturnValue:
    """Stop all keys, once that is sure, or let them work again."""
    form = await request.form
    stopped = form.get("stopped") == "yes"
    if stopped and form.get("sure") != "yes":
        return await _ask("stop_sure", f"{_base()}/stop", {"stopped": "yes"}, None)
    await current_runtime().keys.stop(stopped)
    await record_action("keys.stop" if stopped else "keys.resume", "all")
    return _back("", "stopped" if stopped else "resumed")


def _said(form: Mapping[str, str]) -> dict[str, object]:
    """Give a form in the words of `terms`: an empty box says "no limit", as the words beside it tell."""
    said: dict[str, object] = {name: form.get(name, "").replace("\r\n", "\n") for name in ("name", "note")}
    said[EXPIRY] = NEVER if form.get("never") == "yes" else _number(form.get(EXPIRY, ""))
    for name in SCOPE_NAMES:
        said[name] = [line.strip() for line in form.get(name, "").splitlines() if line.strip()] or ALL
    for name in LIMIT_NAMES:
        said[name] = _number(form.get(name, "")) or (UNLIMITED if not form.get(name, "").strip() else 0)
    if TIER in form:
        said[TIER] = form[TIER]
    return said


def _number(text: str) -> object:
    """Give the number that a box holds; what is none is given as it is, for `terms` to refuse."""
    text = text.strip()
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def _written(scope: KeyScope, limits: KeyLimits) -> dict[str, str]:
    """Give scope and limits as boxes hold them."""
    boxes = {name: "\n".join(getattr(scope, name) or ()) for name in SCOPE_NAMES}
    numbers = {name: getattr(limits, name) for name in LIMIT_NAMES}
    return boxes | {name: "" if number is None else str(number) for name, number in numbers.items()}


async def _form(values: Mapping[str, str], error: InvalidRequestError | None = None) -> str:
    return await render_template("key_new.html", **_form_values(values, error))


def _form_values(values: Mapping[str, str], error: InvalidRequestError | None) -> dict[str, object]:
    runtime = current_runtime()
    groups = {group for account in runtime.pool.accounts() for group in account.groups}
    own = [name for name in (values.get(TIER, NONE),) if name != NONE]  # also one that there is not now
    return {
        "values": values,
        "wrong": error.param if error is not None else None,
        "limit_names": LIMIT_NAMES,
        "known_groups": sorted(groups)[:MOST_NAMES],
        "tier_names": list(dict.fromkeys([tier.name for tier in runtime.tiers.tiers] + own)),
    }


async def _page_of(key: IssuedKey, values: Mapping[str, str], error: InvalidRequestError | None = None) -> str:
    runtime = current_runtime()
    now = runtime.clock.now()
    await runtime.ledger.flush()
    totals = await runtime.records.usage.totals(day_of(now))
    return await render_template(
        "key.html",
        key=key,
        state=state_of(key, now),
        old_key_left=max(0.0, (key.previous_until_at or 0) - now),
        used=totals.get(key.id, KeyTotals()),
        rooms=await runtime.quotas.rooms(key),
        unknown=unknown_names(key.scope, runtime.pool.accounts()),
        stopped=runtime.keys.stopped,
        overlaps=[(hours, hours * 3600) for hours in OVERLAPS],
        done=_done(),
        **_form_values(values, error),
    )


def _to_secret(issued: Issued) -> ResponseReturnValue:
    """Lead to the page that shows a new key. It waits in memory, for this sign-in: a reload makes no other key."""
    ticket = current_runtime().pastes.hold(paste_owner(), issued.secret)
    return redirect(f"{_base()}/{_path(issued.key)}?shown={ticket}", 303)


async def _shown_once(issued: Issued) -> str:
    runtime = current_runtime()
    models: Sequence[str] = issued.key.scope.models or ()
    return await render_template(
        "key_once.html",
        key=issued.key,
        secret=issued.secret,
        how="rotated" if issued.key.rotated_at else "made",
        old_key_left=max(0.0, (issued.key.previous_until_at or 0) - runtime.clock.now()),
        base_url=api_base(runtime.config),
        example_model=next((model for model in models if "*" not in model), "auto"),
    )


async def _ask(question: str, action: str, fields: Mapping[str, str], key: IssuedKey | None) -> str:
    back = f"{_base()}/{_path(key)}" if key is not None else _base()
    return await render_template(
        "confirm_key.html", question_name=question, key=key, action=action, fields=fields, back=back
    )


def _base() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/issued-keys" if prefix else "/issued-keys"


def _path(key: IssuedKey) -> str:
    return quote(key.id, safe="")


def _back(key_id: str, done: str) -> ResponseReturnValue:
    where = f"{_base()}/{quote(key_id, safe='')}" if key_id else _base()
    return redirect(f"{where}?done={done}", 303)


def _done() -> str | None:
    done = request.args.get("done")
    return done if done in NOTICES else None
