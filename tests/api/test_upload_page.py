"""New accounts by hand: pasted or from a file, looked at first, and never sent back."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat2api.gateway.jobs import MAX_RUNNING, Job
from tests.accounts.jwt import access_token
from tests.api.pages_house import Person
from tests.api.test_accounts_page import FAR, follow
from tests.e2e.harness import House, HouseClock, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW = access_token("new", expires_at=FAR)
RENEWABLE = "rt_" + "P" * 60


@pytest_asyncio.fixture(loop_scope="module")
async def operator(page_house: House) -> AsyncIterator[Person]:
    await page_house.runtime.editor.delete(None)
    async with Person(page_house.base) as person:
        await person.sign_in()
        await person.get("/tokens/add")
        yield person


def paste_of(page: httpx.Response) -> str:
    found = re.search(r'name="paste" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


async def test_S17_pasted_tokens_are_previewed_and_saved_without_coming_back(
    page_house: House, operator: Person
) -> None:
    old = access_token("old", expires_at=1e9)
    text = f"# mine\n{NEW}\n{RENEWABLE}\n{old}\nnonsense-canary\n{NEW}"
    page = await operator.post("/tokens/add", {"text": text})
    assert page.status_code == 200
    assert page_house.runtime.pool.statistics().total == 0, "nothing is saved by looking"
    rows = re.findall(
        r'<th scope="row" class="tight" data-label="Line">(\d+)</th>\s*<td class="all-across"><span class="badge \w+">(\w+)',
        page.text,
    )
    assert rows == [("2", "New"), ("3", "New"), ("4", "Expired"), ("5", "Unreadable")]
    sent = await operator.post("/tokens/add/save", {"paste": paste_of(page)})
    assert sent.status_code == 303
    result = await follow(operator, sent.headers["location"])
    assert page_house.runtime.pool.statistics().total == 2
    assert "line 5" in result
    for secret in (NEW, RENEWABLE, old, "nonsense-canary"):
        assert secret not in page.text
        assert secret not in result
    (told,) = await page_house.runtime.records.actions.latest(1)
    assert told.what == "accounts.import"


async def test_a_paste_is_saved_once(operator: Person) -> None:
    paste = paste_of(await operator.post("/tokens/add", {"text": NEW}))
    assert (await operator.post("/tokens/add/save", {"paste": paste})).status_code == 303
    again = await operator.post("/tokens/add/save", {"paste": paste})
    assert again.status_code == 404
    assert "This paste is gone" in again.text


async def test_S17_no_other_sign_in_can_save_or_drop_a_paste(page_house: House, operator: Person) -> None:
    paste = paste_of(await operator.post("/tokens/add", {"text": NEW}))
    async with Person(page_house.base) as other:
        await other.sign_in()
        await other.get("/tokens/add")
        assert (await other.post("/tokens/add/save", {"paste": paste})).status_code == 404
        await other.post("/tokens/add/cancel", {"paste": paste})
    assert (await operator.post("/tokens/add/save", {"paste": paste})).status_code == 303


async def test_a_paste_is_kept_while_too_many_jobs_run(page_house: House, operator: Person) -> None:
    over = asyncio.Event()

    async def wait(job: Job) -> None:
        await over.wait()

    paste = paste_of(await operator.post("/tokens/add", {"text": NEW}))
    others = [page_house.runtime.jobs.start("test", 1, wait) for _ in range(MAX_RUNNING)]
    refused = await operator.post("/tokens/add/save", {"paste": paste})
    assert refused.status_code == 429
    assert "Nothing is lost" in refused.text
    assert NEW not in refused.text
    over.set()
    await until(lambda: all(job.is_over for job in others), "the jobs did not end")
    sent = await operator.post("/tokens/add/save", {"paste": paste_of(refused)})
    await follow(operator, sent.headers["location"])
    assert page_house.runtime.pool.statistics().total == 1


async def test_what_is_wrong_with_a_line_is_said_in_the_readers_language(operator: Person) -> None:
    text = "\n".join(
        [NEW, access_token("old", expires_at=1e9), "nonsense", '{"accessToken": "nonsense"}', NEW + ",x y"]
    )
    page = (await operator.post("/tokens/add", {"text": text}, **{"Accept-Language": "zh-CN"})).text
    for words in (
        "此 AccessToken 已到期",
        "这不是 AccessToken",
        "字段 accessToken 中没有可识别的令牌",
        "不该出现的字符",
    ):
        assert words in page
    assert 'lang="en"' not in page.partition("<main")[2].partition("</main>")[0]


async def test_a_paste_waits_ten_minutes(page_house: House, operator: Person) -> None:
    paste = paste_of(await operator.post("/tokens/add", {"text": NEW}))
    clock = page_house.runtime.clock
    assert isinstance(clock, HouseClock)
    clock.advance(601)
    assert (await operator.post("/tokens/add/save", {"paste": paste})).status_code == 404


async def test_a_cancelled_paste_is_gone(operator: Person) -> None:
    paste = paste_of(await operator.post("/tokens/add", {"text": NEW}))
    await operator.post("/tokens/add/cancel", {"paste": paste})
    assert (await operator.post("/tokens/add/save", {"paste": paste})).status_code == 404


async def send_file(operator: Person, content: bytes) -> httpx.Response:
    return await operator.http.post(
        "/tokens/add",
        data={"csrf": operator.csrf, "text": ""},
        files={"file": ("tokens.json", content)},
        headers={
            "Accept": "text/html",
            "Origin": operator.origin,
            "Cookie": f"chat2api={operator.cookies['chat2api']}",
        },
    )


async def test_a_file_is_read(operator: Person) -> None:
    page = await send_file(operator, json.dumps({"accessToken": NEW}).encode())
    assert page.status_code == 200
    assert "AccessToken" in page.text
    assert NEW not in page.text


async def test_what_is_no_text_or_nothing_is_told(operator: Person) -> None:
    refused = await send_file(operator, b"\xff\xfe\x00")
    assert (refused.status_code, "not a text in UTF-8" in refused.text) == (400, True)
    empty = await operator.post("/tokens/add", {"text": " \n"})
    assert (empty.status_code, "Nothing was pasted" in empty.text) == (400, True)


async def test_where_nothing_can_be_saved_there_is_nothing_to_press(operator: Person) -> None:
    page = await operator.post("/tokens/add", {"text": access_token("old", expires_at=1e9)})
    assert "There is nothing to save" in page.text
    assert 'name="paste"' not in page.text


async def test_a_thousand_lines_are_previewed_and_saved(page_house: House, operator: Person) -> None:
    text = "\n".join(access_token(f"many-{n}", expires_at=FAR, serial=n) for n in range(1200))
    assert len(text) > 500_000, "more than a form usually holds"
    page = await operator.post("/tokens/add", {"text": text})
    assert page.status_code == 200
    assert "200 more are not shown" in page.text
    sent = await operator.post("/tokens/add/save", {"paste": paste_of(page)})
    result = await follow(operator, sent.headers["location"])
    assert "1\u202f200" in result
    assert page_house.runtime.pool.statistics().total == 1200
