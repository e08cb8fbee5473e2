"""What must not be told, stored or sent on: canaries go through a real server, then everything it left is searched.

The server is a process of its own at LOG_LEVEL=debug, in front of the simulator, through a proxy that wants a password.
Now and then it fails in ways that it does not expect, with the request's text in the exception, and in the end a second
one is killed in the middle of an answer. Each canary is a text that occurs nowhere else. What may be told is said where
it is: a reply holds the reply, and an error told to the caller may quote the backend's own short words.

Two hundred canaries go through it here; every night more than a thousand do.
"""

import asyncio
import itertools
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from tests.processes import Ended, Running, running
from tests.proxies import HttpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER_AGENT = "caller-agent-canary/7.3"
CALLER_NETWORK = "203.0.113."
PROXY_PASSWORD = "proxy-password-canary-5521"
OPERATOR_KEYS = ("operator-key-canary-one-0001", "operator-key-canary-two-0002")
AUTH_KEY = "gateway-key-canary-0003"
SECRET_KEY = "secret-key-canary-0004"
SHARED_KEY = "shared-key-canary-0005"
TIERS = f"""
[shared]
base = "/shared"
shared_key = "{SHARED_KEY}"
system = "drop"
max_answer_tokens = 100
[shared.models]
auto = {{ requests_per_minute = "unlimited", tokens_per_minute = "unlimited" }}
"""

BREAKING = """
import chat2api.api.charging as charging
import chat2api.gateway.chatgpt as gateway
import chat2api.gateway.offers as offers
from chat2api.cli import main

def spoil(place, name):
    good = getattr(place, name)
    def broken(*arguments, **more):
        if "BREAK-" + name in repr((arguments, more)):
            raise KeyError((arguments, more))
        return good(*arguments, **more)
    setattr(place, name, broken)

spoil(offers, "choose_model")
spoil(gateway, "Prompt")
spoil(charging.CompletionMeter, "add")
main(["serve"])
"""
"""Runs the server so that a request whose text names one of these functions meets a mistake of the program in it, before
the answer, between its parts or after it; what is raised quotes everything that it was given."""

BREAKS = ("choose_model", "Prompt", "add")


@dataclass
class Evidence:
    """What a run left behind, and the canaries that went into it, by kind."""

    rounds: int = 1
    canaries: dict[str, set[str]] = field(default_factory=dict)
    answers: list[httpx.Response] = field(default_factory=list)
    pages: list[httpx.Response] = field(default_factory=list)
    ended: Ended = field(default_factory=lambda: Ended(-1, "", ""))
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    conversations: set[str] = field(default_factory=set)
    """Those that were asked to be kept."""
    remembered: set[str] = field(default_factory=set)
    """Those that the records hold."""
    sent: list[str] = field(default_factory=list)
    """Everything that the backend received, one text a request."""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1000))

    def canary(self, kind: str) -> str:
        """Give a new text that occurs nowhere else."""
        made = f"canary{kind}{next(self._numbers)}x"
        self.canaries.setdefault(kind, set()).add(made)
        return made

    def of(self, *kinds: str) -> set[str]:
        return set().union(*(self.canaries[kind] for kind in kinds))

    @property
    def all(self) -> set[str]:
        return self.of(*self.canaries)


