"""What the OpenAPI document says of the operator's routes: issued keys and invitations under /keys, local users
under /users, accounts under /tokens.

They are this server's own, so every word in them is written out here; tests hold it to what the routes take and send.
"""

from chat2api.protocol.openai.openapi_parts import (
    Schema,
    array,
    errors,
    json_content,
    nullable,
    object_of,
    parameter,
    ref,
)

LIMITS = (
    "requests_per_minute",
    "tokens_per_minute",
    "requests_at_once",
    "requests_per_day",
    "tokens_per_day",
    "requests_total",
    "tokens_total",
)
SCOPES = ("models", "accounts", "groups")
STATES = ("ok", "needs_sign_in", "disabled", "suspect", "in_doubt", "cooling")
SORTS = ("added", "label", "state", "plan", "email", "kind", "note", "expires", "last_used", "last_error", "in_flight")
ACTIONS = ("test", "refresh", "disable", "enable", "delete")
KEY_STATES = ("active", "expired", "revoked")
KEY_SORTS = ("created", "name", "expires", "today", "total", "last")
USER_SORTS = ("created", "name", "expires")
KINDS = ("refresh", "session", "access", "share", "device")

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_PASSWORD: Schema = {"type": "string", "minLength": 10, "maxLength": 1024}
_INSTANT: Schema = {"type": "number", "description": "Seconds since 1970."}
_SUCCESS: dict[str, Schema] = {"status": {"const": "success"}, "tokens_count": _WHOLE}


def operator_paths(prefix: str) -> dict[str, Schema]:
    """Give the paths with their operations, behind that prefix."""
    paths: dict[str, Schema] = {}
    for method, path, operation in (*_keys(), *_invitations(), *_users(), *_imports(), *_accounts(), *_rest()):
        paths.setdefault(prefix + path, {})[method] = operation
    return paths


def operator_schemas() -> dict[str, Schema]:
    """Give the schemas that those operations refer to."""
    count = nullable(_NUMBER)
    facts: dict[str, Schema] = {
        "id": _TEXT,
        "object": {"const": "account"},
        "label": {"type": "string", "description": "What pages and logs call it; never a token."},
        "kind": {"enum": list(KINDS)},
        "email": {"type": ["string", "null"], "description": "Masked."},
        "plan": {"type": ["string", "null"]},
        "workspace_id": {"type": ["string", "null"]},
        "note": _TEXT,
        "groups": array(_TEXT),
        "models": array(_TEXT),
        "capabilities": array(_TEXT),
        "added_at": _INSTANT,
        "expires_at": nullable(_INSTANT),
        "enabled": _FLAG,
    }
    wait = {"model": _TEXT, "seconds": _NUMBER, "until_at": _INSTANT, "stated": _FLAG, "reason": _TEXT}
    account = facts | {
        "state": {"enum": list(STATES)},
        "reason": {"type": ["string", "null"]},
        "advice": _TEXT,
        "until_at": nullable(_INSTANT),
        "waits": array(object_of(wait)),
        "in_flight": _WHOLE,
        "last_used_at": nullable(_INSTANT),
        "last_error": {"type": ["string", "null"]},
        "last_error_at": nullable(_INSTANT),
        "last_error_advice": _TEXT,
    }
    job: dict[str, Schema] = {
        "object": {"const": "job"},
        "id": _TEXT,
        "kind": _TEXT,
        "state": {"enum": ["running", "done", "failed", "cancelled"]},
        "total": _WHOLE,
        "done": _WHOLE,
        "failed": _WHOLE,
        "started_at": _INSTANT,
        "ended_at": nullable(_INSTANT),
        "error": {"type": ["string", "null"]},
    }
    finding: dict[str, Schema] = {"ok": _FLAG, "text": _TEXT, "advice": _TEXT}
    entry: dict[str, Schema] = {
        "line": _WHOLE,
        "verdict": {"enum": ["new", "known", "expired", "unreadable"]},
        "text": _TEXT,
        "kind": {"enum": [*KINDS, None]},
        **{name: {"type": ["string", "null"]} for name in ("label", "email", "plan", "workspace_id")},
        "expires_at": count,
    }
    return {
        "KeyFields": object_of(_key_properties(), ()),
        "Key": _key(),
        "Invitation": _invitation(),
        "NewInvitation": _invitation({"url": {"type": "string", "description": "The link, in this answer alone."}}),
        "NewKey": _key({"key": {"type": "string", "description": "The key itself, in this answer alone."}}, left=False),
        "User": _user(),
        "Account": object_of(account),
        "DeletedAccount": object_of(facts | {"deleted_at": _INSTANT}),
        "ImportEntry": object_of(entry),
        "Saved": _saved(),
        "Job": object_of(job),
        "JobWithItems": object_of(job | {"items": array(object_of({"name": _TEXT, "ok": _FLAG, "text": _TEXT}))}),
        "AccountResult": object_of({"account": ref("Account"), "result": object_of(finding)}, ("account",)),
        "CheckResult": object_of({"check": _TEXT, "subject": _TEXT, **finding}),
    }


