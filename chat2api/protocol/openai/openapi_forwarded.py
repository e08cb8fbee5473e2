"""What the OpenAPI document says of the calls that are forwarded to the API: paths, kinds of content, ways to fail.

What bodies and answers hold is the API's own matter. Only what this server itself reads of them is described.
"""

from chat2api.protocol.openai.openapi_parts import Schema, array, errors, json_content, object_of, parameter, ref

_TEXT: Schema = {"type": "string"}
_ANY: Schema = {"type": "object"}
_EVENTS: Schema = {"text/event-stream": {"schema": {"type": "string", "description": "The API's own events."}}}
_PLAIN: Schema = {"text/plain": {"schema": {"type": "string", "description": "By `response_format`."}}}
_BYTES: Schema = {"*/*": {"schema": {"description": "What the API answers, byte for byte."}}}
_ID = parameter(
    "identifier",
    "path",
    "Its id; it is there for the caller who made it alone.",
    {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,200}$"},
)
_REFUSALS = (400, 401, 403, 404, 413, 415, 429, 500, 502, 503, 504)


def forwarded_paths(prefix: str) -> dict[str, Schema]:
    """Give the paths with their operations, behind that prefix."""
    base = f"{prefix}/v1"
    return {
        f"{base}/responses": {"post": _json("createResponse", "Make a response.", streams=True)},
        f"{base}/responses/compact": {"post": _json("compactResponse", "Shorten a conversation.")},
        f"{base}/responses/input_tokens": {"post": _json("countInputTokens", "Count the tokens of an input.")},
        f"{base}/responses/{{identifier}}": {
            "get": _object("getResponse", "Give a stored response.", streams=True),
            "delete": _object("deleteResponse", "Remove a stored response."),
        },
        f"{base}/responses/{{identifier}}/cancel": {
            "post": _object("cancelResponse", "End a response in the background.")
        },
        f"{base}/responses/{{identifier}}/input_items": {
            "get": _object("listResponseInput", "List what a stored response was given.")
        },
        f"{base}/completions": {"post": _json("createCompletion", "Continue a text.", streams=True)},
        f"{base}/embeddings": {"post": _json("createEmbedding", "Give the vectors of texts.")},
        f"{base}/moderations": {
            "post": _json("createModeration", "Judge texts or pictures.", default="omni-moderation-latest")
        },
        f"{base}/images/generations": {
            "post": _json("createImage", "Make pictures.", streams=True, default="dall-e-2")
        },
        f"{base}/images/edits": {"post": _form("editImage", "Change a picture.", "image", default="dall-e-2")},
        f"{base}/images/variations": {"post": _form("varyImage", "Vary a picture.", "image", default="dall-e-2")},
        f"{base}/audio/speech": {"post": _json("createSpeech", "Speak a text.", content=_BYTES)},
        f"{base}/audio/transcriptions": {"post": _form("transcribe", "Write a sound down.", "file")},
        f"{base}/audio/translations": {"post": _form("translate", "Write a sound down in English.", "file")},
        f"{base}/files": {
            "get": {
                "operationId": "listFiles",
                "summary": "List your files.",
                "parameters": [
                    parameter("purpose", "query", "Those of this purpose.", _TEXT),
                    parameter("limit", "query", "How many.", {"type": "integer", "minimum": 1, "maximum": 10_000}),
                    parameter("order", "query", "By age; the newest first by default.", {"enum": ["asc", "desc"]}),
                    parameter("after", "query", "Those behind the one of this id.", _TEXT),
                ],
                "responses": _responses(json_content(ref("ForwardedFiles"))),
            },
            "post": _form("uploadFile", "Keep a file.", "file", has_model=False),
        },
        f"{base}/files/{{identifier}}": {
            "get": _object("getFile", "Describe a file."),
            "delete": _object("deleteFile", "Remove a file."),
        },
        f"{base}/files/{{identifier}}/content": {"get": _object("getFileContent", "Give a file.", content=_BYTES)},
    }


def forwarded_schemas() -> dict[str, Schema]:
    """Give the schemas that those operations refer to."""
    told = "May name its provider, as `openai/gpt-4.1`, which is taken off. All other fields go on as they are."
    model: Schema = {"type": "string", "minLength": 1, "description": told}
    nullable_text: Schema = {"type": ["string", "null"]}
    return {
        "ForwardedCall": object_of({"model": model}, ("model",)),
        "ForwardedFiles": object_of(
            {
                "object": {"const": "list"},
                "data": array(_ANY),
                "first_id": nullable_text,
                "last_id": nullable_text,
                "has_more": {"type": "boolean"},
            },
            ("object", "data"),
        ),
    }


def _json(
    name: str, summary: str, *, streams: bool = False, default: str | None = None, content: Schema | None = None
) -> Schema:
    """Give an operation whose JSON body names its model; `default` is taken where it names none."""
    body = ref("ForwardedCall") if default is None else object_of({"model": _model_or(default)}, ())
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": json_content(body)},
        "responses": _responses(content or _told(streams)),
    }


def _form(name: str, summary: str, file: str, *, has_model: bool = True, default: str | None = None) -> Schema:
    """Give an operation whose body is a form with a file of that name."""
    properties: dict[str, Schema] = {file: {"type": "string", "contentMediaType": "application/octet-stream"}}
    required: tuple[str, ...] = ()
    if has_model:
        properties["model"] = _TEXT if default is None else _model_or(default)
        required = ("model",) if default is None else ()
    body = {"multipart/form-data": {"schema": object_of(properties, required)}}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": _responses(_told(streams=has_model) | (_PLAIN if file == "file" and has_model else {})),
    }


def _object(name: str, summary: str, *, streams: bool = False, content: Schema | None = None) -> Schema:
    """Give an operation on something that is kept."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_ID],
        "responses": _responses(content or _told(streams)),
    }


def _told(streams: bool) -> Schema:
    return json_content(_ANY) | (_EVENTS if streams else {})


def _model_or(default: str) -> Schema:
    return {"type": ["string", "null"], "default": default}


def _responses(content: Schema) -> Schema:
    answer: Schema = {
        "description": "What the API answers.",
        "headers": {
            "x-upstream-request-id": {"description": "The API's id of the call.", "schema": _TEXT},
        },
        "content": content,
    }
    refusal: Schema = {
        "description": "A refusal by the API itself, without what names the operator; 508 for a call that was forwarded "
        "in a circle.",
        "content": json_content(ref("Error")),
    }
    return {"200": answer, **errors(*_REFUSALS), "default": refusal}
