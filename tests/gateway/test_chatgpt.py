"""The ChatGPT provider: who answers, what is tried again, who owns what, and that nothing stays behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chat2api.accounts.budget import LEAST_RETRIES
from chat2api.accounts.health import JITTER_SECONDS
from chat2api.errors import (
    AccountLimitedError,
    AllAccountsCoolingError,
    AnonymousUnavailableError,
    CallerTokenRejectedError,
    ChallengedError,
    Chat2APIError,
    NoAccountError,
    NotFoundError,
    StreamInterruptedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.gateway.chatgpt import new_messages
from chat2api.gateway.provider import AnswerFacts
from chat2api.protocol.chatgpt.drift import UNREADABLE
from chat2api.protocol.events import Finished, Started
from chat2api.protocol.prompt import Message, TextPart
from chat2api.simulator.faults import Fault
from chat2api.storage.values import ANY_MODEL, Cooldown
from tests.e2e.harness import HouseClock, until
from tests.gateway.bench import (
    ANONYMOUS,
    ANOTHER,
    ANSWER,
    OPERATOR,
    Gateway,
    chat_request,
    open_gateway,
    own,
    text_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("chatgpt"), ANONYMOUS="on") as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_left(gateway: Gateway) -> AsyncIterator[None]:
    yield
    await gateway.settled()
    assert gateway.control.violations == []


def message(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))  # type: ignore[arg-type]  # one of the roles


# Answering


async def test_every_kind_of_caller_is_answered_from_their_own_accounts(gateway: Gateway) -> None:
    (account,) = await gateway.fresh()
    stranger = gateway.control.add_account()
    callers = (OPERATOR, ANONYMOUS, own(stranger.access_token), own(gateway.control.add_account().refresh_token))
    for caller in callers:
        assert text_of(await gateway.ask(caller)) == ANSWER
    served = [record.account for record in gateway.control.requests_to("conversation")]
    assert served[:3] == [account.user_id, None, stranger.user_id]
    assert served[3] not in (account.user_id, stranger.user_id, None)


async def test_two_choices_at_once_are_two_turns(gateway: Gateway) -> None:
    await gateway.fresh(2)
    answers = await asyncio.gather(gateway.ask(), gateway.ask())
    assert [text_of(events) for events in answers] == [ANSWER] * 2
    assert {record.account for record in gateway.control.requests_to("conversation")} == {
        account.user_id for account in gateway.control.accounts[-2:]
    }


async def test_an_unknown_model_falls_to_the_default_and_that_is_told(gateway: Gateway) -> None:
    await gateway.fresh()
    facts = AnswerFacts()
    await gateway.ask(request=chat_request(model="nobody-knows-this"), facts=facts)
    assert facts.model_fallback == "nobody-knows-this"
    facts = AnswerFacts()
    await gateway.ask(request=chat_request(model="gpt-4o"), facts=facts)
    assert (facts.model_fallback, facts.upstream) == (None, None)


async def test_what_is_over_the_callers_limit_is_not_read_from_the_backend(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.choose(events=5000, delay=0.01)
    events = await gateway.ask(request=chat_request(max_tokens=3))
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert end.reason == "length"
    await gateway.settled()
    assert gateway.control.streams[0].outcome == "aborted"


async def test_reply_models_are_public_names(gateway: Gateway) -> None:
    provider = gateway.runtime.provider
    assert provider.reply_model("auto", None) == "auto"
    assert provider.reply_model("gpt-4o", "gpt-4o-mini") != provider.reply_model("gpt-4o", "gpt-4o"), (
        "a downgrade shows"
    )
    assert provider.reply_model("gpt-4-gizmo-g-abc", "gpt-4o") == "gpt-4-gizmo-g-abc"


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, False),
        ({"history_disabled": False}, True),
        ({"history_disabled": True}, False),
        ({"conversation_id": "11111111-2222-4333-8444-555555555555"}, True),
    ],
)
async def test_history_is_off_unless_asked_for(gateway: Gateway, fields: dict[str, Any], kept: bool) -> None:
    assert gateway.runtime.provider.keeps_history(chat_request(**fields)) == kept


# Answers that are not understood


async def test_R15_what_is_not_understood_in_answers_reaches_the_alarm(gateway: Gateway) -> None:
    await gateway.fresh(3)
    drift = gateway.runtime.drift
    drift.shapes.clear()
    answers = drift.answers
    await gateway.ask()
    assert (drift.answers, drift.shapes) == (answers + 1, {}), "a good answer is only counted"

    odd = (
        'data: {"message": {"id": "m-9", "author": {"role": "assistant"}, "content": {"content_type": "hologram"}}}\n\n'
    )
    gateway.control.fail("conversation", Fault("bytes", at="before_content", body=odd))
    assert text_of(await gateway.ask()) == ANSWER
    assert drift.shapes == {"content_type: hologram": 1}

    gateway.control.refuse("conversation", "page_instead")
    assert text_of(await gateway.ask()) == ANSWER, "another account answered"
    assert drift.shapes == {"content_type: hologram": 1, UNREADABLE: 1}
    assert drift.answers == answers + 4
    assert gateway.runtime.drifted
    gateway.clock.advance(301.0)
    assert gateway.runtime.drifted == ()


# Going on to the next account


async def test_R3_a_limited_account_is_left_alone_and_the_next_one_answers(gateway: Gateway) -> None:
    first, second = await gateway.fresh(2)
    gateway.control.refuse("conversation", "model_cap", account=first.user_id, clears_in=3600)
    for _ in range(3):
        assert text_of(await gateway.ask()) == ANSWER
    served = [record.account for record in gateway.control.requests_to("conversation")]
    assert served == [first.user_id, *[second.user_id] * 3]


async def test_R7_a_stated_wait_is_for_that_model_only(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.refuse("conversation", "model_cap", clears_in=3600)
    for _ in range(2):
        with pytest.raises(AllAccountsCoolingError):
            await gateway.ask(request=chat_request(model="gpt-4o"))
    assert gateway.turns == 1
    assert text_of(await gateway.ask(request=chat_request(model="o3"))) == ANSWER


async def test_R3_an_expired_token_is_renewed_once_and_the_same_account_answers(gateway: Gateway) -> None:
    await gateway.fresh(0)
    account = gateway.control.add_account()
    await gateway.add(account.refresh_token)
    assert text_of(await gateway.ask()) == ANSWER
    gateway.control.refuse("requirements", "token_expired")
    assert text_of(await gateway.ask()) == ANSWER
    assert len(gateway.control.requests_to("oauth_token")) == 2
    gateway.control.refuse("requirements", "token_expired", times=2)
    with pytest.raises(Chat2APIError):
        await gateway.ask()
    assert len(gateway.control.requests_to("oauth_token")) == 3, "a second refusal ends the sign-in"
    with pytest.raises(NoAccountError):
        await gateway.ask()


async def test_R3_no_account_is_used_more_than_twice_and_no_request_more_than_its_attempts(gateway: Gateway) -> None:
    accounts = await gateway.fresh(5)
    gateway.control.refuse("conversation", "overloaded", times=None)
    with pytest.raises(UpstreamServerError) as caught:
        await gateway.ask()
    tried = [record.account for record in gateway.control.requests_to("conversation")]
    assert tried == [accounts[0].user_id] * 2 + [accounts[1].user_id] * 2
    assert caught.value.final


async def test_R4_a_backend_that_fails_for_all_is_hardly_called_more_often(gateway: Gateway) -> None:
    """A request every 20 ms of the server's clock, to many accounts; a page in the place of the answer blames no exit."""
    await gateway.fresh(40)
    gateway.control.refuse("conversation", "page_instead", times=None)
    budget = gateway.source.budget
    before = budget.made

    async def ask(number: int) -> None:
        await gateway.clock.sleep(0.02 * number)
        with pytest.raises(UpstreamProtocolError) as told:
            await gateway.ask()
        assert told.value.final

    began = gateway.clock.monotonic()
    await asyncio.gather(*map(ask, range(200)))
    # Three may always be on a retry, and one takes about a second: a busy machine stretches the run, and has more of them.
    elapsed = gateway.clock.monotonic() - began
    assert 200 < gateway.turns <= 200 * 1.25 + LEAST_RETRIES * (2 + 2 * elapsed)
    assert gateway.turns == 200 + budget.made - before
    assert budget.refused > 0
    assert (budget.waiting, budget.retrying) == (0, 0)


