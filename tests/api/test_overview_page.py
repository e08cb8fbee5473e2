"""The overview: what it says of a server that is well, and of one that is not."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chat2api import __version__
from chat2api.storage.usage import UsageRow, day_of
from tests.api.pages_house import Person
from tests.e2e.harness import OPERATOR_KEY, Bench, open_bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/tokens/overview"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("overview")) as bench:
        yield bench


async def look(bench: Bench, query: str = "") -> str:
    async with Person(bench.house.base) as person:
        await person.sign_in()
        answer = await person.get(PATH + query)
    assert answer.status_code == 200
    return answer.text


def total(page: str) -> list[int]:
    """Give what was answered, what failed, and the tokens."""
    found = re.findall(r"<dt>(?:Answered|Failed|Tokens)</dt><dd>([^<]*)</dd>", page)
    assert len(found) == 3
    return [int(number.replace("\u202f", "")) for number in found]


async def test_requests_errors_and_tokens_of_the_day_are_counted(bench: Bench) -> None:
    before = total(await look(bench))
    async with bench.case(1):
        assert (await bench.ask(False)).status == 200
        assert (await bench.ask(True)).status == 200
        assert (await bench.ask(model=["not a name"])).status == 400
        assert (await bench.http.get("/v1/models")).status_code in (200, 401)
    page = await look(bench)
    answered, failed, tokens = (now - then for now, then in zip(total(page), before, strict=True))
    assert (answered, failed) == (2, 1), "looking something up is no turn"
    assert tokens > 0
    assert re.search(r"half of the answers began within \d+\.\d+ s", page)
    assert page.count("<svg") == 4


async def test_the_month_comes_from_the_ledger(bench: Bench) -> None:
    before = total(await look(bench, "?period=month"))
    now = bench.house.runtime.clock.now()
    rows = [
        UsageRow(day_of(now - back * 86400), "operator", "label", "m", requests=1000, prompt_tokens=7, errors=3)
        for back in (0, 29, 31)
    ]
    await bench.house.runtime.records.usage.add(rows)
    page = await look(bench, "?period=month")
    assert [one - other for one, other in zip(total(page), before, strict=True)] == [2000, 6, 14]
    assert "Answered, by day" in page
    assert len(re.findall(r'<tr><th scope="row">\d\d-\d\d</th>', page)) == 90


async def test_accounts_are_told_by_state_with_what_to_do(bench: Bench) -> None:
    async with bench.case(3) as (_, second, _):
        views = bench.house.runtime.pool.views()
        await bench.house.runtime.editor.disable(views[0].account.id)
        bench.control.refuse("conversation", "model_cap", account=second.user_id, clears_in=600)
        page = await look(bench)
    assert re.search(r"disabled</span>\s*(?:</a>)?</td><td class=\"number\">1</td>", page)
    assert re.search(r"ok</span>\s*(?:</a>)?</td><td class=\"number\">2</td>", page)
    assert "Enable them when they shall serve again." in page
    assert 'href="/tokens?state=disabled"' in page


async def test_a_pool_that_cannot_serve_is_an_alarm(bench: Bench) -> None:
    async with bench.case(1) as (account,):
        assert "No account can serve now." not in await look(bench)
        bench.control.revoke(account.user_id)
        await bench.ask()
        page = await look(bench)
    assert "No account can serve now." in page
    assert "Accounts signed out: 1." in page
    assert "Nothing needs you now." not in page


async def test_R15_what_needs_the_operator_is_told_in_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = bench.house.runtime
    calm = await look(bench)
    for words in ("older copy", "not understood", "already (", "are stopped"):
        assert words not in calm
    for _ in range(3):
        runtime.drift.note({"content_type: <hologram>": 1}, runtime.clock.monotonic())
    monkeypatch.setattr(runtime.keeper, "reused_total", 1)
    await runtime.records.set_meta("restored", "1")
    await runtime.keys.stop(True)
    try:
        page = await look(bench)
    finally:
        await runtime.keys.stop(False)
        await runtime.records.confirm_restored()
        bench.clock.advance(400)
    for words in ("older copy", "not understood (content_type: &lt;hologram&gt;)", "already (1)", "are stopped"):
        assert words in page
    assert "Nothing needs you now." not in page


async def test_the_key_beside_the_records_is_mentioned(bench: Bench) -> None:
    assert "set SECRET_KEY" in await look(bench)


async def test_version_upstream_and_uptime_are_told_and_no_secret(bench: Bench) -> None:
    async with bench.case(1) as (account,):
        page = await look(bench)
    assert __version__ in page
    assert bench.sim.url in page
    assert "Runs for" in page
    assert OPERATOR_KEY not in page
    assert account.access_token not in page


async def test_an_unknown_period_is_refused_and_strangers_sign_in_first(bench: Bench) -> None:
    async with Person(bench.house.base) as person:
        assert (await person.get(PATH)).headers["location"] == f"/login?next={PATH}"
        await person.sign_in()
        assert (await person.get(f"{PATH}?period=year")).status_code == 400


async def test_pages_and_failed_sign_ins_are_no_turns(bench: Bench) -> None:
    before = total(await look(bench))
    async with Person(bench.house.base) as person:
        await person.sign_in("wrong")
    await until(lambda: bench.house.in_flight == 0, "something is still on its way")
    assert total(await look(bench)) == before
