"""The backend's failures, named: HTTP answers, errors inside a 200 stream, refusals of a refresh.

What is known is matched by code first, then by words of the text in any case, then by status. A message for the caller
says what to do next, and quotes the backend's own words where they are fit for it (see `fault_reading`).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from chat2api.errors import (
    QUOTES,
    AccountLimitedError,
    AccountRejectedError,
    AnonymousUnavailableError,
    CallerTokenRejectedError,
    ChallengedError,
    ExitLimitedError,
    RefusedError,
    UpstreamError,
    UpstreamNotFoundError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)
from chat2api.protocol.chatgpt.fault_reading import Fault, is_challenge_page, quotable, read_fault
from chat2api.protocol.events import Failed


@dataclass(frozen=True, slots=True)
class Call:
    """The call that failed: a short name of it for messages, and whose credential it bore.

    `private` says that the account is the caller's own, also where it is kept here. `check_asked`: the backend asked for a
    check that only a person can pass, and did not get it.
    """

    name: str
    credential: Literal["account", "caller", "anonymous"] = "account"
    private: bool = False
    check_asked: bool = False


def classify_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, call: Call, now: float | None = None
) -> UpstreamError:
    """Give the error that an HTTP answer means; call it for answers that are not what was asked for.

    `headers` have lower-case names; `now`, in Unix seconds, is for a Retry-After that is a date in an answer without
    a Date of its own. A 2xx answer gives UpstreamProtocolError unless it is a challenge page.
    """
    fault = read_fault(status, headers, body, now)
    if is_challenge_page(fault, headers):
        return ChallengedError(
            "The network in front of ChatGPT asks this server's address to prove that it is a browser. Wait, or use "
            "another exit (PROXY_URL).",
            scope="exit",
        )
    if fault.is_html:
        return _classify_page(fault, call)
    for find in (_BY_CODE.get(fault.code), _find_by_words(fault), _BY_STATUS.get(status)):
        if find is not None:
            return find(fault, call)
    if status >= 500:
        return _server_error(fault, call)
    if 400 <= status < 500:
        return _refused_request(fault, call)
    return UpstreamProtocolError(f"ChatGPT answered the {call.name} call in an unexpected way (status {status}).")


def classify_failed(failed: Failed, *, call: Call) -> UpstreamError:
    """Give the error that a failure inside a 200 stream means.

    Such texts may be in any language: one that is not recognised counts as a passing failure of the backend.
    """
    code = (failed.code or "").lower()
    fault = Fault(200, code, failed.message.lower(), quotable(failed.message), None, False, ())
    find = _BY_CODE.get(code) or _find_by_words(fault)
    return (find or _server_error)(fault, call)


def classify_refresh_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> UpstreamError:
    """Give the error that the sign-in server's answer to a refresh means.

    Only AccountRejectedError says that the refresh token is dead, with the server's own code as the reason. All
    others leave it as good as it was, whatever their texts say: 5xx, 429, pages, and requests that it found malformed.
    """
    fault = read_fault(status, headers, body, now)
    call = Call("token refresh")
    if status == 429:
        return AccountLimitedError("ChatGPT's sign-in server limits refreshes for now.", retry_after=fault.wait)
    if status >= 500:
        return _server_error(fault, call)
    if fault.is_html or is_challenge_page(fault, headers):
        return ChallengedError(
            "ChatGPT's sign-in server answered with a page for browsers. Use another exit (PROXY_URL).", scope="exit"
        )
    reason = fault.code if fault.code in _DEAD_SIGN_INS else None
    if 400 <= status < 500 and reason is not None:
        return AccountRejectedError(
            f"ChatGPT ended this account's sign-in ({reason}). Sign in again and give the new token.", reason=reason
        )
    return UpstreamProtocolError(
        f"ChatGPT's sign-in server refused the form of the refresh (status {status}{_code_note(fault)}). Check the "
        "client id and address that the token belongs to."
    )


def _classify_page(fault: Fault, call: Call) -> UpstreamError:
    """Give the error that a page for browsers means in the place of an answer."""
    if fault.status == 429:
        return ExitLimitedError(
            f"Too many requests from this server's address{_wait_note(fault)}. Wait, or use another exit (PROXY_URL).",
            retry_after=fault.wait,
        )
    if fault.status == 403:
        return ChallengedError(
            "The network in front of ChatGPT refuses this server's address. Use another exit (PROXY_URL).",
            scope="exit",
        )
    if fault.status == 401:
        return _unauthorized(fault, call)
    if fault.status >= 500:
        return _server_error(fault, call)
    return UpstreamProtocolError(f"ChatGPT answered the {call.name} call with a web page (status {fault.status}).")


# ---- the kinds of failure ----


def _said(fault: Fault) -> str:
    return f"{QUOTES}{fault.quote}" if fault.quote else ""


def _code_note(fault: Fault) -> str:
    return f", {fault.code}" if re.fullmatch(r"[a-z0-9_]{1,64}", fault.code) else ""


def _wait_note(fault: Fault) -> str:
    return "" if fault.wait is None else f" (for another {math.ceil(fault.wait)} seconds)"


def _rejected(reason: str, what: str) -> Callable[[Fault, Call], UpstreamError]:
    """Make a kind: the credential is refused, each credential in its own way."""

    def make(fault: Fault, call: Call) -> UpstreamError:
        if call.credential == "anonymous":
            return _anonymous_unavailable()
        if call.credential == "caller":
            return CallerTokenRejectedError(f"ChatGPT refused the token that you sent: {what}. Send a fresh one.")
        return AccountRejectedError(f"ChatGPT refused the account's token: {what}.", reason=reason)

    return make


_token_expired = _rejected("token_expired", "it has expired")
_unauthorized = _rejected("token_expired", "it is not accepted")


def _anonymous_unavailable() -> AnonymousUnavailableError:
    return AnonymousUnavailableError(
        "ChatGPT offers no chat without sign-in to this server's address. Send a token, or let the operator use "
        "another exit (PROXY_URL) or add an account."
    )


def _unusual_activity(fault: Fault, call: Call) -> UpstreamError:
    if call.check_asked:
        return _human_check(fault, call)  # these are also the words for a check that was left out
    return ChallengedError(
        "ChatGPT finds unusual activity from this server. Wait some minutes, use another exit (PROXY_URL), or sign in "
        f"to the account with a browser.{_said(fault)}",
        scope="both",
    )


def _human_check(fault: Fault, call: Call) -> UpstreamError:
    return ChallengedError(
        "ChatGPT asks for a check that only a person can pass. Sign in to the account with a browser and pass it "
        f"there, then try again.{_said(fault)}",
        scope="account",
    )


def _region(fault: Fault, call: Call) -> UpstreamError:
    return ChallengedError(
        "ChatGPT is not offered in the region of this server's address. Use another exit (PROXY_URL).", scope="exit"
    )


def _workspace(fault: Fault, call: Call) -> UpstreamError:
    return WorkspaceRefusedError(
        "ChatGPT does not let this account use the workspace that was named. Name one that the account is a member of "
        f"(header ChatGPT-Account-ID, or the id behind the token), or none.{_said(fault)}",
        private=call.private or call.credential != "account",
    )


def _limited(fault: Fault, call: Call) -> UpstreamError:
    return AccountLimitedError(
        f"ChatGPT limits this account for now{_wait_note(fault)}.{_said(fault)}", retry_after=fault.wait
    )


def _exit_limited(fault: Fault, call: Call) -> UpstreamError:
    return ExitLimitedError(
        f"Too many requests from this server's address{_wait_note(fault)}. Wait, or use another exit (PROXY_URL)."
        f"{_said(fault)}",
        retry_after=fault.wait,
    )


def _conversation_not_found(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(
        "The conversation does not exist, has expired, or belongs to another account. Start a new one.",
        param="conversation_id",
        code="conversation_not_found",
    )


def _model_not_found(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(
        "The model or custom GPT does not exist, or this account may not use it.", param="model", code="model_not_found"
    )


def _too_long(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamRefusedRequestError(
        "The messages are too long for this model. Shorten them.", param="messages", code="context_length_exceeded"
    )


def _policy(fault: Fault, call: Call) -> UpstreamError:
    return RefusedError(f"ChatGPT refused the request because of its content policy.{_said(fault)}")


def _endpoint_gone(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamProtocolError(f"ChatGPT no longer has the {call.name} call (status {fault.status}).")


def _not_found(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(f"ChatGPT does not know what the {call.name} call names.{_said(fault)}")


def _forbidden(fault: Fault, call: Call) -> UpstreamError:
    if "workspace" in fault.code or re.search(r"\bworkspace\b", fault.words):
        return _workspace(fault, call)
    return ChallengedError(
        f"ChatGPT refused the {call.name} call (403{_code_note(fault)}). Another exit (PROXY_URL) or signing in with a "
        f"browser may help.{_said(fault)}",
        scope="both",
    )


def _refused_request(fault: Fault, call: Call) -> UpstreamError:
    where = f": {', '.join(fault.fields[:5])}" if fault.fields else ""
    return UpstreamRefusedRequestError(
        f"ChatGPT found the {call.name} request invalid (status {fault.status}{_code_note(fault)}{where}).{_said(fault)}"
    )


def _timed_out(fault: Fault, call: Call) -> UpstreamError:
    return UpstreamTimeoutError(f"ChatGPT gave up the {call.name} call for want of time.", phase="upstream")


def _server_error(fault: Fault, call: Call) -> UpstreamError:
    # Inside a 200 stream there is no status of its own; to the retry rules it is a plain failure of the backend.
    status = max(fault.status, 500)
    return UpstreamServerError(
        f"ChatGPT failed during the {call.name} call (status {fault.status}).{_said(fault)}",
        upstream_status=status,
        retry_after=fault.wait,
    )


_Kind = Callable[[Fault, Call], UpstreamError]

_BY_CODE: dict[str, _Kind] = {
    "token_expired": _token_expired,
    "invalid_jwt": _rejected("invalid_jwt", "it is not an access token"),
    "token_invalidated": _rejected("token_revoked", "it was revoked, so sign in again"),
    "token_revoked": _rejected("token_revoked", "it was revoked, so sign in again"),
    "account_deactivated": _rejected("account_deactivated", "the account is deactivated"),
    "user_deactivated": _rejected("account_deactivated", "the account is deactivated"),
    "unsupported_country": _region,
    "unsupported_country_region_territory": _region,
    "unusual_activity": _unusual_activity,
    "conversation_not_found": _conversation_not_found,
    "conversation_inaccessible": _conversation_not_found,
    "model_not_found": _model_not_found,
    "gizmo_not_found": _model_not_found,
    "gizmo_inaccessible": _model_not_found,
    "message_length_exceeds_limit": _too_long,
    "context_length_exceeded": _too_long,
    "model_cap_exceeded": _limited,
    "rate_limit_exceeded": _limited,
    "too_many_requests": _limited,
    "content_policy_violation": _policy,
    "content_policy_error": _policy,
}

# The first that matches counts, so the narrower stand before the wider.
_BY_WORDS: tuple[tuple[re.Pattern[str], _Kind], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"unusual activity", _unusual_activity),
        (r"turnstile|arkose|captcha|verify (?:that )?you are (?:a )?human|human verification", _human_check),
        (r"country, region, or territory|not (?:available|supported) in your (?:country|region)", _region),
        (r"(?:account|user)\b.{0,40}\bdeactivated", _rejected("account_deactivated", "the account is deactivated")),
        (r"token\b.{0,40}\b(?:revoked|invalidated)", _rejected("token_revoked", "it was revoked, so sign in again")),
        (r"token\b.{0,40}\bexpired", _token_expired),
        (r"(?:from|on) your (?:ip|network|address)", _exit_limited),
        (
            r"conversation (?:was )?(?:not found|not exist|does not exist)|can(?:'|no)t (?:load|find) (?:the )?conversation",
            _conversation_not_found,
        ),
        (r"(?:model|gizmo|gpt) (?:was )?(?:not found|inaccessible|does not exist)", _model_not_found),
        (r"content polic|usage polic|violat.{0,40}(?:polic|guideline)", _policy),
        (r"(?:message|prompt|conversation|input).{0,40}too (?:long|large)|maximum context length", _too_long),
        (r"too many requests|only one message at a time|rate.?limit", _limited),
        (r"(?:reached|hit|exceeded).{0,60}(?:limit|cap|quota)\b|usage cap|limit resets|try again after \d", _limited),
    )
)

_BY_STATUS: dict[int, _Kind] = {
    401: _unauthorized,
    403: _forbidden,
    404: _not_found,
    405: _endpoint_gone,
    408: _timed_out,
    410: _endpoint_gone,
    413: _too_long,
    429: _limited,
}

_DEAD_SIGN_INS = frozenset(
    {
        "invalid_grant",
        "access_denied",
        "account_deactivated",
        "app_session_terminated",
        "refresh_token_expired",
        "refresh_token_invalidated",
        "refresh_token_reused",
    }
)


# In these answers the words "limit" and "exceeded" speak of the request's size, not of the account's allowance.
_ABOUT_THE_REQUEST = frozenset({400, 404, 413, 418, 422})


def _find_by_words(fault: Fault) -> _Kind | None:
    if fault.status >= 500:
        return None
    for pattern, kind in _BY_WORDS:
        if pattern.search(fault.words) and not (kind is _limited and fault.status in _ABOUT_THE_REQUEST):
            return kind
    return None
