"""Long lists, over REST and on pages: asked for by the same names, cut into pages, searched."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.issue import KeyRing
from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LocalUsers
from chat2api.storage.keys import NewKey
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.users import LocalUser
from tests.api.pages_house import OPERATOR, Person
from tests.described import check_answer
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowd(page_house: House) -> AsyncIterator[House]:
    """The server with a thousand users, each with a key; every tenth has been revoked, every fourth is of the club."""
    runtime = page_house.runtime
    records = await SqlRecords.in_memory()  # quick to fill; the server's own are not
    ring = KeyRing(records, runtime.clock)
    now = runtime.clock.now()
    for number in range(MANY):
        tier = "club" if number % 4 == 0 else None
        key = (await ring.issue(NewKey(f"user {number:04}", now + 86400 * (1 + number), tier=tier))).key
        await records.users.add(LocalUser(key.name, key.name.title(), "x", key.id, now + number, now + number))
        if number % 10 == 0:
            await ring.revoke(key.id)
    digests = SlowDigests(cost=2**4)
    before = runtime.keys, runtime.users
    runtime.keys, runtime.users = ring, LocalUsers(records, ring, digests, runtime.clock)
    await runtime.users.start()
    yield page_house
    runtime.keys, runtime.users = before
    digests.close()
    await records.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def http(crowd: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=crowd.base, headers=OPERATOR, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def operator(crowd: House) -> AsyncIterator[Person]:
    async with Person(crowd.base) as person:
        await person.sign_in()
        yield person


def shown(page: str) -> list[str]:
    """Give the names in the table of a page."""
    return re.findall(r'<th scope="row"><a[^>]*>([^<]+)</a>', page)


@pytest.mark.parametrize(("path", "name"), [("/users", "username"), ("/keys", "name")])
async def test_every_row_is_on_one_page_over_REST(http: httpx.AsyncClient, path: str, name: str) -> None:
    met: list[str] = []
    for page in range(1, 6):
        answer = await http.get(path, params={"page": page, "per_page": 200, "sort": "-created"})
        check_answer("GET", path, answer.status_code, answer.json())
        told = answer.json()
        met += [row[name].lower() for row in told["data"]]
        assert (told["page"], told["pages"], told["per_page"], told["found"], told["total"]) == (
            page,
            5,
            200,
            MANY,
            MANY,
        )
        assert told["states"] == {"active": 900, "revoked": 100}
    assert met == [f"user {number:04}" for number in reversed(range(MANY))]
    first = (await http.get(path)).json()
    assert [row[name].lower() for row in first["data"]] == [f"user {number:04}" for number in range(50)]


@pytest.mark.parametrize(("path", "name"), [("/users", "username"), ("/keys", "name")])
async def test_a_search_and_a_state_leave_what_they_say_over_REST(
    http: httpx.AsyncClient, path: str, name: str
) -> None:
    told = (await http.get(path, params={"search": "USER club", "state": "revoked", "sort": "-name"})).json()
    assert [row[name].lower() for row in told["data"]] == [f"user {number:04}" for number in range(980, -1, -20)]
    assert (told["found"], told["total"], told["states"]) == (50, MANY, {"active": 200, "revoked": 50})


@pytest.mark.parametrize("path", ["/users", "/keys", "/tokens/accounts"])
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("sort=password", "sort"),
        ("state=fine", "state"),
        ("page=0", "page"),
        ("page=one", "page"),
        ("per_page=201", "per_page"),
        ("search=" + "x" * 201, "search"),
        ("search=a&search=b", "search"),
        ("limit=5", "limit"),
    ],
)
async def test_S9_what_cannot_be_asked_is_refused_by_name(
    http: httpx.AsyncClient, path: str, query: str, param: str
) -> None:
    answer = await http.get(f"{path}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/local-users", "/issued-keys"])
async def test_pages_of_a_list_lead_to_one_another_and_keep_what_is_asked(operator: Person, path: str) -> None:
    names = [f"user {number:04}" for number in reversed(range(MANY))]
    first = (await operator.get(path)).text
    assert [name.lower() for name in shown(first)] == names[:50], "the newest come first"
    assert "Page 1 of 20" in first
    found = (await operator.get(f"{path}?search=club&state=active&sort=name&order=asc")).text
    assert [name.lower() for name in shown(found)][:3] == ["user 0004", "user 0008", "user 0012"]
    assert "Page 1 of 4" in found
    assert 'value="club"' in found
    link = re.search(r'rel="next" href="([^"]+)"', found)
    assert link is not None
    following = (await operator.get(path + link[1].replace("&amp;", "&"))).text
    assert "Page 2 of 4" in following
    assert not set(shown(found)) & set(shown(following))
    last = (await operator.get(f"{path}?page=99")).text
    assert [name.lower() for name in shown(last)] == names[-50:]
    nobody = (await operator.get(f"{path}?search=nobody")).text
    assert shown(nobody) == []
    assert "is like that." in nobody


async def test_what_cannot_be_asked_of_a_page_is_told_on_one(operator: Person) -> None:
    for path in ("/local-users", "/issued-keys", "/tokens"):
        for query in ("sort=password", "state=fine"):
            answer = await operator.get(f"{path}?{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
