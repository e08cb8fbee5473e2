"""Charts stay inside their frame and say what they show."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.api.charts import HEIGHT, LEFT, WIDTH, bar_chart, ceiling, line_chart, spell_number

VALUES = st.lists(st.floats(min_value=0, max_value=1e12, allow_nan=False), max_size=60)


@given(VALUES)
def test_every_mark_lies_inside_the_frame_in_order(values: list[float]) -> None:
    points = [(f"day {number}", value) for number, value in enumerate(values)]
    for chart in (bar_chart(points), line_chart(points)):
        assert [mark.value for mark in chart.marks] == values
        places = [mark.x for mark in chart.marks]
        assert places == sorted(places)
        for mark in chart.marks:
            assert LEFT <= mark.x <= mark.x + mark.width <= WIDTH
            assert 0 <= mark.y <= mark.y + mark.height <= HEIGHT
        assert len(chart.labels) <= 7


def test_heights_are_in_proportion_and_nothing_is_flat() -> None:
    marks = bar_chart([("a", 50), ("b", 100), ("c", 0), ("d", 0.001)]).marks
    assert marks[1].height == pytest.approx(2 * marks[0].height, abs=0.02)
    assert marks[2].height == 0
    assert marks[3].height == 2, "little is not nothing"


def test_a_line_goes_through_all_its_points() -> None:
    chart = line_chart([("a", 1), ("b", 2), ("c", 0)])
    assert chart.line == " ".join(f"{mark.x:g},{mark.y:g}" for mark in chart.marks)
    assert chart.marks[1].y < chart.marks[0].y < chart.marks[2].y


def test_an_empty_chart_has_its_ticks() -> None:
    for chart in (bar_chart([]), line_chart([]), bar_chart([("a", 0)])):
        assert [tick.text for tick in chart.ticks] == ["0", "1"]


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (1, 1), (1.5, 2), (2, 2), (3, 5), (7, 10), (10, 10), (11, 20), (99, 100), (1001, 2000), (5e6, 5e6)],
)
def test_the_top_is_a_round_number(value: float, top: float) -> None:
    assert ceiling(value) == top


@given(st.floats(min_value=1, max_value=1e15))
def test_the_top_is_never_below_and_seldom_far_above(value: float) -> None:
    assert value * (1 - 1e-9) <= ceiling(value) <= value * 2.5001


def test_odd_numbers_do_no_harm() -> None:
    assert ceiling(math.inf) == 1
    assert [spell_number(value) for value in (0, 0.5, 999, 1000, 1234, 3.4e6, 2e9)] == [
        "0", "0.5", "999", "1k", "1.23k", "3.4M", "2G",
    ]  # fmt: skip
