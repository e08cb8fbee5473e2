"""Stored conversations: the tree of messages, and the calls that list and change it."""

import copy
import datetime
from collections import deque
from dataclasses import dataclass, field

from chat2api.simulator.accounts import AccountBook
from chat2api.simulator.refusals import refuse, refuse_field
from chat2api.simulator.replies import compose_title
from chat2api.simulator.routes import API, Call, Route, route
from chat2api.simulator.script import Step
from chat2api.simulator.wire import JSON, Answer, Object, json_answer

_MAX_TEMPORARY = 2_000
_MAX_STORED = 10_000
"""Chats kept: enough for any test, and a load run for hours or a demo for months stays small."""
_ID = r"(?P<id>[0-9A-Za-z-]{8,64})"


@dataclass(slots=True)
class Node:
    """One message of the tree; the root has none."""

    id: str
    message: Object | None
    parent: str | None
    children: list[str] = field(default_factory=list)

    def to_json(self) -> Object:
        """Give it as it stands in `mapping`."""
        return {"id": self.id, "message": self.message, "parent": self.parent, "children": list(self.children)}


@dataclass(slots=True)
class Conversation:
    """One chat. `temporary` ones are in no list and cannot be read, only continued until `expires_at`."""

    id: str
    owner: str
    created_at: float
    updated_at: float
    temporary: bool
    expires_at: float
    title: str = "New chat"
    current_node: str = ""
    archived: bool = False
    visible: bool = True
    gizmo_id: str | None = None
    nodes: dict[str, Node] = field(default_factory=dict)
    pending: list[Object] = field(default_factory=list)
    """Messages that replace their unfinished versions after `polls_left` more reads."""
    polls_left: int = 0
    async_status: int | None = None
    resume_token: str | None = None
    resume_steps: list[Step] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What a message cut by max_tokens said, and `unsaid` what it would have said further; for `continue`."""
    unsaid: list[str] = field(default_factory=list)
    feedback: list[Object] = field(default_factory=list)

    def add_message(self, message: Object, parent: str | None) -> None:
        """Hang a message under its parent (or put its newer version in its place) and make it the current one."""
        node_id = str(message["id"])
        if node_id in self.nodes:
            self.nodes[node_id].message = message
        else:
            self.nodes[node_id] = Node(node_id, message, parent)
            if parent in self.nodes:
                self.nodes[parent].children.append(node_id)
        self.current_node = node_id

    def chain(self, node_id: str) -> list[Object]:
        """Give the messages from the root to a node."""
        messages: list[Object] = []
        node = self.nodes.get(node_id)
        while node is not None:
            if node.message is not None:
                messages.append(node.message)
            node = self.nodes.get(node.parent) if node.parent is not None else None
        return messages[::-1]

    def poll(self) -> None:
        """Count one read; the finished result appears after the last unfinished one."""
        if not self.pending:
            return
        if self.polls_left > 0:
            self.polls_left -= 1
            return
        for message in self.pending:
            self.add_message(message, self.current_node)
        self.pending.clear()
        self.async_status = None if self.async_status is None else 4


class History:
    """All conversations of all accounts."""

    def __init__(self, book: AccountBook) -> None:
        """Start empty."""
        self._book = book
        self._conversations: dict[str, Conversation] = {}
        self._temporary: deque[str] = deque()
        self._stored: deque[str] = deque()

    def routes(self) -> list[Route]:
        """Give the operations."""
        one = API + "/conversation/" + _ID
        return [
            route("history_list", "GET", API + "/conversations", self.list_conversations),
            route("history_hide_all", "PATCH", API + "/conversations", self.hide_all),
            route("history_get", "GET", one, self.get_conversation),
            route("history_patch", "PATCH", one, self.patch_conversation),
            route("stream_status", "GET", one + "/stream_status", self.stream_status),
            route("gen_title", "POST", API + "/conversation/gen_title/" + _ID, self.generate_title),
            route("feedback", "POST", API + "/conversation/message_feedback", self.take_feedback),
            route("share_create", "POST", API + "/share/create", self.create_share),
            route("tasks", "GET", API + "/tasks", lambda call: json_answer({"tasks": [], "cursor": None})),
        ]

    def new_conversation(self, call: Call, *, temporary: bool, gizmo_id: str | None) -> Conversation:
        """Start a chat with an empty root."""
        conversation = Conversation(
            id=self._book.random_uuid("conversation"),
            owner=call.caller.key,
            created_at=call.now,
            updated_at=call.now,
            temporary=temporary,
            expires_at=call.now + call.options.temporary_lifetime,
            gizmo_id=gizmo_id,
        )
        root = self._book.random_uuid("root")
        conversation.nodes[root] = Node(root, None, None)
        conversation.current_node = root
        self._conversations[conversation.id] = conversation
        kept, most = (self._temporary, _MAX_TEMPORARY) if temporary else (self._stored, _MAX_STORED)
        kept.append(conversation.id)
        if len(kept) > most:
            self._conversations.pop(kept.popleft(), None)
        return conversation

    def find(self, call: Call, conversation_id: str, *, stored: bool) -> Conversation:
        """Give a conversation of the caller; `stored` leaves temporary ones out. Raises Refusal (404)."""
        conversation = self._conversations.get(conversation_id)
        if conversation is None or not conversation.visible:
            raise refuse("conversation_not_found")
        if conversation.owner != call.caller.key:
            raise refuse("conversation_not_found")
        if conversation.temporary and (stored or conversation.expires_at <= call.now):
            raise refuse("conversation_not_found")
        return conversation

    def list_conversations(self, call: Call) -> Answer:
        """Answer a page of the list, newest first."""
        query = call.request.query
        offset, limit = _number(query.get("offset"), 0), _number(query.get("limit"), 28)
        archived = query.get("is_archived") == "true"
        mine = [
            conversation
            for conversation in self._conversations.values()
            if conversation.owner == call.caller.key
            and conversation.visible
            and not conversation.temporary
            and conversation.archived == archived
        ]
        mine.sort(key=lambda conversation: conversation.updated_at, reverse=True)
        items: list[JSON] = [_summary(conversation) for conversation in mine[offset : offset + limit]]
        return json_answer(
            {
                "items": items,
                "total": len(mine),
                "limit": limit,
                "offset": offset,
                "has_missing_conversations": False,
            }
        )

    def get_conversation(self, call: Call) -> Answer:
        """Answer the whole tree; this counts as one poll of an unfinished result."""
        conversation = self.find(call, call.parts["id"], stored=True)
        conversation.poll()
        mapping: Object = {node.id: copy.deepcopy(node.to_json()) for node in conversation.nodes.values()}
        return json_answer(
            {
                "title": conversation.title,
                "create_time": conversation.created_at,
                "update_time": conversation.updated_at,
                "mapping": mapping,
                "moderation_results": [],
                "current_node": conversation.current_node,
                "conversation_id": conversation.id,
                "is_archived": conversation.archived,
                "safe_urls": [],
                "default_model_slug": "auto",
                "conversation_template_id": conversation.gizmo_id,
                "gizmo_id": conversation.gizmo_id,
                "async_status": conversation.async_status,
            }
        )

    def patch_conversation(self, call: Call) -> Answer:
        """Rename, hide or archive."""
        conversation = self.find(call, call.parts["id"], stored=False)
        body = call.body()
        for name, kind in (("title", str), ("is_visible", bool), ("is_archived", bool)):
            if name in body and not isinstance(body[name], kind):
                raise refuse_field(name, f"Input should be a valid {kind.__name__}", f"{kind.__name__}_type")
        if isinstance(title := body.get("title"), str):
            conversation.title = title
        conversation.visible = bool(body.get("is_visible", conversation.visible))
        conversation.archived = bool(body.get("is_archived", conversation.archived))
        return json_answer({"success": True})

    def hide_all(self, call: Call) -> Answer:
        """Hide every conversation of the caller."""
        if call.body().get("is_visible") is not False:
            raise refuse_field("is_visible", "Input should be false")
        for conversation in self._conversations.values():
            if conversation.owner == call.caller.key and not conversation.temporary:
                conversation.visible = False
        return json_answer({"success": True})

    def generate_title(self, call: Call) -> Answer:
        """Make a title from the first of the user's messages."""
        conversation = self.find(call, call.parts["id"], stored=True)
        if str(call.body().get("message_id")) not in conversation.nodes:
            raise refuse_field("message_id", "Unknown message")
        texts = [text for message in conversation.chain(conversation.current_node) for text in user_texts(message)]
        conversation.title = compose_title(texts[0] if texts else "")
        return json_answer({"title": conversation.title})

    def take_feedback(self, call: Call) -> Answer:
        """Keep a thumb up or down."""
        body = call.body()
        if body.get("rating") not in ("thumbsUp", "thumbsDown"):
            raise refuse_field("rating", "Input should be 'thumbsUp' or 'thumbsDown'", "enum")
        conversation = self.find(call, str(body.get("conversation_id")), stored=True)
        if str(body.get("message_id")) not in conversation.nodes:
            raise refuse_field("message_id", "Unknown message")
        conversation.feedback.append(body)
        return json_answer({"message_id": body["message_id"], "rating": body["rating"]})

    def stream_status(self, call: Call) -> Answer:
        """Tell whether an answer is still being made."""
        conversation = self.find(call, call.parts["id"], stored=True)
        return json_answer({"status": "IS_STREAMING" if conversation.pending else "IDLE"})

    def create_share(self, call: Call) -> Answer:
        """Make a link to a conversation."""
        body = call.body()
        conversation = self.find(call, str(body.get("conversation_id")), stored=True)
        if str(body.get("current_node_id")) not in conversation.nodes:
            raise refuse_field("current_node_id", "Unknown node")
        share_id = self._book.random_uuid("share")
        link = f"{call.request.origin}/share/{share_id}"
        return json_answer({"share_id": share_id, "share_url": link, "title": conversation.title})


def user_texts(message: Object) -> list[str]:
    """Give the text parts of a user's message; nothing for other authors."""
    author, content = message.get("author"), message.get("content")
    if not isinstance(author, dict) or author.get("role") != "user" or not isinstance(content, dict):
        return []
    parts = content.get("parts")
    return [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []


def _summary(conversation: Conversation) -> Object:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "create_time": _iso(conversation.created_at),
        "update_time": _iso(conversation.updated_at),
        "mapping": None,
        "current_node": None,
        "is_archived": conversation.archived,
        "gizmo_id": conversation.gizmo_id,
    }


def _iso(instant: float) -> str:
    return datetime.datetime.fromtimestamp(instant, datetime.UTC).isoformat()


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default
