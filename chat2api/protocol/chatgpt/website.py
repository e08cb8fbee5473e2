"""The website's own calls beside the turns: what of a path, a query and a body may go on to the backend (S6).

Everything here is an allow-list. A call is named by us, its path is made of that name and of ids that are checked and
encoded, and a body consists of fields that are known. The turns are read by `website_turns`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlencode

from chat2api.errors import InvalidRequestError
from chat2api.protocol.chatgpt.request import Body

CallName = Literal[
    "conversations", "conversation", "gen_title", "update", "hide_all", "message_feedback", "models", "accounts_check", "file"
]  # fmt: skip

MAX_LIMIT = 100
"""Conversations on one page of the list."""
DEFAULT_LIMIT = 20
MAX_TITLE = 500
MAX_ID = 128

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_ID - 1}}}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.#-]{0,199}")
_SANDBOX = "/mnt/data/"
_RATINGS = ("thumbsUp", "thumbsDown")
_ORDERS = ("updated", "created")


@dataclass(frozen=True, slots=True)
class SiteCall:
    """One call beside the turns: its path below the backend's base, that path's template, and its body."""

    name: CallName
    method: Literal["GET", "POST", "PATCH"]
    path: str
    route: str
    body: Body | None = field(default=None, repr=False)
    conversation_id: str | None = None
    file: str | None = None
    """The file that it is about."""

    @property
    def hides(self) -> bool:
        """Whether it takes a conversation out of the list for good."""
        return self.name == "update" and self.body is not None and self.body.get("is_visible") is False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list of conversations."""

    offset: int = 0
    limit: int = DEFAULT_LIMIT
    order: str = "updated"
    archived: bool = False


