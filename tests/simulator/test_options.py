"""Tests of replacing options by name."""

import pytest

from chat2api.simulator.options import SimulatorOptions, with_settings
from chat2api.simulator.wire import JSON


def test_options_are_replaced_by_name() -> None:
    changed = with_settings(SimulatorOptions(), {"delay": 1, "events": 5, "text": None, "done": "twice"})
    assert (changed.delay, changed.events, changed.text, changed.done) == (1, 5, None, "twice")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nonsense", 1),
        ("delay", "1"),
        ("delay", True),
        ("events", 1.5),
        ("events", False),
        ("anonymous", 1),
        ("answer", "poem"),
        ("endpoint_gone", 500),
        ("text", ["x"]),
        ("difficulty", None),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: JSON) -> None:
    with pytest.raises(ValueError, match=name):
        with_settings(SimulatorOptions(), {name: value})
