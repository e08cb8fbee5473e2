"""The forwarded calls in the OpenAPI document: all of them, with the bodies that are taken and the kinds that are answered."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from chat2api.api.openai.operations import OPERATIONS
from chat2api.protocol.openai.openapi import openapi_document
from chat2api.protocol.openai.openapi_forwarded import forwarded_paths
from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.described import DOCUMENT, check
from tests.test_documents import real_routes

PATHS = cast("dict[str, dict[str, Any]]", forwarded_paths(""))
FORM = {"file": ("a.wav", b"RIFF", "audio/wav")}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): operation for path, found in PATHS.items() for method, operation in found.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forwarding(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("described")) as forwarding:
        yield forwarding


def test_every_one_of_these_routes_is_described_and_no_other() -> None:
    assert set(operations()) == real_routes("operations.", "uploads.")
    for (_, path), operation in operations().items():
        named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert named == (["identifier"] if "{identifier}" in path else [])


def test_S3_they_are_behind_the_prefix() -> None:
    paths = cast("dict[str, object]", openapi_document("1", "/x")["paths"])
    assert {f"/x{path}" for path in PATHS} <= paths.keys()
    assert not PATHS.keys() & paths.keys()


@pytest.mark.parametrize("path", OPERATIONS)
def test_a_model_may_be_left_out_where_it_really_may(path: str) -> None:
    schema = PATHS[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    if (default := OPERATIONS[path].model) is None:
        assert schema == {"$ref": "#/components/schemas/ForwardedCall"}
    else:
        assert (schema["required"], schema["properties"]["model"]["default"]) == ([], default)


def test_their_keys_are_the_documents_and_their_refusals_the_servers() -> None:
    assert DOCUMENT["security"] == [{"bearer": []}, {}]
    for operation in operations().values():
        assert "security" not in operation
        answers = operation["responses"]
        assert {"200", "401", "404", "429", "503", "default"} <= answers.keys()
        assert answers["429"] == {"$ref": "#/components/responses/Error429"}


TEXT = {"model": "gpt-4.1", "input": "Name three rivers."}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/responses", {"json": TEXT}),
        ("/v1/responses", {"json": TEXT | {"stream": True}}),
        ("/v1/embeddings", {"json": TEXT | {"model": "text-embedding-3-small"}}),
        ("/v1/moderations", {"json": {"input": "rivers"}}),
        ("/v1/images/generations", {"json": {"prompt": "a river"}}),
        ("/v1/audio/transcriptions", {"data": {"model": "whisper-1"}, "files": FORM}),
        ("/v1/audio/transcriptions", {"data": {"model": "whisper-1", "response_format": "text"}, "files": FORM}),
        ("/v1/files", {"data": {"purpose": "assistants"}, "files": FORM}),
    ],
)
async def test_what_is_answered_is_of_a_kind_that_is_described(
    forwarding: Forwarding, path: str, sent: dict[str, Any]
) -> None:
    described = PATHS[path]["post"]
    answer = await forwarding.http.post(path, **sent)
    kind = answer.headers["content-type"].partition(";")[0]
    taken = "application/json" if "json" in sent else "multipart/form-data"
    assert taken in described["requestBody"]["content"]
    assert answer.status_code == 200, answer.text
    assert kind in described["responses"]["200"]["content"]
    assert "x-upstream-request-id" in answer.headers


@pytest.mark.asyncio(loop_scope="module")
async def test_other_bodies_and_unknown_ids_are_refused_as_described(forwarding: Forwarding) -> None:
    for path in ("/v1/embeddings", "/v1/files"):
        answer = await forwarding.http.post(path, content=b"x", headers={"content-type": "text/plain"})
        assert str(answer.status_code) in PATHS[path]["post"]["responses"]
        check(answer.json(), {"$ref": "#/components/schemas/Error"})
    answer = await forwarding.http.get("/v1/files/file-nobody")
    assert answer.status_code == 404
    check(answer.json(), {"$ref": "#/components/schemas/Error"})


@pytest.mark.asyncio(loop_scope="module")
async def test_the_list_of_files_is_as_described(forwarding: Forwarding) -> None:
    listed = (await forwarding.http.get("/v1/files", params={"limit": "1", "order": "asc"})).json()
    check(listed | {"data": []}, {"$ref": "#/components/schemas/ForwardedFiles"})
