"""What the OpenAPI document says of the website's calls, and of signing in by name."""

from chat2api.protocol.openai.openapi_parts import Schema, array, json_content, nullable, object_of, parameter, ref

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_SUCCESS = object_of({"success": {"const": True}})
_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"}
_FILE_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.#-]{0,199}$"}
_SANDBOX_PATH: Schema = {"type": "string", "pattern": "^/mnt/data/"}
_ACCOUNT = parameter("account", "query", "The label of an account of the pool; for the operator only.", _TEXT)

STATUSES = {
    401: "The token is refused.",
    403: "No token, or the backend refuses the call.",
    404: "There is no such thing, or it is not yours.",
    413: "The message is too long.",
    422: "The request makes no sense.",
    429: "A limit is reached; `Retry-After` tells for how long.",
    500: "The server failed.",
}
"""What each status means to those who speak the website's language."""


def site_paths(prefix: str) -> dict[str, Schema]:
    """Give the paths with their operations, behind that prefix; they are found under /backend-api as well."""
    one = "/conversation/{conversation_id}"
    found = parameter("conversation_id", "path", "The conversation's id.", _ID)
    file = parameter("file", "path", "The file's id.", _FILE_ID)
    hide = _operation("Hide all of your conversations.", ref("SiteHide"), _SUCCESS)
    update = _operation("Rename, hide or archive it.", ref("SiteUpdate"), _SUCCESS, found)
    return {
        prefix + "/conversation": {"post": {"operationId": "createTurn", **_turn()}},
        prefix + "/conversations": {
            "get": {"operationId": "listConversations", **_list()},
            "patch": {"operationId": "hideConversations", **hide},
            "post": {"operationId": "hideConversationsByPost", **hide},
        },
        prefix + one: {
            "get": {
                "operationId": "getConversation",
                **_operation("Give one whole.", None, ref("SiteConversation"), found),
            },
            "patch": {"operationId": "updateConversation", **update},
            "post": {"operationId": "updateConversationByPost", **update},
        },
        prefix + "/conversation/gen_title/{conversation_id}": {
            "post": {
                "operationId": "generateTitle",
                **_operation(
                    "Have it named after a message.", ref("SiteMessageId"), object_of({"title": _TEXT}), found
                ),
            },
        },
        prefix + "/conversation/message_feedback": {
            "post": {
                "operationId": "giveFeedback",
                **_operation("Rate a message.", ref("SiteFeedback"), {"type": "object"}),
            },
        },
        prefix + "/files/{file}/download": {"get": {"operationId": "linkFile", **_link(file)}},
        prefix + "/files/download/{file}": {"get": {"operationId": "linkFileNewer", **_link(file)}},
        prefix + one + "/attachment/{file}/download": {"get": {"operationId": "linkAttachment", **_link(found, file)}},
        prefix + one + "/interpreter/download": {
            "get": {
                "operationId": "linkSandboxFile",
                **_link(
                    found,
                    {**parameter("message_id", "query", "The message it was written for.", _ID), "required": True},
                    {**parameter("sandbox_path", "query", "Where it lies.", _SANDBOX_PATH), "required": True},
                ),
            }
        },
        prefix + "/models": {
            "get": {"operationId": "listSiteModels", **_operation("List the models.", None, ref("SiteModels"))}
        },
        prefix + "/accounts/check": {"get": {"operationId": "checkAccounts", **_accounts()}},
        prefix + "/accounts/check/v4-2023-04-27": {"get": {"operationId": "checkAccountsNewer", **_accounts()}},
        prefix + "/auth/login": {"post": {"operationId": "signIn", **_sign_in()}},
    }


