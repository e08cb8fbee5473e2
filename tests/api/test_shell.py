"""The shell of all pages: languages, appearance, navigation, errors for people, and headers."""

import pytest

from chat2api.api.shell import spell_date, spell_duration
from chat2api.api.texts import load_catalogues
from chat2api.keys.digests import secret_digest
from chat2api.keys.guesses import ALARM_GUESSES
from tests.api.pages_house import OPERATOR, FakeKeys, Person, SettingsChange
from tests.e2e.harness import House
from tests.test_templates import TEMPLATES

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


async def test_S24_every_answer_for_people_carries_the_same_headers(person: Person) -> None:
    answers = [
        await person.get(path) for path in ("/", "/openapi.json", "/login", "/usage", "/probe/page", "/probe/admin")
    ]
    answers += [await person.sign_in("wrong"), await person.sign_in(), await person.get("/probe/page")]
    answers += [await person.post("/probe/admin", {"csrf": "x"}), await person.post("/preferences", {"theme": "dark"})]
    assert {answer.status_code for answer in answers} >= {200, 303, 401, 403}
    for answer in answers:
        headers = answer.headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "strict-transport-security" not in headers, "not over plain HTTP"


async def test_the_page_speaks_the_languages_that_its_reader_does(person: Person) -> None:
    for accepted, tag, words in (("en", "en", "Sign in"), ("zh-CN,zh;q=0.9", "zh-CN", "登录"), ("fr", "en", "Sign in")):
        page = await person.get("/login", **{"Accept-Language": accepted})
        assert f'<html lang="{tag}"' in page.text
        assert words in page.text


async def test_language_and_appearance_are_kept_and_the_page_is_shown_again(person: Person) -> None:
    answer = await person.post("/preferences", {"language": "zh-CN", "next": "/login?next=/usage"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/usage")
    await person.post("/preferences", {"theme": "dark"})
    page = (await person.get("/login")).text
    assert '<html lang="zh-CN" data-theme="dark">' in page
    for header in answer.headers.get_list("set-cookie"):
        assert "HttpOnly" in header
        assert "SameSite=Lax" in header


@pytest.mark.parametrize(
    "fields",
    [{"language": "xx"}, {"theme": "<script>"}, {"language": "../en"}, {"theme": "dark\r\nX: y"}, {}, {"other": "x"}],
)
async def test_no_other_choice_is_kept_and_no_other_site_is_led_to(person: Person, fields: dict[str, str]) -> None:
    answer = await person.post("/preferences", {**fields, "next": "//evil.example.test"})
    assert "set-cookie" not in answer.headers
    assert answer.headers["location"] == "/"
    assert (await person.post("/preferences", {"theme": "dark"}, origin="http://evil.example.test")).status_code == 403


async def test_a_cookie_with_nonsense_changes_nothing(person: Person) -> None:
    person.cookies = {"chat2api-theme": '"><script>', "chat2api-language": "../../x"}
    assert '<html lang="en" data-theme="auto">' in (await person.get("/login")).text


async def test_people_see_a_page_for_an_error_and_programs_json(person: Person) -> None:
    page = await person.get("/usage")
    assert page.status_code == 401
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="/login?next=/usage"' in page.text
    for accept in ("application/json", "*/*", ""):
        answer = await person.http.get("/usage", headers={"Accept": accept})
        assert answer.json()["error"]["code"] == "invalid_api_key"
    chinese = await person.get("/usage", **{"Accept-Language": "zh"})
    assert "请先登录" in chinese.text
    admin = await person.get("/probe/admin")
    assert admin.json()["error"]["code"] == "invalid_api_key", "routes of programs answer programs"


async def test_an_error_page_says_what_to_do_in_the_readers_words(person: Person) -> None:
    await person.sign_in(FakeKeys.SECRET)
    page = await person.get("/probe/page")
    assert page.status_code == 403
    assert "for the operator of this server" in page.text
    page = await person.post("/logout", {"csrf": "old"})
    assert "Reload it and try again" in page.text


async def test_the_navigation_shows_what_one_may_open(person: Person) -> None:
    assert 'href="/usage"' not in (await person.get("/login")).text
    await person.sign_in(FakeKeys.SECRET)
    page = (await person.get("/")).text
    assert '<a href="/usage">' in page
    assert 'href="/tokens"' not in page
    assert "Sign out" in page


async def test_S14_the_alarm_is_shown_to_the_operator_alone(page_house: House, person: Person) -> None:
    await person.sign_in()
    for number in range(ALARM_GUESSES):
        page_house.runtime.guesses.failed(f"192.0.2.{number}", secret_digest(f"wrong {number}"))
    assert "by the hundred" in (await person.get("/")).text
    async with Person(page_house.base) as other:
        assert "by the hundred" not in (await other.get("/")).text


async def test_S23_who_comes_by_an_address_that_no_setting_names_is_told_what_to_do_with_ours(
    page_house: House, settings: SettingsChange
) -> None:
    hint = "in place of localhost"
    async with Person(page_house.base, host="192.0.2.7:5005") as person:
        page = (await person.get("/")).text
        assert hint in page
        assert "192.0.2.7" not in page
        settings(public_origins=("http://192.0.2.7:5005",))
        assert hint not in (await person.get("/")).text
        settings(public_origins=())
    async with Person(page_house.base) as person:
        assert hint not in (await person.get("/")).text


async def test_S21_who_signed_in_over_plain_http_is_warned(page_house: House, settings: SettingsChange) -> None:
    settings(allow_http=True)
    async with Person(page_house.base, "192.0.2.7:5005") as person:
        await person.sign_in()
        assert "plain HTTP" in (await person.get("/")).text
    async with Person(page_house.base) as person:
        await person.sign_in()
        assert "plain HTTP" not in (await person.get("/")).text


async def test_a_bearer_sees_pages_without_a_form_to_sign_out(person: Person) -> None:
    page = await person.get("/usage", **OPERATOR)
    assert page.status_code == 200
    assert "/logout" not in page.text


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0, "0 s", "0 秒"),
        (0.2, "1 s", "1 秒"),
        (59.5, "1 min", "1 分"),
        (61, "1 min 1 s", "1 分 1 秒"),
        (3600, "1 h", "1 小时"),
        (3661, "1 h 1 min", "1 小时 1 分"),
        (90061, "1 d 1 h", "1 天 1 小时"),
        (86401, "1 d", "1 天"),
        (-5, "0 s", "0 秒"),
    ],
)
async def test_durations_are_spelled_in_two_units(seconds: float, english: str, chinese: str) -> None:
    texts = load_catalogues(TEMPLATES / "texts")
    assert spell_duration(texts["en"], seconds) == english
    assert spell_duration(texts["zh-CN"], seconds) == chinese


async def test_dates_are_those_of_utc() -> None:
    assert spell_date(1_700_000_000) == "2023-11-14"
    assert spell_date(1_700_000_000, with_time=True) == "2023-11-14 22:13 UTC"
