"""Tests of the requirements exchange and of what redeeming its tokens wants."""

from typing import Any

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from tests.clocks import FakeClock
from tests.simulator.web_client import WebClient, config, encode, solve

_TOKEN = "openai-sentinel-chat-requirements-token"
_PREPARE = "openai-sentinel-chat-requirements-prepare-token"
_PROOF = "openai-sentinel-proof-token"


async def _send(web: WebClient, headers: dict[str, str]) -> tuple[int, Any]:
    answer = await web.post(f"{web.base}/conversation", web.body(), accept="text/event-stream", **headers)
    return answer.status_code, None if answer.status_code == 200 else answer.json()["detail"]


async def test_both_forms_open_a_conversation(web: WebClient) -> None:
    assert (await _send(web, await web.sentinel()))[0] == 200
    assert (await _send(web, await web.sentinel_in_two_stages()))[0] == 200
    token_alone = {_TOKEN: (await web.sentinel_in_two_stages())[_TOKEN]}
    assert (await _send(web, token_alone))[0] == 200


async def test_a_token_works_once_for_its_caller_and_not_for_ever() -> None:
    clock = FakeClock()
    async with Simulator(SimulatorOptions(expire_after=60), clock=clock) as sim:
        first, second = sim.control.accounts[:2]
        async with WebClient(sim, first) as web, WebClient(sim, second) as other:
            headers = await web.sentinel()
            assert (await _send(web, headers))[0] == 200
            assert (await _send(web, headers))[0] == 403
            assert (await _send(other, await web.sentinel()))[0] == 403
            headers = await web.sentinel()
            clock.advance(61)
            assert (await _send(web, headers))[0] == 403
            assert sim.control.refusals == ["unknown or used token", "token of another caller", "token too old"]


async def test_a_wrong_proof_uses_the_seed_up(web: WebClient, sim: Simulator) -> None:
    good = await web.sentinel()
    status, detail = await _send(web, {**good, _PROOF: "gAAAAAB" + encode(config(1, "another browser"))})
    assert status == 403
    assert "unusual activity" in detail.lower()
    assert (await _send(web, good))[0] == 403
    assert sim.control.refusals == ["proof names another User-Agent than the request", "unknown or used token"]


async def test_what_is_missing_is_refused(web: WebClient, sim: Simulator) -> None:
    good = await web.sentinel()
    assert (await _send(web, {}))[0] == 403
    assert (await _send(web, {_TOKEN: good[_TOKEN]}))[0] == 403
    assert sim.control.refusals == ["no requirements token", "no proof"]


@pytest.mark.parametrize("text", ["None", "null"])
async def test_a_header_with_the_text_of_nothing_is_malformed(web: WebClient, text: str) -> None:
    good = await web.sentinel()
    assert (await _send(web, {**good, "openai-sentinel-turnstile-token": text}))[0] == 400


async def test_finalize_checks_its_proof_with_the_other_hash(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(difficulty="00ffff")
    path = "/backend-api/sentinel/chat-requirements"
    for two_stage, status in ((False, 403), (True, 200)):
        first = (await web.post(path + "/prepare", {"p": "gAAAAAC" + encode(config())})).json()
        assert first["token"] == ""
        proof = solve(first["proofofwork"]["seed"], "00ffff", two_stage=two_stage)
        answer = await web.post(path + "/finalize", {"prepare_token": first["prepare_token"], "proofofwork": proof})
        assert answer.status_code == status
    again = await web.post(path + "/finalize", {"prepare_token": first["prepare_token"], "proofofwork": proof})
    assert again.status_code == 403


async def test_a_repeated_proof_or_prepare_token_must_be_the_same(web: WebClient) -> None:
    for name in (_PROOF, _PREPARE):
        headers = await web.sentinel_in_two_stages()
        headers[name] = (await web.sentinel_in_two_stages())[name]
        assert (await _send(web, headers))[0] == 403


@pytest.mark.parametrize(("gone", "status"), [("404", 404), ("405", 405), ("410", 410), ("prepare_token", 200)])
async def test_the_single_stage_form_can_be_gone(web: WebClient, sim: Simulator, gone: str, status: int) -> None:
    sim.control.set_options(stages="two", single_stage_gone=gone)
    answer = await web.post("/backend-api/sentinel/chat-requirements", {"p": None})
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["prepare_token"]
        assert not answer.json()["token"]
    assert (await _send(web, await web.sentinel_in_two_stages()))[0] == 200


async def test_two_stages_can_be_absent(web: WebClient, sim: Simulator) -> None:
    sim.control.set_options(stages="single")
    assert (await web.post("/backend-api/sentinel/chat-requirements/prepare", {"p": None})).status_code == 404


async def test_difficulty_is_chosen_for_one_call_and_proofs_can_be_off(web: WebClient, sim: Simulator) -> None:
    sim.control.choose("requirements", difficulty="000fff")
    assert (await web.requirements())["proofofwork"]["difficulty"] == "000fff"
    assert (await web.requirements())["proofofwork"]["difficulty"] == "0fffff"
    sim.control.set_options(proof_required=False)
    assert (await web.requirements())["proofofwork"] == {"required": False}
    assert (await _send(web, await web.sentinel()))[0] == 200


async def test_a_human_check_is_tolerated_or_enforced(web: WebClient, sim: Simulator) -> None:
    assert (await web.requirements())["turnstile"]["required"] is True
    assert (await _send(web, await web.sentinel()))[0] == 200
    sim.control.set_options(turnstile="enforced")
    assert (await _send(web, {**await web.sentinel(), "openai-sentinel-turnstile-token": "made-up"}))[0] == 403
    sim.control.set_options(turnstile="absent", arkose=True, force_login=True)
    needed = await web.requirements()
    assert (needed["turnstile"]["required"], needed["arkose"]["required"], needed["force_login"]) == (False, True, True)
    assert (await _send(web, await web.sentinel()))[0] == 403


async def test_the_persona_follows_the_plan(sim: Simulator) -> None:
    plus, free = sim.control.accounts[:2]
    for account, persona in ((plus, "chatgpt-paid"), (free, "chatgpt-freeaccount"), (None, "chatgpt-noauth")):
        async with WebClient(sim, account) as web:
            assert (await web.requirements())["persona"] == persona


async def test_a_malformed_requirements_token_is_refused(web: WebClient) -> None:
    path = "/backend-api/sentinel/chat-requirements"
    assert (await web.post(path, {"p": None})).status_code == 200
    assert (await web.post(path, {"p": "gAAAAAB" + encode(config())})).status_code == 400
    assert (await web.post(path, {"p": 7})).status_code == 422
    assert (await web.post(path, [])).status_code == 422
