"""Cross-origin rules, header by header; who may call at all is tests/api/test_auth.py's."""

import dataclasses
import itertools
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.e2e.harness import OPERATOR_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = {"Origin": "https://page.example.test"}
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
PREFLIGHT = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("cors")) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def named_page(house: House) -> Iterator[None]:
    """Name the page in CORS_ORIGINS."""
    before = house.runtime.config
    house.runtime.config = dataclasses.replace(before, cors_origins=(PAGE["Origin"],))
    yield
    house.runtime.config = before


def allowed(answer: httpx.Response) -> str | None:
    origin: str | None = answer.headers.get("access-control-allow-origin")
    return origin


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/models/auto"])
async def test_S25_a_preflight_for_a_call_with_a_key_is_answered(http: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path.endswith("completions") else "GET"
    answer = await http.options(path, headers={**PREFLIGHT, "Access-Control-Request-Method": method})
    assert (answer.status_code, answer.content) == (204, b"")
    assert allowed(answer) == "*"
    assert answer.headers["access-control-allow-methods"] == method
    assert answer.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize(
    "names", ["authorization", "Authorization", "content-type,AUTHORIZATION", "x-a , authorization"]
)
async def test_S25_authorization_may_be_asked_for_in_any_case_and_place(http: httpx.AsyncClient, names: str) -> None:
    answer = await http.options("/v1/models", headers={**PREFLIGHT, "Access-Control-Request-Headers": names})
    assert allowed(answer) == "*"


@pytest.mark.parametrize("missing", ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"])
async def test_S25_what_is_no_preflight_with_a_key_opens_nothing(http: httpx.AsyncClient, missing: str) -> None:
    headers = {name: value for name, value in PREFLIGHT.items() if name != missing}
    assert allowed(await http.options("/v1/models", headers=headers)) is None


@pytest.mark.parametrize("names", ["x-authorization", "authorization2", "my authorization", ""])
async def test_S25_a_name_like_it_is_not_it(http: httpx.AsyncClient, names: str) -> None:
    answer = await http.options("/v1/models", headers={**PREFLIGHT, "Access-Control-Request-Headers": names})
    assert allowed(answer) is None


SIGN_IN = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


async def test_S25_pages_that_are_not_named_sign_nobody_in(http: httpx.AsyncClient) -> None:
    for headers in (SIGN_IN, PREFLIGHT):
        assert allowed(await http.options("/auth/login", headers=headers)) is None
    said = {"username": "anna", "password": "wrong"}
    assert allowed(await http.post("/auth/login", json=said, headers=PAGE | OPERATOR)) is None


@pytest.mark.usefixtures("named_page")
async def test_a_named_page_signs_people_in_and_reads_why_not(http: httpx.AsyncClient) -> None:
    answer = await http.options("/auth/login", headers=SIGN_IN)
    assert (answer.status_code, allowed(answer)) == (204, "*")
    assert answer.headers["access-control-allow-headers"] == "content-type"
    refused = await http.post("/auth/login", json={"username": "anna", "password": "wrong"}, headers=PAGE)
    assert (refused.status_code, allowed(refused)) == (401, "*")
    plain = {name: value for name, value in SIGN_IN.items() if name != "Access-Control-Request-Method"}
    assert allowed(await http.options("/auth/login", headers=plain)) is None


@pytest.mark.parametrize(
    "path", ["/conversation", "/backend-api/conversation/c-1", "/chatgpt/backend-api/conversations"]
)
async def test_the_websites_calls_are_open_to_pages_that_bring_a_key(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.options(path, headers=PREFLIGHT)
    assert (answer.status_code, allowed(answer)) == (204, "*")
    told = await http.post(path, json={}, headers=PAGE | OPERATOR)
    assert (allowed(told), list(told.json())) == ("*", ["errorMessage"])


async def test_only_names_come_back(http: httpx.AsyncClient) -> None:
    asked = "authorization, x-good_one, <script>, a b, x:y, ,"
    answer = await http.options("/v1/models", headers={**PREFLIGHT, "Access-Control-Request-Headers": asked})
    assert answer.headers["access-control-allow-headers"] == "authorization, x-good_one"


@pytest.mark.parametrize("headers", [PAGE | OPERATOR, PAGE | {"Authorization": "Bearer wrong"}])
async def test_S25_a_call_with_a_key_may_be_read_good_or_bad(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await http.get("/v1/models", headers=headers)
    assert allowed(answer) == "*"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "x-should-retry", "x-chat2api-upstream"} <= set(exposed)


async def test_S25_without_an_origin_nothing_is_said(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/models", headers=OPERATOR)
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_S25_a_keyless_call_is_not_readable_unless_its_page_is_named(
    http: httpx.AsyncClient, named_page: None
) -> None:
    stranger = {"Origin": "https://other.example.test"}
    keyless = {name: value for name, value in PREFLIGHT.items() if name != "Access-Control-Request-Headers"}
    assert allowed(await http.options("/v1/models", headers=keyless)) == "*"
    assert allowed(await http.options("/v1/models", headers=keyless | stranger)) is None
    assert allowed(await http.get("/v1/models", headers=PAGE)) == "*"
    assert allowed(await http.get("/v1/models", headers=stranger)) is None


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/healthz", "/readyz", "/static/style.css", "/nothing/here"])
async def test_S25_no_other_route_ever_answers_across_origins(
    http: httpx.AsyncClient, named_page: None, path: str
) -> None:
    for headers in (PAGE, PAGE | OPERATOR, PREFLIGHT):
        for method in ("GET", "OPTIONS"):
            if (path, method) == ("/", "OPTIONS") and headers is PREFLIGHT:
                continue  # POST / is a chat
            assert allowed(await http.request(method, path, headers=headers)) is None


async def test_S25_credentials_are_never_allowed(http: httpx.AsyncClient, named_page: None) -> None:
    for method, headers in itertools.product(("GET", "POST", "OPTIONS"), (PAGE, PAGE | OPERATOR, PREFLIGHT)):
        answer = await http.request(method, "/v1/models", headers=headers)
        assert "access-control-allow-credentials" not in answer.headers
