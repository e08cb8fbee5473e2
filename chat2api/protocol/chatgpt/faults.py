"""The backend's failures, named: HTTP answers, errors inside a 200 stream, refusals of a refresh.

The backend writes `{"detail": <text, object or array>}`, in places `{"error": {…}}`, and the network in front of it
writes HTML. What is known is matched by code first, then by words of the text in any case, then by status.

A message for the caller says what to do next. The backend's own words are passed on only where they are a short text:
an array (which validation makes) can repeat the request, and HTML is for browsers.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import orjson

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
from chat2api.protocol.events import Failed

MIN_WAIT = 1.0
MAX_WAIT = 7 * 86400.0
"""Seconds; bounds of a wait that the backend states."""

_MAX_QUOTE = 300


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


@dataclass(frozen=True, slots=True)
class _Fault:
    """What an answer says of its failure. `words` is the text to search, in lower case; `quote` may be passed on."""

    status: int
    code: str
    words: str
    quote: str
    wait: float | None
    is_html: bool
    fields: tuple[str, ...]


def classify_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, call: Call, now: float | None = None
) -> UpstreamError:
    """Give the error that an HTTP answer means; call it for answers that are not what was asked for.

    `headers` have lower-case names; `now`, in Unix seconds, is for a Retry-After that is a date in an answer without
    a Date of its own. A 2xx answer gives UpstreamProtocolError unless it is a challenge page.
    """
    fault = _read_fault(status, headers, body, now)
    if _is_challenge_page(fault, headers):
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
    fault = _Fault(200, code, failed.message.lower(), _quotable(failed.message), None, False, ())
    find = _BY_CODE.get(code) or _find_by_words(fault)
    return (find or _server_error)(fault, call)


def classify_refresh_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> UpstreamError:
    """Give the error that the sign-in server's answer to a refresh means.

    Only AccountRejectedError says that the refresh token is dead, with the server's own code as the reason. All
    others leave it as good as it was, whatever their texts say: 5xx, 429, pages, and requests that it found malformed.
    """
    fault = _read_fault(status, headers, body, now)
    call = Call("token refresh")
    if status == 429:
        return AccountLimitedError("ChatGPT's sign-in server limits refreshes for now.", retry_after=fault.wait)
    if status >= 500:
        return _server_error(fault, call)
    if fault.is_html or _is_challenge_page(fault, headers):
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


# ---- reading an answer ----


def _read_fault(status: int, headers: Mapping[str, str], body: bytes, now: float | None) -> _Fault:
    text = body[: 64 * 1024].decode("utf-8", "replace").strip()
    is_html = headers.get("content-type", "").lower().startswith("text/html") or text[:1] == "<"
    try:
        document: object = None if is_html else orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    detail = _find_detail(document)
    code, message, plain = "", "", ""
    fields: tuple[str, ...] = ()
    if isinstance(detail, str):
        # A bare code, such as account_deactivated, stands where a text does.
        code, message = (detail, "") if re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", detail) else ("", detail)
    elif isinstance(detail, dict):
        code = _text_of(detail, "code") or _text_of(detail, "type") or _text_of(detail, "error")
        message = _text_of(detail, "message") or _text_of(detail, "error_description") or _text_of(detail, "msg")
    elif isinstance(detail, list):
        fields = tuple(filter(None, map(_field_name, detail)))
    elif document is None and not is_html:
        plain = text  # of a proxy on the way; to be understood, not to be passed on
    wait = _stated_wait(detail, document, headers, now)
    return _Fault(
        status, code.lower(), (text if is_html else message or plain).lower(), _quotable(message), wait, is_html, fields
    )


def _find_detail(document: object) -> object:
    """Give the part of a body that describes the failure."""
    if not isinstance(document, dict):
        return document if isinstance(document, list) else None
    if isinstance(document.get("error"), dict):
        return document["error"]
    detail = document.get("detail")
    if isinstance(detail, dict) and isinstance(detail.get("error"), dict):
        return detail["error"]
    return document if detail is None else detail


def _text_of(fields: Mapping[object, object], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _field_name(problem: object) -> str:
    """Give the path of a field that validation complains of, only its plain names: the rest may repeat the request."""
    where = problem.get("loc") if isinstance(problem, dict) else None
    if not isinstance(where, list):
        return ""
    steps = [str(step) for step in where if isinstance(step, str | int) and step != "body"]
    return ".".join(step for step in steps[:6] if re.fullmatch(r"[A-Za-z0-9_]{1,40}", step))


def _stated_wait(detail: object, document: object, headers: Mapping[str, str], now: float | None) -> float | None:
    """Give the wait that the backend states, in seconds within the bounds; the body's word goes before the header's."""
    for fields in (detail, document):
        if isinstance(fields, dict):
            wait = _seconds(fields.get("clears_in"))
            if wait is not None:
                return wait
    header = headers.get("retry-after", "").strip()
    if not header:
        return None
    wait = _seconds(header)
    if wait is not None:
        return wait
    until = _instant(header)
    if until is None:
        return None
    # By the sender's own clock where it shows it: ours may be wrong.
    sent_at = _instant(headers.get("date", ""))
    since = now if sent_at is None else sent_at
    return None if since is None else _seconds(until - since)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, MIN_WAIT), MAX_WAIT) if math.isfinite(seconds) else None


def _instant(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _quotable(text: str) -> str:
    """Give the backend's words in a form fit for a caller: one short line without addresses and tokens."""
    text = re.sub(r"<[^>]*>", " ", text[: 4 * _MAX_QUOTE])
    text = re.sub(r"\b[a-z][a-z0-9+.-]*://\S+", "(link)", text, flags=re.IGNORECASE)
    text = re.sub(
        r"\b(?:[\w-]+\.)*(?:chatgpt|openai|oaistatic|oaiusercontent)\.com\b\S*", "(link)", text, flags=re.IGNORECASE
    )
    text = re.sub(r"[\w.+-]+@[\w-]+\.[\w.-]+", "(address)", text)
    text = re.sub(r"\b(?:eyJ|sk-|rt_|org-|user-|gAAAA)[\w.=-]{6,}", "(masked)", text)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE]}…"


