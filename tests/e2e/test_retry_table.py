"""The retry table (R3), row by row, as the official client at its defaults meets it.

Two accounts serve, used in their order, and something lasts that goes wrong with the first. Each row says how many turns
the first gets, whether the second one is asked, what the client is told if not, and what cools down: the first
account for one model or for all, its state, the way to the backend.
"""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from chat2api.accounts.exits import Exits
from chat2api.accounts.views import AccountView
from chat2api.gateway.sources import host_of
from chat2api.simulator.accounts import Credentials
from chat2api.simulator.faults import Fault, Rule
from chat2api.simulator.wire import JSON
from tests.e2e.harness import ANSWER, QUESTION, Bench, open_bench
from tests.proxies import HttpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED = "auto"
EVERY = "*"

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    # Pauses before a second try are shortened; what rests for 30 seconds must still rest when it is looked at.
    async with open_bench(tmp_path_factory.mktemp("table"), speed=4.0) as opened:
        yield opened


async def ask(bench: Bench, stream: bool) -> str:
    """Ask as the official client does when nothing is set; give the text, or raise what it raises."""
    async with bench.house.client() as client:
        if not stream:
            whole = await client.chat.completions.create(model=ASKED, messages=[{"role": "user", "content": QUESTION}])
            return whole.choices[0].message.content or ""
        text = ""
        async for chunk in await client.chat.completions.create(
            model=ASKED, messages=[{"role": "user", "content": QUESTION}], stream=True
        ):
            text += chunk.choices[0].delta.content or ""
        return text


Lay = Callable[[Bench, Credentials], object]


def answer(named: str, route: str = "conversation", **values: JSON) -> Lay:
    """Let every such call of the first account be refused in these ready-made words."""
    made = Fault("answer", named=named, values=values)
    return lambda bench, first: bench.control.fail(route, made, account=first.user_id, times=None)


def exchange_refused(bench: Bench, first: Credentials) -> object:
    """Let the sign-in server refuse every RefreshToken; the call bears no account, so it is for all."""
    return bench.control.refuse("oauth_token", "invalid_grant", times=None)


def fault(do: str, at: str = "before_headers", route: str = "conversation", **more: object) -> Lay:
    """Let something else go wrong with every such call of the first account."""
    made = Fault(do, at=at, **more)  # type: ignore[arg-type]
    return lambda bench, first: bench.control.fail(route, made, account=first.user_id, times=None)


def options(route: str | None = "conversation", **settings: JSON) -> Lay:
    """Let the backend behave so towards the first account."""
    return lambda bench, first: bench.control.add_rule(
        Rule(route, account=first.user_id, times=None, settings=settings)
    )


@dataclass(frozen=True)
class Row:
    """A row of the table, or one of the faults that share it. Times are seconds, `model` is what cools down."""

    name: str
    lay: Lay
    turns: int = 1
    next: bool = True
    raises: type[openai.APIError] = openai.APIError
    code: str = ""
    state: str = "ok"
    waits: dict[str, float] = field(default_factory=dict)
    exit_rests: float = 0.0
    renewable: bool = False
    exchanges: int = 0


