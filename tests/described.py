"""Holds what is really sent to what the OpenAPI document says of it, as far as this document's vocabulary goes."""

import re
from typing import cast

from chat2api.protocol.openai.openapi import openapi_document

Node = dict[str, object]
DOCUMENT = openapi_document("1.2.3")

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
    "boolean": (bool,),
}


def resolve(reference: str) -> Node:
    """Give what a reference in the document stands for."""
    node: object = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        assert isinstance(node, dict)
        node = node[step]
    return cast(Node, node)


def check(value: object, schema: Node) -> None:
    """Assert that value is what schema says; unknown keys are errors."""
    if "$ref" in schema:
        check(value, resolve(str(schema["$ref"])))
        return
    if "anyOf" in schema:
        for option in cast("list[Node]", schema["anyOf"]):
            try:
                check(value, option)
            except AssertionError:
                continue
            return
        raise AssertionError(f"{value!r} is none of {schema['anyOf']}")
    if "const" in schema:
        assert value == schema["const"]
        return
    if "enum" in schema:
        assert value in cast("list[object]", schema["enum"])
        return
    names = cast("list[str]", schema["type"] if isinstance(schema["type"], list) else [schema["type"]])
    assert type(value) in {kind for name in names for kind in _KINDS[name]}, (value, schema)
    if isinstance(value, dict):
        properties = cast("dict[str, Node]", schema["properties"])
        others = cast("Node | None", schema.get("additionalProperties"))
        assert set(cast("list[str]", schema.get("required", []))) <= value.keys()
        assert others is not None or value.keys() <= properties.keys(), value.keys() - properties.keys()
        for key, inner in value.items():
            check(inner, properties.get(key) or cast(Node, others))
    if isinstance(value, list):
        for inner in value:
            check(inner, cast(Node, schema["items"]))


def check_answer(method: str, path: str, status: int, body: object) -> None:
    """Assert that the document has this operation, and that this is one of its answers."""
    # A path without parameters goes before one with them.
    templates = sorted(cast("dict[str, Node]", DOCUMENT["paths"]), key=lambda template: template.count("{"))
    for template in templates:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            operation = cast("dict[str, Node]", DOCUMENT["paths"])[template].get(method.lower())
            assert isinstance(operation, dict), f"{method} {template} is not described"
            responses = cast("dict[str, Node]", operation["responses"])
            assert str(status) in responses, f"{method} {template} answers {status}"
            response = responses[str(status)]
            if "$ref" in response:
                response = resolve(str(response["$ref"]))
            content = cast("dict[str, Node]", response["content"])
            check(body, cast(Node, content["application/json"]["schema"]))
            return
    raise AssertionError(f"{path} is not described")
