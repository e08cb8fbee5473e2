"""The ready-made refusals of the backend and of the sign-in server, by name.

Bodies follow the shapes that public clients report: FastAPI's `detail` as text, object or list, a few under `error`,
and pages of the network in front. Status and code are well attested; the wording around them is invented.
"""

from collections.abc import Callable, Mapping

from chat2api.simulator.wire import JSON, Answer, Headers, Object, Refusal, html_answer, json_answer

_RAY = "8f3ac07d1b2e4a51-FRA"

_CLOUDFLARE = (
    '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head><body><script>'
    "(function(){window._cf_chl_opt={cvId:'3',cZone:'chatgpt.com',cType:'managed',cRay:'8f3ac07d1b2e4a51'};}());"
    "</script><noscript>Enable JavaScript and cookies to continue</noscript></body></html>"
)
_CLOUDFLARE_2024 = (
    '<html><head><title>Please wait</title></head><body><div id="cf-please-wait" class="spinner">'
    "<p>Checking your connection</p></div></body></html>"
)
_BAD_GATEWAY = (
    "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
)


def _detail(message: str, code: str, **more: JSON) -> Object:
    return {"detail": {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}}


def _error(message: str, code: str) -> Object:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def _field_error(field: str, message: str = "Input should be a valid value", kind: str = "value_error") -> Object:
    return {"detail": [{"loc": ["body", *field.split(".")], "msg": message, "type": kind}]}


_UNUSUAL = f"Unusual activity has been detected from your device. Try again later. ({_RAY})"
_UNUSUAL_2024 = "Our systems have detected unusual activity from your system. Please try again later."

_JSON: dict[str, tuple[int, JSON]] = {
    "bad_request": (400, {"detail": "Bad request"}),
    "token_expired": (
        401,
        _detail("Provided authentication token is expired. Please try signing in again.", "token_expired"),
    ),
    "invalid_jwt": (401, _error("Could not parse your authentication token. Please sign in again.", "invalid_jwt")),
    "token_invalidated": (
        401,
        _error("Your authentication token has been invalidated. Please sign in again.", "token_invalidated"),
    ),
    "token_revoked": (401, _error("The authentication token was revoked.", "token_revoked")),
    "account_deactivated": (401, _detail("This account was deactivated.", "account_deactivated")),
    "unauthorized": (401, {"detail": "Unauthorized"}),
    "unusual_activity": (403, {"detail": _UNUSUAL}),
    "unusual_activity_2024": (403, {"detail": _UNUSUAL_2024}),
    "unsupported_country": (403, _detail("Country, region, or territory not supported", "unsupported_country")),
    "workspace_unknown": (403, _detail("You are not a member of this workspace.", "workspace_not_found")),
    "conversation_not_found": (
        404,
        {"detail": {"message": "Conversation not found", "code": "conversation_not_found"}},
    ),
    "conversation_inaccessible": (
        404,
        {"detail": {"message": "This conversation cannot be opened.", "code": "conversation_inaccessible"}},
    ),
    "not_found": (404, {"detail": "Not Found"}),
    "method_not_allowed": (405, {"detail": "Method Not Allowed"}),
    "gone": (410, {"detail": "Gone"}),
    "message_too_long": (
        413,
        _detail("The message you submitted was too long.", "message_length_exceeds_limit"),
    ),
    "teapot": (418, {"detail": "Invalid conversation body"}),
    "bad_field": (422, _field_error("thinking_effort")),
    "too_many_requests": (429, {"detail": "Too many requests"}),
    "one_at_a_time": (429, {"detail": "Only one message at a time. Please let the other response finish first."}),
    "rate_limit_exceeded": (429, _detail("Rate limit reached.", "rate_limit_exceeded")),
    "server_error": (500, {"detail": "Internal Server Error"}),
    "overloaded": (503, {"detail": "Service temporarily unavailable"}),
    "timeout": (504, {"detail": "Upstream timed out"}),
    "invalid_grant": (400, {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}),
    "access_denied": (403, {"error": "access_denied", "error_description": "Unauthorized client for this token."}),
    "unsupported_grant_type": (400, {"error": "unsupported_grant_type", "error_description": "Unknown grant type."}),
    "refresh_token_reused": (
        401,
        _error("Your refresh token has already been used to make a new one. Sign in again.", "refresh_token_reused"),
    ),
    "refresh_token_expired": (401, _error("Your refresh token has expired.", "refresh_token_expired")),
    "refresh_token_invalidated": (401, _error("Your refresh token was invalidated.", "refresh_token_invalidated")),
    "app_session_terminated": (401, _error("Your session has ended.", "app_session_terminated")),
    "empty_object": (200, {}),
}

_HTML: dict[str, tuple[int, str, Headers]] = {
    "cloudflare": (403, _CLOUDFLARE, (("cf-mitigated", "challenge"), ("server", "cloudflare"))),
    "cloudflare_2024": (403, _CLOUDFLARE_2024, (("server", "cloudflare"),)),
    "bad_gateway_page": (502, _BAD_GATEWAY, ()),
    "page_instead": (200, "<!DOCTYPE html><html><head><title>ChatGPT</title></head><body></body></html>", ()),
    "nothing": (200, "", ()),
}


def _model_cap(values: Mapping[str, JSON]) -> Answer:
    message = "You have hit the limit for this model. Please try again later."
    return json_answer(_detail(message, "model_cap_exceeded", clears_in=values.get("clears_in", 11_461)), 429)


def _retry_later(values: Mapping[str, JSON]) -> Answer:
    after = str(values.get("retry_after", 7))
    return json_answer({"detail": "Too many requests"}, 429, (("retry-after", after),))


def _bad_value(values: Mapping[str, JSON]) -> Answer:
    """A refusal that repeats the request's own text, as FastAPI does with `input`."""
    detail: Object = {"loc": ["body", "messages"], "msg": "Input should be valid", "type": "value_error"}
    return json_answer({"detail": [{**detail, "input": values.get("input", "the text of the prompt")}]}, 422)


_FILLED: dict[str, Callable[[Mapping[str, JSON]], Answer]] = {
    "model_cap": _model_cap,
    "retry_later": _retry_later,
    "bad_value": _bad_value,
}

NAMES = frozenset({*_JSON, *_HTML, *_FILLED})
"""The names that `named_answer` knows."""

UNUSUAL_ACTIVITY_TEXT = _UNUSUAL_2024
"""The text that also appears inside a 200 stream."""


def named_answer(name: str, values: Mapping[str, JSON] | None = None) -> Answer:
    """Give a ready-made answer; `values` fills those that take some. Raises ValueError for an unknown name."""
    if name in _JSON:
        status, body = _JSON[name]
        return json_answer(body, status)
    if name in _HTML:
        status, text, headers = _HTML[name]
        return html_answer(text, status, headers)
    if name in _FILLED:
        return _FILLED[name](values or {})
    raise ValueError(f"no answer is called {name!r}")


def refuse(name: str) -> Refusal:
    """Give the exception that ends a request with a ready-made answer."""
    return Refusal(named_answer(name))


def refuse_field(field: str, message: str, kind: str = "value_error") -> Refusal:
    """Give the exception for a field of the body, dotted path, in FastAPI's list form."""
    return Refusal(json_answer(_field_error(field, message, kind), 422))


def refuse_text(status: int, text: str) -> Refusal:
    """Give the exception for a plain `detail`."""
    return Refusal(json_answer({"detail": text}, status))
