"""What requests of issued keys cost, through the real server and the official client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from chat2api.keys.issue import Issued
from chat2api.protocol.openai.usage import count_tokens
from chat2api.simulator.faults import Fault
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.quotas import Room
from chat2api.storage.usage import UsageRow, day_of
from tests.e2e.harness import ANSWER, OPERATOR_KEY, QUESTION, Bench, Caller, chat_body, open_bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREE = KeyLimits(requests_per_minute=None, requests_at_once=None)
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("charging"), speed=1.0) as opened:
        yield opened


async def issue(bench: Bench, limits: KeyLimits = FREE, scope: KeyScope | None = None, **fields: Any) -> Issued:
    new = NewKey("somebody", None, scope=scope or KeyScope(), limits=limits, **fields)
    return await bench.house.runtime.keys.issue(new)


async def used(bench: Bench, issued: Issued) -> dict[str, int]:
    """What counts against the key's limits."""
    rooms: tuple[Room, ...] = await bench.house.runtime.quotas.rooms(issued.key)
    return {room.name: room.used for room in rooms}


async def booked(bench: Bench, key: str) -> list[UsageRow]:
    await bench.house.runtime.ledger.flush()
    return list(await bench.house.runtime.records.usage.rows(key=key))


def client(bench: Bench, issued: Issued, **options: Any) -> openai.AsyncOpenAI:
    return bench.house.client(issued.secret, **options)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_issued_key_works_with_the_official_client_and_its_usage_is_booked(bench: Bench, stream: bool) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(tokens_total=1_000_000))
        async with client(bench, issued) as official:
            if stream:
                chunks = [
                    chunk
                    async for chunk in await official.chat.completions.create(
                        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                    )
                ]
                text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
                usage = chunks[-1].usage
            else:
                answer = await official.chat.completions.create(model="gpt-4o", messages=MESSAGES)
                text, usage = answer.choices[0].message.content or "", answer.usage
        assert ANSWER in text and usage is not None

        await until(lambda: bench.house.in_flight == 0, "an account is leased")
        (row,) = await booked(bench, issued.key.id)
        (view,) = bench.house.runtime.pool.views()
        assert (row.day, row.account) == (day_of(bench.clock.now()), view.account.label)
        assert (row.model, row.requests, row.errors, row.images) == ("gpt-4o", 1, 0, 0)
        assert (row.prompt_tokens, row.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
        assert row.completion_tokens == count_tokens(text)
        assert 0 < row.seconds < 60
        assert (await used(bench, issued))["tokens_total"] == usage.total_tokens


async def test_all_answers_to_an_issued_key_tell_what_is_left(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(requests_per_minute=10, tokens_per_day=50_000))
        for number, stream in enumerate((False, True), start=1):
            told = await bench.ask(stream, key=issued.secret)
            assert told.headers["x-ratelimit-limit-requests"] == "10"
            assert told.headers["x-ratelimit-remaining-requests"] == str(10 - number)
            assert told.headers["x-ratelimit-reset-requests"][-1] == "s"
            assert told.headers["x-ratelimit-limit-tokens"] == "50000"
            assert 0 < int(told.headers["x-ratelimit-remaining-tokens"]) < 50_000
        bearer = {"Authorization": f"Bearer {issued.secret}"}
        for path, status in (("/v1/models", 200), ("/v1/models/no-such", 404)):
            answer = await bench.http.get(path, headers=bearer)
            assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (status, "8")
        refused = await bench.ask(key=issued.secret, n="many")
        assert (refused.status, refused.headers["x-ratelimit-remaining-requests"]) == (400, "8"), "errors cost nothing"
        operator = await bench.ask(key=OPERATOR_KEY)
        assert not [name for name in operator.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("stream", [False, True])
async def test_T1_a_reached_rate_is_the_clients_rate_limit_error(bench: Bench, stream: bool) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(requests_per_minute=1))
        async with client(bench, issued, max_retries=0) as official:
            await official.chat.completions.create(model="auto", messages=MESSAGES)
            calls = bench.calls
            with pytest.raises(openai.RateLimitError) as caught:
                await official.chat.completions.create(model="auto", messages=MESSAGES, stream=stream)
        assert (caught.value.type, caught.value.code) == ("requests", "rate_limit_exceeded")
        headers = caught.value.response.headers
        assert 55 <= int(headers["retry-after"]) <= 60
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-should-retry" not in headers
        assert bench.calls == calls


async def test_T1_R3a_a_used_up_quota_is_final(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(requests_per_day=1))
        requests: list[httpx.Request] = []

        async def count(request: httpx.Request) -> None:
            requests.append(request)

        transport = httpx.AsyncClient(event_hooks={"request": [count]})
        async with client(bench, issued, http_client=transport) as official:
            await official.chat.completions.create(model="auto", messages=MESSAGES)
            with pytest.raises(openai.RateLimitError) as caught:
                await official.chat.completions.create(model="auto", messages=MESSAGES)
        assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
        assert len(requests) == 2, "the client did not repeat"


async def test_R8_200_parallel_calls_on_a_quota_of_100(bench: Bench) -> None:
    async with bench.case(accounts=3):
        limits = KeyLimits(requests_per_minute=None, requests_at_once=None, requests_total=100)
        issued = await issue(bench, limits)
        before = bench.calls
        answers = await asyncio.gather(*(bench.ask(number % 2 == 0, key=issued.secret) for number in range(200)))
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (100, 100)
        assert bench.calls - before == 100
        assert (await used(bench, issued))["requests_total"] == 100
        assert sum(row.requests for row in await booked(bench, issued.key.id)) == 100


async def test_requests_at_once_are_held_to_their_number(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(requests_at_once=2))
        bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=2)
        callers = [Caller(bench, True, key=issued.secret) for _ in range(2)]
        for caller in callers:
            await caller.send()
            await caller.read_until(b"data: ")
        refused = await bench.ask(key=issued.secret)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        for caller in callers:
            caller.leave()
        await bench.settled()
        assert (await bench.ask(key=issued.secret)).status == 200


