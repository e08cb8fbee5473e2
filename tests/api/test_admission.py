"""Who may stand before pages and admin routes: every class, every credential, every way to come."""

import pytest

from chat2api.keys.password import Password, SlowDigests
from tests.api.pages_house import CLASSES, OPERATOR, PASSWORD, FakeKeys, Person, SettingsChange
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_ACCOUNT = 503
"""What an API call gets here that passed: the server has no account."""

NOBODY: dict[str, str] = {}
ISSUED = {"Authorization": f"Bearer {FakeKeys.SECRET}"}
WRONG = {"Authorization": "Bearer wrong-key-of-nobody"}


@pytest.mark.parametrize(
    ("access", "nobody", "issued", "operator", "wrong"),
    [
        ("page", 303, 403, 200, 401),
        ("person", 401, 200, 200, 401),
        ("admin", 401, 403, 200, 401),
        ("signed_in", 401, 401, 401, 401),
    ],
)
async def test_M1_each_class_takes_the_bearers_of_the_table(
    person: Person, access: str, nobody: int, issued: int, operator: int, wrong: int
) -> None:
    for headers, status in ((NOBODY, nobody), (ISSUED, issued), (OPERATOR, operator), (WRONG, wrong)):
        answer = await person.http.get(f"/probe/{access}", headers=headers)
        assert answer.status_code == status, headers
        unsafe = await person.http.post(f"/probe/{access}", headers=headers)
        assert unsafe.status_code == (401 if status == 303 else status), headers


@pytest.mark.parametrize(
    ("secret", "statuses"),
    [
        (OPERATOR_KEY, {"page": 200, "person": 200, "admin": 200, "signed_in": 200}),
        (FakeKeys.SECRET, {"page": 403, "person": 200, "admin": 403, "signed_in": 200}),
    ],
)
async def test_M1_each_class_takes_the_cookies_of_the_table(
    person: Person, secret: str, statuses: dict[str, int]
) -> None:
    await person.sign_in(secret)
    assert person.cookies
    for access, status in statuses.items():
        assert (await person.get(f"/probe/{access}")).status_code == status
        token = person.token()
        assert (await person.post(f"/probe/{access}", {"csrf": token})).status_code == status
        assert (await person.post(f"/probe/{access}", {"csrf": "x"})).status_code == 403


async def test_a_bad_cookie_is_not_helped_by_a_good_bearer(person: Person) -> None:
    person.cookies["chat2api"] = "0" * 64
    answer = await person.get("/probe/admin", **OPERATOR)
    assert answer.status_code == 401


HOSTS = [
    "evil.example.test", "evil.example.test:5005", "127.0.0.1.evil.example.test", "localhost.evil.example.test",
    "chatgpt.com", "intranet-name", "127.0.0.1x", "0x7f.1.evil.test", "127.1", "localhostx",
]  # fmt: skip


@pytest.mark.parametrize("access", CLASSES)
@pytest.mark.parametrize("host", HOSTS)
async def test_S23_pages_and_admin_routes_answer_for_our_names_only(person: Person, access: str, host: str) -> None:
    for headers in (NOBODY, OPERATOR):
        answer = await person.http.get(f"/probe/{access}", headers={"Host": host, **headers})
        assert answer.status_code == 421
        assert "PUBLIC_ORIGINS" in answer.text
        assert host not in answer.text + str(answer.headers)


async def test_S23_so_does_the_sign_in(person: Person) -> None:
    person.host = "evil.example.test"
    person.origin = "http://evil.example.test"
    assert (await person.get("/login")).status_code == 421
    assert (await person.sign_in()).status_code == 421
    assert not person.cookies


