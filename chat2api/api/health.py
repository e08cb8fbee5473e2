"""Whether the server lives and is ready, for load balancers and for people."""

from quart import Blueprint, Response, request

from chat2api.api.auth import authenticate_operator
from chat2api.api.context import current_runtime
from chat2api.errors import Chat2APIError
from chat2api.runtime import Runtime

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
async def healthz() -> Response:
    """`ok` as long as the process answers."""
    return Response("ok", content_type="text/plain")


@blueprint.get("/readyz")
async def readyz() -> Response:
    """One word: ready, draining or degraded; the operator also reads why.

    503 when requests must go elsewhere. A server that only fails to understand some answers is degraded with 200: all
    servers in front of the same backend would be so at once, and taking them away would help nobody.
    """
    runtime = current_runtime()
    word = runtime.readiness()
    serves = word == "ready" or (word == "degraded" and runtime.operator_keys.shut is None)
    reasons = _reasons(runtime) if word == "degraded" and await _is_operator() else []
    return Response("\n".join([word, *reasons]), status=200 if serves else 503, content_type="text/plain")


def _reasons(runtime: Runtime) -> list[str]:
    return [f"not understood in the backend's answers: {shape}" for shape in runtime.drifted]


async def _is_operator() -> bool:
    """Whether the operator asks. It is no error if not, and guesses are counted as everywhere."""
    if "Authorization" not in request.headers:
        return False
    try:
        await authenticate_operator(request)
    except Chat2APIError:
        return False
    return True
