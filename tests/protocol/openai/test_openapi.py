"""The OpenAPI document is whole and describes what is really sent."""

from collections.abc import Iterator
from typing import cast

import orjson
import pytest

from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.protocol.events import Event, Finished, ReasoningDelta, Started, TextDelta
from chat2api.protocol.openai.chat import ChatEncoder, ChatFolder, parse_chat_request
from chat2api.protocol.openai.errors import error_object
from chat2api.protocol.openai.models import model_list
from chat2api.protocol.openai.openapi import openapi_document
from chat2api.protocol.openai.usage import Usage

Node = dict[str, object]
DOCUMENT = openapi_document("1.2.3")
TURN: list[Event] = [
    Started("c", "m", "gpt-4o"),
    ReasoningDelta("hm"),
    TextDelta("hi"),
    Finished("stop", "c", "m", "gpt-4o"),
]


def _nodes(value: object) -> Iterator[Node]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _resolve(reference: str) -> Node:
    node: object = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        assert isinstance(node, dict)
        node = node[step]
    return cast(Node, node)


def _check(value: object, schema: Node) -> None:
    """Assert that value is what schema says, as far as this document's vocabulary goes; unknown keys are errors."""
    if "$ref" in schema:
        _check(value, _resolve(str(schema["$ref"])))
        return
    if "anyOf" in schema:
        for option in cast("list[Node]", schema["anyOf"]):
            try:
                _check(value, option)
            except AssertionError:
                continue
            return
        raise AssertionError(f"{value!r} is none of {schema['anyOf']}")
    if "const" in schema:
        assert value == schema["const"]
        return
    names = cast("list[str]", schema["type"] if isinstance(schema["type"], list) else [schema["type"]])
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None), "boolean": bool}
    assert type(value) in {kinds[name] for name in names}, (value, schema)
    if isinstance(value, dict):
        properties = cast("dict[str, Node]", schema["properties"])
        assert set(cast("list[str]", schema["required"])) <= value.keys() <= properties.keys()
        for key, inner in value.items():
            _check(inner, properties[key])
    if isinstance(value, list):
        for inner in value:
            _check(inner, cast(Node, schema["items"]))


def _schema(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}


def test_every_reference_leads_somewhere() -> None:
    references = [str(node["$ref"]) for node in _nodes(DOCUMENT) if "$ref" in node]
    assert len(references) > 20
    for reference in references:
        assert _resolve(reference)


def test_document_is_json_and_names_the_version() -> None:
    assert orjson.loads(orjson.dumps(DOCUMENT)) == DOCUMENT
    assert DOCUMENT["openapi"] == "3.1.0"
    assert cast(Node, DOCUMENT["info"])["version"] == "1.2.3"


def test_S3_prefix_is_before_the_api_paths_only() -> None:
    paths = cast(Node, openapi_document("1", "/x")["paths"])
    assert "/x/v1/chat/completions" in paths
    assert "/x/v1/models/{model}" in paths
    assert "/v1/chat/completions" not in paths
    assert {"/healthz", "/readyz"} <= paths.keys()


def test_operation_names_are_unique() -> None:
    names = [node["operationId"] for node in _nodes(DOCUMENT) if "operationId" in node]
    assert len(names) == len(set(names)) == len(cast(Node, DOCUMENT["paths"]))


@pytest.mark.parametrize("tell", [False, True])
def test_a_reply_is_as_described(tell: bool) -> None:
    folder = ChatFolder("chatcmpl-1", 1, lambda slug: slug or "auto", tell_conversation=tell)
    folder.add(TURN)
    _check(folder.reply(Usage(1, 2, 1)), _schema("ChatCompletion"))


@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks_are_as_described(include_usage: bool) -> None:
    encoder = ChatEncoder("chatcmpl-1", 1, lambda slug: slug or "auto", include_usage=include_usage)
    data = encoder.encode(TURN) + encoder.finish(Usage(1, 2, 1))
    blocks = data.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    for block in filter(None, blocks):
        _check(orjson.loads(block.removeprefix("data: ")), _schema("ChatChunk"))


def test_errors_and_models_are_as_described() -> None:
    _check(error_object(NotFoundError("No."))[1], _schema("Error"))
    _check(model_list(["auto", "gpt-5-2"]), _schema("ModelList"))


def test_every_described_parameter_is_read() -> None:
    properties = cast(Node, _resolve("#/components/schemas/ChatRequest")["properties"])
    # Clients send all kinds of things as these two, so odd ones are passed over.
    for name in properties.keys() - {"reasoning", "user"}:
        with pytest.raises(InvalidRequestError, match=rf"'{name}'"):
            parse_chat_request({"messages": [{"role": "user", "content": "x"}], name: object()})
