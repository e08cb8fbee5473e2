"""Files in the website's turns and conversations: where they are named, and what may be said of them.

A file is named by its id: in a part of a message as `file-service://<id>` or `sediment://<id>`, in its list of attachments
as it is. Both kinds of ids are given here as they stand, so that two spellings are never one file.
"""

from collections.abc import Iterator, Mapping, Sequence

MAX_FILE_ID = 200

_SCHEMES = ("file-service", "sediment")
_OF_PARTS = ("content_type", "asset_pointer", "size_bytes", "width", "height", "fovea", "format")
_OF_ATTACHMENTS = (
    "id", "library_file_id", "name", "size", "mime_type", "mimeType", "width", "height", "file_token_size",
    "fileTokenSize", "is_big_paste", "source",
)  # fmt: skip
_IDS = ("id", "library_file_id")


def file_of(pointer: object) -> str | None:
    """Give the id of the file that a pointer points to; None for what is no pointer to a file of the backend's."""
    if not isinstance(pointer, str):
        return None
    scheme, _, identifier = pointer.partition("://")
    return identifier if scheme in _SCHEMES and 0 < len(identifier) <= MAX_FILE_ID else None


def plain_part(part: object) -> object:
    """Give a part of a message with no more than is known of parts: a text, or a pointer and what describes it."""
    return part if isinstance(part, str) else _plain(part, _OF_PARTS)


def plain_attachments(attachments: object) -> list[dict[str, object]]:
    """Give a message's attachments with no more than is known of them."""
    return [_plain(one, _OF_ATTACHMENTS) for one in attachments] if isinstance(attachments, list) else []


def named_files(parts: Sequence[object], attachments: object) -> Iterator[object]:
    """Yield what a plain message names as files: ids, and whatever stands in the place of one, which is nobody's file."""
    for part in parts:
        if isinstance(part, dict):
            pointer = part.get("asset_pointer")
            yield file_of(pointer) or pointer
    for attachment in attachments if isinstance(attachments, list) else ():
        if isinstance(attachment, dict):
            yield from (attachment[name] for name in _IDS if attachment.get(name, "") != "")


def held_files(conversation: Mapping[str, object]) -> frozenset[str]:
    """Give the ids of all files in a whole conversation as the backend tells it."""
    mapping = conversation.get("mapping")
    found: set[str] = set()
    for node in mapping.values() if isinstance(mapping, dict) else ():
        message = node.get("message") if isinstance(node, dict) else None
        if not isinstance(message, dict):
            continue
        found.update(_pointed(message.get("content")))
        metadata = message.get("metadata")
        attachments = metadata.get("attachments") if isinstance(metadata, dict) else None
        named = named_files((), attachments)
        found.update(one for one in named if isinstance(one, str) and 0 < len(one) <= MAX_FILE_ID)
    return frozenset(found)


def _pointed(content: object) -> Iterator[str]:
    """Yield the files that a content points to at any depth, which holds the backend's own kinds of parts as well."""
    waiting = [content]
    while waiting:
        match waiting.pop():
            case dict() as value:
                if (file := file_of(value.get("asset_pointer"))) is not None:
                    yield file
                waiting += value.values()
            case list() as value:
                waiting += value


def _plain(value: object, names: Sequence[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        return {}
    return {name: value[name] for name in names if isinstance(value.get(name), str | int | float)}
