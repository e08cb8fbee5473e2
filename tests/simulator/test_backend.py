"""Tests of the way of a request: routes, credentials, faults in place of work, headers."""

from email.utils import parsedate_to_datetime

import pytest

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from tests.clocks import FakeClock
from tests.simulator.web_client import WebClient


async def test_unknown_paths_and_methods_are_refused(web: WebClient) -> None:
    assert (await web.get("/backend-api/nowhere")).json() == {"detail": "Not Found"}
    assert (await web.get("/backend-api/conversation")).status_code == 405


@pytest.mark.parametrize(
    ("authorization", "code"),
    [("Bearer eyJhbGciOiJSUzI1NiJ9.e30.AAAA", "invalid_jwt"), ("Bearer no-jwt-at-all", "invalid_jwt")],
)
async def test_bad_bearers_are_refused(web: WebClient, authorization: str, code: str) -> None:
    answer = await web.get("/backend-api/me", authorization=authorization)
    assert answer.status_code == 200  # the client's own header wins
    answer = await web.http.get(web.origin + "/backend-api/me", headers={"authorization": authorization})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc"])
async def test_no_bearer_is_refused(web: WebClient, authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    answer = await web.http.get(web.origin + "/backend-api/me", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


async def test_a_token_expires_by_the_clock() -> None:
    clock = FakeClock()
    async with (
        Simulator(SimulatorOptions(access_token_lifetime=100.0), clock=clock) as sim,
        WebClient(sim, sim.control.accounts[0]) as web,
    ):
        assert (await web.get("/backend-api/me")).status_code == 200
        clock.advance(100)
        assert (await web.get("/backend-api/me")).json()["detail"]["code"] == "token_expired"


async def test_a_refused_call_does_no_work_unless_told(web: WebClient, sim: Simulator) -> None:
    for effect, total in ((False, 0), (True, 1)):
        sim.control.refuse("conversation", "server_error", effect=effect)
        assert (await web.ask(history_and_training_disabled=False)).status_code == 500
        assert (await web.get("/backend-api/conversations")).json()["total"] == total


async def test_faults_are_laid_on_single_accounts(sim: Simulator) -> None:
    first, second = sim.control.accounts[:2]
    sim.control.refuse("me", "token_invalidated", account=second.user_id, times=None)
    sim.control.fail("home", Fault("answer", status=503), account="anonymous")
    async with WebClient(sim, first) as one, WebClient(sim, second) as other, WebClient(sim, None) as nobody:
        assert (await one.get("/backend-api/me")).status_code == 200
        assert (await other.get("/backend-api/me")).status_code == 401
        assert (await one.get("/")).status_code == 200
        assert (await nobody.get("/")).status_code == 503


async def test_the_date_header_can_be_skewed() -> None:
    clock = FakeClock()
    async with Simulator(SimulatorOptions(date_skew=3600.0), clock=clock) as sim, WebClient(sim, None) as web:
        date = parsedate_to_datetime((await web.get("/")).headers["date"])
    assert date.timestamp() == int(clock.now()) + 3600
