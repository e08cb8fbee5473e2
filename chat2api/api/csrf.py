"""Requests that change something must come from our own page: exact Origin, and a token of the sign-in (S22)."""

from quart import Request
from werkzeug.exceptions import RequestEntityTooLarge

from chat2api.api.context import Visitor
from chat2api.api.peers import is_secure
from chat2api.api.sessions import csrf_matches
from chat2api.config import Config
from chat2api.errors import PermissionDeniedError

CSRF_FIELD = "csrf"
"""Name of the hidden field that holds the token."""
CSRF_HEADER = "X-CSRF-Token"
"""Name of the header that holds it where no form is sent."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def check_origin(incoming: Request, config: Config) -> None:
    """Raise PermissionDeniedError unless the request comes from a page of exactly this scheme, host and port."""
    scheme = "https" if is_secure(incoming, config) else "http"
    own = f"{scheme}://{incoming.headers.get('Host', '').lower()}"
    if incoming.headers.getlist("Origin") != [own]:
        raise PermissionDeniedError(
            "This did not come from a page of this server. Reload the page and try again. (Behind a proxy: let it pass "
            "the Host header on, and name the public address in PUBLIC_ORIGINS.)",
            code="foreign_origin",
        )


async def check_csrf(incoming: Request, visitor: Visitor, config: Config) -> None:
    """Raise PermissionDeniedError unless the request comes from a page that this sign-in was given."""
    check_origin(incoming, config)
    presented = incoming.headers.get(CSRF_HEADER)
    if presented is None and incoming.mimetype in _FORMS:
        try:
            presented = (await incoming.form).get(CSRF_FIELD)
        except RequestEntityTooLarge:
            presented = None
    if visitor.cookie is None or not csrf_matches(visitor.cookie, presented or ""):
        raise PermissionDeniedError("This page is out of date. Reload it and try again.", code="csrf")