TABLE = [
    Row("401 expired token, renewed but refused again", answer("token_expired"), turns=2, renewable=True, exchanges=2,
        state="needs_sign_in"),
    Row("401 expired token that cannot be renewed", answer("token_expired"), state="needs_sign_in"),
    Row("account deactivated", answer("account_deactivated"), state="needs_sign_in"),
    Row("account deactivated, told while preparing", answer("account_deactivated", "requirements"), turns=0,
        state="needs_sign_in"),
    Row("invalid grant", exchange_refused, turns=0, renewable=True, exchanges=1,
        state="needs_sign_in"),
    Row("429 with a time: clears_in", answer("model_cap", clears_in=3600), waits={ASKED: 3600}),
    Row("429 with a time: Retry-After", answer("retry_later", retry_after=1800),
        waits={ASKED: 1800}),
    Row("429 with a time over seven days", answer("model_cap", clears_in=10**8),
        waits={ASKED: 7 * 24 * 3600}),
    Row("429 without a time", answer("too_many_requests"), waits={ASKED: 60}),
    Row("unusual activity", answer("unusual_activity"), next=False, raises=openai.PermissionDeniedError,
        code="upstream_challenge", state="cooling", waits={EVERY: 60}, exit_rests=60),
    Row("unusual activity, while preparing", answer("unusual_activity_2024", "requirements"), turns=0, next=False,
        raises=openai.PermissionDeniedError, code="upstream_challenge", state="cooling", waits={EVERY: 60},
        exit_rests=60),
    Row("challenge page of the network in front", answer("cloudflare"), next=False,
        raises=openai.PermissionDeniedError, code="upstream_challenge", exit_rests=60),
    Row("a check for people", fault("answer", status=403, body='{"detail": "Verify that you are human."}'), next=False,
        raises=openai.PermissionDeniedError, code="upstream_challenge", state="cooling", waits={EVERY: 1800}),
    Row("a check for people, while preparing",
        fault("answer", route="requirements", status=403, body='{"detail": "Turnstile token missing"}'), turns=0,
        next=False, raises=openai.PermissionDeniedError, code="upstream_challenge", state="cooling",
        waits={EVERY: 1800}),
    # A turn without its check is refused in the words for unusual activity. Nearly every answer mentions Turnstile, also
    # where it is not insisted on, so only Arkose tells what is meant.
    Row("Turnstile, insisted on", options(None, turnstile="enforced"), next=False, raises=openai.PermissionDeniedError,
        code="upstream_challenge", state="cooling", waits={EVERY: 60}, exit_rests=60),
    Row("Arkose, insisted on", options(None, arkose=True), next=False, raises=openai.PermissionDeniedError,
        code="upstream_challenge", state="cooling", waits={EVERY: 1800}),
    *(
        Row(name, lay, turns=2)
        for name, lay in (
            ("500", answer("server_error")),
            ("502", answer("bad_gateway_page")),
            ("503", answer("overloaded")),
            ("504", answer("timeout")),
            ("520", fault("answer", status=520, body="")),
            ("529", fault("answer", status=529, body="")),
            ("an error event before the first content", fault("error_event", "before_content", body="Broken")),
        )
    ),
    Row("500 while preparing", answer("server_error", "requirements"), turns=0),
    Row("200 but HTML", answer("page_instead")),
    Row("200 but empty", answer("nothing")),
    Row("200 but an unreadable first event", fault("bytes", "before_content", body="<html>no</html>\n\n")),
    Row("200 but nothing said", options(answer="empty")),
    Row("body fully sent, no status line: reset", fault("reset")),
    Row("body fully sent, no status line: close", fault("close")),
    Row("body fully sent, half a head", fault("close", "mid_headers")),
    *(
        Row(name, lay, next=False, raises=raises, code=code)
        for name, lay, raises, code in (
            ("400", answer("bad_request"), openai.BadRequestError, "upstream_invalid_request"),
            ("404", answer("conversation_not_found"), openai.NotFoundError, "conversation_not_found"),
            ("413", answer("message_too_long"), openai.BadRequestError, "context_length_exceeded"),
            ("422", answer("bad_field"), openai.BadRequestError, "upstream_invalid_request"),
        )
    ),
    *(
        Row(f"after first content: {do}", fault(do, "mid_stream", after=2), next=False, raises=openai.APIError,
            code="stream_interrupted")
        for do in ("reset", "close", "end")
    ),
]  # fmt: skip


@streamed
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_R3_R3a_a_row_of_the_table(bench: Bench, row: Row, stream: bool) -> None:
    async with bench.case(0):
        bench.control.set_options(delay=0.01)
        first, second = bench.control.add_account(), bench.control.add_account()
        await bench.add(first.refresh_token if row.renewable else first.access_token, second.access_token)
        row.lay(bench, first)

        if row.next:
            assert await ask(bench, stream) == ANSWER
        else:
            with pytest.raises(row.raises) as told:
                await ask(bench, stream)
            assert told.value.code == row.code

        served = [record.account for record in bench.control.requests_to("conversation")]
        assert served == [first.user_id] * row.turns + [second.user_id] * row.next
        assert len(bench.control.requests_to("oauth_token")) == row.exchanges
        check_cooling(bench, row)
        bench.control.set_options(delay=0.0)
        await check_rest(bench, row, first, second)


