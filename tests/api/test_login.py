"""The box, and the way out."""

import httpx
import pytest

from chat2api.api.login import safe_next
from chat2api.keys.operator import OperatorKeys
from chat2api.keys.password import Password
from tests.api.pages_house import PASSWORD, FakeKeys, Person, SettingsChange
from tests.e2e.harness import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOME = "/tokens"
"""Where an operator begins: the first page of the navigation that there is."""

ESCAPES = [
    "", "x", "tokens", "http://evil.test", "https://evil.test/", "//evil.test", "///evil.test", "/\\evil.test", "\\\\evil.test",
    "\\/evil.test", "/\t/evil.test", "/\n/evil.test", "/\r\n/evil.test", " //evil.test", " /tokens", "\t//evil.test",
    "/ /evil.test", "javascript:alert(1)", "data:text/html,x", "/\x00/evil.test", "/\x7f/evil.test", "/\u2028/evil.test",
    "/\uff0f/evil.test", "\uff0f\uff0fevil.test", "/\u3000/evil.test", "//evil.test/%2f..", "/\\/evil.test", "/tokens\\..\\..",
    "https:/evil.test", "https:evil.test", "http:/\\evil.test", "//@evil.test", "///", "//", "/\\", "\\", "?next=//evil.test",
    "#//evil.test", ".//evil.test", "../evil.test", "/x\r\nSet-Cookie: a=b", "/x\nLocation: //evil.test", "//[::1]/", "//127.1",
    "//evil.test\\@localhost", "/\u00a0/evil.test", "//\tevil.test", "/" * 50, "/\\\\evil.test", "/x y", "mailto:a@evil.test",
    "ftp://evil.test", "ws://evil.test", "//evil%2etest", "///evil.test//", "/\u202e/evil.test", "/" + "x" * 2048,
    "\ud800", "/\udcff", "/é",
]  # fmt: skip


@pytest.mark.parametrize("wanted", ESCAPES)
async def test_S27_the_way_on_never_leaves_this_server(wanted: str) -> None:
    assert safe_next(wanted, "/home") == "/home"


@pytest.mark.parametrize("wanted", ["/", "/tokens", "/tokens?state=ok&x=%2F%2Fevil.test", "/x/usage#chart", "/a//b"])
async def test_S27_paths_of_ours_are_kept(wanted: str) -> None:
    assert safe_next(wanted, "/home") == wanted
    assert safe_next(None, "/home") == "/home"


async def test_S27_the_server_sends_nobody_away(person: Person) -> None:
    for wanted in ("//evil.test", "/\\evil.test", "https://evil.test/"):
        person.cookies.clear()
        page = await person.get("/login?next=" + httpx.QueryParams({"n": wanted})["n"])
        assert '<input type="hidden" name="next" value="">' in page.text
        answer = await person.sign_in(next=wanted)
        assert answer.headers["location"] == HOME
        again = await person.get(f"/login?next={wanted}")
        assert (again.status_code, again.headers["location"]) == (303, HOME)


async def test_an_operator_key_leads_to_the_accounts_and_a_persons_key_to_their_usage(person: Person) -> None:
    assert (await person.sign_in()).headers["location"] == HOME
    assert (await person.sign_in(FakeKeys.SECRET)).headers["location"] == "/usage"
    assert (await person.sign_in(next="/probe/page?x=1")).headers["location"] == "/probe/page?x=1"


@pytest.mark.parametrize("secret", ["", " ", "wrong-key-0815", "sk-c2a-unknown", "x" * 5000, "\u202e", "' OR 1=1 --"])
async def test_a_wrong_key_gives_no_cookie_and_is_never_shown_again(person: Person, secret: str) -> None:
    answer = await person.sign_in(secret)
    assert answer.status_code == 401
    assert not person.cookies
    assert 'role="alert"' in answer.text
    if len(secret) > 3:
        assert secret not in answer.text


async def test_blanks_around_a_pasted_key_do_not_matter(person: Person) -> None:
    assert (await person.sign_in(f"  {FakeKeys.SECRET}\t")).status_code == 303


async def test_S14_ten_wrong_keys_and_the_box_says_how_long_to_wait(page_house: House, person: Person) -> None:
    statuses = [(await person.sign_in(f"wrong-{number}")).status_code for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = await person.sign_in()
    assert refused.status_code == 429
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert not person.cookies


async def test_S12_S14_a_burst_at_the_password_compares_ten(
    page_house: House, person: Person, settings: SettingsChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    class Counted(Password):
        async def matches(self, presented: str) -> bool:
            compared.append(presented)
            return await super().matches(presented)

    settings(admin_password=PASSWORD)
    page_house.runtime.password = Counted(PASSWORD, page_house.runtime.digests)
    statuses = [(await person.sign_in(f"wrong {number}")).status_code for number in range(200)]
    assert len(compared) == 10
    assert statuses == [401] * 10 + [429] * 190


async def test_a_forged_form_of_another_site_signs_nobody_in(person: Person) -> None:
    for origin in (None, "null", "http://evil.example.test"):
        answer = await person.post("/login", {"key": FakeKeys.SECRET}, origin=origin)
        assert answer.status_code == 403
        assert not person.cookies


async def test_signing_out_ends_the_sign_in_everywhere(page_house: House, person: Person) -> None:
    await person.sign_in()
    cookie = person.cookies["chat2api"]
    refused = await person.post("/logout", {"csrf": "wrong"})
    assert refused.status_code == 403
    answer = await person.post("/logout", {"csrf": person.token()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert not person.cookies
    person.cookies["chat2api"] = cookie
    assert (await person.get("/probe/page")).status_code == 303
    assert (await person.post("/logout", {"csrf": "x"})).status_code == 401


async def test_S1_without_a_key_nobody_is_let_in_and_the_box_says_why(page_house: House, person: Person) -> None:
    before = page_house.runtime.operator_keys
    page_house.runtime.operator_keys = OperatorKeys((), shut="The operator key cannot be written: DATA_DIR.")
    try:
        answer = await person.sign_in("anything")
        assert answer.status_code == 503
        assert "DATA_DIR" in answer.text
        assert (await person.get("/probe/page")).status_code == 503
    finally:
        page_house.runtime.operator_keys = before
