"""Signing in by name: what the answer is good for, what is refused, and how guessing ends."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.guesses import Guesses
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LIFETIME, LocalUsers
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import NewKey
from tests.e2e.harness import ANSWER, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "four quiet words together"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "Name three rivers."}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with (
        Simulator() as sim,
        open_house(
            tmp_path_factory.mktemp("users") / "data",
            sim,
            tokens=[sim.control.accounts[0].access_token],
            ANONYMOUS="off",
        ) as house,
    ):
        runtime = house.runtime
        runtime.digests.close()
        runtime.digests = SlowDigests(cost=2**4)
        runtime.users = LocalUsers(runtime.records, runtime.keys, runtime.digests, runtime.clock)
        await runtime.users.add("Anna", PASSWORD, NewKey("", None))
        yield house
        runtime.digests.close()


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    house.runtime.guesses = Guesses(house.runtime.clock)
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


async def sign_in(http: httpx.AsyncClient, name: object = "Anna", password: object = PASSWORD) -> httpx.Response:
    return await http.post("/auth/login", json={"username": name, "password": password})


async def test_the_token_works_on_every_route(house: House, http: httpx.AsyncClient) -> None:
    answer = await sign_in(http)
    told = answer.json()
    assert sorted(told) == ["accessToken", "expires"]
    assert answer.headers["cache-control"] == "no-store"
    ends = datetime.fromisoformat(told["expires"])
    assert ends.tzinfo == UTC
    assert ends.timestamp() == pytest.approx(house.runtime.clock.now() + LIFETIME, abs=60)
    bearer = {"Authorization": f"Bearer {told['accessToken']}"}
    chat = await http.post("/v1/chat/completions", json=BODY, headers=bearer)
    assert chat.json()["choices"][0]["message"]["content"] == ANSWER
    turn = {"messages": [{"content": {"parts": ["Name three rivers."]}}]}
    bare = {"Authorization": told["accessToken"]}
    assert (await http.post("/conversation", json=turn, headers=bare)).status_code == 200
    assert (await http.get("/conversations", headers=bearer)).json()["total"] == 1
    used = (await http.get("/v1/usage", headers=bearer)).json()
    assert used["total"]["requests"] == 2
    assert (await http.get("/keys", headers=bearer)).status_code in (401, 403), "it is no operator's"


async def test_a_wrong_name_and_a_wrong_password_are_told_the_same(http: httpx.AsyncClient) -> None:
    answers = [await sign_in(http, name, word) for name, word in (("Anna", "wrong"), ("Nobody", PASSWORD))]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert list(answers[0].json()) == ["errorMessage"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "Anna"},
        {"username": "Anna", "password": ""},
        {"username": 5, "password": PASSWORD},
        {"username": "Anna", "password": [PASSWORD]},
        {"username": "Anna", "password": "x" * 1025},
        {"username": "A" * 65, "password": PASSWORD},
        {"username": "Anna", "password": PASSWORD, "role": "operator"},
        [],
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_without_a_comparison(
    http: httpx.AsyncClient, body: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowDigests, "matches", None)
    answer = await http.post("/auth/login", json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["errorMessage"]


async def test_it_must_be_declared_as_json(http: httpx.AsyncClient) -> None:
    answer = await http.post("/auth/login", data={"username": "Anna", "password": PASSWORD})
    assert answer.status_code == 415


async def test_S12_S14_ten_guesses_are_compared_and_a_right_pair_still_works(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await sign_in(http)).status_code == 200
    compared: list[str] = []
    real = SlowDigests.matches

    async def counted(self: SlowDigests, password: str, stored: str | None) -> bool:
        compared.append(password)
        return await real(self, password, stored)

    monkeypatch.setattr(SlowDigests, "matches", counted)
    statuses = [(await sign_in(http, f"user {number}", f"guess {number}")).status_code for number in range(50)]
    assert statuses == [401] * 10 + [429] * 40
    assert len(compared) == 10
    assert (await sign_in(http)).status_code == 200, "who was right before is not refused for others' guesses"


async def test_S10_a_token_of_this_form_never_leaves(house: House, http: httpx.AsyncClient) -> None:
    token = (await sign_in(http)).json()["accessToken"]
    for wrong in (token[:-1] + ("0" if token[-1] != "0" else "1"), "c2a-user-", "c2a-user-" + "x" * 36):
        answer = await http.get("/v1/models", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
        assert "/auth/login" in answer.json()["error"]["message"]
        native = await http.get("/conversations", headers={"Authorization": f"Bearer {wrong}"})
        assert native.status_code == 401
    assert (await http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_S13_what_ends_a_user_ends_the_token(house: House, http: httpx.AsyncClient) -> None:
    users, keys = house.runtime.users, house.runtime.keys
    user = await users.add("Leaving", PASSWORD, NewKey("", None))
    bearer = {"Authorization": f"Bearer {(await sign_in(http, 'Leaving')).json()['accessToken']}"}
    assert (await http.get("/v1/models", headers=bearer)).status_code == 200
    await keys.stop(True)
    assert (await http.get("/v1/models", headers=bearer)).status_code == 403
    await keys.stop(False)
    await keys.revoke(user.key_id)
    assert (await http.get("/v1/models", headers=bearer)).status_code == 401
    refused = await sign_in(http, "Leaving")
    assert refused.status_code == 403
    assert "revoked" in refused.json()["errorMessage"]
    await users.remove("Leaving")
    assert (await sign_in(http, "Leaving")).status_code == 401
