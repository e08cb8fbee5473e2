"""The operator's REST for accounts, through the real server in front of the simulator."""

import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.gateway.account_care import AccountCare, CareParts
from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator
from chat2api.storage.values import ANY_MODEL, Cooldown
from tests.accounts.jwt import access_token
from tests.clocks import FakeClock
from tests.described import check_answer
from tests.e2e.harness import OPERATOR_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAR = 4_000_000_000.0
PASTED = "rt_" + "P" * 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("accounts") / "data", sim, LOG_LEVEL="debug") as house:
        yield house


class Operator(httpx.AsyncClient):
    """A client with the operator key that looks at all answers for secrets (S17)."""

    secrets: set[str]

    async def send(self, *arguments: Any, **options: Any) -> httpx.Response:
        answer = await super().send(*arguments, **options)
        if not options.get("stream"):
            assert not [secret for secret in self.secrets if secret in answer.text]
            if answer.headers.get("content-type") == "application/json" and answer.status_code not in (404, 405):
                check_answer(answer.request.method, answer.request.url.path, answer.status_code, answer.json())
        return answer

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.request(method, path, **options)
        assert answer.status_code in (200, 202), answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()

    async def refused(self, method: str, path: str, status: int = 400, **options: Any) -> dict[str, Any]:
        answer = await self.request(method, path, **options)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return dict(error)

    async def accounts(self, query: str = "") -> list[Any]:
        return list((await self.ok("GET", f"/tokens/accounts{query}"))["data"])


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House, sim: Simulator) -> AsyncIterator[Operator]:
    sim.control.reset()
    await house.runtime.editor.delete(None)
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with Operator(base_url=house.base, headers=headers, timeout=30, trust_env=False) as client:
        client.secrets = {PASTED, OPERATOR_KEY}
        yield client


async def given(http: Operator, sim: Simulator, *, renewable: bool = True) -> tuple[Credentials, str]:
    """Give an account of the simulator that was just imported, and its id."""
    account = sim.control.add_account()
    http.secrets |= {account.access_token, account.refresh_token}
    text = json.dumps({"access_token": account.access_token, "refresh_token": account.refresh_token})
    told = await http.ok("POST", "/tokens/upload", json={"text": text if renewable else account.access_token})
    return account, told["accounts"][0]["id"]


