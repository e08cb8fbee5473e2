"""What a reader shall see of one of the backend's messages.

`recipient: "all"` does not mean visible: tools address instructions to the model, waiting cards in the user's language
and confirmations to all. The choice made here, message by message:

- answer text: an assistant's message to all, outside the channels analysis and commentary;
- reasoning: content type `thoughts`, the channel analysis, messages marked `cot_token`, what a thinking model announces
  before it thinks (`is_thinking_preamble_message`, which may look finished in every way), and the summaries that o1 and
  o3 sent as ordinary text of a tool (told by its code name, or by `initial_text` or `finished_text` in the metadata);
- fenced blocks: the Python that the model ran for the reader, and what it printed. Python run inside the reasoning
  (channels analysis and commentary) is not shown, and neither is its output;
- a canvas document, since it is the answer itself: its text once the call is whole;
- pictures and other files that tools made, unless the tool only looked at them;
- nothing else: calls of browser, web, search, drawing and memory tools and their results, recaps, contexts, echoes.

Facts: published captures of 2022 to 2026.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple

import orjson

from chat2api.protocol.chatgpt.patches import CODE_PATH, TEXT_PATH, Json, Rope, text_of


class Show(Enum):
    """How a message is shown."""

    NOTHING = "nothing"
    TEXT = "text"
    CODE = "code"
    OUTPUT = "output"
    CANVAS = "canvas"
    REASONING = "reasoning"
    THOUGHTS = "thoughts"


HIDDEN_TYPES = frozenset(
    {
        "app_pairing_content",
        "computer_output",
        "developer_content",
        "model_editable_context",
        "reasoning_recap",
        "sonic_webpage",
        "super_widget",
        "system_error",
        "system_message",
        "tether_browsing_code",
        "tether_browsing_display",
        "tether_quote",
        "user_editable_context",
    }
)
"""Content types of which nothing is shown."""

KNOWN_TYPES = HIDDEN_TYPES | {
    "citable_code_output",
    "code",
    "execution_output",
    "image_asset_pointer",
    "multimodal_text",
    "refusal",
    "text",
    "thoughts",
}
"""Content types that this module was written for."""

_INNER_CHANNELS = ("analysis", "commentary")
_LOOKING_TOOLS = ("browser", "computer", "container", "file_search", "myfiles_browser", "web")
_THINKING_TOOL = "a8km123"
"""Code name of the tool whose messages hold the reasoning of o1, o3-mini and the first pro models."""
_POINTERS = ("file-service://", "sediment://")


class FoundFile(NamedTuple):
    """A file that a message holds; `name` is its title or the prompt it was drawn from, or ""."""

    pointer: str
    kind: Literal["image", "file"]
    name: str


def mapping_of(value: Json) -> Mapping[str, Json]:
    """Give the object, or an empty one for what is none."""
    return value if type(value) is dict else {}


def role_of(message: Mapping[str, Json]) -> str:
    """Give the author's role; messages of December 2022 had it beside the author, some of them none at all."""
    author = message.get("author")
    if type(author) is dict and type(role := author.get("role")) is str and role:
        return role
    if "author" not in message and "role" not in message and type(message.get("content")) is dict:
        return "assistant"
    return text_of(mapping_of(author).get("role")) or text_of(message.get("role"))


def classify(message: Mapping[str, Json], *, is_marked_reasoning: bool = False) -> Show:
    """Give how the message is shown; `is_marked_reasoning` says that a marker named it hidden reasoning."""
    metadata = mapping_of(message.get("metadata"))
    content_type = text_of(mapping_of(message.get("content")).get("content_type"))
    channel = text_of(message.get("channel"))
    role = role_of(message)
    if metadata.get("is_visually_hidden_from_conversation") or content_type in HIDDEN_TYPES:
        return Show.NOTHING
    if role == "tool":
        return _classify_tool(message, metadata, content_type, channel)
    if role != "assistant":
        return Show.NOTHING
    if content_type == "thoughts":
        return Show.THOUGHTS
    recipient = text_of(message.get("recipient")) or "all"
    if recipient not in ("all", "user"):
        return _classify_call(recipient, content_type, channel)
    if metadata.get("image_gen_async") or metadata.get("trigger_async_ux"):
        return Show.NOTHING
    if content_type == "code":
        return Show.NOTHING if channel in _INNER_CHANNELS else Show.CODE
    if channel == "analysis" or (channel != "final" and is_marked_reasoning):
        return Show.REASONING
    is_thinking = metadata.get("reasoning_status") == "is_reasoning" or metadata.get("is_thinking_preamble_message")
    if channel != "final" and is_thinking:
        return Show.REASONING
    return Show.NOTHING if channel == "commentary" else Show.TEXT


def _classify_tool(message: Mapping[str, Json], metadata: Mapping[str, Json], content_type: str, channel: str) -> Show:
    name = text_of(mapping_of(message.get("author")).get("name"))
    if content_type == "execution_output":
        is_for_reader = channel not in _INNER_CHANNELS or name == "python_user_visible"
        return Show.OUTPUT if is_for_reader and (not name or name.startswith("python")) else Show.NOTHING
    if content_type == "text" and (name == _THINKING_TOOL or "initial_text" in metadata or "finished_text" in metadata):
        return Show.REASONING
    return Show.NOTHING


