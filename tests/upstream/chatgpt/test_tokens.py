"""The exchange of tokens over the wire: what is sent, what comes of it, and what each failure says of the token."""

import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import pytest

from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    ChallengedError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.recorder import RequestRecord
from chat2api.upstream.chatgpt.tokens import CODEX_CLIENT_ID, IOS_CLIENT_ID, RenewedTokens, TokenExchange
from chat2api.upstream.profiles import profile_for
from chat2api.upstream.transport import Channel
from tests.origin import Exchange, Origin
from tests.upstream.chatgpt.bench import Bench, open_bench

CHANNEL = Channel("account-1", None, profile_for("account-1"))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as made:
        yield made


def make_exchange(bench: Bench, *, url: str | None = None, client_id: str = "", timeout: float = 10.0) -> TokenExchange:
    return TokenExchange(
        bench.transport,
        bench.clock,
        token_url=url or f"{bench.sim.url}/oauth/token",
        client_id=client_id,
        connect_timeout=timeout,
        timeout=timeout,
    )


@pytest.fixture
def exchange(bench: Bench) -> TokenExchange:
    return make_exchange(bench)


def only_call(bench: Bench, route: str = "oauth_token") -> RequestRecord:
    (record,) = bench.control.requests_to(route)
    return record


# RefreshTokens


async def test_a_new_refresh_token_goes_out_as_a_form_and_is_replaced(bench: Bench, exchange: TokenExchange) -> None:
    sent = bench.account.refresh_token
    renewed = await exchange.refresh(CHANNEL, sent)

    request = only_call(bench).request
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": [CODEX_CLIENT_ID],
        "refresh_token": [sent],
        "scope": ["openid profile email offline_access"],
    }
    assert renewed.renewable == bench.control.refresh_token(bench.account.user_id) != sent
    assert renewed.expires_in == 864_000
    assert abs(renewed.date_skew) < 5
    assert bench.sim.control.make_access_token(bench.account.user_id).count(".") == renewed.access.count(".") == 2


async def test_an_old_refresh_token_goes_out_as_json_with_its_own_client(bench: Bench, exchange: TokenExchange) -> None:
    account = bench.control.accounts[2]
    assert len(account.refresh_token) == 45
    bench.control.set_options(rotation="none")
    renewed = await exchange.refresh(CHANNEL, account.refresh_token)
    request = only_call(bench).request
    assert request.header("content-type") == "application/json"
    fields = json.loads(request.body)
    assert fields["client_id"] == IOS_CLIENT_ID
    assert fields["redirect_uri"].startswith("com.openai.chat://")
    assert fields["refresh_token"] == account.refresh_token
    assert renewed.renewable is None, "this server left it out: the old one stays"


async def test_a_set_client_is_used_for_every_form(bench: Bench) -> None:
    exchange = make_exchange(bench, client_id="app_of_the_operator")
    for account in (bench.control.accounts[0], bench.control.accounts[2]):
        with pytest.raises(AccountRejectedError) as caught:
            await exchange.refresh(CHANNEL, account.refresh_token)
        assert caught.value.reason == "access_denied"
        assert bench.control.received("app_of_the_operator")
    assert not bench.control.received(CODEX_CLIENT_ID)


@pytest.mark.parametrize("skew", [-86_400.0, 0.0, 86_400.0])
async def test_R21_the_servers_clock_is_told(bench: Bench, exchange: TokenExchange, skew: float) -> None:
    bench.control.set_options(date_skew=skew)
    renewed = await exchange.refresh(CHANNEL, bench.account.refresh_token)
    assert renewed.date_skew == pytest.approx(skew, abs=5)


@pytest.mark.parametrize("date", ["", "yesterday", "0", "Thu, 99 Xyz 2026 00:00:00 GMT"])
async def test_R21_an_unreadable_date_is_no_skew(date: str) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200, [("content-type", "application/json"), ("date", date)])
        await exchange.send(b'{"access_token": "a"}')
        await exchange.finish()

    async with Origin(handler) as origin, open_bench() as bench:
        renewed = await make_exchange(bench, url=origin.url).refresh(CHANNEL, "rt_" + "x" * 60)
    assert renewed == RenewedTokens("a", None, None, 0.0)


