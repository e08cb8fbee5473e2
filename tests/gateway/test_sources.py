"""Whose accounts a caller may use, and how one of them becomes a session."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.accounts.pool import Outcome
from chat2api.errors import AllAccountsCoolingError, CallerTokenRejectedError, InvalidAPIKeyError
from chat2api.gateway.provider import Caller
from chat2api.gateway.sources import AccountSource, Sources, host_of, stable_order
from tests.accounts.jwt import access_token
from tests.gateway.bench import ANONYMOUS, OPERATOR, Gateway, open_gateway, own

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("sources")) as made:
        yield made


def new_sources(gateway: Gateway) -> Sources:
    """Give sources as a process has them that just started."""
    return Sources(gateway.runtime.sources.pool, gateway.runtime.sources.visitors, None, gateway.clock)


# The order of choices


async def test_the_same_key_always_has_the_same_order() -> None:
    choices = [f"https://{name}.test" for name in "abcdef"]
    for number in range(50):
        order = stable_order(f"account-{number}", choices)
        assert sorted(order) == choices
        assert order == stable_order(f"account-{number}", list(reversed(choices)))


async def test_keys_spread_and_stay_where_they_are_when_a_choice_goes() -> None:
    choices = [f"https://{name}.test" for name in "abcd"]
    before = {number: stable_order(f"account-{number}", choices)[0] for number in range(400)}
    assert all(60 < list(before.values()).count(choice) < 140 for choice in choices)
    after = {number: stable_order(f"account-{number}", choices[1:])[0] for number in range(400)}
    assert all(after[number] == first for number, first in before.items() if first != choices[0])


@pytest.mark.parametrize(
    ("origin", "host"), [("https://chatgpt.com", "chatgpt.com"), ("http://[::1]:80", "[::1]:80"), ("http://a:1", "a:1")]
)
async def test_a_host_is_named_with_its_port(origin: str, host: str) -> None:
    assert host_of(origin) == host


# Claims


async def test_an_operator_may_use_the_whole_pool(gateway: Gateway) -> None:
    claim = await gateway.runtime.sources.claim(OPERATOR)
    assert (claim.source, claim.account_id) == (gateway.source, None)


async def test_the_demo_key_opens_nothing_without_the_demo(gateway: Gateway) -> None:
    with pytest.raises(InvalidAPIKeyError):
        await gateway.runtime.sources.claim(Caller("demo", owner="demo"))


async def test_S1_nobody_but_an_operator_gets_the_pool_to_pick_from(gateway: Gateway) -> None:
    (account,) = await gateway.fresh()
    for caller in (ANONYMOUS, own(account.access_token), own(account.refresh_token), own(account.session_cookie)):
        assert (await gateway.runtime.sources.claim(caller)).account_id is not None


async def test_sign_in_free_chats_appear_on_one_device_however_many_begin_at_once(gateway: Gateway) -> None:
    sources = new_sources(gateway)
    claims = await asyncio.gather(*(sources.claim(ANONYMOUS) for _ in range(50)))
    claims.append(await sources.claim(ANONYMOUS))
    assert len({claim.account_id for claim in claims}) == 1
    account = gateway.runtime.sources.visitors.pool.account(claims[0].account_id or "")
    assert account is not None
    assert account.kind == "device"
    assert uuid.UUID(account.device_id).version == 4


async def test_an_own_access_token_stays_in_memory_and_keeps_its_device(gateway: Gateway) -> None:
    (account,) = await gateway.fresh()
    caller = own(gateway.control.make_access_token(account.user_id))
    claims = await asyncio.gather(*(gateway.runtime.sources.claim(caller) for _ in range(20)))
    (account_id,) = {claim.account_id for claim in claims}
    assert claims[0].source is gateway.runtime.sources.visitors
    visitor = claims[0].source.pool.account(account_id or "")
    assert visitor is not None
    kept = (await gateway.runtime.records.changes()).accounts
    assert visitor.id not in {one.id for one in kept}
    async with open_gateway(gateway.runtime.config.data_dir) as restarted:
        again = await restarted.runtime.sources.claim(caller)
        same = again.source.pool.account(again.account_id or "")
        assert same is not None
        assert same.device_id == visitor.device_id, "the same device after a restart"


async def test_S8_a_token_that_names_anothers_user_does_not_become_their_account(gateway: Gateway) -> None:
    claims = []
    for serial in (1, 2):
        claims.append(await gateway.runtime.sources.claim(own(access_token("user-1", serial=serial))))
    assert claims[0].account_id != claims[1].account_id
    pool = gateway.runtime.sources.visitors.pool
    devices = {one.device_id for claim in claims if (one := pool.account(claim.account_id or "")) is not None}
    assert len(devices) == 2


@pytest.mark.parametrize("kind", ["refresh_token", "session_cookie"])
async def test_an_own_renewable_token_is_kept_privately(gateway: Gateway, kind: str) -> None:
    caller = own(getattr(gateway.control.add_account(), kind))
    claims = await asyncio.gather(*(gateway.runtime.sources.claim(caller) for _ in range(10)))
    (account_id,) = {claim.account_id for claim in claims}
    assert claims[0].source is gateway.source
    kept = await gateway.runtime.records.account(account_id or "")
    assert kept is not None
    assert kept.owner == caller.owner
    assert account_id not in {view.account.id for view in gateway.source.pool.views()}


async def test_an_own_token_of_no_known_form_is_refused(gateway: Gateway) -> None:
    with pytest.raises(CallerTokenRejectedError):
        await gateway.runtime.sources.claim(own("sk-proj-not-an-account"))


# Sessions


async def test_a_session_tells_whose_credential_it_bears(gateway: Gateway) -> None:
    (account,) = await gateway.fresh()
    callers = {
        "account": OPERATOR,
        "caller": own(gateway.control.make_access_token(account.user_id)),
        "anonymous": ANONYMOUS,
    }
    for credential, caller in callers.items():
        claim = await gateway.runtime.sources.claim(caller)
        lease = await claim.source.pool.lease(model="auto", account_id=claim.account_id)
        session = await claim.source.open_session(lease, workspace=None)
        assert session.credential == credential
        assert (session.access_token is None) == (credential == "anonymous")
        assert session.device_id == lease.account.device_id
        await lease.release(Outcome.ABANDONED)


@pytest.mark.parametrize(
    ("given", "asked", "sent"), [(None, None, None), ("w-1", None, "w-1"), ("w-1", "w-2", "w-2"), (None, "w-2", "w-2")]
)
async def test_the_workspace_that_was_asked_for_goes_first(
    gateway: Gateway, given: str | None, asked: str | None, sent: str | None
) -> None:
    await gateway.fresh(0)
    token = gateway.control.add_account().access_token
    (account,) = await gateway.add(token, workspace=given)
    lease = await gateway.source.pool.lease(model="auto", account_id=account.id)
    session = await gateway.source.open_session(lease, workspace=asked)
    assert session.workspace_id == sent
    await lease.release(Outcome.ABANDONED)


async def test_a_token_that_ends_soon_is_renewed_before_it_is_used(gateway: Gateway) -> None:
    await gateway.fresh(0)
    (account,) = await gateway.add(gateway.control.add_account().refresh_token)
    lease = await gateway.source.pool.lease(model="auto", account_id=account.id)
    first = await gateway.source.open_session(lease, workspace=None)
    assert (await gateway.source.open_session(lease, workspace=None)).access_token == first.access_token
    assert len(gateway.control.requests_to("oauth_token")) == 1
    gateway.clock.advance(864_000)
    renewed = await gateway.source.open_session(lease, workspace=None)
    assert renewed.access_token != first.access_token
    await lease.release(Outcome.ABANDONED)


# Ways


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with two origins and two exits; nothing is sent."""
    origins, exits = "http://127.0.0.1:1,http://127.0.0.1:2", "http://127.0.0.1:3,http://127.0.0.1:4"
    folder = tmp_path_factory.mktemp("ways")
    async with open_gateway(folder, CHATGPT_BASE_URL=origins, PROXY_URL=exits) as made:
        yield made


