"""Everything that a test can choose about the simulated backend.

Each option holds for all calls; a `Rule` (faults.py) replaces options for single calls.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from chat2api.simulator.wire import JSON

AnswerKind = Literal[
    "text",
    "whole_add",
    "final_patch",
    "bare_lists",
    "code",
    "thoughts",
    "o1",
    "channels",
    "memory",
    "citations",
    "citations_2024",
    "image",
    "image_2024",
    "image_async",
    "image_given_up",
    "image_refused",
    "interpreter_file",
    "blocked",
    "system_error",
    "interrupted",
    "max_tokens",
    "empty",
    "error",
    "error_midway",
    "error_late",
    "handoff",
    "handoff_poll",
    "websocket_2024",
]
"""What the backend answers with; `answers.py` says what each looks like."""


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Behaviour of the backend. Sizes are bytes or characters as named, durations seconds."""

    seed: str = "simulator"
    """Makes accounts, tokens and signatures; tokens of an earlier run with the same seed stay valid."""
    accounts: int = 3
    """Ready-made accounts: a plus, a free and a team member, then plus again."""
    record: bool = True
    """Keep the requests for the control interface."""
    date_skew: float = 0.0
    """Added to the Date header."""

    stages: Literal["single", "two", "both"] = "both"
    """Which forms of the requirements exchange exist."""
    single_stage_gone: Literal["404", "405", "410", "prepare_token"] = "404"
    """What the single-stage form answers when only two stages exist."""
    proof_required: bool = True
    difficulty: str = "0fffff"
    expire_after: int = 540
    turnstile: Literal["absent", "tolerated", "enforced"] = "tolerated"
    arkose: bool = False
    force_login: bool = False
    persona: str | None = None
    """None derives it from the plan."""
    anonymous: bool = True
    """Whether /backend-anon serves this exit."""
    conduit: Literal["required", "optional", "null"] = "required"
    """What /f/conversation wants of X-Conduit-Token; null also makes prepare answer a null token."""

    rotation: Literal["strict", "overlap", "none"] = "strict"
    rotation_overlap: float = 30.0
    access_token_lifetime: float = 864_000.0
    session_cookie_limit: int = 3_800
    """A session cookie longer than this is set in numbered parts."""

    endpoints: Literal["classic", "f", "both"] = "both"
    endpoint_gone: Literal[404, 405, 410] = 404
    encoding: Literal["auto", "classic", "v1"] = "auto"
    """auto: v1 when the request names it in supported_encodings, else classic."""
    answer: AnswerKind = "text"
    text: str | None = None
    """The answer's text; None composes one from the prompt."""
    events: int | None = None
    """Answer with that many words instead, for load."""
    delay: float = 0.0
    first_delay: float = 0.0
    served_model: str | None = None
    """Slug that really answers; None serves the one asked for."""
    max_prompt: int = 400_000
    """Characters of text in one request, then 413."""
    temporary_lifetime: float = 3_600.0
    continuation: Literal["rest", "whole"] = "rest"
    """Whether a continued message holds the rest only or starts from the beginning."""
    pending_polls: int = 1
    """How often a stored conversation shows an unfinished result before the finished one."""
    pending_index_polls: int = 1
    """How often a file says that its index is not ready."""
    pending_downloads: int = 0
    """How often a picture's download says status retry."""
    resume_offset: int = 1
    """The first offset at which the resume call has something."""
    relative_links: bool = False
    """Give download links relative to the origin."""

    newline: Literal["\n", "\r\n"] = "\n"
    pad: int = 0
    """Length of a `pad` field in delta objects."""
    comments: bool = False
    timestamps: bool = False
    glued: bool = False
    """Glue two JSON documents into one line."""
    trailing_blanks: bool = False
    empty_data: bool = False
    echoes: bool = True
    """Send the system and user messages first."""
    side_events: bool = True
    finish: Literal["together", "late", "absent"] = "together"
    """Where end_turn and finish_details stand: with the status, in an event of their own behind it, or nowhere."""
    early_markers: bool = False
    """Send a message's markers before the message."""
    handoff_options: Literal["list", "object", "absent"] = "list"
    """Shape of `options` in stream_handoff."""
    late_events: bool = False
    """Send more after message_stream_complete."""
    title: Literal["end", "middle", "twice", "absent"] = "end"
    complete: bool = True
    """Send message_stream_complete (v1)."""
    done: Literal["once", "twice", "absent"] = "once"
    split: int | None = None
    """Seed of random cuts of the bytes."""


_HINTS = get_type_hints(SimulatorOptions)
_NAMES = frozenset(field.name for field in fields(SimulatorOptions))


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in get_args(hint))
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def with_settings(options: SimulatorOptions, settings: Mapping[str, JSON]) -> SimulatorOptions:
    """Give the options with some replaced by name.

    Raises ValueError for an unknown name or a value that does not fit.
    """
    for name, value in settings.items():
        if name not in _NAMES:
            raise ValueError(f"no option is called {name!r}")
        if not _fits(value, _HINTS[name]):
            raise ValueError(f"{value!r} does not fit option {name}")
    return replace(options, **settings) if settings else options  # type: ignore[arg-type]  # checked just above
