"""Chat parameters that the web backend cannot honour: checked all the same, and named to the caller.

Source: the OpenAI API reference, "Create chat completion", as of 2026.
"""

from chat2api.protocol.openai.fields import (
    JsonObject,
    is_object,
    read_flag,
    read_integer,
    read_list,
    read_number,
    read_object,
    read_text,
    read_word,
    wrong_type,
    wrong_value,
)


def read_ignored(body: JsonObject) -> tuple[str, ...]:
    """Check the parameters without a counterpart in the backend; name, sorted, those not at their default.

    A parameter that changes nothing as things are (`tool_choice` without tools) is not named. Raises
    InvalidRequestError with `param` for one of the wrong type or outside its bounds.
    """
    if _NAMES.isdisjoint(body):
        return ()
    return tuple(sorted(name for name, is_asked in _asked(body).items() if is_asked))


def _asked(body: JsonObject) -> dict[str, bool]:
    return {
        **_sampling_asked(body),
        **_output_asked(body),
        **_tools_asked(body),
        **_bookkeeping_asked(body),
    }


def _sampling_asked(body: JsonObject) -> dict[str, bool]:
    return {
        "temperature": read_number(body, "temperature", 0, 2) not in (None, 1),
        "top_p": read_number(body, "top_p", 0, 1) not in (None, 1),
        "frequency_penalty": bool(read_number(body, "frequency_penalty", -2, 2)),
        "presence_penalty": bool(read_number(body, "presence_penalty", -2, 2)),
        "logit_bias": _read_logit_bias(body),
        "seed": read_integer(body, "seed") is not None,
    }


def _read_logit_bias(body: JsonObject) -> bool:
    biases = read_object(body, "logit_bias") or {}
    for token in biases:
        read_number(biases, token, -100, 100, "logit_bias")
    return bool(biases)


def _output_asked(body: JsonObject) -> dict[str, bool]:
    modalities = read_list(body, "modalities") or ()
    for index, modality in enumerate(modalities):
        if modality not in ("text", "audio"):
            raise wrong_value(f"modalities[{index}]", "supported values are: 'text', and 'audio'.")
    response_format = read_object(body, "response_format")
    if response_format is not None:
        read_word(response_format, "type", ("text", "json_object", "json_schema"), "response_format")
    return {
        "audio": read_object(body, "audio") is not None,
        "logprobs": read_flag(body, "logprobs") or False,
        "modalities": "audio" in modalities,
        "prediction": read_object(body, "prediction") is not None,
        "response_format": response_format is not None and response_format.get("type") != "text",
        "top_logprobs": bool(read_integer(body, "top_logprobs", minimum=0, maximum=20)),
        "verbosity": read_word(body, "verbosity", ("low", "medium", "high")) not in (None, "medium"),
        "web_search_options": read_object(body, "web_search_options") is not None,
    }


def _tools_asked(body: JsonObject) -> dict[str, bool]:
    tools = _read_objects(body, "tools")
    functions = _read_objects(body, "functions")
    parallel = read_flag(body, "parallel_tool_calls")
    return {
        "function_call": functions and _read_choice(body, "function_call") not in (None, "auto"),
        "functions": functions,
        "parallel_tool_calls": tools and parallel is False,
        "tool_choice": tools and _read_choice(body, "tool_choice") not in (None, "auto"),
        "tools": tools,
    }


def _read_objects(body: JsonObject, key: str) -> bool:
    values = read_list(body, key) or ()
    for index, value in enumerate(values):
        if not is_object(value):
            raise wrong_type(f"{key}[{index}]", "an object", value)
    return bool(values)


def _read_choice(body: JsonObject, key: str) -> object:
    value = body.get(key)
    if value is None or isinstance(value, str) or is_object(value):
        return value
    raise wrong_type(key, "a string or an object", value)


def _bookkeeping_asked(body: JsonObject) -> dict[str, bool]:
    tiers = ("auto", "default", "flex", "scale", "priority", "fast")
    return {
        "metadata": bool(read_object(body, "metadata")),
        "moderation": read_object(body, "moderation") is not None,
        "prompt_cache_key": read_text(body, "prompt_cache_key") is not None,
        "prompt_cache_options": read_object(body, "prompt_cache_options") is not None,
        "prompt_cache_retention": read_text(body, "prompt_cache_retention") is not None,
        "safety_identifier": read_text(body, "safety_identifier") is not None,
        "service_tier": read_word(body, "service_tier", tiers) not in (None, "auto", "default"),
        "store": read_flag(body, "store") or False,
    }


_NAMES = frozenset(_asked({}))
"""Most requests have none of them."""
