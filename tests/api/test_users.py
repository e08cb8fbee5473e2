"""Signing in by name, and the operator's REST for those who do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.guesses import Guesses
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LIFETIME, LocalUsers
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import KeyLimits, NewKey
from tests.api.pages_house import OPERATOR, Person
from tests.described import check_answer
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


# ---- the operator's REST ----

ANOTHER = "another four quiet words"


async def call(http: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    answer = await http.request(method, path, headers=OPERATOR, **options)
    check_answer(method, path, answer.status_code, answer.json())
    if path.startswith("/users"):
        assert not [word for word in (PASSWORD, ANOTHER, "sk-c2a-", "scrypt") if word in answer.text]
    return answer


async def create(house: House, http: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    """Make the user Bruno and nobody else beside Anna."""
    for user in house.runtime.users.all():
        if user.name != "anna":
            await house.runtime.users.remove(user.name)
    answer = await call(http, "POST", "/users", json={"username": "Bruno", "password": PASSWORD} | fields)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def done(house: House) -> tuple[str, str]:
    """Give what the journal has last."""
    (last, *_) = await house.runtime.records.actions.latest(1)
    return last.what, last.target


async def test_a_user_is_made_with_a_key_on_the_terms_that_are_said(house: House, http: httpx.AsyncClient) -> None:
    made = await create(house, http, models=["gpt-4o"], requests_per_day=7, expires_in_days="never", note="laptop")
    assert await done(house) == ("users.add", "Bruno")
    assert (made["username"], made["state"], made["expires_at"]) == ("Bruno", "active", "never")
    key = house.runtime.keys.require(made["key_id"])
    assert (key.name, key.note, key.scope.models, key.limits.requests_per_day) == ("Bruno", "laptop", ("gpt-4o",), 7)
    token = (await sign_in(http, "bruno")).json()["accessToken"]
    models = (await http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})).json()["data"]
    assert {model["id"] for model in models} == {"gpt-4o"}

    assert (await call(http, "GET", f"/users/{made['key_id']}")).json() == made
    listed = (await call(http, "GET", "/users")).json()["data"]
    assert [user["username"] for user in listed] == ["Anna", "Bruno"]
    assert listed[1] == made


async def test_a_user_of_whom_nothing_is_said_has_the_usual_limits(house: House, http: httpx.AsyncClient) -> None:
    made = await create(house, http)
    key = house.runtime.keys.require(made["key_id"])
    assert key.limits == KeyLimits()
    assert made["expires_at"] == key.expires_at


async def test_S13_another_password_signs_out_who_had_the_old_one(house: House, http: httpx.AsyncClient) -> None:
    made = await create(house, http)
    bearer = {"Authorization": f"Bearer {(await sign_in(http, 'Bruno')).json()['accessToken']}"}
    assert (await http.get("/v1/models", headers=bearer)).status_code == 200
    changed = await call(http, "PATCH", f"/users/{made['key_id']}", json={"password": ANOTHER})
    assert changed.status_code == 200
    assert changed.json() == made | {"changed_at": changed.json()["changed_at"]}
    assert changed.json()["changed_at"] > made["changed_at"]
    assert await done(house) == ("users.password", "Bruno")
    assert (await http.get("/v1/models", headers=bearer)).status_code == 401
    assert [(await sign_in(http, "Bruno", word)).status_code for word in (PASSWORD, ANOTHER)] == [401, 200]


async def test_S13_removal_ends_the_user_the_token_and_the_key(house: House, http: httpx.AsyncClient) -> None:
    made = await create(house, http)
    bearer = {"Authorization": f"Bearer {(await sign_in(http, 'Bruno')).json()['accessToken']}"}
    removed = await call(http, "DELETE", f"/users/{made['key_id']}")
    assert (removed.status_code, removed.json()) == (200, made | {"state": "revoked"})
    assert await done(house) == ("users.remove", "Bruno")
    assert (await http.get("/v1/models", headers=bearer)).status_code == 401
    assert (await sign_in(http, "Bruno")).status_code == 401
    assert (await call(http, "GET", f"/keys/{made['key_id']}")).json()["state"] == "revoked"
    again = await call(http, "POST", "/users", json={"username": "Bruno", "password": PASSWORD})
    assert again.json()["key_id"] != made["key_id"], "who comes later does not inherit"


async def test_a_user_whose_key_was_revoked_is_still_there_and_can_be_removed(
    house: House, http: httpx.AsyncClient
) -> None:
    made = await create(house, http)
    await call(http, "DELETE", f"/keys/{made['key_id']}")
    assert (await call(http, "GET", f"/users/{made['key_id']}")).json()["state"] == "revoked"
    assert (await call(http, "DELETE", f"/users/{made['key_id']}")).status_code == 200
    assert (await call(http, "GET", f"/users/{made['key_id']}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/users", {}, "username"),
        ("POST", "/users", {"username": "Clara"}, "password"),
        ("POST", "/users", {"username": "Clara", "password": "short"}, "password"),
        ("POST", "/users", {"username": "Clara", "password": "x" * 1025}, "password"),
        ("POST", "/users", {"username": "Clara", "password": 1234567890}, "password"),
        ("POST", "/users", {"username": " ", "password": PASSWORD}, "username"),
        ("POST", "/users", {"username": "Cla\nra", "password": PASSWORD}, "username"),
        ("POST", "/users", {"username": "C" * 65, "password": PASSWORD}, "username"),
        ("POST", "/users", {"username": "BRUNO", "password": PASSWORD}, "username"),
        ("POST", "/users", {"username": "Clara", "password": PASSWORD, "name": "x"}, "name"),
        ("POST", "/users", {"username": "Clara", "password": PASSWORD, "key_id": "key_1"}, "key_id"),
        ("POST", "/users", {"username": "Clara", "password": PASSWORD, "requests_per_day": 0}, "requests_per_day"),
        ("POST", "/users", {"username": "Clara", "password": PASSWORD, "tier": "gold"}, "tier"),
        ("PATCH", "/users/{key_id}", {}, "password"),
        ("PATCH", "/users/{key_id}", {"password": "short"}, "password"),
        ("PATCH", "/users/{key_id}", {"password": None}, "password"),
        ("PATCH", "/users/{key_id}", {"password": ANOTHER, "username": "Clara"}, "username"),
        ("DELETE", "/users/{key_id}", {"force": True}, "force"),
    ],
)
async def test_S9_what_cannot_be_is_refused_and_changes_nothing(
    house: House, http: httpx.AsyncClient, method: str, path: str, body: dict[str, object], param: str
) -> None:
    made = await create(house, http)
    before, keys = await done(house), len(house.runtime.keys.all())
    answer = await call(http, method, path.format(key_id=made["key_id"]), json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert [user.shown_name for user in house.runtime.users.all()] == ["Anna", "Bruno"]
    assert (await call(http, "GET", f"/users/{made['key_id']}")).json() == made
    assert (await done(house), len(house.runtime.keys.all())) == (before, keys)
    assert (await sign_in(http, "Bruno")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_key_that_is_no_users_leads_to_nobody(house: House, http: httpx.AsyncClient, method: str) -> None:
    issued = await house.runtime.keys.issue(NewKey("somebody", None))
    for key_id in ("key_unknown", issued.key.id):
        body = {"password": ANOTHER} if method == "PATCH" else None
        answer = await call(http, method, f"/users/{key_id}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "user_not_found")
    assert house.runtime.keys.require(issued.key.id).revoked_at is None


async def test_S22_the_admin_cookie_adds_somebody_only_with_the_forms_token(
    house: House, http: httpx.AsyncClient
) -> None:
    await create(house, http)
    said = {"username": "Clara", "password": PASSWORD}
    async with Person(house.base) as person:
        await person.sign_in()
        cookie = {"Cookie": f"chat2api={person.cookies['chat2api']}", "Origin": person.origin}
        assert len((await http.get("/users", headers=cookie)).json()["data"]) == 2
        for token, status in (("wrong", 403), (person.token(), 201)):
            answer = await http.post("/users", json=said, headers=cookie | {"X-CSRF-Token": token})
            assert answer.status_code == status
            assert ("Clara" in [user.shown_name for user in house.runtime.users.all()]) is (status == 201)
