"""The shell in which all pages stand: their language, appearance, navigation, headers, and how errors look to people.

A page is a template that extends `base.html`. What every template can use is given here once, so that a handler passes
its own values only.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quart import Quart, Response, render_template, request

from chat2api.api.auth import access_class
from chat2api.api.context import current_request, current_runtime, current_visitor
from chat2api.api.csrf import SAFE_METHODS
from chat2api.api.errors import ErrorPage
from chat2api.api.peers import is_loopback_host, is_secure
from chat2api.api.texts import DEFAULT, Catalogue, choose_language, load_catalogues
from chat2api.errors import Chat2APIError

LANGUAGE_COOKIE = "chat2api-language"
THEME_COOKIE = "chat2api-theme"
THEMES = ("auto", "light", "dark")

NAVIGATION = (
    ("shell.accounts", "/tokens", "operator"),
    ("shell.usage", "/usage", "person"),
    ("shell.keys", "/issued-keys", "operator"),
    ("shell.users", "/local-users", "operator"),
    ("shell.tiers", "/tokens/tiers", "operator"),
    ("shell.overview", "/tokens/overview", "operator"),
    ("shell.doctor", "/tokens/checkup", "operator"),
    ("shell.journal", "/tokens/journal", "operator"),
)
"""Name, path and least role of each entry; one whose page does not exist is left out."""

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
_PEOPLE = ("login", "page", "person", "signed_in")
_START_PAGES = "pages."


class Shell:
    """What all pages of one app have in common."""

    def __init__(self, app: Quart, texts: Path, prefix: str) -> None:
        """Read the catalogues and give the app's templates what they use."""
        self._app = app
        self._prefix = prefix
        self._catalogues = load_catalogues(texts)
        self._paths: frozenset[str] | None = None
        app.context_processor(self.context)
        app.after_request(self.protect)
        app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
        app.jinja_env.globals["static"] = lambda name: f"{prefix}/static/{name}"

    def language(self) -> Catalogue:
        """Give the texts of the current request's language."""
        chosen = request.cookies.get(LANGUAGE_COOKIE)
        accepted = request.headers.get("Accept-Language", "")
        return self._catalogues[choose_language(chosen, accepted, self._catalogues)]

    def knows_language(self, tag: str) -> bool:
        """Whether there is a catalogue of that tag."""
        return tag in self._catalogues

    async def context(self) -> dict[str, Any]:
        """Give the names that every template knows."""
        runtime, visitor = current_runtime(), current_visitor()
        texts = self.language()
        theme = request.cookies.get(THEME_COOKIE)
        config = runtime.config
        here = request.full_path.rstrip("?") if request.method in SAFE_METHODS else f"{self._prefix}/login"
        return {
            "t": texts.get,
            "texts": texts,
            "languages": list(self._catalogues.values()),
            "theme": theme if theme in THEMES else "auto",
            "themes": THEMES,
            "prefix": self._prefix,
            "here": here,
            "path": request.path,
            "navigation": self._navigation(visitor.role if visitor is not None else None),
            "visitor": visitor,
            "csrf": visitor.csrf if visitor is not None else None,
            "alarm": runtime.guesses.alarm and visitor is not None and visitor.role == "operator",
            "plain_http": not (is_secure(request, config) or is_loopback_host(request)),
            # Addresses are never taken from a Host header (S23): where no setting names them, people must put theirs in.
            "says_localhost": not (config.public_origins or is_loopback_host(request)),
            "duration": lambda seconds: spell_duration(texts, seconds),
            "date": spell_date,
            "number": lambda value: f"{value:,}".replace(",", "\u202f"),
        }

    async def protect(self, response: Response) -> Response:
        """Set the headers of S24 on every page, and on every answer of routes that are for people."""
        endpoint = current_request().endpoint or ""
        if not endpoint.startswith(_START_PAGES) and access_class(self._app, endpoint) in (
            "open",
            "public",
            "api",
            "site",
            None,
        ):
            return response
        response.headers.update(_HEADERS)
        if is_secure(request, current_runtime().config):
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    async def error_page(self, error: Exception, status: int, headers: Mapping[str, str]) -> Response | None:
        """Give the page for an error where a browser asked for a page, else None: programs get JSON."""
        if not self._asks_for_page():
            return None
        message = self.explain(error)
        body = await render_template(
            "error.html",
            status=status,
            foreign=self.language().tag != DEFAULT and message == getattr(error, "message", None),
            title=self.language().find(f"error.title_{status}") or self.language().get("error.title_500"),
            message=message,
            retry_after=error.retry_after if isinstance(error, Chat2APIError) else None,
        )
        return Response(body, status=status, headers=dict(headers), content_type="text/html; charset=utf-8")

    def explain(self, error: Exception) -> str:
        """Give an error's message in the reader's language, where its code has words there."""
        if not isinstance(error, Chat2APIError) or error.status == 500:
            return ""
        visitor = current_visitor()
        code = error.code
        if code == "invalid_api_key" and request.method in SAFE_METHODS and visitor is None:
            code = "sign_in_first"
        return self.language().find(f"error.{code}") or error.message

    def _asks_for_page(self) -> bool:
        endpoint = request.endpoint or ""
        if not endpoint.startswith(_START_PAGES) and access_class(self._app, endpoint) not in _PEOPLE:
            return False
        accepted = request.accept_mimetypes
        return accepted.quality("text/html") > accepted.quality("application/json")

    def home(self, role: str) -> str:
        """Give the page on which somebody begins: the first of their navigation."""
        entries = self._navigation(role)
        return entries[0][1] if entries else f"{self._prefix}/"

    def _navigation(self, role: str | None) -> list[tuple[str, str]]:
        if role is None:
            return []
        if self._paths is None:  # asked for once all routes are there
            rules = (rule for rule in self._app.url_map.iter_rules() if "GET" in (rule.methods or ()))
            self._paths = frozenset(rule.rule for rule in rules)
        return [
            (name, self._prefix + path)
            for name, path, least in NAVIGATION
            if self._prefix + path in self._paths and (role == "operator" or least == "person")
        ]


def install_shell(app: Quart, templates: Path, prefix: str) -> ErrorPage:
    """Give an app its shell; returns how errors are shown to people."""
    shell = Shell(app, templates / "texts", prefix)
    app.extensions["chat2api_shell"] = shell
    return shell.error_page


def shell_of(app: Quart) -> Shell:
    """Give the shell of an app."""
    shell = app.extensions["chat2api_shell"]
    assert isinstance(shell, Shell)
    return shell


def spell_duration(texts: Catalogue, seconds: float) -> str:
    """Give a duration by its two largest units, rounded up to a second."""
    left = max(0, -int(-seconds // 1))
    parts = []
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if left >= size:
            parts.append(texts.get(f"unit.{unit}", n=left // size))
            left %= size
        elif parts:
            break
    return " ".join(parts[:2]) or texts.get("unit.second", n=0)


def spell_date(instant: float, with_time: bool = False) -> str:
    """Give an instant as a date of UTC, which everybody reads alike; with the time if wanted."""
    form = "%Y-%m-%d %H:%M UTC" if with_time else "%Y-%m-%d"
    return datetime.fromtimestamp(instant, UTC).strftime(form)
