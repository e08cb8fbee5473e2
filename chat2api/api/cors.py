"""Cross-origin rules: calls with a key are open to every page, since a key is not ambient, and so is what is public."""

from quart import Quart, Response, request

from chat2api.api.auth import access_class
from chat2api.api.context import current_request, current_runtime, current_tier
from chat2api.api.entry import in_public_tier

_EXPOSED = ", ".join((
    "x-request-id", "x-chat2api-upstream", "x-chat2api-model-fallback", "x-chat2api-ignored",
    "x-chat2api-incomplete", "retry-after", "x-should-retry",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
))  # fmt: skip
_MAX_AGE = str(24 * 3600)


def install_cors(app: Quart) -> None:
    """Answer preflights and mark the answers of API routes."""

    @app.after_request
    async def mark(response: Response) -> Response:
        asked = current_request()
        origin = asked.headers.get("Origin")
        if origin is None or asked.url_rule is None:
            return response
        access = access_class(app, asked.endpoint or "")
        if access not in ("api", "public", "site"):
            return response
        preflight = asked.method == "OPTIONS"
        if not (access == "public" or _allowed(origin, preflight, public=access == "api")):
            return response
        response.headers["Access-Control-Allow-Origin"] = "*"
        if preflight:
            response.headers["Access-Control-Allow-Methods"] = request.headers["Access-Control-Request-Method"]
            response.headers["Access-Control-Allow-Headers"] = _safe_names(
                request.headers.get("Access-Control-Request-Headers", "")
            )
            response.headers["Access-Control-Max-Age"] = _MAX_AGE
            response.status_code = 204
            response.set_data(b"")
        else:
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        return response


def _allowed(origin: str, preflight: bool, *, public: bool) -> bool:
    runtime = current_runtime()
    keyless = public and (in_public_tier() or (current_tier() is None and runtime.tiers.public is not None))
    if keyless or origin.rstrip("/") in runtime.config.cors_origins:
        return not preflight or "Access-Control-Request-Method" in request.headers
    if preflight:
        asked = request.headers.get("Access-Control-Request-Headers", "").lower()
        return "Access-Control-Request-Method" in request.headers and "authorization" in [
            name.strip() for name in asked.split(",")
        ]
    return "Authorization" in request.headers


def _safe_names(asked: str) -> str:
    """Give back the header names that were asked for, as far as they are names."""
    names = (name.strip() for name in asked.split(","))
    return ", ".join(name for name in names if name and name.replace("-", "").replace("_", "").isalnum())
