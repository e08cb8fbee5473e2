"""The official client, and every kind of caller, through the real server."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.e2e.harness import (
    ANSWER,
    OPERATOR_KEY,
    QUESTION,
    SECOND_KEY,
    SOON,
    Bench,
    HouseClock,
    add_tokens,
    open_bench,
    open_house,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    keys = f"{OPERATOR_KEY},{SECOND_KEY}"
    async with open_bench(tmp_path_factory.mktemp("chat"), AUTHORIZATION=keys) as bench:
        yield bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(bench: Bench) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client at its defaults, but for its own repeats."""
    async with bench.house.client(max_retries=0) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, content: str = QUESTION) -> str:
    """Give the whole answer."""
    whole = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": content}])
    return whole.choices[0].message.content or ""


async def ask_streamed(client: openai.AsyncOpenAI, content: str = QUESTION) -> str:
    """Give the answer put together of its chunks."""
    stream = await client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": content}], stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


# The official client


async def test_a_whole_answer_and_a_streamed_one_say_the_same(bench: Bench, client: openai.AsyncOpenAI) -> None:
    async with bench.case():
        assert await ask(client) == await ask_streamed(client) == ANSWER


async def test_models_are_those_of_the_accounts(bench: Bench, client: openai.AsyncOpenAI) -> None:
    async with bench.case():
        listed = [model.id async for model in client.models.list()]
        assert {"auto", "gpt-5-6", "o3"} <= set(listed)
        assert (await client.models.retrieve("gpt-5-6")).id == "gpt-5-6"
        with pytest.raises(openai.NotFoundError) as told:
            await client.models.retrieve("no-such-model")
    assert told.value.code == "model_not_found"


async def test_a_conversation_is_continued_by_its_id(bench: Bench, client: openai.AsyncOpenAI) -> None:
    async with bench.case():
        first = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTION}], extra_body={"history_disabled": False}
        )
        conversation_id = (first.model_extra or {})["conversation_id"]
        second = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "What did I say?"}],
            extra_body={"conversation_id": conversation_id},
        )
    assert QUESTION in (second.choices[0].message.content or "")


