"""`/tokens/tiers`: the operator's page for tiers: what there is, who may enter, and reading the file anew."""

from quart import Blueprint, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.context import current_runtime, record_action

blueprint = Blueprint("tiers_page", __name__, url_prefix="/tokens/tiers")


@blueprint.get("")
async def index() -> str:
    """All tiers as they are now, and what was wrong when their file was read last."""
    runtime = current_runtime()
    now = runtime.clock.now()
    keys: dict[str, int] = {}
    for key in runtime.keys.all():
        if key.tier is not None and key.ended(now) is None:
            keys[key.tier] = keys.get(key.tier, 0) + 1
    book = runtime.tiers
    return await render_template(
        "tiers.html",
        book=book,
        keys=keys,
        strays={name: count for name, count in keys.items() if book.get(name) is None},
        done=request.args.get("done") == "reloaded" and not book.problems,
    )


@blueprint.post("")
async def reload() -> ResponseReturnValue:
    """Read the file anew; a mistake in it changes nothing and is told on the page."""
    runtime = current_runtime()
    prefix = f"/{runtime.config.api_prefix}" if runtime.config.api_prefix else ""
    if not await runtime.tiers.reload():
        return redirect(f"{prefix}/tokens/tiers", 303)
    await record_action("tiers.reload", ", ".join(tier.name for tier in runtime.tiers.tiers)[:200])
    return redirect(f"{prefix}/tokens/tiers?done=reloaded", 303)