async def follow(http: Operator, job: Any) -> Any:
    """Give a job once it has ended."""
    async with http.stream("GET", f"/tokens/jobs/{job['id']}", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        events = [json.loads(line.removeprefix("data: ")) async for line in stream.aiter_lines() if line]
    assert events[-1]["state"] != "running"
    whole = await http.ok("GET", f"/tokens/jobs/{job['id']}")
    assert [item for event in events for item in event["items"]] == whole["items"]
    return whole


# Imports


@pytest.mark.parametrize("form", ["urlencoded", "multipart", "file", "json"])
async def test_tokens_are_uploaded_as_the_original_page_does(http: Operator, form: str) -> None:
    text = f"# mine\n{PASTED}\n{access_token('one', expires_at=FAR)}\nnonsense\n{access_token('late', expires_at=1e9)}"
    sent: dict[str, dict[str, Any]] = {
        "urlencoded": {"data": {"text": text}},
        "multipart": {"files": {"text": (None, text)}},
        "file": {"files": {"file": ("tokens.txt", text.encode())}},
        "json": {"json": {"text": text}},
    }
    told = await http.ok("POST", "/tokens/upload", **sent[form])
    assert told["status"] == "success"
    assert told["tokens_count"] == 2
    assert told["expired"] == 1
    assert [problem["line"] for problem in told["problems"]] == [4]
    again = await http.ok("POST", "/tokens/upload", **sent[form])
    assert (again["tokens_count"], again["added"], again["unchanged"]) == (2, 0, 2)


async def test_a_preview_tells_each_line_and_saves_nothing(http: Operator) -> None:
    await http.ok("POST", "/tokens/upload", json={"text": PASTED})
    text = f"{PASTED}\n{access_token('new', expires_at=FAR)}\n{access_token('old', expires_at=1e9)}\nnonsense-canary"
    http.secrets |= {"nonsense-canary"}
    told = await http.ok("POST", "/tokens/preview", data={"text": text})
    assert told["counts"] == {"known": 1, "new": 1, "expired": 1, "unreadable": 1}
    assert [(entry["line"], entry["verdict"]) for entry in told["data"]] == [
        (1, "known"),
        (2, "new"),
        (3, "expired"),
        (4, "unreadable"),
    ]
    assert told["data"][0]["label"] == (await http.accounts())[0]["label"]
    assert told["data"][1]["email"] == "s•••@e•••.test"
    assert len(await http.accounts()) == 1


async def test_a_thousand_accounts_are_imported_listed_and_removed_with_progress(http: Operator, house: House) -> None:
    text = "\n".join(access_token(f"user-{number}", expires_at=FAR) for number in range(1000))
    job = (await http.ok("POST", "/tokens/upload", json={"text": text, "job": True}))["job"]
    ended = await follow(http, job)
    assert (ended["state"], ended["done"], ended["total"], ended["failed"]) == ("done", 1000, 1000, 0)
    assert house.runtime.pool.statistics().total == 1000
    started = time.perf_counter()
    listed = await http.ok("GET", "/tokens/accounts?per_page=100&page=3&sort=-label&search=plus&state=ok")
    assert time.perf_counter() - started < 10 * 0.2
    assert (len(listed["data"]), listed["page"], listed["pages"], listed["found"]) == (100, 3, 10, 1000)
    labels = [account["label"] for account in listed["data"]]
    assert labels == sorted(labels, reverse=True)
    cleared = await http.ok("POST", "/tokens/clear")
    assert cleared == {"status": "success", "tokens_count": 0, "removed": 1000}


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"data": {"text": "x", "role": "admin"}}, "role"),
        ({"data": {}}, None),
        ({"json": {}}, "text"),
        ({"json": {"text": 1}}, "text"),
        ({"json": {"text": "x", "owner": "me"}}, "owner"),
        ({"json": {"text": "x", "job": "yes"}}, "job"),
        ({"json": []}, None),
        ({"files": {"file": ("x", b"\xff\xfe")}}, "file"),
    ],
)
async def test_S9_an_import_with_anything_else_in_it_is_refused(
    http: Operator, sent: dict[str, Any], param: str | None
) -> None:
    for path in ("/tokens/upload", "/tokens/preview"):
        if sent == {"data": {}}:
            assert (await http.refused("POST", path))["param"] == "text"
        else:
            assert (await http.refused("POST", path, **sent))["param"] == param
    assert await http.accounts() == []


# Accounts


async def test_an_account_is_shown_changed_and_set_aside(http: Operator, sim: Simulator, house: House) -> None:
    _, account_id = await given(http, sim)
    path = f"/tokens/accounts/{account_id}"
    shown = await http.ok("GET", path)
    assert (shown["state"], shown["enabled"], shown["note"], shown["groups"]) == ("ok", True, "", [])
    assert re.fullmatch("[0-9a-f]{10}", shown["label"])
    changed = await http.ok("PATCH", path, json={"note": "Anna's", "groups": ["family"], "enabled": False})
    assert (changed["note"], changed["groups"], changed["state"]) == ("Anna's", ["family"], "disabled")
    assert [one["id"] for one in await http.accounts("?search=anna&group=family&state=disabled")] == [account_id]
    assert house.runtime.pool.statistics().ready == 0
    assert (await http.ok("POST", f"{path}/enable"))["account"]["state"] == "ok"
    assert (await http.ok("POST", f"{path}/disable"))["account"]["enabled"] is False
    assert (await http.ok("PATCH", path, json={"enabled": True}))["enabled"] is True


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"state": "ok"}, "state"),
        ({"owner": "x"}, "owner"),
        ({"label": "x"}, "label"),
        ({"generation": 9}, "generation"),
        ({"note": 3}, "note"),
        ({"note": "x" * 5000}, "note"),
        ({"groups": "family"}, "groups"),
        ({"groups": ["", "x"]}, "groups"),
        ({"groups": [1]}, "groups"),
        ({"enabled": "no"}, "enabled"),
        ({"note": "kept out", "enabled": 1}, "enabled"),
    ],
)
async def test_S9_a_change_of_anything_else_is_refused(
    http: Operator, sim: Simulator, fields: dict[str, Any], param: str
) -> None:
    _, account_id = await given(http, sim)
    before = await http.ok("GET", f"/tokens/accounts/{account_id}")
    assert (await http.refused("PATCH", f"/tokens/accounts/{account_id}", json=fields))["param"] == param
    assert await http.ok("GET", f"/tokens/accounts/{account_id}") == before


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?page=0", "page"),
        ("?page=x", "page"),
        ("?per_page=1000", "per_page"),
        ("?sort=secret", "sort"),
        ("?state=fine", "state"),
        ("?token=x", "token"),
        ("?page=1&page=2", "page"),
    ],
)
async def test_S9_a_list_that_cannot_be_asked_is_refused(http: Operator, query: str, param: str) -> None:
    assert (await http.refused("GET", f"/tokens/accounts{query}"))["param"] == param


