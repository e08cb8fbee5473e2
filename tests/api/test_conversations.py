"""The website's calls as REST: what its routes alone decide; turns and ownership are the gateway's tests."""

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.api.body import SMALL_BODY
from chat2api.api.conversations import error_writer, is_site_path
from chat2api.api.errors import site_error
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.events import Finished, TextDelta
from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from tests.e2e.harness import ANSWER, OPERATOR_KEY, Bench, House, open_bench, open_house, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
PLACES = ("", "/backend-api", "/chatgpt/backend-api")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("site"), ANONYMOUS="off") as bench:
        await bench.add(bench.control.add_account().access_token)
        yield bench


@pytest.fixture
def sim(bench: Bench) -> Simulator:
    """The backend, with nothing left of what earlier tests made of it."""
    bench.control.reset()
    bench.open_way()
    return bench.sim


@pytest.fixture
def house(bench: Bench, sim: Simulator) -> House:
    return bench.house


@pytest.fixture
def http(bench: Bench, sim: Simulator) -> httpx.AsyncClient:
    return bench.http


@pytest_asyncio.fixture(loop_scope="module")
async def own(sim: Simulator) -> dict[str, str]:
    """The headers of somebody with a token of their own."""
    return {"Authorization": f"Bearer {sim.control.add_account().access_token}"}


def turn_body(content: str = "Name three rivers.", **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"content": {"parts": [content]}}], **fields}


