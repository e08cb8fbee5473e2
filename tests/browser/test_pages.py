"""The pages as people meet them: in a real browser, on a phone, in the dark, in Chinese, without script, under attack."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visits, add_person
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATHS = ("/", "/login", "/usage")


async def test_an_operator_signs_in_and_out(visits: Visits) -> None:
    page = await visits.open("/usage")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Please sign in")
    await page.get_by_role("link", name="Sign in").last.click()
    await page.get_by_label("Key", exact=True).fill(OPERATOR_KEY)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(re.compile("/usage$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Usage of this server")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(re.compile("/login$"))
    await page.goto("/usage")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Please sign in")


async def test_S21_scripts_of_a_page_cannot_read_the_sign_in(visits: Visits) -> None:
    page = await visits.open("/login")
    await visits.sign_in(page, OPERATOR_KEY)
    assert "chat2api" not in await page.evaluate("document.cookie")
    (cookie,) = [one for one in await page.context.cookies() if one.get("name") == "chat2api"]
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")


async def test_a_wrong_key_is_told_at_the_box_and_the_next_try_works(house: House, visits: Visits) -> None:
    secret = await add_person(house, "Second try")
    page = await visits.open("/login")
    await visits.sign_in(page, "wrong")
    await expect(page.get_by_role("alert")).to_have_text("This key or password is not known here.")
    await expect(page.locator("#key")).to_be_focused()
    await expect(page.locator("#key")).to_have_attribute("aria-invalid", "true")
    await page.fill("#key", secret)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your usage")
    await expect(page.get_by_text("Second try")).to_be_visible()


async def test_after_ten_wrong_keys_the_seconds_run_down(visits: Visits) -> None:
    page = await visits.open("/login")
    for number in range(11):
        await visits.sign_in(page, f"wrong {number}")
    await expect(page.get_by_role("alert")).to_contain_text("Too many wrong keys")
    await expect(page.locator(".countdown")).to_have_text(re.compile(r"^(59|58|57) s$"))


async def test_a_key_can_be_looked_at_before_it_is_sent(visits: Visits) -> None:
    page = await visits.open("/login")
    await page.fill("#key", "something")
    await page.get_by_role("button", name="Show").click()
    await expect(page.locator("#key")).to_have_attribute("type", "text")
    await page.get_by_role("button", name="Hide").click()
    await expect(page.locator("#key")).to_have_attribute("type", "password")


async def test_both_languages_by_the_browsers_wish_and_by_choice(visits: Visits) -> None:
    page = await visits.open("/login", language="zh-CN")
    await expect(page.get_by_role("heading", level=1)).to_have_text("登录")
    await page.get_by_role("button", name="English").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert await page.locator("html").get_attribute("lang") == "en"
    await page.goto("/")
    await expect(page.get_by_role("button", name="English")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="简体中文").click()
    await expect(page.get_by_role("heading", level=2).first).to_have_text("连接客户端")


async def colour(page: Page, of: str = "background-color") -> str:
    return str(await page.evaluate(f"getComputedStyle(document.body).getPropertyValue('{of}')"))


async def test_the_dark_is_the_systems_or_what_one_chose(visits: Visits) -> None:
    light, dark = await visits.open("/"), await visits.open("/", dark=True)
    bright, gloomy = await colour(light), await colour(dark)
    assert bright != gloomy
    await light.get_by_role("button", name="Dark").click()
    await expect(light.locator("html")).to_have_attribute("data-theme", "dark")
    assert await colour(light) == gloomy
    await dark.get_by_role("button", name="Light").click()
    await expect(dark.locator("html")).to_have_attribute("data-theme", "light")
    assert await colour(dark) == bright


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
async def test_nothing_has_to_be_scrolled_sideways(house: House, visits: Visits, width: int, language: str) -> None:
    secret = await add_person(house, "A name that is rather long " + "and-has-no-place-to-break" * 3)
    page = await visits.open("/login", width=width, height=700, language=language)
    for path in PATHS:
        if path == "/usage":
            await visits.sign_in(page, secret)
        await page.goto(path)
        inner, wide = await page.evaluate("[window.innerWidth, document.documentElement.scrollWidth]")
        assert wide <= inner, path


async def test_everything_can_be_reached_and_seen_with_the_keyboard(visits: Visits) -> None:
    page = await visits.open("/")
    met = []
    for _ in range(22):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " if (e === document.body) return null;"
            " return [e.textContent.trim() || e.name, s.outlineStyle, parseFloat(s.outlineWidth)]; })()"
        )
        if focused is None:
            break  # through the page and out of it
        met.append(focused)
    names = [name for name, _, _ in met]
    assert names[0] == "Skip to the content"
    for wanted in ("chat2api", "Sign in", "Copy", "openapi.json", "English", "简体中文", "Dark"):
        assert wanted in names
    assert [name for name, style, width in met if style != "solid" or width < 2] == []


async def test_everything_has_a_name_for_those_who_listen(house: House, visits: Visits) -> None:
    page = await visits.open("/login")
    await visits.sign_in(page, await add_person(house, "Listener"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your usage")
    nameless = await page.evaluate(
        """[...document.querySelectorAll("a, button, input:not([type=hidden]), meter, svg, nav, [role=region], section")]
           .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length
             || (e.getAttribute("aria-labelledby") && document.getElementById(e.getAttribute("aria-labelledby")))))
           .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    ids = await page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    pointed = await page.evaluate(
        """[...document.querySelectorAll("[aria-labelledby], [aria-describedby]")]
           .flatMap((e) => `${e.getAttribute("aria-labelledby") ?? ""} ${e.getAttribute("aria-describedby") ?? ""}`
             .trim().split(/ +/))"""
    )
    assert set(pointed) <= set(ids)


