"""Tests of steering and looking, from Python and over HTTP."""

from typing import Any

import pytest

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import WebClient, read_classic, visible_text


async def _control(web: WebClient, name: str, value: object = None) -> Any:
    url = f"{web.origin}/__control__/{name}"
    answer = await (web.http.get(url) if value is None else web.http.post(url, json=value))
    return answer.status_code if answer.status_code != 200 else answer.json()


async def test_rules_are_set_over_http(web: WebClient) -> None:
    fault = {"do": "answer", "named": "model_cap", "values": {"clears_in": 60}}
    rules = [{"route": "conversation", "fault": fault}, {"route": "conversation", "settings": {"text": "scripted"}}]
    assert await _control(web, "rules", rules) == {"added": 2}
    limited = await web.ask()
    assert (limited.status_code, limited.json()["detail"]["clears_in"]) == (429, 60)
    await _control(web, "rules", {"settings": {"text": "scripted"}, "route": "conversation"})
    assert visible_text(read_classic((await web.ask()).text)) == "scripted"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("rules", [{"nonsense": 1}], 400),
        ("rules", [{"settings": {"nonsense": 1}}], 400),
        ("rules", [{"settings": {"delay": "fast"}}], 400),
        ("options", {"answer": "nonsense"}, 400),
        ("revoke", {"user_id": "user-nobody"}, 404),
        ("nonsense", {}, 404),
    ],
)
async def test_mistakes_are_told(web: WebClient, name: str, value: object, status: int) -> None:
    assert await _control(web, name, value) == status


async def test_everything_received_is_kept_and_can_be_searched(web: WebClient, sim: Simulator) -> None:
    await web.ask("A secret canary", text="unknown fields are let through")
    await web.get("/nowhere?canary-in-target=1", **{"x-test": "canary-in-header"})
    records = await _control(web, "requests")
    assert [record["route"] for record in records] == ["requirements", "conversation", "unknown"]
    assert records[1]["account"] == sim.control.accounts[0].user_id
    assert "A secret canary" in records[1]["body"]
    assert ["x-test", "canary-in-header"] in records[2]["headers"]
    assert len(await _control(web, "requests?since=1&route=conversation")) == 1
    for text in ("secret canary", "canary-in-target", "canary-in-header"):
        assert sim.control.received(text)
    assert not sim.control.received("another canary")


async def test_counters_and_replies_are_told(web: WebClient) -> None:
    await web.ask()
    counters = await _control(web, "counters")
    assert (counters["completed"], counters["open_streams"], counters["aborted"]) == (2, 0, 0)
    replies = await _control(web, "replies?since=1")
    assert [(reply["route"], reply["streamed"], reply["outcome"]) for reply in replies] == [
        ("conversation", True, "completed")
    ]
    assert replies[0]["started_at"] <= replies[0]["headers_at"] <= replies[0]["ended_at"]


async def test_accounts_are_made_and_ended_over_http(web: WebClient) -> None:
    made = await _control(web, "accounts", {"plan": "free", "kind": "ios", "team": True})
    assert (made["plan"], len(made["refresh_token"]), len(made["account_ids"])) == ("free", 45, 2)
    for lifetime, code in ((60, None), (-60, "token_expired")):
        token = (await _control(web, "access_tokens", {"user_id": made["user_id"], "lifetime": lifetime}))[
            "access_token"
        ]
        answer = await web.http.get(f"{web.origin}/backend-api/me", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == (200 if code is None else 401)
        assert code is None or answer.json()["detail"]["code"] == code
    await _control(web, "deactivate", {"user_id": made["user_id"]})
    answer = await web.http.get(
        f"{web.origin}/backend-api/me", headers={"authorization": f"Bearer {made['access_token']}"}
    )
    assert answer.json()["detail"]["code"] == "account_deactivated"
    assert made["user_id"] in [account["user_id"] for account in (await _control(web, "state"))["accounts"]]


async def test_reset_forgets_rules_records_and_options(web: WebClient, sim: Simulator) -> None:
    sim.control.refuse("conversation", "server_error")
    sim.control.set_options(text="changed")
    await web.get("/")
    await _control(web, "reset", {})
    assert sim.control.requests == []
    assert visible_text(read_classic((await web.ask()).text)) == "Nile, Amazon, Danube."
    assert sim.control.counters.requests == 2


async def test_a_rule_counts_what_it_did(web: WebClient, sim: Simulator) -> None:
    rule = sim.control.refuse("conversation", "retry_later", times=2, retry_after=7)
    answers = [await web.ask() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert rule.used == 2


async def test_the_ca_is_given_when_there_is_one() -> None:
    async with Simulator(tls=True) as sim, WebClient(sim, None) as web:
        answer = await web.http.get(f"{sim.url}/__control__/ca.pem")
        assert answer.content == sim.ca_pem
    async with Simulator() as sim, WebClient(sim, None) as web:
        assert (await web.http.get(f"{sim.url}/__control__/ca.pem")).status_code == 404


async def test_habits_that_no_browser_has_are_noted(web: WebClient, sim: Simulator) -> None:
    await web.ask()
    assert sim.control.violations == []
    await web.get("/backend-api/me", **{"oai-device-id": "another"})
    assert len(sim.control.violations) == 1
