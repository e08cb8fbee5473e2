"""What the OpenAI API's refusals mean, and what of them is told on: nothing that names the operator.

Source of the shapes: the API's published error codes and rate-limit headers, and the messages that public clients report.
"""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import orjson

from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    KeyForbiddenError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamServerError,
)

_IDS = re.compile(r"\b(?:org|proj|user|acct|cus|sess|svcacct)[-_](?=[a-z]*[A-Z0-9])[A-Za-z0-9]{6,}|\bsk-[\w*.-]{4,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_BILLING = re.compile(
    r"billing|payment|credit card|\bplan and\b|spend(?:ing)? limit|hard limit"
    r"|platform\.openai\.com/(?:account|settings)|/organization/",
    re.IGNORECASE,
)
_TRY_AGAIN = re.compile(r"try again in (?P<time>(?:\d+(?:\.\d+)?(?:ms|[dhms]))+)", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HIDDEN = "(masked)"
_NOTHING_LEFT = "The API refused this request."


def mask_text(text: str) -> str:
    """Give a message without ids of organisations, projects and keys, and without sentences about billing."""
    kept = [sentence for sentence in _SENTENCE.split(text) if not _BILLING.search(sentence)]
    if len(kept) != len(_SENTENCE.split(text)):
        text = " ".join(kept) or _NOTHING_LEFT
    return _IDS.sub(_HIDDEN, text)


def mask_error(body: bytes) -> bytes:
    """Give the body of a refusal with its texts masked; the same bytes where there is nothing to mask.

    A body that is no JSON object is told in our own words: pages of the network in front say whose it is.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return orjson.dumps({
            "error": {"message": _NOTHING_LEFT, "type": "invalid_request_error", "param": None, "code": None}
        })  # fmt: skip
    masked = _mask_value(value)
    return body if masked == value else json.dumps(masked, ensure_ascii=False).encode("utf-8", "replace")


def _mask_value(value: object) -> object:
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {key: _mask_value(item) for key, item in value.items()}
    return [_mask_value(item) for item in value] if isinstance(value, list) else value


def read_error(body: bytes) -> tuple[str, str, str]:
    """Give (message, type, code) of a refusal, "" for what it does not tell."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "", "", ""
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str):
        return error, "", ""
    if not isinstance(error, dict):
        error = value if isinstance(value, dict) else {}
    texts = (error.get("message"), error.get("type"), error.get("code"))
    message, kind, code = (text if isinstance(text, str) else "" for text in texts)
    return message, kind, code


def is_bare_error(body: bytes) -> bool:
    """Whether a whole answer is an error and nothing else, whatever its status says."""
    if b'"error"' not in body[:64]:
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, dict) and isinstance(value.get("error"), dict | str) and not {"id", "object"} & value.keys()
    )


def classify_refusal(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError | None:
    """Give what a refusal says of the key or the server; None when it is about the request, and for its caller to see."""
    message, kind, code = read_error(body)
    if status >= 500:
        return UpstreamServerError(
            "The API failed to answer.", upstream_status=status, retry_after=stated_wait(headers, message)
        )
    if status in (402, 429):
        # Without credit, no time helps that anybody states. Other servers of this kind say 402 then.
        broke = status == 402 or "insufficient_quota" in (code, kind) or code == "billing_hard_limit_reached"
        wait = None if broke else stated_wait(headers, message)
        return AccountLimitedError("The API key has reached its limit.", retry_after=wait)
    lacking = "scope" in message.lower() or "permission" in message.lower()
    if status in (401, 403) and (lacking or code == "model_not_found"):
        return KeyForbiddenError("The API key may not do this.")
    if status == 401:
        return AccountRejectedError("The API does not accept the key.", reason=code or "invalid_api_key")
    if status < 400:
        return UpstreamProtocolError(f"The API answered {status}, which means nothing here.")
    return None


def status_of_error(kind: str, code: str) -> int:
    """Give the status that an error inside a stream would have had as an answer."""
    words = f"{kind} {code}"
    if "rate_limit" in words or "insufficient_quota" in words or kind in ("requests", "tokens"):
        return 429
    if "invalid_api_key" in words or "authentication" in words:
        return 401
    return 400 if "invalid" in words or "policy" in words else 500


def stated_wait(headers: Mapping[str, str], message: str) -> float | None:
    """Give the seconds that a refusal asks to wait; None when it states none.

    `retry-after-ms` and `retry-after` go first, in seconds or as a date beside the answer's own, then the time at which the
    limit that is used up is renewed, then the message's own words.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    if (until := _seconds_between(headers.get("date"), headers.get("retry-after"))) is not None:
        return until
    resets = [
        parse_duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    if known := [seconds for seconds in resets if seconds is not None]:
        return max(known)
    match = _TRY_AGAIN.search(message)
    return parse_duration(match["time"]) if match else None


def _seconds_between(first: str | None, second: str | None) -> float | None:
    """Give the seconds from one date to another, as HTTP writes them; None when either is none."""
    if first is None or second is None:
        return None
    try:
        begin, end = parsedate_to_datetime(first), parsedate_to_datetime(second)
        return max((end - begin).total_seconds(), 0.0)
    except (ValueError, TypeError):  # TypeError: one of them names no zone
        return None


def parse_duration(text: str) -> float | None:
    """Give the seconds of a duration such as `6m0s`, `1.5s` or `20ms`; None when it is none."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
