"""The app: blueprints, guards and error handler around a Runtime that is opened at start and closed at the end."""

import random
from functools import partial
from pathlib import Path
from typing import Any

from quart import Blueprint, Quart, Response

from chat2api import logs
from chat2api.api import (
    accounts,
    accounts_page,
    conversations,
    doctor_page,
    health,
    invites,
    journal_page,
    keys,
    keys_page,
    login,
    metrics,
    overview_page,
    pages,
    shell,
    static_files,
    tiers,
    tiers_page,
    upload_page,
    usage,
    usage_page,
    users,
    users_page,
)
from chat2api.api.admission import PageAccess
from chat2api.api.auth import check_access_classes, declare_access, guard_request
from chat2api.api.body import UPLOAD_BODY
from chat2api.api.charging import tell_limits
from chat2api.api.context import CLEAN_UPS, CleanUps, bind_runtime, current_request
from chat2api.api.cors import install_cors
from chat2api.api.dispatch import LeanQuart
from chat2api.api.errors import install_error_handler
from chat2api.api.openai import chat, models, operations, uploads
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.logs import Redactor
from chat2api.runtime import Runtime

_TEMPLATES = Path(__file__).parent.parent / "templates"

PAGES: tuple[tuple[Blueprint, PageAccess], ...] = (
    (login.blueprint, "login"),
    (login.leaving, "signed_in"),
    (pages.choices, "login"),
    (usage_page.blueprint, "person"),
    (keys_page.blueprint, "page"),
    (users_page.blueprint, "page"),
    (overview_page.blueprint, "page"),
    (doctor_page.blueprint, "page"),
    (doctor_page.examining, "page"),
    (journal_page.blueprint, "page"),
    (accounts_page.blueprint, "page"),
    (upload_page.blueprint, "page"),
    (invites.links, "login"),
    (tiers_page.blueprint, "page"),
)
"""What people's browsers ask for, with who may."""

API: tuple[Blueprint, ...] = (
    chat.blueprint,
    models.blueprint,
    operations.blueprint,
    uploads.blueprint,
    usage.blueprint,
)
"""The routes of the OpenAI API."""

OTHER_PLACES: dict[str, tuple[Blueprint, ...]] = {
    "/backend-api": (conversations.blueprint,),
    "/chatgpt/backend-api": (conversations.blueprint,),
    "/imitate": API,
    "/platform": API,
}
"""Where routes are found beside the place that they have at the root; their names begin with the place."""


def create_app(
    config: Config, *, demo: bool = False, redactor: Redactor | None = None, clock: Clock | None = None
) -> Quart:
    """Make the app. With demo, the simulator answers a key of its own while no account is set up.

    `redactor` is told the secrets that are loaded; it is the log's. `clock` None means the machine's.
    """
    prefix = f"/{config.api_prefix}" if config.api_prefix else ""
    app = LeanQuart(
        "chat2api",
        template_folder=str(_TEMPLATES),
        static_folder=None,  # see static_files
    )
    app.config["MAX_CONTENT_LENGTH"] = UPLOAD_BODY  # each path has its own limit: see launch
    app.config["BODY_TIMEOUT"] = None  # the listener keeps R1's limits on slow bodies
    app.config["RESPONSE_TIMEOUT"] = None  # and on clients that do not read; Quart would cut whole answers, too
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect, to whatever host the caller names
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider's own setting

    for blueprint in API:
        _register(app, blueprint, prefix)
        declare_access(app, f"{blueprint.name}.", "api")
    _register(app, conversations.blueprint, prefix)
    declare_access(app, f"{conversations.blueprint.name}.", "site")
    for blueprint in (pages.blueprint, health.blueprint, users.blueprint):
        _register(app, blueprint, prefix)
        declare_access(app, f"{blueprint.name}.", "open")
    declare_access(app, "pages.start_page", "login")
    for blueprint, access in PAGES:
        _register(app, blueprint, prefix)
        declare_access(app, f"{blueprint.name}.", access)
    static_files.install_static_files(app, _TEMPLATES / "static", prefix)
    declare_access(app, static_files.ENDPOINT, "open")
    for blueprint in (accounts.blueprint, keys.blueprint, invites.operator, users.operator, metrics.blueprint):
        _register(app, blueprint, prefix)
        declare_access(app, f"{blueprint.name}.", "admin")
    if prefix:  # health checks know no prefix
        app.register_blueprint(health.blueprint, name="bare_health")
        declare_access(app, "bare_health.", "open")
    tiers.install_tiers(app, prefix)
    for place, blueprints in OTHER_PLACES.items():
        for blueprint in blueprints:
            name = f"{place}/{blueprint.name}"
            app.register_blueprint(blueprint, url_prefix=prefix + place, name=name)
            declare_access(app, f"{name}.", "site" if blueprint is conversations.blueprint else "api")
    check_access_classes(app)
    taken = tiers.taken_segments(app, prefix)

    install_error_handler(
        app, shell.install_shell(app, _TEMPLATES, prefix), partial(conversations.is_site_path, prefix)
    )
    install_cors(app)
    metrics.install_metrics(app)
    app.before_request(guard_request)
    app.after_request(_name_request)
    app.after_request(tell_limits)
    app.asgi_app = RequestScope(app.asgi_app)  # type: ignore[method-assign]  # the documented way to wrap an app

    @app.before_serving
    async def start() -> None:
        runtime = await Runtime.open(config, demo=demo, clock=clock, redactor=redactor, taken=taken, serving=True)
        bind_runtime(app, runtime)
        metrics.start_metrics(app, runtime)

    @app.after_serving
    async def stop() -> None:
        runtime: Runtime | None = app.extensions.get("chat2api")
        if runtime is not None:
            await runtime.aclose()

    return app


class RequestScope:
    """ASGI layer outside of the app: gives each request its id, and cleans up after it however it ends."""

    def __init__(self, app: Any) -> None:
        """Wrap the app."""
        self._app = app
        self._random = random.Random()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        logs.request_id.set(f"req_{self._random.getrandbits(96):024x}")
        clean_ups = scope[CLEAN_UPS] = CleanUps()
        try:
            await self._app(scope, receive, send)
        finally:
            await clean_ups.run()


def _register(app: Quart, blueprint: Blueprint, prefix: str) -> None:
    app.register_blueprint(blueprint, url_prefix=(prefix + (blueprint.url_prefix or "")) or None)


async def _name_request(response: Response) -> Response:
    response.headers["X-Request-Id"] = logs.request_id.get()
    response.headers["X-Content-Type-Options"] = "nosniff"
    if current_request().url_rule is None:
        response.headers["Cache-Control"] = "no-store"
    return response
