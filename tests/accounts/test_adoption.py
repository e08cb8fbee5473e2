"""`chat2api/accounts/adoption.py`."""

import pytest

from chat2api.accounts.adoption import Adoptions
from chat2api.accounts.pool import AccountPool
from chat2api.errors import CallerTokenRejectedError, NoAccountError
from chat2api.storage.sql_records import SqlRecords
from tests.accounts.jwt import access_token
from tests.clocks import FakeClock
from tests.storage.accounts import rotating


async def test_private_accounts_are_leased_by_name_only(records: SqlRecords, clock: FakeClock) -> None:
    pool = AccountPool(records, clock)
    adoptions = Adoptions(records, pool, clock)
    account = await adoptions.adopt(rotating(1), "caller")

    with pytest.raises(NoAccountError):
        await pool.lease(model="gpt")
    lease = await pool.lease(model="gpt", account_id=account.id)

    assert (lease.account.owner, pool.statistics().private, pool.statistics().total) == ("caller", 1, 0)
    assert pool.views() == []


async def test_a_callers_older_token_still_finds_the_account(records: SqlRecords, clock: FakeClock) -> None:
    pool = AccountPool(records, clock)
    adoptions = Adoptions(records, pool, clock)
    first = await adoptions.adopt(rotating(1), "caller")
    again = Adoptions(records, AccountPool(records, clock), clock)

    assert await adoptions.adopt(rotating(1), "caller") is first
    assert await again.adopt(rotating(1), "caller") == first


async def test_only_what_can_be_renewed_is_adopted(records: SqlRecords, clock: FakeClock) -> None:
    pool = AccountPool(records, clock)
    adoptions = Adoptions(records, pool, clock)

    for token in (access_token(), "nonsense", "sk-key", "fk-share"):
        with pytest.raises(CallerTokenRejectedError):
            await adoptions.adopt(token, "caller")
    assert (await records.changes()).accounts == ()