def _names_or(word: str) -> Schema:
    return {"anyOf": [array(_TEXT), {"const": word}]}


def _number_or(word: str) -> Schema:
    return {"anyOf": [{"type": "integer", "minimum": 1}, {"const": word}]}


def _key_properties() -> dict[str, Schema]:
    return {
        "name": {"type": "string", "maxLength": 100},
        "note": {"type": "string", "maxLength": 1000},
        "expires_in_days": {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 36500}, {"const": "never"}]},
        "tier": {"type": "string", "maxLength": 32, "description": "A tier's name, or `none`."},
        **{name: _names_or("all") for name in SCOPES},
        **{name: _number_or("unlimited") for name in LIMITS},
    }


def _key(more: dict[str, Schema] | None = None, *, left: bool = True) -> Schema:
    room: dict[str, Schema] = {
        "name": {"enum": list(LIMITS)},
        "limit": _WHOLE,
        "used": _WHOLE,
        "remaining": _WHOLE,
        "resets_in": nullable(_NUMBER),
    }
    fields: dict[str, Schema] = {
        "id": _TEXT,
        "object": {"const": "key"},
        "name": _TEXT,
        "note": _TEXT,
        "shown": {"type": "string", "description": "Its first characters."},
        "state": {"enum": ["active", "revoked", "expired"]},
        "created_at": _INSTANT,
        "expires_at": {"anyOf": [_INSTANT, {"const": "never"}]},
        "revoked_at": nullable(_INSTANT),
        "rotated_at": nullable(_INSTANT),
        "old_key_until_at": nullable(_INSTANT),
        "tier": _TEXT,
        **{name: _names_or("all") for name in SCOPES},
        "limits": object_of({name: _number_or("unlimited") for name in LIMITS}),
        "unknown": {**array(_TEXT), "description": "Accounts and groups among these that are not there now."},
        **({"left": array(object_of(room))} if left else {}),
    }
    return object_of(fields | (more or {}))


def _saved() -> Schema:
    outcome: Schema = {"enum": ["added", "merged", "unchanged"]}
    return object_of(
        {
            **_SUCCESS,
            **dict.fromkeys(("added", "merged", "unchanged", "expired"), _WHOLE),
            "problems": array(object_of({"line": _WHOLE, "message": _TEXT})),
            "accounts": array(object_of({"id": _TEXT, "label": _TEXT, "outcome": outcome})),
        }
    )


Operation = tuple[str, str, Schema]
"""Method, path and description."""


def _operation(
    method: str,
    path: str,
    name: str,
    summary: str,
    answers: dict[str, Schema],
    *,
    takes: Schema | None = None,
    query: tuple[Schema, ...] = (),
    stream: Schema | None = None,
) -> Operation:
    """Give an operation. Whatever stands in braces in the path is a parameter, and something that may not be there.

    `stream` describes the event stream that may be had in place of JSON.
    """
    events: Schema = {"text/event-stream": {"schema": stream}} if stream is not None else {}
    inner = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    responses: Schema = {
        status: {"description": "What came of it.", "content": json_content(schema) | events}
        for status, schema in answers.items()
    }
    responses |= errors(400, 401, 403, *((404,) if inner else ()), 413, 415, 429, 500, 503)
    told: Schema = {
        "operationId": name,
        "summary": summary,
        "security": [{"bearer": []}],
        "responses": responses,
    }
    parameters = [parameter(one, "path", "Whose.", _TEXT) for one in inner] + list(query)
    if parameters:
        told["parameters"] = parameters
    if takes is not None:
        told["requestBody"] = {"required": bool(takes.get("required")), "content": json_content(takes)}
    return method, path, told


def _list_of(name: str, **more: Schema) -> Schema:
    return object_of({"object": {"const": "list"}, "data": array(ref(name)), **more})


def _page_of(name: str, **more: Schema) -> Schema:
    counts = dict.fromkeys(("page", "pages", "per_page", "found", "total"), _WHOLE)
    states: Schema = {"type": "object", "properties": {}, "additionalProperties": _WHOLE}
    return _list_of(name, **counts, states=states, **more)


def _list_query(states: tuple[str, ...], sorts: tuple[str, ...]) -> tuple[Schema, ...]:
    both_ways = [f"{sign}{name}" for name in sorts for sign in ("", "-")]
    return (
        parameter("page", "query", "From 1.", {"type": "integer", "minimum": 1}),
        parameter("per_page", "query", "50 unless said.", {"type": "integer", "minimum": 1, "maximum": 200}),
        parameter("sort", "query", f"`{sorts[0]}` unless said; `-` in front turns it round.", {"enum": both_ways}),
        parameter("search", "query", "Words that all occur.", {"type": "string", "maxLength": 200}),
        parameter("state", "query", "One state.", {"enum": list(states)}),
    )


