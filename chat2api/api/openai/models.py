"""GET /v1/models and GET /v1/models/{id}: what the live accounts offer."""

from quart import Blueprint

from chat2api.api.context import current_caller, current_runtime
from chat2api.protocol.openai.models import ModelList, ModelObject, model_list, model_object

blueprint = Blueprint("models", __name__)


@blueprint.get("/v1/models")
async def list_models() -> ModelList:
    """All models that the caller may use."""
    return model_list(await current_runtime().provider.models(current_caller()))


@blueprint.get("/v1/models/<path:model>")
async def get_model(model: str) -> ModelObject:
    """One model; 404 when it is not among them."""
    return model_object(model, await current_runtime().provider.models(current_caller()))
