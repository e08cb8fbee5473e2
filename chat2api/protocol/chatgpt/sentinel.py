"""The values of the requirements exchange that comes before each turn: what to send, how to read the answer.

The exchange has two forms (both seen in clients of 2026):

    single stage   POST …/sentinel/chat-requirements           {"p"}                           → token, challenge
    two stages     POST …/sentinel/chat-requirements/prepare   {"p"}                           → prepare_token, challenge
                   POST …/sentinel/chat-requirements/finalize  {"prepare_token","proofofwork"} → token

`p` is the requirements token, the answer to a challenge goes into a header or into finalize, and both carry the config
array: a JSON array in which the page describes the browser it runs in. Where an answer mentions a human check
(turnstile, arkose) that is read and passed on; nothing here answers one.
"""

import html
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Literal, cast
from urllib.parse import urljoin

import orjson

from chat2api.errors import ProofTooHardError, UpstreamProtocolError
from chat2api.protocol.chatgpt.proof_of_work import (
    REQUIREMENTS_DIFFICULTY,
    Algorithm,
    Challenge,
    JSONScalar,
    Template,
    is_harder,
    requirements_token,
    search,
)


class Form(Enum):
    """Which of the two exchanges a backend speaks; each goes with its own hash (no source names another rule)."""

    SINGLE_STAGE = "single"
    TWO_STAGES = "two"

    @property
    def algorithm(self) -> Algorithm:
        """The hash of this form's proofs."""
        return Algorithm.SHA3_512 if self is Form.SINGLE_STAGE else Algorithm.FNV1A_32


@dataclass(frozen=True, slots=True)
class Zone:
    """A fixed time zone as `Date.toString()` shows it; the offset is in minutes east of Greenwich."""

    offset_minutes: int
    name: str


EASTERN = Zone(-300, "Eastern Standard Time")
PACIFIC = Zone(-480, "Pacific Standard Time")


@dataclass(frozen=True, slots=True)
class Device:
    """The machine that one account appears on; the same values in every request of the account.

    `user_agent` is the header's own text. `screen` is width and height in pixels.
    """

    device_id: str
    user_agent: str
    zone: Zone = EASTERN
    screen: tuple[int, int] = (1920, 1080)
    cores: int = 16


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the home page tells for the config array: the scripts' absolute URLs (at least one) and the build id."""

    scripts: tuple[str, ...]
    build_id: str


FALLBACK_PAGE = PageFacts(
    scripts=("https://chatgpt.com/backend-api/sentinel/sdk.js",),
    build_id="prod-f501fe933b3edf57aea882da888e1a544df99840",
)
"""Stands in where the page cannot be read: the address of the page's own sentinel script, and a build of late 2024."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """The backend's answer. Texts are None where it left them out or empty; `expire_after` is in seconds.

    `token` is None after the first of two stages, `prepare_token` in the single-stage form. `challenge` is None when no
    proof of work is asked for. The three `…_required` flags name checks that only a person in a browser can pass.
    """

    token: str | None
    prepare_token: str | None
    persona: str | None
    challenge: Challenge | None
    turnstile_required: bool
    arkose_required: bool
    force_login: bool
    expire_after: float | None


# Probes of the page that read the same in every browser; an odd one would contradict the User-Agent.
# Between name and value stands U+2212, not a hyphen.
_NAVIGATOR_PROBES = (
    "appCodeName−Mozilla",
    "appName−Netscape",
    "cookieEnabled−true",
    "language−en-US",
    "onLine−true",
    "pdfViewerEnabled−true",
    "product−Gecko",
    "webdriver−false",
)
_CHROMIUM_PROBES = ("productSub−20030107", "vendor−Google Inc.")
_DOCUMENT_KEYS = ("location", "body", "cookie", "head", "hidden", "scripts", "visibilityState")
_WINDOW_KEYS = ("alert", "atob", "fetch", "history", "innerWidth", "localStorage", "origin", "screen", "scrollY")

_HEAP_LIMIT = 4294705152
_HEAP_LIMIT_TWO_STAGES = 4294967296
_WINDOW_PROBES = (0,) * 7
_LONGEST_LIFE = 1e9  # seconds; a larger number, infinity among them, is no duration

# No `<` inside a tag: every attempt then ends where the next can begin, so no page, however broken, is slow to read.
_SCRIPT = re.compile(r"""<script\b[^<>]*?\ssrc=(?:"([^"<>]+)"|'([^'<>]+)')""", re.IGNORECASE)
_BUILD = re.compile(r"""<html\b[^<>]*?\sdata-build=["']([^"'<>]+)["']""", re.IGNORECASE)
_BUILD_IN_SCRIPT = re.compile(r"c/[^/]*/_")
_CHALLENGE_SCRIPTS = "/cdn-cgi/"

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse_home_page(page: str, url: str) -> PageFacts:
    """Read the scripts and the build id from the home page that was fetched from `url`.

    The build id is the `data-build` of the html element, else the `c/…/_` in a script's address. What the page does
    not tell comes from FALLBACK_PAGE; scripts of the network's own challenge pages do not count.
    """
    sources = (html.unescape(double or single) for double, single in _SCRIPT.findall(page))
    scripts = tuple(urljoin(url, source) for source in sources if _CHALLENGE_SCRIPTS not in source)
    build = _BUILD.search(page)
    if build is not None:
        build_id = html.unescape(build[1])
    else:
        in_scripts = (_BUILD_IN_SCRIPT.search(script) for script in scripts)
        build_id = next((found[0] for found in in_scripts if found is not None), FALLBACK_PAGE.build_id)
    return PageFacts(scripts or FALLBACK_PAGE.scripts, build_id)


