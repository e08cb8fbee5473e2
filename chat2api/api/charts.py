"""Charts as numbers: where bars, lines and ticks stand, for a template that draws them as SVG. Pure.

Coordinates are the SVG's own units, `y` from the top. Every mark carries the words that are read out for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 720.0
HEIGHT = 200.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 20.0, 12.0, 30.0

_STEPS = (1.0, 2.0, 5.0, 10.0)
_LABELS = 6


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar, or a point of a line, with what it stands for. `height` is 0 for points."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the chart, or a word under it, at `at` (y, or x)."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to draw. `line` are the points of the line through the marks, as SVG wants them; "" for bars."""

    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    labels: tuple[Tick, ...]
    line: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    base: float = HEIGHT - BOTTOM


def bar_chart(points: Sequence[tuple[str, float]]) -> Chart:
    """Give a chart with one bar for each (label, value); negative values are drawn as nothing."""
    top = ceiling(max((value for _, value in points), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(points))
    gap = min(6.0, step * 0.25)
    marks = []
    for place, (label, value) in enumerate(points):
        height = _length(value, top)
        if value > 0:
            height = max(height, 2.0)  # little is not nothing
        x, y = LEFT + place * step + gap / 2, HEIGHT - BOTTOM - height
        marks.append(Mark(round(x, 2), round(y, 2), round(step - gap, 2), round(height, 2), label, value))
    return Chart(tuple(marks), _ticks(top, points), _labels(points, step, step / 2))


def line_chart(points: Sequence[tuple[str, float]]) -> Chart:
    """Give a chart with a line through each (label, value)."""
    top = ceiling(max((value for _, value in points), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(points) - 1)
    marks = tuple(
        Mark(round(LEFT + place * step, 2), round(HEIGHT - BOTTOM - _length(value, top), 2), 0.0, 0.0, label, value)
        for place, (label, value) in enumerate(points)
    )
    line = " ".join(f"{mark.x:g},{mark.y:g}" for mark in marks)
    return Chart(marks, _ticks(top, points), _labels(points, step, 0), line)


def ceiling(value: float) -> float:
    """Give the least of 1, 2, 5, 10, 20, 50 … that is not below the value."""
    if value <= 1 or not math.isfinite(value):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in _STEPS if step * scale >= value * (1 - 1e-9))


def spell_number(value: float) -> str:
    """Give a number for a narrow place: 950, 1.2k, 3.4M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:g}"


def _length(value: float, top: float) -> float:
    return (HEIGHT - TOP - BOTTOM) * max(0.0, value) / top


def _ticks(top: float, points: Sequence[tuple[str, float]]) -> tuple[Tick, ...]:
    """Give the lines across; where whole things are counted, none stands at half a thing."""
    whole = all(value % 1 == 0 for _, value in points)
    values = (0.0, top) if top == 1 or (whole and top % 2) else (0.0, top / 2, top)
    return tuple(Tick(round(HEIGHT - BOTTOM - _length(value, top), 2), spell_number(value)) for value in values)


def _labels(points: Sequence[tuple[str, float]], step: float, offset: float) -> tuple[Tick, ...]:
    """Give words for some of the points, the last one among them: it is today, or now."""
    every = max(1, math.ceil(len(points) / _LABELS))
    return tuple(
        Tick(round(LEFT + place * step + offset, 2), label)
        for place, (label, _) in enumerate(points)
        if (len(points) - 1 - place) % every == 0
    )
