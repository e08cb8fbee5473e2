"""How a path finds its handler, and what a handler is given."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chat2api.simulator.accounts import Caller
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.refusals import refuse_field, refuse_text
from chat2api.simulator.wire import Object, Reply, Request

BASE = r"/(?P<base>backend-api|backend-anon)"
API = r"/(?P<base>backend-api)"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, ready for its handler: options with the rule's settings, path parts, time, and who calls."""

    request: Request
    options: SimulatorOptions
    parts: dict[str, str]
    now: float
    caller: Caller

    @property
    def base(self) -> str:
        """`/backend-api` or `/backend-anon`."""
        return "/" + self.parts["base"]

    def body(self) -> Object:
        """Give the body, a JSON object. Raises Refusal (400, 422)."""
        if not (self.request.header("content-type") or "").startswith("application/json"):
            raise refuse_field("", "Input should be a valid dictionary", "model_attributes_type")
        try:
            parsed = self.request.json()
        except ValueError as error:
            raise refuse_text(400, "There was an error parsing the body") from error
        if not isinstance(parsed, dict):
            raise refuse_field("", "Input should be a valid dictionary", "model_attributes_type")
        return parsed


Handler: TypeAlias = Callable[[Call], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `access` says who may call: anybody, accounts only, or anonymous users too under /backend-anon."""

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler
    access: Literal["open", "account", "anybody"]


def route(
    name: str, method: str, pattern: str, handler: Handler, access: Literal["open", "account", "anybody"] = "account"
) -> Route:
    """Make a route; the pattern is a regular expression for the whole path."""
    return Route(name, method, re.compile(pattern), handler, access)


def find_route(routes: Sequence[Route], method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """Give the route of a request and the named parts of its path; None when there is none."""
    for candidate in routes:
        if candidate.method == method and (match := candidate.pattern.fullmatch(path)) is not None:
            return candidate, match.groupdict()
    return None
