"""A client of the website's calls through the real server: each route, each place, each kind of caller, and no two mixed up."""

import dataclasses
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import pytest
import pytest_asyncio

from chat2api.keys.password import SlowDigests
from chat2api.keys.users import LocalUsers
from chat2api.storage.keys import NewKey
from tests.e2e.harness import ANSWER, OPERATOR_KEY, QUESTION, Bench, House, open_bench, open_house
from tests.e2e.native_client import NativeClient, NativeError, Said

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "four quiet words together"
AUTH_KEY = "key-between-two-servers-0001"
Kind = Literal["own token", "issued key", "local user", "operator key"]
KINDS: tuple[Kind, ...] = ("own token", "issued key", "local user", "operator key")
PLACES = ("", "/backend-api", "/chatgpt/backend-api")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("native"), ANONYMOUS="off", AUTH_KEY=AUTH_KEY) as bench:
        await bench.add(bench.control.add_account().access_token)
        with quick_passwords(bench.house):
            yield bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """Another server, which leaves all but the conversations to the first."""
    settings: dict[str, Any] = {"CHATGPT_BASE_URL": bench.house.base, "CONVERSATION_ONLY": "true", "AUTH_KEY": AUTH_KEY}
    tokens = [bench.control.add_account().access_token]
    async with (
        open_house(
            tmp_path_factory.mktemp("front"), tokens=tokens, clock=bench.clock, ANONYMOUS="off", **settings
        ) as house,
        httpx.AsyncClient(base_url=house.base, timeout=60.0, trust_env=False) as http,
    ):
        with quick_passwords(house):
            yield dataclasses.replace(bench, house=house, http=http)


@contextmanager
def quick_passwords(house: House) -> Iterator[None]:
    """Let the digests of its users' passwords cost next to nothing."""
    runtime = house.runtime
    digests = SlowDigests(cost=2**4)
    runtime.users = LocalUsers(runtime.records, runtime.keys, digests, runtime.clock)
    yield
    digests.close()


@pytest_asyncio.fixture(loop_scope="module")
async def people(bench: Bench) -> AsyncIterator["People"]:
    made = People(bench)
    yield made
    for user in bench.house.runtime.users.all():
        await bench.house.runtime.users.remove(user.name)