def heard(answer: httpx.Response) -> tuple[str, Finished]:
    """Give the text and the end of a passed-on answer, as a client of the website reads them."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    decoder = ConversationDecoder()
    events = decoder.feed(answer.content) + decoder.close()
    (end,) = [event for event in events if isinstance(event, Finished)]
    return "".join(event.text for event in events if isinstance(event, TextDelta)), end


@pytest.mark.parametrize("place", PLACES)
async def test_a_turn_with_a_token_of_ones_own(
    http: httpx.AsyncClient, sim: Simulator, own: dict[str, str], place: str
) -> None:
    text, end = heard(await http.post(f"{place}/conversation", json=turn_body(), headers=own))
    assert text == ANSWER
    sent = sim.control.requests_to("conversation")[-1].request
    assert sent.header("authorization") == own["Authorization"]
    assert sent.header("openai-sentinel-chat-requirements-token")
    follow = turn_body("And lakes?", conversation_id=end.conversation_id, parent_message_id=end.message_id)
    _, next_end = heard(await http.post(f"{place}/conversation", json=follow, headers=own))
    assert next_end.conversation_id == end.conversation_id


async def test_who_speaks_and_in_which_conversation_may_be_left_out(
    http: httpx.AsyncClient, sim: Simulator, own: dict[str, str]
) -> None:
    body = turn_body(conversation_id="", parent_message_id="", action="")
    body["messages"][0] |= {"author": {"role": ""}, "id": ""}
    heard(await http.post("/conversation", json=body, headers=own))
    sent: Any = sim.control.requests_to("conversation")[-1].request.json()
    assert sent["action"] == "next"
    assert sent["messages"][0]["author"] == {"role": "user"}
    assert "conversation_id" not in sent
    assert len(sent["messages"][0]["id"]) == len(sent["parent_message_id"]) == 36


async def test_S8_an_issued_key_reads_nothing_that_is_connected_to_the_account(
    http: httpx.AsyncClient, house: House, sim: Simulator
) -> None:
    issued = await house.runtime.keys.issue(NewKey("somebody", None))
    body = turn_body()
    body["messages"][0]["metadata"] = {"selected_sources": ["drive"], "targeted_reply": "x"}
    for headers, told in (
        (OPERATOR, {"selected_sources", "targeted_reply"}),
        ({"Authorization": f"Bearer {issued.secret}"}, {"targeted_reply"}),
    ):
        heard(await http.post("/conversation", json=body, headers=headers))
        sent: Any = sim.control.requests_to("conversation")[-1].request.json()
        assert sent["messages"][0]["metadata"].keys() == told


async def test_a_token_is_taken_without_the_word_bearer(http: httpx.AsyncClient, own: dict[str, str]) -> None:
    bare = {"Authorization": own["Authorization"].removeprefix("Bearer ")}
    for headers in (own, bare):
        assert (await http.get("/conversations", headers=headers)).status_code == 200
    assert (await http.get("/v1/models", headers=bare)).status_code == 401, "only the website's calls take that"
    assert (await http.get("/conversations", headers={"Authorization": "Bearer"})).status_code == 401


# Errors


async def test_errors_have_the_form_that_these_callers_know(http: httpx.AsyncClient, sim: Simulator) -> None:
    good = sim.control.add_account()
    own = {"Authorization": f"Bearer {good.access_token}"}
    ended = {"Authorization": f"Bearer {sim.control.make_access_token(good.user_id, lifetime=-10.0)}"}
    missing = "/conversation/8c6c6d0e-0000-4000-8000-000000000001"
    asked: list[tuple[int, httpx.Response]] = [
        (403, await http.get("/conversations")),
        (403, await http.post("/conversation", json=turn_body())),
        (401, await http.get("/conversations", headers={"Authorization": "Bearer wrong"})),
        (401, await http.get("/conversations", headers={"Authorization": "wrong"})),
        (401, await http.get("/conversations", headers=ended)),
        (404, await http.get(missing, headers=own)),
        (404, await http.get(missing, headers=OPERATOR)),
        (404, await http.get("/backend-api/me", headers=own)),
        (404, await http.delete(missing, headers=own)),
        (404, await http.get("/chatgpt/backend-api", headers=own)),
        (404, await http.get("/conversations?account=nobody", headers=OPERATOR)),
        (403, await http.get("/conversations?account=nobody", headers=own)),
        (422, await http.post("/conversation", json={"messages": []}, headers=own)),
        (422, await http.patch(missing, json={}, headers=own)),
        (422, await http.get("/conversations?limit=1000", headers=own)),
        (422, await http.post("/conversation", content=b"{", headers=own | {"Content-Type": "application/json"})),
        (415, await http.post("/conversation", content=b"{}", headers=own)),
        (413, await http.post("/conversation", json=turn_body("x" * 500_000), headers=own)),
        (400, await http.get("/conversations", headers=[*OPERATOR.items(), *OPERATOR.items()])),
    ]
    for status, answer in asked:
        expected = 422 if status == 400 else status
        assert answer.status_code == expected, f"{answer.request.method} {answer.request.url}: {answer.text}"
        assert list(answer.json()) == ["errorMessage"]
        assert len(answer.json()["errorMessage"]) > 10
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/conversation", "/backend-api/conversations", "/auth/login"])
async def test_S37_a_body_that_is_too_long_is_refused_in_that_form_before_anybody_is_asked(
    http: httpx.AsyncClient, path: str
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SMALL_BODY // 2**20 + 1):
            yield b"x" * 2**20

    for content in (pieces(), b"x" * (SMALL_BODY + 1)):
        answer = await http.post(path, content=content, headers=OPERATOR | {"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert list(answer.json()) == ["errorMessage"]


async def test_the_log_says_whose_key_a_call_was_made_by(
    house: House, http: httpx.AsyncClient, own: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat2api.api.metrics")
    issued = await house.runtime.keys.issue(NewKey("anna", None))
    asked = {issued.key.id: {"Authorization": f"Bearer {issued.secret}"}, "operator": OPERATOR, "own": own, "-": {}}
    for headers in asked.values():
        await http.get("/conversations", headers=headers)
        await http.get("/conversation/c-nobodys", headers=headers)
        await http.post("/conversation", json={"messages": []}, headers=headers)

    def keys() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.name == "chat2api.api.metrics"]
        return [found for line in lines for found in re.findall(r" key=(\S+)", line)]

    await until(lambda: len(keys()) == 3 * len(asked), "a request was not logged")
    assert keys() == [name for name in asked for _ in range(3)]
    assert issued.secret not in caplog.text


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("answer", status=422, body='{"detail":[{"loc":["body","x"],"msg":"no"}]}'), 422),
        (Fault("answer", named="rate_limit_exceeded", values={"clears_in": 60}), 429),
        (Fault("answer", named="conversation_not_found"), 404),
        (Fault("answer", status=403, body='{"detail":"Unusual activity has been detected from your device."}'), 403),
        (Fault("answer", status=503), 502),
    ],
)
async def test_what_the_backend_refuses_keeps_its_status(
    http: httpx.AsyncClient, sim: Simulator, fault: Fault, status: int
) -> None:
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    sim.control.fail("conversation", fault, times=None)
    answer = await http.post("/conversation", json=turn_body(), headers=own)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["errorMessage"]
    assert ("retry-after" in answer.headers) == (status == 429)


async def test_a_mistake_of_ours_is_a_500_that_tells_nothing(
    house: House, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> bytes:
        raise KeyError("secret-of-the-house")

    monkeypatch.setattr(house.runtime.conversations, "page", broken)
    answer = await http.get("/conversations", headers=OPERATOR)
    assert answer.status_code == 500
    assert list(answer.json()) == ["errorMessage"]
    assert "secret-of-the-house" not in answer.text


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/conversation", True),
        ("/conversation/", True),
        ("/conversations", True),
        ("/conversation/x/y/z", True),
        ("/backend-api", True),
        ("/backend-api/anything/at/all", True),
        ("/chatgpt/backend-api/me", True),
        ("/models", True),
        ("/accounts/check", True),
        ("/files/file-1/download", True),
        ("/files", False),
        ("/auth/login", True),
        ("/v1/models", False),
        ("/conversational", False),
        ("/backend-apis", False),
        ("/models/x", False),
        ("/", False),
        ("/tokens", False),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/x"])
async def test_the_paths_on_which_errors_have_that_form(prefix: str, path: str, is_one: bool) -> None:
    assert is_site_path(prefix, prefix + path) is is_one
    assert not is_site_path("/x", path) or prefix == "/x"
    assert (error_writer(prefix, prefix + path) is site_error) is is_one


async def test_errors_of_other_paths_are_as_they_were(http: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/platform/v1/models", "/imitate/v1/models", "/nothing"):
        assert list((await http.get(path)).json()) == ["error"]


# Streams


async def test_an_answer_that_breaks_off_ends_with_one_event_that_says_so(
    http: httpx.AsyncClient, sim: Simulator
) -> None:
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    sim.control.fail("conversation", Fault("cut_frame", at="mid_stream", after=2))
    answer = await http.post("/conversation", json=turn_body(), headers=own)
    assert answer.status_code == 200
    *_, last, nothing = answer.content.split(b"\n\n")
    told = json.loads(last.removeprefix(b"data: "))
    assert (nothing, sorted(told)) == (b"", ["error", "errorMessage", "message"])
    assert b"[DONE]" not in answer.content


@pytest.mark.parametrize("at", [0, 2])
async def test_while_the_backend_thinks_comments_between_events_keep_the_connection(
    house: House, http: httpx.AsyncClient, sim: Simulator, at: int
) -> None:
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    sim.control.fail(
        "conversation", Fault("stall", at="mid_stream", after=at, seconds=6.0)
    )  # 0.3 s of the bench's clock
    before, house.runtime.config = (
        house.runtime.config,
        dataclasses.replace(house.runtime.config, keep_alive_interval=0.05),
    )
    try:
        answer = await http.post("/conversation", json=turn_body(), headers=own)
    finally:
        house.runtime.config = before
    events = answer.content.split(b"\n\n")
    said = [number for number, event in enumerate(events) if event.startswith(b"data: {")]
    comments = [number for number, event in enumerate(events) if event == b": keep-alive"]
    assert comments[0] < said[0] if at == 0 else said[0] < comments[-1] < said[-1]
    text, _ = heard(answer)
    assert text == ANSWER


async def test_an_error_before_the_first_word_has_a_real_status(http: httpx.AsyncClient, sim: Simulator) -> None:
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    sim.control.fail(
        "conversation", Fault("error_event", at="before_content", body="Something went wrong."), times=None
    )
    answer = await http.post("/conversation", json=turn_body(), headers=own)
    assert answer.status_code == 502
    assert list(answer.json()) == ["errorMessage"]


async def test_R10_who_leaves_ends_the_turn_at_the_backend(
    house: House, http: httpx.AsyncClient, sim: Simulator
) -> None:
    own = {"Authorization": f"Bearer {sim.control.add_account().access_token}"}
    for after in (0, 2):
        sim.control.fail("conversation", Fault("stall", at="mid_stream", after=after))
        asking = asyncio.ensure_future(http.post("/conversation", json=turn_body(), headers=own))
        await sim.control.wait_until(lambda: sim.control.counters.open_streams == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
        assert sim.control.streams[-1].outcome == "aborted"
        await until(lambda: not house.runtime.answers and house.in_flight == 0, "something is left")


async def test_S13_a_key_that_is_revoked_ends_its_stream(house: House, http: httpx.AsyncClient, sim: Simulator) -> None:
    issued = await house.runtime.keys.issue(NewKey("leaving", None))
    sim.control.fail("conversation", Fault("stall", at="mid_stream", after=2))
    asking = asyncio.ensure_future(
        http.post("/conversation", json=turn_body(), headers={"Authorization": f"Bearer {issued.secret}"})
    )
    await sim.control.wait_until(lambda: sim.control.counters.open_streams == 1)
    await until(lambda: len(house.runtime.answers) == 1, "the answer is not known")
    await house.runtime.keys.revoke(issued.key.id)
    answer = await asking
    assert b"revoked" in answer.content
    await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)


# Limits and the ledger


async def test_R8_a_keys_limits_hold_for_these_calls_as_well(house: House, http: httpx.AsyncClient) -> None:
    limits = KeyLimits(requests_per_minute=4, requests_per_day=2)
    issued = await house.runtime.keys.issue(NewKey("limited", None, limits=limits))
    bearer = {"Authorization": f"Bearer {issued.secret}"}
    assert (await http.get("/conversations", headers=bearer)).status_code == 200
    for _ in range(2):
        heard(await http.post("/conversation", json=turn_body(), headers=bearer))
    refused = await http.post("/conversation", json=turn_body(), headers=bearer)
    assert refused.status_code == 429
    assert "day" in refused.json()["errorMessage"]
    assert (await http.get("/conversations", headers=bearer)).status_code == 429, "the day's requests are used up"
    issued = await house.runtime.keys.issue(NewKey("hasty", None, limits=KeyLimits(requests_per_minute=2)))
    bearer = {"Authorization": f"Bearer {issued.secret}"}
    statuses = [(await http.get("/models", headers=bearer)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_turns_are_booked_and_looks_are_not(house: House, http: httpx.AsyncClient) -> None:
    issued = await house.runtime.keys.issue(NewKey("booked", None))
    bearer = {"Authorization": f"Bearer {issued.secret}"}
    heard(await http.post("/conversation", json=turn_body(), headers=bearer))
    assert (await http.get("/conversations", headers=bearer)).json()["total"] == 1
    await until(lambda: house.in_flight == 0, "an account is still leased")
    used = (await http.get("/v1/usage", headers=bearer)).json()
    assert used["total"]["requests"] == 1
    assert used["total"]["completion_tokens"] > 3
    assert used["total"]["prompt_tokens"] > 3


async def test_a_keys_models_bound_its_turns_and_its_list(house: House, http: httpx.AsyncClient) -> None:
    issued = await house.runtime.keys.issue(NewKey("narrow", None, scope=KeyScope(models=("gpt-4o*", "auto"))))
    bearer = {"Authorization": f"Bearer {issued.secret}"}
    listed = (await http.get("/models", headers=bearer)).json()["models"]
    assert {model["slug"] for model in listed} == {"auto", "gpt-4o", "gpt-4o-mini"}
    heard(await http.post("/conversation", json=turn_body(), headers=bearer))
    custom = {"conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-Any"}}
    for fields in ({"model": "o3"}, custom):
        answer = await http.post("/conversation", json=turn_body(**fields), headers=bearer)
        assert answer.status_code == 404, answer.text


# Accounts, and other servers in front


async def test_an_operator_names_the_account_unless_friends_hold_the_key(house: House, http: httpx.AsyncClient) -> None:
    (account,) = house.runtime.pool.accounts()
    path = f"/conversations?account={account.label}"
    assert (await http.get(path, headers=OPERATOR)).status_code == 200
    config = house.runtime.config
    try:
        house.runtime.config = dataclasses.replace(config, admin_password="a-password-of-the-suite")
        refused = await http.get(path, headers=OPERATOR)
    finally:
        house.runtime.config = config
    assert refused.status_code == 403
    assert "ADMIN_PASSWORD" in refused.json()["errorMessage"]


@pytest.mark.parametrize("place", ["/imitate", "/platform"])
async def test_the_openai_routes_have_other_names(http: httpx.AsyncClient, place: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Name three rivers."}]}
    answer = await http.post(f"{place}/v1/chat/completions", json=body, headers=OPERATOR)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER


async def test_another_server_in_front_uses_its_own_tokens_or_the_pool(sim: Simulator, tmp_path: Path) -> None:
    key = "key-between-two-servers-0001"
    behind_tokens = [sim.control.add_account().access_token]
    own_token = sim.control.add_account().access_token
    async with (
        open_house(
            tmp_path / "behind", sim, tokens=behind_tokens, AUTH_KEY=key, OWN_TOKENS="off", ANONYMOUS="off"
        ) as behind,
        open_house(
            tmp_path / "front",
            None,
            tokens=[own_token],
            AUTH_KEY=key,
            CONVERSATION_ONLY="true",
            CHATGPT_BASE_URL=behind.base,
        ) as front,
        httpx.AsyncClient(timeout=30, trust_env=False) as http,
    ):
        sim.control.reset()
        body = {"model": "auto", "messages": [{"role": "user", "content": "Name three rivers."}]}
        answer = await http.post(f"{front.base}/v1/chat/completions", json=body, headers=OPERATOR)
        assert answer.json()["choices"][0]["message"]["content"] == ANSWER
        (sent,) = sim.control.requests_to("conversation")
        assert sent.request.header("authorization") == f"Bearer {own_token}"
        assert sim.control.requests_to("requirements") or sim.control.requests_to("requirements_prepare")
        text, _ = heard(
            await http.post(f"{behind.base}/backend-api/conversation", json=turn_body(), headers={"authkey": key})
        )
        assert text == ANSWER
        assert (
            sim.control.requests_to("conversation")[-1].request.header("authorization") == f"Bearer {behind_tokens[0]}"
        )
        for headers in ({"authkey": "wrong"}, {"authkey": ""}, {}, {"Authorization": f"Bearer {own_token}"}):
            refused = await http.post(f"{behind.base}/backend-api/conversation", json=turn_body(), headers=headers)
            assert refused.status_code == (401 if "Authorization" in headers else 403)


async def test_what_a_server_in_front_asks_and_is_refused_means_the_same_there(sim: Simulator, tmp_path: Path) -> None:
    key = "key-between-two-servers-0001"
    token, visitor = (sim.control.add_account().access_token for _ in range(2))
    through: dict[str, Any] = {"tokens": [token], "CONVERSATION_ONLY": "true", "ANONYMOUS": "off"}
    async with (
        open_house(tmp_path / "behind", sim, AUTH_KEY=key, OWN_TOKENS="off", ANONYMOUS="off") as behind,
        open_house(tmp_path / "front", None, AUTH_KEY=key, CHATGPT_BASE_URL=behind.base, **through) as front,
        open_house(
            tmp_path / "stranger", None, AUTH_KEY="another-key-of-somebody", CHATGPT_BASE_URL=behind.base, **through
        ) as stranger,
        httpx.AsyncClient(timeout=30, trust_env=False) as http,
    ):
        sim.control.reset()
        chat = {"model": "gpt-5-5-thinking", "messages": [{"role": "user", "content": "Name three rivers."}]}
        for fields in ({"thinking_effort": "extended"}, {"system_hints": ["picture_v2"]}, {}):
            text, _ = heard(await http.post(f"{front.base}/conversation", json=turn_body(**fields), headers=OPERATOR))
            assert text == ANSWER
        for effort in ("low", "high"):
            answer = await http.post(
                f"{front.base}/v1/chat/completions", json=chat | {"reasoning_effort": effort}, headers=OPERATOR
            )
            assert answer.json()["choices"][0]["message"]["content"] == ANSWER
        sim.control.choose("conversation", answer="handoff")
        text, _ = heard(await http.post(f"{front.base}/conversation", json=turn_body(), headers=OPERATOR))
        assert text == ANSWER
        missing = turn_body(conversation_id="8c6c6d0e-0000-4000-8000-000000000001", parent_message_id="m-1")
        for base in (behind.base, front.base):
            headers = {"Authorization": f"Bearer {visitor}", "authkey": key}
            if base == front.base:
                del headers["authkey"]
            refused = await http.post(f"{base}/conversation", json=missing, headers=headers)
            assert refused.status_code == 404, refused.text
            assert list(refused.json()) == (["errorMessage"] if base == front.base else ["errorMessage", "detail"])
        too_many = Fault("answer", status=429, body='{"detail":{"clears_in":600,"code":"model_cap_exceeded"}}')
        sim.control.fail("conversation", too_many)
        limited = await http.post(f"{front.base}/conversation", json=turn_body(), headers=OPERATOR)
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "600")
        sent = len(sim.control.requests_to("conversation"))
        refused = await http.post(f"{stranger.base}/conversation", json=turn_body(), headers=OPERATOR)
        assert (refused.status_code, "authkey" in refused.text) == (403, True)
        (account,) = stranger.runtime.pool.accounts()
        assert account.usable, "its token is as good as before"
        assert len(sim.control.requests_to("conversation")) == sent


# What reaches the backend

HOSTILE = [
    f"{start}{end}"
    for start in ("/conversation/", "/backend-api/conversation/", "/conversation/gen_title/", "/chatgpt/backend-api/")
    for end in (
        "..", "../me", "..%2fme", "%2e%2e%2fme", "..%5cme", "%2fme", "/me", "//evil.test/x", "c-1/../../me",
        "c-1%2f..%2f..%2fme",
        "c-1;x=1", "c-1%3fx=1", "c-1%23x", "@evil.test", "http:%2f%2fevil.test", "%00", "c%0d%0aX:y", "c-1%20HTTP",
        "%c0%ae%c0%ae",
    )
] + [
    "/backend-api/me", "/backend-api/accounts/logout_all", "/backend-api/conversations/c-1", "/backend-api/../backend-api/me",
    "/conversations?limit=20&offset=0&order=updated%26x%3d1", "/conversations?limit=1%26account=x", "/accounts/check/v5",
    "/models?url=http://evil.test", "/backend-api/sentinel/chat-requirements",
    "/backend-api/conversation/c-1/attachment/f/download",
]  # fmt: skip


async def test_S6_whatever_the_path_only_listed_calls_reach_the_backend(
    house: House, http: httpx.AsyncClient, sim: Simulator
) -> None:
    token = sim.control.add_account().access_token
    port = int(house.base.rpartition(":")[2])
    for target in HOSTILE:
        for method in ("GET", "PATCH"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
            body = b'{"title":"x"}' if method == "PATCH" else b""
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
            writer.write(f"{head}{kind}\r\n".encode() + body)
            answer = await reader.read()
            writer.close()
            status = int(answer.split(b" ", 2)[1])
            assert status < 500, (method, target, answer[:200])
    paths = {record.request.target for record in sim.control.requests}
    listed = re.compile(
        r"/|/backend-api/(?:conversations\?offset=\d+&limit=\d+&order=(?:updated|created)"
        r"|models\?history_and_training_disabled=false|conversation/[A-Za-z0-9][A-Za-z0-9_-]*(?:/attachment/[A-Za-z0-9][A-Za-z0-9_.-]*/download)?)"
    )
    assert [path for path in paths if not listed.fullmatch(path)] == []
