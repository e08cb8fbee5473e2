"""The start page, its description of the calls, and what people choose for all pages."""

from quart import Blueprint, Response, current_app, render_template, request
from quart.typing import ResponseReturnValue

from chat2api import __version__
from chat2api.api.context import current_runtime
from chat2api.api.login import safe_next
from chat2api.api.peers import is_secure
from chat2api.api.shell import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, shell_of
from chat2api.config import Config
from chat2api.protocol.openai.openapi import openapi_document

blueprint = Blueprint("pages", __name__)
choices = Blueprint("choices", __name__)

_YEAR = 365 * 24 * 3600


@blueprint.get("/")
async def start_page() -> str:
    """The start page: base URL, first request, links."""
    runtime = current_runtime()
    return await render_template(
        "index.html",
        base_url=api_base(runtime.config),
        demo=runtime.demo is not None,
        public=runtime.tiers.public,
    )


@blueprint.get("/openapi.json")
async def openapi() -> dict[str, object]:
    """The OpenAPI document of the routes that this server has."""
    config = current_runtime().config
    return openapi_document(__version__, prefix=f"/{config.api_prefix}" if config.api_prefix else "")


@choices.post("/preferences")
async def choose() -> ResponseReturnValue:
    """Keep the language or the appearance that somebody chose, in a cookie of their browser, and show the page again."""
    form = await request.form
    config = current_runtime().config
    prefix = f"/{config.api_prefix}" if config.api_prefix else ""
    response = Response(status=303)
    response.headers["Location"] = safe_next(form.get("next"), f"{prefix}/")
    language, theme = form.get("language", ""), form.get("theme", "")
    chosen = {}
    if shell_of(current_app).knows_language(language):
        chosen[LANGUAGE_COOKIE] = language
    if theme in THEMES:
        chosen[THEME_COOKIE] = theme
    for name, value in chosen.items():
        secure = is_secure(request, config)
        response.set_cookie(name, value, max_age=_YEAR, path="/", secure=secure, httponly=True, samesite="Lax")
    return response


def public_base(config: Config) -> str:
    """Give the origin that people use, from the settings alone: a Host header is never reflected."""
    return config.public_origins[0] if config.public_origins else f"http://localhost:{config.port}"


def api_base(config: Config) -> str:
    """Give the base URL that clients are told."""
    prefix = f"/{config.api_prefix}" if config.api_prefix else ""
    return f"{public_base(config)}{prefix}/v1"
