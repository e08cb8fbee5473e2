"""T1's table: every cause that there is today, through the real server, in one place.

Each row brings its cause about and asks one question; what is told must be exactly the row, streamed and not. The causes
are real ones wherever a test can make them so.
"""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from chat2api.errors import DrainingError
from chat2api.keys.operator import OperatorKeys
from chat2api.simulator.accounts import Credentials
from chat2api.simulator.faults import Fault
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from tests.e2e.harness import OPERATOR_KEY, Bench, Told, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID, SERVER, LIMIT = "invalid_request_error", "server_error", "requests"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("table"), ANONYMOUS="on", UPSTREAM_HEADERS_TIMEOUT="2") as made:
        yield made


@dataclass
class Stage:
    """Where a row plays: the bench, its two accounts, whether the answer is streamed, and what is put back afterwards."""

    bench: Bench
    accounts: tuple[Credentials, ...]
    stream: bool
    after: AsyncExitStack

    async def ask(self, key: str | None = OPERATOR_KEY, **fields: Any) -> Told:
        """Ask for a chat completion."""
        return await self.bench.ask(self.stream, key=key, **fields)

    async def send(self, method: str, path: str, key: str | None = OPERATOR_KEY, **options: Any) -> Told:
        """Send any request."""
        headers = ({} if key is None else {"Authorization": f"Bearer {key}"}) | options.pop("headers", {})
        answer = await self.bench.http.request(method, path, headers=headers, **options)
        return Told(answer.status_code, answer.headers, answer.content)

    def change(self, thing: Any, **values: Any) -> None:
        """Set attributes for this row alone."""
        for name, value in values.items():
            self.after.callback(setattr, thing, name, getattr(thing, name))
            setattr(thing, name, value)

    def configure(self, **settings: Any) -> None:
        """Change settings for this row alone."""
        runtime = self.bench.house.runtime
        self.change(runtime, config=dataclasses.replace(runtime.config, **settings))

    async def issue(self, *, models: tuple[str, ...] | None = None, **limits: Any) -> str:
        """Issue a key and give it."""
        new = NewKey("somebody", None, scope=KeyScope(models=models), limits=KeyLimits(**limits))
        return (await self.bench.house.runtime.keys.issue(new)).secret


Cause = Callable[[Stage], Awaitable[Told]]


def refused(named: str, route: str = "conversation", *, key: str | None = OPERATOR_KEY, **values: Any) -> Cause:
    """Give the cause that the backend refuses a call in a known way, for as long as the row lasts."""

    async def play(stage: Stage) -> Told:
        stage.bench.control.refuse(route, named, times=None, **values)
        return await stage.ask(key)

    return play


def faulty(do: str, at: str, **settings: Any) -> Cause:
    """Give the cause that something goes wrong on the wire."""

    async def play(stage: Stage) -> Told:
        stage.bench.control.fail("conversation", Fault(do, at=at, **settings), times=None)  # type: ignore[arg-type]
        return await stage.ask()

    return play


async def no_key(stage: Stage) -> Told:
    stage.configure(anonymous="off")
    return await stage.ask(None)


async def wrong_key(stage: Stage) -> Told:
    return await stage.ask("sk-c2a-" + "x" * 50)


async def no_scope(stage: Stage) -> Told:
    return await stage.send("GET", "/metrics", await stage.issue())


async def foreign_object(stage: Stage) -> Told:
    return await stage.ask(conversation_id="11111111-2222-4333-8444-555555555555")


async def no_route(stage: Stage) -> Told:
    return await stage.send("GET", "/v1/nothing")


async def wrong_method(stage: Stage) -> Told:
    return await stage.send("PATCH", "/v1/chat/completions")


async def own_token(stage: Stage) -> Told:
    stage.bench.control.refuse("conversation", "token_revoked", times=None)
    return await stage.ask(stage.accounts[0].access_token)


async def bad_body(stage: Stage) -> Told:
    return await stage.ask(temperature="warm")


async def no_json(stage: Stage) -> Told:
    return await stage.send(
        "POST", "/v1/chat/completions", content=b"{}", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )


async def too_large(stage: Stage) -> Told:
    return await stage.send(
        "POST", "/v1/chat/completions", content=b" " * (21 << 20), headers={"Content-Type": "application/json"}
    )


async def key_without_model(stage: Stage) -> Told:
    return await stage.ask(await stage.issue(models=("gpt-4o-mini",)), model="o3")


async def key_rate(stage: Stage) -> Told:
    key = await stage.issue(requests_per_minute=1)
    assert (await stage.ask(key)).status == 200
    return await stage.ask(key)


async def key_quota(stage: Stage) -> Told:
    key = await stage.issue(requests_total=1)
    assert (await stage.ask(key)).status == 200
    return await stage.ask(key)


async def all_cooling(stage: Stage) -> Told:
    stage.bench.control.refuse("conversation", "retry_later", times=None, retry_after=100)
    await stage.ask()
    calls = stage.bench.calls
    told = await stage.ask()
    assert stage.bench.calls == calls, "nothing is asked while all wait"
    return told


async def long_wait(stage: Stage) -> Told:
    stage.bench.control.refuse("conversation", "model_cap", times=None, clears_in=3600)
    await stage.ask()
    return await stage.ask()


async def no_account(stage: Stage) -> Told:
    await stage.bench.clear()
    return await stage.ask()


async def too_slow(stage: Stage) -> Told:
    stage.configure(retry_times=0)
    stage.bench.control.fail("conversation", Fault("stall", at="before_headers"), times=None)
    return await stage.ask()