@pytest.mark.parametrize(
    ("fields", "expires_in", "renewable"),
    [
        ({"expires_in": True, "refresh_token": 5}, None, None),
        ({"expires_in": "3600", "refresh_token": ""}, None, None),
        ({"expires_in": 12.5, "refresh_token": "rt_next"}, 12.5, "rt_next"),
        ({"expires_in": None, "refresh_token": None}, None, None),
    ],
)
async def test_fields_beside_the_access_token_may_be_missing_or_wrong(
    bench: Bench, exchange: TokenExchange, fields: dict[str, object], expires_in: float | None, renewable: str | None
) -> None:
    body = json.dumps({"access_token": "a", **fields})
    bench.control.fail("oauth_token", Fault("answer", status=200, body=body))
    renewed = await exchange.refresh(CHANNEL, "rt_" + "x" * 60)
    assert (renewed.expires_in, renewed.renewable) == (expires_in, renewable)


def test_S18_tokens_do_not_show_in_the_repr() -> None:
    shown = repr(RenewedTokens("access-canary", "renewable-canary", 1.0, 0.0))
    assert "canary" not in shown


# What a failure says

DEAD = [
    "invalid_grant",
    "access_denied",
    "refresh_token_reused",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "app_session_terminated",
    "account_deactivated",
]


@pytest.mark.parametrize("name", DEAD)
async def test_only_the_servers_own_codes_mean_a_dead_token(bench: Bench, exchange: TokenExchange, name: str) -> None:
    bench.control.refuse("oauth_token", name)
    with pytest.raises(AccountRejectedError) as caught:
        await exchange.refresh(CHANNEL, bench.account.refresh_token)
    assert caught.value.reason == name
    assert not caught.value.may_refresh
    assert bench.account.refresh_token not in caught.value.message
    only_call(bench)


async def test_a_token_that_was_used_before_is_dead(bench: Bench, exchange: TokenExchange) -> None:
    await exchange.refresh(CHANNEL, bench.account.refresh_token)
    with pytest.raises(AccountRejectedError) as caught:
        await exchange.refresh(CHANNEL, bench.account.refresh_token)
    assert caught.value.reason == "refresh_token_reused"


HARMLESS: list[tuple[Fault, type[UpstreamError]]] = [
    (Fault("answer", named="too_many_requests"), AccountLimitedError),
    (Fault("answer", named="retry_later", values={"retry_after": 33}), AccountLimitedError),
    (Fault("answer", named="server_error"), UpstreamServerError),
    (Fault("answer", named="bad_gateway_page"), UpstreamServerError),
    (Fault("answer", named="overloaded"), UpstreamServerError),
    (Fault("answer", named="timeout"), UpstreamServerError),
    (Fault("answer", named="cloudflare"), ChallengedError),
    (Fault("answer", named="cloudflare_2024"), ChallengedError),
    (Fault("answer", named="page_instead"), ChallengedError),
    (Fault("answer", named="unauthorized"), UpstreamProtocolError),
    (Fault("answer", named="not_found"), UpstreamProtocolError),
    (Fault("answer", named="unsupported_grant_type"), UpstreamProtocolError),
    (Fault("answer", status=500, body='{"error": "invalid_grant"}'), UpstreamServerError),
    (Fault("answer", status=429, body='{"error": "refresh_token_reused"}'), AccountLimitedError),
    (Fault("answer", status=403, body="Forbidden"), UpstreamProtocolError),
    (Fault("answer", status=302, headers=(("location", "https://chatgpt.com/"),)), UpstreamProtocolError),
]


@pytest.mark.parametrize(("fault", "expected"), HARMLESS)
async def test_R29_any_other_answer_leaves_the_token_as_it_is(
    bench: Bench, exchange: TokenExchange, fault: Fault, expected: type[UpstreamError]
) -> None:
    bench.control.fail("oauth_token", fault)
    with pytest.raises(expected) as caught:
        await exchange.refresh(CHANNEL, bench.account.refresh_token)
    assert not isinstance(caught.value, AccountRejectedError | TransportError | UpstreamTimeoutError)
    assert bench.routes == ["oauth_token"]
    assert (await exchange.refresh(CHANNEL, bench.account.refresh_token)).access, "as good as it was"


UNKNOWN = [
    Fault("close", at="mid_headers", effect=True),
    Fault("answer", status=200, body='{"access_token": "eyJhbGci', effect=True),
    Fault("answer", status=200, body="{}", effect=True),
    Fault("answer", status=200, body='{"access_token": 5}', effect=True),
    Fault("answer", status=200, body='{"access_token": ""}', effect=True),
    Fault("answer", status=200, body="[]", effect=True),
    Fault("answer", status=200, headers=(("content-type", "application/json"),), effect=True),
    Fault("answer", truncate=40, effect=True),
    Fault("close", at="mid_stream"),
    Fault("reset", at="mid_stream"),
    Fault("reset", at="before_headers", effect=True),
    Fault("close", at="before_headers", effect=True),
]


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_R29_an_answer_that_is_lost_leaves_the_outcome_open(
    bench: Bench, exchange: TokenExchange, fault: Fault
) -> None:
    bench.control.fail("oauth_token", fault)
    with pytest.raises(TransportError) as caught:
        await exchange.refresh(CHANNEL, bench.account.refresh_token)
    assert caught.value.request_sent
    only_call(bench)
    assert bench.control.refresh_token(bench.account.user_id) != bench.account.refresh_token, "it was consumed"


