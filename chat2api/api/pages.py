"""The pages for people: so far the start page and its files."""

from quart import Blueprint, Quart, Response, render_template, request

from chat2api import __version__
from chat2api.api.auth import access_class
from chat2api.api.context import current_runtime
from chat2api.api.peers import is_secure
from chat2api.config import Config
from chat2api.protocol.openai.openapi import openapi_document

blueprint = Blueprint("pages", __name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@blueprint.get("/")
async def start_page() -> str:
    """The start page: base URL, first request, links."""
    runtime = current_runtime()
    prefix = f"/{runtime.config.api_prefix}" if runtime.config.api_prefix else ""
    return await render_template(
        "index.html",
        base_url=f"{public_base(runtime.config)}{prefix}/v1",
        prefix=prefix,
        demo=runtime.demo is not None,
        static=lambda name: f"{prefix}/static/{name}",
    )


@blueprint.get("/openapi.json")
async def openapi() -> dict[str, object]:
    """The OpenAPI document of the routes that this server has."""
    config = current_runtime().config
    return openapi_document(__version__, prefix=f"/{config.api_prefix}" if config.api_prefix else "")


def install_page_headers(app: Quart) -> None:
    """Set the headers of S24 on every page of ours, and on every answer of routes that are for people."""

    @app.after_request
    async def protect(response: Response) -> Response:
        endpoint = request.endpoint or ""
        if access_class(app, endpoint) in ("open", "api", None) and not endpoint.startswith(f"{blueprint.name}."):
            return response
        response.headers.update(_HEADERS)
        if is_secure(request, current_runtime().config):
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response


def public_base(config: Config) -> str:
    """Give the origin that people use, from the settings alone: a Host header is never reflected."""
    return config.public_origins[0] if config.public_origins else f"http://localhost:{config.port}"
