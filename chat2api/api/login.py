"""`/login`: one box for every key and the password; `/logout`."""

import math

from quart import Blueprint, Response, current_app, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.admission import Guess, matches_password
from chat2api.api.context import current_runtime, current_visitor, record_action, set_visitor
from chat2api.api.sessions import (
    Shown,
    begin_sign_in,
    check_transport,
    clear_cookie,
    end_sign_in,
    find_visitor,
    password_shown,
    recognise,
    set_cookie,
)
from chat2api.api.shell import shell_of
from chat2api.errors import Chat2APIError, InvalidAPIKeyError, StorageError

blueprint = Blueprint("login", __name__)
leaving = Blueprint("logout", __name__)

LONGEST_SECRET = 1024
"""Characters of a key or password that are looked at."""


@blueprint.get("/login")
async def login_page() -> ResponseReturnValue:
    """The box, or the way on for who is signed in already."""
    visitor = current_visitor()
    if visitor is not None:
        return redirect(safe_next(request.args.get("next"), shell_of(current_app).home(visitor.role)), 303)
    return await _page()


@blueprint.post("/login")
async def sign_in() -> ResponseReturnValue:
    """Take a key or the password; a new sign-in every time, and the old one of this browser ends."""
    runtime = current_runtime()
    form = await request.form
    try:
        check_transport(request, runtime.config)
        shown = await _recognise(form.get("key", "").strip())
    except Chat2APIError as error:
        return await _page(error)
    old = current_visitor()
    if old is not None and old.cookie is not None:
        await end_sign_in(runtime, old.cookie)
    value = await begin_sign_in(runtime, shown)
    visitor = await find_visitor(runtime, value)
    if visitor is None:
        raise InvalidAPIKeyError("This key has just ended.")
    set_visitor(visitor)
    if visitor.role == "operator":
        await record_action("sign in")
    response = Response(status=303)
    response.headers["Location"] = safe_next(form.get("next"), shell_of(current_app).home(visitor.role))
    set_cookie(response, request, runtime.config, value)
    return response


@leaving.post("/logout")
async def sign_out() -> ResponseReturnValue:
    """End the sign-in here and take its cookie back."""
    runtime = current_runtime()
    visitor = current_visitor()
    if visitor is not None and visitor.cookie is not None:
        await end_sign_in(runtime, visitor.cookie)
        if visitor.role == "operator":
            await record_action("sign out")
    response = Response(status=303)
    response.headers["Location"] = f"{_prefix()}/login"
    clear_cookie(response, request, runtime.config)
    return response


def safe_next(wanted: str | None, otherwise: str) -> str:
    """Give the path that somebody wanted before signing in, if it is one of this server; else the other one (S27).

    One `/` at the start, no second one and no `\\`; browsers take blanks and control characters out of an address, so
    these are refused too.
    """
    ours = wanted is not None and len(wanted) <= 2048 and wanted.startswith("/") and not wanted.startswith("//")
    if (
        wanted is None
        or not ours
        or "\\" in wanted
        or not wanted.isascii()
        or not wanted.isprintable()
        or " " in wanted
    ):
        return otherwise
    return wanted


async def _recognise(secret: str) -> Shown:
    runtime = current_runtime()
    if not secret or len(secret) > LONGEST_SECRET:
        raise InvalidAPIKeyError("Enter a key or the password.", code="empty")
    guess = Guess(request, secret)
    shown = recognise(runtime, secret)
    if shown is None and runtime.operator_keys.matches(secret):
        raise InvalidAPIKeyError(
            "Operator keys are for API calls only here. Sign in with the password.", code="password_needed"
        )
    if shown is None and await matches_password(runtime, guess, secret):
        shown = password_shown(runtime)
    if shown is not None:
        guess.was_right()
        return shown
    if runtime.operator_keys.shut is not None and runtime.password is None:
        raise StorageError(runtime.operator_keys.shut)
    guess.was_wrong()
    raise InvalidAPIKeyError("This key or password is not known here.")


async def _page(error: Chat2APIError | None = None) -> ResponseReturnValue:
    runtime = current_runtime()
    page = await render_template(
        "login.html",
        error=shell_of(current_app).explain(error) if error is not None else None,
        retry_after=error.retry_after if error is not None else None,
        next=safe_next(request.args.get("next") or (await request.form).get("next"), ""),
        password=runtime.password is not None,
    )
    headers = {}
    if error is not None and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return page, error.status if error is not None else 200, headers


def _prefix() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}" if prefix else ""
