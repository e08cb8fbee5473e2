"""The figures that the long runs measure, told at the end whether they pass or not."""

from collections.abc import Callable

import pytest

Note = Callable[[str], None]
"""Takes a line for the end of the run."""

_FIGURE = "figure"


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Give what takes a figure of this test."""
    # A test's properties come with its report, from other processes too.
    return lambda line: request.node.user_properties.append((_FIGURE, f"{request.node.name}: {line}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    reports = [report for told in terminalreporter.stats.values() for report in told]
    lines = [
        str(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == _FIGURE
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
