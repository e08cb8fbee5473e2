"""The last turn of a stored conversation, read as if it had been streamed.

Asked for when an answer does not come by the stream: pictures that are made after it ended, and streams that were lost.
`GET /conversation/<id>` gives `mapping`, a tree of nodes in no particular order, and `current_node`, its newest leaf; so
the turn is what lies between that leaf and the user's last message above it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from chat2api.errors import UpstreamError, UpstreamProtocolError
from chat2api.protocol.chatgpt.patches import Json, text_of
from chat2api.protocol.chatgpt.turn import Turn
from chat2api.protocol.chatgpt.visibility import mapping_of, role_of
from chat2api.protocol.events import Event, Failed, Finished

_MAX_NODES = 2000
_WORK_OVER = 4
"""`async_status` of a conversation whose asynchronous work has ended; public clients stop asking there (2026)."""


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """The last turn as it is stored by now.

    `events` are in the order of `protocol/events.py`. While `is_done` is False there is no end among them, and a later
    reading may give more; then ask again. `current_node` is the node that was read from. `is_work_over` says that the
    work which the backend did beside the conversation (a picture, say) has ended, well or not.
    """

    events: tuple[Event, ...]
    is_done: bool
    current_node: str
    is_work_over: bool = False


def read_last_turn(
    conversation: Mapping[str, Json], *, after: str | None = None, unknown: Counter[str] | None = None
) -> StoredTurn:
    """Give the last turn of a stored conversation.

    `after` is the id of the message that the turn answers; None stands for the user's last one. `unknown` counts
    shapes that were not understood. Raises UpstreamProtocolError for an object that is no conversation.
    """
    mapping = conversation.get("mapping")
    if type(mapping) is not dict:
        raise UpstreamProtocolError("The stored conversation has no messages.")
    is_work_over = conversation.get("async_status") == _WORK_OVER
    leaf = text_of(conversation.get("current_node")) or _newest_leaf(mapping)
    turn = Turn(Counter() if unknown is None else unknown)
    turn.facts.conversation_id = text_of(conversation.get("conversation_id")) or text_of(conversation.get("id")) or None
    messages = _messages_of_turn(mapping, leaf, after)
    for message in messages:
        turn.update({"message": message})
    turn.is_closed_well = True
    turn.is_blocked = _is_blocked(conversation, messages)
    try:
        turn.conclude()
    except UpstreamError:
        # Stored unfinished: nothing broke off, there is only no more of it yet.
        return StoredTurn(tuple(turn.take()), False, leaf, is_work_over)
    events = turn.take()
    if isinstance(events[-1], Finished | Failed):
        return StoredTurn(tuple(events), True, leaf, is_work_over)
    return StoredTurn(tuple(events[:-1]), False, leaf, is_work_over)


def _messages_of_turn(mapping: dict[str, Json], leaf: str, after: str | None) -> list[dict[str, Json]]:
    messages: list[dict[str, Json]] = []
    seen: set[str] = set()
    node_id = leaf
    while node_id and node_id != after and node_id not in seen and len(seen) < _MAX_NODES:
        seen.add(node_id)
        node = mapping_of(mapping.get(node_id))
        message = node.get("message")
        if type(message) is dict:
            is_hidden = mapping_of(message.get("metadata")).get("is_visually_hidden_from_conversation")
            if (role_of(message) == "user" and not is_hidden) or text_of(message.get("id")) == after:
                break
            messages.append(message)
        node_id = text_of(node.get("parent"))
    messages.reverse()
    return messages


def _newest_leaf(mapping: dict[str, Json]) -> str:
    def created_at(node_id: str) -> float:
        created = mapping_of(mapping_of(mapping[node_id]).get("message")).get("create_time")
        return created if isinstance(created, float | int) else 0.0

    leaves = [node_id for node_id, node in mapping.items() if not mapping_of(node).get("children")]
    return max(leaves, key=created_at, default="")


def _is_blocked(conversation: Mapping[str, Json], messages: list[dict[str, Json]]) -> bool:
    ids = {text_of(message.get("id")) for message in messages}
    results = conversation.get("moderation_results")
    for result in results if type(results) is list else []:
        facts = mapping_of(result)
        verdict = facts.get("moderation_response") or facts
        if facts.get("message_id") in ids and mapping_of(verdict).get("blocked") is True:
            return True
    return False
