"""The small pieces that OpenAPI documents are put together from."""

Schema = dict[str, object]


def ref(name: str) -> Schema:
    """Give a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Give a schema that also takes null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema) -> Schema:
    """Give an array's schema."""
    return {"type": "array", "items": items}


def object_of(properties: dict[str, Schema], required: tuple[str, ...] | None = None) -> Schema:
    """Give an object's schema; every property is required unless some are named."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def json_content(schema: Schema) -> Schema:
    """Give the content of a body or an answer in JSON."""
    return {"application/json": {"schema": schema}}


def errors(*statuses: int) -> Schema:
    """Give the answers for these statuses, which the document describes once for all operations."""
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}


def parameter(name: str, place: str, description: str, schema: Schema) -> Schema:
    """Give a parameter in the path, where it is needed, or in the query, where it is not."""
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}