async def test_R4_one_limited_account_costs_no_answer_in_a_burst(gateway: Gateway) -> None:
    limited, *_ = await gateway.fresh(3)
    gateway.control.refuse("conversation", "retry_later", account=limited.user_id, times=None, retry_after=60)
    gateway.control.choose(delay=0.05, account=limited.user_id, times=None)
    answers = await asyncio.gather(*[gateway.ask() for _ in range(30)])
    assert [text_of(events) for events in answers] == [ANSWER] * 30
    assert (gateway.source.budget.waiting, gateway.source.budget.retrying) == (0, 0)


@pytest.mark.parametrize("named", ["bad_request", "bad_field", "message_too_long", "teapot"])
async def test_R3_what_every_account_would_refuse_is_asked_once(gateway: Gateway, named: str) -> None:
    await gateway.fresh(3)
    gateway.control.refuse("conversation", named)
    with pytest.raises(UpstreamRefusedRequestError):
        await gateway.ask()
    assert gateway.turns == 1
    assert text_of(await gateway.ask()) == ANSWER, "and nobody waits for it"


@pytest.mark.parametrize("named", ["unusual_activity", "cloudflare", "unusual_activity_2024", "unsupported_country"])
@pytest.mark.parametrize("route", ["requirements", "conversation"])
async def test_G3_a_check_is_never_gone_round(gateway: Gateway, route: str, named: str) -> None:
    await gateway.fresh(3)
    gateway.control.refuse(route, named, times=None)
    with pytest.raises(ChallengedError) as caught:
        await gateway.ask()
    assert caught.value.final
    assert len(gateway.control.requests_to(route)) == 1