async def test_a_failed_call_gives_its_reservation_back(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(1, 1000, 1, 1, 1000, 1, 1000))
        for _ in range(2):
            bench.control.fail("conversation", Fault("answer", status=400), times=1)
            told = await bench.ask(key=issued.secret, content="x", max_tokens=10)
            assert told.status == 400
            bench.open_way()
        assert set((await used(bench, issued)).values()) == {0}
        (row,) = await booked(bench, issued.key.id)
        assert (row.requests, row.errors, row.prompt_tokens, row.completion_tokens) == (0, 2, 0, 0)


async def test_R10_a_caller_who_leaves_pays_for_what_came(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(tokens_total=100_000))
        bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=1)
        caller = Caller(bench, True, key=issued.secret, max_tokens=5000)
        await caller.send()
        await caller.read_until(b"delta")
        assert (await used(bench, issued))["tokens_total"] > 5000
        caller.leave()
        await bench.settled()
        (row,) = await booked(bench, issued.key.id)
        assert (row.requests, row.errors) == (1, 0)
        assert row.prompt_tokens > 0 and 0 < row.completion_tokens < 50
        assert (await used(bench, issued))["tokens_total"] == row.prompt_tokens + row.completion_tokens


async def test_R10_a_caller_who_leaves_before_anything_came_pays_nothing_but_stays_in_the_rate(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(requests_per_minute=5, tokens_total=100_000, requests_total=5))
        bench.control.fail("conversation", Fault("stall", at="before_headers"), times=1)
        caller = Caller(bench, True, key=issued.secret, max_tokens=5000)
        calls = bench.calls
        await caller.send()
        await until(lambda: bench.calls > calls, "no call arrived")
        caller.leave()
        await bench.settled()
        assert await used(bench, issued) == {
            "requests_per_minute": 1,
            "requests_at_once": 0,
            "requests_total": 0,
            "tokens_total": 0,
        }
        assert await booked(bench, issued.key.id) == []


