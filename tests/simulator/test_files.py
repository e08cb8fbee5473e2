"""Tests of files: create, upload, confirm, index, name in a message, download."""

from typing import Any

import httpx
import pytest

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import WebClient, message, read_classic, visible_text

_BLOB = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2020-04-08", "content-type": "image/png"}


async def _create(web: WebClient, size: int, use_case: str = "multimodal") -> dict[str, Any]:
    body = {"file_name": "pic.png", "file_size": size, "timezone_offset_min": -480, "use_case": use_case}
    answer = await web.post("/backend-api/files", body)
    assert answer.status_code == 200
    return dict(answer.json())


async def _put(web: WebClient, url: str, content: bytes, **headers: str) -> httpx.Response:
    return await web.http.put(url, content=content, headers={**_BLOB, **headers})


async def test_a_picture_is_uploaded_named_and_fetched(web: WebClient) -> None:
    made = await _create(web, 5)
    assert (await _put(web, made["upload_url"], b"12345")).status_code == 201
    path = f"/backend-api/files/{made['file_id']}"
    confirmed = (await web.post(path + "/uploaded", {})).json()
    assert (await web.http.get(confirmed["download_url"])).content == b"12345"
    pointer = {"content_type": "image_asset_pointer", "asset_pointer": f"file-service://{made['file_id']}"}
    asked = message("")
    asked["content"] = {"content_type": "multimodal_text", "parts": [{**pointer, "size_bytes": 5}, "What is this?"]}
    answer = await web.send(web.body(messages=[asked]))
    assert "and 1 picture" in visible_text(read_classic(answer.text))
    link = (await web.get(path + "/download")).json()["download_url"]
    assert (await web.http.get(link)).headers["content-type"] == "image/png"


async def test_the_blob_store_wants_its_headers_and_no_others(web: WebClient) -> None:
    made = await _create(web, 5)
    url = made["upload_url"]
    assert (await _put(web, url, b"12345", authorization="Bearer x")).status_code == 403
    assert (await web.http.put(url, content=b"12345")).status_code == 400
    assert (await _put(web, url, b"1234")).status_code == 400
    assert (await _put(web, url.replace("sig=", "sig=0"), b"12345")).status_code == 403
    assert (await _put(web, url.replace("sp=w", "sp=r").replace("se=", "se=1"), b"12345")).status_code == 403
    assert (await web.http.get(url)).status_code == 403
    assert (await web.post(f"/backend-api/files/{made['file_id']}/uploaded", {})).status_code == 400


async def test_an_unconfirmed_file_cannot_be_named(web: WebClient) -> None:
    made = await _create(web, 5)
    await _put(web, made["upload_url"], b"12345")
    asked = message("Read it")
    asked["metadata"] = {"attachments": [{"id": made["file_id"], "name": "pic.png"}]}
    assert (await web.send(web.body(messages=[asked]))).status_code == 400


async def test_the_index_is_ready_after_some_polls(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(pending_index_polls=2)
    made = await _create(web, 5, "my_files")
    await _put(web, made["upload_url"], b"12345")
    path = f"/backend-api/files/{made['file_id']}"
    await web.post(path + "/uploaded", {})
    states = [(await web.get(path)).json()["retrieval_index_status"] for _ in range(4)]
    assert states == ["pending", "pending", "success", "success"]


async def test_links_can_be_relative_and_need_the_bearer(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(relative_links=True)
    made = await _create(web, 5)
    await _put(web, made["upload_url"], b"12345")
    link = (await web.post(f"/backend-api/files/{made['file_id']}/uploaded", {})).json()["download_url"]
    assert link.startswith("/backend-api/estuary/content?")
    assert (await web.get(link)).content == b"12345"
    assert (await web.http.get(web.origin + link)).status_code == 401


async def test_files_belong_to_their_account(web: WebClient, sim: Simulator) -> None:
    made = await _create(web, 5)
    async with WebClient(sim, sim.control.accounts[1]) as stranger:
        assert (await stranger.get(f"/backend-api/files/{made['file_id']}")).status_code == 404


@pytest.mark.parametrize("change", [{"file_name": ""}, {"file_size": "5"}, {"file_size": -1}, {"use_case": "holiday"}])
async def test_a_bad_description_is_refused(web: WebClient, change: dict[str, object]) -> None:
    body = {"file_name": "a", "file_size": 5, "use_case": "multimodal", **change}
    assert (await web.post("/backend-api/files", body)).status_code == 422
