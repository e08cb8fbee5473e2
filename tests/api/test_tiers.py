"""A tier's own paths: exact, whatever prefix there is; its list for everybody; its page."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.api.auth import access_class
from chat2api.api.dispatch import LeanQuart
from chat2api.api.tiers import TierRoutes, shown_limits, taken_segments
from chat2api.app import create_app
from chat2api.config import Config
from chat2api.simulator.app import Simulator
from chat2api.storage.keys import KeyLimits
from tests.api.tiers_house import chat, open_tiers_house
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
PAGE = {"Origin": "https://page.example.test"}
PREFLIGHT = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

EXPECTED_CLASSES = {
    "/": "login",
    "/v1/models": "public",
    "/v1/models/<path:model>": "public",
    "/v1/chat/completions": "api",
    "/v1": "api",
    "/v1/usage": "api",
    "/dashboard/billing/subscription": "api",
    "/v1/dashboard/billing/subscription": "api",
    "/dashboard/billing/usage": "api",
    "/v1/dashboard/billing/usage": "api",
}
"""All that lies under a tier's base, beside further API routes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_tiers_house(tmp_path_factory.mktemp("tiers"), sim) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "x/y"])
async def test_M1_under_a_base_lie_the_api_and_what_is_public_and_nothing_else(prefix: str) -> None:
    app = create_app(Config(api_prefix=prefix))
    assert isinstance(app, LeanQuart)
    routes = TierRoutes(app, f"/{prefix}" if prefix else "")
    found = {rule.rule: access_class(app, rule.endpoint) for rule in routes.map.iter_rules()}
    assert EXPECTED_CLASSES.items() <= found.items()
    assert {kind for rule, kind in found.items() if rule not in EXPECTED_CLASSES} <= {"api"}


