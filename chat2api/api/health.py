"""Whether the server lives and is ready, for load balancers and for people."""

from quart import Blueprint, Response

from chat2api.api.context import current_runtime

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
async def healthz() -> Response:
    """`ok` as long as the process answers."""
    return Response("ok", content_type="text/plain")


@blueprint.get("/readyz")
async def readyz() -> Response:
    """200 or 503 and one word: ready, draining or degraded."""
    word = current_runtime().readiness()
    return Response(word, status=200 if word == "ready" else 503, content_type="text/plain")