def read_page(query: Mapping[str, str]) -> Page:
    """Give the page that a query asks for; unknown parameters mean nothing. Raises InvalidRequestError with `param`."""
    order = query.get("order", _ORDERS[0])
    if order not in _ORDERS:
        raise wrong("order", f"one of {', '.join(_ORDERS)}")
    return Page(
        offset=_read_number(query, "offset", 0, 0, 1_000_000),
        limit=_read_number(query, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
        order=order,
        archived=query.get("is_archived", "").lower() == "true",
    )


def page_call(page: Page) -> SiteCall:
    """Give the call for a page."""
    query = {"offset": page.offset, "limit": page.limit, "order": page.order}
    if page.archived:
        query["is_archived"] = "true"
    return SiteCall("conversations", "GET", f"/conversations?{urlencode(query)}", "/conversations")


def read_call(conversation_id: str) -> SiteCall:
    """Give the call for a whole conversation."""
    return _about("conversation", "GET", "", conversation_id)


def title_call(conversation_id: str, body: object) -> SiteCall:
    """Give the call that has the backend name a conversation after a message."""
    said = _object(body)
    message_id = read_id(said, "message_id")
    if message_id is None:
        raise wrong("message_id", "the id of a message")
    sent: Body = {"message_id": message_id}
    if isinstance(model := said.get("model"), str) and model:
        sent["model"] = model[:MAX_ID]
    return _about("gen_title", "POST", "/gen_title", conversation_id, sent)


def update_call(conversation_id: str, body: object) -> SiteCall:
    """Give the call that renames, hides or archives a conversation."""
    said = _object(body)
    sent: Body = {}
    title = said.get("title")
    if title is not None and title != "":
        if not isinstance(title, str) or len(title) > MAX_TITLE:
            raise wrong("title", f"at most {MAX_TITLE} characters")
        sent["title"] = title
    for name in ("is_visible", "is_archived"):
        value = said.get(name)
        if value is not None:
            if not isinstance(value, bool):
                raise wrong(name, "true or false")
            sent[name] = value
    if not sent:
        raise wrong("title", "a title, is_visible or is_archived")
    return _about("update", "PATCH", "", conversation_id, sent)


def hide_call(conversation_id: str) -> SiteCall:
    """Give the call that hides one conversation."""
    return update_call(conversation_id, {"is_visible": False})


def hide_all_call(body: object) -> SiteCall:
    """Give the call that hides all conversations of an account."""
    if _object(body).get("is_visible") is not False:
        raise wrong("is_visible", "false")
    return SiteCall("hide_all", "PATCH", "/conversations", "/conversations", {"is_visible": False})


def feedback_call(body: object) -> SiteCall:
    """Give the call that rates a message."""
    said = _object(body)
    sent: Body = {}
    for name in ("conversation_id", "message_id"):
        identifier = read_id(said, name)
        if identifier is None:
            raise wrong(name, "an id")
        sent[name] = identifier
    if said.get("rating") not in _RATINGS:
        raise wrong("rating", f"one of {', '.join(_RATINGS)}")
    sent["rating"] = said["rating"]
    for name, kind in (("text", str), ("tags", list)):
        if isinstance(value := said.get(name), kind):
            sent[name] = value
    path = "/conversation/message_feedback"
    return SiteCall("message_feedback", "POST", path, path, sent, str(sent["conversation_id"]))


def file_call(file: str) -> SiteCall:
    """Give the call for the link to a file."""
    return SiteCall("file", "GET", f"/files/{_file_id(file)}/download", "/files/{file}/download", file=file)


def attachment_call(conversation_id: str, file: str) -> SiteCall:
    """Give the call for the link to a file of a conversation."""
    part = f"/attachment/{_file_id(file)}/download"
    return _within(conversation_id, part, "/attachment/{file}/download", file)


def sandbox_call(conversation_id: str, query: Mapping[str, str]) -> SiteCall:
    """Give the call for the link to a file that the interpreter wrote for a message."""
    message_id, path = read_id(query, "message_id"), query.get("sandbox_path", "")
    if message_id is None:
        raise wrong("message_id", "the id of a message")
    if not path.startswith(_SANDBOX) or not path.isprintable() or len(path) > MAX_TITLE:
        raise wrong("sandbox_path", f"a path below {_SANDBOX}")
    asked = urlencode({"message_id": message_id, "sandbox_path": path})
    return _within(conversation_id, f"/interpreter/download?{asked}", "/interpreter/download")


def models_call() -> SiteCall:
    """Give the call for the models."""
    return SiteCall("models", "GET", "/models?history_and_training_disabled=false", "/models")


def accounts_call() -> SiteCall:
    """Give the call for the user's accounts."""
    path = "/accounts/check/v4-2023-04-27"
    return SiteCall("accounts_check", "GET", path, path)


def _about(
    name: CallName, method: Literal["GET", "POST", "PATCH"], part: str, conversation_id: str, body: Body | None = None
) -> SiteCall:
    path = f"/conversation{part}/{_conversation_id(conversation_id)}"
    return SiteCall(name, method, path, f"/conversation{part}/{{conversation_id}}", body, conversation_id)


def _within(conversation_id: str, part: str, route: str, file: str | None = None) -> SiteCall:
    path, route = (
        f"/conversation/{_conversation_id(conversation_id)}{part}",
        f"/conversation/{{conversation_id}}{route}",
    )
    return SiteCall("file", "GET", path, route, None, conversation_id, file)


def _conversation_id(conversation_id: str) -> str:
    """Give the id as it stands in a path."""
    if not _ID.fullmatch(conversation_id):
        raise wrong("conversation_id", "the id of a conversation")
    return quote(conversation_id, safe="")


def _file_id(file: str) -> str:
    """Give the id as it stands in a path."""
    if not _FILE.fullmatch(file):
        raise wrong("file", "the id of a file")
    return quote(file, safe="")


def summary_of(conversation_id: str, conversation: Mapping[str, object]) -> Body:
    """Give the list's item for a whole conversation, which tells instants as numbers where the list has texts."""
    return {
        "id": conversation_id,
        "title": conversation.get("title"),
        "create_time": _iso(conversation.get("create_time")),
        "update_time": _iso(conversation.get("update_time")),
        "mapping": None,
        "current_node": None,
        "is_archived": conversation.get("is_archived") is True,
        "gizmo_id": conversation.get("gizmo_id"),
    }


def _iso(instant: object) -> str | None:
    if isinstance(instant, bool) or not isinstance(instant, int | float):
        return instant if isinstance(instant, str) else None
    return datetime.fromtimestamp(instant, UTC).isoformat()


# ---- what is told of accounts to people who share them ----


def shown_models(answer: Mapping[str, object], may_use: Callable[[str], bool]) -> Body:
    """Give a listing of models with those only that may be used, by their slugs."""
    models = answer.get("models")
    listed = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    return {**answer, "models": [model for model in listed if may_use(str(model.get("slug")))]}


_ACCOUNT_FIELDS = ("plan_type", "structure", "is_deactivated", "account_user_role")
_ENTITLEMENT_FIELDS = ("has_active_subscription", "subscription_plan", "expires_at")


def shared_accounts(answer: Mapping[str, object], account_id: str | None) -> Body:
    """Give what somebody may know of the account that serves them: its plan and abilities, and nobody's ids or names.

    `account_id` is the workspace that is used, None for the first.
    """
    listed = answer.get("accounts")
    accounts = listed if isinstance(listed, dict) else {}
    ordering = answer.get("account_ordering")
    names = [account_id, "default", *(ordering if isinstance(ordering, list) else []), *accounts]
    entry: Mapping[str, object] = next(
        (accounts[name] for name in names if isinstance(name, str) and isinstance(accounts.get(name), dict)), {}
    )
    shown: Body = {
        "account": {"account_id": "default", "name": None, **picked(entry.get("account"), _ACCOUNT_FIELDS)},
        "features": entry.get("features") or [],
        "entitlement": picked(entry.get("entitlement"), _ENTITLEMENT_FIELDS),
    }
    return {"accounts": {"default": shown}, "account_ordering": ["default"]}


# ---- reading ----


def picked(value: object, names: Collection[str]) -> Body:
    """Give the named fields of an object, as far as it has them; nothing of what is no object."""
    return {name: value[name] for name in names if name in value} if isinstance(value, dict) else {}


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return value


def read_id(said: Mapping[str, object], name: str, param: str | None = None) -> str | None:
    """Give an id; None where there is none, which an empty one says as well."""
    value = said.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise wrong(param or name, "an id")
    return value


def _read_number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, "")
    if text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise wrong(name, f"a number from {least} to {most}")
    return int(text)


def wrong(param: str, expected: str) -> InvalidRequestError:
    """Give the error for a field that is not what it must be."""
    return InvalidRequestError(f"Invalid value for '{param}': expected {expected}.", param=param, code="invalid_value")
