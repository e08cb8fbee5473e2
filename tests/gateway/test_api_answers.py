"""One attempt at a call of the API: what is an answer, and what is the attempt's failure."""

import pytest

from chat2api.errors import UpstreamProtocolError, UpstreamRefusedRequestError
from chat2api.gateway.api_answers import read_list, read_offered
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import Prepared
from tests.api.openai.forwarding import CHAT, QUESTION, Forwarding

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMED = QUESTION | {"stream": True}


@pytest.mark.parametrize("at", ["before_headers", "before_content"])
@pytest.mark.parametrize("stream", [False, True])
async def test_R3_a_connection_that_breaks_before_the_answer_is_made_again_once(
    three: Forwarding, at: str, stream: bool
) -> None:
    three.api.control.fail("chat", Fault("reset", at=at))  # type: ignore[arg-type]  # from the list
    answer = await three.http.post(CHAT, json=STREAMED if stream else QUESTION)
    assert answer.status_code == 200
    assert "Nile" in answer.text
    assert len(three.used()) == 2


async def test_R3_a_short_answer_that_breaks_in_the_middle_is_asked_for_again(three: Forwarding) -> None:
    three.api.control.fail("chat", Fault("reset", at="mid_stream"))
    assert (await three.http.post(CHAT, json=QUESTION)).status_code == 200
    assert len(three.used()) == 2


@pytest.mark.parametrize(
    "prepared",
    [
        Prepared(b"<html><body>Just a moment</body></html>", kind="text/html"),
        Prepared(b"", kind="application/json"),
        Prepared(b"<html>", kind="text/event-stream"),
        Prepared(b"", kind="text/event-stream"),
        Prepared(b": nothing\n\n", kind="text/event-stream"),
        Prepared(b'data: {"error":{"message":"Overloaded","type":"server_error"}}\n\n', kind="text/event-stream"),
        Prepared(b'{"error":{"message":"Overloaded","type":"server_error"}}'),
        Prepared(b"", status=302, headers=(("location", "https://elsewhere.example"),)),
    ],
)
async def test_R3_what_is_no_answer_goes_on_to_the_next_key(three: Forwarding, prepared: Prepared) -> None:
    three.api.prepare(prepared)
    answer = await three.http.post(CHAT, json=STREAMED)
    assert (answer.status_code, answer.text.count("[DONE]")) == (200, 1)
    assert len(three.used()) == 2


CREATED = b'data: {"type":"response.created","response":{"id":"resp_1","error":null}}\n\n'


def failed(code: str) -> Prepared:
    body = b'data: {"type":"response.failed","response":{"error":{"code":"%b","message":"No."}}}\n\n' % code.encode()
    return Prepared(CREATED + body, kind="text/event-stream")


async def test_R2_a_response_that_fails_before_it_says_anything_goes_on_to_the_next_key(three: Forwarding) -> None:
    body = {"model": "gpt-4.1", "input": "Name three rivers.", "stream": True}
    for code in ("server_error", "rate_limit_exceeded"):
        three.api.prepare(failed(code))
        answer = await three.http.post("/v1/responses", json=body)
        assert answer.status_code == 200
        assert ("response.failed" in answer.text, answer.text.count("event: response.completed")) == (False, 1)
    asked = len(three.api.control.requests)
    three.api.prepare(failed("invalid_prompt"))
    answer = await three.http.post("/v1/responses", json=body)
    assert (answer.status_code, answer.content) == (200, failed("invalid_prompt").body)
    assert len(three.api.control.requests) == asked + 1


async def test_a_list_is_read_for_what_has_an_id() -> None:
    assert read_list(b'{"data": [{"id": "a", "more": 1}, {"id": 5}, "b", {}]}') == [{"id": "a", "more": 1}]
    assert read_offered(200, b'{"data": []}') == []
    with pytest.raises(UpstreamRefusedRequestError):
        read_offered(403, b'{"data": []}')


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b'{"data": {}}'])
async def test_what_is_no_list_is_the_apis_failure(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        read_list(body)
