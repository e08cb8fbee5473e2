"""Parameters that the backend cannot honour."""

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.ignored import read_ignored

TOOLS = [{"type": "function", "function": {"name": "f"}}]

ASKED: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"temperature": 0}, ("temperature",)),
    ({"temperature": 0.7, "top_p": 0.5}, ("temperature", "top_p")),
    ({"presence_penalty": 1, "frequency_penalty": -0.5}, ("frequency_penalty", "presence_penalty")),
    ({"seed": 0}, ("seed",)),
    ({"logprobs": True, "top_logprobs": 3}, ("logprobs", "top_logprobs")),
    ({"logit_bias": {"50256": -100}}, ("logit_bias",)),
    ({"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
     ("parallel_tool_calls", "tool_choice", "tools")),
    ({"functions": [{"name": "f"}], "function_call": {"name": "f"}}, ("function_call", "functions")),
    ({"response_format": {"type": "json_object"}}, ("response_format",)),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, ("response_format",)),
    ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, ("audio", "modalities")),
    ({"verbosity": "low"}, ("verbosity",)),
    ({"prediction": {"type": "content", "content": "x"}}, ("prediction",)),
    ({"web_search_options": {}}, ("web_search_options",)),
    ({"service_tier": "flex"}, ("service_tier",)),
    ({"store": True, "metadata": {"a": "b"}}, ("metadata", "store")),
    ({"prompt_cache_key": "k", "safety_identifier": "s"}, ("prompt_cache_key", "safety_identifier")),
]  # fmt: skip


@pytest.mark.parametrize("body, names", ASKED)
def test_what_asks_for_more_than_the_default_is_named(body: dict[str, object], names: tuple[str, ...]) -> None:
    assert read_ignored(body) == names


def test_defaults_and_nulls_are_not_named() -> None:
    defaults: dict[str, object] = {
        "temperature": 1, "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {},
        "logprobs": False, "top_logprobs": 0, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        "functions": [], "function_call": "none", "response_format": {"type": "text"}, "modalities": ["text"],
        "verbosity": "medium", "service_tier": "auto", "store": False, "metadata": {},
    }  # fmt: skip
    assert read_ignored(defaults) == ()
    assert read_ignored(dict.fromkeys([*defaults, "seed", "audio", "prediction", "moderation"])) == ()


def test_choices_without_tools_change_nothing() -> None:
    assert read_ignored({"tool_choice": "required", "parallel_tool_calls": False, "function_call": "auto"}) == ()


WRONG: list[tuple[dict[str, object], str]] = [
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": "x"}, "frequency_penalty"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"seed": 1.5}, "seed"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"tools": {}}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": TOOLS, "tool_choice": 1}, "tool_choice"),
    ({"functions": [1]}, "functions[0]"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"modalities": ["text", "smell"]}, "modalities[1]"),
    ({"audio": "wav"}, "audio"),
    ({"verbosity": "loud"}, "verbosity"),
    ({"service_tier": "gold"}, "service_tier"),
    ({"store": "no"}, "store"),
    ({"web_search_options": True}, "web_search_options"),
]


@pytest.mark.parametrize("body, param", WRONG)
def test_wrong_values_are_refused_all_the_same(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_ignored(body)
    assert caught.value.param == param