class People:
    """Makes callers of every kind; two of one kind are never the same person."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._count = 0

    async def someone(self, kind: Kind, place: str = "") -> NativeClient:
        """Give a client of a new person. The operator's key is always the same."""
        self._count += 1
        runtime, http = self._bench.house.runtime, self._bench.http
        match kind:
            case "own token":
                return NativeClient(http, self._bench.control.add_account().access_token, place, bare=True)
            case "issued key":
                issued = await runtime.keys.issue(NewKey(f"person {self._count}", None))
                return NativeClient(http, issued.secret, place)
            case "local user":
                name = f"Person {uuid.uuid4()}"
                await runtime.users.add(name, PASSWORD, NewKey("", None))
                return await NativeClient.sign_in(http, name, PASSWORD, place)
            case "operator key":
                return NativeClient(http, OPERATOR_KEY, place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_works_for_every_kind_of_caller(people: People, kind: Kind, place: str) -> None:
    await use_every_call(await people.someone(kind, place))


@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_works_through_another_server(front: Bench, kind: Kind) -> None:
    await use_every_call(await People(front).someone(kind))


async def use_every_call(client: NativeClient) -> None:
    await client.hide_all()
    first = await client.say(QUESTION)
    assert first.text == ANSWER
    second = await client.say("And lakes?", after=first)
    assert second.conversation_id == first.conversation_id
    whole = await client.get(first.conversation_id)
    assert {first.message_id, second.message_id} <= whole["mapping"].keys()
    assert whole["current_node"] == second.message_id
    assert await client.title(second)
    for method in ("PATCH", "POST"):
        await client.rename(first.conversation_id, f"Rivers by {method}", method)
        assert (await client.get(first.conversation_id))["title"] == f"Rivers by {method}"
    for rating in ("thumbsUp", "thumbsDown"):
        await client.rate(second, rating)
    listed = await client.page()
    assert listed["total"] == 1
    assert [item["title"] for item in listed["items"]] == ["Rivers by POST"]
    assert "auto" in await client.models()
    (account, *_) = (await client.accounts())["accounts"].values()
    assert account["account"]["plan_type"] == "plus"
    for method in ("PATCH", "POST"):
        doomed = await client.say(QUESTION)
        await client.hide(doomed.conversation_id, method)
        with pytest.raises(NativeError) as gone:
            await client.get(doomed.conversation_id)
        assert gone.value.status == 404
    for method in ("POST", "PATCH"):
        await client.say(QUESTION)
        await client.hide_all(method)
        assert (await client.page())["items"] == []


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("kind", ["issued key", "local user", "own token"])
async def test_S8_two_people_never_see_each_others_conversations(
    bench: Bench, people: People, kind: Kind, other: Kind
) -> None:
    one, another = await people.someone(kind), await people.someone(other)
    made = await one.say(QUESTION)
    theirs = await another.say(QUESTION)
    assert [item["id"] for item in (await one.page())["items"]] == [made.conversation_id]
    assert made.conversation_id not in [item["id"] for item in (await another.page())["items"]]
    attempts = (
        lambda: another.get(made.conversation_id),
        lambda: another.say("Go on.", after=made),
        lambda: another.say("Go on.", after=Said("", made.conversation_id, theirs.message_id)),
        lambda: another.rename(made.conversation_id, "Mine now"),
        lambda: another.rename(made.conversation_id, "Mine now", "POST"),
        lambda: another.hide(made.conversation_id),
        lambda: another.title(made),
        lambda: another.rate(made, "thumbsDown"),
    )
    for attempt in attempts:
        with pytest.raises(NativeError) as refused:
            await attempt()
        assert refused.value.status == 404
    await another.hide_all()
    assert (await one.get(made.conversation_id))["title"] != "Mine now"
    assert (await one.page())["total"] == 1


@pytest.mark.parametrize("through", ["bench", "front"])
async def test_S8_two_people_never_use_each_others_files(request: pytest.FixtureRequest, through: str) -> None:
    place: Bench = request.getfixturevalue(through)
    made = People(place)
    anna, bruno = await made.someone("issued key"), await made.someone("local user")
    place.control.choose("conversation", answer="image")
    drawn = await anna.say("Draw a boat.")
    pointers = set(re.findall(r'"asset_pointer": "([^"]+)"', json.dumps(await anna.get(drawn.conversation_id))))
    assert pointers
    for pointer in pointers:
        file = pointer.partition("://")[2]
        assert (await anna.say("", messages=showing(pointer))).text
        link = await anna.link(file)
        assert link.partition("?")[0] == (await anna.link(file, drawn.conversation_id)).partition("?")[0]
        async with httpx.AsyncClient(trust_env=False) as anybody:
            assert (await anybody.get(link)).content.startswith(b"\x89PNG")
        for stranger in (bruno, await made.someone("issued key")):
            for attempt in (
                stranger.say("", messages=showing(pointer)),
                stranger.link(file),
                stranger.link(file, drawn.conversation_id),
            ):
                with pytest.raises(NativeError) as refused:
                    await attempt
                assert refused.value.status == 404


async def test_a_picture_is_found_through_another_server(front: Bench) -> None:
    front.control.choose("conversation", answer="image")
    told = json.loads((await front.ask(content="Draw a boat.")).body)
    (link,) = re.findall(r"!\[.*?\]\((http.+?)\)", told["choices"][0]["message"]["content"])
    assert (await front.http.get(link)).status_code == 200


def showing(pointer: str) -> list[dict[str, Any]]:
    """Give the messages of a turn that shows a picture."""
    parts = [{"content_type": "image_asset_pointer", "asset_pointer": pointer}, "What is it?"]
    content = {"content_type": "multimodal_text", "parts": parts}
    return [{"id": str(uuid.uuid4()), "author": {"role": "user"}, "content": content}]


async def test_an_operator_finds_all_conversations_of_an_account_by_its_label(bench: Bench, people: People) -> None:
    made = await (await people.someone("issued key")).say(QUESTION)
    (account,) = bench.house.runtime.pool.accounts()
    operator = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    path = f"/conversations?limit=100&account={account.label}"
    items = (await bench.http.get(path, headers=operator)).json()["items"]
    assert made.conversation_id in [item["id"] for item in items]
    whole = await bench.http.get(f"/conversation/{made.conversation_id}?account={account.label}", headers=operator)
    assert whole.json()["conversation_id"] == made.conversation_id


async def test_pages_of_the_list(people: People) -> None:
    client = await people.someone("issued key")
    made = {(await client.say(QUESTION)).conversation_id for _ in range(5)}
    found: set[str] = set()
    for offset in range(0, 6, 2):
        page = await client.page(offset, 2)
        assert (page["offset"], page["limit"], page["total"]) == (offset, 2, 5)
        found |= {item["id"] for item in page["items"]}
    assert found == made
    with pytest.raises(NativeError) as refused:
        await client.page(0, 101)
    assert refused.value.status == 422


async def test_who_brings_nothing_or_nonsense_is_told_so(bench: Bench) -> None:
    unknown = ("nonsense", "sk-proj-somebodys-own-key", "sk-c2a-" + "x" * 49, "c2a-user-nobody")
    for token, status in ((None, 403), *((one, 401) for one in unknown)):
        client = NativeClient(bench.http, token)
        for attempt in (client.page(), client.models(), client.say(QUESTION), client.hide_all()):
            with pytest.raises(NativeError) as refused:
                await attempt
            assert refused.value.status == status


async def test_a_wrong_password_signs_nobody_in(bench: Bench, people: People) -> None:
    with pytest.raises(NativeError) as refused:
        await NativeClient.sign_in(bench.http, "Nobody", PASSWORD)
    assert refused.value.status == 401


async def test_a_cut_answer_goes_on_where_the_client_asks_for_it(bench: Bench, people: People) -> None:
    client = await people.someone("own token")
    bench.control.set_options(text="one two three four five six seven eight")
    bench.control.choose("conversation", answer="max_tokens")
    try:
        said = await client.say(QUESTION, auto_continue=True)
    finally:
        bench.control.set_options(text=None)
    assert said.text.split() == ["one", "two", "three", "four", "five", "six", "seven", "eight"]


async def test_what_was_done_reached_the_backend_in_the_websites_own_form(bench: Bench) -> None:
    assert bench.control.violations == []
    assert not any(OPERATOR_KEY in str(record.request.headers) for record in bench.control.requests)
    assert not bench.control.received("c2a-user-"), "S5: no key of ours travels"
    assert not bench.control.received("sk-c2a-")
