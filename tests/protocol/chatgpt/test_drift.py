"""The drift alarm."""

import json
from collections import Counter

import pytest

from chat2api.protocol.chatgpt.drift import UNREADABLE, WINDOW_SECONDS, DriftWatch, is_critical
from tests.protocol.chatgpt.streams import DATA


def watch_after(good: int, drifted: int, shape: str = "delta: odd", *, now: float = 0.0) -> DriftWatch:
    watch = DriftWatch()
    for _ in range(good):
        watch.note({}, now)
    for _ in range(drifted):
        watch.note({shape: 7}, now)
    return watch


@pytest.mark.parametrize(("good", "drifted"), [(0, 0), (1, 0), (99, 1), (990, 10)])
def test_R15_up_to_one_answer_in_a_hundred_is_no_alarm(good: int, drifted: int) -> None:
    assert watch_after(good, drifted).alarm(0.0) == ()


@pytest.mark.parametrize(("good", "drifted"), [(0, 1), (98, 1), (989, 11), (0, 500)])
def test_R15_more_than_one_in_a_hundred_names_the_shape(good: int, drifted: int) -> None:
    assert watch_after(good, drifted).alarm(0.0) == ("delta: odd",)


def test_R15_side_events_are_counted_but_no_alarm() -> None:
    watch = watch_after(0, 50, "type: add-item")
    assert watch.alarm(0.0) == ()
    assert (watch.answers, watch.shapes) == (50, {"type: add-item": 50})


def test_R15_the_alarm_ends_five_minutes_after_the_last_such_answer() -> None:
    watch = watch_after(0, 3)
    assert watch.alarm(WINDOW_SECONDS - 1) == ("delta: odd",)
    assert watch.alarm(WINDOW_SECONDS) == ()
    watch.note({}, WINDOW_SECONDS)
    assert watch.alarm(WINDOW_SECONDS) == ()


def test_R15_the_most_frequent_shape_comes_first_and_an_answer_counts_once() -> None:
    watch = DriftWatch()
    for number in range(30):
        watch.note(
            Counter({"content_type: new": 1, "delta: odd": 90} if number % 3 else {"delta: odd": 1}), float(number)
        )
    assert watch.alarm(30.0) == ("delta: odd", "content_type: new")
    assert watch.shapes == {"delta: odd": 30, "content_type: new": 20}


def test_R14_names_of_shapes_are_bounded() -> None:
    watch = DriftWatch()
    for number in range(1000):
        watch.note({f"object: {number}": 1}, float(number) / 10)
    assert len(watch.shapes) == 101
    assert watch.shapes["others"] == 900
    assert len(watch.alarm(100.0)) == 10


def test_R15_what_cannot_be_decoded_is_critical() -> None:
    assert is_critical(UNREADABLE)


def test_R15_no_recorded_answer_raises_the_alarm_but_that_of_unknown_shapes() -> None:
    """What decoders count in the recorded shapes of 2022 to 2026 stands beside each; test_stream.py checks that."""
    alarmed = []
    for recorded in sorted(DATA.glob("*.json")):
        watch = DriftWatch()
        watch.note(json.loads(recorded.read_text())["unknown"], 0.0)
        if watch.alarm(0.0):
            alarmed.append(recorded.stem)
    assert alarmed == ["2026-07_unknown_shapes"]
