"""The operator's REST for issued keys, under /keys: make, list, change, rotate, revoke, and stop them all.

A key is shown once, in the answer to the call that made it; no other answer holds it.
"""

from quart import Blueprint

from chat2api.api.body import check_names, read_fields
from chat2api.api.context import current_runtime, record_action
from chat2api.api.lists import NAMES, list_object, list_options, read_query
from chat2api.errors import InvalidRequestError
from chat2api.keys.issue import DEFAULT_OVERLAP, Issued
from chat2api.keys.listing import KEYS, KeyLine, key_lines
from chat2api.keys.scope import unknown_names
from chat2api.keys.terms import (
    FIELD_NAMES,
    TIER,
    Json,
    read_changes,
    read_new_key,
    read_overlap,
    show_key,
    show_rooms,
)
from chat2api.protocol.openai.fields import wrong_type
from chat2api.storage.keys import IssuedKey
from chat2api.storage.usage import day_of

blueprint = Blueprint("keys", __name__, url_prefix="/keys")


@blueprint.get("")
async def index() -> Json:
    """List the keys, ended ones too, with what is left of their limits: `page`, `per_page`, `sort`, `search`, `state`."""
    options = list_options(read_query(*NAMES))
    found = KEYS.page(await all_key_lines(), **options)
    data = [await _with_rooms(line.key) for line in found.rows]
    return list_object(found, data) | {"stopped": current_runtime().keys.stopped}


@blueprint.post("")
async def create() -> tuple[Json, int]:
    """Make a key; the member `key` of the answer is the key itself."""
    runtime = current_runtime()
    fields = await read_fields(*FIELD_NAMES)
    runtime.tiers.check(fields.get(TIER))
    issued = await runtime.keys.issue(read_new_key(fields, runtime.clock.now()))
    await record_action("keys.create", issued.key.id)
    return _shown_once(issued), 201


@blueprint.get("/<key_id>")
async def show(key_id: str) -> Json:
    """Show one key with what is left of its limits."""
    return await _with_rooms(current_runtime().keys.require(key_id))


@blueprint.patch("/<key_id>")
async def change(key_id: str) -> Json:
    """Change what is given and nothing else."""
    runtime = current_runtime()
    fields = await read_fields(*FIELD_NAMES)
    if not fields:
        raise InvalidRequestError(f"There is nothing to change. What this call takes: {', '.join(FIELD_NAMES)}.")
    runtime.tiers.check(fields.get(TIER))
    make = read_changes(fields, runtime.clock.now())
    changed = await runtime.keys.change(key_id, lambda key: make(key.scope, key.limits))
    await record_action("keys.change", f"{key_id}: {', '.join(sorted(fields))}")
    return await _with_rooms(changed)


@blueprint.delete("/<key_id>")
async def revoke(key_id: str) -> Json:
    """End a key for ever, and its running answers within a second. It stays in the list, since its usage does."""
    await read_fields()
    revoked = await current_runtime().keys.revoke(key_id)
    await record_action("keys.revoke", key_id)
    return await _with_rooms(revoked)


@blueprint.post("/<key_id>/rotate")
async def rotate(key_id: str) -> Json:
    """Replace a key; the old one works for `overlap_hours` more (24 unless said), 0 ends it at once."""
    fields = await read_fields("overlap_hours")
    overlap = read_overlap(fields["overlap_hours"]) if "overlap_hours" in fields else DEFAULT_OVERLAP
    issued = await current_runtime().keys.rotate(key_id, overlap)
    await record_action("keys.rotate", key_id)
    return _shown_once(issued)


@blueprint.post("/stop")
async def stop() -> Json:
    """Stop all keys and what runs under them (`stopped` true), or let them work again (false)."""
    fields = await read_fields("stopped")
    check_names(("stopped",), fields)
    stopped = fields["stopped"]
    if not isinstance(stopped, bool):
        raise wrong_type("stopped", "a boolean", stopped)
    await current_runtime().keys.stop(stopped)
    await record_action("keys.stop" if stopped else "keys.resume", "all")
    return {"stopped": stopped}


async def all_key_lines() -> list[KeyLine]:
    """Give all keys with what they used up to now."""
    runtime = current_runtime()
    now = runtime.clock.now()
    await runtime.ledger.flush()
    return key_lines(runtime.keys.all(), await runtime.records.usage.totals(day_of(now)), now)


def _shown_once(issued: Issued) -> Json:
    return _shown(issued.key) | {"key": issued.secret}


async def _with_rooms(key: IssuedKey) -> Json:
    return _shown(key) | {"left": show_rooms(await current_runtime().quotas.rooms(key))}


def _shown(key: IssuedKey) -> Json:
    """Give a key as it is shown; `unknown` are the accounts and groups it is held to that are not there now."""
    runtime = current_runtime()
    return show_key(key, runtime.clock.now()) | {"unknown": unknown_names(key.scope, runtime.pool.accounts())}