def _keys() -> list[Operation]:
    one, made = {"200": ref("Key")}, {"201": ref("NewKey")}
    named: Schema = {"allOf": [ref("KeyFields"), {"type": "object", "required": ["name"]}], "required": ["name"]}
    overlap: dict[str, Schema] = {"overlap_hours": {"type": "number", "minimum": 0, "maximum": 2160}}
    stopped: dict[str, Schema] = {"stopped": _FLAG}
    return [
        _operation(
            "get",
            "/keys",
            "listKeys",
            "List the keys.",
            {"200": _page_of("Key", stopped=_FLAG)},
            query=_list_query(KEY_STATES, KEY_SORTS),
        ),
        _operation("post", "/keys", "createKey", "Make a key.", made, takes=named),
        _operation("get", "/keys/{key_id}", "getKey", "Show one key.", one),
        _operation("patch", "/keys/{key_id}", "changeKey", "Change what is given.", one, takes=ref("KeyFields")),
        _operation("delete", "/keys/{key_id}", "revokeKey", "End a key for ever.", one),
        _operation(
            "post",
            "/keys/{key_id}/rotate",
            "rotateKey",
            "Replace a key; the old one works for `overlap_hours` more, 24 unless said.",
            {"200": ref("NewKey")},
            takes=object_of(overlap, ()),
        ),
        _operation(
            "post",
            "/keys/stop",
            "stopKeys",
            "Stop all keys, or let them work again.",
            {"200": object_of(stopped)},
            takes=object_of(stopped),
        ),
    ]


def _invitations() -> list[Operation]:
    fields: dict[str, Schema] = {
        "tier": {"type": "string", "description": "The tier that the key is for."},
        "name": {"type": "string", "maxLength": 100, "description": "What the key is called."},
        "expires_in_days": {"type": "number", "maximum": 90, "description": "When the link ends; 7 unless said."},
        "key_expires_in_days": {"anyOf": [{"type": "number"}, {"const": "never"}]},
    }
    return [
        _operation("get", "/keys/invites", "listInvitations", "List all invitations.", {"200": _list_of("Invitation")}),
        _operation(
            "post",
            "/keys/invites",
            "createInvitation",
            "Make a link that gives whoever opens it first a key of a tier.",
            {"201": ref("NewInvitation")},
            takes=object_of(fields, ("tier",)),
        ),
        _operation(
            "delete",
            "/keys/invites/{invitation_id}",
            "revokeInvitation",
            "End an invitation that nobody has used.",
            {"200": ref("Invitation")},
        ),
    ]


def _invitation(more: dict[str, Schema] | None = None) -> Schema:
    fields: dict[str, Schema] = {
        "id": _TEXT,
        "object": {"const": "invitation"},
        "tier": _TEXT,
        "name": _TEXT,
        "state": {"enum": ["open", "used", "revoked", "expired"]},
        "created_at": _INSTANT,
        "expires_at": _INSTANT,
        "key_expires_in_days": {"anyOf": [{"type": "number"}, {"const": "never"}]},
        "used_at": nullable(_INSTANT),
        "key": nullable(_TEXT),
    }
    return object_of(fields | (more or {}))


def _users() -> list[Operation]:
    place = "/users/{key_id}"
    one = {"200": ref("User")}
    password = object_of({"password": _PASSWORD})
    return [
        _operation(
            "get",
            "/users",
            "listUsers",
            "List the local users.",
            {"200": _page_of("User")},
            query=_list_query(KEY_STATES, USER_SORTS),
        ),
        _operation("post", "/users", "createUser", "Make a local user.", {"201": ref("User")}, takes=_new_user()),
        _operation("get", place, "getUser", "Show one user.", one),
        _operation("patch", place, "changeUser", "Give a user another password.", one, takes=password),
        _operation("delete", place, "removeUser", "Remove a user, and end their key for ever.", one),
    ]


def _user() -> Schema:
    ends: Schema = {"anyOf": [_INSTANT, {"const": "never"}, {"type": "null"}]}
    return object_of(
        {
            "object": {"const": "user"},
            "username": _TEXT,
            "key_id": {
                "type": "string",
                "description": "The key that bounds what they may; its terms are under /keys.",
            },
            "state": {"enum": ["active", "revoked", "expired"], "description": "That of the key."},
            "expires_at": {**ends, "description": "When the key ends."},
            "created_at": _INSTANT,
            "changed_at": {**_INSTANT, "description": "When the password was set."},
        }
    )


