"""What a turn has said: in order, set apart, and in as few events as can be."""

from chat2api.protocol.chatgpt.citations import Sources
from chat2api.protocol.chatgpt.message_view import View
from chat2api.protocol.chatgpt.transcript import Facts, Transcript
from chat2api.protocol.chatgpt.visibility import Show
from chat2api.protocol.events import FilePointer, Finished, ReasoningDelta, Started, TextDelta


def view(identifier: str, show: Show = Show.TEXT) -> View:
    made = View(identifier, Sources({}))
    made.show, made.language = show, "python"
    return made


def test_neighbouring_deltas_are_one_and_the_first_event_says_who_begins() -> None:
    facts = Facts("c", "gpt-5")
    transcript = Transcript(facts)
    first = view("m1")
    for piece in ("a", "", "b"):
        transcript.say(first, piece)
    assert transcript.take() == [Started("c", "m1", "gpt-5"), TextDelta("ab")]
    transcript.say(first, "c")
    assert transcript.take() == [TextDelta("c")]
    assert transcript.take() == []


def test_the_servers_word_stands_in_where_no_message_names_its_model() -> None:
    transcript = Transcript(Facts(server_model="auto-5"))
    transcript.end(Finished("stop", None, None, None), None)
    assert transcript.take() == [Started(None, None, "auto-5"), Finished("stop", None, None, None)]


def test_messages_are_set_apart_and_code_stands_in_a_fence() -> None:
    transcript = Transcript(Facts())
    transcript.say(view("m1"), "Look:\n")
    transcript.say(view("m2", Show.CODE), "print(1)")
    transcript.say(view("m3"), "Done.")
    transcript.leave()
    (_, told) = transcript.take()
    assert told == TextDelta("Look:\n\n```python\nprint(1)\n```\n\nDone.")


def test_reasoning_comes_by_itself_in_blocks() -> None:
    transcript = Transcript(Facts())
    for name in ("r1", "r2"):
        transcript.reason(view(name, Show.REASONING), f"{name}.")
    assert not transcript.has_text
    transcript.say(view("m"), "So.")
    assert transcript.take()[1:] == [ReasoningDelta("r1.\n\nr2."), TextDelta("So.")]
    assert transcript.has_reasoned
    assert transcript.has_text


def test_a_file_counts_as_something_said() -> None:
    transcript = Transcript(Facts())
    before = transcript.said
    transcript.point(view("m"), FilePointer("file-1", "image", "", None, "m"))
    assert (transcript.files, transcript.has_text) == (1, True)
    assert transcript.said != before
    transcript.separate()
    transcript.say(view("m2"), "Here.")
    assert transcript.take()[-1] == TextDelta("\n\nHere.")
