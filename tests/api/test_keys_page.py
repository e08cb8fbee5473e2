"""The operator's pages for issued keys, as a browser without script meets them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.issue import is_well_formed
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.usage import UsageRow, day_of
from tests.api.pages_house import OPERATOR, Person
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

BASE = "/issued-keys"


@pytest_asyncio.fixture(loop_scope="module")
async def operator(page_house: House) -> AsyncIterator[Person]:
    async with Person(page_house.base) as person:
        await person.sign_in()
        await person.get(BASE)
        yield person
    await page_house.runtime.keys.stop(False)


async def issue(house: House, name: str, **fields: object) -> tuple[str, str]:
    issued = await house.runtime.keys.issue(NewKey(name, **{"expires_at": None} | fields))  # type: ignore[arg-type]
    return issued.secret, issued.key.id


def secret_in(answer: httpx.Response) -> str:
    found = set(re.findall(r"sk-c2a-\w{49}", answer.text))
    assert len(found) == 1, found
    return str(found.pop())


def row_of(page: str, name: str) -> str:
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if f">{name}</a>" in row]
    return str(row)


async def test_S10_a_key_is_made_by_the_form_shown_once_and_works(page_house: House, operator: Person) -> None:
    form = (await operator.get(f"{BASE}/new")).text
    assert 'name="expires_in_days" type="text" value="90"' in form
    assert 'name="requests_per_minute" type="text" value="60"' in form
    made = await operator.post(
        f"{BASE}/new",
        {
            "name": "Ada",
            "note": "her laptop",
            "expires_in_days": "30",
            "requests_per_minute": "7",
            "tokens_total": "5000",
            "models": "gpt-4o\r\no4-*\r\n",
        },
    )
    assert made.status_code == 303
    where = made.headers["location"]
    shown = await operator.get(where)
    assert shown.headers["cache-control"] == "no-store"
    secret = secret_in(shown)
    assert is_well_formed(secret)
    assert secret not in where
    key = page_house.runtime.keys.find(secret)
    assert key is not None
    assert (key.name, key.note, key.scope) == ("Ada", "her laptop", KeyScope(models=("gpt-4o", "o4-*")))
    assert key.limits == KeyLimits(requests_per_minute=7, requests_at_once=None, tokens_total=5000)
    assert key.expires_at == pytest.approx(page_house.runtime.clock.now() + 30 * 86400, abs=600)
    for path in (BASE, f"{BASE}/{key.id}", "/usage", "/tokens/journal"):
        page = (await operator.get(path)).text
        assert secret not in page
    (last, *_) = await page_house.runtime.records.actions.latest(1)
    assert (last.what, last.target) == ("keys.create", key.id)


async def test_S10_a_reload_makes_no_other_key_and_shows_none(page_house: House, operator: Person) -> None:
    where = (await operator.post(f"{BASE}/new", {"name": "Once", "never": "yes"})).headers["location"]
    async with Person(page_house.base) as other:
        await other.sign_in()
        assert "sk-c2a-" not in (await other.get(where)).headers["location"], "another sign-in is shown nothing"
    secret = secret_in(await operator.get(where))
    count = len(page_house.runtime.keys.all())
    again = await operator.get(where)
    assert again.status_code == 303
    page = (await operator.get(again.headers["location"])).text
    assert "was shown once" in page
    assert secret not in page
    assert len(page_house.runtime.keys.all()) == count


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"note": "x" * 1001}, "note"),
        ({"expires_in_days": ""}, "expires_in_days"),
        ({"expires_in_days": "-1"}, "expires_in_days"),
        ({"expires_in_days": "nan"}, "expires_in_days"),
        ({"requests_per_day": "0"}, "requests_per_day"),
        ({"requests_per_day": "many"}, "requests_per_day"),
        ({"tokens_total": "1.5"}, "tokens_total"),
        ({"tokens_total": "9" * 5000}, "tokens_total"),
        ({"models": "\n".join(f"m{number}" for number in range(101))}, "models"),
        ({"groups": "g" * 101}, "groups"),
    ],
)
async def test_a_wrong_box_is_marked_and_the_others_keep_what_was_written(
    page_house: House, operator: Person, fields: dict[str, str], wrong: str
) -> None:
    before = len(page_house.runtime.keys.all())
    said = {"name": "Grace", "note": "kept as it was", "expires_in_days": "9", "requests_at_once": "3"} | fields
    answer = await operator.post(f"{BASE}/new", said)
    assert answer.status_code == 400
    assert answer.text.count('aria-invalid="true"') == 1
    assert f'id="{wrong}-error"' in answer.text
    assert 'name="requests_at_once" type="text" value="3"' in answer.text
    assert len(page_house.runtime.keys.all()) == before
    _, key_id = await issue(page_house, "Unchanged")
    if wrong != "expires_in_days" or fields["expires_in_days"]:
        assert (await operator.post(f"{BASE}/{key_id}", said)).status_code == 400
        assert page_house.runtime.keys.require(key_id).name == "Unchanged"


async def test_an_edit_says_all_but_keeps_the_end_when_nothing_is_said_of_it(
    page_house: House, operator: Person
) -> None:
    end = page_house.runtime.clock.now() + 86400
    limits = KeyLimits(requests_per_day=10)
    _, key_id = await issue(page_house, "Before", expires_at=end, limits=limits, scope=KeyScope(models=("a",)))
    page = (await operator.get(f"{BASE}/{key_id}")).text
    assert 'name="requests_per_day" type="text" value="10"' in page
    answer = await operator.post(
        f"{BASE}/{key_id}", {"name": "After", "expires_in_days": "", "requests_total": "4", "models": "a\nb"}
    )
    assert answer.headers["location"] == f"{BASE}/{key_id}?done=changed"
    assert "The change is saved." in (await operator.get(answer.headers["location"])).text
    key = page_house.runtime.keys.require(key_id)
    assert (key.name, key.expires_at, key.scope.models) == ("After", end, ("a", "b"))
    assert key.limits == KeyLimits(requests_per_minute=None, requests_at_once=None, requests_total=4)
    await operator.post(f"{BASE}/{key_id}", {"name": "After", "never": "yes", "expires_in_days": "3"})
    assert page_house.runtime.keys.require(key_id).expires_at is None


async def test_the_same_form_sent_back_changes_nothing(page_house: House, operator: Person) -> None:
    scope = KeyScope(models=("gpt-*", "o4"), groups=("family",), accounts=("one, two",))
    _, key_id = await issue(page_house, "Same", note="two\nlines", scope=scope)
    before = page_house.runtime.keys.require(key_id)
    page = (await operator.get(f"{BASE}/{key_id}")).text
    boxes = dict(re.findall(r'<input id="(\w+)" name="\w+" type="text" value="([^"]*)"', page))
    boxes |= dict(re.findall(r'<textarea id="(\w+)"[^>]*>\n(.*?)</textarea>', page, re.DOTALL))
    await operator.post(f"{BASE}/{key_id}", boxes)
    after = page_house.runtime.keys.require(key_id)
    assert after.revision > before.revision
    assert (after.name, after.note, after.scope, after.limits, after.expires_at) == (
        before.name, before.note, before.scope, before.limits, before.expires_at
    )  # fmt: skip


async def test_a_replaced_key_works_beside_the_new_one_for_as_long_as_was_said(
    page_house: House, operator: Person
) -> None:
    old, key_id = await issue(page_house, "Rotated")
    sent = await operator.post(f"{BASE}/{key_id}/rotate", {"overlap_hours": "1"})
    answer = await operator.get(sent.headers["location"])
    new = secret_in(answer)
    keys = page_house.runtime.keys
    assert new != old
    assert [keys.find(secret) is not None for secret in (old, new)] == [True, True]
    assert "The old key still works for" in answer.text
    asked = await operator.post(f"{BASE}/{key_id}/rotate", {"overlap_hours": "0"})
    assert "Are you sure?" in asked.text
    assert keys.find(new) is not None
    sent = await operator.post(f"{BASE}/{key_id}/rotate", {"overlap_hours": "0", "sure": "yes"})
    newest = secret_in(await operator.get(sent.headers["location"]))
    assert [keys.find(secret) is not None for secret in (old, new, newest)] == [False, False, True]
    assert (await operator.post(f"{BASE}/{key_id}/rotate", {"overlap_hours": "soon"})).status_code == 400


async def test_S13_revoking_asks_first_and_then_holds(page_house: House, operator: Person) -> None:
    secret, key_id = await issue(page_house, "Leaving")
    asked = await operator.post(f"{BASE}/{key_id}/revoke")
    assert "Revoke the key Leaving for ever?" in asked.text
    assert page_house.runtime.keys.find(secret) is not None
    answer = await operator.post(f"{BASE}/{key_id}/revoke", {"sure": "yes"})
    assert page_house.runtime.keys.find(secret) is None
    page = (await operator.get(answer.headers["location"])).text
    assert "The key is revoked." in page
    assert f'action="{BASE}/{key_id}/rotate"' not in page


async def test_the_switch_asks_stops_all_keys_and_lets_them_work_again(page_house: House, operator: Person) -> None:
    secret, _ = await issue(page_house, "Stopped")
    keys = page_house.runtime.keys
    assert "Are you sure?" in (await operator.post(f"{BASE}/stop", {"stopped": "yes"})).text
    assert keys.find(secret) is not None
    answer = await operator.post(f"{BASE}/stop", {"stopped": "yes", "sure": "yes"})
    assert keys.find(secret) is None
    assert "All issued keys are stopped." in (await operator.get(answer.headers["location"])).text
    await operator.post(f"{BASE}/stop", {"stopped": "no"})
    assert keys.find(secret) is not None


async def test_the_list_tells_use_state_and_last_minute_and_can_be_searched_and_sorted(
    page_house: House, operator: Person
) -> None:
    now = page_house.runtime.clock.now()
    _, busy = await issue(page_house, "Zebra busy", note="stripes")
    await issue(page_house, "Zebra idle", expires_at=now - 1)
    rows = [
        UsageRow(day_of(now), busy, "a", "m", requests=1234, prompt_tokens=5),
        UsageRow(day_of(now - 86400), busy, "a", "m", requests=1000),
    ]
    await page_house.runtime.records.usage.add(rows, {busy: now})
    page = (await operator.get(f"{BASE}?search=zebra&sort=today")).text
    assert page.index("Zebra busy") < page.index("Zebra idle")
    row = row_of(page, "Zebra busy")
    for told in (
        "1\u202f234",
        "2\u202f234",
        f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC",
        "60 requests/min",
        "never",
        "stripes",
        "active",
    ):
        assert told in row
    assert "expired" in row_of(page, "Zebra idle")
    page = (await operator.get(f"{BASE}?search=zebra&sort=today&order=asc")).text
    assert page.index("Zebra busy") > page.index("Zebra idle")
    page = (await operator.get(f"{BASE}?search=zebra&state=active")).text
    assert "Zebra idle" not in page
    assert "No key is like that." in (await operator.get(f"{BASE}?search=nobody-has-this")).text


@pytest.mark.parametrize("sort", ["name", "created", "expires", "today", "total", "last"])
async def test_every_order_gives_every_page(page_house: House, operator: Person, sort: str) -> None:
    for number in range(max(0, 60 - len(page_house.runtime.keys.all()))):
        await issue(page_house, f"Many {number:03}")
    total = len(page_house.runtime.keys.all())
    met: list[str] = []
    for page in (1, 2, 3):
        if (page - 1) * 50 < total:
            answer = await operator.get(f"{BASE}?sort={sort}&page={page}")
            met += re.findall(r'href="/issued-keys/([\w-]+)">', answer.text.partition("<tbody>")[2])
    assert sorted(met) == sorted(key.id for key in page_house.runtime.keys.all())


async def test_S21_the_pages_are_for_the_operator_alone(page_house: House, operator: Person) -> None:
    secret, key_id = await issue(page_house, "Person")
    paths = (BASE, f"{BASE}/new", f"{BASE}/{key_id}")
    async with Person(page_house.base) as nobody:
        for path in paths:
            assert (await nobody.get(path)).headers["location"].startswith("/login?next=")
        assert (await nobody.post(f"{BASE}/{key_id}/revoke", {"sure": "yes"})).status_code == 401
        await nobody.sign_in(secret)
        for path in paths:
            assert (await nobody.get(path)).status_code == 403
        await nobody.get("/usage")
        assert (await nobody.post(f"{BASE}/{key_id}/revoke", {"sure": "yes"})).status_code == 403
    assert (await operator.http.get(BASE, headers=OPERATOR)).status_code == 200
    assert page_house.runtime.keys.find(secret) is not None


async def test_S22_nothing_is_done_for_a_form_of_another_page(page_house: House, operator: Person) -> None:
    secret, key_id = await issue(page_house, "Safe")
    for path, fields in (
        (f"{BASE}/{key_id}/revoke", {"sure": "yes"}),
        (f"{BASE}/stop", {"stopped": "yes", "sure": "yes"}),
    ):
        assert (await operator.post(path, fields, origin="http://evil.example")).status_code == 403
        assert (await operator.post(path, fields | {"csrf": "0" * 64})).status_code == 403
    assert page_house.runtime.keys.find(secret) is not None


async def test_S24_what_is_written_is_shown_as_it_is(page_house: House, operator: Person) -> None:
    hostile = "</textarea><script>alert(1)</script>"
    _, key_id = await issue(page_house, hostile, note=hostile, scope=KeyScope(groups=(hostile,)))
    for path in (f"{BASE}?search=textarea", f"{BASE}/{key_id}"):
        page = (await operator.get(path)).text
        assert not re.search(r"<script(?! src)", page)
    asked = (await operator.post(f"{BASE}/{key_id}/revoke")).text
    assert not re.search(r"<script(?! src)", asked)


async def test_an_unknown_key_is_a_page_that_says_so(operator: Person) -> None:
    answer = await operator.get(f"{BASE}/key_nobody")
    assert answer.status_code == 404
    assert "Not here" in answer.text