async def test_R2_nothing_is_repeated_after_the_first_content(gateway: Gateway) -> None:
    await gateway.fresh(3)
    for after in (1, 2):
        gateway.control.fail("conversation", Fault("reset", at="mid_stream", after=after))
        said = ""
        with pytest.raises(StreamInterruptedError) as caught:
            async for batch in gateway.runtime.provider.chat(OPERATOR, chat_request(), AnswerFacts()):
                said += text_of(batch)
        assert ANSWER.startswith(said)
        assert said
        assert caught.value.final
        await gateway.settled()
    assert gateway.turns == 2


async def test_R2_a_stream_that_breaks_before_its_content_is_tried_elsewhere(gateway: Gateway) -> None:
    first, second = await gateway.fresh(2)
    gateway.control.fail("conversation", Fault("close", at="before_content"))
    assert text_of(await gateway.ask()) == ANSWER
    served = [record.account for record in gateway.control.requests_to("conversation")]
    assert served == [first.user_id, second.user_id]


async def test_R3_a_turn_that_may_have_been_done_is_repeated_once(gateway: Gateway) -> None:
    await gateway.fresh(4)
    gateway.control.fail("conversation", Fault("close", effect=True), times=None)
    with pytest.raises(UpstreamError):
        await gateway.ask()
    assert gateway.turns == 2