async def test_with_a_password_operator_keys_are_for_api_calls_only(
    page_house: House, person: Person, settings: SettingsChange
) -> None:
    await person.sign_in()
    assert (await person.get("/probe/page")).status_code == 200
    settings(admin_password=PASSWORD)
    page_house.runtime.password = Password(PASSWORD, SlowDigests(cost=2**4))
    assert (await person.get("/probe/page")).status_code == 303, "the sign-in by key has ended"
    refused = await person.http.get("/probe/admin", headers=OPERATOR)
    assert (refused.status_code, "ADMIN_PASSWORD" in refused.text) == (403, True)
    assert (await person.http.get("/v1/models", headers=OPERATOR)).status_code == NO_ACCOUNT
    by_password = {"Authorization": f"Bearer {PASSWORD}"}
    assert (await person.http.get("/probe/admin", headers=by_password)).json() == {
        "role": "operator",
        "who": "password",
    }
    assert (await person.http.get("/v1/models", headers=by_password)).status_code == 401
    assert (await person.sign_in()).status_code == 401
    assert (await person.sign_in(PASSWORD)).status_code == 303
    assert (await person.get("/probe/page")).status_code == 200
    settings(admin_password=PASSWORD + "!")
    assert (await person.get("/probe/page")).status_code == 303, "the sign-in by the old password has ended"


async def test_S14_wrong_bearers_are_limited_on_every_class_together_and_the_right_one_goes_on(
    page_house: House, person: Person
) -> None:
    assert (await person.http.get("/v1/models", headers=OPERATOR)).status_code == NO_ACCOUNT
    paths = ["/v1/models", "/probe/admin", "/probe/person", "/probe/page"]
    statuses = [
        (await person.http.get(path, headers={"Authorization": f"Bearer wrong-{number}"})).status_code
        for number, path in enumerate(paths * 4)
    ]
    assert statuses == [401] * 10 + [429] * 6
    refused = await person.http.get("/v1/models", headers={"Authorization": "Bearer wrong-99"})
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    for path, status in (("/v1/models", NO_ACCOUNT), ("/probe/admin", 200)):
        assert (await person.http.get(path, headers=OPERATOR)).status_code == status, "known to be right from here"


async def test_S14_forged_forwarding_headers_give_no_further_guesses(person: Person) -> None:
    compared = 0
    for number in range(300):
        headers = {"Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": f"198.51.100.{number % 256}"}
        compared += (await person.http.get("/v1/models", headers=headers)).status_code == 401
    assert compared == 10


async def test_S14_others_behind_a_trusted_proxy_are_not_touched(
    page_house: House, person: Person, settings: SettingsChange
) -> None:
    settings(trusted_proxies=("127.0.0.0/8",))
    for number in range(12):
        headers = {"Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": "198.51.100.1"}
        await person.http.get("/v1/models", headers=headers)
    theirs = await person.http.get("/v1/models", headers=OPERATOR | {"X-Forwarded-For": "198.51.100.1"})
    ours = await person.http.get("/v1/models", headers=OPERATOR | {"X-Forwarded-For": "198.51.100.2"})
    assert (theirs.status_code, ours.status_code) == (429, NO_ACCOUNT)


async def test_S13_a_sign_in_ends_with_its_key(page_house: House, person: Person, keys: FakeKeys) -> None:
    await person.sign_in(FakeKeys.SECRET)
    assert (await person.get("/probe/person")).status_code == 200
    keys.key.reason = "revoked"
    assert (await person.get("/probe/person")).status_code == 401
    keys.key.reason = None
    assert (await person.get("/probe/person")).status_code == 401, "ended for good"


async def test_what_nobody_may_see_leads_to_the_sign_in_and_back(page_house: House, person: Person) -> None:
    answer = await person.get("/probe/page?state=ok&x=%2F%2Fevil.test")
    assert answer.headers["location"] == "/login?next=/probe/page%3Fstate%3Dok%26x%3D%252F%252Fevil.test"
    page = await person.get(answer.headers["location"])
    assert 'value="/probe/page?state=ok&amp;x=%2F%2Fevil.test"' in page.text


async def test_M2_the_journal_names_who_did_it_and_holds_no_secret(page_house: House, person: Person) -> None:
    await person.sign_in()
    await person.get("/login")
    latest = (await page_house.runtime.records.actions.latest(1))[0]
    assert latest.what == "sign in"
    assert latest.who.startswith("operator key ")
    assert OPERATOR_KEY not in repr(latest)
    assert person.cookies["chat2api"] not in repr(latest)