def found_in(canaries: set[str], text: str | bytes) -> list[str]:
    """Give those that occur, also when written as JSON or in a URL."""
    data = text.encode() if isinstance(text, str) else text
    return sorted(canary for canary in canaries if canary.encode() in data)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[1, pytest.param(6, marks=[pytest.mark.nightly, pytest.mark.timeout(1200)])],
    ids=["hundreds", "thousands"],
)
async def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Evidence]:
    """Run everything that many times; the tests look at what is left."""
    folder = tmp_path_factory.mktemp("privacy")
    (folder / "tmp").mkdir()
    kept = Evidence(rounds=request.param)
    options = SimulatorOptions(accounts=4)
    async with Simulator(options) as sim, HttpProxy(credentials=f"someone:{PROXY_PASSWORD}") as proxy:
        tiers = tmp_path_factory.mktemp("tiers") / "tiers.toml"
        tiers.write_text(TIERS, encoding="utf-8")
        environ = {
            "PORT": "0",
            "TIERS_FILE": str(tiers),
            "DATA_DIR": str(folder / "data"),
            "TMPDIR": str(folder / "tmp"),
            "LOG_LEVEL": "debug",
            "AUTHORIZATION": ",".join(OPERATOR_KEYS),
            "AUTH_KEY": AUTH_KEY,
            "SECRET_KEY": SECRET_KEY,
            "PROXY_URL": proxy.url(f"someone:{PROXY_PASSWORD}"),
            "CHATGPT_BASE_URL": sim.url,
            "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token",
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",  # nobody is there: a caller's own key must not leave the machine
            "TRUSTED_PROXIES": "127.0.0.1",
            "ANONYMOUS": "on",
            "RETRY_TIMES": "0",
            "ENABLE_LIMIT": "false",
            "DRAIN_ACCEPT": "0",
            "FIRST_CONTENT_TIMEOUT": "5",
        }
        kept.canaries["key"] = {*OPERATOR_KEYS, AUTH_KEY, SECRET_KEY, SHARED_KEY, PROXY_PASSWORD}
        tokens = "\n".join([a.refresh_token for a in sim.control.accounts[:3]] + [sim.control.accounts[3].access_token])
        (folder / "tokens.txt").write_text(tokens)
        async with running("tokens", "add", "tokens.txt", cwd=folder, environ=environ) as adding:
            added = await adding.wait()
            assert added.status == 0, added.err
        async with running(cwd=folder, environ=environ, module=("-c", BREAKING)) as server:
            async with calling(server) as http:
                await _use_everything(http, sim, kept)
            kept.files = _files(folder)
            data = folder / "data"
            with closing(sqlite3.connect(f"file:{data / 'records.db'}?mode=ro", uri=True)) as records:
                kept.remembered = {row[0] for row in records.execute("SELECT conversation_id FROM conversations")}
            kept.modes = {str(path): path.stat().st_mode for path in (data, *data.rglob("*"))}
            kept.ended = await server.stop()
        async with running("serve", cwd=folder, environ=environ) as server:
            async with calling(server) as http:
                await _be_killed(http, sim, kept, server.process)
            killed = await server.wait()
            kept.files |= {f"{name} after a kill": data for name, data in _files(folder).items()}
        kept.ended = Ended(
            kept.ended.status, kept.ended.out + added.out + killed.out, kept.ended.err + added.err + killed.err
        )
        for account in sim.control.accounts:
            kept.canaries.setdefault("token", set()).update(
                (account.access_token, account.refresh_token, account.session_cookie, account.email),
                (sim.control.refresh_token(account.user_id),),
            )
        for record in sim.control.requests:
            bearer = record.request.header("authorization") or ""
            if bearer:
                kept.canaries["token"].add(bearer.removeprefix("Bearer "))
            headers = "\n".join(f"{name}: {value}" for name, value in record.request.headers)
            kept.sent.append(f"{record.request.target}\n{headers}\n\n{record.request.body.decode(errors='replace')}")
    yield kept


@asynccontextmanager
async def calling(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a server, once that listens."""
    base = await server.find(r"listens on (http://\S+)")
    async with httpx.AsyncClient(
        base_url=base, headers={"User-Agent": CALLER_AGENT}, timeout=30, trust_env=False
    ) as http:
        yield http


def _files(folder: Path) -> dict[str, bytes]:
    """Give everything that lies in the server's folders now: database, log and index of it, temporary files, dumps."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "tokens.txt"
    }