@pytest_asyncio.fixture(loop_scope="module")
async def pauses(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before attempts that the test itself asks for."""
    taken: list[float] = []
    sleep, background = gateway.clock.sleep, asyncio.all_tasks()

    async def note(seconds: float) -> None:
        if asyncio.current_task() not in background:
            taken.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(gateway.clock, "sleep", note)
    return taken


@pytest.mark.parametrize("mine", [False, True], ids=["pool", "own token"])
async def test_R3_with_no_account_left_the_caller_hears_at_once(
    gateway: Gateway, pauses: list[float], mine: bool
) -> None:
    await gateway.fresh(0 if mine else 1)
    caller = own(gateway.control.add_account().access_token) if mine else OPERATOR
    gateway.control.refuse("conversation", "page_instead", times=None)
    with pytest.raises(UpstreamProtocolError) as told:
        await gateway.ask(caller)
    assert told.value.final
    assert gateway.turns == 1
    assert not any(pauses)


async def test_R3_before_another_account_there_is_a_pause(gateway: Gateway, pauses: list[float]) -> None:
    await gateway.fresh(2)
    gateway.control.refuse("conversation", "page_instead", times=None)
    with pytest.raises(UpstreamProtocolError):
        await gateway.ask()
    assert gateway.turns == 2
    (pause,) = (seconds for seconds in pauses if seconds)
    assert JITTER_SECONDS[0] <= pause <= JITTER_SECONDS[1]


async def test_R3_an_account_that_is_set_aside_before_its_second_try_is_left_for_another(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.fresh(2)
    sleep, ours = gateway.clock.sleep, asyncio.current_task()

    async def meanwhile(seconds: float) -> None:
        if asyncio.current_task() is ours:
            (tried,) = {request.account for request in gateway.control.requests_to("conversation")}
            (account,) = (one for one in gateway.source.pool.accounts() if one.user_id == tried)
            await gateway.source.pool.cool(
                Cooldown(account.id, ANY_MODEL, gateway.clock.now() + 3600, True, "stated_limit", 0)
            )
        await sleep(seconds)

    monkeypatch.setattr(gateway.clock, "sleep", meanwhile)
    gateway.control.refuse("conversation", "server_error")
    assert text_of(await gateway.ask()) == ANSWER
    assert gateway.turns == 2


async def test_own_tokens_stay_with_their_own_account(gateway: Gateway) -> None:
    await gateway.fresh(2)
    stranger = gateway.control.add_account()
    gateway.control.refuse("conversation", "model_cap", account=stranger.user_id, clears_in=60)
    with pytest.raises((AccountLimitedError, AllAccountsCoolingError)):
        await gateway.ask(own(stranger.access_token))
    assert {record.account for record in gateway.control.requests} <= {stranger.user_id, None}


@pytest.mark.parametrize("kind", ["access_token", "refresh_token", "session_cookie"])
async def test_a_dead_own_token_is_told_as_the_callers(gateway: Gateway, kind: str) -> None:
    await gateway.fresh()
    stranger = gateway.control.add_account()
    gateway.control.revoke(stranger.user_id)
    for _ in range(2):
        with pytest.raises(CallerTokenRejectedError):
            await gateway.ask(own(getattr(stranger, kind)))


async def test_sign_in_free_chat_that_is_closed_is_told_as_that(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.set_options(anonymous=False)
    with pytest.raises(AnonymousUnavailableError):
        await gateway.ask(ANONYMOUS)
    assert all(record.account is None for record in gateway.control.requests)


async def test_without_accounts_nothing_is_asked(gateway: Gateway) -> None:
    await gateway.fresh(0)
    with pytest.raises(NoAccountError) as caught:
        await gateway.ask()
    assert caught.value.final
    assert gateway.control.requests == []


async def test_R6_while_all_wait_the_answer_is_quick_and_nothing_is_sent(gateway: Gateway) -> None:
    await gateway.fresh(3)
    gateway.control.refuse("conversation", "model_cap", times=3, clears_in=500)
    with pytest.raises(AllAccountsCoolingError) as told:
        await gateway.ask()
    assert told.value.retry_after == pytest.approx(500, abs=60)
    gateway.control.requests.clear()
    begun = asyncio.get_running_loop().time()
    for _ in range(10):
        with pytest.raises(AllAccountsCoolingError):
            await gateway.ask()
    assert (asyncio.get_running_loop().time() - begun) / 10 < 10 * 0.05
    assert gateway.control.requests == []


async def test_a_team_workspace_restricts_the_pick(gateway: Gateway) -> None:
    await gateway.fresh(2)
    team = gateway.control.add_account(team=True)
    workspace = team.account_ids[1]
    await gateway.add(team.access_token, workspace=workspace)
    for _ in range(2):
        await gateway.ask(replace(OPERATOR, workspace=workspace))
    for record in gateway.control.requests_to("conversation"):
        assert record.account == team.user_id
        assert record.request.header("chatgpt-account-id") == workspace


# Conversations


async def converse(gateway: Gateway) -> tuple[str, str]:
    """Begin a stored conversation and give its id and its last message's."""
    events = await gateway.ask(request=chat_request(history_disabled=False))
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert end.conversation_id is not None
    assert end.message_id is not None
    return end.conversation_id, end.message_id


async def test_a_conversation_goes_on_at_the_account_that_has_it(gateway: Gateway) -> None:
    await gateway.fresh(3)
    conversation_id, _ = await converse(gateway)
    for _ in range(3):
        events = await gateway.ask(request=chat_request("What did I say?", conversation_id=conversation_id))
        assert "Name three rivers." in text_of(events)
    assert len({record.account for record in gateway.control.requests_to("conversation")}) == 1
    assert gateway.control.requests_to("history_get") == [], "its last message was remembered"


async def test_S8_anothers_conversation_is_not_found_and_nothing_is_sent(gateway: Gateway) -> None:
    await gateway.fresh()
    conversation_id, _ = await converse(gateway)
    gateway.control.requests.clear()
    told = set()
    for unknown in (conversation_id, "11111111-2222-4333-8444-555555555555"):
        with pytest.raises(NotFoundError) as caught:
            await gateway.ask(ANOTHER, chat_request(conversation_id=unknown))
        told.add((caught.value.message, caught.value.code, caught.value.param))
    assert len(told) == 1, "theirs and nobody's look the same"
    assert gateway.control.requests == []


async def test_S8_an_own_token_cannot_reach_a_conversation_of_the_pool(gateway: Gateway) -> None:
    await gateway.fresh()
    conversation_id, message_id = await converse(gateway)
    stranger = own(gateway.control.add_account().access_token)
    with pytest.raises(Chat2APIError) as caught:
        await gateway.ask(stranger, chat_request(conversation_id=conversation_id, parent_message_id=message_id))
    assert caught.value.status == 404


async def test_an_own_conversation_that_is_not_remembered_is_asked_where_it_ends(gateway: Gateway) -> None:
    await gateway.fresh()
    stranger = gateway.control.add_account()
    events = await gateway.ask(own(stranger.refresh_token), chat_request(history_disabled=False))
    (begun,) = [event for event in events if isinstance(event, Started)]
    elsewhere = own(stranger.access_token)
    answer = await gateway.ask(elsewhere, chat_request("What did I say?", conversation_id=begun.conversation_id))
    assert "Name three rivers." in text_of(answer)
    assert len(gateway.control.requests_to("history_get")) == 1
    gateway.control.violations.clear()  # one person with two tokens is two devices here


async def test_a_conversation_may_go_on_from_an_earlier_message(gateway: Gateway) -> None:
    await gateway.fresh()
    conversation_id, first = await converse(gateway)
    await gateway.ask(request=chat_request("Say: middle", conversation_id=conversation_id))
    again = chat_request("What did I say?", conversation_id=conversation_id, parent_message_id=first)
    events = await gateway.ask(request=again)
    assert "middle" not in text_of(events)


async def test_only_what_is_new_is_sent_to_a_conversation_that_goes_on(gateway: Gateway) -> None:
    await gateway.fresh()
    conversation_id, _ = await converse(gateway)
    history = [
        {"role": "user", "content": "Name three rivers."},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "What did I say?"},
    ]
    await gateway.ask(request=chat_request(messages=history, conversation_id=conversation_id))
    assert gateway.control.requests_to("conversation")[-1].request.body.count(b"Name three rivers.") == 0


