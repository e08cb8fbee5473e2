"""Reading a JSON request body."""

import json
from typing import Any

import pytest
from quart import Quart

from chat2api.api.body import LARGE_BODY, MAX_DEPTH, SMALL_BODY, UPLOAD_BODY, body_limit, read_json
from chat2api.errors import InvalidRequestError, UnsupportedMediaTypeError


async def read(data: bytes, content_type: str | None = "application/json") -> object:
    """Read a body as a route would."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with Quart("test").test_request_context("/", method="POST", headers=headers, data=data):
        return await read_json()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/chat/completions/",
        "/prefix/v1/chat/completions",
        "/v1/responses",
        "/v1/images/generations",
        "/v1",
        "/",
    ],
)
def test_S37_conversations_and_images_may_be_large(path: str) -> None:
    assert body_limit(path) == LARGE_BODY == 20 * 1024 * 1024


@pytest.mark.parametrize(
    "path", ["/v1/files", "/x/v1/audio/transcriptions", "/v1/images/edits", "/free/v1/images/variations/"]
)
def test_S37_files_may_be_larger_still(path: str) -> None:
    assert body_limit(path) == UPLOAD_BODY == 100 * 1024 * 1024


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions/x", "/chat", "/v1/xresponses", "/login"])
def test_S37_everything_else_is_small(path: str) -> None:
    assert body_limit(path) == SMALL_BODY == 4 * 1024 * 1024


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True]}, [], "text", 0, None, {"umlaut": "äöü", "emoji": "🛶"}, [[]] * 1000]
)
async def test_what_was_sent_is_what_is_read(value: Any) -> None:
    assert await read(json.dumps(value).encode()) == value
    assert await read(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json;x=y"]
)
async def test_json_may_be_declared_in_these_ways(content_type: str) -> None:
    assert await read(b"{}", content_type) == {}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "text/json",
        "application/jsonp",
        "multipart/form-data",
    ],
)
async def test_S25_what_a_browser_sends_without_asking_is_not_taken(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaTypeError) as caught:
        await read(b"{}", content_type)
    assert "Content-Type: application/json" in caught.value.message


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", "line 1 column 1"),
        (b'{"a": 1,\n "b" 2}', "line 2 column"),
        (b"{} {}", "line 1 column"),
        (b"\xff\xfe{}", ""),
        ("{}".encode("utf-16"), ""),
        (b'{"a": NaN}', "line 1"),
        (b'{"a": "\xff"}', ""),
        (b"{'a': 1}", "line 1 column 2"),
    ],
)
async def test_what_is_no_json_is_told_with_its_place_and_not_repeated(data: bytes, place: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await read(data)
    assert "not valid JSON" in caught.value.message
    assert place in caught.value.message
    assert caught.value.__cause__ is None, "the cause holds the body"
    assert caught.value.__suppress_context__


async def test_S18_the_body_is_not_in_the_error() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await read(b'{"prompt": "canary", }')
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
async def test_S37_nesting_is_bounded_exactly(opening: str, closing: str) -> None:
    def nested(levels: int) -> bytes:
        inside = "0" if opening != "[" else ""
        return (opening * levels + inside + closing * levels).encode()

    assert await read(nested(MAX_DEPTH)) is not None
    for levels in (MAX_DEPTH + 1, 1000, 100_000):
        with pytest.raises(InvalidRequestError):
            await read(nested(levels))


async def test_S37_wide_is_not_deep() -> None:
    value = await read(json.dumps([{"a": [1]}] * 50_000).encode())
    assert isinstance(value, list)
    assert len(value) == 50_000
