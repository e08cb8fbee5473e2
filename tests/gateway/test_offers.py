"""Which models the accounts offer: asked rarely, for each plan once, and never in anybody's way."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.errors import AccountRejectedError, NoAccountError, UpstreamServerError
from chat2api.gateway.offers import FORGOTTEN_AFTER, LIFETIME, MAX_ASKED, Offers
from chat2api.gateway.sources import Claim
from chat2api.simulator.faults import Fault
from tests.gateway.bench import ANONYMOUS, Gateway, open_gateway, own

pytestmark = pytest.mark.asyncio(loop_scope="module")

FREE = ["auto", "gpt-4o-mini", "gpt-5-5-instant"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("offers")) as made:
        yield made


@pytest.fixture
def offers(gateway: Gateway) -> Offers:
    return Offers(gateway.runtime.client, gateway.clock)


def asked(gateway: Gateway) -> int:
    return len(gateway.control.requests_to("models"))


def everything(gateway: Gateway) -> Claim:
    return Claim(gateway.source, None)


async def test_a_list_is_asked_for_once_in_its_lifetime(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(plan="free")
    lists = await asyncio.gather(*(offers.slugs(everything(gateway), None) for _ in range(20)))
    assert lists == [FREE] * 20
    assert asked(gateway) == 1
    gateway.clock.advance(LIFETIME - 60)
    await offers.slugs(everything(gateway), None)
    assert asked(gateway) == 1
    gateway.clock.advance(120)
    await offers.slugs(everything(gateway), None)
    assert asked(gateway) == 2


async def test_what_accounts_offered_is_forgotten_a_day_after_they_were_asked_last(
    gateway: Gateway, offers: Offers
) -> None:
    await gateway.fresh(plan="plus")
    await offers.slugs(everything(gateway), None)
    before = offers.known
    await gateway.fresh(plan="free")
    gateway.clock.advance(LIFETIME)
    await offers.slugs(everything(gateway), None)
    assert offers.known == before

    gateway.clock.advance(FORGOTTEN_AFTER)
    await offers.slugs(everything(gateway), None)

    assert offers.known == set(FREE) < before


async def test_one_account_of_each_plan_is_asked(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(5)
    await gateway.add(*(gateway.control.add_account("free").access_token for _ in range(5)))
    slugs = await offers.slugs(everything(gateway), None)
    assert asked(gateway) == 2
    assert set(FREE) < set(slugs)
    assert list(slugs) == sorted(slugs)
    assert offers.known == set(slugs)


async def test_accounts_of_different_workspaces_are_asked_up_to_a_limit(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(0)
    teams = [gateway.control.add_account(team=True) for _ in range(MAX_ASKED + 3)]
    for team in teams:
        await gateway.add(team.access_token, workspace=team.account_ids[1])
    await offers.slugs(everything(gateway), None)
    assert asked(gateway) == MAX_ASKED


async def test_the_workspace_asked_for_restricts_who_is_asked(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(2)
    team = gateway.control.add_account(team=True)
    await gateway.add(team.access_token, workspace=team.account_ids[1])
    await offers.slugs(everything(gateway), team.account_ids[1])
    (record,) = gateway.control.requests_to("models")
    assert record.request.header("chatgpt-account-id") == team.account_ids[1]
    with pytest.raises(NoAccountError):
        await offers.slugs(everything(gateway), "no-such-workspace")


async def test_without_an_account_there_is_nobody_to_ask(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(0)
    with pytest.raises(NoAccountError):
        await offers.slugs(everything(gateway), None)
    assert await offers.slugs_for("what-is-this", everything(gateway), None) == frozenset()


async def test_an_account_that_fails_hides_nothing_of_the_others(gateway: Gateway, offers: Offers) -> None:
    (plus,) = await gateway.fresh()
    await gateway.add(gateway.control.add_account("free").access_token)
    gateway.control.refuse("models", "server_error", account=plus.user_id)
    assert await offers.slugs(everything(gateway), None) == FREE
    assert len(await offers.slugs(everything(gateway), None)) > len(FREE), "the failure is not kept"


async def test_when_nobody_answers_the_failure_is_told_and_no_account_stays_leased(
    gateway: Gateway, offers: Offers
) -> None:
    await gateway.fresh()
    gateway.control.refuse("models", "server_error")
    with pytest.raises(UpstreamServerError):
        await offers.slugs(everything(gateway), None)
    assert gateway.in_flight == 0


async def test_a_dead_account_is_found_out_by_asking_and_not_asked_again(gateway: Gateway, offers: Offers) -> None:
    (account,) = await gateway.fresh()
    gateway.control.revoke(account.user_id)
    with pytest.raises(AccountRejectedError):
        await offers.slugs(everything(gateway), None)
    (view,) = gateway.source.pool.views()
    assert (view.state, view.account.reason) == ("needs_sign_in", "token_revoked")
    with pytest.raises(NoAccountError):
        await offers.slugs(everything(gateway), None)
    assert asked(gateway) == 1


async def test_a_leaving_caller_leaves_the_question_to_the_next_one(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh(plan="free")
    gateway.control.fail("models", Fault("stall"))
    first = asyncio.ensure_future(offers.slugs(everything(gateway), None))
    await gateway.control.wait_until(lambda: asked(gateway) == 1)
    second = asyncio.ensure_future(offers.slugs(everything(gateway), None))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == FREE
    assert first.cancelled()
    await gateway.settled()


async def test_visitors_are_asked_about_themselves(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh()
    free = gateway.control.add_account("free")
    assert await offers.slugs(await gateway.runtime.sources.claim(own(free.access_token)), None) == FREE
    assert await offers.slugs(await gateway.runtime.sources.claim(ANONYMOUS), None) == FREE
    assert gateway.control.violations == []


@pytest.mark.parametrize("name", ["auto", "gpt-4o", "gpt-3.5-turbo", "o1-mini", "gpt-4-gizmo-g-abc"])
async def test_a_name_that_the_tables_know_asks_nobody(gateway: Gateway, offers: Offers, name: str) -> None:
    await gateway.fresh()
    assert await offers.slugs_for(name, everything(gateway), None) == frozenset()
    assert asked(gateway) == 0


async def test_an_unknown_name_is_looked_up_once(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh()
    assert "gpt-5-6" in await offers.slugs_for("nobody-knows-this", everything(gateway), None)
    await offers.slugs_for("nor-this", everything(gateway), None)
    assert asked(gateway) == 1


async def test_an_unknown_name_never_fails_for_want_of_a_list(gateway: Gateway, offers: Offers) -> None:
    await gateway.fresh()
    gateway.control.refuse("models", "cloudflare")
    assert await offers.slugs_for("nobody-knows-this", everything(gateway), None) == frozenset()
