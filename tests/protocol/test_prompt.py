"""The neutral request."""

from chat2api.protocol.prompt import Message, TextPart


def test_text_of_a_message_is_all_its_parts() -> None:
    assert Message("user", (TextPart("one"), TextPart(""), TextPart("three"))).text == "one\n\nthree"
    assert Message("assistant", ()).text == ""
