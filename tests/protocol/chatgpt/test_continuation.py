"""What a continued message repeats is not told twice."""

import pytest

from chat2api.protocol.chatgpt.citations import Sources
from chat2api.protocol.chatgpt.continuation import Continuation
from chat2api.protocol.chatgpt.message_view import View

TOLD = "One two"


@pytest.mark.parametrize(
    ("pieces", "news", "rest"),
    [
        (["One two three"], [" three"], ""),
        (["One", " two", " three"], ["", "", " three"], ""),
        (["One two"], [""], ""),
        ([" three", " four"], [" three", " four"], ""),
        (["One", "-eyed"], ["", "One-eyed"], ""),
        (["One t", "three"], ["", "One tthree"], ""),
        (["One"], [""], "One"),
        ([], [], ""),
    ],
)
def test_only_what_lies_beyond_the_repetition_is_new(pieces: list[str], news: list[str], rest: str) -> None:
    continuation, view = Continuation(TOLD), View("m", Sources({}))

    assert [continuation.read(view, piece) if continuation.is_open else piece for piece in pieces] == news
    assert continuation.close() == rest
    assert not continuation.is_open


def test_the_whole_text_begins_with_what_was_told() -> None:
    assert Continuation(TOLD).whole("One two three") == "One two three"
    assert Continuation(TOLD).whole(" three") == "One two three"
    assert Continuation("").whole("One") == "One"
    assert not Continuation("").is_open


def test_positions_count_from_the_beginning_of_the_message() -> None:
    continuation, view = Continuation(TOLD), View("m", Sources({}))
    view.sources.metadata = {"citations": [{"start_ix": 10, "metadata": {"url": "https://a.example/", "title": "A"}}]}

    news = continuation.read(view, "One two or【1†source】")

    assert view.rewriter.feed(news) == [" or", " ([A](https://a.example/))"]
