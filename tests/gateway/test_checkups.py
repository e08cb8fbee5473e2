"""`chat2api/gateway/checkups.py`."""

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.accounts.pool import Outcome
from chat2api.errors import AllAccountsCoolingError, ChallengedError
from chat2api.gateway.checkups import FACTS_SECONDS, Checkups
from chat2api.storage.values import Cooldown
from tests.gateway.bench import Gateway, open_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("checkups")) as made:
        yield made


@pytest.fixture
def checkups(gateway: Gateway) -> Checkups:
    return Checkups(gateway.runtime.client, gateway.source, gateway.clock, random.Random(1))


def looks(gateway: Gateway) -> int:
    return len(gateway.control.requests_to("accounts_check"))


async def test_plan_models_and_features_are_asked_once_a_day_of_use(gateway: Gateway, checkups: Checkups) -> None:
    await gateway.fresh(2, plan="plus")
    assert await checkups.pass_over() == 2
    first, _ = gateway.source.pool.views()
    stored = await gateway.source.records.account(first.account.id)
    assert first.account == stored
    assert first.account.plan == "plus"
    assert "auto" in first.account.models and first.account.capabilities
    assert first.account.facts_at == pytest.approx(gateway.clock.now(), abs=600)

    gateway.clock.advance(FACTS_SECONDS + 60)
    assert await checkups.pass_over() == 0, "nobody used them"
    await (await gateway.source.pool.lease(model="gpt", account_id=first.account.id)).release(Outcome.SERVED)
    assert await checkups.pass_over() == 1
    assert looks(gateway) == 3


async def test_a_suspect_account_is_probed_after_its_wait(gateway: Gateway, checkups: Checkups) -> None:
    await gateway.fresh(1)
    pool = gateway.source.pool
    (view,) = pool.views()
    await (await pool.lease(model="gpt", account_id=view.account.id)).release(ChallengedError("", scope="both"))
    assert await checkups.pass_over() == 0, "it waits"

    gateway.clock.advance(61)
    assert [one.state for one in pool.views()] == ["suspect"]
    assert await checkups.pass_over() == 1

    assert [one.state for one in pool.views()] == ["ok"]


async def test_a_suspect_account_whose_probe_is_under_way_is_left_alone(gateway: Gateway, checkups: Checkups) -> None:
    await gateway.fresh(1)
    pool = gateway.source.pool
    await (await pool.lease(model="gpt")).release(ChallengedError("", scope="both"))
    gateway.clock.advance(61)
    lease = await pool.lease(model="gpt")

    assert await checkups.pass_over() == 0

    await lease.release(Outcome.SERVED)


async def test_a_closed_account_is_found_out(gateway: Gateway, checkups: Checkups) -> None:
    (credentials,) = await gateway.fresh(1)
    gateway.control.deactivate(credentials.user_id)

    assert await checkups.pass_over() == 0

    (view,) = gateway.source.pool.views()
    assert (view.state, view.reason) == ("needs_sign_in", "account_deactivated")
    assert await checkups.pass_over() == 0
    assert len(gateway.control.requests) == 1


async def test_an_operators_probe_ends_guessed_waits_and_respects_stated_ones(
    gateway: Gateway, checkups: Checkups
) -> None:
    await gateway.fresh(1)
    pool = gateway.source.pool
    (view,) = pool.views()
    await pool.cool(Cooldown(view.account.id, "*", gateway.clock.now() + 1800, False, "human_check", 1))
    with pytest.raises(AllAccountsCoolingError):
        await checkups.look(view.account.id)
    await checkups.look(view.account.id, probe=True)
    assert [one.state for one in pool.views()] == ["ok"]

    await pool.cool(Cooldown(view.account.id, "*", gateway.clock.now() + 1800, True, "stated_limit"))
    with pytest.raises(AllAccountsCoolingError):
        await checkups.look(view.account.id, probe=True)
