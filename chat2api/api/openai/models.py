"""GET /v1/models and GET /v1/models/{id}: what the live accounts offer."""

from quart import Blueprint

from chat2api.api.charging import check_model
from chat2api.api.context import current_caller, current_runtime
from chat2api.keys.scope import may_use_model
from chat2api.protocol.openai.models import ModelList, ModelObject, model_list, model_object

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
async def list_models() -> ModelList:
    """All models that the caller may use."""
    caller = current_caller()
    listed = model_list(await current_runtime().provider.models(caller))
    if caller.key is not None:
        listed["data"] = [model for model in listed["data"] if may_use_model(caller.key.scope, model["id"])]
    return listed


@blueprint.get("/v1/models/<path:model>")
async def get_model(model: str) -> ModelObject:
    """One model; 404 when it is not among them."""
    check_model(current_caller(), model)
    return model_object(model, await current_runtime().provider.models(current_caller()))
