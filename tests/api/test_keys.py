"""The operator's REST for keys, through the real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.issue import KeyRing
from chat2api.simulator.faults import Fault
from chat2api.storage.sql_records import SqlRecords
from tests.described import check_answer
from tests.e2e.harness import OPERATOR_KEY, Bench, Caller, open_bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("keys"), speed=1.0) as opened:
        yield opened


async def call(bench: Bench, method: str, path: str, **options: Any) -> httpx.Response:
    answer = await bench.http.request(method, path, headers=OPERATOR, **options)
    if answer.request.url.path.startswith("/keys"):
        check_answer(method, answer.request.url.path, answer.status_code, answer.json())
    return answer


async def create(bench: Bench, **fields: Any) -> dict[str, Any]:
    answer = await call(bench, "POST", "/keys", json={"name": "Ada"} | fields)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def test_a_key_is_made_shown_once_and_works(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench, models=["gpt-4o*"], tokens_total=5000, note="laptop")
        assert made["shown"] == made["key"][:11] + "…"
        assert (made["limits"]["requests_per_minute"], made["limits"]["tokens_total"]) == (60, 5000)
        assert (await bench.ask(key=made["key"], model="gpt-4o")).status == 200
        await bench.settled()

        shown = await call(bench, "GET", f"/keys/{made['id']}")
        listed = await call(bench, "GET", "/keys")
        (same,) = [key for key in listed.json()["data"] if key["id"] == made["id"]]
        assert {**same, "left": None} == {**shown.json(), "left": None}
        assert {room["name"]: room["used"] for room in shown.json()["left"]}["requests_per_minute"] == 1
        for answer in (shown, listed):
            assert made["key"] not in answer.text


async def test_a_change_holds_at_once_and_touches_nothing_else(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench, note="before", requests_total=10)
        answer = await call(bench, "PATCH", f"/keys/{made['id']}", json={"requests_per_minute": 1, "name": "Grace"})
        assert answer.status_code == 200
        changed = answer.json()
        assert (changed["name"], changed["note"], changed["limits"]["requests_total"]) == ("Grace", "before", 10)
        assert changed["limits"]["requests_per_minute"] == 1
        statuses = [(await bench.ask(key=made["key"])).status for _ in range(2)]
        assert statuses == [200, 429]
        nothing = await call(bench, "PATCH", f"/keys/{made['id']}", json={})
        assert nothing.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/keys", {"name": "x", "owner": "operator"}, "owner"),
        ("POST", "/keys", {"name": "x", "id": "key_1"}, "id"),
        ("POST", "/keys", {}, "name"),
        ("PATCH", "/keys/{id}", {"revoked_at": None}, "revoked_at"),
        ("PATCH", "/keys/{id}", {"digest": "0"}, "digest"),
        ("PATCH", "/keys/{id}", {"requests_total": None}, "requests_total"),
        ("POST", "/keys/{id}/rotate", {"key": "sk-c2a-mine"}, "key"),
        ("POST", "/keys/{id}/rotate", {"overlap_hours": -1}, "overlap_hours"),
        ("DELETE", "/keys/{id}", {"force": True}, "force"),
        ("POST", "/keys/stop", {"stopped": "yes"}, "stopped"),
    ],
)
async def test_S9_unknown_and_wrong_fields_are_refused(
    bench: Bench, method: str, path: str, body: dict[str, object], param: str
) -> None:
    made = await create(bench)
    answer = await call(bench, method, path.format(id=made["id"]), json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    after = (await call(bench, "GET", f"/keys/{made['id']}")).json()
    assert {name: after[name] for name in made if name != "key"} == {name: made[name] for name in made if name != "key"}


async def test_accounts_that_are_not_there_are_told(bench: Bench) -> None:
    async with bench.case():
        label = bench.house.runtime.pool.accounts()[0].label
        made = await create(bench, accounts=[label, "0123456789"], groups=["team"])
        assert made["unknown"] == ["0123456789", "team"]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")])
async def test_an_unknown_key_is_not_found(bench: Bench, method: str, path: str) -> None:
    body = {"name": "x"} if method == "PATCH" else None
    answer = await call(bench, method, f"/keys/key_unknown{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "key_not_found")


async def test_a_rotated_key_works_beside_the_old_one_for_the_overlap(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench)
        rotated = (await call(bench, "POST", f"/keys/{made['id']}/rotate", json={"overlap_hours": 1})).json()
        assert rotated["id"] == made["id"] and rotated["key"] != made["key"]
        for key in (made["key"], rotated["key"]):
            assert (await bench.ask(key=key)).status == 200
        again = (await call(bench, "POST", f"/keys/{made['id']}/rotate", json={"overlap_hours": 0})).json()
        assert [(await bench.ask(key=key)).status for key in (made["key"], rotated["key"], again["key"])] == [
            401,
            401,
            200,
        ]


async def test_S13_a_revoked_key_and_its_running_answers_end_at_once(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench)
        bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=1)
        caller = Caller(bench, True, key=made["key"])
        await caller.send()
        await caller.read_until(b"delta")
        revoked = await call(bench, "DELETE", f"/keys/{made['id']}")
        assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
        await caller.read_until(b"invalid_api_key")
        caller.leave()
        told = await bench.ask(key=made["key"])
        assert (told.status, told.error["code"]) == (401, "invalid_api_key")
        assert "revoked" in told.error["message"]


async def test_S13_another_process_makes_and_revokes_keys_beside_the_server(bench: Bench) -> None:
    async with bench.case():
        records = await SqlRecords.open(bench.house.runtime.config.data_dir)
        elsewhere = KeyRing(records, bench.clock)
        from chat2api.storage.keys import NewKey

        issued = await elsewhere.issue(NewKey("other", None))
        await until(lambda: bench.house.runtime.keys.find(issued.secret) is not None, "the new key is not known")
        assert (await bench.ask(key=issued.secret)).status == 200
        await elsewhere.revoke(issued.key.id)
        await until(lambda: bench.house.runtime.keys.find(issued.secret) is None, "the key still works")
        assert (await bench.ask(key=issued.secret)).status == 401
        await records.aclose()


async def test_G4_all_keys_can_be_stopped_at_once_and_let_go_again(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench)
        bench.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=1)
        caller = Caller(bench, True, key=made["key"])
        await caller.send()
        await caller.read_until(b"delta")
        assert (await call(bench, "POST", "/keys/stop", json={"stopped": True})).json() == {"stopped": True}
        await caller.read_until(b"invalid_api_key")
        caller.leave()
        assert (await call(bench, "GET", "/keys")).json()["stopped"] is True
        assert (await bench.ask(key=made["key"])).status == 403
        assert (await bench.ask()).status == 200, "the operator goes on"
        await call(bench, "POST", "/keys/stop", json={"stopped": False})
        assert (await bench.ask(key=made["key"])).status == 200


async def test_S5_S10_an_issued_key_never_travels_upstream(bench: Bench) -> None:
    async with bench.case():
        made = await create(bench)
        gone = await create(bench)
        await call(bench, "DELETE", f"/keys/{gone['id']}")
        await asyncio.gather(
            *(bench.ask(stream, key=key) for stream in (True, False) for key in (made["key"], gone["key"]))
        )
        sent = repr([recorded.request for recorded in bench.control.requests])
        assert "conversation" in sent
        for secret in (made["key"], gone["key"], "sk-c2a-"):
            assert secret not in sent