async def test_without_script_one_signs_in_looks_and_signs_out(house: House, visits: Visits) -> None:
    page = await visits.open("/login", script=False)
    await page.fill("#key", await add_person(house, "Plain"))
    await page.click("main button.primary")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your usage")
    assert await page.get_by_role("button", name="Copy").count() == 0
    await page.get_by_role("button", name="Dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(re.compile("/login$"))


PAYLOADS = (
    (Path(__file__).parent.parent / "data" / "markup.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
)
"""Markup that runs X where it is not escaped."""


async def test_S24_no_markup_in_a_name_a_model_or_a_key_is_ever_run(house: House, visits: Visits) -> None:
    assert len(PAYLOADS) >= 60
    armed = [payload.replace("X", "window.hit=1") for payload in PAYLOADS]
    page = await visits.open("/login")
    for start in range(0, len(armed), 8):
        names = armed[start : start + 8]
        secret = await add_person(house, " ".join(names)[:100], tuple(names))
        await visits.sign_in(page, secret)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your usage")
        text = await page.locator("main").inner_text()
        assert re.sub(r"\s", "", names[0])[:30] in re.sub(r"\s", "", text), "shown as it is"
        assert await page.evaluate("window.hit") is None
        await page.get_by_role("button", name="Sign out").click()
    await visits.sign_in(page, OPERATOR_KEY)
    await page.goto("/usage")
    assert await page.evaluate("window.hit") is None
    assert await page.locator("main script, main img, main iframe, main object, main embed, main form").count() == 0


async def test_S24_no_markup_in_an_address_or_a_wrong_key_is_ever_run(house: House, visits: Visits) -> None:
    from chat2api.keys.guesses import Guesses

    page = await visits.open("/login")
    for start in range(0, len(PAYLOADS), 4):
        armed = " ".join(PAYLOADS[start : start + 4]).replace("X", "window.hit=1")
        house.runtime.guesses = Guesses(house.runtime.clock)
        await page.goto("/login?next=/" + "".join(f"%{byte:02x}" for byte in armed.encode()))
        await page.fill("#key", armed)
        await page.click("main button.primary")
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await page.evaluate("window.hit") is None, armed
        assert await page.locator("script").count() == 1


async def test_S24_script_that_got_onto_a_page_would_not_run(visits: Visits) -> None:
    page = await visits.open("/")
    await page.evaluate(
        """() => {
          const s = document.createElement("script"); s.textContent = "window.hit = 1"; document.body.append(s);
          const d = document.createElement("div"); d.innerHTML = "<img src=x onerror='window.hit = 1'>"; document.body.append(d);
        }"""
    )
    await page.wait_for_function("document.querySelector('main') !== null")
    assert await page.evaluate("window.hit") is None
    assert any("Content Security Policy" in problem for problem in visits.problems)
    visits.problems.clear()