async def test_R10_callers_who_leave_in_any_phase_give_back_all_that_they_held(bench: Bench) -> None:
    async with bench.case(accounts=2):
        limits = KeyLimits(requests_per_minute=None, requests_at_once=40, requests_total=1000, tokens_total=10**6)
        issued = await issue(bench, limits)
        faults = [
            Fault("stall", at="before_headers"),
            Fault("stall", at="before_content"),
            Fault("stall", at="mid_stream", after=1),
        ]
        callers = []
        for number in range(30):
            route = ("requirements", "conversation")[number % 2]
            fault = Fault("stall") if route == "requirements" else faults[number // 2 % 3]
            bench.control.fail(route, fault, times=1)
            callers.append(Caller(bench, number % 4 > 1, key=issued.secret, max_tokens=700))
            await callers[-1].send()
        await until(lambda: len(bench.house.runtime.answers) > 10, "the calls did not arrive")
        for number, caller in enumerate(callers):
            caller.leave(reset=number % 5 == 0)
        await until(lambda: not bench.house.runtime.answers, "an answer goes on")
        await bench.settled()
        rows = await booked(bench, issued.key.id)
        charged = sum(row.requests for row in rows)
        tokens = sum(row.prompt_tokens + row.completion_tokens for row in rows)
        assert await used(bench, issued) == {
            "requests_at_once": 0,
            "requests_total": charged,
            "tokens_total": tokens,
        }


async def test_S13_a_revoked_key_ends_its_running_streams_and_no_others(bench: Bench) -> None:
    async with bench.case(accounts=2):
        issued, other = await issue(bench), await issue(bench)
        bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=2)
        mine, theirs = Caller(bench, True, key=issued.secret), Caller(bench, True, key=other.secret)
        for caller in (mine, theirs):
            await caller.send()
            await caller.read_until(b"delta")
        await bench.house.runtime.keys.revoke(issued.key.id)
        end = await mine.read_until(b"invalid_api_key")
        assert b"[DONE]" not in end
        assert len(bench.house.runtime.answers) >= 1
        theirs.leave()
        mine.leave()
        assert (await bench.ask(key=issued.secret)).status == 401
        await bench.settled()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_outside_of_the_keys_list_is_not_found(bench: Bench, stream: bool) -> None:
    async with bench.case():
        issued = await issue(bench, scope=KeyScope(models=("gpt-4o*", "o3")))
        calls = bench.calls
        for model in ("gpt-5", "made-up", "auto"):
            told = await bench.ask(stream, key=issued.secret, model=model)
            assert (told.status, told.error["code"], told.error["param"]) == (404, "model_not_found", "model")
        assert bench.calls == calls
        assert (await bench.ask(stream, key=issued.secret, model="gpt-4o-mini")).status == 200
        bearer = {"Authorization": f"Bearer {issued.secret}"}
        listed = [model["id"] for model in (await bench.http.get("/v1/models", headers=bearer)).json()["data"]]
        assert listed and all(name.startswith("gpt-4o") or name == "o3" for name in listed)
        everything = (await bench.http.get("/v1/models", headers={"Authorization": f"Bearer {OPERATOR_KEY}"})).json()
        assert len(everything["data"]) > len(listed)
        assert (await bench.http.get("/v1/models/auto", headers=bearer)).status_code == 404
        assert (await bench.http.get(f"/v1/models/{listed[0]}", headers=bearer)).status_code == 200


async def test_a_key_uses_only_the_accounts_that_it_is_held_to(bench: Bench) -> None:
    async with bench.case(accounts=3) as accounts:
        runtime = bench.house.runtime
        labels = [account.label for account in runtime.pool.accounts()]
        await runtime.editor.set_groups(runtime.pool.accounts()[2].id, ["team"])
        by_label = await issue(bench, scope=KeyScope(accounts=(labels[1],)))
        by_group = await issue(bench, scope=KeyScope(groups=("team",)))
        neither = await issue(bench, scope=KeyScope(accounts=("no-such",)))
        for issued, account in ((by_label, accounts[1]), (by_group, accounts[2])):
            bench.control.reset()
            for _ in range(4):
                assert (await bench.ask(key=issued.secret)).status == 200
            bearers = {
                {name.lower(): value for name, value in call.request.headers}["authorization"]
                for call in bench.control.requests_to("conversation")
            }
            assert bearers == {f"Bearer {account.access_token}"}
        told = await bench.ask(key=neither.secret)
        assert (told.status, told.error["code"]) == (503, "no_account")


