"""What all attempts at a request have in common: whose conversation it is, and what is remembered.

The order of attempts is held by tests/e2e/test_retry_table.py, and through each provider by its own tests.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from chat2api.errors import NotFoundError, StreamInterruptedError, UpstreamProtocolError, UpstreamServerError
from chat2api.gateway.attempts import affinity_of, claim_conversation, is_unreadable
from chat2api.gateway.provider import Caller
from chat2api.storage.values import ConversationOwner
from tests.gateway.bench import ANONYMOUS, ANOTHER, OPERATOR, Gateway, open_gateway, own

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("attempts")) as made:
        yield made


async def test_S8_a_conversation_is_claimed_by_its_owner_alone(gateway: Gateway) -> None:
    await gateway.fresh()
    (account,) = gateway.source.pool.accounts()
    await gateway.source.records.put_conversation(ConversationOwner("c-1", account.id, OPERATOR.owner, "m-1", 1.0))
    claim, owned = await claim_conversation(await gateway.runtime.sources.claim(OPERATOR), OPERATOR, "c-1")
    assert claim.account_id == account.id
    assert owned is not None
    assert owned.last_message_id == "m-1"
    held_elsewhere = Caller("issued_key", owner=OPERATOR.owner, allowed=frozenset({"another-account"}))
    for caller, conversation_id in ((ANOTHER, "c-1"), (OPERATOR, "c-2"), (held_elsewhere, "c-1")):
        with pytest.raises(NotFoundError):
            await claim_conversation(await gateway.runtime.sources.claim(caller), caller, conversation_id)


async def test_S8_a_workspace_that_is_named_leads_no_shared_account_astray(gateway: Gateway) -> None:
    await gateway.fresh()
    (account,) = gateway.source.pool.accounts()
    await gateway.source.records.put_conversation(ConversationOwner("c-3", account.id, OPERATOR.owner, "m-1", 1.0))
    assert account.workspace is not None
    inside = replace(OPERATOR, workspace=account.workspace)
    claim, _ = await claim_conversation(await gateway.runtime.sources.claim(inside), inside, "c-3")
    assert claim.account_id == account.id
    elsewhere = replace(OPERATOR, workspace="99999999-0000-4000-8000-000000000000")
    with pytest.raises(NotFoundError):
        await claim_conversation(await gateway.runtime.sources.claim(elsewhere), elsewhere, "c-3")


async def test_who_brings_an_account_is_believed_about_its_conversations(gateway: Gateway) -> None:
    visitor = own(gateway.control.add_account().access_token)
    claim = await gateway.runtime.sources.claim(visitor)
    narrowed, owned = await claim_conversation(claim, visitor, "made-elsewhere")
    assert narrowed == claim
    assert owned is None


@pytest.mark.parametrize(
    ("caller", "stays"),
    [(OPERATOR, False), (Caller("demo", "demo"), False), (Caller("issued_key", "issued:k"), True), (ANONYMOUS, True)],
)
async def test_who_is_one_person_stays_with_one_account(caller: Caller, stays: bool) -> None:
    assert affinity_of(caller) == (caller.owner if stays else None)


async def test_an_answer_that_cannot_be_decoded_is_told_from_other_failures() -> None:
    cut = StreamInterruptedError("cut")
    cut.__cause__ = UpstreamProtocolError("odd")
    failed = UpstreamServerError("failed", upstream_status=500)
    assert [is_unreadable(one) for one in (None, failed, UpstreamProtocolError("odd"), cut)] == [
        False,
        False,
        True,
        True,
    ]
