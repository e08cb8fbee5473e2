"""Usage as holders of keys, the operator and old billing pages see it; and that a killed server loses a second at most."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.issue import Issued
from chat2api.storage.keys import KeyLimits, NewKey
from chat2api.storage.usage import day_of
from tests.e2e.harness import OPERATOR_KEY, Bench, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBERS = ("requests", "prompt_tokens", "completion_tokens", "images", "seconds", "errors")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("usage"), speed=1.0) as opened:
        yield opened


async def issue(bench: Bench, name: str = "Ada", **limits: Any) -> Issued:
    return await bench.house.runtime.keys.issue(NewKey(name, None, note="a note", limits=KeyLimits(**limits)))


async def get(bench: Bench, path: str, bearer: str = OPERATOR_KEY, **query: str) -> httpx.Response:
    return await bench.http.get(path, params=query, headers={"Authorization": f"Bearer {bearer}"})


async def test_a_holder_sees_their_own_usage_limits_and_no_account(bench: Bench) -> None:
    async with bench.case() as (_,):
        mine, other = await issue(bench, requests_per_day=10), await issue(bench, "Grace")
        told = [(await bench.ask(key=mine.secret, model=model)).json["usage"] for model in ("gpt-4o", "gpt-5", "gpt-5")]
        await bench.ask(key=other.secret)
        await bench.settled()

        answer = await get(bench, "/v1/usage", mine.secret)
        body = answer.json()
        assert body["total"]["requests"] == 3
        assert body["total"]["total_tokens"] == sum(usage["total_tokens"] for usage in told)
        assert [day["day"] for day in body["days"]] == [day_of(bench.clock.now())]
        assert len(body["models"]) == 2
        assert body["key"]["name"] == "Ada" and "note" not in body["key"] and "accounts" not in body["key"]
        assert {room["name"]: room["remaining"] for room in body["left"]}["requests_per_day"] == 7
        labels = [account.label for account in bench.house.runtime.pool.accounts()]
        listing = await get(bench, "/v1/usage", mine.secret, format="csv")
        assert len(listing.text.splitlines()) == 3
        for text in (answer.text, listing.text):
            assert not [label for label in labels if label in text]
            assert "Grace" not in text and "operator" not in text
        assert (await get(bench, "/v1/usage", mine.secret, key=other.key.id)).status_code == 400


async def test_G6_the_export_equals_the_sum_of_the_requests(bench: Bench) -> None:
    async with bench.case(accounts=2):
        keys = [await issue(bench, f"person {number}", requests_at_once=100) for number in range(3)]
        told = await asyncio.gather(
            *(bench.ask(False, key=key.secret, model=model, content=f"{model} {number}", n=1 + number % 2)
              for key in keys for model in ("gpt-4o", "gpt-5") for number in range(4))
        )  # fmt: skip
        await bench.settled()
        for number, key in enumerate(keys):
            rows = list(csv.DictReader(io.StringIO((await get(bench, "/v1/usage", format="csv", key=key.key.id)).text)))
            mine = told[number * 8 : number * 8 + 8]
            assert sum(int(row["requests"]) for row in rows) == 8
            for name in ("prompt_tokens", "completion_tokens"):
                assert sum(int(row[name]) for row in rows) == sum(answer.json["usage"][name] for answer in mine)
            assert {row["key_name"] for row in rows} == {f"person {number}"}
        body = (await get(bench, "/v1/usage")).json()
        listed = list(csv.DictReader(io.StringIO((await get(bench, "/v1/usage", format="csv")).text)))
        assert [{name: str(value) for name, value in row.items()} for row in body["rows"]] == listed
        for groups in (body["days"], body["models"], body["keys"], body["accounts"], body["rows"]):
            for name in NUMBERS:
                assert sum(group[name] for group in groups) == pytest.approx(body["total"][name], abs=0.01)


async def test_both_forms_of_the_report_are_as_the_interfaces_document_says(bench: Bench) -> None:
    async with bench.case():
        issued = await issue(bench)
        await bench.ask(key=issued.secret)
        await bench.settled()
        document = (await bench.http.get("/openapi.json")).json()
        schema = document["components"]["schemas"]["UsageReport"]
        for bearer in (OPERATOR_KEY, issued.secret):
            body = (await get(bench, "/v1/usage", bearer)).json()
            assert set(schema["required"]) <= set(body) <= set(schema["properties"])
            for group in (body["total"], *body["days"], *body["models"]):
                assert set(schema["properties"]["total"]["required"]) <= set(group)


async def test_usage_is_for_holders_of_keys_and_the_operator(bench: Bench) -> None:
    async with bench.case() as (account,):
        assert (await get(bench, "/v1/usage", account.access_token)).status_code == 403
        assert (await bench.http.get("/dashboard/billing/usage")).status_code == 403


@pytest.mark.parametrize(
    "query", [{"since": "x"}, {"format": "xml"}, {"owner": "me"}, {"until": "2020-01-01", "since": "2020-01-02"}]
)
async def test_a_wrong_query_is_refused(bench: Bench, query: dict[str, str]) -> None:
    answer = await get(bench, "/v1/usage", **query)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_chat_clients_read_the_quota_from_the_old_billing_pages(bench: Bench, prefix: str) -> None:
    async with bench.case():
        issued = await issue(bench, tokens_total=50_000)
        usage = (await bench.ask(key=issued.secret)).json["usage"]
        await bench.settled()
        subscription = (await get(bench, f"{prefix}/dashboard/billing/subscription", issued.secret)).json()
        # As such clients do: the month so far, up to tomorrow.
        dates = {"start_date": day_of(bench.clock.now())[:8] + "01", "end_date": day_of(bench.clock.now() + 86_400)}
        used = (await get(bench, f"{prefix}/dashboard/billing/usage", issued.secret, **dates)).json()
        assert subscription["hard_limit_usd"] == 50.0 and subscription["object"] == "billing_subscription"
        assert used["total_usage"] == pytest.approx(usage["total_tokens"] / 10)
        assert 0 <= bench.clock.now() - used["daily_costs"][0]["timestamp"] < 86_400
        assert used["daily_costs"][0]["line_items"][0]["cost"] == pytest.approx(used["total_usage"])


async def test_without_a_token_quota_a_dollar_is_a_request(bench: Bench) -> None:
    async with bench.case():
        by_requests, free = await issue(bench, requests_per_day=7), await issue(bench)
        for issued, limit in ((by_requests, 7.0), (free, 100_000_000.0)):
            await bench.ask(key=issued.secret)
            await bench.settled()
            subscription = (await get(bench, "/dashboard/billing/subscription", issued.secret)).json()
            used = (await get(bench, "/dashboard/billing/usage", issued.secret)).json()
            assert (subscription["hard_limit_usd"], used["total_usage"]) == (limit, 100.0)
        assert (await get(bench, "/dashboard/billing/subscription")).json()["hard_limit_usd"] == 100_000_000.0