async def draining(stage: Stage) -> Told:
    async def stopped(*asked: object) -> AsyncIterator[Any]:
        if asked:
            raise DrainingError("The server is stopping.")
        yield

    stage.change(stage.bench.house.runtime.provider, chat=stopped)
    return await stage.ask()


async def store_out(stage: Stage) -> Told:
    stage.change(stage.bench.house.runtime, operator_keys=OperatorKeys((), shut="The records cannot be written."))
    return await stage.ask("some key")


@dataclass(frozen=True)
class Row:
    """A cause and what is told of it. `wait` is the least and the most of Retry-After."""

    cause: Cause
    status: int
    type: str
    code: str | None
    final: bool = True
    param: str | None = None
    wait: tuple[int, int] | None = None


TABLE = {
    "no key": Row(no_key, 401, INVALID, "invalid_api_key"),
    "wrong key": Row(wrong_key, 401, INVALID, "invalid_api_key"),
    "not in the key's scope": Row(no_scope, 403, INVALID, "permission_denied"),
    "foreign conversation": Row(foreign_object, 404, INVALID, "conversation_not_found", param="conversation_id"),
    "no such route": Row(no_route, 404, INVALID, "not_found"),
    "wrong method": Row(wrong_method, 405, INVALID, "method_not_allowed"),
    "own token refused": Row(own_token, 401, INVALID, "caller_token_rejected"),
    "no sign-in-free chat": Row(refused("unauthorized", key=None), 401, INVALID, "anonymous_unavailable"),
    "bad body": Row(bad_body, 400, INVALID, "invalid_type", param="temperature"),
    "not JSON": Row(no_json, 415, INVALID, "unsupported_media_type"),
    "too large": Row(too_large, 413, INVALID, "payload_too_large"),
    "refused by the backend": Row(refused("bad_field"), 400, INVALID, "upstream_invalid_request"),
    "too long for the model": Row(
        refused("message_too_long"), 400, INVALID, "context_length_exceeded", param="messages"
    ),
    "model outside the key's list": Row(key_without_model, 404, INVALID, "model_not_found", param="model"),
    "key's rate": Row(key_rate, 429, LIMIT, "rate_limit_exceeded", final=False, wait=(1, 60)),
    "key's quota": Row(key_quota, 429, "insufficient_quota", "insufficient_quota"),
    "all accounts cooling": Row(all_cooling, 429, LIMIT, "rate_limit_exceeded", final=False, wait=(70, 100)),
    "all accounts cooling for long": Row(long_wait, 429, LIMIT, "rate_limit_exceeded", wait=(3500, 3600)),
    "no account at all": Row(no_account, 503, SERVER, "no_account"),
    "workspace not allowed": Row(
        refused("workspace_unknown"), 403, INVALID, "workspace_not_allowed", param="ChatGPT-Account-ID"
    ),
    "human check": Row(refused("cloudflare"), 403, SERVER, "upstream_challenge"),
    "unusual activity": Row(refused("unusual_activity", "requirements"), 403, SERVER, "upstream_challenge"),
    "backend fails": Row(refused("server_error"), 502, SERVER, "upstream_server_error"),
    "connection breaks": Row(faulty("reset", "before_headers"), 502, SERVER, "upstream_transport"),
    "drift": Row(refused("page_instead"), 502, SERVER, "upstream_protocol"),
    "backend too slow": Row(too_slow, 504, SERVER, "upstream_timeout"),
    "draining": Row(draining, 503, SERVER, "draining", final=False, wait=(5, 5)),
    "store out": Row(store_out, 503, SERVER, "storage", final=False, wait=(5, 5)),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", TABLE)
async def test_T1_each_cause_is_told_as_the_table_says(bench: Bench, name: str, stream: bool) -> None:
    row = TABLE[name]
    async with bench.case(2) as accounts, AsyncExitStack() as after:
        told = await row.cause(Stage(bench, accounts, stream, after))
        hosts = (bench.sim.url, bench.sim.url.partition("//")[2])
    assert told.status == row.status, told.body
    assert told.headers["content-type"] == "application/json"
    assert told.headers["x-request-id"].startswith("req_")
    error = told.error
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (row.type, row.code, row.param)
    assert told.headers.get("x-should-retry") == ("false" if row.final else None)
    if row.wait is None:
        assert "retry-after" not in told.headers
    else:
        assert row.wait[0] <= int(told.headers["retry-after"]) <= row.wait[1]
    for foreign in (*hosts, "://", "</", "<!", "Traceback", "acc_"):
        assert foreign not in error["message"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("close", at="mid_stream", after=2), "stream_interrupted"),
        (Fault("end", at="mid_stream", after=2), "stream_interrupted"),
        (Fault("error_event", at="mid_stream", after=2), "upstream_server_error"),
    ],
    ids=["cut", "ended early", "error inside"],
)
async def test_T1_an_answer_that_is_cut_after_content_ends_with_one_error_event(
    bench: Bench, fault: Fault, code: str
) -> None:
    async with bench.case(2):
        bench.control.fail("conversation", fault, times=None)
        told = await bench.ask(True)
        assert bench.calls == 1
    assert told.status == 200
    assert told.text(), "something came before"
    assert [error["code"] for error in told.stream_errors] == [code]
    assert told.data[-1] != "[DONE]"
    assert all(set(error) == {"message", "type", "param", "code"} for error in told.stream_errors)