async def test_an_unknown_account_is_not_found(http: Operator) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), *(("POST", f"/{word}") for word in
                         ("test", "refresh", "disable", "enable"))):  # fmt: skip
        error = await http.refused(method, f"/tokens/accounts/acc_none{path}", 404)
        assert error["code"] == "account_not_found"
    await http.refused("GET", "/tokens/jobs/job_none", 404)


async def test_R30_what_was_removed_is_listed_and_comes_back(http: Operator, sim: Simulator) -> None:
    _, first = await given(http, sim)
    _, second = await given(http, sim)
    assert (await http.ok("DELETE", f"/tokens/accounts/{first}")) == {"id": first, "deleted": True}
    await http.ok("DELETE", f"/tokens/accounts/{second}")
    await http.refused("DELETE", f"/tokens/accounts/{first}", 404)
    gone = [account["id"] for account in (await http.ok("GET", "/tokens/deleted"))["data"]]
    assert {first, second} <= set(gone)
    assert (await http.ok("POST", "/tokens/undo", json={"ids": [second]}))["restored"] == 1
    assert [account["id"] for account in await http.accounts()] == [second]
    await http.refused("POST", "/tokens/undo", json={"ids": "all"})
    await http.ok("POST", "/tokens/undo", json={"ids": [first]})
    assert {account["id"] for account in await http.accounts()} == {first, second}


# Live work


async def test_a_test_uses_the_account_and_says_what_to_do(http: Operator, sim: Simulator) -> None:
    account, account_id = await given(http, sim)
    well = await http.ok("POST", f"/tokens/accounts/{account_id}/test")
    assert well["result"]["ok"]
    assert "models offered" in well["result"]["text"]
    assert len(sim.control.requests_to("models")) == 1
    sim.control.deactivate(account.user_id)
    ill = await http.ok("POST", f"/tokens/accounts/{account_id}/test")
    assert not ill["result"]["ok"]
    assert ill["result"]["advice"]
    assert ill["account"]["state"] == "needs_sign_in"
    assert (await http.ok("POST", "/tokens/error"))["error_tokens"] == [ill["account"]["label"]]


async def test_a_renewal_sends_the_token_once_and_stores_what_came(http: Operator, sim: Simulator) -> None:
    account, account_id = await given(http, sim)
    for sent in (1, 2):
        told = await http.ok("POST", f"/tokens/accounts/{account_id}/refresh")
        assert told["result"]["ok"]
        assert len(sim.control.requests_to("oauth_token")) == sent
    sim.control.revoke(account.user_id)
    told = await http.ok("POST", f"/tokens/accounts/{account_id}/refresh")
    assert not told["result"]["ok"]
    assert "add the new token" in told["result"]["advice"]


async def test_an_account_without_anything_to_renew_says_so(http: Operator, sim: Simulator) -> None:
    _, account_id = await given(http, sim, renewable=False)
    assert (await http.refused("POST", f"/tokens/accounts/{account_id}/refresh"))["param"] == "id"


async def test_R7_a_waiting_account_shows_until_when_and_is_not_asked(
    http: Operator, sim: Simulator, house: House
) -> None:
    _, account_id = await given(http, sim)
    until_at = house.runtime.clock.now() + 3600
    await house.runtime.pool.cool(Cooldown(account_id, ANY_MODEL, until_at, True, "stated_limit"))
    shown = await http.ok("GET", f"/tokens/accounts/{account_id}")
    assert shown["state"] == "cooling"
    assert shown["until_at"] == pytest.approx(until_at, abs=2)
    assert [wait["model"] for wait in shown["waits"]] == [ANY_MODEL]
    assert not (await http.ok("POST", f"/tokens/accounts/{account_id}/test"))["result"]["ok"]
    assert sim.control.requests_to("models") == []