async def test_S8_a_conversation_of_one_key_is_unknown_to_another(bench: Bench) -> None:
    async with bench.case():
        first, second = await issue(bench), await issue(bench)
        made = (await bench.ask(key=first.secret, history_disabled=False)).json["conversation_id"]
        for key in (second.secret, OPERATOR_KEY):
            told = await bench.ask(key=key, conversation_id=made)
            assert (told.status, told.error["code"]) == (404, "conversation_not_found")
        assert (await bench.ask(key=first.secret, conversation_id=made)).status == 200
        rotated = await bench.house.runtime.keys.rotate(first.key.id, 0)
        assert (await bench.ask(key=rotated.secret, conversation_id=made)).status == 200, "it is the same key"


async def test_S8_a_conversation_on_an_account_that_was_taken_away_is_unknown(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench)
        made = (await bench.ask(key=issued.secret, history_disabled=False)).json["conversation_id"]
        await bench.house.runtime.keys.change(issued.key.id, lambda key: {"scope": KeyScope(accounts=("other",))})
        assert (await bench.ask(key=issued.secret, conversation_id=made)).status == 404


async def test_other_callers_are_booked_under_words_and_made_up_models_under_the_slug_that_served(bench: Bench) -> None:
    async with bench.case() as (account,):
        before = {
            key: sum(row.requests for row in await booked(bench, key)) for key in ("operator", "own", "anonymous")
        }
        for number in range(5):
            assert (await bench.ask(model=f"made-up-{number}")).status == 200
        assert (await bench.ask(key=account.access_token)).status == 200
        assert (await bench.ask(key=None)).status == 200
        await bench.settled()
        for key, count in (("operator", 5), ("own", 1), ("anonymous", 1)):
            rows = await booked(bench, key)
            assert sum(row.requests for row in rows) - before[key] == count
            assert not [row for row in rows if "made-up" in row.model]
            assert key == "operator" or {row.account for row in rows} == {""}, "only the pool's accounts are told apart"


async def test_G6_what_is_booked_names_nothing_of_what_was_said(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench)
        await bench.ask(key=issued.secret, content="canary-question-71", user="canary-user-72", model="canary-model-73")
        rows = await booked(bench, issued.key.id)
        assert len(rows) == 1 and "canary" not in repr(rows)


async def test_a_long_prompt_is_counted_all_the_same(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench)
        told = await bench.ask(key=issued.secret, content="river " * 60_000)
        assert told.json["usage"]["prompt_tokens"] > 60_000
        (row,) = await booked(bench, issued.key.id)
        assert row.prompt_tokens == told.json["usage"]["prompt_tokens"]


async def test_several_choices_are_one_request_with_all_their_tokens(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(tokens_total=100_000))
        told = await bench.ask(key=issued.secret, n=3)
        (row,) = await booked(bench, issued.key.id)
        assert (row.requests, row.completion_tokens) == (1, told.json["usage"]["completion_tokens"])
        assert row.completion_tokens >= 3 * count_tokens(ANSWER)


async def test_a_request_that_asks_for_more_than_the_key_may_have_is_refused_before_it_goes_out(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench, KeyLimits(tokens_per_minute=500))
        calls = bench.calls
        told = await bench.ask(key=issued.secret, max_tokens=501)
        assert (told.status, told.error["code"]) == (429, "insufficient_quota")
        assert "max_tokens" in told.error["message"] and bench.calls == calls
        body = chat_body(max_tokens=100)
        answer = await bench.http.post(
            "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {issued.secret}"}
        )
        assert answer.status_code == 200


# Tiers


