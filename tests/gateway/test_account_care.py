"""What `AccountCare` does beyond what tests/api/test_accounts.py shows through the server."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api.errors import InvalidRequestError, NotFoundError
from chat2api.gateway import account_care
from chat2api.gateway.doctor import Finding
from chat2api.gateway.jobs import Job
from tests.gateway.bench import Gateway, open_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("care")) as made:
        yield made


async def ended(job: Job) -> Job:
    async for _ in job.follow():
        pass
    return job


async def test_live_checks_run_side_by_side_but_few(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.fresh(7)
    running = most = 0
    test = gateway.runtime.care.test

    async def watched(account_id: str) -> Finding:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await test(account_id)
        finally:
            running -= 1

    monkeypatch.setattr(gateway.runtime.care, "test", watched)
    job = await ended(gateway.runtime.care.start_bulk("test", None))
    assert (job.status.state, job.status.done, job.status.failed) == ("done", 7, 0)
    assert most == account_care.TESTS_AT_ONCE
    assert gateway.in_flight == 0


async def test_an_account_that_is_removed_meanwhile_is_one_failed_item(gateway: Gateway) -> None:
    await gateway.fresh(3)
    ids = [view.account.id for view in gateway.source.pool.views()]
    job = gateway.runtime.care.start_bulk("disable", ids)
    await gateway.runtime.editor.delete([ids[1]])
    await ended(job)
    assert (job.status.state, job.status.done) == ("done", 3)
    assert [item.ok for item in job.items] in ([True, False, True], [True, True, True])
    states = {view.account.id: view.account.state for view in gateway.source.pool.views()}
    assert states == {ids[0]: "disabled", ids[2]: "disabled"}


async def test_bounds_are_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.fresh(2)
    monkeypatch.setattr(account_care, "MAX_BULK", 1)
    with pytest.raises(InvalidRequestError):
        gateway.runtime.care.start_bulk("enable", None)
    with pytest.raises(NotFoundError):
        gateway.runtime.care.view("acc_none")


async def test_S17_an_import_job_names_accounts_and_lines_only(gateway: Gateway) -> None:
    await gateway.fresh(0)
    token = gateway.control.add_account().access_token
    job = await ended(gateway.runtime.care.start_save(f"{token}\nnonsense-canary"))
    assert [(item.name, item.ok) for item in job.items] == [
        ("line 2", False),
        (gateway.source.pool.views()[0].account.label, True),
    ]
    assert token not in repr(job.items)
    assert "canary" not in repr(job.items)