def single_stage_config(
    device: Device,
    page: PageFacts,
    *,
    now: float,
    loaded_at: float,
    rng: random.Random,
    unique_id: str,
    length: Literal[15, 18] = 18,
) -> tuple[JSONScalar, ...]:
    """Give the config array of the single-stage form; `unique_id` is a fresh UUID.

    `now` and `loaded_at`, when the page was loaded, are Unix seconds. Items 3 and 9 are left to the search.
    """
    config = (
        *_common_items(device, page, now, rng, _HEAP_LIMIT, "en-US,es-US,en,es", elapsed=0),
        _milliseconds(now - loaded_at),
        unique_id,
        "",
        device.cores,
        _milliseconds(loaded_at),
    )
    return config[:length]


def two_stage_config(
    device: Device, page: PageFacts, *, now: float, loaded_at: float, rng: random.Random
) -> tuple[JSONScalar, ...]:
    """Give the config array of the two-stage form, 25 items; the search changes item 3 only.

    Item 9 is the search's duration in ms by the page's clock, and the search has not begun: a duration that a page
    would need for an easy challenge stands there.
    """
    return (
        *_common_items(device, page, now, rng, _HEAP_LIMIT_TWO_STAGES, "en-US,en", elapsed=rng.randint(1, 40)),
        _milliseconds(now - loaded_at),
        device.device_id,
        "",
        device.cores,
        _milliseconds(loaded_at),
        *_WINDOW_PROBES,
    )


def make_requirements_token(form: Form, template: Template, rng: random.Random) -> str:
    """Give the requirements token `p` for a config array of this form, serialised.

    The single-stage form holds a small proof of work over a seed that nobody is told, 16 tries on average; the
    two-stage form holds nonce 1 as it stands.
    """
    if form is Form.TWO_STAGES:
        return requirements_token(form.algorithm, template, 1)
    while True:
        own = Challenge(form.algorithm, repr(rng.random()), REQUIREMENTS_DIFFICULTY)
        nonce = search(own, template, stop=1024)
        if nonce is not None:
            return requirements_token(form.algorithm, template, nonce)


def parse_requirements(body: bytes, form: Form) -> Requirements:
    """Read the answer to the single-stage request or to prepare.

    Every field may be missing or of a wrong type and then counts as absent. Raises UpstreamProtocolError when the
    body is no JSON object, holds neither token, or asks for a proof of work without saying which.
    """
    answer = _json_object(body)
    token, prepare_token = _text(answer.get("token")), _text(answer.get("prepare_token"))
    force_login = _flag(answer.get("force_login"))
    if token is None and prepare_token is None and not force_login:
        raise UpstreamProtocolError("The backend's requirements hold no token.")
    return Requirements(
        token=token,
        prepare_token=prepare_token,
        persona=_text(answer.get("persona")),
        challenge=_challenge(answer.get("proofofwork"), form),
        turnstile_required=_required(answer.get("turnstile")),
        arkose_required=_required(answer.get("arkose")),
        force_login=force_login,
        expire_after=_seconds(answer.get("expire_after")),
    )


def parse_finalized(body: bytes, prepared: Requirements) -> Requirements:
    """Add what finalize answered to what prepare answered. Raises UpstreamProtocolError when it holds no token."""
    answer = _json_object(body)
    token = _text(answer.get("token"))
    if token is None:
        raise UpstreamProtocolError("The backend's final requirements hold no token.")
    return replace(
        prepared,
        token=token,
        persona=_text(answer.get("persona")) or prepared.persona,
        expire_after=_seconds(answer.get("expire_after")) or prepared.expire_after,
    )


def needs_two_stages(status: int, requirements: Requirements | None) -> bool:
    """Say whether the answer to the single-stage request means that this backend speaks the two-stage form.

    `requirements` is None where the status was not 200. The caller remembers a True for the life of the process.
    """
    if requirements is not None:
        return status == 200 and requirements.token is None and requirements.prepare_token is not None
    return status in (404, 405, 410)