LIMITED = """
[free]
base = "/free"
[free.per_person]
requests_per_minute = 5
requests_at_once = "unlimited"
tokens_per_minute = 10_000
[free.models]
gpt-4o = { requests_per_minute = 100, tokens_per_minute = "unlimited" }
gpt-4o-mini = { requests_per_minute = 100, tokens_per_minute = 40 }
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tiers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("limits")
    file = folder / "tiers.toml"
    file.write_text(LIMITED, encoding="utf-8")
    async with open_bench(
        folder, speed=1.0, TIERS_FILE=str(file), PUBLIC_MODE="free", TRUSTED_PROXIES="127.0.0.0/8"
    ) as opened:
        yield opened


async def visit(tiers: Bench, address: str, model: str = "gpt-4o", **fields: Any) -> httpx.Response:
    return await tiers.http.post(
        "/free/v1/chat/completions",
        json=chat_body(**({"model": model} | fields)),
        headers={"X-Forwarded-For": address},
    )


async def test_an_address_has_its_own_limits_in_a_tier_and_is_told_what_is_left(tiers: Bench) -> None:
    tiers.clock.advance(61)
    for number in range(1, 6):
        answer = await visit(tiers, "192.0.2.1")
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "5"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(5 - number)
        assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
    refused = await visit(tiers, "192.0.2.1")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "requests")
    assert "your address" in error["message"]
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (await visit(tiers, "192.0.2.2")).status_code == 200
    assert (await visit(tiers, "2001:db8:1:2::1")).headers["x-ratelimit-remaining-requests"] == "4"
    assert (await visit(tiers, "2001:db8:1:2:3::4")).headers["x-ratelimit-remaining-requests"] == "3", "one /64"
    tiers.clock.advance(61)
    assert (await visit(tiers, "192.0.2.1")).status_code == 200


async def test_R8_of_200_calls_at_once_from_many_addresses_a_model_answers_exactly_its_100(tiers: Bench) -> None:
    tiers.clock.advance(61)
    before = tiers.calls
    answers = await asyncio.gather(*(visit(tiers, f"198.51.100.{number}") for number in range(200)))
    assert sorted(answer.status_code for answer in answers) == [200] * 100 + [429] * 100
    assert tiers.calls - before == 100
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "`gpt-4o`, which all callers of the tier share" in refused.json()["error"]["message"]


async def test_a_models_tokens_a_minute_are_shared_by_all(tiers: Bench) -> None:
    tiers.clock.advance(61)
    too_long = await visit(tiers, "192.0.2.1", "gpt-4o-mini", max_tokens=1000)
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (429, "insufficient_quota")
    first = await visit(tiers, "192.0.2.1", "gpt-4o-mini", max_tokens=20)
    assert first.status_code == 200
    usage = first.json()["usage"]
    assert first.headers["x-ratelimit-remaining-tokens"] == str(40 - usage["prompt_tokens"] - 20), "as reserved"
    left = 40 - usage["total_tokens"] - usage["prompt_tokens"]
    await until(lambda: tiers.house.in_flight == 0, "an account is leased")
    assert (await visit(tiers, "192.0.2.2", "gpt-4o-mini", max_tokens=left + 1)).status_code == 429
    assert (await visit(tiers, "192.0.2.2", "gpt-4o-mini", max_tokens=left)).status_code == 200


async def test_a_key_of_a_tier_is_held_to_its_own_limits_and_to_the_tiers(tiers: Bench) -> None:
    tiers.clock.advance(61)
    async with tiers.case():
        wide = await issue(tiers, KeyLimits(requests_per_minute=50), tier="free")
        narrow = await issue(tiers, KeyLimits(requests_per_minute=2), tier="free")
        told = [await tiers.ask(key=wide.secret, model="gpt-4o") for _ in range(6)]
        assert [one.status for one in told] == [200] * 5 + [429]
        assert told[0].headers["x-ratelimit-limit-requests"] == "5", "the tighter of the two"
        assert (await used(tiers, wide))["requests_per_minute"] == 5, "what the tier refused is given back to the key"
        told = [await tiers.ask(key=narrow.secret, model="gpt-4o") for _ in range(3)]
        assert [one.status for one in told] == [200] * 2 + [429]
        assert told[0].headers["x-ratelimit-limit-requests"] == "2"


@pytest.mark.parametrize("stream", [False, True])
async def test_R10_who_leaves_a_tier_gives_back_what_they_did_not_use(tiers: Bench, stream: bool) -> None:
    tiers.clock.advance(61)
    async with tiers.case(accounts=0):
        tiers.control.fail("conversation", Fault("stall", at="before_headers"), times=1)
        body = chat_body(stream, model="gpt-4o-mini", max_tokens=20)
        with pytest.raises(httpx.ReadTimeout):
            await tiers.http.post("/free/v1/chat/completions", json=body, timeout=0.5)
        await until(lambda: tiers.house.in_flight == 0, "the answer is still waited for")
    again = await visit(tiers, "192.0.2.1", "gpt-4o-mini", max_tokens=20)
    assert again.status_code == 200, "its tokens were given back"
