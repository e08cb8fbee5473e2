"""Tests of token refresh and of the cookie exchange."""

import base64
import json
from typing import Any

import httpx
import pytest

from chat2api.simulator.accounts import CODEX_CLIENT, IOS_CLIENT, PLATFORM_CLIENT
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from tests.clocks import FakeClock
from tests.simulator.web_client import WebClient, plain_http


async def _refresh(sim: Simulator, token: str, client: str = CODEX_CLIENT, *, form: bool = True) -> httpx.Response:
    fields = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token}
    async with plain_http() as http:
        if form:
            return await http.post(f"{sim.url}/oauth/token", data=fields)
        return await http.post(f"{sim.url}/oauth/token", json=fields)


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


async def _works(sim: Simulator, token: str) -> bool:
    async with plain_http() as http:
        answer = await http.get(f"{sim.url}/backend-api/me", headers={"authorization": f"Bearer {token}"})
    return answer.status_code == 200


@pytest.mark.parametrize("form", [True, False])
async def test_form_and_json_give_a_working_token_and_the_next_refresh_token(sim: Simulator, form: bool) -> None:
    old = sim.control.accounts[0].refresh_token
    answer = (await _refresh(sim, old, form=form)).json()
    assert await _works(sim, answer["access_token"])
    assert answer["refresh_token"] not in ("", old)
    assert answer["refresh_token"].startswith("rt_")
    assert (await _refresh(sim, answer["refresh_token"])).status_code == 200


async def test_replaying_a_token_ends_the_whole_sign_in(sim: Simulator) -> None:
    old = sim.control.accounts[0].refresh_token
    answer = (await _refresh(sim, old)).json()
    again = await _refresh(sim, old)
    assert again.status_code == 401
    assert again.json()["error"]["code"] == "refresh_token_reused"
    assert not await _works(sim, answer["access_token"])
    assert (await _refresh(sim, answer["refresh_token"])).json()["error"]["code"] == "refresh_token_invalidated"
    assert await _works(sim, sim.control.accounts[1].access_token)


async def test_within_the_overlap_the_old_token_gives_the_same_successor() -> None:
    clock = FakeClock()
    async with Simulator(SimulatorOptions(rotation="overlap", rotation_overlap=30.0), clock=clock) as sim:
        old = sim.control.accounts[0].refresh_token
        first = (await _refresh(sim, old)).json()
        clock.advance(29)
        second = (await _refresh(sim, old)).json()
        assert second["refresh_token"] == first["refresh_token"]
        assert await _works(sim, first["access_token"])
        clock.advance(2)
        assert (await _refresh(sim, old)).json()["error"]["code"] == "refresh_token_reused"


async def test_without_rotation_a_token_works_again_and_again(sim: Simulator) -> None:
    sim.control.set_options(rotation="none")
    phone = sim.control.accounts[2].refresh_token
    assert len(phone) == 45
    for _ in range(3):
        answer = await _refresh(sim, phone, IOS_CLIENT, form=False)
        assert answer.status_code == 200
        assert "refresh_token" not in answer.json()


async def test_a_token_works_only_with_the_client_it_was_issued_to(sim: Simulator) -> None:
    for client in (IOS_CLIENT, PLATFORM_CLIENT, ""):
        answer = await _refresh(sim, sim.control.accounts[0].refresh_token, client)
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert (await _refresh(sim, "rt_" + "x" * 80)).json()["error"] == "invalid_grant"


async def test_a_lost_answer_has_rotated_only_with_effect(sim: Simulator) -> None:
    old = sim.control.accounts[0].refresh_token
    for effect, unchanged in ((False, True), (True, False)):
        sim.control.fail("oauth_token", Fault("close", effect=effect))
        with pytest.raises(httpx.RemoteProtocolError):
            await _refresh(sim, old)
        assert (sim.control.refresh_token(sim.control.accounts[0].user_id) == old) is unchanged


async def test_a_truncated_answer_breaks_off_inside_the_json(sim: Simulator) -> None:
    sim.control.fail("oauth_token", Fault("answer", truncate=60, effect=True))
    with pytest.raises(httpx.RemoteProtocolError):
        await _refresh(sim, sim.control.accounts[0].refresh_token)
    assert sim.control.replies[0].bytes_written == 60


@pytest.mark.parametrize("name", ["invalid_grant", "bad_gateway_page", "overloaded", "cloudflare", "nothing"])
async def test_other_answers_leave_the_token_alone(sim: Simulator, name: str) -> None:
    old = sim.control.accounts[0].refresh_token
    sim.control.refuse("oauth_token", name)
    await _refresh(sim, old)
    assert (await _refresh(sim, old)).status_code == 200


async def test_access_tokens_carry_all_claims() -> None:
    clock = FakeClock()
    async with Simulator(clock=clock) as sim:
        account = sim.control.accounts[2]
        claims = _claims(account.access_token)
        own = claims["https://api.openai.com/auth"]
        assert claims["exp"] - claims["iat"] == 864_000
        assert claims["iss"] == "https://auth.openai.com"
        assert claims["https://api.openai.com/profile"]["email"] == account.email
        assert own["chatgpt_account_id"] == account.account_ids[0]
        assert own["chatgpt_plan_type"] == "plus"
        assert own["user_id"] == own["chatgpt_user_id"] == account.user_id
        assert len(account.account_ids) == 2


async def test_a_cookie_works_once_and_brings_the_next(sim: Simulator) -> None:
    cookie = sim.control.accounts[0].session_cookie
    name = "__Secure-next-auth.session-token"
    async with plain_http() as http:
        first = await http.get(f"{sim.url}/api/auth/session", headers={"cookie": f"{name}={cookie}"})
        assert await _works(sim, first.json()["accessToken"])
        assert first.json()["sessionToken"] in first.headers["set-cookie"]
        http.cookies.clear()
        used = await http.get(f"{sim.url}/api/auth/session", headers={"cookie": f"{name}={cookie}"})
        assert used.status_code == 200
        assert "accessToken" not in used.json()


async def test_a_long_cookie_comes_and_goes_in_parts(sim: Simulator) -> None:
    sim.control.set_options(session_cookie_limit=500)
    cookie = sim.control.accounts[0].session_cookie
    name = "__Secure-next-auth.session-token"
    parts = "; ".join(f"{name}.{n}={cookie[n * 900 : n * 900 + 900]}" for n in range(2))
    async with plain_http() as http:
        first = await http.get(f"{sim.url}/api/auth/session", headers={"cookie": parts})
        assert await _works(sim, first.json()["accessToken"])
        http.cookies.clear()
        received = [value.split(";")[0] for value in first.headers.get_list("set-cookie")]
        assert [item.split("=")[0] for item in received] == [f"{name}.{n}" for n in range(len(received))]
        assert len(received) > 2
        second = await http.get(f"{sim.url}/api/auth/session", headers={"cookie": "; ".join(received)})
        assert "accessToken" in second.json()


async def test_nobody_signed_in_gives_no_token(sim: Simulator) -> None:
    async with plain_http() as http:
        answer = await http.get(f"{sim.url}/api/auth/session")
    assert answer.status_code == 200
    assert "accessToken" not in answer.json()


async def test_a_revoked_sign_in_refuses_its_tokens(sim: Simulator, web: WebClient) -> None:
    account = sim.control.accounts[0]
    sim.control.revoke(account.user_id)
    answer = await web.get("/backend-api/me")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_invalidated")
    assert (await _refresh(sim, account.refresh_token)).status_code == 401
