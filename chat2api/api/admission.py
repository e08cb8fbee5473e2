"""Who may stand before pages and admin routes: the access classes of what people's browsers ask for.

Called by `api/auth.py` alone, before any handler. A cookie, where one is sent, decides; a bearer counts without one only.
"""

from collections.abc import Callable
from typing import Literal
from urllib.parse import quote

from quart import Request, redirect
from quart.typing import ResponseReturnValue

from chat2api.api.body import SMALL_BODY
from chat2api.api.context import Visitor, current_runtime
from chat2api.api.csrf import SAFE_METHODS, check_csrf, check_origin
from chat2api.api.peers import check_host, peer_address
from chat2api.api.sessions import (
    check_transport,
    find_visitor,
    password_shown,
    read_cookie,
    recognise,
    visitor_by_bearer,
)
from chat2api.errors import InvalidAPIKeyError, PermissionDeniedError, StorageError
from chat2api.keys.digests import secret_digest
from chat2api.runtime import Runtime

PageAccess = Literal["login", "page", "person", "admin", "signed_in"]
"""`login`: everybody, signed in or not; what is sent must come from our own pages. `page`: an operator's page; nobody is
sent to sign in. `person`: an issued key's own data, or an operator. `admin`: an operator, by cookie and token or by bearer.
`signed_in`: whoever has a sign-in, by cookie and token."""


class Guess:
    """A secret that somebody presents, right or wrong, from some address. Raises RateLimitedError for one who must wait."""

    def __init__(self, incoming: Request, secret: str) -> None:
        """Take a secret of this request."""
        runtime = current_runtime()
        self._guesses = runtime.guesses
        self._address = peer_address(incoming, runtime.config).network
        self.digest = secret_digest(secret)
        """Of the secret."""
        if not self._guesses.quiet:
            self._guesses.check(self._address, self.digest)

    def was_right(self) -> None:
        """Remember that it is right."""
        self._guesses.succeeded(self._address, self.digest)

    def was_wrong(self) -> Callable[[], None]:
        """Count it, also before a slow comparison; calling what this gives takes it back."""
        return self._guesses.failed(self._address, self.digest)


async def admit(
    incoming: Request, access: PageAccess, read_bearer: Callable[[], str | None]
) -> Visitor | ResponseReturnValue | None:
    """Give who asks, None for nobody where that is fine, or the way to the sign-in; raise for who may not.

    Raises MisdirectedRequestError, InvalidAPIKeyError, PermissionDeniedError, RateLimitedError.
    """
    runtime = current_runtime()
    check_host(incoming, runtime.config)
    cookie = read_cookie(incoming, runtime.config)
    visitor = await find_visitor(runtime, cookie) if cookie is not None else None
    if access == "login":
        if incoming.method not in SAFE_METHODS:
            check_origin(incoming, runtime.config)
        return visitor
    if cookie is None and access != "signed_in" and (bearer := read_bearer()) is not None:
        visitor = await _by_bearer(runtime, incoming, bearer)
    if visitor is None:
        return _turn_away(incoming, access, runtime)
    if visitor.role == "person" and access in ("page", "admin"):
        raise PermissionDeniedError("This is for the operator of this server. Your own page is /usage.")
    if visitor.cookie is not None:
        check_transport(incoming, runtime.config)
        if incoming.method not in SAFE_METHODS:
            if visitor.role == "operator":  # pasted tokens of a thousand accounts; the listener bounds the body
                incoming.max_form_memory_size = SMALL_BODY
            await check_csrf(incoming, visitor, runtime.config)
    return visitor


async def matches_password(runtime: Runtime, guess: Guess, secret: str) -> bool:
    """Whether a secret is ADMIN_PASSWORD. It is counted as wrong until it has proved right, so that none slips by."""
    if runtime.password is None:
        return False
    take_back = guess.was_wrong()
    if not await runtime.password.matches(secret):
        return False
    take_back()
    return True


async def _by_bearer(runtime: Runtime, incoming: Request, bearer: str) -> Visitor:
    guess = Guess(incoming, bearer)
    shown = recognise(runtime, bearer)
    if shown is None and runtime.operator_keys.matches(bearer):
        raise PermissionDeniedError("ADMIN_PASSWORD is set, so operator keys are for API calls only. Use the password.")
    if shown is None and await matches_password(runtime, guess, bearer):
        shown = password_shown(runtime)
    if shown is not None:
        guess.was_right()
        return visitor_by_bearer(runtime, shown)
    guess.was_wrong()
    raise InvalidAPIKeyError("Incorrect key. This needs the operator key, or ADMIN_PASSWORD where it is set.")


def _turn_away(incoming: Request, access: PageAccess, runtime: Runtime) -> ResponseReturnValue:
    if runtime.operator_keys.shut is not None and not runtime.config.admin_password:
        raise StorageError(runtime.operator_keys.shut)
    if access == "page" and incoming.method in SAFE_METHODS:
        prefix = f"/{runtime.config.api_prefix}" if runtime.config.api_prefix else ""
        wanted = incoming.path + (f"?{incoming.query_string.decode('latin-1')}" if incoming.query_string else "")
        return redirect(f"{prefix}/login?next={quote(wanted, safe='/')}", 303)
    raise InvalidAPIKeyError("Sign in first. Programs send the operator key as `Authorization: Bearer <key>`.")
