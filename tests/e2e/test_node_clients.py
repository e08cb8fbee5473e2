"""The clients from npm through the real server: the official one by every way in, and the AI SDK."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chat2api.simulator import openai_api
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.api.openai.forwarding import Forwarding, open_forwarding
from tests.api.tiers_house import SHARED_KEY, TIERS, issue, open_tiers_house
from tests.e2e.harness import ANSWER, OPERATOR_KEY, QUESTION, Bench, House, HouseClock, open_bench, until
from tests.node.clients import NodeDriver, Official, Refused, require_clients

pytestmark = pytest.mark.asyncio(loop_scope="module")

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
BODY = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
API_BODY = BODY | {"model": "gpt-4.1"}
CLOCK = HouseClock(20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeDriver]:
    require_clients()
    async with NodeDriver() as driver:
        yield driver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(node: NodeDriver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A server in front of ChatGPT accounts."""
    async with open_bench(tmp_path_factory.mktemp("accounts")) as bench:
        yield bench


@pytest.fixture
def client(node: NodeDriver, bench: Bench) -> Official:
    return node.official(f"{bench.house.base}/v1", OPERATOR_KEY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(node: NodeDriver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forwarding]:
    """A server in front of API keys, with tiers."""
    file = tmp_path_factory.mktemp("keyed") / "tiers.toml"
    file.write_text(TIERS, encoding="utf-8")
    data = file.parent / "data"
    async with open_forwarding(data, keys=2, clock=CLOCK, TIERS_FILE=str(file), PUBLIC_MODE="free") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def forwarding(running: Forwarding) -> Forwarding:
    await running.recover(CLOCK)
    return running


@pytest.fixture
def api_client(node: NodeDriver, forwarding: Forwarding) -> Official:
    return node.official(f"{forwarding.house.base}/v1", OPERATOR_KEY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def free(node: NodeDriver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A server whose public tier is served by sign-in-free chat."""
    async with Simulator() as sim, open_tiers_house(tmp_path_factory.mktemp("free"), sim) as house:
        yield house


async def refusal(client: Official, method: str, *args: object) -> Refused:
    """Give what the client throws."""
    with pytest.raises(Refused) as told:
        await client.call(method, *args)
    return told.value


# ChatGPT accounts


async def test_a_whole_answer_and_a_streamed_one_say_the_same(bench: Bench, client: Official) -> None:
    async with bench.case():
        assert await client.chat("auto", QUESTION) == await client.chat("auto", QUESTION, stream=True) == ANSWER
        *_, last = await client.call(
            "chat.completions.create", BODY | {"stream": True, "stream_options": {"include_usage": True}}
        )
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"] > 0


async def test_models_are_listed_and_found(bench: Bench, client: Official) -> None:
    async with bench.case():
        assert {"auto", "gpt-5-6"} <= {model["id"] for model in await client.call("models.list")}
        assert (await client.call("models.retrieve", "gpt-5-6"))["object"] == "model"


async def test_R10_a_stream_that_is_left_is_aborted_upstream(bench: Bench, client: Official) -> None:
    async with bench.case():
        bench.control.choose(times=None, events=100_000, delay=0.01)
        taken = await client.call("chat.completions.create", BODY | {"stream": True}, take=5)
        assert len(taken) == 5
        await bench.settled()
        assert [reply.outcome for reply in bench.control.streams] == ["aborted"]


@streamed
@pytest.mark.parametrize(
    ("named", "kind", "status", "code"),
    [
        ("message_too_long", "BadRequestError", 400, "context_length_exceeded"),
        ("cloudflare", "PermissionDeniedError", 403, "upstream_challenge"),
        ("conversation_not_found", "NotFoundError", 404, "conversation_not_found"),
        ("model_cap", "RateLimitError", 429, "rate_limit_exceeded"),
        ("server_error", "InternalServerError", 502, "upstream_server_error"),
    ],
)
async def test_T1_the_node_client_throws_the_class_that_fits(
    bench: Bench, client: Official, named: str, kind: str, status: int, code: str, stream: bool
) -> None:
    async with bench.case():
        bench.control.refuse("conversation", named, times=None)
        told = await refusal(client, "chat.completions.create", BODY | {"stream": stream})
    assert (told.kind, told.status, told.code) == (kind, status, code)
    assert (told.request_id or "").startswith("req_")


@streamed
async def test_T1_a_limit_is_thrown_with_its_time(bench: Bench, client: Official, stream: bool) -> None:
    async with bench.case():
        bench.control.refuse("conversation", "model_cap", clears_in=900)
        told = await refusal(client, "chat.completions.create", BODY | {"stream": stream})
    assert told.kind == "RateLimitError"
    assert 860 <= int(told.headers["retry-after"]) <= 900
    assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "param"), [({"temperature": "hot"}, "temperature"), ({"messages": []}, "messages"), ({"n": 0}, "n")]
)
async def test_T1_a_wrong_field_is_named(client: Official, fields: dict[str, object], param: str) -> None:
    told = await refusal(client, "chat.completions.create", BODY | fields)
    assert (told.kind, told.status, told.type, told.param) == ("BadRequestError", 400, "invalid_request_error", param)


async def test_T1_what_is_not_there_and_who_has_no_key_are_told(bench: Bench, node: NodeDriver) -> None:
    async with bench.case():
        known = node.official(f"{bench.house.base}/v1", OPERATOR_KEY)
        told = await refusal(known, "models.retrieve", "no-such-model")
        assert (told.kind, told.code) == ("NotFoundError", "model_not_found")
    stranger = node.official(f"{bench.house.base}/v1", "not-a-key")
    told = await refusal(stranger, "chat.completions.create", BODY)
    assert (told.kind, told.status, told.code) == ("AuthenticationError", 401, "invalid_api_key")


async def test_T1_an_error_inside_a_stream_is_thrown_there(bench: Bench, client: Official) -> None:
    async with bench.case():
        bench.control.choose(delay=0.02)
        bench.control.fail("conversation", Fault("close", at="mid_stream", after=2))
        told = await refusal(client, "chat.completions.create", BODY | {"stream": True})
    assert (told.kind, told.code) == ("APIError", "stream_interrupted")
    assert told.items


async def test_R3a_the_clients_own_repeats_do_not_multiply(bench: Bench, node: NodeDriver) -> None:
    patient = node.official(f"{bench.house.base}/v1", OPERATOR_KEY, maxRetries=2)
    async with bench.case(6):
        bench.control.refuse("conversation", "server_error", times=None)
        told = await refusal(patient, "chat.completions.create", BODY)
        assert told.kind == "InternalServerError"
        assert bench.calls <= 4


# API keys


@streamed
async def test_chat_is_forwarded(forwarding: Forwarding, api_client: Official, stream: bool) -> None:
    assert await api_client.chat("gpt-4.1", QUESTION, stream=stream) == ANSWER
    (sent,) = forwarding.api.control.requests
    assert (sent.request.header("authorization") or "").removeprefix("Bearer ") in forwarding.api.keys


async def test_responses_are_forwarded_and_found_again(forwarding: Forwarding, api_client: Official) -> None:
    whole = await api_client.call("responses.create", {"model": "gpt-4.1", "input": QUESTION})
    assert whole["output"][0]["content"][0]["text"] == ANSWER
    assert (await api_client.call("responses.retrieve", whole["id"]))["id"] == whole["id"]
    events = await api_client.call(
        "responses.create",
        {"model": "gpt-4.1", "input": "Name three rivers again.", "previous_response_id": whole["id"], "stream": True},
    )
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == ANSWER
    assert events[-1]["type"] == "response.completed"


async def test_embeddings_are_forwarded(forwarding: Forwarding, api_client: Official) -> None:
    told = await api_client.call("embeddings.create", {"model": "text-embedding-3-small", "input": ["a", "b"]})
    first, second = (one["embedding"] for one in told["data"])
    assert len(first) == len(second) == 8
    assert first != second


async def test_a_file_goes_up_is_found_and_is_deleted(forwarding: Forwarding, api_client: Official) -> None:
    text = '{"line": 1}\n' * 2000
    made = await api_client.call("files.create", {"purpose": "batch", "file": {"$file": ["lines.jsonl", text]}})
    assert made["bytes"] == len(text)
    assert [one["id"] for one in await api_client.call("files.list")] == [made["id"]]
    assert await api_client.call("files.content", made["id"]) == text
    assert (await api_client.call("files.delete", made["id"]))["deleted"]
    assert (await refusal(api_client, "files.retrieve", made["id"])).kind == "NotFoundError"


async def test_R10_a_forwarded_stream_that_is_left_ends_upstream(forwarding: Forwarding, api_client: Official) -> None:
    forwarding.api.control.choose("chat", events=100_000, delay=0.01)
    taken = await api_client.call("chat.completions.create", API_BODY | {"stream": True}, take=5)
    assert len(taken) == 5
    await until(lambda: forwarding.api.control.replies[-1].outcome == "aborted", "the call still runs")


@streamed
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (openai_api.error(400, "No."), "BadRequestError"),
        (openai_api.error(403, "Not in this country."), "PermissionDeniedError"),
        (openai_api.error(404, "No such model.", code="model_not_found"), "NotFoundError"),
        (openai_api.error(422, "No."), "UnprocessableEntityError"),
        (openai_api.error(500, "Broken.", "server_error"), "InternalServerError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_T1_forwarded_refusals_are_thrown_as_their_class(
    forwarding: Forwarding, api_client: Official, answer: Any, kind: str, stream: bool
) -> None:
    forwarding.api.control.fail("chat", openai_api.fault(answer), times=None)
    told = await refusal(api_client, "chat.completions.create", API_BODY | {"stream": stream})
    assert told.kind == kind


async def test_T1_a_limit_of_all_api_keys_is_thrown_with_its_time(forwarding: Forwarding, api_client: Official) -> None:
    forwarding.api.control.fail("chat", openai_api.limited(time="1h"), times=None)
    told = await refusal(api_client, "chat.completions.create", API_BODY)
    assert told.kind == "RateLimitError"
    assert 3500 < int(told.headers["retry-after"]) <= 3600


async def test_T1_a_forwarded_stream_that_breaks_throws_there(forwarding: Forwarding, api_client: Official) -> None:
    forwarding.api.control.choose("chat", events=50, delay=0.01)
    forwarding.api.control.fail("chat", Fault("reset", at="mid_stream", after=5))
    told = await refusal(api_client, "chat.completions.create", API_BODY | {"stream": True})
    assert (told.kind, told.code, len(told.items)) == ("APIError", "stream_interrupted", 6)


# Tiers


@streamed
async def test_a_public_tier_is_open_without_a_key(free: House, node: NodeDriver, stream: bool) -> None:
    assert await node.official(f"{free.base}/free/v1", "none").chat("gpt-3.5-turbo", QUESTION, stream=stream)


@streamed
@pytest.mark.parametrize(
    ("base", "model", "key"), [("/free", "gpt-4o-mini", "none"), ("/api/blog/shared", "gpt-4o", SHARED_KEY)]
)
async def test_the_api_keys_serve_a_tier_that_anybody_may_enter(
    forwarding: Forwarding, node: NodeDriver, base: str, model: str, key: str, stream: bool
) -> None:
    client = node.official(f"{forwarding.house.base}{base}/v1", key)
    assert await client.chat(model, QUESTION, stream=stream) == ANSWER
    (sent,) = forwarding.api.control.requests
    assert (sent.request.header("authorization") or "").removeprefix("Bearer ") in forwarding.api.keys


async def test_an_issued_key_stays_within_its_tier(forwarding: Forwarding, node: NodeDriver) -> None:
    base = f"{forwarding.house.base}/members/v1"
    member = node.official(base, await issue(forwarding.house, "members"))
    assert [model["id"] for model in await member.call("models.list")] == ["gpt-4o"]
    assert await member.chat("gpt-4o", QUESTION) == ANSWER
    assert (await refusal(member, "chat.completions.create", API_BODY)).kind == "NotFoundError"
    embeddings = await refusal(member, "embeddings.create", {"model": "gpt-4o", "input": "x"})
    assert embeddings.kind == "PermissionDeniedError"
    stranger = await refusal(node.official(base, "none"), "chat.completions.create", API_BODY | {"model": "gpt-4o"})
    assert stranger.kind == "AuthenticationError"


# The AI SDK


def said(told: dict[str, Any]) -> list[str]:
    assert "error" not in told, told["error"]
    return [turn["text"] for turn in told["turns"]]


@streamed
async def test_the_ai_sdk_converses_with_accounts(bench: Bench, node: NodeDriver, stream: bool) -> None:
    async with bench.case():
        base = f"{bench.house.base}/v1"
        told = await node.talk(base, OPERATOR_KEY, "chat", "auto", QUESTION, "Again: three rivers.", stream=stream)
        first, second = said(told)
        assert first == ANSWER
        assert second
        assert bench.control.received(ANSWER), "the second turn tells what the first one answered"
    assert [turn["finishReason"] for turn in told["turns"]] == ["stop", "stop"]
    assert all(turn["usage"]["outputTokens"] > 0 for turn in told["turns"])


@streamed
async def test_the_ai_sdk_converses_by_forwarded_chat(forwarding: Forwarding, node: NodeDriver, stream: bool) -> None:
    base = f"{forwarding.house.base}/v1"
    told = await node.talk(base, OPERATOR_KEY, "chat", "gpt-4.1", QUESTION, "And three more rivers?", stream=stream)
    assert said(told) == [ANSWER, ANSWER]


@streamed
async def test_T1_the_ai_sdk_tells_an_error_with_its_status(bench: Bench, node: NodeDriver, stream: bool) -> None:
    async with bench.case():
        bench.control.refuse("conversation", "server_error", times=None)
        told = await node.talk(f"{bench.house.base}/v1", OPERATOR_KEY, "chat", "auto", QUESTION, stream=stream)
    assert (told["error"]["kind"], told["error"]["status"]) == ("AI_APICallError", 502)
    assert told["error"]["data"]["error"]["code"] == "upstream_server_error"


@streamed
async def test_the_ai_sdk_converses_by_forwarded_responses(
    forwarding: Forwarding, node: NodeDriver, stream: bool
) -> None:
    base = f"{forwarding.house.base}/v1"
    texts = QUESTION, "And three more rivers?"
    told = await node.talk(base, OPERATOR_KEY, "responses", "gpt-4.1", *texts, stream=stream)
    assert said(told) == [ANSWER, ANSWER]
    first, second = forwarding.api.control.requests_to("responses")
    assert "item_reference" in second.request.body.decode(), "it names the first answer instead of repeating it"
    assert first.account == second.account, "which is with the key that made it"
