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
_METHOD = "Access-Control-Request-Method"
_SIGN_IN = "users.sign_in"
"""A password is not ambient either, but any page could have its visitors' browsers guess; so only those named may ask."""


def install_cors(app: Quart) -> None:
    """Answer preflights and mark the answers of API routes."""

    @app.after_request
    async def mark(response: Response) -> Response:
        asked = current_request()
        origin = asked.headers.get("Origin")
        if origin is None or asked.url_rule is None:
            return response
        access = access_class(app, asked.endpoint or "")
        preflight = asked.method == "OPTIONS"
        if asked.endpoint == _SIGN_IN:
            open_to = _is_named(origin) and (not preflight or _METHOD in request.headers)
        elif access in ("api", "site"):
            open_to = _allowed(origin, preflight, public=access == "api")
        else:
            open_to = access == "public"
        if not open_to:
            return response
        response.headers["Access-Control-Allow-Origin"] = "*"
        if preflight:
            response.headers["Access-Control-Allow-Methods"] = request.headers[_METHOD]
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
    if keyless or _is_named(origin):
        return not preflight or _METHOD in request.headers
    if preflight:
        asked = request.headers.get("Access-Control-Request-Headers", "").lower()
        return _METHOD in request.headers and "authorization" in [name.strip() for name in asked.split(",")]
    return "Authorization" in request.headers


def _is_named(origin: str) -> bool:
    return origin.rstrip("/") in current_runtime().config.cors_origins


def _safe_names(asked: str) -> str:
    """Give back the header names that were asked for, as far as they are names."""
    names = (name.strip() for name in asked.split(","))
    return ", ".join(name for name in names if name and name.replace("-", "").replace("_", "").isalnum())