async def test_a_base_may_lie_under_no_path_of_the_apps_own() -> None:
    plain, prefixed = create_app(Config()), create_app(Config(api_prefix="x"))
    taken = taken_segments(plain, "")
    assert {"v1", "tokens", "keys", "login", "static", "healthz", "usage"} <= taken
    assert not {"", "free", "api"} & taken
    assert not [segment for segment in taken if not re.fullmatch(r"[\w.-]+", segment)]
    assert taken <= taken_segments(prefixed, "/x")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/free/v1/chat/completions", 405),
        ("PUT", "/free/v1/models", 405),
        ("GET", "/free/tokens", 404),
        ("GET", "/free/login", 404),
        ("GET", "/free/healthz", 404),
        ("GET", "/free/v1", 405),
        ("DELETE", "/free", 405),
        ("GET", "/free//v1/models", 404),
        ("GET", "/free/free/v1/models", 404),
        ("GET", "/free/chat/completions", 405),
        ("POST", "/free/chat/completionsx", 404),
        ("POST", "/free/embeddings", 404),
        ("POST", "/fre/v1/chat/completions", 404),
        ("GET", "/fre/v1/chat/completions", 404),
        ("POST", "/freee/v1/chat/completions", 404),
        ("POST", "/Free/v1/chat/completions", 404),
        ("POST", "/api/v1/chat/completions", 404),
        ("GET", "/v1/models/free/v1/models", 404),
    ],
)
@pytest.mark.parametrize("headers", [{}, OPERATOR], ids=["nobody", "operator"])
async def test_S4_other_paths_and_methods_are_none(
    http: httpx.AsyncClient, sim: Simulator, method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    sim.control.reset()
    answer = await http.request(method, path, headers=headers, json=chat("gpt-3.5-turbo"))
    assert answer.status_code == status
    assert not sim.control.requests_to("conversation")


async def test_a_base_is_the_same_with_and_without_v1_for_what_its_clients_ask(http: httpx.AsyncClient) -> None:
    answer = await http.post("/free/chat/completions", json=chat("gpt-3.5-turbo"))
    assert answer.json()["object"] == "chat.completion"
    assert (await http.get("/free/models")).json() == (await http.get("/free/v1/models")).json()
    assert (await http.get("/free/models/gpt-4o-mini")).json()["id"] == "gpt-4o-mini"
    assert (await http.post("/members/chat/completions", json=chat())).status_code == 401
    preflight = await http.options("/free/chat/completions", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")


async def test_S3_a_tier_lies_under_the_prefix_and_only_there(
    sim: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("prefixed")
    async with (
        open_tiers_house(folder, sim, API_PREFIX="p/q") as house,
        httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as http,
    ):
        body = chat("gpt-3.5-turbo")
        assert (await http.post("/p/q/free/v1/chat/completions", json=body)).status_code == 200
        bare = await http.post("/free/v1/chat/completions", json=body)
        assert bare.status_code == 404
        assert bare.content == (await http.post("/nothing/here", json=body)).content
        assert (await http.get("/p/q/free/v1/usage", headers=OPERATOR)).status_code == 403
        page = await http.get("/p/q/free", headers={"Accept": "text/html"})
        assert "/p/q/free/v1" in page.text


@pytest.mark.parametrize("path", ["/members/v1/models", "/api/blog/shared/v1/models"])
async def test_the_list_of_a_tiers_models_needs_no_key_and_tells_their_limits(
    http: httpx.AsyncClient, path: str
) -> None:
    for headers in ({}, OPERATOR, {"Authorization": "Bearer wrong"}):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 200
        (model,) = answer.json()["data"]
        assert model["id"] == "gpt-4o"
        assert model["object"] == "model"
        assert model["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 100_000}


async def test_no_limit_is_told_in_a_word(http: httpx.AsyncClient) -> None:
    answer = await http.get("/free/v1/models/gpt-3.5-turbo")
    assert answer.json()["limits"] == {"requests_per_minute": "unlimited", "tokens_per_minute": "unlimited"}
    for refused in (
        await http.get("/free/v1/models/gpt-4o"),
        await http.post("/free/v1/chat/completions", json=chat("gpt-4o")),
    ):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (404, "model_not_found")
        assert error["message"].endswith("There are: `gpt-3.5-turbo`, `gpt-4o-mini`.")


async def test_a_wrong_key_is_told_where_it_is_wrong(http: httpx.AsyncClient) -> None:
    for key in ("wrong", "sk-somebody-elses"):
        answer = await http.post(
            "/members/v1/chat/completions", json=chat(), headers={"Authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 401
        assert answer.json()["error"]["message"].startswith("This is no key of the tier `members`.")


@pytest.mark.parametrize("path", ["/members/v1/models", "/free/v1/models/gpt-4o-mini"])
async def test_S25_what_is_public_may_be_read_by_every_page(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path, headers=PAGE)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "cross-origin-resource-policy" not in answer.headers
    preflight = await http.options(path, headers=PREFLIGHT | {"Access-Control-Request-Method": "GET"})
    assert preflight.status_code == 204


@pytest.mark.parametrize("base", ["/free", "/api/blog", ""])
async def test_S25_a_public_tier_is_open_to_every_page_without_a_key(http: httpx.AsyncClient, base: str) -> None:
    names = "content-type,x-stainless-lang,x-stainless-os,x-stainless-retry-count"
    preflight = await http.options(
        f"{base}/v1/chat/completions", headers=PREFLIGHT | {"Access-Control-Request-Headers": names}
    )
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"].replace(" ", "") == names
    assert preflight.headers["access-control-max-age"] == "86400"
    answer = await http.post(f"{base}/v1/chat/completions", json=chat("gpt-3.5-turbo"), headers=PAGE)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_S25_a_tier_that_needs_a_key_is_open_to_pages_that_have_one(http: httpx.AsyncClient) -> None:
    path = "/members/v1/chat/completions"
    assert "access-control-allow-origin" not in (await http.options(path, headers=PREFLIGHT)).headers
    asking = PREFLIGHT | {"Access-Control-Request-Headers": "authorization"}
    assert (await http.options(path, headers=asking)).headers["access-control-allow-origin"] == "*"


async def test_S25_only_json_is_taken_without_a_key_too(http: httpx.AsyncClient) -> None:
    answer = await http.post("/free/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


async def test_the_page_tells_what_a_tier_gives_and_how_to_use_it(house: House, http: httpx.AsyncClient) -> None:
    page = await http.get("/free", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "Be kind &amp; patient." in page.text
    assert f"{house.base}/free/v1" in page.text or "/free/v1" in page.text
    for word in ("gpt-3.5-turbo", "gpt-4o-mini", "100\u202f000", "are left out", "Text only", "3 tokens"):
        assert word in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await http.get("/api/blog/", headers={"Accept": "text/html"})).status_code == 200


async def test_what_is_shown_to_copy_works_as_it_stands_and_sends_no_key_where_none_is_needed(
    http: httpx.AsyncClient,
) -> None:
    public = (await http.get("/free", headers={"Accept": "text/html"})).text
    assert "Authorization" not in public, "the variable may hold a key that is not for this server"
    assert "api_key=&#34;none&#34;" in public or 'api_key="none"' in public
    members = (await http.get("/members", headers={"Accept": "text/html"})).text
    assert "Authorization: Bearer $OPENAI_API_KEY" in members


async def test_the_start_page_leads_to_the_tier_that_needs_no_key(http: httpx.AsyncClient) -> None:
    page = (await http.get("/", headers={"Accept": "text/html"})).text
    assert '<a href="/free">The tier “free”</a>' in page
    assert "members" not in page


async def test_the_page_never_shows_a_shared_key(http: httpx.AsyncClient) -> None:
    page = await http.get("/api/blog/shared", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "sk-free-api" not in page.text


async def test_the_pages_speak_every_language(http: httpx.AsyncClient) -> None:
    for base in ("/free", "/members", "/api/blog/shared"):
        page = await http.get(base, headers={"Accept": "text/html", "Accept-Language": "zh-CN"})
        assert 'lang="zh-CN"' in page.text
        assert "层级" in page.text


async def test_S23_the_page_is_for_our_names_only(http: httpx.AsyncClient) -> None:
    answer = await http.get("/free", headers={"Host": "rebound.example.test"})
    assert answer.status_code == 421


async def test_limits_that_are_none_are_not_shown() -> None:
    limits = KeyLimits(requests_per_minute=3, requests_at_once=None, tokens_per_day=4, requests_total=9)
    assert shown_limits(limits) == [("requests_per_minute", 3), ("tokens_per_day", 4)]