def check_difficulty(challenge: Challenge, limit: str) -> None:
    """Raise ProofTooHardError when the challenge is strictly harder than the setting POW_DIFFICULTY, `limit`."""
    if is_harder(challenge.difficulty, limit):
        raise ProofTooHardError(
            f"The backend asks for a proof of work of difficulty {challenge.difficulty}, harder than POW_DIFFICULTY "
            f"({limit}) allows. Lower that setting to work on it, or use another exit address."
        )


def requirements_body(token: str) -> dict[str, str]:
    """Give the body of the single-stage request and of prepare; `token` is the requirements token."""
    return {"p": token}


def finalize_body(prepare_token: str, proof_token: str | None) -> dict[str, str]:
    """Give the body of finalize; without a challenge there is no key for the proof."""
    body = {"prepare_token": prepare_token}
    if proof_token is not None:
        body["proofofwork"] = proof_token
    return body


def sentinel_headers(requirements: Requirements, proof_token: str | None) -> tuple[tuple[str, str], ...]:
    """Give the headers that the turn carries; a value that is not there has no header, never an empty one."""
    values = (
        ("OpenAI-Sentinel-Chat-Requirements-Token", requirements.token),
        ("OpenAI-Sentinel-Chat-Requirements-Prepare-Token", requirements.prepare_token),
        ("OpenAI-Sentinel-Proof-Token", proof_token),
    )
    return tuple((name, value) for name, value in values if value is not None)


def _common_items(
    device: Device,
    page: PageFacts,
    now: float,
    rng: random.Random,
    heap_limit: int,
    languages: str,
    *,
    elapsed: int,
) -> tuple[JSONScalar, ...]:
    """Give items 0 to 12, which mean the same in all forms."""
    return (
        sum(device.screen),
        _date_text(int(now), device.zone),
        heap_limit,
        0,
        device.user_agent,
        _pick(rng, page.scripts),
        page.build_id,
        "en-US",
        languages,
        elapsed,
        _pick(rng, _probes("Chrome/" in device.user_agent, device.cores)),
        _pick(rng, _DOCUMENT_KEYS),
        _pick(rng, _WINDOW_KEYS),
    )


@lru_cache(maxsize=64)
def _probes(is_chromium: bool, cores: int) -> tuple[str, ...]:
    more = _CHROMIUM_PROBES if is_chromium else ()
    return (*_NAVIGATOR_PROBES, *more, f"hardwareConcurrency−{cores}")


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    """Give one of them, each as likely, at a third of the cost of `choice`."""
    return choices[int(rng.random() * len(choices))]


@lru_cache(maxsize=16)
def _date_text(now: int, zone: Zone) -> str:
    """Give what `Date.toString()` shows, in English whatever the locale of this process."""
    local = datetime.fromtimestamp(now, UTC) + timedelta(minutes=zone.offset_minutes)
    hours, minutes = divmod(abs(zone.offset_minutes), 60)
    sign = "-" if zone.offset_minutes < 0 else "+"
    day = f"{_WEEKDAYS[local.weekday()]} {_MONTHS[local.month - 1]} {local.day:02} {local.year}"
    return f"{day} {local:%H:%M:%S} GMT{sign}{hours:02}{minutes:02} ({zone.name})"


def _milliseconds(seconds: float) -> int | float:
    """Give a page's clock value: steps of 0.1 ms, and no `.0`, which JavaScript would not write."""
    value = round(seconds * 1000, 1)
    return int(value) if value.is_integer() else value


def _json_object(body: bytes) -> dict[str, object]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = _slowly_read(body)
    if not isinstance(answer, dict):
        raise UpstreamProtocolError("The backend's requirements are not a JSON object.")
    return cast("dict[str, object]", answer)


def _slowly_read(body: bytes) -> object:
    """Read JSON with numbers of any size, which orjson refuses."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocolError("The backend's requirements are not JSON.") from error


def _challenge(value: object, form: Form) -> Challenge | None:
    if not isinstance(value, dict) or not _flag(value.get("required")):
        return None
    seed, difficulty = value.get("seed"), value.get("difficulty")
    if isinstance(seed, int | float):
        seed = repr(seed)
    if not isinstance(seed, str) or not isinstance(difficulty, str):
        raise UpstreamProtocolError("The backend asks for a proof of work without a seed or a difficulty.")
    return Challenge(form.algorithm, seed, difficulty)


def _required(value: object) -> bool:
    return isinstance(value, dict) and _flag(value.get("required"))


def _flag(value: object) -> bool:
    return value is True or value == 1 or value == "true"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LONGEST_LIFE:
        return float(value)
    return None