class Client:
    """A caller that puts canaries into everything it sends."""

    def __init__(self, http: httpx.AsyncClient, kept: Evidence) -> None:
        self._http = http
        self._kept = kept
        self._calls = 0

    def headers(self, key: str | None) -> dict[str, str]:
        """Give headers as a reverse proxy adds them, from another address each time."""
        self._calls += 1
        address = f"{CALLER_NETWORK}{self._calls % 250}"
        bearer = {} if key is None else {"Authorization": f"Bearer {key}"}
        return {**bearer, "X-Forwarded-For": address, "X-Real-Ip": address}

    def body(self, fields: dict[str, Any]) -> dict[str, Any]:
        canary = self._kept.canary
        messages = [
            {"role": "system", "content": canary("prompt")},
            {"role": "user", "content": canary("prompt"), "name": canary("author")},
            {"role": "assistant", "content": canary("prompt")},
            {"role": "user", "content": f"Say: one {canary('reply')} two three"},
        ]
        user = {"user": canary("name"), "metadata": {"session": canary("name")}}
        return {"model": "auto", "stream": self._calls % 2 == 0, "messages": messages, **user, **fields}

    async def ask(self, key: str | None, **fields: Any) -> httpx.Response:
        """Ask for a chat completion and keep the answer."""
        return await self.send(key, json=self.body(fields))

    async def send(self, key: str | None, kind: str | None = None, **content: Any) -> httpx.Response:
        headers = self.headers(key) | ({"Content-Type": kind} if kind else {})
        answer = await self._http.post("/v1/chat/completions", headers=headers, **content)
        self._kept.answers.append(answer)
        return answer

    async def site(self, method: str, path: str, key: str | None, body: Any = None) -> httpx.Response:
        """Make one of the website's calls and keep the answer."""
        given = {} if body is None else {"json": body}
        answer = await self._http.request(method, path, headers=self.headers(key), **given)
        self._kept.answers.append(answer)
        return answer

    def turn(self, **fields: Any) -> dict[str, Any]:
        """Give the body of a turn as the website writes it."""
        canary = self._kept.canary
        parts = [f"{canary('prompt')} Say: one {canary('reply')} two three"]
        message = {"content": {"content_type": "text", "parts": parts}, "metadata": {"session": canary("name")}}
        return {"messages": [message], "timezone": canary("name"), canary("name"): canary("prompt"), **fields}

    async def get(self, path: str, key: str | None) -> httpx.Response:
        return await self._http.get(path, headers=self.headers(key))


async def _use_everything(http: httpx.AsyncClient, sim: Simulator, kept: Evidence) -> None:
    """Make calls of every kind, good and bad, each with canaries of its own."""
    client = Client(http, kept)
    for _ in range(kept.rounds):
        await _use_well(client, sim, kept)
        await _use_badly(client, kept)
        await _use_the_websites_calls(client, sim, kept)
        await _meet_mistakes(client, kept)
        await _leave(client, sim)
        await _meet_failures(client, sim, kept)
    # Last, since the only exit is distrusted after it.
    sim.control.fail("conversation", Fault("answer", status=403, body=json.dumps({"detail": kept.canary("error")})))
    await client.ask(sim.control.add_account().access_token)
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/static/style.css", "/v1/models"):
        kept.pages.append(await client.get(path, OPERATOR_KEYS[0]))


async def _use_well(client: Client, sim: Simulator, kept: Evidence) -> None:
    stranger = sim.control.add_account()
    keys = [*OPERATOR_KEYS, stranger.access_token, stranger.refresh_token, SHARED_KEY, None]
    for key in keys * 2:
        answer = await client.ask(key)
        assert answer.status_code == 200, answer.text
    await asyncio.gather(*(client.ask(OPERATOR_KEYS[0]) for _ in range(6)))
    await client.ask(OPERATOR_KEYS[0], model="nobody-knows-this")
    for key in (OPERATOR_KEYS[0], stranger.refresh_token) * 2:
        answer = await client.ask(key, history_disabled=False)
        kept.conversations.update(re.findall(r'"conversation_id":"([0-9a-f-]{36})"', answer.text))