@streamed
@pytest.mark.parametrize(
    ("named", "raised", "code"),
    [
        ("bad_request", openai.BadRequestError, "upstream_invalid_request"),
        ("message_too_long", openai.BadRequestError, "context_length_exceeded"),
        ("cloudflare", openai.PermissionDeniedError, "upstream_challenge"),
        ("conversation_not_found", openai.NotFoundError, "conversation_not_found"),
        ("model_cap", openai.RateLimitError, "rate_limit_exceeded"),
        ("token_revoked", openai.InternalServerError, "no_account"),
        ("server_error", openai.InternalServerError, "upstream_server_error"),
        ("page_instead", openai.InternalServerError, "upstream_protocol"),
    ],
)
async def test_T1_the_official_client_raises_the_class_that_fits(
    bench: Bench, client: openai.AsyncOpenAI, named: str, raised: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    async with bench.case():
        bench.control.refuse("conversation", named, times=None)
        with pytest.raises(raised) as told:
            await (ask_streamed(client) if stream else ask(client))
    assert told.value.code == code
    assert told.value.request_id


async def test_T1_the_official_client_raises_for_a_bad_key(bench: Bench) -> None:
    async with bench.house.client("not-a-key", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as told:
            await ask(client)
    assert told.value.code == "invalid_api_key"


async def test_T1_the_official_client_raises_for_an_error_inside_a_stream(
    bench: Bench, client: openai.AsyncOpenAI
) -> None:
    async with bench.case():
        bench.control.choose(delay=0.02)
        bench.control.fail("conversation", Fault("close", at="mid_stream", after=2))
        with pytest.raises(openai.APIError) as told:
            await ask_streamed(client)
    assert told.value.code == "stream_interrupted"


async def test_R10_a_stream_that_the_client_closes_is_aborted_upstream(
    bench: Bench, client: openai.AsyncOpenAI
) -> None:
    async with bench.case():
        bench.control.choose(times=None, events=100_000, delay=0.01)
        stream = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await bench.settled()
        assert [reply.outcome for reply in bench.control.streams] == ["aborted"]


@streamed
@pytest.mark.parametrize("accounts", [1, 2, 6])
@pytest.mark.parametrize("named", ["server_error", "bad_gateway_page", "overloaded", "page_instead", "token_revoked"])
async def test_R3a_clients_do_not_multiply_what_lasts(bench: Bench, named: str, accounts: int, stream: bool) -> None:
    async with bench.case(accounts), bench.house.client() as client:
        bench.control.refuse("conversation", named, times=None)
        with pytest.raises(openai.InternalServerError):
            await (ask_streamed(client) if stream else ask(client))
        assert bench.calls <= 4


@streamed
@pytest.mark.parametrize("accounts", [1, 2, 3, 6])
async def test_R3a_a_limit_that_soon_ends_and_comes_back_is_not_multiplied(
    bench: Bench, accounts: int, stream: bool
) -> None:
    """Each account asks for a second's patience, which is short enough for clients to wait for by themselves."""
    async with bench.case(accounts), bench.house.client() as client:
        bench.control.refuse("conversation", "retry_later", times=None, retry_after=1)
        with pytest.raises(openai.RateLimitError) as told:
            await (ask_streamed(client) if stream else ask(client))
        assert bench.calls <= 4
        assert int(told.value.response.headers["retry-after"]) == 1
        if accounts > 1:
            assert told.value.response.headers["x-should-retry"] == "false"


async def test_R3a_a_backend_that_names_a_time_for_its_own_failure_does_not_change_that(bench: Bench) -> None:
    async with bench.case(6), bench.house.client() as client:
        fault = Fault("answer", status=503, headers=(("retry-after", "1"),), body='{"detail": "Busy"}')
        bench.control.fail("conversation", fault, times=None)
        with pytest.raises(openai.InternalServerError) as told:
            await ask(client)
        assert bench.calls <= 4
        assert told.value.response.headers["retry-after"] == "1"


@streamed
async def test_R2_R3a_a_cut_answer_is_not_asked_for_again_by_the_client(bench: Bench, stream: bool) -> None:
    async with bench.case(2), bench.house.client() as client:
        bench.control.choose(times=None, delay=0.02)
        bench.control.fail("conversation", Fault("close", at="mid_stream", after=2), times=None)
        with pytest.raises(openai.APIError):
            await (ask_streamed(client) if stream else ask(client))
        assert bench.calls == 1


# Limits


async def test_R6_while_all_accounts_wait_the_soonest_end_is_told_without_a_call(bench: Bench) -> None:
    async with bench.case(2) as (first, second):
        bench.control.refuse("conversation", "model_cap", account=first.user_id, clears_in=4000)
        bench.control.refuse("conversation", "model_cap", account=second.user_id, clears_in=900)
        told = [await bench.ask() for _ in range(2)]
        assert bench.calls == 2
        began = time.monotonic()
        told.append(await bench.ask(True))
        assert time.monotonic() - began < 1.0
        assert bench.calls == 2
    for answer in told:
        assert (answer.status, answer.error["type"]) == (429, "requests")
        assert 860 <= int(answer.headers["retry-after"]) <= 900
        assert answer.headers["x-should-retry"] == "false", "a client shall not sleep through a quarter of an hour"


async def test_R7_a_stated_limit_holds_for_its_model_alone(bench: Bench) -> None:
    async with bench.case():
        bench.control.refuse("conversation", "model_cap", clears_in=3600)
        assert (await bench.ask(model="gpt-5-6")).status == 429
        assert (await bench.ask(model="gpt-4o")).text() == ANSWER
        assert (await bench.ask(model="gpt-5-6")).status == 429
        assert bench.calls == 2


async def test_R7_a_stated_limit_is_kept_over_restarts(tmp_path: Path) -> None:
    clock = HouseClock()
    async with Simulator() as sim:
        tokens = [sim.control.accounts[0].access_token]
        for run in range(4):
            async with (
                open_house(tmp_path / "data", sim, tokens=tokens, clock=clock) as house,
                house.client(max_retries=0) as client,
            ):
                if run == 0:
                    sim.control.refuse("conversation", "model_cap", clears_in=3600)
                with pytest.raises(openai.RateLimitError) as told:
                    await ask(client)
                assert 3500 - 890 * run <= int(told.value.response.headers["retry-after"]) <= 3600 - 890 * run
                if run == 3:
                    clock.advance(1000.0)
                    assert await ask(client) == ANSWER
            assert len(sim.control.requests_to("conversation")) == (2 if run == 3 else 1)
            clock.advance(890.0)
            tokens = []


# Callers


@streamed
async def test_a_caller_may_bring_an_access_token(bench: Bench, stream: bool) -> None:
    async with bench.case(0):
        account = bench.control.add_account()
        assert (await bench.ask(stream, key=account.access_token)).text() == ANSWER
        (call,) = bench.control.requests_to("conversation")
        assert call.account == account.user_id
        assert call.request.header("chatgpt-account-id") is None
        assert not bench.house.runtime.pool.statistics().total, "it is nobody else's"


async def test_a_refused_token_of_the_caller_is_a_401(bench: Bench) -> None:
    async with bench.case():
        account = bench.control.add_account()
        expired = bench.control.make_access_token(account.user_id, lifetime=-5000.0)
        bench.control.revoke(account.user_id)
        for key in (account.access_token, expired):
            told = await bench.ask(key=key)
            assert (told.status, told.error["code"]) == (401, "caller_token_rejected")
            assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("kind", ["rt", "ios"])
async def test_a_caller_may_go_on_with_the_first_of_rotating_refresh_tokens(bench: Bench, kind: str) -> None:
    async with bench.case(0):
        bench.control.set_options(rotation="strict")
        account = bench.control.add_account(kind="ios" if kind == "ios" else "rt")
        for stream in (False, True):
            assert (await bench.ask(stream, key=account.refresh_token)).text() == ANSWER
        assert len(bench.control.requests_to("oauth_token")) == 1
        bench.clock.advance(11 * 86_400.0)
        assert (await bench.ask(key=account.refresh_token)).text() == ANSWER
        assert len(bench.control.requests_to("oauth_token")) == 2


@pytest.mark.parametrize("form", ["suffix", "header", "body"])
async def test_a_caller_chooses_the_workspace(bench: Bench, form: str) -> None:
    async with bench.case(0):
        account = bench.control.add_account(team=True)
        workspace = account.account_ids[1]
        key = f"{account.access_token},{workspace}" if form == "suffix" else account.access_token
        headers = {"ChatGPT-Account-ID": workspace} if form == "header" else {}
        fields: dict[str, Any] = {"ChatGPT-Account-ID": workspace} if form == "body" else {}
        assert (await bench.ask(key=key, headers=headers, **fields)).text() == ANSWER
        (call,) = bench.control.requests_to("conversation")
        assert call.request.header("chatgpt-account-id") == workspace


async def test_with_an_operator_key_the_workspace_restricts_the_pick(bench: Bench) -> None:
    async with bench.case(3) as accounts:
        chosen = accounts[2]
        for _ in range(2):
            await bench.ask(headers={"ChatGPT-Account-ID": chosen.account_ids[0]})
        assert {call.account for call in bench.control.requests_to("conversation")} == {chosen.user_id}
        told = await bench.ask(headers={"ChatGPT-Account-ID": "00000000-0000-4000-8000-000000000000"})
    assert (told.status, told.error["code"]) == (503, "no_account")


@streamed
async def test_without_a_bearer_the_sign_in_free_chat_answers(bench: Bench, stream: bool) -> None:
    async with bench.case():
        assert (await bench.ask(stream, key=None)).text() == ANSWER
        (call,) = bench.control.requests_to("conversation")
        assert call.request.path.startswith("/backend-anon/")
        assert call.request.header("authorization") is None
        bench.control.set_options(anonymous=False)
        told = await bench.ask(stream, key=None)
        bench.control.set_options(anonymous=True, force_login=True)
        forced = await bench.ask(stream, key=None)
    for answer in (told, forced):
        assert (answer.status, answer.error["code"]) == (401, "anonymous_unavailable")
        assert "PROXY_URL" in answer.error["message"]


async def test_S8_a_conversation_belongs_to_the_key_that_began_it(bench: Bench) -> None:
    async with bench.case():
        first = (await bench.ask(history_disabled=False)).json
        follow = {"conversation_id": first["conversation_id"], "content": "What did I say?"}
        told = await bench.ask(key=SECOND_KEY, **follow)
        assert bench.calls == 1
        assert (told.status, told.error["code"]) == (404, "conversation_not_found")
        assert QUESTION in (await bench.ask(**follow)).text()


async def test_an_account_that_another_process_adds_serves_within_moments(tmp_path: Path) -> None:
    async with Simulator() as sim, open_house(tmp_path / "data", sim) as house, house.client(max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as told:
            await ask(client)
        assert told.value.code == "no_account"
        await add_tokens(tmp_path / "data", [sim.control.accounts[0].access_token])
        began = time.monotonic()
        await until(lambda: house.runtime.pool.statistics().total == 1, "the account is not seen")
        assert time.monotonic() - began < SOON
        assert await ask(client) == ANSWER


async def test_accounts_that_cannot_serve_are_passed_over(bench: Bench) -> None:
    async with bench.case(0):
        healthy, dead, old = (bench.control.add_account() for _ in range(3))
        expired = bench.control.make_access_token(old.user_id, lifetime=-5000.0)
        runtime = bench.house.runtime
        now = bench.clock.now()
        (added,) = await runtime.records.add_accounts([to_new_account(to_credential(dead.access_token))], now)
        await runtime.records.set_state(added.account, "needs_sign_in", "token_revoked", now)
        await bench.add(expired, healthy.access_token)
        for stream in (False, True, False):
            assert (await bench.ask(stream)).text() == ANSWER
        assert {call.account for call in bench.control.requests_to("conversation")} == {healthy.user_id}


async def test_the_demo_key_works_while_there_is_no_account_and_never_leaves(tmp_path: Path) -> None:
    async with Simulator() as outside, open_house(tmp_path / "data", outside, demo=True) as house:
        demo = house.runtime.demo
        assert demo is not None
        async with house.client(demo.key, max_retries=0) as client:
            assert await ask(client) == await ask_streamed(client) == ANSWER
            raw = await client.chat.completions.with_raw_response.create(
                model="auto", messages=[{"role": "user", "content": QUESTION}]
            )
        assert raw.headers["x-chat2api-upstream"] == "simulator"
        assert not outside.control.requests
        assert not demo.simulator.control.received(demo.key)


async def test_S5_our_keys_never_travel_upstream(bench: Bench) -> None:
    async with bench.case(2) as (account, _):
        bench.control.refuse("conversation", "server_error", account=account.user_id, times=2)
        await bench.ask(history_disabled=False)
        await bench.ask(True, key=SECOND_KEY)
        await bench.ask(key=None)
        await bench.ask(headers={"ChatGPT-Account-ID": account.account_ids[0]}, model="unknown-model")
        assert len(bench.control.requests) > 8
        for key in (OPERATOR_KEY, SECOND_KEY):
            assert not bench.control.received(key)
            assert not bench.control.received(key[4:-4])


async def test_nothing_that_was_sent_looks_unlike_a_browser(bench: Bench) -> None:
    async with bench.case(2):
        for stream in (False, True):
            await bench.ask(stream, history_disabled=False)
            await bench.ask(stream, key=None)
        assert not bench.control.violations
        assert not bench.control.refusals
