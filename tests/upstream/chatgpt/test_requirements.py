"""The requirements exchange in both forms, over the wire: what it sends, remembers, raises and gives up."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest

from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    AnonymousUnavailableError,
    ChallengedError,
    Chat2APIError,
    ExitLimitedError,
    ProofTooHardError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamServerError,
)
from chat2api.protocol.chatgpt.sentinel import FALLBACK_PAGE
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.pages import BUILD
from chat2api.upstream.chatgpt.requirements import PAGE_LIFETIME
from chat2api.upstream.chatgpt.session import Session
from tests.upstream.chatgpt.bench import Bench, config_of, open_bench, sent_config

PROOF = "OpenAI-Sentinel-Proof-Token"
TOKEN = "OpenAI-Sentinel-Chat-Requirements-Token"
PREPARE_TOKEN = "OpenAI-Sentinel-Chat-Requirements-Prepare-Token"
GONE = ["404", "405", "410", "prepare_token"]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made


async def turn_status(bench: Bench, session: Session, headers: tuple[tuple[str, str], ...]) -> int:
    """Give what the backend answers to a turn that brings these headers."""
    message = {
        "id": f"{len(bench.routes):08}-2222-4333-8444-555555555555",
        "author": {"role": "user"},
        "content": {"content_type": "text", "parts": ["Say: yes"]},
    }
    body = {
        "action": "next",
        "messages": [message],
        "parent_message_id": "21111111-2222-4333-8444-555555555555",
        "model": "auto",
        "conversation_mode": {"kind": "primary_assistant"},
    }
    stream = await bench.calls.open_stream(session, "/conversation", json.dumps(body).encode(), extra=headers)
    try:
        return stream.status
    finally:
        await stream.aclose()


# Both forms


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("stages", ["single", "two"])
async def test_the_headers_of_both_forms_open_exactly_one_turn(bench: Bench, stages: str, signed_in: bool) -> None:
    bench.control.set_options(stages=stages)
    session = bench.session() if signed_in else bench.anonymous()
    headers = (await bench.exchange.obtain(session)).headers
    assert await turn_status(bench, session, headers) == 200
    assert await turn_status(bench, session, headers) == 403, "the simulator takes a token once"
    assert await turn_status(bench, session, (await bench.exchange.obtain(session)).headers) == 200
    assert bench.control.violations == []


@pytest.mark.parametrize("gone", GONE)
async def test_the_two_stage_form_is_found_once_and_remembered(bench: Bench, gone: str) -> None:
    bench.control.set_options(stages="two", single_stage_gone=gone)
    for _ in range(3):
        await bench.exchange.obtain(bench.session())
    assert bench.routes.count("requirements") == 1
    assert bench.routes.count("requirements_prepare") == 3
    assert bench.routes.count("requirements_finalize") == 3


@pytest.mark.parametrize("status", [404, 405, 410])
async def test_two_stages_that_are_gone_again_are_forgotten(bench: Bench, status: int) -> None:
    bench.control.set_options(stages="two")
    await bench.exchange.obtain(bench.session())
    bench.control.set_options(stages="both")
    bench.control.fail("requirements_prepare", Fault("answer", status=status), times=None)
    session = bench.session()
    for _ in range(2):
        assert await turn_status(bench, session, (await bench.exchange.obtain(session)).headers) == 200
    assert bench.routes.count("requirements_prepare") == 2, "asked in vain once"
    assert bench.routes.count("requirements") == 3


async def test_a_backend_that_has_neither_form_for_a_while_has_dropped_neither(bench: Bench) -> None:
    for route in ("requirements", "requirements_prepare"):
        bench.control.fail(route, Fault("answer", status=404))
    with pytest.raises(UpstreamProtocolError):
        await bench.exchange.obtain(bench.session())
    await bench.exchange.obtain(bench.session())
    assert bench.routes == ["home", "requirements", "requirements_prepare", "requirements"]


async def test_what_is_remembered_holds_for_its_origin_only(bench: Bench) -> None:
    bench.control.set_options(stages="two")
    await bench.exchange.obtain(bench.session())
    bench.control.set_options(stages="single")
    other = bench.session(origin=bench.sim.url.replace("127.0.0.1", "localhost"))
    assert await turn_status(bench, other, (await bench.exchange.obtain(other)).headers) == 200
    assert bench.routes.count("requirements") == 2


async def test_finding_the_form_at_once_from_many_calls_serves_them_all(bench: Bench) -> None:
    bench.control.set_options(stages="two")
    session = bench.session()
    obtained = await asyncio.gather(*(bench.exchange.obtain(session) for _ in range(20)))
    assert len({dict(permit.headers)[TOKEN] for permit in obtained}) == 20
    assert [await turn_status(bench, session, permit.headers) for permit in obtained] == [200] * 20


async def test_a_single_stage_refusal_is_not_taken_for_the_other_form(bench: Bench) -> None:
    bench.control.refuse("requirements", "server_error")
    with pytest.raises(UpstreamServerError):
        await bench.exchange.obtain(bench.session())
    await bench.exchange.obtain(bench.session())
    assert "requirements_prepare" not in bench.routes


async def test_where_prepare_gives_the_token_itself_nothing_is_finalized(bench: Bench) -> None:
    bench.control.set_options(stages="two")
    answer = json.dumps({"token": "gAAAAAB-at-once", "proofofwork": {"required": False}})
    bench.control.fail("requirements_prepare", Fault("answer", status=200, body=answer))
    assert (await bench.exchange.obtain(bench.session())).headers == ((TOKEN, "gAAAAAB-at-once"),)
    assert "requirements_finalize" not in bench.routes


# The proof


@pytest.mark.parametrize("stages", ["single", "two"])
async def test_the_agent_inside_token_and_proof_is_the_one_in_the_header(bench: Bench, stages: str) -> None:
    bench.control.set_options(stages=stages)
    route = "requirements" if stages == "single" else "requirements_prepare"
    agents = set()
    for account in (*bench.control.accounts, *(bench.control.add_account() for _ in range(5))):
        headers = dict((await bench.exchange.obtain(bench.session(account))).headers)
        record = bench.control.requests_to(route)[-1]
        agent = record.request.header("user-agent")
        assert sent_config(record)[4] == config_of(headers[PROOF])[4] == agent
        agents.add(agent)
    assert len(agents) > 1, "accounts are different browsers"
    assert bench.control.violations == []


@pytest.mark.parametrize("stages", ["single", "two"])
async def test_without_a_challenge_there_is_no_proof_header_and_no_empty_one(bench: Bench, stages: str) -> None:
    bench.control.set_options(stages=stages, proof_required=False)
    headers = dict((await bench.exchange.obtain(bench.session())).headers)
    assert headers.keys() == ({TOKEN} if stages == "single" else {TOKEN, PREPARE_TOKEN})
    for record in bench.control.requests_to("requirements_finalize"):
        assert "proofofwork" not in json.loads(record.request.body)


@pytest.mark.parametrize("stages", ["single", "two"])
async def test_R1_a_harder_proof_than_the_setting_is_not_worked_on(stages: str) -> None:
    async with open_bench(SimulatorOptions(difficulty="0ffffe"), hardest="0fffff") as bench:
        bench.control.set_options(stages=stages)
        with pytest.raises(ProofTooHardError) as caught:
            await bench.exchange.obtain(bench.session())
        assert "POW_DIFFICULTY" in caught.value.message
        assert bench.solver.stats().solved == bench.solver.stats().given_up == 0
        assert "requirements_finalize" not in bench.routes
        bench.control.set_options(difficulty="0fffff", stages=stages)
        assert PROOF in dict((await bench.exchange.obtain(bench.session())).headers)


@pytest.mark.parametrize(("day", "offset"), [(1_767_225_600.0, "GMT-0800"), (1_782_864_000.0, "GMT-0700")])
async def test_the_pages_clock_shows_the_zone_of_that_day(bench: Bench, day: float, offset: str) -> None:
    bench.clock.advance(day - bench.clock.now())
    headers = dict((await bench.exchange.obtain(bench.session())).headers)
    assert offset in str(config_of(headers[PROOF])[1])


@pytest.mark.parametrize(
    ("mention", "value"), [("turnstile", "tolerated"), ("turnstile", "enforced"), ("arkose", True)]
)
async def test_G3_a_mentioned_check_is_neither_answered_nor_a_reason_to_stop(
    bench: Bench, mention: str, value: str | bool
) -> None:
    bench.control.set_options(**{mention: value})
    permit = await bench.exchange.obtain(bench.session())
    assert dict(permit.headers).keys() == {TOKEN, PROOF}
    assert permit.check_asked is (mention == "arkose"), "that one is asked of few, and means it"


# The page


async def test_the_page_is_loaded_once_for_many_calls_and_for_fifteen_minutes(bench: Bench) -> None:
    pages = await asyncio.gather(*(bench.exchange.page(bench.session()) for _ in range(50)))
    assert bench.routes == ["home"]
    assert {page.facts.build_id for page in pages} == {BUILD}
    bench.clock.advance(PAGE_LIFETIME - 1)
    await bench.exchange.obtain(bench.session())
    assert bench.routes.count("home") == 1
    bench.clock.advance(2)
    await bench.exchange.obtain(bench.session())
    assert bench.routes.count("home") == 2


async def test_the_proof_speaks_of_the_page_that_was_read(bench: Bench) -> None:
    headers = dict((await bench.exchange.obtain(bench.session())).headers)
    array = config_of(headers[PROOF])
    assert array[6] == BUILD
    assert str(array[5]).startswith(f"{bench.sim.url}/assets/")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("answer", named="cloudflare"),
        Fault("answer", named="bad_gateway_page"),
        Fault("answer", named="not_found"),
        Fault("reset"),
        Fault("close", at="mid_stream"),
    ],
)
async def test_an_unreadable_page_has_its_stand_in_and_is_tried_again_as_late(bench: Bench, fault: Fault) -> None:
    bench.control.fail("home", fault)
    session = bench.session()
    assert (await bench.exchange.page(session)).facts == FALLBACK_PAGE
    assert await turn_status(bench, session, (await bench.exchange.obtain(session)).headers) == 200
    assert bench.routes.count("home") == 1
    bench.clock.advance(PAGE_LIFETIME + 1)
    assert (await bench.exchange.page(session)).facts.build_id == BUILD


async def test_a_page_that_does_not_come_costs_one_time_limit(bench: Bench) -> None:
    async with open_bench(timeout=0.3) as hasty:
        hasty.control.fail("home", Fault("stall"), times=None)
        await asyncio.gather(*(hasty.exchange.obtain(hasty.session()) for _ in range(5)))
        assert hasty.routes.count("home") == 1
        assert (await hasty.exchange.page(hasty.session())).facts == FALLBACK_PAGE


async def test_a_caller_who_leaves_while_the_page_loads_does_not_take_it_from_the_others(bench: Bench) -> None:
    bench.control.fail("home", Fault("stall"))
    first = asyncio.ensure_future(bench.exchange.page(bench.session()))
    await bench.control.wait_until(lambda: bench.routes == ["home"])
    others = [asyncio.ensure_future(bench.exchange.page(bench.session())) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    assert {page.facts.build_id for page in await asyncio.gather(*others)} == {BUILD}
    assert first.cancelled()
    await bench.control.wait_until(lambda: bench.control.counters.open_replies == 0)


# Refusals


@pytest.mark.parametrize("stages", ["single", "two"])
async def test_a_demand_to_sign_in_is_an_expired_token_or_a_closed_exit(bench: Bench, stages: str) -> None:
    bench.control.set_options(force_login=True, stages=stages)
    with pytest.raises(AccountRejectedError) as rejected:
        await bench.exchange.obtain(bench.session())
    assert rejected.value.may_refresh
    with pytest.raises(AnonymousUnavailableError) as closed:
        await bench.exchange.obtain(bench.anonymous())
    assert "PROXY_URL" in closed.value.message


REFUSALS: list[tuple[str, type[Chat2APIError]]] = [
    ("token_expired", AccountRejectedError),
    ("token_invalidated", AccountRejectedError),
    ("account_deactivated", AccountRejectedError),
    ("unusual_activity", ChallengedError),
    ("cloudflare", ChallengedError),
    ("too_many_requests", AccountLimitedError),
    ("retry_later", AccountLimitedError),
    ("server_error", UpstreamServerError),
    ("bad_gateway_page", UpstreamServerError),
    ("page_instead", UpstreamProtocolError),
    ("nothing", UpstreamProtocolError),
    ("empty_object", UpstreamProtocolError),
]


@pytest.mark.parametrize(("name", "expected"), REFUSALS)
@pytest.mark.parametrize("route", ["requirements", "requirements_prepare", "requirements_finalize"])
async def test_each_refusal_has_its_error_wherever_it_comes(
    bench: Bench, route: str, name: str, expected: type[Chat2APIError]
) -> None:
    bench.control.set_options(stages="single" if route == "requirements" else "two")
    bench.control.refuse(route, name)
    with pytest.raises(expected) as caught:
        await bench.exchange.obtain(bench.session())
    assert "upstream" not in caught.value.message.lower()
    assert bench.sim.url not in caught.value.message


async def test_too_many_requests_from_the_network_in_front_is_the_exits(bench: Bench) -> None:
    page = Fault("answer", status=429, body="<html>slow down</html>", headers=(("retry-after", "9"),))
    bench.control.fail("requirements", page)
    with pytest.raises(ExitLimitedError) as caught:
        await bench.exchange.obtain(bench.session())
    assert caught.value.retry_after == 9


async def test_an_anonymous_refusal_is_about_the_exit(bench: Bench) -> None:
    bench.control.set_options(anonymous=False)
    with pytest.raises(AnonymousUnavailableError):
        await bench.exchange.obtain(bench.anonymous())


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "null",
        "5",
        '"text"',
        '{"token": 5}',
        '{"token": ["x"]}',
        '{"token": "t", "proofofwork": {"required": true}}',
        '{"token": "t", "proofofwork": {"required": true, "seed": "s", "difficulty": 5}}',
        '{"token": "t", "proofofwork": {"required": true, "seed": "s", "difficulty": "not hex"}}',
        '{"token": "t", "proofofwork": {"required": true, "seed": "s", "difficulty": ""}}',
        '{"token": "t", "proofofwork": {"required": true, "seed": "s", "difficulty": "' + "0" * 500 + '"}}',
        '{"token": "t", ',
        "[" * 5000,
    ],
)
@pytest.mark.parametrize("route", ["requirements", "requirements_prepare", "requirements_finalize"])
async def test_R14_an_answer_of_a_wrong_shape_is_a_named_error(bench: Bench, route: str, body: str) -> None:
    bench.control.set_options(stages="single" if route == "requirements" else "two")
    headers = (("content-type", "application/json"),)
    bench.control.fail(route, Fault("answer", status=200, headers=headers, body=body))
    if route == "requirements_finalize" and '"token": "t", "proof' in body:
        body = ""  # a final token is all that is asked for there
        await bench.exchange.obtain(bench.session())
        return
    with pytest.raises(UpstreamError):
        await bench.exchange.obtain(bench.session())


@pytest.mark.parametrize("fault", [Fault("reset"), Fault("close", at="mid_headers"), Fault("close", at="mid_stream")])
async def test_a_broken_connection_is_told_and_nothing_is_sent_twice(bench: Bench, fault: Fault) -> None:
    bench.control.fail("requirements", fault)
    with pytest.raises(TransportError) as caught:
        await bench.exchange.obtain(bench.session())
    assert caught.value.request_sent
    assert bench.routes.count("requirements") == 1


async def test_headers_are_text_that_a_header_can_bear(bench: Bench) -> None:
    for name, value in (await bench.exchange.obtain(bench.session())).headers:
        assert re.fullmatch(r"[A-Za-z-]+", name)
        assert re.fullmatch(r"[\x21-\x7e]+", value)