async def _use_badly(client: Client, kept: Evidence) -> None:
    """Send what this server refuses."""
    canary = kept.canary
    for wrong in (
        {"temperature": canary("prompt")},
        {"model": ""},
        {"n": canary("prompt")},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": canary("file")}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": canary("file")}}]}]},
        {"messages": [{"role": "narrator", "content": canary("prompt")}]},
        {"messages": [{"role": "user", "content": {"text": canary("prompt")}}]},
        {"conversation_id": canary("name")},
        {"stream": canary("prompt")},
        {canary("name"): canary("prompt")},
    ):
        await client.ask(OPERATOR_KEYS[0], **wrong)
    for bad in (f"sk-{canary('key')}", f"eyJ{canary('key')}", f"rt_{canary('key') * 4}", canary("key")):
        await client.ask(bad)
    broken = f'{{"{canary("prompt")}'
    await client.send(OPERATOR_KEYS[0], content=broken)
    await client.send(OPERATOR_KEYS[0], content=broken, kind="application/json")
    for path in (f"/v1/{canary('name')}", f"/{canary('name')}?key={canary('key')}"):
        kept.answers.append(await client.get(path, OPERATOR_KEYS[0]))


async def _use_the_websites_calls(client: Client, sim: Simulator, kept: Evidence) -> None:
    """Talk as front ends of the website do, well and badly."""
    canary = kept.canary
    stranger = sim.control.add_account()
    for key in (OPERATOR_KEYS[0], stranger.refresh_token, stranger.access_token, None):
        temporary = {"history_and_training_disabled": True} if key in (stranger.access_token, None) else {}
        answer = await client.site("POST", "/conversation", key, client.turn(**temporary))
        assert answer.status_code == 200, answer.text
        if temporary:
            continue
        (made,) = set(re.findall(r'"conversation_id":"([0-9a-f-]{36})"', answer.text))
        if key == OPERATOR_KEYS[0]:
            kept.conversations.add(made)
        assert (
            await client.site("PATCH", f"/conversation/{made}", key, {"title": canary("prompt")})
        ).status_code == 200
        for path in (f"/conversation/{made}", "/backend-api/conversations?limit=100", "/models", "/accounts/check"):
            assert (await client.site("GET", path, key)).status_code == 200
        rating = {"conversation_id": made, "rating": "thumbsUp", "text": canary("prompt")}
        await client.site("POST", "/conversation/message_feedback", key, {**rating, "message_id": canary("prompt")})
    for method, path, body in (
        ("POST", "/conversation", {"messages": canary("prompt")}),
        ("POST", "/conversation", client.turn(conversation_id=canary("name"))),
        ("POST", "/conversation", client.turn(conversation_id=f"../{canary('name')}")),
        ("POST", "/conversation", client.turn(model={"name": canary("prompt")})),
        ("PATCH", f"/conversation/{canary('name')}", {"title": canary("prompt")}),
        ("PATCH", f"/conversation/{canary('name')}", {canary("name"): canary("prompt")}),
        ("GET", f"/conversation/{canary('name')}", None),
        ("GET", f"/conversations?limit={canary('name')}", None),
        ("GET", f"/backend-api/{canary('name')}", None),
        ("POST", "/auth/login", {"username": canary("name"), "password": canary("key")}),
        ("POST", "/auth/login", {"username": canary("name"), canary("name"): canary("key")}),
    ):
        answer = await client.site(method, path, OPERATOR_KEYS[0], body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
    for wrong in (canary("key"), f"c2a-user-{canary('key')}"):
        await client.site("GET", "/conversations", wrong)
    said = f"{canary('prompt')} Say: {canary('reply')} BREAK-add"
    body = client.turn(messages=[{"content": {"parts": [said]}}], history_and_training_disabled=True)
    await client.site("POST", "/conversation", OPERATOR_KEYS[0], body)


async def _meet_mistakes(client: Client, kept: Evidence) -> None:
    """Let the program itself fail, whole and streamed."""
    for place, stream in itertools.product(BREAKS, (False, True)):
        said = f"Say: {kept.canary('reply')} BREAK-{place}"
        wanted = {"model": f"{kept.canary('name')}-BREAK-{place}"} if place == "choose_model" else {}
        options = {"stream_options": {"include_usage": True}} if stream else {}
        messages = [{"role": "user", "content": f"{kept.canary('prompt')} {said}"}]
        await client.ask(OPERATOR_KEYS[0], stream=stream, messages=messages, **wanted, **options)


async def _be_killed(
    http: httpx.AsyncClient, sim: Simulator, kept: Evidence, process: asyncio.subprocess.Process
) -> None:
    """End the server as kill -9 does while answers are under way."""
    client = Client(http, kept)
    account = sim.control.add_account()
    sim.control.fail("conversation", Fault("stall", at="mid_stream", after=1), times=None, account=account.user_id)
    asking = [asyncio.ensure_future(client.ask(account.access_token, history_disabled=False)) for _ in range(4)]
    await sim.control.wait_until(lambda: sim.control.counters.open_streams == 4, 30.0)
    process.kill()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(end, httpx.HTTPError) for end in ends), ends


