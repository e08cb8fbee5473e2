"""The pages for people."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import httpx
import pytest
import pytest_asyncio

from chat2api import __version__
from chat2api.api.pages import public_base
from chat2api.config import Config
from tests.e2e.harness import House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["", "my/prefix"])
async def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    nobody = "http://127.0.0.1:1"  # the routes are called, and what they call in turn is not out in the world
    settings = {"API_PREFIX": request.param, "PORT": "0", "CHATGPT_BASE_URL": nobody}
    async with open_house(tmp_path_factory.mktemp("pages"), **settings) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    base = f"{house.base}{prefix(house)}"
    async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
        yield client


def prefix(house: House) -> str:
    return f"/{house.runtime.config.api_prefix}" if house.runtime.config.api_prefix else ""


class Page(HTMLParser):
    """What a page refers to, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src") and value is not None:
                self.references.append(value)


async def test_S24_every_page_carries_the_same_headers(http: httpx.AsyncClient) -> None:
    for path in ("/", "/openapi.json"):
        headers = (await http.get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers, "not over plain HTTP"


async def test_S24_the_start_page_needs_nothing_that_its_policy_forbids(http: httpx.AsyncClient) -> None:
    page = Page((await http.get("/")).text)
    assert not {"style", "iframe", "object"} & set(page.elements)
    assert not [name for name in page.attributes if name == "style" or name.startswith("on")]


async def test_all_links_of_the_start_page_lead_somewhere(house: House, http: httpx.AsyncClient) -> None:
    page = Page((await http.get("/")).text)
    local = [reference for reference in page.references if not reference.startswith("#")]
    assert len(local) >= 4
    for reference in local:
        assert reference.startswith(prefix(house) + "/"), "nothing is loaded from elsewhere"
        assert (await http.get(house.base + reference)).status_code == 200, reference


async def test_the_start_page_says_which_address_to_use(house: House, http: httpx.AsyncClient) -> None:
    text = (await http.get("/")).text
    assert f"http://localhost:0{prefix(house)}/v1/chat/completions" in text
    assert "simulator" not in text.lower()
    assert __version__ not in text, "strangers need not know it"


@pytest.mark.parametrize("host", ["evil.example.test", "evil.example.test:5005", "[::1]", "127.0.0.1"])
async def test_S23_the_host_header_is_never_given_back(http: httpx.AsyncClient, host: str) -> None:
    for path in ("/", "/openapi.json"):
        answer = await http.get(path, headers={"Host": host, "X-Forwarded-Host": "forwarded.example.test"})
        assert host.strip("[]") not in answer.text
        assert "forwarded.example.test" not in answer.text + str(answer.headers)


@pytest.mark.parametrize(
    "path", ["//", "//v1/models", "/v1//models", "/v1/chat//completions", "//evil.example.test/", "/v1/"]
)
async def test_S23_no_path_is_redirected(house: House, http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(f"{house.base}{prefix(house)}{path}", headers={"Host": "evil.example.test"})
    assert not 300 <= answer.status_code < 400
    assert "evil" not in answer.text + str(answer.headers)


async def test_the_description_names_the_routes_that_there_are(house: House, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert f"{prefix(house)}/v1/chat/completions" in document["paths"]
    nothing = "There is nothing at this path"
    assert nothing in (await http.get("/v1/responses/x/y/z")).text
    for path, operations in document["paths"].items():
        for method in operations:
            answer = await http.request(method, house.base + re.sub(r"\{\w+\}", "x", path))
            assert answer.status_code != 405, path
            assert nothing not in answer.text, path


async def test_S38_static_files_are_files_of_ours_only(http: httpx.AsyncClient) -> None:
    style = await http.get("/static/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert style.headers["x-content-type-options"] == "nosniff"
    steps = ("..", "%2e%2e", ".%2e", "..%00", "....", "..;", "%252e%252e", "..%c0%af", "\uff0e\uff0e")
    joints = ("/", "%2f", "\\", "%5c", "//", "%252f")
    climbing = [f"{step}{joint}index.html" for step in steps for joint in joints]
    climbing += [f"{step}{joint}" * 8 + "etc/passwd" for step in steps for joint in joints[:3]]
    for path in (*climbing, "/etc/passwd", ".env", "style.css/../../index.html", "%2fetc%2fpasswd", "C:%5cwindows"):
        answer = await http.get(f"/static/{path}")
        assert answer.status_code in (400, 404), path
        assert b"<html" not in answer.content and b"root:" not in answer.content


@pytest.mark.parametrize(
    ("config", "base"),
    [
        (Config(), "http://localhost:5005"),
        (Config(port=80), "http://localhost:80"),
        (Config(public_origins=("https://chat.example.test", "http://other")), "https://chat.example.test"),
    ],
)
async def test_the_address_for_people_comes_from_the_settings(config: Config, base: str) -> None:
    assert public_base(config) == base