async def test_an_answer_that_does_not_come_leaves_the_outcome_open(bench: Bench) -> None:
    bench.control.fail("oauth_token", Fault("stall"))
    with pytest.raises(UpstreamTimeoutError) as caught:
        await make_exchange(bench, timeout=0.2).refresh(CHANNEL, bench.account.refresh_token)
    assert caught.value.phase != "connect"
    only_call(bench)


async def test_a_server_that_is_not_there_has_consumed_nothing(bench: Bench) -> None:
    async with Simulator() as gone:
        url = f"{gone.url}/oauth/token"
    with pytest.raises(TransportError) as caught:
        await make_exchange(bench, url=url).refresh(CHANNEL, bench.account.refresh_token)
    assert not caught.value.request_sent


# Login cookies


async def test_a_cookie_is_exchanged_and_replaced(bench: Bench, exchange: TokenExchange) -> None:
    first = await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    assert first.renewable is not None
    assert first.renewable != bench.account.session_cookie
    second = await exchange.exchange_cookie(CHANNEL, bench.sim.url, first.renewable)
    assert second.access != first.access
    assert only_tokens_are_cookies(bench)


async def test_a_used_cookie_is_not_signed_in_any_more(bench: Bench, exchange: TokenExchange) -> None:
    await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    with pytest.raises(AccountRejectedError) as caught:
        await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    assert caught.value.reason == "session_ended"
    assert not caught.value.may_refresh


@pytest.mark.parametrize("tls", [False, True])
async def test_a_long_cookie_goes_in_parts_both_ways_and_back_to_one(tls: bool) -> None:
    async with open_bench(tls=tls) as bench:
        origin = bench.sim.tls_url if tls else bench.sim.url
        exchange = make_exchange(bench)
        cookie = bench.account.session_cookie
        for limit in (600, 500, 900, 3_800, 600, 3_800, 3_800):
            bench.control.set_options(session_cookie_limit=limit)
            renewed = await exchange.exchange_cookie(CHANNEL, origin, cookie)
            assert renewed.renewable is not None
            assert ("|||" in renewed.renewable) == (limit < 1_000)
            cookie = renewed.renewable
        assert bench.account.session_cookie != cookie.replace("|||", "")


@pytest.mark.parametrize("name", ["empty_object", "banner"])
async def test_a_page_without_a_sign_in_ends_the_session(bench: Bench, exchange: TokenExchange, name: str) -> None:
    if name == "banner":
        body = '{"WARNING_BANNER": "do not share"}'
        bench.control.fail("session", Fault("answer", status=200, body=body))
    else:
        bench.control.refuse("session", name)
    with pytest.raises(AccountRejectedError) as caught:
        await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    assert caught.value.reason == "session_ended"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("answer", named="cloudflare"), ChallengedError),
        (Fault("answer", named="page_instead"), ChallengedError),
        (Fault("answer", named="server_error"), UpstreamServerError),
        (Fault("answer", named="too_many_requests"), AccountLimitedError),
        (Fault("answer", named="unauthorized"), UpstreamProtocolError),
    ],
)
async def test_R29_no_other_answer_ends_a_session(
    bench: Bench, exchange: TokenExchange, fault: Fault, expected: type[UpstreamError]
) -> None:
    bench.control.fail("session", fault)
    with pytest.raises(expected) as caught:
        await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    assert not isinstance(caught.value, AccountRejectedError)


@pytest.mark.parametrize("body", ['{"accessToken": "eyJ', '{"accessToken": null}', "nonsense", ""])
async def test_R29_an_unreadable_answer_to_a_cookie_leaves_the_outcome_open(
    bench: Bench, exchange: TokenExchange, body: str
) -> None:
    headers = (("content-type", "application/json"),)
    bench.control.fail("session", Fault("answer", status=200, body=body, headers=headers, effect=True))
    with pytest.raises(TransportError) as caught:
        await exchange.exchange_cookie(CHANNEL, bench.sim.url, bench.account.session_cookie)
    assert caught.value.request_sent


def only_tokens_are_cookies(bench: Bench) -> bool:
    """Whether no session call brought the account's cookie anywhere but in the Cookie header."""
    return all(
        "session-token" not in value
        for record in bench.control.requests_to("session")
        for name, value in record.request.headers
        if name != "cookie"
    )
