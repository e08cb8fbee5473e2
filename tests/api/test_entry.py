"""Who comes into a tier, by which path and key; and that the tier's rules hold on every path."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from chat2api.api.entry import PLAIN, RULED, check_route
from chat2api.app import create_app
from chat2api.config import Config
from chat2api.errors import PermissionDeniedError
from chat2api.gateway.provider import Caller
from chat2api.keys.guesses import Guesses
from chat2api.keys.issue import make_key
from chat2api.keys.tiers import BUILT_IN
from chat2api.protocol.openai.rules import Rules
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import KeyScope, NewKey
from tests.api.tiers_house import SHARED_KEY, ask, bearer, chat, issue, open_tiers_house
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_tiers_house(tmp_path_factory.mktemp("entry"), sim) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House, sim: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    house.runtime.guesses = Guesses(house.runtime.clock)
    sim.control.reset()
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


def signed_in(sim: Simulator) -> list[bool]:
    """Tell of each conversation call whether it came from an account."""
    calls = sim.control.requests_to("conversation")
    return ["authorization" in {name.lower() for name, _ in call.request.headers} for call in calls]


@pytest.mark.parametrize("base", ["/free", "/api/blog", ""])
@pytest.mark.parametrize("stream", [False, True])
async def test_S1_a_call_without_a_key_is_of_the_public_tier_and_never_reaches_an_account(
    http: httpx.AsyncClient, sim: Simulator, base: str, stream: bool
) -> None:
    answer = await ask(http, base, chat("gpt-3.5-turbo", stream=stream))
    assert answer.status_code == 200
    assert signed_in(sim) == [False]


@pytest.mark.parametrize(
    "header", ["Bearer", "Basic eDp5", "Bearer x", "Bearer sk-anything-at-all", "Bearer eyJh", f"Bearer {OPERATOR_KEY}"]
)
async def test_a_client_that_insists_on_a_key_may_send_anything_to_a_public_tier(
    house: House, http: httpx.AsyncClient, sim: Simulator, header: str
) -> None:
    for _ in range(2):
        answer = await http.post(
            "/free/v1/chat/completions", json=chat("gpt-3.5-turbo"), headers={"Authorization": header}
        )
        assert answer.status_code == 200
    assert signed_in(sim) == [False, False]
    assert house.runtime.guesses.quiet, "what is compared with nothing is no guess"


async def test_S10_an_issued_key_stays_one_on_a_public_path(house: House, http: httpx.AsyncClient) -> None:
    assert (await ask(http, "/free", chat("gpt-3.5-turbo"), make_key())).status_code == 401
    assert (await ask(http, "/free", chat("gpt-3.5-turbo"), "sk-c2a-short")).status_code == 401
    member = await ask(http, "/free", chat("gpt-3.5-turbo"), await issue(house, "members"))
    assert (member.status_code, member.json()["error"]["code"]) == (403, "permission_denied")
    assert "use it at /members" in member.json()["error"]["message"]


async def test_S10_a_local_users_token_stays_one_on_a_public_path(house: House, http: httpx.AsyncClient) -> None:
    users = house.runtime.users
    await users.add("Anna", "four quiet words together", NewKey("", None, tier="members"))
    token = await users.sign_in("Anna", "four quiet words together")
    assert token is not None
    refused = await ask(http, "/free", chat("gpt-3.5-turbo"), token.text)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert (await ask(http, "/members", chat(), token.text)).status_code == 200
    await users.remove("Anna")
    assert (await ask(http, "/free", chat("gpt-3.5-turbo"), token.text)).status_code == 401


@pytest.mark.parametrize("base", ["/api/blog/shared", ""])
async def test_a_shared_key_opens_its_tier_and_never_reaches_an_account(
    http: httpx.AsyncClient, sim: Simulator, base: str
) -> None:
    assert (await ask(http, base, chat(), SHARED_KEY)).status_code == 200
    assert signed_in(sim) == [False]


@pytest.mark.parametrize("base", ["/free", "/members"])
async def test_a_shared_key_opens_no_other_tier(http: httpx.AsyncClient, sim: Simulator, base: str) -> None:
    assert (await ask(http, base, chat("gpt-3.5-turbo"), SHARED_KEY)).status_code == 403
    assert signed_in(sim) == []


@pytest.mark.parametrize("base", ["/api/blog/shared", "/members"])
async def test_a_tier_that_is_not_public_asks_for_its_key(http: httpx.AsyncClient, sim: Simulator, base: str) -> None:
    for key in (None, "wrong"):
        answer = await ask(http, base, chat(), key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "PUBLIC_MODE" in (await ask(http, base, chat())).json()["error"]["message"]
    assert signed_in(sim) == []


@pytest.mark.parametrize("base", ["/members", ""])
async def test_an_issued_key_of_the_tier_reaches_the_accounts_whatever_its_path(
    house: House, http: httpx.AsyncClient, sim: Simulator, base: str
) -> None:
    key = await issue(house, "members")
    assert (await ask(http, base, chat(), key)).status_code == 200
    assert signed_in(sim) == [True]
    assert (await ask(http, base, chat("gpt-4o-mini"), key)).json()["error"]["code"] == "model_not_found"
    refused = await ask(http, base, chat(system=True), key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "system_not_allowed")


async def test_a_key_of_no_tier_stays_outside(house: House, http: httpx.AsyncClient) -> None:
    key = await issue(house, None)
    assert (await ask(http, "/members", chat(), key)).status_code == 403
    assert (await ask(http, "", chat("gpt-4o-mini", system=True), key)).status_code == 200


async def test_a_key_whose_tier_is_gone_opens_nothing(house: House, http: httpx.AsyncClient) -> None:
    key = await issue(house, "gone")
    for base in ("", "/members"):
        answer = await ask(http, base, chat(), key)
        assert answer.status_code == 403
        assert "`gone`" in answer.json()["error"]["message"]


async def test_the_operator_may_try_every_tier_that_needs_a_key(http: httpx.AsyncClient, sim: Simulator) -> None:
    assert (await ask(http, "/members", chat(), OPERATOR_KEY)).status_code == 200
    assert (await ask(http, "/members", chat("gpt-4o-mini"), OPERATOR_KEY)).status_code == 404
    assert (await ask(http, "", chat("gpt-4o-mini"), OPERATOR_KEY)).status_code == 200
    assert signed_in(sim) == [True, True]


async def test_ones_own_token_is_for_no_tier(http: httpx.AsyncClient, sim: Simulator) -> None:
    token = sim.control.add_account().access_token
    assert (await ask(http, "/members", chat(), token)).status_code == 401
    assert (await ask(http, "", chat(), token)).status_code == 200


async def test_S7_two_keys_are_refused_in_a_public_tier_too(http: httpx.AsyncClient) -> None:
    headers = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")]
    answer = await http.post("/free/v1/chat/completions", json=chat("gpt-3.5-turbo"), headers=headers)
    assert answer.status_code == 400


async def test_the_rules_change_what_is_asked_and_cut_what_is_answered(http: httpx.AsyncClient, sim: Simulator) -> None:
    answer = await ask(http, "/free", chat("gpt-3.5-turbo", system=True, max_tokens=1000))
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert answer.json()["usage"]["completion_tokens"] == 3
    (sent,) = sim.control.requests_to("conversation")
    assert b"three rivers" in sent.request.body
    assert b"Latin" not in sent.request.body


async def test_text_only_means_it(http: httpx.AsyncClient, sim: Simulator) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}
    body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": [part]}]}
    answer = await ask(http, "/free", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "text_only")
    assert signed_in(sim) == []


async def test_the_list_at_the_bare_path_holds_the_tiers_models_that_the_key_may_use(
    house: House, http: httpx.AsyncClient
) -> None:
    public = (await http.get("/v1/models")).json()
    assert public == (await http.get("/free/v1/models")).json()
    assert (await http.get("/v1/models/gpt-3.5-turbo")).json() == public["data"][0]
    assert (await http.get("/v1/models/gpt-4o")).status_code == 404
    member = bearer(await issue(house, "members"))
    assert [model["id"] for model in (await http.get("/v1/models", headers=member)).json()["data"]] == ["gpt-4o"]
    narrow = bearer(await issue(house, "members", scope=KeyScope(models=("o1*",))))
    assert (await http.get("/v1/models", headers=narrow)).json()["data"] == []
    assert (await http.get("/v1/models/gpt-4o", headers=narrow)).status_code == 404


async def test_an_endpoint_whose_bodies_no_rule_knows_is_closed_to_a_tier_with_rules() -> None:
    caller = Caller("public", owner="o", tier=BUILT_IN)
    check_route(caller, "chat.create_chat_completion")
    check_route(caller, "/imitate/chat.create_chat_completion")
    check_route(caller, "models.get_model")
    check_route(Caller("operator", owner="o"), "images.create")
    with pytest.raises(PermissionDeniedError, match="chat completions only"):
        check_route(caller, "images.create")


async def test_S8_who_has_no_key_of_their_own_can_have_nothing_stored() -> None:
    plain = replace(BUILT_IN, rules=Rules())
    check_route(Caller("issued_key", owner="o", tier=plain), "operations.operate")
    check_route(Caller("public", owner="o", tier=plain), "chat.create_chat_completion")
    for endpoint in ("operations.operate", "operations.list_files", "operations.get_response"):
        with pytest.raises(PermissionDeniedError):
            check_route(Caller("public", owner="o", tier=plain), endpoint)


async def test_the_endpoints_that_are_named_exist() -> None:
    app = create_app(Config())
    assert set(app.view_functions) >= PLAIN | RULED


@pytest.mark.parametrize("path", ["/imitate/v1/chat/completions", "/v1", "/", "/free/v1", "/free"])
async def test_the_rules_hold_on_every_path_that_leads_to_a_chat(
    http: httpx.AsyncClient, sim: Simulator, path: str
) -> None:
    answer = await http.post(path, json=chat("gpt-3.5-turbo", system=True))
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 3
    (sent,) = sim.control.requests_to("conversation")
    assert b"Latin" not in sent.request.body


async def test_the_websites_own_calls_are_for_no_tier(house: House, http: httpx.AsyncClient) -> None:
    plain = Caller("issued_key", owner="o", tier=replace(BUILT_IN, rules=Rules()))
    check_route(plain, "images.create")
    with pytest.raises(PermissionDeniedError):
        check_route(plain, "site.list_conversations", site=True)
    answer = await http.get("/conversations", headers=bearer(await issue(house, "shared")))
    assert answer.status_code == 403
    preflight = await http.options(
        "/conversations", headers={"Origin": "https://a.example.test", "Access-Control-Request-Method": "GET"}
    )
    assert "access-control-allow-origin" not in preflight.headers


async def test_no_address_is_kept(house: House, http: httpx.AsyncClient) -> None:
    await ask(http, "/free", chat("gpt-3.5-turbo"))
    await house.runtime.ledger.flush()
    rows = await house.runtime.records.usage.rows(since="2000-01-01", until="2999-12-31")
    assert "127.0.0.1" not in repr(rows)
    assert any(row.key == "tier free" for row in rows)