async def test_an_owner_is_known_before_the_caller_learns_the_id(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.fail("conversation", Fault("stall", at="mid_stream", after=1))
    answering = gateway.runtime.provider.chat(OPERATOR, chat_request(history_disabled=False), AnswerFacts())
    batch = await anext(answering)
    (begun,) = [event for event in batch if isinstance(event, Started)]
    owned = await gateway.runtime.records.conversation(begun.conversation_id or "")
    await answering.aclose()
    assert owned is not None
    assert (owned.owner, owned.last_message_id) == (OPERATOR.owner, None)


async def test_a_temporary_chat_has_no_owner_to_remember(gateway: Gateway) -> None:
    await gateway.fresh()
    events = await gateway.ask()
    (begun,) = [event for event in events if isinstance(event, Started)]
    assert await gateway.runtime.records.conversation(begun.conversation_id or "") is None


@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ("u", "u"),
        ("su", "su"),
        ("uau", "u"),
        ("suau", "u"),
        ("uauu", "uu"),
        ("uat", "t"),
        ("ua", "a"),
        ("uaaua", "a"),
    ],
)
async def test_new_messages_are_those_after_the_last_answer(roles: str, kept: str) -> None:
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = tuple(message(names[letter], str(number)) for number, letter in enumerate(roles))
    assert new_messages(messages) == messages[len(roles) - len(kept) :]


# Leaving


PHASES = [
    ("home", Fault("stall")),
    ("requirements", Fault("stall")),
    ("conversation", Fault("stall")),
    ("conversation", Fault("stall", at="before_content")),
    ("conversation", Fault("stall", at="mid_stream", after=2)),
]


@pytest.mark.parametrize(("route", "fault"), PHASES)
async def test_R10_leaving_frees_the_account_and_aborts_the_call(gateway: Gateway, route: str, fault: Fault) -> None:
    await gateway.fresh()
    gateway.clock.advance(1000)  # the home page is to be read again
    gateway.control.fail(route, fault)
    asking = asyncio.ensure_future(gateway.ask())
    await gateway.control.wait_until(lambda: bool(gateway.control.requests_to(route)))
    assert gateway.in_flight == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await gateway.settled()
    assert text_of(await gateway.ask()) == ANSWER, "the account is as good as before"


