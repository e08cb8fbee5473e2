"""Tests of the calls around a chat."""

import re
import uuid

import pytest

from chat2api.simulator.app import Simulator
from tests.simulator.web_client import WebClient, read_classic, read_objects


async def test_the_home_page_names_scripts_and_build(anonymous: WebClient) -> None:
    page = (await anonymous.get("/")).text
    assert re.search(r'<html[^>]* data-build="prod-[0-9a-f]{40}"', page)
    assert len(re.findall(r'<script[^>]* src="http://127.0.0.1:\d+/assets/[^"]+\.js"', page)) == 3


async def test_models_follow_the_plan(sim: Simulator) -> None:
    listed = {}
    for name, account in (("plus", sim.control.accounts[0]), ("free", sim.control.accounts[1]), ("anonymous", None)):
        async with WebClient(sim, account) as web:
            answer = await web.get(f"{web.base}/models?history_and_training_disabled=false")
            listed[name] = {model["slug"] for model in answer.json()["models"]}
    assert listed["free"] == listed["anonymous"] < listed["plus"] | {"gpt-5-5-instant"}
    assert "auto" in listed["free"]


async def test_the_accounts_of_a_team_member(sim: Simulator) -> None:
    account = sim.control.accounts[2]
    async with WebClient(sim, account) as web:
        found = (await web.get("/backend-api/accounts/check/v4-2023-04-27?timezone_offset_min=0")).json()
        me = (await web.get("/backend-api/me")).json()
    assert found["account_ordering"] == list(account.account_ids)
    plans = [found["accounts"][one]["account"]["plan_type"] for one in account.account_ids]
    structures = [found["accounts"][one]["account"]["structure"] for one in account.account_ids]
    assert (plans, structures) == (["plus", "team"], ["personal", "workspace"])
    assert (me["id"], me["email"]) == (account.user_id, account.email)


async def test_limits_are_told(web: WebClient) -> None:
    answer = await web.post("/backend-api/conversation/init", {"gizmo_id": None, "timezone_offset_min": 0})
    assert {limit["feature_name"] for limit in answer.json()["limits_progress"]} == {"image_gen", "deep_research"}


@pytest.mark.parametrize(("form", "kind"), [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("aac", "audio/aac")])
async def test_speech_is_made_of_a_stored_message(web: WebClient, form: str, kind: str) -> None:
    text = (await web.ask(history_and_training_disabled=False)).text
    conversation_id, message_id = next(read_objects(text))["conversation_id"], list(read_classic(text))[-1]
    path = f"/backend-api/synthesize?conversation_id={conversation_id}&voice=cove&format={form}&message_id="
    sound = await web.get(path + message_id)
    assert (sound.status_code, sound.headers["content-type"]) == (200, kind)
    assert len(sound.content) > 1000
    assert (await web.get(path + str(uuid.uuid4()))).status_code == 404


async def test_sound_is_transcribed(web: WebClient) -> None:
    url = f"{web.origin}/backend-api/transcribe"
    answer = await web.http.post(url, files={"file": ("a.wav", b"RIFF", "audio/wav")}, headers=web.headers())
    assert answer.json()["text"]
    assert (await web.post("/backend-api/transcribe", {})).status_code == 422
