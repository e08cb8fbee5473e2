"""The OpenAI provider: which key serves, which rests, and what is told when none can."""

import asyncio

import pytest

from chat2api.gateway.openai import MODELS_SECONDS
from chat2api.gateway.provider import Caller
from chat2api.simulator import openai_api
from chat2api.simulator.faults import Fault
from chat2api.simulator.openai_api import Prepared
from tests.api.openai.forwarding import CHAT, OPERATOR, QUESTION, Forwarding, open_forwarding
from tests.e2e.harness import HouseClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMED = QUESTION | {"stream": True}


def ends(three: Forwarding) -> list[str]:
    return [key[-4:] for key in three.api.keys]


async def ask(three: Forwarding, **more: object) -> tuple[int, str | None, str | None]:
    answer = await three.http.post(CHAT, json=QUESTION | more)
    code = answer.json()["error"]["code"] if answer.status_code >= 400 else None
    return answer.status_code, code, answer.headers.get("retry-after")


@pytest.mark.parametrize("stream", [False, True])
async def test_R3_a_limited_key_rests_for_its_time_and_the_next_one_serves(
    three: Forwarding, stream: bool, house_clock: HouseClock
) -> None:
    three.api.control.fail("chat", openai_api.limited(time="1h"))
    body = STREAMED if stream else QUESTION
    assert (await three.http.post(CHAT, json=body)).status_code == 200
    limited = three.used()[0]
    assert three.used()[1] != limited
    for _ in range(12):
        assert (await ask(three))[0] == 200
    assert three.used().count(limited) == 1
    house_clock.advance(3700)
    for _ in range(30):
        await ask(three)
    assert three.used().count(limited) > 1


async def test_R7_a_wait_holds_for_its_model_alone(three: Forwarding) -> None:
    for _ in range(3):
        three.api.control.fail("chat", openai_api.limited(time="1h"))
    status, code, after = await ask(three)
    assert (status, code) == (429, "rate_limit_exceeded")
    assert 3500 < int(after or 0) <= 3600
    assert (await ask(three, model="gpt-4o"))[0] == 200
    before = len(three.used())
    assert (await ask(three))[0] == 429
    assert len(three.used()) == before


async def test_a_key_without_credit_is_set_aside_and_the_caller_hears_nothing_of_it(three: Forwarding) -> None:
    three.api.control.fail("chat", openai_api.out_of_credit(), account=ends(three)[0], times=None)
    for _ in range(10):
        assert (await ask(three))[0] == 200
    assert three.used().count(ends(three)[0]) <= 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_R3_a_failing_server_is_asked_again_and_then_by_another_key(three: Forwarding, status: int) -> None:
    three.api.control.fail("chat", Fault("answer", status=status, body="<html>bad</html>"), times=2)
    assert (await ask(three))[0] == 200
    first, second, third = three.used()
    assert first == second != third


async def test_R3_what_fails_for_good_is_told_once_and_finally(three: Forwarding) -> None:
    three.api.control.fail("chat", Fault("answer", status=503), times=None)
    answer = await three.http.post(CHAT, json=QUESTION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_server_error")
    assert answer.headers["x-should-retry"] == "false"
    assert len(three.used()) <= 4


async def test_R3_a_wrong_request_is_told_at_once_and_costs_no_key_anything(three: Forwarding) -> None:
    for status in (400, 404, 409, 413, 422):
        three.fresh()
        three.api.control.fail("chat", openai_api.fault(openai_api.error(status, "No.", code="why")))
        assert (await ask(three))[:2] == (status, "why")
        assert len(three.used()) == 1


async def test_a_key_that_may_not_is_passed_over_for_this_request(three: Forwarding) -> None:
    refusal = openai_api.error(
        403, "Project `proj_AbCdEf123456` does not have access to model `gpt-4.1`.", code="model_not_found"
    )
    for end in ends(three)[:2]:
        three.api.control.fail("chat", openai_api.fault(refusal), account=end, times=None)
    for _ in range(6):
        assert (await ask(three))[0] == 200
    three.api.control.fail("chat", openai_api.fault(refusal), times=None)
    assert (await ask(three))[:2] == (403, "permission_denied")


async def test_R3a_the_official_client_does_not_multiply_the_attempts(three: Forwarding) -> None:
    three.api.control.fail("chat", Fault("answer", status=500), times=None)
    async with three.house.client() as client:
        with pytest.raises(Exception, match="API failed"):
            await client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "x"}])
    assert len(three.used()) <= 4


