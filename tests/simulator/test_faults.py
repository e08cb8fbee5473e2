"""Tests of rules: which calls they take, how often, and how they are read from JSON."""

from typing import Any

import pytest

from chat2api.simulator.faults import Fault, Rule, Rules, rule_from_json
from chat2api.simulator.wire import Request


def _request(path: str = "/backend-api/conversation", method: str = "POST") -> Request:
    return Request(method, path, (), b"", "1.1", "http", 1)


def test_a_rule_lets_some_pass_acts_and_is_used_up() -> None:
    rules = Rules()
    rules.add(Rule(skip=2, times=2, fault=Fault("reset")))
    taken = [rules.for_call(_request(), "conversation", None)[0] is not None for _ in range(6)]
    assert taken == [False, False, True, True, False, False]


def test_a_call_takes_the_first_fault_and_the_first_settings() -> None:
    rules = Rules()
    reset, close = Fault("reset"), Fault("close")
    rules.add(Rule(fault=reset))
    rules.add(Rule(settings={"delay": 1}))
    rules.add(Rule(times=None, fault=close))
    rules.add(Rule(fault=close, settings={"delay": 2}))
    taken = [rules.for_call(_request(), "conversation", None) for _ in range(3)]
    assert taken == [(reset, {"delay": 1}), (close, {}), (close, {})]


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(), True),
        (Rule(route="conversation"), True),
        (Rule(route="me"), False),
        (Rule(path="/backend-api/conv"), True),
        (Rule(path="/backend-anon"), False),
        (Rule(method="POST"), True),
        (Rule(method="GET"), False),
        (Rule(account="user-1"), True),
        (Rule(account="anonymous"), False),
    ],
)
def test_a_rule_names_calls(rule: Rule, fits: bool) -> None:
    assert rule.fits(_request(), "conversation", "user-1") is fits


def test_callers_without_a_bearer_are_called_anonymous() -> None:
    assert Rule(account="anonymous").fits(_request(), "conversation", None)


def test_faults_at_accept_are_for_connections_only() -> None:
    rules = Rules()
    rules.add(Rule(fault=Fault("stall", at="accept")))
    assert rules.for_call(_request(), "conversation", None) == (None, {})
    assert rules.for_connection() == Fault("stall", at="accept")
    assert rules.for_connection() is None


@pytest.mark.parametrize(
    ("do", "at"),
    [
        ("answer", "mid_stream"),
        ("end", "before_headers"),
        ("flood", "accept"),
        ("cut_frame", "mid_headers"),
        ("x", "accept"),
    ],
)
def test_what_cannot_be_done_there_is_refused(do: Any, at: Any) -> None:
    with pytest.raises(ValueError, match=r"headers|body|no fault"):
        Fault(do, at=at)


def test_a_rule_is_read_from_json() -> None:
    rule = rule_from_json(
        {
            "route": "conversation",
            "times": None,
            "settings": {"delay": 1},
            "fault": {"do": "answer", "status": 429, "headers": {"retry-after": 7}, "body": "x"},
        }
    )
    assert rule.times is None
    assert rule.fault == Fault("answer", status=429, headers=(("retry-after", "7"),), body="x")


@pytest.mark.parametrize(
    "value", [[], {"rout": 1}, {"fault": {"dos": "x"}}, {"fault": "x"}, {"fault": {"do": "explode"}}]
)
def test_a_malformed_rule_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"rule|knows|fault"):
        rule_from_json(value)