def check_cooling(bench: Bench, row: Row) -> None:
    """Check what cools down: that and nothing else. The house's clock runs fast, so some of each wait is over."""
    view, other = bench.house.runtime.pool.views()
    assert view.state == row.state
    left = waits(view)
    assert left.keys() == row.waits.keys()
    for model, seconds in row.waits.items():
        assert max(seconds - 100, seconds / 2) < left[model] <= seconds
    assert (other.state, waits(other)) == ("ok", {})
    rests = exit_rests(bench)
    if row.exit_rests:
        assert row.exit_rests / 2 < rests <= row.exit_rests
    else:
        assert rests == 0


def waits(view: AccountView) -> dict[str, float]:
    """Give the seconds for which an account waits, by model."""
    return {wait.model: wait.seconds for wait in view.waits}


def exit_rests(bench: Bench) -> float:
    """Give for how long the only way to the backend stays closed."""
    source = bench.house.runtime.sources.pool
    return max(source.exits.blocked_for(used, host_of(bench.sim.url)) for used in source.exits.all)


async def check_rest(bench: Bench, row: Row, first: Credentials, second: Credentials) -> None:
    """Check that what cools down is left alone: the next request asks the second account only, or nobody."""
    bench.control.reset()
    if not (row.waits or row.exit_rests or row.state == "needs_sign_in"):
        return
    if row.exit_rests:
        assert (await bench.ask()).status == 429
        assert bench.control.requests == []
        return
    for _ in range(2):
        assert await ask(bench, False) == ANSWER
    assert {record.account for record in bench.control.requests_to("conversation")} == {second.user_id}


async def test_R3_an_expired_token_is_renewed_and_the_same_account_answers(bench: Bench) -> None:
    async with bench.case(0):
        account = bench.control.add_account()
        await bench.add(account.refresh_token, bench.control.add_account().access_token)
        bench.control.refuse("conversation", "token_expired", account=account.user_id)
        assert await ask(bench, True) == ANSWER
        assert [record.account for record in bench.control.requests_to("conversation")] == [account.user_id] * 2
        assert [(view.state, waits(view)) for view in bench.house.runtime.pool.views()] == [("ok", {})] * 2


async def test_R3_guessed_limits_double_and_end_when_the_model_answers(bench: Bench) -> None:
    async with bench.case(1) as (account,):
        rule = bench.control.refuse("conversation", "too_many_requests", account=account.user_id, times=None)
        for expected in (60, 120, 240, 480, 900, 900):
            with pytest.raises(openai.RateLimitError):
                async with bench.house.client(max_retries=0) as client:
                    await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": QUESTION}])
            (view,) = bench.house.runtime.pool.views()
            assert expected / 2 < waits(view)[ASKED] <= expected
            bench.clock.advance(math.ceil(waits(view)[ASKED]))
        assert rule.used == 6
        bench.control.reset()
        assert await ask(bench, False) == ANSWER


async def test_R3_R5_failures_in_a_row_close_the_way_until_one_probe_comes_back_well(bench: Bench) -> None:
    async with bench.case(4):
        bench.control.refuse("conversation", "server_error", times=None)
        assert (await bench.ask()).status == 502
        assert exit_rests(bench) == 0, "four failures do not close it"
        assert (await bench.ask()).status == 429
        assert bench.calls == 5
        assert 10 < exit_rests(bench) <= 30
        bench.control.reset()
        assert (await bench.ask()).status == 429
        assert bench.control.requests == []
        bench.clock.advance(31.0)
        assert await ask(bench, True) == ANSWER
        assert exit_rests(bench) == 0


async def test_R3_a_dead_proxy_is_left_for_another_exit_and_rests(tmp_path: Path) -> None:
    async with HttpProxy() as one, HttpProxy() as other:
        proxies = {one.url(): one, other.url(): other}
        async with open_bench(tmp_path, speed=1.0, PROXY_URL=",".join(proxies)) as bench, bench.case(8):
            exits, host = bench.house.runtime.sources.pool.exits, host_of(bench.sim.url)
            # Which proxy an account keeps to is drawn with its id: the one that dies is one that somebody uses.
            someone = bench.house.runtime.pool.views()[0].account.id
            dead = Exits(exits.all, bench.clock).choose(someone, host)
            assert dead is not None
            await proxies.pop(dead).die()
            for _ in range(8):
                assert await ask(bench, False) == ANSWER
            assert bench.calls == 8, "nothing was sent twice"
            assert 0 < exits.blocked_for(dead, host) <= 30
            assert [exits.blocked_for(living, host) for living in proxies] == [0]
            assert {view.state for view in bench.house.runtime.pool.views()} == {"ok"}, "no account is at fault"