async def test_R5_who_makes_any_server_fail_waits_alone(three: Forwarding, house_clock: HouseClock) -> None:
    one, other, third = [await three.issue(name) for name in ("one", "other", "third")]
    poison = QUESTION | {"model": "gpt-4.1-mini"}
    three.api.control.fail("chat", Fault("answer", status=500), times=None)
    for _ in range(4):
        await three.http.post(CHAT, json=poison, headers=one)
    asked = len(three.used())
    assert asked == 5, "the breaker of this caller has opened"
    refused = await three.http.post(CHAT, json=QUESTION, headers=one)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 30
    three.fresh()
    for headers in (other, third, OPERATOR):
        assert (await three.http.post(CHAT, json=QUESTION, headers=headers)).status_code == 200
    house_clock.advance(31)
    assert (await three.http.post(CHAT, json=QUESTION, headers=one)).status_code == 200
    assert (await three.http.post(CHAT, json=QUESTION, headers=one)).status_code == 200


async def test_R5_what_fails_for_two_callers_is_closed_for_all(three: Forwarding) -> None:
    one, other, third = [await three.issue(name) for name in ("one", "other", "third")]
    three.api.control.fail("chat", Fault("answer", status=500), times=None)
    for headers in (one, other, one, other):
        await three.http.post(CHAT, json=QUESTION, headers=headers)
    three.fresh()
    answer = await three.http.post(CHAT, json=QUESTION, headers=third)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert three.used() == []


async def test_the_same_end_user_stays_with_one_key(three: Forwarding) -> None:
    for _ in range(8):
        await ask(three, user="somebody")
    assert len(set(three.used())) == 1
    three.fresh()
    for number in range(30):
        await ask(three, user=f"user {number}")
    assert len(set(three.used())) == 3


async def test_many_at_once_are_spread(three: Forwarding) -> None:
    assert [status for status, _, _ in await asyncio.gather(*(ask(three) for _ in range(40)))] == [200] * 40
    assert set(three.used()) == set(ends(three))
    assert three.house.runtime.openai.pool.statistics().in_flight == 0


async def test_a_refused_key_is_dead_until_the_operator_acts(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("dead"), keys=2, clock=HouseClock(20)) as two:
        gone = two.api.keys.pop(0)
        for _ in range(10):
            assert (await ask(two))[0] == 200
        records = two.api.control.requests_to("chat")
        assert sum(gone in repr(record.request.headers) for record in records) <= 1
        two.api.keys.clear()
        answer = await two.http.post(CHAT, json=QUESTION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_account")
        assert "OPENAI_API_KEYS" in answer.text
        assert not any(key[:12] in answer.text for key in (gone, two.api.url))
        two.fresh()
        assert (await ask(two))[0] == 503
        assert two.api.control.requests == []


@pytest.mark.parametrize("gone", [0, 1])
async def test_R7_beside_a_refused_key_the_limit_of_another_is_told(
    tmp_path_factory: pytest.TempPathFactory, gone: int
) -> None:
    folder = tmp_path_factory.mktemp("beside")
    async with open_forwarding(folder, keys=2, clock=HouseClock(20), RANDOM_TOKEN="false") as two:
        limited = ends(two)[1 - gone]
        del two.api.keys[gone]
        two.api.control.fail("chat", openai_api.limited(time="1h"), account=limited, times=None)
        status, code, after = await ask(two)
        assert (status, code) == (429, "rate_limit_exceeded")
        assert 3500 < int(after or 0) <= 3600


async def test_own_keys_are_used_as_they_are_and_told_what_the_api_says(three: Forwarding) -> None:
    own = {"Authorization": "Bearer " + openai_api.make_key("somebody", 9)}
    three.api.keys.append(own["Authorization"][7:])
    try:
        answer = await three.http.post(CHAT, json=QUESTION, headers=own)
        assert (answer.status_code, answer.headers["x-ratelimit-limit-requests"]) == (200, "500")
        assert three.used() == [own["Authorization"][-4:]]
        three.api.control.fail("chat", openai_api.limited(time="20s"))
        limited = await three.http.post(CHAT, json=QUESTION, headers=own)
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "20s" in limited.text
        assert "org-" not in limited.text
        three.api.control.fail("chat", Fault("answer", status=500))
        assert (await three.http.post(CHAT, json=QUESTION, headers=own)).status_code == 200
        assert set(three.used()) == {own["Authorization"][-4:]}
        listed = await three.http.get("/v1/models", headers=own)
        assert listed.status_code == 200
    finally:
        three.api.keys.pop()
    wrong = await three.http.post(CHAT, json=QUESTION, headers=own)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    assert own["Authorization"][-4:] not in wrong.text
    listed = await three.http.get("/v1/models", headers=own)
    assert (listed.status_code, listed.json()["error"]["code"]) == (401, "caller_token_rejected")


async def test_OWN_TOKENS_decides_who_may_bring_a_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("off"), OWN_TOKENS="off") as off:
        own = {"Authorization": "Bearer " + off.api.keys[0]}
        answer = await off.http.post(CHAT, json=QUESTION, headers=own)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert "OWN_TOKENS" in answer.text
        assert off.api.control.requests == []
        assert (await off.http.post(CHAT, json=QUESTION, headers=OPERATOR)).status_code == 200


