"""What goes wrong, and when: faults, and the rules that lay them on single calls.

A rule names calls (by route, path prefix, method or account), lets `skip` of them pass, acts on the next `times`, and
is used up. It carries a fault, settings that replace options for that call, or both. Rules are looked at in the order
in which they were added; a call takes the first fault and the first settings that fit it.

Where a fault can act (`at`):

    accept          the TCP connection is there, nothing was read, TLS has not begun
    before_headers  the whole request was read, no byte was answered
    mid_headers     about half of the header bytes left
    before_content  the headers left, nothing of the body
    mid_stream      `after` deltas of an event stream left (0: all that comes before the text), `after` texts of a web
                    socket, or half of a plain body

What it does (`do`):

    answer          another status and body (`status`, `body`, `headers`, or one `named` in refusals.py); before_headers
                    only; `truncate` sends that many bytes of it under the whole length, then closes
    stall           nothing, for `seconds` or until the peer leaves; then goes on
    reset           TCP reset of the connection
    close           FIN without the end of the body
    end             a well-formed end of the body (of a web socket: close code 1000), too early
    reset_stream    HTTP/2 RST_STREAM (HTTP/1.1: reset)
    go_away         HTTP/2 GOAWAY and close (HTTP/1.1: close)
    error_event     an event with `message: null` and `error` (text in `body`), then [DONE]
    bytes           sends `body` as it is (characters up to U+00FF as bytes), then goes on
    cut_frame       half of the next frame, then close
    cut_character   the first byte of a two-byte character, then close
    endless_line    a line of `size` bytes without an end, then close
    oversized_event one well-formed side event of `size` bytes, then goes on
    flood           side events, `size` bytes in all, then goes on
    drip            the rest byte by byte, `seconds` apart
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from chat2api.simulator.wire import JSON, Headers, Object, Request

At = Literal["accept", "before_headers", "mid_headers", "before_content", "mid_stream"]
Do = Literal[
    "answer",
    "stall",
    "reset",
    "close",
    "end",
    "reset_stream",
    "go_away",
    "error_event",
    "bytes",
    "cut_frame",
    "cut_character",
    "endless_line",
    "oversized_event",
    "flood",
    "drip",
]
_BEFORE_THE_BODY = frozenset({"stall", "reset", "close", "reset_stream", "go_away"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; the module's docstring explains `at` and `do`."""

    do: Do
    at: At = "before_headers"
    after: int = 0
    seconds: float | None = None
    status: int = 500
    headers: Headers = ()
    body: str = ""
    named: str | None = None
    """Name of a ready-made answer (refusals.py)."""
    values: Mapping[str, JSON] = field(default_factory=dict)
    """What fills a ready-made answer, such as clears_in."""
    truncate: int | None = None
    size: int = 1_048_576
    effect: bool = False
    """Whether the call still does its work (a rotation, a new conversation) when its answer is lost or replaced."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done. Raises ValueError."""
        if self.do not in get_args(Do) or self.at not in get_args(At):
            raise ValueError(f"no fault does {self.do!r} at {self.at!r}")
        if self.do == "answer" and self.at != "before_headers":
            raise ValueError("another answer can only be given before the headers")
        if self.at in ("accept", "before_headers", "mid_headers") and self.do not in (*_BEFORE_THE_BODY, "answer"):
            raise ValueError(f"{self.do!r} needs a body: it cannot act at {self.at!r}")


@dataclass(slots=True)
class Rule:
    """Which calls, and what is laid on them. `times` None never ends. `route` is a name from routes.py."""

    route: str | None = None
    path: str = "/"
    """Prefix of the path."""
    method: str | None = None
    account: str | None = None
    """User id; "anonymous" for calls without a known bearer."""
    skip: int = 0
    times: int | None = 1
    fault: Fault | None = None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    used: int = 0
    """Calls acted on so far."""

    def fits(self, request: Request, route: str, account: str | None) -> bool:
        """Tell whether the call is one of those named, whatever the counts say."""
        return (
            (self.route is None or self.route == route)
            and request.path.startswith(self.path)
            and (self.method is None or self.method == request.method)
            and (self.account is None or self.account == (account or "anonymous"))
        )

    def take(self) -> bool:
        """Count one fitting call and tell whether the rule acts on it."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.used >= self.times:
            return False
        self.used += 1
        return True


@dataclass(slots=True)
class Rules:
    """The rules in force."""

    listed: list[Rule] = field(default_factory=list)

    def add(self, rule: Rule) -> None:
        """Put a rule behind the others."""
        self.listed.append(rule)

    def for_connection(self) -> Fault | None:
        """Take what happens to a new connection; None lets it in."""
        for rule in self.listed:
            if rule.fault is not None and rule.fault.at == "accept" and rule.take():
                return rule.fault
        return None

    def for_call(self, request: Request, route: str, account: str | None) -> tuple[Fault | None, Mapping[str, JSON]]:
        """Take what is laid on this call: at most one fault and one set of settings, also from two rules."""
        fault: Fault | None = None
        settings: Mapping[str, JSON] = {}
        for rule in self.listed:
            if rule.fault is not None and (fault is not None or rule.fault.at == "accept"):
                continue
            if rule.settings and settings:
                continue
            if rule.fits(request, route, account) and rule.take():
                fault = fault or rule.fault
                settings = settings or rule.settings
        return fault, settings


def _check_names(given: Object, kind: type[Fault] | type[Rule]) -> None:
    unknown = set(given) - {item.name for item in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} knows no {', '.join(sorted(unknown))}")


def rule_from_json(value: JSON) -> Rule:
    """Read a rule as the control interface takes it: the fields of Rule, `fault` the fields of Fault.

    `headers` of a fault is an object. Raises ValueError for unknown names and TypeError for unfit values.
    """
    if not isinstance(value, dict):
        raise ValueError("a rule is an object")
    given = dict(value)
    fault = given.pop("fault", None)
    _check_names(given, Rule)
    if fault is None:
        return Rule(**given)  # type: ignore[arg-type]  # names checked; a wrong type shows at first use
    if not isinstance(fault, dict):
        raise ValueError("a fault is an object")
    fault = dict(fault)
    _check_names(fault, Fault)
    headers = fault.pop("headers", {})
    if not isinstance(headers, dict):
        raise ValueError("headers is an object of names and values")
    pairs = tuple((name, str(text)) for name, text in headers.items())
    return Rule(fault=Fault(headers=pairs, **fault), **given)  # type: ignore[arg-type]  # as above