def _classify_call(recipient: str, content_type: str, channel: str) -> Show:
    if recipient == "canmore.create_textdoc":
        return Show.CANVAS
    if recipient == "python_user_visible" or (recipient == "python" and channel not in _INNER_CHANNELS):
        return Show.CODE if content_type in ("code", "text") else Show.NOTHING
    return Show.NOTHING


def read_text(show: Show, content: Mapping[str, Json]) -> tuple[str, str | None]:
    """Give the raw text of a message, and the path to which appending makes that text longer at its end.

    The path is None where an append must be followed by reading all anew.
    """
    if show is Show.NOTHING:
        return "", None
    if show is Show.THOUGHTS:
        return _read_thoughts(content)
    parts = content.get("parts")
    if type(parts) is list and len(parts) == 1 and type(parts[0]) in (str, Rope):
        only = str(parts[0])
        if not only.startswith(_POINTERS):
            return only, TEXT_PATH
    if type(parts) is not list:
        return text_of(content.get("text")) or text_of(parts) or text_of(content.get("refusal")), CODE_PATH
    pieces = [(index, text) for index, part in enumerate(parts) if (text := _text_of_part(part)) is not None]
    joined = "\n".join(text for _, text in pieces if text)
    is_last_plain = bool(pieces) and pieces[-1][0] == len(parts) - 1 and type(parts[-1]) is not dict
    may_grow = is_last_plain and (bool(pieces[-1][1]) or not joined)
    return joined, f"/message/content/parts/{pieces[-1][0]}" if may_grow else None


def _text_of_part(part: Json) -> str | None:
    if type(part) is not dict:
        text = str(part) if type(part) in (int, float) else text_of(part)
        return None if text.startswith(_POINTERS) else text
    # What was spoken (`audio_transcription`), say; pictures and recordings have no text of their own.
    return text_of(part.get("text")) or None


def _read_thoughts(content: Mapping[str, Json]) -> tuple[str, str | None]:
    thoughts = content.get("thoughts")
    blocks: list[str] = []
    path: str | None = None
    for index, thought in enumerate(thoughts if type(thoughts) is list else []):
        if type(thought) is not dict:
            continue
        summary, body = text_of(thought.get("summary")), text_of(thought.get("content"))
        if not body and type(thought.get("chunks")) is list:
            body = "".join(text_of(chunk) for chunk in thought["chunks"])
        block = f"{summary}\n{body}" if summary and body else summary or body
        field = "content" if text_of(thought.get("content")) else "summary" if not body else None
        path = f"/message/content/thoughts/{index}/{field}" if block and field else None
        if block:
            blocks.append(block)
    return "\n\n".join(blocks), path


def find_files(message: Mapping[str, Json]) -> list[FoundFile]:
    """Give the files of a finished message: drawn pictures, and the pictures that Python code plotted."""
    metadata, content = mapping_of(message.get("metadata")), mapping_of(message.get("content"))
    role, parts = role_of(message), content.get("parts")
    is_plain = type(parts) is list and dict not in map(type, parts)
    if role == "assistant" and is_plain and "aggregate_result" not in metadata:
        return []
    name = text_of(mapping_of(message.get("author")).get("name"))
    is_looking = role == "tool" and name.startswith(_LOOKING_TOOLS)
    if role not in ("tool", "assistant") or is_looking or message.get("channel") == "analysis":
        return []
    title = text_of(metadata.get("image_gen_title"))
    found: list[FoundFile] = []
    for part in parts if type(parts) is list else []:
        if type(part) is dict:
            pointer = text_of(part.get("asset_pointer"))
            drawn = mapping_of(mapping_of(part.get("metadata")).get("dalle"))
            label = title or " ".join(text_of(drawn.get("prompt")).split())
            is_picture = part.get("content_type") == "image_asset_pointer"
        else:
            pointer, label, is_picture = text_of(part).strip(), title, role == "tool"
        if is_picture and _is_file(pointer):
            found.append(FoundFile(pointer, "image", label))
    results = mapping_of(metadata.get("aggregate_result")).get("messages")
    for result in results if type(results) is list else []:
        pointer = text_of(mapping_of(result).get("image_url"))
        if mapping_of(result).get("message_type") == "image" and _is_file(pointer):
            found.append(FoundFile(pointer, "image", ""))
    return found


def _is_file(pointer: str) -> bool:
    identifier = pointer.partition("://")[2]
    return pointer.startswith(_POINTERS) and identifier not in ("", "file_upload") and " " not in identifier


def fence_language(message: Mapping[str, Json], show: Show) -> str:
    """Give the label of the fenced block in which the message is shown."""
    if show is Show.OUTPUT:
        return "Output"
    language = text_of(mapping_of(message.get("content")).get("language"))
    if language and language != "unknown":
        return language
    return "python" if text_of(message.get("recipient")).startswith("python") else ""


def canvas_text(call: str) -> str:
    """Give the document of a whole `canmore.create_textdoc` call as Markdown; "" when it cannot be read."""
    try:
        document = orjson.loads(call)
    except orjson.JSONDecodeError:
        return ""
    if type(document) is not dict:
        return ""
    text, kind = text_of(document.get("content")), text_of(document.get("type"))
    if text and kind.startswith("code/"):
        return f"```{kind.removeprefix('code/')}\n{text.rstrip()}\n```"
    return text
