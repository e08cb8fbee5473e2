"""Every page after a month of use: what everybody needs of it, in both languages, wide and narrow, with script and without.

It also takes the pictures that the documents show. They lie in output/pictures after a run; CHAT2API_PICTURES names
another folder for them.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from chat2api.api.shell import NAVIGATION
from chat2api.gateway.account_care import SAY
from chat2api.gateway.jobs import Job, JobItem
from tests.accounts.jwt import access_token
from tests.browser.conftest import Visits
from tests.browser.furnish import NAMES, NOON, NOTE, USERS, open_furnished
from tests.e2e.harness import OPERATOR_KEY, House

pytestmark = pytest.mark.asyncio(loop_scope="package")

PICTURES = Path(os.environ.get("CHAT2API_PICTURES") or Path(__file__).parent.parent.parent / "output" / "pictures")
LARGEST_PICTURE = 150 * 1024
MOST_SHIFT = 0.05
"""How far a page may move while it is built: half of what counts as good."""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def furnished(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_furnished(tmp_path_factory.mktemp("furnished")) as house:
        dead = next(view for view in house.runtime.pool.views() if not view.account.usable)
        for check in ("disk", f"account-{dead.account.label}"):
            await house.runtime.doctor.run(check)
        await asyncio.to_thread(PICTURES.mkdir, parents=True, exist_ok=True)
        yield house


@pytest_asyncio.fixture(loop_scope="package")
async def rooms(browser: Browser, furnished: House) -> AsyncIterator[Visits]:
    from chat2api.keys.guesses import Guesses

    furnished.runtime.guesses = Guesses(furnished.runtime.clock)
    async with AsyncExitStack() as stack:
        visits = Visits(browser, furnished, stack)
        yield visits
        assert visits.problems == []


async def sign_in(visits: Visits, page: Page) -> None:
    await visits.sign_in(page, OPERATOR_KEY)
    await expect(page).not_to_have_url(re.compile("/login"))


def paths(house: House) -> list[str]:
    """Give the address of every page that can be opened by its address."""
    views = house.runtime.pool.views()
    failed = next(view for view in views if view.last_error)
    dead = next(view for view in views if view.state == "needs_sign_in")
    keys = house.runtime.keys.all()
    return [
        *(target for _, target, _ in NAVIGATION),
        *("/", "/free", "/tokens?search=nobody", "/tokens/add", "/tokens/failed", "/tokens/removed"),
        *(f"/tokens/account/{account_id}" for account_id in (failed.account.id, dead.account.id, "nobody")),
        *("/tokens/overview?period=month", "/issued-keys/new", f"/issued-keys/{keys[1].id}"),
        *(f"/local-users/{user.key_id}" for user in house.runtime.users.all()[-2:]),
        *(f"/usage?days=7&key={keys[0].id}", "/usage?days=90"),
    ]


LOOK = """() => {
  const named = (e) => (e.getAttribute("aria-label") ?? "").trim() || (e.textContent ?? "").trim() || e.title
    || [...(e.labels ?? [])].some((label) => label.textContent.trim())
    || (e.getAttribute("aria-labelledby") ?? "").split(/ +/).some((id) => document.getElementById(id)?.textContent.trim());
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (e) => e.checkVisibility();
  const strange = (text) => /[A-Za-z']+(?:,? [A-Za-z']+){3,}/.exec(text)?.[0];
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [];
  const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const place = walk.currentNode.parentElement;
    if (!place.closest("[lang]:not(html), code, pre, textarea, .note")) texts.push(walk.currentNode.data);
  }
  const ids = all("[id]").map((e) => e.id);
  return {
    lang: document.documentElement.lang,
    title: document.title,
    nameless: all("a, button, input:not([type=hidden]), select, textarea, meter, progress, svg[role=img], nav, section, [role]")
      .filter((e) => !named(e) && e.getAttribute("aria-hidden") !== "true" && !e.matches("[aria-live]")).map((e) => e.outerHTML),
    pictures: all("img").filter((e) => !e.hasAttribute("alt")).length + all("svg").filter((e) => !named(e)).length,
    headings: all("h1, h2, h3, h4, h5, h6").filter(shown).map((e) => Number(e.tagName[1])),
    ids: ids.length - new Set(ids).size,
    pointers: all("[aria-labelledby], [aria-describedby], label[for]").flatMap((e) =>
      `${e.getAttribute("aria-labelledby") ?? ""} ${e.getAttribute("aria-describedby") ?? ""} ${e.getAttribute("for") ?? ""}`
        .trim().split(/ +/)).filter((id) => id && !document.getElementById(id)),
    order: all("[tabindex]").filter((e) => e.tabIndex > 0).length,
    wide: document.documentElement.scrollWidth - window.innerWidth,
    small: all("main button, main a.button, main input:not([type=hidden]), main select").filter(shown)
      .filter((e) => Math.min(e.getBoundingClientRect().height, e.getBoundingClientRect().width) < 18).map((e) => e.outerHTML),
    english: texts.map(strange).filter(Boolean),
    faint: all("main *, header *, footer *").filter(shown)
      .filter((e) => [...e.childNodes].some((one) => one.nodeType === 3 && one.data.trim()))
      .filter((e) => !e.closest("svg, .unseen, .skip"))
      .map((e) => [e, contrast(getComputedStyle(e).color, behind(e)), getComputedStyle(e)])
      .filter(([, ratio, style]) => ratio < (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 600 ? 3 : 4.5))
      .map(([e, ratio]) => `${ratio.toFixed(2)} ${e.outerHTML.slice(0, 90)}`),
    squeezed: all("table.stack").filter((e) => e.parentElement.scrollWidth > e.parentElement.clientWidth + 1).length,
    headless: all("table").filter((e) => !e.querySelector("thead th[scope=col]")).length,
  };
}"""
"""What a page is asked about itself."""


async def look_at(page: Page, path: str) -> None:
    """Hold a page to what everybody needs."""
    seen: dict[str, Any] = await page.evaluate(LOOK)
    assert seen["nameless"] == [], path
    assert seen["pictures"] == 0, path
    assert seen["headings"][:1] == [1], path
    assert seen["headings"].count(1) == 1, path
    steps = zip(seen["headings"], seen["headings"][1:], strict=False)
    assert all(later <= earlier + 1 for earlier, later in steps), (path, seen["headings"])
    assert (seen["ids"], seen["pointers"], seen["order"], seen["headless"]) == (0, [], 0, 0), path
    assert seen["wide"] <= 0, path
    assert seen["small"] == [], path
    assert seen["squeezed"] == 0, path
    assert seen["faint"] == [], path
    assert seen["title"], path
    if seen["lang"] != "en":
        assert [
            text for text in seen["english"] if not any(name in text or text in name for name in (NOTE, *NAMES, *USERS))
        ] == [], path


@pytest.mark.parametrize(
    ("language", "width", "dark", "script"),
    [
        ("en-US", 1280, False, True),
        ("zh-CN", 390, True, True),
        ("zh-CN", 1280, True, False),
        ("en-US", 320, False, False),
    ],
)
async def test_everybody_can_use_every_page(
    furnished: House, rooms: Visits, language: str, width: int, dark: bool, script: bool
) -> None:
    page = await rooms.open("/login", width=width, language=language, dark=dark, script=script)
    await look_at(page, "/login")
    await sign_in(rooms, page)
    for path in paths(furnished):
        await page.goto(path)
        assert await page.locator("html").get_attribute("lang") == language.removesuffix("-US")
        await look_at(page, path)


async def test_pages_stand_still_while_they_are_built(furnished: House, rooms: Visits) -> None:
    page = await rooms.open("/login", width=390)
    await page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) window.shift += one.value; })"
        '.observe({ type: "layout-shift", buffered: true });'
    )
    await sign_in(rooms, page)
    for path in paths(furnished):
        await page.goto(path)
        await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        assert await page.evaluate("window.shift") <= MOST_SHIFT, path


async def test_the_keyboard_goes_through_the_list_in_its_order_and_is_seen(rooms: Visits) -> None:
    page = await rooms.open("/login")
    await sign_in(rooms, page)
    await page.goto("/tokens")
    places = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        place, ring = await page.evaluate(
            """() => { const e = document.activeElement; const style = getComputedStyle(e);
            const all = [...document.querySelectorAll("*")];
            return [all.indexOf(e), style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2]; }"""
        )
        places.append(place)
        assert ring, f"what has the focus does not show it: {place}"
    assert places == sorted(set(places))


async def test_how_far_a_job_is_is_read_out(furnished: House, rooms: Visits) -> None:
    more, over = asyncio.Event(), asyncio.Event()

    async def work(job: Job) -> None:
        for gate in (more, over):
            await gate.wait()
            job.add(JobItem("one", True, SAY("enabled")))

    job = furnished.runtime.jobs.start("enable", 2, work)
    page = await rooms.open("/login")
    await sign_in(rooms, page)
    await page.goto(f"/tokens/progress/{job.id}")
    await look_at(page, "/tokens/progress")
    told = page.locator(".progress").get_by_role("status")
    await expect(told).to_have_text("0 / 2")
    more.set()
    await expect(told).to_have_text("1 / 2")
    over.set()
    await expect(page.get_by_role("heading", name="Done")).to_be_visible()
    await look_at(page, "/tokens/progress")


async def test_all_accounts_of_a_page_are_chosen_at_once(furnished: House, rooms: Visits) -> None:
    page = await rooms.open("/login")
    await sign_in(rooms, page)
    await page.goto("/tokens")
    count = len(furnished.runtime.pool.views())
    await page.get_by_label("all on this page").check()
    await expect(page.locator("[data-chosen]")).to_have_text(f"{count} chosen")
    await page.get_by_role("checkbox", name=re.compile("^Choose ")).first.uncheck()
    await expect(page.locator("[data-chosen]")).to_have_text(f"{count - 1} chosen")
    assert await page.get_by_label("all on this page").evaluate("box => box.indeterminate")


# Pictures


async def picture(page: Page, name: str, *, height: int = 760) -> None:
    """Keep what is seen of a page."""
    await page.set_viewport_size({"width": 1120, "height": height})
    image = await page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")
    assert len(image) <= LARGEST_PICTURE, name


TOKENS: Sequence[str] = (
    "# from the family's machine",
    access_token("new-one", expires_at=NOON + 8 * 86400),
    access_token("new-two", expires_at=NOON + 9 * 86400, serial=1),
    "rt_" + "A" * 60,
    access_token("ended", expires_at=NOON - 86400),
    "not a token",
)


async def test_pictures_for_the_documents_are_taken(furnished: House, rooms: Visits) -> None:
    page = await rooms.open("/login")
    await picture(page, "login", height=560)
    await sign_in(rooms, page)
    for path, name, height in (
        ("/tokens", "accounts", 900),
        ("/tokens/overview", "overview", 1240),
        ("/usage", "usage", 940),
        ("/issued-keys", "keys", 820),
    ):
        await page.goto(path)
        await picture(page, name, height=height)
    await page.goto("/tokens/checkup")
    await page.get_by_role("button", name="Run all checks").click()
    await expect(page.get_by_text("Not checked yet.")).to_have_count(0, timeout=60_000)
    await picture(page, "doctor", height=1100)
    await page.goto("/tokens/add")
    await page.get_by_label("Paste here").fill("\n".join(TOKENS))
    await page.get_by_role("button", name="Look at it first").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Before it is saved")
    await picture(page, "add-preview", height=900)
    await page.goto("/issued-keys/new")
    await page.get_by_label("Name", exact=True).fill("Sophie's laptop")
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.locator("#secret")).to_be_visible()
    await picture(page, "key-once", height=900)
    made = furnished.runtime.keys.find((await page.locator("#secret").inner_text()).strip())
    assert made is not None
    await furnished.runtime.keys.revoke(made.id)