def site_schemas() -> dict[str, Schema]:
    """Give the schemas that those operations refer to."""
    instant = nullable({"type": "string", "format": "date-time"})
    item: dict[str, Schema] = {
        "id": _TEXT,
        "title": {"type": ["string", "null"]},
        "create_time": instant,
        "update_time": instant,
        "is_archived": _FLAG,
    }
    content = object_of({"content_type": _TEXT, "parts": array({"type": ["string", "object"]})}, ("parts",))
    author = object_of({"role": _TEXT, "name": _TEXT}, ())
    message = object_of(
        {"id": _TEXT, "author": author, "content": content, "metadata": {"type": "object"}}, ("content",)
    )
    turn: dict[str, Schema] = {
        "action": {"enum": ["next", "continue", "variant"], "default": "next"},
        "messages": array(message),
        "model": {"type": "string", "default": "auto"},
        "conversation_id": {"type": ["string", "null"], "description": "Empty or absent begins a new conversation."},
        "parent_message_id": {"type": ["string", "null"]},
        "history_and_training_disabled": _FLAG,
        "auto_continue": {
            "type": "boolean",
            "description": "Let an answer that is cut for its length go on by itself.",
        },
    }
    whole: dict[str, Schema] = {
        "title": {"type": ["string", "null"]},
        "mapping": {"type": "object"},
        "current_node": _TEXT,
    }
    feedback: dict[str, Schema] = {
        "conversation_id": _ID,
        "message_id": _ID,
        "rating": {"enum": ["thumbsUp", "thumbsDown"]},
        "text": _TEXT,
        "tags": array(_TEXT),
    }
    count: Schema = {"type": "integer", "minimum": 0}
    return {
        "SiteError": object_of({"errorMessage": _TEXT}),
        "SiteTurn": object_of(turn, ()),
        "SiteList": object_of({"items": array(object_of(item)), "total": count, "limit": count, "offset": count}),
        "SiteConversation": object_of(whole),
        "SiteUpdate": object_of({"title": _TEXT, "is_visible": _FLAG, "is_archived": _FLAG}, ()),
        "SiteHide": object_of({"is_visible": {"const": False}}),
        "SiteMessageId": object_of({"message_id": _ID}),
        "SiteFeedback": object_of(feedback, ("conversation_id", "message_id", "rating")),
        "SiteModels": object_of(
            {"models": array(object_of({"slug": _TEXT})), "categories": array({"type": "object"})}, ("models",)
        ),
        "SiteSignIn": object_of({"username": _TEXT, "password": {"type": "string", "format": "password"}}),
        "SiteToken": object_of({"accessToken": _TEXT, "expires": {"type": "string", "format": "date-time"}}),
    }


def _operation(summary: str, body: Schema | None, answer: Schema, *more: Schema) -> Schema:
    told: Schema = {
        "summary": summary,
        "parameters": [*more, _ACCOUNT],
        "responses": {"200": {"description": "Done.", "content": json_content(answer)}, **_refusals()},
    }
    return told if body is None else told | {"requestBody": {"required": True, "content": json_content(body)}}


def _refusals() -> Schema:
    content = json_content(ref("SiteError"))
    named = {str(status): {"description": text, "content": content} for status, text in STATUSES.items()}
    return {**named, "default": {"description": "Another refusal.", "content": content}}


def _turn() -> Schema:
    told = _operation("Send a turn, and pass the backend's event stream on as it comes.", ref("SiteTurn"), {})
    stream: Schema = {"schema": {"type": "string", "description": "The backend's own events, byte for byte."}}
    answer = {"description": "The stream.", "content": {"text/event-stream": stream}}
    return told | {"responses": {**_refusals(), "200": answer}}


def _list() -> Schema:
    number: Schema = {"type": "integer", "minimum": 0}
    told = _operation("Give a page of your conversations.", None, ref("SiteList"))
    return told | {
        "parameters": [
            parameter("offset", "query", "How many to pass over.", number),
            parameter(
                "limit", "query", "How many to give; 20 by default.", {"type": "integer", "minimum": 1, "maximum": 100}
            ),
            parameter("order", "query", "By which time, the newest first.", {"enum": ["updated", "created"]}),
            parameter("is_archived", "query", "Those that are archived.", {"enum": ["true", "false"]}),
            _ACCOUNT,
        ]
    }


def _link(*parameters: Schema) -> Schema:
    return _operation("Give the link to a file.", None, object_of({"download_url": _TEXT}, ()), *parameters)


def _accounts() -> Schema:
    return _operation("Tell the account's plan.", None, object_of({"accounts": {"type": "object"}}))


def _sign_in() -> Schema:
    told = _operation("Sign in as a local user of this server.", ref("SiteSignIn"), ref("SiteToken"))
    return told | {"parameters": [], "security": []}