def _is_challenge_page(fault: _Fault, headers: Mapping[str, str]) -> bool:
    if headers.get("cf-mitigated", "").lower() == "challenge":
        return True
    return fault.is_html and any(mark in fault.words for mark in ("cf_chl_opt", "cf-please-wait", "cf-challenge"))


def _classify_page(fault: _Fault, call: Call) -> UpstreamError:
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


def _said(fault: _Fault) -> str:
    return f"{QUOTES}{fault.quote}" if fault.quote else ""


def _code_note(fault: _Fault) -> str:
    return f", {fault.code}" if re.fullmatch(r"[a-z0-9_]{1,64}", fault.code) else ""


def _wait_note(fault: _Fault) -> str:
    return "" if fault.wait is None else f" (for another {math.ceil(fault.wait)} seconds)"


def _rejected(reason: str, what: str) -> Callable[[_Fault, Call], UpstreamError]:
    """Make a kind: the credential is refused, each credential in its own way."""

    def make(fault: _Fault, call: Call) -> UpstreamError:
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


def _unusual_activity(fault: _Fault, call: Call) -> UpstreamError:
    if call.check_asked:
        return _human_check(fault, call)  # these are also the words for a check that was left out
    return ChallengedError(
        "ChatGPT finds unusual activity from this server. Wait some minutes, use another exit (PROXY_URL), or sign in "
        f"to the account with a browser.{_said(fault)}",
        scope="both",
    )


def _human_check(fault: _Fault, call: Call) -> UpstreamError:
    return ChallengedError(
        "ChatGPT asks for a check that only a person can pass. Sign in to the account with a browser and pass it "
        f"there, then try again.{_said(fault)}",
        scope="account",
    )


def _region(fault: _Fault, call: Call) -> UpstreamError:
    return ChallengedError(
        "ChatGPT is not offered in the region of this server's address. Use another exit (PROXY_URL).", scope="exit"
    )


def _workspace(fault: _Fault, call: Call) -> UpstreamError:
    return WorkspaceRefusedError(
        "ChatGPT does not let this account use the workspace that was named. Name one that the account is a member of "
        f"(header ChatGPT-Account-ID, or the id behind the token), or none.{_said(fault)}",
        private=call.private or call.credential != "account",
    )


def _limited(fault: _Fault, call: Call) -> UpstreamError:
    return AccountLimitedError(
        f"ChatGPT limits this account for now{_wait_note(fault)}.{_said(fault)}", retry_after=fault.wait
    )


def _exit_limited(fault: _Fault, call: Call) -> UpstreamError:
    return ExitLimitedError(
        f"Too many requests from this server's address{_wait_note(fault)}. Wait, or use another exit (PROXY_URL)."
        f"{_said(fault)}",
        retry_after=fault.wait,
    )


def _conversation_not_found(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(
        "The conversation does not exist, has expired, or belongs to another account. Start a new one.",
        param="conversation_id",
        code="conversation_not_found",
    )


def _model_not_found(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(
        "The model or custom GPT does not exist, or this account may not use it.", param="model", code="model_not_found"
    )


def _too_long(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamRefusedRequestError(
        "The messages are too long for this model. Shorten them.", param="messages", code="context_length_exceeded"
    )


def _policy(fault: _Fault, call: Call) -> UpstreamError:
    return RefusedError(f"ChatGPT refused the request because of its content policy.{_said(fault)}")


def _endpoint_gone(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamProtocolError(f"ChatGPT no longer has the {call.name} call (status {fault.status}).")


def _not_found(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamNotFoundError(f"ChatGPT does not know what the {call.name} call names.{_said(fault)}")


def _forbidden(fault: _Fault, call: Call) -> UpstreamError:
    if "workspace" in fault.code or re.search(r"\bworkspace\b", fault.words):
        return _workspace(fault, call)
    return ChallengedError(
        f"ChatGPT refused the {call.name} call (403{_code_note(fault)}). Another exit (PROXY_URL) or signing in with a "
        f"browser may help.{_said(fault)}",
        scope="both",
    )


def _refused_request(fault: _Fault, call: Call) -> UpstreamError:
    where = f": {', '.join(fault.fields[:5])}" if fault.fields else ""
    return UpstreamRefusedRequestError(
        f"ChatGPT found the {call.name} request invalid (status {fault.status}{_code_note(fault)}{where}).{_said(fault)}"
    )


def _timed_out(fault: _Fault, call: Call) -> UpstreamError:
    return UpstreamTimeoutError(f"ChatGPT gave up the {call.name} call for want of time.", phase="upstream")


def _server_error(fault: _Fault, call: Call) -> UpstreamError:
    # Inside a 200 stream there is no status of its own; to the retry rules it is a plain failure of the backend.
    status = max(fault.status, 500)
    return UpstreamServerError(
        f"ChatGPT failed during the {call.name} call (status {fault.status}).{_said(fault)}",
        upstream_status=status,
        retry_after=fault.wait,
    )


_Kind = Callable[[_Fault, Call], UpstreamError]

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


def _find_by_words(fault: _Fault) -> _Kind | None:
    if fault.status >= 500:
        return None
    for pattern, kind in _BY_WORDS:
        if pattern.search(fault.words) and not (kind is _limited and fault.status in _ABOUT_THE_REQUEST):
            return kind
    return None
