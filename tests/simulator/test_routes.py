"""Tests of finding routes and of reading a call's body."""

import pytest

from chat2api.simulator.accounts import Caller
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.routes import BASE, Call, find_route, route
from chat2api.simulator.wire import Answer, Refusal, Request


def _call(body: bytes, kind: str = "application/json; charset=utf-8") -> Call:
    request = Request("POST", "/", (("content-type", kind),), body, "1.1", "http", 1)
    return Call(request, SimulatorOptions(), {"base": "backend-api"}, 0.0, Caller(None, None, None))


def test_a_route_is_found_by_method_and_whole_path() -> None:
    one = route("one", "GET", BASE + "/a/(?P<id>[a-z]+)", lambda call: Answer(200))
    assert find_route([one], "GET", "/backend-anon/a/x") == (one, {"base": "backend-anon", "id": "x"})
    for method, path in (("POST", "/backend-anon/a/x"), ("GET", "/backend-anon/a/x/y"), ("GET", "/x/backend-anon/a/x")):
        assert find_route([one], method, path) is None


def test_a_body_is_an_object() -> None:
    assert _call(b'{"a":1}').body() == {"a": 1}
    assert _call(b"{}").base == "/backend-api"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [(b"{", "application/json", 400), (b"[]", "application/json", 422), (b"{}", "text/plain", 422)],
)
def test_other_bodies_are_refused(body: bytes, kind: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        _call(body, kind).body()
    assert caught.value.answer.status == status
