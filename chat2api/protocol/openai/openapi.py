"""The OpenAPI 3.1 document of the server's public interface, for `GET /openapi.json`."""

from chat2api.protocol.openai.chat import MAX_CHOICES, MAX_STOP_LENGTH, MAX_STOPS
from chat2api.protocol.openai.messages import MAX_MESSAGES
from chat2api.protocol.openai.openapi_forwarded import forwarded_paths, forwarded_schemas
from chat2api.protocol.openai.openapi_operator import operator_paths, operator_schemas
from chat2api.protocol.openai.openapi_parts import (
    Schema,
    errors,
    json_content,
    nullable,
    object_of,
    parameter,
    ref,
)
from chat2api.protocol.openai.openapi_site import site_paths, site_schemas

_ERRORS = {
    400: "The request is wrong; `param` names the field.",
    401: "No key, an unknown one, or a token that the backend refused.",
    403: "The key may not do this, or the backend asks for a check that only a person can pass.",
    404: "No such model, conversation or route.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "A limit is reached; `Retry-After` tells for how long.",
    500: "The server failed.",
    502: "The backend, or the way to it, failed.",
    503: "No account, no storage, or the server is stopping.",
    504: "The backend was too slow.",
}


def openapi_document(version: str, prefix: str = "") -> Schema:
    """Give the document; prefix is the API_PREFIX with a leading slash and no trailing one, or ""."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chat2api",
            "version": version,
            "description": "OpenAI's API in front of the operator's own ChatGPT accounts and API keys. Under the path of a "
            "tier lie the same calls, held to its models, limits and rules; its list of models needs no key.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {}],
        "paths": {
            f"{prefix}/v1/chat/completions": {"post": _create_chat_completion()},
            f"{prefix}/v1/models": {"get": _list_models()},
            f"{prefix}/v1/models/{{model}}": {"get": _get_model()},
            f"{prefix}/v1/usage": {"get": _get_usage()},
            **forwarded_paths(prefix),
            **site_paths(prefix),
            **operator_paths(prefix),
            "/healthz": {"get": _get_health("healthz", "Whether the process is alive.", ("200",))},
            "/readyz": {"get": _get_health("readyz", "Whether requests can be served.", ("200", "503"))},
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {f"Error{status}": _error_response(status, text) for status, text in _ERRORS.items()},
            "schemas": _schemas() | forwarded_schemas() | site_schemas() | operator_schemas(),
        },
    }


def _error_response(status: int, description: str) -> Schema:
    headers: Schema = {
        "x-should-retry": {
            "description": "`false` where repeating the request by itself is of no use.",
            "schema": {"type": "string", "enum": ["false"]},
        }
    }
    if status in (429, 502, 503):
        headers["retry-after"] = {
            "description": "Seconds to wait, where they are known.",
            "schema": {"type": "integer", "minimum": 1},
        }
    return {"description": description, "headers": headers, "content": json_content(ref("Error"))}


def _create_chat_completion() -> Schema:
    answer: Schema = {
        "description": "The reply, or its event stream when `stream` is true.",
        "headers": {
            "x-chat2api-model-fallback": {
                "description": "The model asked for, where none is known by that name and the default answered.",
                "schema": {"type": "string"},
            },
            "x-chat2api-ignored": {
                "description": "Parameters that the backend cannot honour, comma-separated.",
                "schema": {"type": "string"},
            },
            **_rate_headers(),
        },
        "content": {
            **json_content(ref("ChatCompletion")),
            "text/event-stream": {"schema": {"type": "string", "description": "Each data line is a ChatChunk."}},
        },
    }
    return {
        "operationId": "createChatCompletion",
        "summary": "Answer a conversation.",
        "requestBody": {"required": True, "content": json_content(ref("ChatRequest"))},
        "responses": {"200": answer, **errors(*_ERRORS)},
    }


def _rate_headers() -> Schema:
    """Give the headers that tell the holder of an issued key what is left."""
    told: Schema = {}
    for what in ("requests", "tokens"):
        told[f"x-ratelimit-limit-{what}"] = {
            "description": f"How many {what} the key may use in the shortest time that it has a limit for.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }
        told[f"x-ratelimit-remaining-{what}"] = {
            "description": f"How many {what} of these are left.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }
        told[f"x-ratelimit-reset-{what}"] = {
            "description": "When all of them are there again, such as 6m0s; absent where they never are.",
            "schema": {"type": "string"},
        }
    return told


def _get_usage() -> Schema:
    day: Schema = {"type": "string", "format": "date"}
    form: Schema = {"type": "string", "enum": ["json", "csv"]}
    return {
        "operationId": "getUsage",
        "summary": "Tell what the key used and what is left; the operator is told of all keys.",
        "parameters": [
            parameter("since", "query", "First day, in UTC; 30 days by default.", day),
            parameter("until", "query", "Last day; today by default.", day),
            parameter("key", "query", "One key's id; for the operator.", {"type": "string"}),
            parameter("format", "query", "JSON by default.", form),
        ],
        "responses": {
            "200": {
                "description": "Sums for each day and model.",
                "content": {**json_content(ref("UsageReport")), "text/csv": {"schema": {"type": "string"}}},
            },
            **errors(400, 401, 403, 429, 500, 503),
        },
    }


def _list_models() -> Schema:
    return {
        "operationId": "listModels",
        "summary": "List what the accounts offer.",
        "responses": {
            "200": {"description": "All models.", "content": json_content(ref("ModelList"))},
            **errors(401, 403, 429, 500, 502, 503, 504),
        },
    }


def _get_model() -> Schema:
    return {
        "operationId": "getModel",
        "summary": "Describe one model.",
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": {"description": "The model.", "content": json_content(ref("Model"))},
            **errors(401, 403, 404, 429, 500, 502, 503, 504),
        },
    }


def _model_limits() -> Schema:
    limit: Schema = {"anyOf": [{"type": "integer"}, {"const": "unlimited"}]}
    limits = object_of({"requests_per_minute": limit, "tokens_per_minute": limit})
    return limits | {"description": "In a tier: what all its callers together may use of the model."}


def _get_health(name: str, summary: str, statuses: tuple[str, ...]) -> Schema:
    answer: Schema = {"description": "One word.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": dict.fromkeys(statuses, answer),
    }


def _schemas() -> Schema:
    return {
        "Error": object_of({"error": _error_schema()}),
        "Model": object_of(
            {
                "id": {"type": "string"},
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": {"type": "string"},
                "limits": _model_limits(),
            },
            ("id", "object", "created", "owned_by"),
        ),
        "ModelList": object_of({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}}),
        "Usage": _usage_schema(),
        "UsageReport": _usage_report_schema(),
        "Message": _message_schema(),
        "ChatRequest": _request_schema(),
        "ChatCompletion": _answer_schema(
            "chat.completion", object_of(_choice("message", _reply_message_schema(), {"type": "string"})), ref("Usage")
        ),
        "ChatChunk": _answer_schema(
            "chat.completion.chunk",
            object_of(_choice("delta", _delta_schema(), nullable({"type": "string"}))),
            nullable(ref("Usage")),
        ),
    }


def _error_schema() -> Schema:
    text_or_null: Schema = {"type": ["string", "null"]}
    return object_of(
        {"message": {"type": "string"}, "type": {"type": "string"}, "param": text_or_null, "code": text_or_null}
    )


def _usage_schema() -> Schema:
    count: Schema = {"type": "integer", "minimum": 0}
    return object_of(
        {
            "prompt_tokens": count,
            "completion_tokens": count,
            "total_tokens": count,
            "prompt_tokens_details": object_of({"cached_tokens": count, "audio_tokens": count}),
            "completion_tokens_details": object_of(
                {
                    "reasoning_tokens": count,
                    "audio_tokens": count,
                    "accepted_prediction_tokens": count,
                    "rejected_prediction_tokens": count,
                }
            ),
            "estimated": {"const": True, "description": "The backend tells no counts; these are made here."},
        }
    )


def _usage_report_schema() -> Schema:
    count: Schema = {"type": "integer", "minimum": 0}
    names = ("requests", "prompt_tokens", "completion_tokens", "images", "errors", "total_tokens")
    sums: dict[str, Schema] = dict.fromkeys(names, count) | {"seconds": {"type": "number"}}
    groups: Schema = {"type": "array", "items": object_of(sums)}
    properties: dict[str, Schema] = {
        "object": {"const": "usage"},
        "since": {"type": "string"},
        "until": {"type": "string"},
        "total": object_of(sums),
        "days": groups,
        "models": groups,
        "keys": groups,
        "accounts": groups,
        "rows": {"type": "array", "items": {"type": "object"}},
        "key": {"type": "object"},
        "left": {"type": "array", "items": {"type": "object"}},
    }
    return object_of(properties, ("object", "since", "until", "total", "days", "models"))


def _message_schema() -> Schema:
    kinds = ["text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking", "reasoning"]
    part = object_of({"type": {"type": "string", "enum": kinds}}, ("type",))
    return object_of(
        {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": part}, {"type": "null"}]},
            "name": {"type": ["string", "null"]},
            "refusal": {"type": ["string", "null"]},
            "tool_call_id": {"type": "string"},
            "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
            "function_call": {"type": ["object", "null"]},
        },
        ("role",),
    )


def _request_schema() -> Schema:
    stop: Schema = {"type": "string", "maxLength": MAX_STOP_LENGTH}
    efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max", None]
    conversation: Schema = {"type": ["string", "null"], "pattern": "^[A-Za-z0-9_-]{0,128}$"}
    return object_of(
        {
            "messages": {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": ref("Message")},
            "model": {"type": ["string", "null"], "minLength": 1},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": nullable(object_of({"include_usage": {"type": ["boolean", "null"]}}, ())),
            "max_completion_tokens": {"type": ["integer", "null"], "minimum": -1},
            "max_tokens": {"type": ["integer", "null"], "minimum": -1},
            "stop": {"anyOf": [stop, {"type": "array", "maxItems": MAX_STOPS, "items": stop}, {"type": "null"}]},
            "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES},
            "reasoning_effort": {"enum": efforts},
            "reasoning": nullable(object_of({"effort": {"enum": efforts}}, ())),
            "user": {"type": ["string", "object", "null"]},
            "conversation_id": conversation,
            "parent_message_id": conversation,
            "history_disabled": {"type": ["boolean", "null"]},
        },
        ("messages",),
    )


def _reply_message_schema() -> Schema:
    return object_of(
        {
            "role": {"const": "assistant"},
            "content": {"type": ["string", "null"]},
            "refusal": {"type": ["string", "null"]},
            "reasoning_content": {"type": "string"},
        },
        ("role", "content", "refusal"),
    )


def _delta_schema() -> Schema:
    return object_of(
        {"role": {"const": "assistant"}, "content": {"type": "string"}, "reasoning_content": {"type": "string"}}, ()
    )


def _choice(name: str, content: Schema, reason: Schema) -> dict[str, Schema]:
    return {"index": {"type": "integer"}, name: content, "logprobs": {"type": "null"}, "finish_reason": reason}


def _answer_schema(kind: str, choice: Schema, usage: Schema) -> Schema:
    required = ("id", "object", "created", "model", "choices", *(("usage",) if kind == "chat.completion" else ()))
    return object_of(
        {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "system_fingerprint": {"type": ["string", "null"]},
            "conversation_id": {"type": "string"},
            "message_id": {"type": "string"},
            "choices": {"type": "array", "items": choice},
            "usage": usage,
        },
        required,
    )
