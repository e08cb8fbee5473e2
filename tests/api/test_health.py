"""Whether the server lives and is ready."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from chat2api import __version__
from chat2api.keys.operator import OperatorKeys
from chat2api.protocol.chatgpt.drift import DriftWatch
from tests.e2e.harness import OPERATOR_KEY, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("health")) as house:
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=house.base, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def as_it_was(house: House) -> Iterator[None]:
    keys = house.runtime.operator_keys
    yield
    house.runtime.operator_keys, house.runtime.draining = keys, False


async def test_a_living_server_says_ok_and_nothing_else(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert answer.headers["content-type"] == "text/plain"
    assert __version__ not in str(answer.headers)
    assert "server" not in answer.headers


async def test_a_server_without_accounts_is_ready(http: httpx.AsyncClient) -> None:
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (200, "ready")


async def test_R24_a_server_that_stops_lives_but_is_not_ready(
    house: House, http: httpx.AsyncClient, as_it_was: None
) -> None:
    house.runtime.drain()
    assert (await http.get("/healthz")).status_code == 200
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "draining")


async def test_S1_a_server_whose_key_could_not_be_kept_is_degraded(
    house: House, http: httpx.AsyncClient, as_it_was: None
) -> None:
    house.runtime.operator_keys = OperatorKeys((), shut="The canary folder cannot be written.")
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "degraded"), "one word; the reason is in the log"
    house.runtime.drain()
    assert (await http.get("/readyz")).text == "draining"


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (None, "degraded"),
        ("a wrong key", "degraded"),
        (OPERATOR_KEY, "degraded\nnot understood in the backend's answers: content_type: hologram"),
    ],
)
async def test_R15_a_backend_that_changed_is_told_and_the_operator_learns_how(
    house: House, http: httpx.AsyncClient, key: str | None, body: str
) -> None:
    runtime = house.runtime
    before, runtime.drift = runtime.drift, DriftWatch()
    try:
        for number in range(99):
            runtime.drift.note({"type: add-item": 1} if number % 2 else {}, runtime.clock.monotonic())
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        assert (await http.get("/readyz", headers=headers)).text == "ready"
        runtime.drift.note({"content_type: hologram": 2}, runtime.clock.monotonic())
        assert (await http.get("/readyz", headers=headers)).text == "ready", "one in a hundred"
        runtime.drift.note({"content_type: hologram": 2}, runtime.clock.monotonic())
        answer = await http.get("/readyz", headers=headers)
        assert (answer.status_code, answer.text) == (200, body)
    finally:
        runtime.drift = before


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_can_be_asked_without_a_body_and_only_read(http: httpx.AsyncClient, path: str) -> None:
    head = await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    refused = await http.post(path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_allowed")
