"""GET /v1/models and GET /v1/models/{id}: what the live accounts and the API keys offer."""

from quart import Blueprint

from chat2api.api.charging import check_model
from chat2api.api.context import current_caller, current_runtime
from chat2api.api.tiers import show_tier_model, show_tier_models
from chat2api.keys.scope import may_use_model
from chat2api.keys.terms import Json
from chat2api.protocol.openai.models import ModelList, ModelObject, model_not_found

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
async def list_models() -> ModelList | Json:
    """All models that the caller may use; in a tier, those of the tier with their limits."""
    caller = current_caller()
    if caller.tier is not None:
        return show_tier_models(caller.tier, caller.key)
    models = await current_runtime().routing.models(caller)
    if caller.key is not None:
        models = [model for model in models if may_use_model(caller.key.scope, model["id"])]
    return {"object": "list", "data": models}


@blueprint.get("/v1/models/<path:model>")
async def get_model(model: str) -> ModelObject | Json:
    """One model; 404 when it is not among them."""
    caller = current_caller()
    check_model(caller, model)
    if caller.tier is not None:
        return show_tier_model(caller.tier, model)
    for offered in await current_runtime().routing.models(caller):
        if offered["id"] == model:
            return offered
    raise model_not_found(model)
