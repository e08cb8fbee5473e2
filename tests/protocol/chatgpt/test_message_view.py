"""What of a message's next picture is new."""

import pytest

from chat2api.protocol.chatgpt.citations import Sources
from chat2api.protocol.chatgpt.message_view import View, join_surrogates
from chat2api.protocol.chatgpt.patches import Rope
from chat2api.protocol.chatgpt.visibility import Show

LINE = "A sentence that is long enough to be found again."


def told(*pictures: str) -> list[str | None]:
    """Give what is passed on of each picture of a message, one after the other."""
    view = View("m", Sources({}))
    news = []
    for text in pictures:
        news.append(view.find_news(text))
        view.seen = Rope(text)
    return news


@pytest.mark.parametrize(
    ("pictures", "news"),
    [
        (("one", "one two"), ["one", " two"]),
        (("one", "one"), ["one", ""]),
        (("one two", "one", "one two", "one two three"), ["one two", None, "", " three"]),
        (("one two", "one", "one 2"), ["one two", None, " 2"]),
        (("a\nbc", "a\nbd"), ["a\nbc", "\nbd"]),
        ((f"1 {LINE}", f"2 {LINE} More."), [f"1 {LINE}", " More."]),
    ],
)
def test_only_what_is_new_is_passed_on(pictures: tuple[str, ...], news: list[str | None]) -> None:
    assert told(*pictures) == news


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (("\ud83d", "\ude00!"), ["", "\U0001f600!"]),
        (("a\ud83d", "b"), ["a", "\ufffdb"]),
        (("\ude00",), ["\ufffd"]),
        (("plain",), ["plain"]),
    ],
)
def test_halves_of_a_character_are_joined(pieces: tuple[str, ...], joined: list[str]) -> None:
    view = View("m", Sources({}))
    assert [view.join_halves(piece) for piece in pieces] == joined


def test_a_whole_text_has_no_halves() -> None:
    assert join_surrogates("a\ud83d\ude00\ud83d") == "a\U0001f600\ufffd"


@pytest.mark.parametrize(
    ("status", "end_turn", "finish", "is_answered"),
    [
        (None, None, "", False),
        ("in_progress", None, "", False),
        ("finished_successfully", None, "", True),
        ("finished_successfully", False, "", False),
        ("in_progress", True, "", True),
        ("in_progress", False, "max_tokens", True),
        ("in_progress", False, "interrupted", True),
    ],
)
def test_a_message_says_whether_it_is_the_answer(
    status: str | None, end_turn: bool | None, finish: str, is_answered: bool
) -> None:
    view = View("m", Sources({}))
    view.status, view.end_turn, view.finish = status, end_turn, finish
    assert view.is_answered is is_answered


def test_reasoning_never_ends_a_turn() -> None:
    view = View("m", Sources({}))
    view.end_turn = True
    assert view.ends_turn
    view.show = Show.REASONING
    assert not view.ends_turn