async def test_a_server_that_takes_no_question_for_usage_is_asked_without_from_then_on(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with open_forwarding(tmp_path_factory.mktemp("old"), keys=2) as old:
        refusal = openai_api.error(422, "body.stream_options: Extra inputs are not permitted")
        old.api.control.fail("chat", openai_api.fault(refusal))
        answer = await old.http.post(CHAT, json=STREAMED)
        assert (answer.status_code, answer.text.count("[DONE]")) == (200, 1)
        assert len(set(old.used())) == 1, "no other key was tried"
        assert (await old.http.post(CHAT, json=STREAMED)).status_code == 200
        sent = [record.request.json() for record in old.api.control.requests_to("chat")]
        assert ["stream_options" in body for body in sent if isinstance(body, dict)] == [True, False, False]
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
        body = b'data: {"choices":[{"finish_reason":"stop"}],"usage":null}\n\n' + usage + b"data: [DONE]\n\n"
        old.api.prepare(Prepared(body, kind="text/event-stream"))
        assert (await old.http.post(CHAT, json=STREAMED)).content == body, "nothing is taken out that was not asked for"
        asked = STREAMED | {"stream_options": {"include_usage": True}}
        old.api.control.fail("chat", openai_api.fault(refusal))
        assert (await ask(old, **asked))[0] == 422


async def test_what_the_api_calls_its_models_is_asked_now_and_then(three: Forwarding, house_clock: HouseClock) -> None:
    openai = three.house.runtime.openai
    operator = Caller("operator", owner="key:one")
    house_clock.advance(2 * MODELS_SECONDS)
    named = Prepared(b'{"data":[{"id":"openai/gpt-oss"}]}')
    three.api.prepare(named)
    assert await openai.lists(operator, "openai/gpt-oss")
    assert not await openai.lists(operator, "gpt-oss")
    assert len(three.api.control.requests) == 1
    three.api.prepare(named)
    mine = Caller("own_key", owner="own:mine", token=three.api.keys[0])
    assert await openai.lists(mine, "openai/gpt-oss")
    assert await openai.lists(mine, "openai/gpt-oss")
    assert len(three.api.control.requests) == 2
    nobodys = Caller("own_key", owner="own:other", token="sk-nobodys")
    for _ in range(3):
        assert not await openai.lists(nobodys, "openai/gpt-oss")
    assert len(three.api.control.requests) == 3
    house_clock.advance(2 * MODELS_SECONDS)
    assert not await openai.lists(operator, "openai/gpt-oss")


async def test_a_name_with_a_providers_goes_to_a_server_that_has_it_as_it_is(
    three: Forwarding, house_clock: HouseClock
) -> None:
    house_clock.advance(2 * MODELS_SECONDS)
    three.api.prepare(Prepared(b'{"data":[{"id":"openai/gpt-4.1"}]}'))
    assert (await ask(three, model="openai/gpt-4.1"))[1] == "model_not_found", (
        "the simulated API has it by another name"
    )
    assert b'"model":"openai/gpt-4.1"' in three.api.control.requests[-1].request.body.replace(b" ", b"")
    house_clock.advance(2 * MODELS_SECONDS)
    assert (await ask(three, model="openai/gpt-4.1"))[0] == 200