def _new_user() -> Schema:
    names: dict[str, Schema] = {
        "username": {"type": "string", "maxLength": 64, "description": "The name to sign in with."},
        "password": _PASSWORD,
    }
    terms = {name: schema for name, schema in _key_properties().items() if name != "name"}
    return object_of(names | terms, tuple(names))


def _imports() -> list[Operation]:
    text: dict[str, Schema] = {"text": {"type": "string", "description": "Tokens, one a line, or a JSON export."}}
    counts: Schema = {"type": "object", "properties": {}, "additionalProperties": _WHOLE}
    ids = object_of({"ids": array(_TEXT)}, ())
    return [
        _operation(
            "post",
            "/tokens/preview",
            "previewImport",
            "Say what an import would do, line by line.",
            {"200": _list_of("ImportEntry", counts=counts)},
            takes=object_of(text | {"job": _FLAG}, ("text",)),
        ),
        _operation(
            "post",
            "/tokens/upload",
            "importAccounts",
            "Save the accounts of a text; with `job`, as a job.",
            {"200": ref("Saved"), "202": object_of({"job": ref("Job")})},
            takes=object_of(text | {"job": _FLAG}, ("text",)),
        ),
        _operation(
            "post",
            "/tokens/clear",
            "removeAccounts",
            "Remove all accounts.",
            {"200": object_of(_SUCCESS | {"removed": _WHOLE})},
        ),
        _operation(
            "get",
            "/tokens/deleted",
            "listDeletedAccounts",
            "List what can be brought back.",
            {"200": _list_of("DeletedAccount")},
        ),
        _operation(
            "post",
            "/tokens/undo",
            "bringAccountsBack",
            "Bring back what was removed in the last 24 hours.",
            {"200": object_of(_SUCCESS | {"restored": _WHOLE})},
            takes=ids,
        ),
        _operation(
            "post",
            "/tokens/error",
            "listFailedAccounts",
            "Give the labels of the accounts that do not work until the operator acts.",
            {"200": object_of({"status": {"const": "success"}, "error_tokens": array(_TEXT)})},
        ),
        _operation(
            "post",
            "/tokens/confirm-restored",
            "confirmRestored",
            "Let tokens be renewed after an older copy was brought back.",
            {"200": object_of({"status": {"const": "success"}, "was_restored": _FLAG})},
        ),
    ]


def _accounts() -> list[Operation]:
    place = "/tokens/accounts/{account_id}"
    one = {"200": ref("Account")}
    changes = object_of({"note": _TEXT, "groups": array(_TEXT), "enabled": _FLAG}, ())
    chosen = object_of({"action": {"enum": list(ACTIONS)}, "ids": array(_TEXT), "all": _FLAG}, ("action",))
    acts = (
        ("test", "testAccount", "Use the account once and say what came of it."),
        ("refresh", "refreshAccount", "Renew its access token now."),
        ("disable", "disableAccount", "Set it aside."),
        ("enable", "enableAccount", "Let it serve again."),
    )
    return [
        _operation(
            "get",
            "/tokens/accounts",
            "listAccounts",
            "List the accounts.",
            {"200": _page_of("Account")},
            query=(*_list_query(STATES, SORTS), parameter("group", "query", "One group.", _TEXT)),
        ),
        _operation("get", place, "getAccount", "Show one account.", one),
        _operation("patch", place, "changeAccount", "Change what is given.", one, takes=changes),
        _operation(
            "delete",
            place,
            "removeAccount",
            "Remove it; it can be brought back for 24 hours.",
            {"200": object_of({"id": _TEXT, "deleted": {"const": True}})},
        ),
        *(
            _operation("post", f"{place}/{action}", name, summary, {"200": ref("AccountResult")})
            for action, name, summary in acts
        ),
        _operation(
            "post",
            "/tokens/accounts/bulk",
            "changeAccounts",
            "Do one thing with many accounts, as a job.",
            {"202": object_of({"job": ref("Job")})},
            takes=chosen,
        ),
    ]


def _rest() -> list[Operation]:
    checks = object_of({"object": {"const": "list"}, "data": array(object_of({"check": _TEXT, "subject": _TEXT}))})
    events: Schema = {"type": "string", "description": "Each data line is a JobWithItems, with the items that are new."}
    return [
        _operation(
            "get",
            "/tokens/jobs/{job_id}",
            "getJob",
            "A job's progress and items; as an event stream for who accepts that.",
            {"200": ref("JobWithItems")},
            stream=events,
        ),
        _operation("get", "/tokens/doctor", "listChecks", "List the doctor's checks.", {"200": checks}),
        _operation("post", "/tokens/doctor/{check}", "runCheck", "Run one check.", {"200": ref("CheckResult")}),
    ]
