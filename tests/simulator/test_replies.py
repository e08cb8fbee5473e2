"""Tests of what the simulated model says."""

import pytest

from chat2api.simulator.replies import NumberedWords, compose_reply, compose_title, cut_words


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Name three rivers.", "Nile, Amazon, Danube."),
        ("please list 2 beautiful cities", "Lisbon, Nairobi."),
        ("Name two colours", "red, blue."),
        ("How many words: the quick brown fox", "There are 4 words in it."),
        ("Count the words in this: one", "There is 1 word in it."),
        ("What is 12 + 30?", "12 + 30 = 42"),
        ("7*6", "7 * 6 = 42"),
        ("5 - 9", "5 - 9 = -4"),
        ("Say: it works", "it works"),
        ("repeat after me: {braces} and \\ too", "{braces} and \\ too"),
    ],
)
def test_the_answer_is_about_the_question(prompt: str, answer: str) -> None:
    assert compose_reply([prompt]) == answer


@pytest.mark.parametrize("prompt", ["", "Hello {there}", "Name ninety rivers", "Name 99 rivers", "Name three ideas"])
def test_anything_else_gets_a_friendly_answer_that_repeats_it(prompt: str) -> None:
    answer = compose_reply([prompt], pictures=2)
    assert "built-in simulator" in answer
    assert f"> {prompt}" in answer
    assert "2 pictures" in answer


def test_earlier_prompts_are_remembered() -> None:
    answer = compose_reply(["I like tea", "And rivers", "What did I say?"])
    assert answer.endswith("1. I like tea\n2. And rivers")


@pytest.mark.parametrize("text", ["", "one", "  two  words ", "a\n\n- b\n", "\n"])
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(cut_words(text)) == text


def test_load_has_as_many_pieces_as_asked_for() -> None:
    words = NumberedWords(1, 4)
    assert list(words) == ["word1 ", "word2 ", "word3 ", "word4 "]
    assert (len(words), words[0], words[-1]) == (4, "word1 ", "word4 ")
    assert list(words[1:-1]) == ["word2 ", "word3 "]
    assert list(words[:2]) + list(words[2:]) == list(words)
    assert list(words[4:]) == list(NumberedWords(1, 0)) == []
    with pytest.raises(IndexError):
        _ = words[4]


def test_titles_are_short() -> None:
    assert compose_title("name three very long rivers and lakes") == "Name three very long rivers"
    assert compose_title("?!") == "New chat"
