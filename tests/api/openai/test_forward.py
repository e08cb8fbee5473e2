"""Forwarding to the OpenAI API: what is passed on, what is not, and what happens when something breaks."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from chat2api.simulator import openai_api
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import Prepared
from chat2api.storage.keys import KeyLimits
from tests.api.openai.forwarding import CHAT, OPERATOR, QUESTION, Forwarding, open_forwarding
from tests.e2e.harness import HouseClock, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMED = QUESTION | {"stream": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    async with open_forwarding(tmp_path_factory.mktemp("forward")) as running:
        yield running


async def test_an_answer_is_what_the_api_said(forwarding: Forwarding) -> None:
    answer = await forwarding.http.post(CHAT, json=QUESTION)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["choices"][0]["message"]["content"] == "Nile, Amazon, Danube."
    assert answer.json()["system_fingerprint"] == "fp_simulated"


async def test_a_stream_is_what_the_api_said_without_what_only_we_asked_for(forwarding: Forwarding) -> None:
    answer = await forwarding.http.post(CHAT, json=STREAMED)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.endswith("data: [DONE]\n\n")
    chunks = [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Nile, Amazon, Danube."
    assert not any("usage" in chunk for chunk in chunks)
    asked = orjson.loads(forwarding.api.control.requests[-1].request.body)
    assert asked == STREAMED | {"stream_options": {"include_usage": True}}


async def test_a_caller_who_asks_for_the_usage_gets_it(forwarding: Forwarding) -> None:
    body = STREAMED | {"stream_options": {"include_usage": True}}
    answer = await forwarding.http.post(CHAT, json=body)
    chunks = [orjson.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert chunks[0]["usage"] is None
    assert chunks[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", CHAT])
async def test_a_chat_is_taken_at_the_short_paths_as_well(forwarding: Forwarding, path: str) -> None:
    answer = await forwarding.http.post(path, json=QUESTION)
    assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
    assert forwarding.api.control.requests[-1].request.path == CHAT


@pytest.mark.parametrize(
    ("body", "kind", "status", "param"),
    [
        (b"model=gpt-4.1", "application/x-www-form-urlencoded", 415, None),
        (orjson.dumps(QUESTION), "text/plain", 415, None),
        (orjson.dumps(QUESTION | {"stream": "yes"}), "application/json", 400, "stream"),
        (orjson.dumps(QUESTION | {"stream": 1}), "application/json", 400, "stream"),
        (b'{"model":"gpt-4.1","model":"gpt-4o","messages":[]}', "application/json", 400, "model"),
        (b"{", "application/json", 400, None),
        (b"[]", "application/json", 400, "body"),
    ],
)
async def test_a_wrong_body_reaches_nobody(
    forwarding: Forwarding, body: bytes, kind: str, status: int, param: str | None
) -> None:
    answer = await forwarding.http.post(CHAT, content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert forwarding.api.control.requests == []


@pytest.mark.parametrize(
    "path", ["/v1/engines", "/v1/organization/usage", "/v1/chat", "/v1/files/../models", "/v1/fine_tuning/jobs"]
)
async def test_another_path_is_a_404_and_reaches_nobody(forwarding: Forwarding, path: str) -> None:
    answer = await forwarding.http.post(path, json=QUESTION)
    assert answer.status_code in (404, 405)
    assert forwarding.api.control.requests == []


async def test_G6_nothing_of_the_caller_but_the_call_is_sent(forwarding: Forwarding) -> None:
    headers = {
        "User-Agent": "somebody/1.0",
        "X-Forwarded-For": "203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "Cookie": "session=mine",
        "Referer": "https://private.example.org/page",
        "Accept-Language": "gsw",
        "X-Stainless-OS": "Linux",
        "Origin": "https://private.example.org",
        "OpenAI-Organization": "org-caller",
        "OpenAI-Beta": "responses=v1",
    }
    assert (await forwarding.http.post(CHAT, json=QUESTION, headers=headers)).status_code == 200
    sent = dict(forwarding.api.control.requests[-1].request.headers)
    assert sorted(sent) == sorted([
        "host", "authorization", "content-type", "x-chat2api-via", "user-agent", "accept", "accept-encoding", "content-length",
        "openai-beta",
    ])  # fmt: skip
    assert sent["user-agent"] == "chat2api"
    assert sent["authorization"] == f"Bearer {forwarding.api.keys[0]}"


async def test_S5_the_operators_key_never_travels(forwarding: Forwarding) -> None:
    await forwarding.http.post(CHAT, json=QUESTION)
    key = OPERATOR["Authorization"].removeprefix("Bearer ")
    for record in forwarding.api.control.requests:
        assert key not in repr(record.request.headers)
        assert key.encode() not in record.request.body


async def test_what_tells_the_operator_is_not_told_on(forwarding: Forwarding) -> None:
    for body in (QUESTION, STREAMED):
        told = (await forwarding.http.post(CHAT, json=body)).headers
        assert told["x-upstream-request-id"] == "req_simulated"
        assert told["x-request-id"].startswith("req_")
        assert told["x-request-id"] != "req_simulated"
        for name in told:
            assert not name.startswith(("openai-", "x-ratelimit-", "set-cookie", "cf-", "server")), name


async def test_a_refusal_is_told_as_it_is_but_for_whose_key_it_was(forwarding: Forwarding) -> None:
    text = (
        "This model is not open to org-AbCdEf123456. Visit https://platform.openai.com/settings/organization/billing."
    )
    forwarding.api.control.fail("chat", openai_api.fault(openai_api.error(422, text, code="odd")))
    answer = await forwarding.http.post(CHAT, json=QUESTION)
    assert answer.status_code == 422
    assert answer.json()["error"] == {
        "message": "This model is not open to (masked).",
        "type": "invalid_request_error",
        "param": None,
        "code": "odd",
    }
    unknown = await forwarding.http.post(CHAT, json=QUESTION | {"model": "gpt-nobody"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_call_that_comes_back_is_a_508(forwarding: Forwarding) -> None:
    own = forwarding.house.runtime.openai.id
    for via in (own, f"abc, {own}", ", ".join(letter * 16 for letter in "abcdef01")):
        answer = await forwarding.http.post(CHAT, json=QUESTION, headers={"x-chat2api-via": via})
        assert (answer.status_code, answer.json()["error"]["code"]) == (508, "loop_detected")
    assert forwarding.api.control.requests == []
    assert (
        await forwarding.http.post(CHAT, json=QUESTION, headers={"x-chat2api-via": f"{'a' * 16}, x/y"})
    ).status_code == 200
    assert dict(forwarding.api.control.requests[-1].request.headers)["x-chat2api-via"] == f"{'a' * 16}, {own}"


async def test_a_model_may_be_named_with_its_provider(forwarding: Forwarding) -> None:
    body = b'{ "model" : "openai/gpt-4.1", "seed": 123456789012345678901234567890, "messages": [{"role":"user",'
    body += b'"content":"\\u0041"}] }'
    answer = await forwarding.http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert forwarding.api.control.requests[-1].request.body == body.replace(b"openai/", b"")
    other = await forwarding.http.post(CHAT, json=QUESTION | {"model": "chatgpt/gpt-4o"})
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


async def test_the_list_of_models_is_the_apis(forwarding: Forwarding) -> None:
    listed = (await forwarding.http.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == list(openai_api.MODELS)
    one = await forwarding.http.get("/v1/models/whisper-1")
    assert one.json() == {"id": "whisper-1", "object": "model", "created": 1715367049, "owned_by": "system"}


@pytest.mark.parametrize("stream", [False, True])
async def test_R10_a_caller_who_leaves_ends_the_call(forwarding: Forwarding, stream: bool) -> None:
    forwarding.api.control.choose("chat", delay=0.05, events=1000)
    if not stream:
        forwarding.api.control.fail("chat", Fault("stall"))
    asking = asyncio.ensure_future(forwarding.http.post(CHAT, json=QUESTION | {"stream": stream}))
    await until(lambda: len(forwarding.api.control.replies) == 1, "the call has not arrived")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: forwarding.api.control.replies[0].outcome == "aborted", "the call still runs")
    await until(lambda: not forwarding.house.runtime.answers, "the answer is still known")
    assert forwarding.house.runtime.openai.pool.statistics().in_flight == 0


@pytest.mark.parametrize("do", ["reset", "close", "cut_frame", "end"])
async def test_a_stream_that_breaks_off_ends_with_an_error_and_is_not_repeated(forwarding: Forwarding, do: str) -> None:
    forwarding.api.control.fail("chat", Fault(do, at="mid_stream", after=2))  # type: ignore[arg-type]  # from the list
    answer = await forwarding.http.post(CHAT, json=STREAMED)
    assert answer.status_code == 200
    last = [line for line in answer.text.splitlines() if line][-1]
    assert orjson.loads(last.removeprefix("data: "))["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in answer.text
    assert len(forwarding.api.control.requests_to("chat")) == 1


@pytest.mark.parametrize("told", [b'{"error":{"message":"Overloaded."}}', b'{"type":"error","message":"Overloaded."}'])
async def test_an_error_that_the_api_tells_in_the_middle_is_the_only_one(forwarding: Forwarding, told: bytes) -> None:
    headers = await forwarding.issue()
    assert (await forwarding.http.post(CHAT, json=QUESTION)).status_code == 200, "what earlier tests broke is well"
    forwarding.fresh()
    body = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: ' + told + b"\n\n"
    forwarding.api.prepare(Prepared(body, kind="text/event-stream"))
    answer = await forwarding.http.post(CHAT, json=QUESTION | {"stream": True}, headers=headers)
    assert (answer.status_code, answer.content) == (200, body)
    assert len(forwarding.api.control.requests) == 1
    assert (await forwarding.http.get("/v1/usage", headers=headers)).json()["total"]["errors"] == 1


async def test_an_error_as_the_first_event_is_the_answers_status(forwarding: Forwarding) -> None:
    event = b'data: {"error":{"message":"Too long for org-AbCdEf123456","type":"invalid_request_error",'
    event += b'"code":"context_length_exceeded"}}\n\n'
    forwarding.api.prepare(Prepared(b": hello\n\n" + event, kind="text/event-stream"))
    answer = await forwarding.http.post(CHAT, json=STREAMED)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json()["error"]["message"] == "Too long for (masked)"


async def test_the_official_client_is_told_what_the_api_counted(forwarding: Forwarding) -> None:
    async with forwarding.house.client() as client:
        whole = await client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "rivers"}])
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 3
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "rivers"}])


async def test_only_post_is_taken_at_the_start(forwarding: Forwarding) -> None:
    page = await forwarding.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert (await forwarding.http.put("/", json=QUESTION)).status_code == 405


async def test_without_a_key_nobody_uses_the_operators_keys(forwarding: Forwarding) -> None:
    async with httpx.AsyncClient(base_url=forwarding.house.base, trust_env=False) as nobody:
        for bearer in ({}, {"Authorization": "Bearer sk-c2a-unknown"}, {"Authorization": "Bearer nonsense"}):
            await nobody.post(CHAT, json=QUESTION, headers=bearer)
    assert forwarding.api.control.requests == []


async def test_R2_a_stream_that_begins_late_is_kept_alive_and_its_failure_is_an_event(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("late"), KEEP_ALIVE_INTERVAL="0.1") as late:
        late.api.control.fail("chat", Fault("stall", seconds=0.45))
        answer = await late.http.post(CHAT, json=STREAMED)
        assert answer.text.startswith(": keep-alive\n\n")
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.text.count("Nile") == 1
        late.api.control.fail("chat", Fault("stall", seconds=0.45))
        late.api.prepare(Prepared(b'{"error":{"message":"No.","type":"invalid_request_error"}}', status=400))
        failed = await late.http.post(CHAT, json=STREAMED)
        assert failed.status_code == 200
        assert orjson.loads(failed.text.strip().splitlines()[-1].removeprefix("data: "))["error"]["message"] == "No."
        assert "[DONE]" not in failed.text
        late.api.control.fail("chat", Fault("stall", at="mid_stream", after=1, seconds=0.45))
        silent = await late.http.post(CHAT, json=STREAMED)
        assert ": keep-alive\n\n" in silent.text
        assert silent.text.endswith("data: [DONE]\n\n")


async def test_R1_an_api_that_never_answers_is_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    limits = {"FIRST_CONTENT_TIMEOUT": "0.5", "ANSWER_TIMEOUT": "0.5", "EVENT_TIMEOUT": "0.3", "RETRY_TIMES": "1"}
    limits |= {"FIRST_CONTENT_TIMEOUT_REASONING": "0.5", "ANSWER_TIMEOUT_REASONING": "0.5"}
    async with open_forwarding(
        tmp_path_factory.mktemp("slow"), keys=1, options=None, clock=None, tokens=(), **limits
    ) as slow:
        slow.api.control.fail("chat", Fault("stall"), times=None)
        for body in (QUESTION, STREAMED):
            answer = await slow.http.post(CHAT, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
            assert answer.headers["x-should-retry"] == "false"
        slow.fresh()
        slow.api.control.fail("chat", Fault("stall", at="mid_stream", after=1))
        cut = await slow.http.post(CHAT, json=STREAMED)
        assert "stream_interrupted" in cut.text
        await until(lambda: slow.api.control.replies[-1].outcome == "aborted", "the call still runs")


async def test_R12_a_caller_who_does_not_read_slows_the_api_down(forwarding: Forwarding) -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"' + b"x" * 4000 + b'"}}]}\n\n'
    forwarding.api.prepare(Prepared(chunk * 8000 + b"data: [DONE]\n\n", kind="text/event-stream"))
    host, port = forwarding.house.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = orjson.dumps(STREAMED)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readline()
    await until(lambda: bool(forwarding.api.control.replies), "the call has not arrived")
    await asyncio.sleep(0.5)
    (relay,) = forwarding.house.runtime.answers
    assert relay._events.events < 6000, "most of 32 MB is still with the API"  # type: ignore[attr-defined]  # the only relay
    writer.transport.abort()
    await until(lambda: not forwarding.house.runtime.answers, "the answer is still known")


async def test_with_accounts_and_keys_each_model_goes_where_it_is_offered(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with Simulator() as sim:
        settings = {"CHATGPT_BASE_URL": sim.url, "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token"}
        settings |= {"MODEL_ROUTES": "o4-mini=openai,gpt-4o-mini=chatgpt|openai"}
        tokens = [sim.control.accounts[0].access_token]
        async with open_forwarding(
            tmp_path_factory.mktemp("both"), keys=1, options=None, clock=None, tokens=tokens, **settings
        ) as both:

            async def served(model: str) -> str:
                both.fresh()
                answer = await both.http.post(CHAT, json=QUESTION | {"model": model})
                assert answer.status_code == 200, answer.text
                return "openai" if both.api.control.requests_to("chat") else "chatgpt"

            assert await served("gpt-4o") == "chatgpt"
            assert await served("openai/gpt-4o") == "openai"
            assert await served("text-embedding-3-small") == "openai"
            assert await served("o4-mini") == "openai"
            assert await served("gpt-4o-mini") == "chatgpt"
            listed = [model["id"] for model in (await both.http.get("/v1/models")).json()["data"]]
            assert {"auto", "gpt-4o", "whisper-1"} <= set(listed)
            assert len(listed) == len(set(listed))
            unknown = await both.http.post(CHAT, json=QUESTION | {"model": "chatgpt/nobody-knows-this"})
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
            sim.control.refuse("conversation", "model_cap", times=None)
            first = await both.http.post(CHAT, json=QUESTION | {"model": "gpt-4o-mini"})
            again = await both.http.post(CHAT, json=QUESTION | {"model": "gpt-4o-mini"})
            assert {first.status_code, again.status_code} <= {200, 429}
            assert again.json()["object"] == "chat.completion", "the accounts rest, and the rule names a fallback"
            assert both.api.control.requests_to("chat")
            one = await both.issue(limits=KeyLimits(requests_at_once=1, requests_per_minute=1))
            last = await both.http.post(CHAT, json=QUESTION | {"model": "gpt-4o-mini"}, headers=one)
            assert last.status_code == 200, "what was tried first holds no place any more"


async def test_S18_G6_neither_log_nor_records_hold_keys_prompts_or_answers(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    folder = tmp_path_factory.mktemp("canaries")
    prompt, said, own = "prompt-canary-4711", "answer-canary-4712", "sk-own-canary-4713"
    clock = HouseClock()
    async with open_forwarding(folder / "data", keys=2, clock=clock, LOG_LEVEL="debug") as kept:
        for key in kept.api.keys:
            assert key not in str(kept.house.runtime.config.summary())
        messages = [{"role": "user", "content": prompt}]
        kept.api.control.set_options(text=said)
        for body in (QUESTION | {"messages": messages}, STREAMED | {"messages": messages}):
            clock.advance(8 * 24 * 3600)  # every wait is over
            assert said in (await kept.http.post(CHAT, json=body)).text
            kept.api.control.fail("chat", openai_api.fault(openai_api.error(400, f"{prompt} is wrong.")))
            assert prompt in (await kept.http.post(CHAT, json=body)).text
            kept.api.control.fail("chat", Fault("answer", status=500, body=said), times=4)
            await kept.http.post(CHAT, json=body)
            kept.api.control.fail("chat", Fault("reset", at="mid_stream", after=1))
            await kept.http.post(CHAT, json=body)
            await kept.http.post(CHAT, json=body, headers={"Authorization": f"Bearer {own}"})
        await kept.http.post("/v1/responses", json={"model": "gpt-4.1", "input": prompt})
        secrets = [prompt, said, own, *kept.api.keys]
        metrics = (await kept.http.get("/metrics")).text
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in metrics
        assert secret.encode() not in stored


async def test_a_public_tier_is_served_by_the_operators_keys_within_its_rules(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("public"), PUBLIC_MODE="free") as public:
        messages = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "Name three rivers."}]
        async with httpx.AsyncClient(base_url=public.house.base, trust_env=False) as nobody:
            answer = await nobody.post(f"/free{CHAT}", json={"model": "gpt-4o-mini", "messages": messages})
            other = await nobody.post(f"/free{CHAT}", json={"model": "gpt-4.1", "messages": messages})
            upload = await nobody.post("/free/v1/embeddings", json={"model": "gpt-4o-mini", "input": "x"})
        assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
        assert other.status_code == 404
        assert upload.status_code == 403
        (record,) = public.api.control.requests_to("chat")
        sent = orjson.loads(record.request.body)
        assert sent["messages"] == messages[1:]
        assert sent["max_completion_tokens" if "max_completion_tokens" in sent else "max_tokens"] <= 1000


async def test_S39_a_header_that_is_none_is_left_out(forwarding: Forwarding) -> None:
    body = orjson.dumps({"id": "x", "object": "chat.completion", "choices": []})
    forwarding.api.prepare(Prepared(body, headers=(("x-request-id", "r\x7f1"), ("set-cookie", "a=b"))))
    answer = await forwarding.http.post(CHAT, json=QUESTION)
    assert answer.status_code == 200
    assert not {"x-upstream-request-id", "set-cookie"} & answer.headers.keys()


async def test_an_error_behind_a_good_status_is_told_as_one_and_masked(forwarding: Forwarding) -> None:
    body = b'{"error":{"message":"No such thing in org-AbCdEf123456.","type":"invalid_request_error","code":null}}'
    forwarding.api.prepare(Prepared(body))
    answer = await forwarding.http.post(CHAT, json=QUESTION)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "No such thing in (masked).")


async def test_a_refusal_that_came_as_a_page_is_told_as_json(forwarding: Forwarding) -> None:
    forwarding.api.prepare(Prepared(b"<html>", kind="text/html", status=404))
    answer = await forwarding.http.post(CHAT, json=QUESTION)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json()["error"]["type"] == "invalid_request_error"