async def test_R10_closing_an_answer_in_the_middle_frees_everything(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.choose(events=1000, delay=0.01)
    answering = gateway.runtime.provider.chat(OPERATOR, chat_request(), AnswerFacts())
    await anext(answering)
    await answering.aclose()
    await gateway.settled()
    assert gateway.control.streams[0].outcome == "aborted"


async def test_R10_leaving_during_the_pause_before_another_attempt_leaves_nothing(gateway: Gateway) -> None:
    await gateway.fresh()
    gateway.control.refuse("conversation", "overloaded", times=None)
    asking = asyncio.ensure_future(gateway.ask())
    await until(lambda: gateway.turns == 1 and gateway.in_flight == 0, "no first attempt was made")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()


async def test_R11_a_refresh_outlives_the_caller_who_began_it(gateway: Gateway) -> None:
    await gateway.fresh(0)
    account = gateway.control.add_account()
    await gateway.add(account.refresh_token)
    gateway.control.fail("oauth_token", Fault("stall", seconds=0.1))
    asking = asyncio.ensure_future(gateway.ask())
    await gateway.control.wait_until(lambda: bool(gateway.control.requests_to("oauth_token")))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await gateway.settled()
    assert text_of(await gateway.ask()) == ANSWER
    assert len(gateway.control.requests_to("oauth_token")) == 1


async def test_many_callers_at_once_are_all_answered_and_leave_nothing(gateway: Gateway) -> None:
    await gateway.fresh(4)
    gateway.control.refuse("conversation", "overloaded", skip=3, times=3)
    answers = await asyncio.gather(*(gateway.ask() for _ in range(40)))
    assert [text_of(events) for events in answers] == [ANSWER] * 40


# Limits of time, and restarts


async def test_R1_all_attempts_together_have_one_limit_for_the_first_content(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, FIRST_CONTENT_TIMEOUT="0.4") as gateway:
        await gateway.fresh(3)
        gateway.control.fail("conversation", Fault("stall", at="before_content"), times=None)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamTimeoutError) as caught:
            await gateway.ask()
        assert caught.value.phase == "first_content"
        assert 0.3 < asyncio.get_running_loop().time() - begun < 1.5
        await gateway.settled()


async def test_R7_a_stated_wait_survives_restarts(tmp_path: Path) -> None:
    clock = HouseClock(20.0)
    async with open_gateway(tmp_path, clock=clock) as gateway:
        await gateway.fresh()
        gateway.control.refuse("conversation", "model_cap", clears_in=3600)
        with pytest.raises(AllAccountsCoolingError):
            await gateway.ask()
    for _ in range(3):
        clock.advance(800)
        async with open_gateway(tmp_path, clock=clock) as gateway:
            with pytest.raises(AllAccountsCoolingError):
                await gateway.ask()
            assert gateway.control.requests == []
    clock.advance(1300)
    async with open_gateway(tmp_path, clock=clock) as gateway:
        # The next simulator does not know the account, but it is asked.
        with pytest.raises(NoAccountError):
            await gateway.ask()
        assert gateway.control.requests != []


async def test_R8_five_chats_on_an_account_that_serves_four_at_once_are_all_answered(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, ACCOUNT_CONCURRENCY="4") as small:
        await small.fresh(1)
        small.control.choose(delay=0.03, times=None)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, small.in_flight)
                await asyncio.sleep(0)

        watching = asyncio.get_running_loop().create_task(watch())
        answers = await asyncio.gather(*(small.ask() for _ in range(5)))
        watching.cancel()
        assert [text_of(events) for events in answers] == [ANSWER] * 5
        assert most == 4
        assert (small.turns, small.in_flight) == (5, 0)


async def test_a_users_chats_stay_with_one_account_and_users_are_spread_evenly(gateway: Gateway) -> None:
    await gateway.fresh(3)
    homes: dict[str, set[str | None]] = {}
    for turn in range(2):
        for number in range(7):
            user = f"user {number}"
            await gateway.ask(request=chat_request(user=user))
            homes.setdefault(user, set()).add(gateway.control.requests_to("conversation")[-1].account)
        assert turn or len(homes) == 7
    assert [len(accounts) for accounts in homes.values()] == [1] * 7
    assert sorted(Counter(account for accounts in homes.values() for account in accounts).values()) == [2, 2, 3]
