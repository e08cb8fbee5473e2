"""What an answer that failed says of itself: its code, its words, the fields it complains of, and the wait it states.

The backend writes `{"detail": <text, object or array>}`, in places `{"error": {…}}`, and the network in front of it
writes HTML. The backend's own words may be passed on only where they are a short text: an array (which validation makes)
can repeat the request, and HTML is for browsers.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import orjson

MIN_WAIT = 1.0
MAX_WAIT = 7 * 86400.0
"""Seconds; bounds of a wait that the backend states."""

_MAX_QUOTE = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """What an answer says of its failure.

    `words` is the text to search, in lower case; `quote` may be passed on; `wait` is in seconds; `fields` are the paths of
    the request's fields that validation complains of.
    """

    status: int
    code: str
    words: str
    quote: str
    wait: float | None
    is_html: bool
    fields: tuple[str, ...]


def read_fault(status: int, headers: Mapping[str, str], body: bytes, now: float | None) -> Fault:
    """Read an answer; `headers` have lower-case names, `now` is in Unix seconds."""
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
    return Fault(
        status, code.lower(), (text if is_html else message or plain).lower(), quotable(message), wait, is_html, fields
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


def quotable(text: str) -> str:
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


def is_challenge_page(fault: Fault, headers: Mapping[str, str]) -> bool:
    """Whether the network in front of the backend asks for proof that a browser is asking."""
    if headers.get("cf-mitigated", "").lower() == "challenge":
        return True
    return fault.is_html and any(mark in fault.words for mark in ("cf_chl_opt", "cf-please-wait", "cf-challenge"))