async def choose(source: AccountSource, account_id: str, *avoid: tuple[str, str | None]) -> tuple[str, str | None]:
    lease = await source.pool.lease(model="auto", account_id=account_id)
    try:
        session = await source.open_session(lease, workspace=None, avoid=frozenset(avoid))
        return session.origin, session.proxy
    finally:
        await lease.release(Outcome.ABANDONED)


async def test_an_account_keeps_to_one_way(ways: Gateway) -> None:
    await ways.fresh(80)
    chosen = {}
    for view in ways.source.pool.views():
        first = chosen[view.account.id] = await choose(ways.source, view.account.id)
        assert await choose(ways.source, view.account.id) == first
    assert len(set(chosen.values())) == 4, "different accounts go different ways"


async def test_ways_that_failed_this_request_come_last_and_the_accounts_own_origin_first(ways: Gateway) -> None:
    await ways.fresh()
    account_id = ways.source.pool.views()[0].account.id
    tried: list[tuple[str, str | None]] = []
    for _ in range(4):
        tried.append(await choose(ways.source, account_id, *tried))
    assert len(set(tried)) == 4
    assert tried[0][0] == tried[1][0], "another exit is tried before another origin"
    assert await choose(ways.source, account_id, *tried) == tried[0], "when all failed, its own way"


async def test_while_an_origin_is_closed_through_every_exit_the_next_one_serves(ways: Gateway) -> None:
    await ways.fresh()
    account_id = ways.source.pool.views()[0].account.id
    origin, _ = await choose(ways.source, account_id)
    for proxy in ways.source.exits.all:
        ways.source.exits.report(proxy, host_of(origin), "distrusted")
    other, _ = await choose(ways.source, account_id)
    assert other != origin
    for proxy in ways.source.exits.all:
        ways.source.exits.report(proxy, host_of(other), "distrusted")
    with pytest.raises(AllAccountsCoolingError) as caught:
        await choose(ways.source, account_id)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 120