@pytest.mark.parametrize(("action", "state"), [("test", "ok"), ("disable", "disabled"), ("enable", "ok")])
async def test_many_accounts_are_worked_on_as_a_job(http: Operator, sim: Simulator, action: str, state: str) -> None:
    ids = [(await given(http, sim))[1] for _ in range(5)]
    job = (await http.ok("POST", "/tokens/accounts/bulk", json={"action": action, "ids": ids[:4]}))["job"]
    ended = await follow(http, job)
    assert (ended["done"], ended["total"], ended["failed"]) == (4, 4, 0)
    assert [account["state"] for account in await http.accounts()] == [state] * 4 + ["ok"]


async def test_R22_many_renewals_are_spread_and_failures_do_not_stop_them(
    http: Operator, sim: Simulator, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await given(http, sim) for _ in range(3)]
    await given(http, sim, renewable=False)
    sim.control.revoke(made[0][0].user_id)
    clock, runtime = FakeClock(), house.runtime
    parts = CareParts(
        runtime.records, runtime.pool, runtime.editor, runtime.keeper, runtime.doctor, runtime.jobs, clock
    )
    monkeypatch.setattr(runtime, "care", AccountCare(parts))
    job = (await http.ok("POST", "/tokens/accounts/bulk", json={"action": "refresh", "all": True}))["job"]
    ended = await follow(http, job)
    assert (ended["done"], ended["total"], ended["failed"]) == (3, 3, 1)
    assert [item["ok"] for item in ended["items"]] == [False, True, True]
    assert clock.slept == [2.0, 2.0]


async def test_many_are_removed_at_once(http: Operator, sim: Simulator) -> None:
    ids = [(await given(http, sim))[1] for _ in range(3)]
    job = (await http.ok("POST", "/tokens/accounts/bulk", json={"action": "delete", "ids": ids[:2] * 2}))["job"]
    assert (await follow(http, job))["done"] == 2
    assert [account["id"] for account in await http.accounts()] == ids[2:]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "action"),
        ({"action": "explode", "all": True}, "action"),
        ({"action": "test"}, "ids"),
        ({"action": "test", "all": True, "ids": []}, "ids"),
        ({"action": "test", "all": "yes"}, "ids"),
        ({"action": "test", "ids": "acc_1"}, "ids"),
        ({"action": "test", "all": True, "force": True}, "force"),
    ],
)
async def test_S9_a_job_that_cannot_be_is_refused(http: Operator, fields: dict[str, Any], param: str) -> None:
    assert (await http.refused("POST", "/tokens/accounts/bulk", json=fields))["param"] == param


async def test_a_job_of_an_unknown_account_does_not_begin(http: Operator, sim: Simulator) -> None:
    _, known = await given(http, sim)
    await http.refused("POST", "/tokens/accounts/bulk", 404, json={"action": "disable", "ids": [known, "acc_x"]})
    assert (await http.accounts())[0]["state"] == "ok"


# The doctor and the store


async def test_the_doctor_runs_one_check_at_a_time(http: Operator, sim: Simulator) -> None:
    await given(http, sim)
    checks = [check["check"] for check in (await http.ok("GET", "/tokens/doctor"))["data"]]
    assert checks[:5] == ["proof-of-work", "store", "disk", "clock", "way-1"]
    assert checks[5].startswith("account-")
    for check in checks:
        found = await http.ok("POST", f"/tokens/doctor/{check}")
        assert found["ok"], found
    await http.refused("POST", "/tokens/doctor/nothing", 404)


async def test_R30_the_operator_confirms_a_restored_copy(http: Operator, house: House) -> None:
    assert (await http.ok("POST", "/tokens/confirm-restored"))["was_restored"] is False
    await house.runtime.records.set_meta("restored", "1")
    assert not (await http.ok("POST", "/tokens/doctor/store"))["ok"]
    assert (await http.ok("POST", "/tokens/confirm-restored"))["was_restored"] is True
    assert (await http.ok("POST", "/tokens/doctor/store"))["ok"]


async def test_S18_a_token_in_a_path_is_not_offered(http: Operator) -> None:
    await http.refused("POST", f"/tokens/add/{PASTED}", 404)
    await http.refused("GET", f"/tokens/add/{PASTED}", 404)
