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
from tests.described import DOCUMENT, Node, check, resolve

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


def _schema(name: str) -> Node:
    return {"$ref": f"#/components/schemas/{name}"}


def test_every_reference_leads_somewhere() -> None:
    references = [str(node["$ref"]) for node in _nodes(DOCUMENT) if "$ref" in node]
    assert len(references) > 20
    for reference in references:
        assert resolve(reference)


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
    assert (
        len(names) == len(set(names)) == sum(len(cast(Node, path)) for path in cast(Node, DOCUMENT["paths"]).values())
    )


@pytest.mark.parametrize("tell", [False, True])
def test_a_reply_is_as_described(tell: bool) -> None:
    folder = ChatFolder("chatcmpl-1", 1, lambda slug: slug or "auto", tell_conversation=tell)
    folder.add(TURN)
    check(folder.reply(Usage(1, 2, 1)), _schema("ChatCompletion"))


@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks_are_as_described(include_usage: bool) -> None:
    encoder = ChatEncoder("chatcmpl-1", 1, lambda slug: slug or "auto", include_usage=include_usage)
    data = encoder.encode(TURN) + encoder.finish(Usage(1, 2, 1))
    blocks = data.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    for block in filter(None, blocks):
        check(orjson.loads(block.removeprefix("data: ")), _schema("ChatChunk"))


def test_errors_and_models_are_as_described() -> None:
    check(error_object(NotFoundError("No."))[1], _schema("Error"))
    check(model_list(["auto", "gpt-5-2"]), _schema("ModelList"))


def test_every_described_parameter_is_read() -> None:
    properties = cast(Node, resolve("#/components/schemas/ChatRequest")["properties"])
    # Clients send all kinds of things as these two, so odd ones are passed over.
    for name in properties.keys() - {"reasoning", "user"}:
        with pytest.raises(InvalidRequestError, match=rf"'{name}'"):
            parse_chat_request({"messages": [{"role": "user", "content": "x"}], name: object()})