async def _leave(client: Client, sim: Simulator) -> None:
    """Hang up before the first word and after it."""
    for after in (0, 1):
        sim.control.fail("conversation", Fault("stall", at="mid_stream", after=after))
        leaving = asyncio.ensure_future(client.ask(sim.control.add_account().access_token))
        await sim.control.wait_until(lambda: sim.control.counters.open_streams == 1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await sim.control.wait_until(lambda: sim.control.counters.open_replies == 0)
        assert sim.control.streams[-1].outcome == "aborted"


async def _meet_failures(client: Client, sim: Simulator, kept: Evidence) -> None:
    """Let the backend refuse in words that repeat the request, and break; an account for each, some good calls between."""

    async def meet(route: str, fault: Fault, kind: str = "access_token") -> None:
        # The requirements are asked for in one stage or in two, each under its own path.
        preparing = route == "requirements"
        rule = sim.control.fail(
            None if preparing else route, fault, path="/backend-api/sentinel/" if preparing else "/"
        )
        await client.ask(getattr(sim.control.add_account(), kind))
        assert rule.used == 1, fault
        await client.ask(OPERATOR_KEYS[0])

    for status, shape in itertools.product((400, 404, 413, 422, 429, 500), ("text", "object", "list")):
        words = f"This is not allowed: {kept.canary('error')}"
        detail: Any = {"message": words, "code": "odd"} if shape == "object" else words
        if shape == "list":
            detail = [{"loc": ["body", "messages", words], "msg": words, "input": words}]
        route = "requirements" if shape == "object" else "conversation"
        await meet(route, Fault("answer", status=status, body=json.dumps({"detail": detail})))
    for do in ("reset", "close", "cut_frame", "error_event"):
        await meet("conversation", Fault(do, at="mid_stream", after=1, body=kept.canary("error")))
    await meet("conversation", Fault("error_event", at="before_content", body=kept.canary("error")))
    await meet("conversation", Fault("answer", status=200, body=f"<html>{kept.canary('error')}</html>"))
    refusal = json.dumps({"error": "odd_request", "error_description": kept.canary("error")})
    await meet("oauth_token", Fault("answer", status=400, body=refusal), "refresh_token")
    await meet("oauth_token", Fault("answer", named="invalid_grant"), "refresh_token")
    sim.control.set_options(answer="blocked")
    await client.ask(sim.control.add_account().access_token)
    sim.control.set_options(answer="text")


async def test_G6_there_are_enough_canaries_and_they_really_went_through(evidence: Evidence) -> None:
    assert len(evidence.all) >= (200 if evidence.rounds == 1 else 1000)
    everything = "\n".join(evidence.sent)
    for kind in ("prompt", "reply"):
        went = found_in(evidence.canaries[kind], everything)
        assert len(went) > len(evidence.canaries[kind]) / 2, kind
    statuses = [answer.status_code for answer in evidence.answers]
    assert statuses.count(200) >= 17 * evidence.rounds
    assert {400, 401, 403, 404, 429, 500, 502} <= set(statuses)
    assert "LOG_LEVEL=debug" in evidence.ended.err
    assert evidence.ended.err.count("\n") > 25


async def test_G6_S18_the_log_holds_none_of_them(evidence: Evidence) -> None:
    assert found_in(evidence.all, evidence.ended.err + evidence.ended.out) == []


async def test_S18_the_log_holds_no_caller_and_no_conversation(evidence: Evidence) -> None:
    log = evidence.ended.err
    assert CALLER_NETWORK not in log
    assert CALLER_AGENT not in log
    assert len(evidence.conversations) == 5 * evidence.rounds
    assert found_in(evidence.conversations, log) == []


async def test_S18_only_mistakes_of_the_program_left_a_traceback(evidence: Evidence) -> None:
    log = evidence.ended.err
    errors = re.findall(r"^.* ERROR .*$", log, re.MULTILINE)
    assert errors == [line for line in errors if "unexpected failure" in line]
    assert len(errors) == (len(BREAKS) * 2 + 1) * evidence.rounds
    assert log.count("builtins.KeyError\n") == len(errors), "what kind of mistake it was is told"


async def test_G6_S15_the_data_folder_holds_none_of_them(evidence: Evidence) -> None:
    assert {"data/records.db", "data/records.db-wal"} <= evidence.files.keys(), evidence.files.keys()
    for name, data in evidence.files.items():
        assert found_in(evidence.all, data) == [], name


async def test_G6_only_conversations_that_shall_go_on_are_remembered(evidence: Evidence) -> None:
    assert evidence.remembered == evidence.conversations


async def test_G6_the_data_folder_holds_no_caller(evidence: Evidence) -> None:
    for data in evidence.files.values():
        assert CALLER_NETWORK.encode() not in data
        assert CALLER_AGENT.encode() not in data


async def test_S17_no_answer_gives_back_a_secret(evidence: Evidence) -> None:
    secrets = evidence.of("key", "token")
    for answer in (*evidence.answers, *evidence.pages):
        assert found_in(secrets, answer.content) == [], answer.request.url
        assert found_in(secrets, str(answer.headers)) == []


async def test_S17_no_header_tells_of_prompts_names_or_errors(evidence: Evidence) -> None:
    for answer in evidence.answers:
        given = {name: value for name, value in answer.headers.items() if name != "x-chat2api-ignored"}
        assert found_in(evidence.all, str(given)) == []


async def test_G6_an_error_does_not_repeat_the_request(evidence: Evidence) -> None:
    for answer in evidence.answers:
        if answer.status_code >= 400:
            assert found_in(evidence.of("prompt", "reply", "file"), answer.content) == [], answer.text


async def test_G6_a_page_tells_of_nobody(evidence: Evidence) -> None:
    for page in evidence.pages:
        assert found_in(evidence.all, page.content) == []
        assert CALLER_AGENT not in page.text
        assert CALLER_NETWORK not in page.text


async def test_S5_no_key_of_ours_travels_upstream(evidence: Evidence) -> None:
    ours = {*OPERATOR_KEYS, SECRET_KEY, PROXY_PASSWORD}
    assert found_in(ours, "\n".join(evidence.sent)) == []
    assert any(f"authkey: {AUTH_KEY}" in text for text in evidence.sent), "this one is meant for them"


async def test_G6_nothing_of_the_caller_travels_upstream(evidence: Evidence) -> None:
    for text in evidence.sent:
        assert CALLER_AGENT not in text
        assert CALLER_NETWORK not in text
        assert "x-forwarded" not in text.lower()
        assert found_in(evidence.of("name"), text) == [] or '"name":' in text, "only the message's own author"


async def test_S19_what_is_kept_is_private(evidence: Evidence) -> None:
    assert {name: mode for name, mode in evidence.modes.items() if mode & 0o077} == {}
