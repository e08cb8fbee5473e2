"""Where turns and conversations name files."""

import pytest

from chat2api.protocol.chatgpt.website_files import (
    MAX_FILE_ID,
    file_of,
    held_files,
    named_files,
    plain_attachments,
    plain_part,
)


@pytest.mark.parametrize(
    ("pointer", "file"),
    [
        ("file-service://file-abc", "file-abc"),
        ("sediment://file_00000000abc", "file_00000000abc"),
        ("sediment://hash#file_1#p_0.png", "hash#file_1#p_0.png"),
        ("sediment://" + "f" * MAX_FILE_ID, "f" * MAX_FILE_ID),
        ("sediment://" + "f" * (MAX_FILE_ID + 1), None),
        ("sediment://", None),
        ("SEDIMENT://file-abc", None),
        (" sediment://file-abc", None),
        ("sandbox:/mnt/data/x.csv", None),
        ("https://files.example.test/file-abc", None),
        ("file-abc", None),
        (5, None),
        (None, None),
        ({"a": 1}, None),
    ],
)
def test_a_pointer_names_one_file_in_one_spelling(pointer: object, file: str | None) -> None:
    assert file_of(pointer) == file


def test_a_plain_part_is_a_text_or_a_pointer() -> None:
    part = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://f-1", "width": 3, "x": 1, "height": [2]}
    assert plain_part("text") == "text"
    assert plain_part(part) == {k: part[k] for k in ("content_type", "asset_pointer", "width")}
    assert plain_part(["text"]) == plain_part(None) == plain_part(5) == {}


def test_plain_attachments_are_what_front_ends_send() -> None:
    attachment = {"id": "f-1", "size": 3, "name": "a.txt", "mime_type": "text/plain", "mimeType": "text/plain"}
    assert plain_attachments([attachment, {**attachment, "url": "https://x.test", "id": ["f-2"]}, "odd"]) == [
        attachment,
        {name: value for name, value in attachment.items() if name != "id"},
        {},
    ]
    assert plain_attachments({"id": "f-1"}) == plain_attachments(None) == []


def test_all_that_stands_in_the_place_of_a_file_is_told() -> None:
    parts = [
        "text",
        {"asset_pointer": "sediment://f-1"},
        {"asset_pointer": "https://x.test/f"},
        {"asset_pointer": 5},
        {},
    ]
    attachments = [{"id": "f-2", "library_file_id": "lib-2"}, {"id": 7}, {"name": "a"}, {"library_file_id": ""}, "odd"]
    named = list(named_files(parts, attachments))
    assert named == ["f-1", "https://x.test/f", 5, None, "f-2", "lib-2", 7]
    assert list(named_files([], {"id": "f-1"})) == []


def test_a_conversation_holds_what_its_messages_show_and_attach() -> None:
    deep = {"content_type": "odd", "frames": [{"asset_pointer": "sediment://f-3"}], "audio": {"asset_pointer": "f-9"}}
    conversation = {
        "mapping": {
            "a": {"message": None},
            "b": {"message": {"content": {"parts": ["sediment://f-8", {"asset_pointer": "file-service://f-1"}]}}},
            "c": {"message": {"content": {"parts": [deep]}, "metadata": {"attachments": [{"id": "f-4"}, {"id": 5}]}}},
            "d": {"message": {"content": "odd", "metadata": []}},
            "e": {
                "message": {"metadata": {"attachments": [{"id": "f-5", "library_file_id": "lib-5"}, {"id": "x" * 999}]}}
            },
            "f": "odd",
        }
    }
    assert held_files(conversation) == {"f-1", "f-3", "f-4", "f-5", "lib-5"}
    assert held_files({}) == held_files({"mapping": []}) == frozenset()


def test_what_a_text_says_is_no_file() -> None:
    text = '{"asset_pointer": "sediment://f-1"}'
    conversation = {"mapping": {"a": {"message": {"content": {"content_type": "text", "parts": [text]}}}}}
    assert held_files(conversation) == frozenset()
