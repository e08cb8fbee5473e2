"""The fault matrix (T1): every fault that the simulator knows, streamed and not, before and after the first content.

Each row says what goes wrong for one account, and what must come of it: what the caller is told when that account is the
only one, how many turns the backend sees, and whether a healthy second account answers instead (R3). Afterwards nothing
may be open upstream and no account leased; `Bench.case` checks that for every row.
"""

import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from chat2api.simulator.faults import Fault, Rule
from chat2api.simulator.wire import JSON
from tests.e2e.harness import ANSWER, WIRES, Bench, Benches, Told

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEBIBYTE = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Benches]:
    async with Benches(tmp_path_factory) as benches:
        yield benches


@pytest_asyncio.fixture(loop_scope="module")
async def bench(request: pytest.FixtureRequest, benches: Benches) -> Bench:
    return await benches.at(request.param)


@dataclass(frozen=True)
class Row:
    """A lasting fault of one account, and what comes of it.

    `calls` are the conversation calls that the faulty account gets. `spare` tells whether a healthy second account is
    asked then; where it is not, the caller is told the same with one account as with two.
    """

    name: str
    fault: Fault | None = None
    route: str = "conversation"
    options: dict[str, JSON] = field(default_factory=dict)
    status: int = 200
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    calls: int = 1
    spare: bool = True
    retry_after: int | None = None

    def lay(self, bench: Bench, account: str) -> None:
        """Script it, for as long as the case lasts."""
        if self.fault is not None:
            bench.control.fail(self.route, self.fault, account=account, times=None)
        else:
            bench.control.add_rule(Rule(self.route, account=account, times=None, settings=self.options))


def rows_over_wires(
    rows: Sequence["Row | LateRow"], *, part: tuple[int, int] = (0, 1), plain: Sequence["Row"] = ()
) -> pytest.MarkDecorator:
    """Run all rows, streamed and not, over the plain wire, and over each other wire a part of them in one form each.

    The rows of `plain` run over the plain wire only. Which part and which form a row has over another wire differs
    from wire to wire and is the same in every run.
    """
    place, parts = part
    cases = []
    for wire in WIRES:
        for row in (*rows, *plain) if wire == "plain" else rows:
            lot = zlib.crc32(f"{row.name} {wire}".encode())
            for stream in (False, True):
                if wire == "plain" or (lot % parts == place and bool(lot >> 8 & 1) is stream):
                    name = f"{wire}-{row.name}-{'streamed' if stream else 'whole'}"
                    cases.append(pytest.param(wire, row, stream, id=name.encode("unicode_escape").decode()))
    return pytest.mark.parametrize(("bench", "row", "stream"), cases, indirect=["bench"])


def refused(named: str, status: int, type_: str, code: str, **more: Any) -> Row:
    """Give a row for a ready-made refusal of the conversation call."""
    values = more.pop("values", {})
    return Row(named, Fault("answer", named=named, values=values), status=status, type=type_, code=code, **more)


def stream_fault(do: str, at: str, status: int, code: str, **more: Any) -> Row:
    """Give a row for something that goes wrong on the wire."""
    settings = {name: more.pop(name) for name in ("after", "body", "size", "seconds") if name in more}
    name = more.pop("name", f"{do}-{at}")
    return Row(name, Fault(do, at=at, **settings), status=status, code=code, **more)  # type: ignore[arg-type]


INVALID = "invalid_request_error"
SERVER = "server_error"
LIMIT = "requests"

# What ends an account's sign-in leaves a pool of one without any usable account.
SIGNED_OUT = [
    refused(named, 503, SERVER, "no_account")
    for named in (
        "token_expired",
        "invalid_jwt",
        "token_invalidated",
        "token_revoked",
        "account_deactivated",
        "unauthorized",
    )
]
LIMITED = [
    refused("model_cap", 429, LIMIT, "rate_limit_exceeded", values={"clears_in": 90}, retry_after=90),
    refused("retry_later", 429, LIMIT, "rate_limit_exceeded", values={"retry_after": 30}, retry_after=30),
    refused("too_many_requests", 429, LIMIT, "rate_limit_exceeded", retry_after=60),
    refused("one_at_a_time", 429, LIMIT, "rate_limit_exceeded", retry_after=60),
    refused("rate_limit_exceeded", 429, LIMIT, "rate_limit_exceeded", retry_after=60),
]
CHALLENGED = [
    refused(named, 403, SERVER, "upstream_challenge", spare=False)
    for named in (
        "unusual_activity",
        "unusual_activity_2024",
        "unsupported_country",
        "cloudflare",
        "cloudflare_2024",
    )
]
NOT_A_MEMBER = [
    refused("workspace_unknown", 403, INVALID, "workspace_not_allowed", param="ChatGPT-Account-ID"),
]
FAILING = [
    refused(named, 502, SERVER, "upstream_server_error", calls=2)
    for named in ("server_error", "overloaded", "timeout", "bad_gateway_page")
]
WRONG_REQUEST = [
    refused("bad_request", 400, INVALID, "upstream_invalid_request", spare=False),
    refused("teapot", 400, INVALID, "upstream_invalid_request", spare=False),
    refused("bad_field", 400, INVALID, "upstream_invalid_request", spare=False),
    refused("bad_value", 400, INVALID, "upstream_invalid_request", spare=False),
    refused("message_too_long", 400, INVALID, "context_length_exceeded", param="messages", spare=False),
    refused("conversation_not_found", 404, INVALID, "conversation_not_found", param="conversation_id", spare=False),
    refused("conversation_inaccessible", 404, INVALID, "conversation_not_found", param="conversation_id", spare=False),
]
NOT_UNDERSTOOD = [
    refused("page_instead", 502, SERVER, "upstream_protocol"),
    refused("nothing", 502, SERVER, "upstream_protocol"),
    refused("empty_object", 502, SERVER, "upstream_protocol"),
    # Both forms of the call are gone; each is tried once.
    refused("not_found", 502, SERVER, "upstream_protocol", calls=2),
    refused("method_not_allowed", 502, SERVER, "upstream_protocol", calls=2),
    refused("gone", 502, SERVER, "upstream_protocol", calls=2),
]
# The whole request had left: the backend may have acted on it, so it is never sent to the same account again.
BROKEN = [
    stream_fault(do, at, 502, "upstream_transport")
    for at in ("before_headers", "mid_headers", "before_content")
    for do in ("reset", "close", "reset_stream", "go_away")
    if (do, at) != ("reset_stream", "mid_headers")  # HTTP/2 has no frame inside a frame
]
CUT_BEFORE_TEXT = [
    stream_fault(do, "mid_stream", 502, code, after=0, name=f"{do}-before-text")
    for do, code in (
        ("reset", "upstream_transport"),
        ("close", "upstream_transport"),
        ("reset_stream", "upstream_transport"),
        ("go_away", "upstream_transport"),
        ("end", "upstream_protocol"),
        ("cut_frame", "upstream_transport"),
        ("cut_character", "upstream_transport"),
    )
]
SPOILT = [
    stream_fault("end", "before_content", 502, "upstream_protocol"),
    stream_fault("cut_character", "before_content", 502, "upstream_transport"),
    stream_fault("endless_line", "before_content", 502, "upstream_protocol", size=3 * MEBIBYTE),
    stream_fault("oversized_event", "before_content", 502, "upstream_protocol", size=3 * MEBIBYTE),
    stream_fault("error_event", "before_content", 502, "upstream_server_error", calls=2),
    stream_fault(
        "bytes", "before_content", 502, "upstream_protocol", body="<html>no</html>\n\n", name="page-in-stream"
    ),
    Row("empty", options={"answer": "empty"}, status=502, code="upstream_protocol"),
    Row("error", options={"answer": "error"}, status=403, code="upstream_challenge", spare=False),
    Row("system_error", options={"answer": "system_error"}, status=502, code="upstream_server_error", calls=2),
]
PREPARING = [
    Row("requirements-500", Fault("answer", named="server_error"), "requirements", {}, 502, SERVER,
        "upstream_server_error", calls=0),
    Row("requirements-page", Fault("answer", named="page_instead"), "requirements", {}, 502, SERVER,
        "upstream_protocol", calls=0),
    Row("requirements-limit", Fault("answer", named="retry_later", values={"retry_after": 40}), "requirements", {}, 429,
        LIMIT, "rate_limit_exceeded", calls=0, retry_after=40),
    Row("requirements-expired", Fault("answer", named="token_expired"), "requirements", {}, 503, SERVER,
        "no_account", calls=0),
    Row("requirements-challenge", Fault("answer", named="cloudflare"), "requirements", {}, 403, SERVER,
        "upstream_challenge", calls=0, spare=False),
    Row("requirements-reset", Fault("reset"), "requirements", {}, 502, SERVER, "upstream_transport", calls=0),
    Row("requirements-cut", Fault("answer", truncate=20, effect=True), "requirements", {}, 502, SERVER,
        "upstream_transport", calls=0),
    Row("requirements-nothing", Fault("answer", named="empty_object"), "requirements", {}, 502, SERVER,
        "upstream_protocol", calls=0),
    Row("forced-login", None, "requirements", {"force_login": True}, 503, SERVER, "no_account", calls=0),
    Row("proof-too-hard", None, "requirements", {"difficulty": "000000"}, 403, SERVER, "proof_of_work_too_hard",
        calls=0, spare=False),
    Row("turnstile", None, "requirements", {"turnstile": "enforced"}, 403, SERVER, "upstream_challenge", spare=False),
    Row("arkose", None, "conversation", {"arkose": True}, 403, SERVER, "upstream_challenge", spare=False),
]  # fmt: skip

BEFORE_CONTENT = [
    *SIGNED_OUT,
    *LIMITED,
    *CHALLENGED,
    *NOT_A_MEMBER,
    *FAILING,
    *WRONG_REQUEST,
    *NOT_UNDERSTOOD,
    *BROKEN,
    *CUT_BEFORE_TEXT,
    *SPOILT,
    *PREPARING,
]


@rows_over_wires(BEFORE_CONTENT, part=(0, 2))
async def test_T1_R3_a_fault_before_content_is_told_as_what_it_is(bench: Bench, row: Row, stream: bool) -> None:
    async with bench.case(1) as (account,):
        row.lay(bench, account.user_id)
        told = await bench.ask(stream)
        assert bench.calls == row.calls
    check_refusal(told, row)


@rows_over_wires(BEFORE_CONTENT, part=(1, 2))
async def test_T1_R3_a_second_account_answers_where_that_makes_sense(bench: Bench, row: Row, stream: bool) -> None:
    async with bench.case(2) as (account, _):
        row.lay(bench, account.user_id)
        told = await bench.ask(stream)
        assert bench.calls == row.calls + row.spare
    if row.spare:
        check_answer(told)
    else:
        check_refusal(told, row)


def check_refusal(told: Told, row: Row) -> None:
    """Check that the caller was told this row's error and nothing of what is behind it."""
    assert told.status == row.status, told.body
    assert told.headers["content-type"] == "application/json"
    error = told.error
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (row.type, row.code, row.param)
    check_message(error["message"])
    assert told.headers["x-request-id"].startswith("req_")
    if row.retry_after is None:
        assert told.headers["x-should-retry"] == "false"
        assert "retry-after" not in told.headers
    else:
        # The server's clock runs fast, so some seconds of the wait are over already.
        assert row.retry_after - 20 <= int(told.headers["retry-after"]) <= row.retry_after


def check_message(message: str) -> None:
    """Check that a message is fit for a caller: a sentence, without markup, addresses or the request's own text."""
    assert ". " in message or message.endswith((".", ")")), message
    for foreign in ("<", "Traceback", "127.0.0.1:", "://", "the text of the prompt", "simulator"):
        assert foreign not in message


def check_answer(told: Told) -> None:
    """Check that the answer is whole and ends well."""
    assert told.status == 200, told.body
    assert told.text() == ANSWER
    assert told.finish_reasons() == ["stop"]
    if told.headers["content-type"].startswith("text/event-stream"):
        assert told.data[-1] == "[DONE]"
        assert not told.stream_errors


# What looks odd but is no fault: the answer is whole, in one call.
ODD_BYTES = [
    stream_fault("bytes", "before_content", 200, "", body='garbage\n\n: comment\n\ndata: {"x":1}\n\n', name="garbage"),
    stream_fault("bytes", "mid_stream", 200, "", body="data: \xff\xfe{]\n\n", after=1, name="garbage-mid-stream"),
    stream_fault("flood", "before_content", 200, "", size=MEBIBYTE),
    stream_fault("flood", "mid_stream", 200, "", size=MEBIBYTE, after=1, name="flood-mid-stream"),
    stream_fault("oversized_event", "before_content", 200, "", size=MEBIBYTE // 2, name="large-event"),
    stream_fault("drip", "before_content", 200, "", seconds=0.0),
    stream_fault("drip", "mid_stream", 200, "", seconds=0.0, after=1, name="drip-mid-stream"),
    Row("home-page-500", Fault("answer", named="server_error"), "home"),
    Row("split", options={"split": 7}),
]
# The same, in what the bytes say; that does not depend on the way they come.
ODD_EVENTS = [
    Row(f"{name}={value}", options={name: value})
    for name, value in (
        ("done", "twice"), ("done", "absent"), ("newline", "\r\n"), ("comments", True), ("timestamps", True),
        ("glued", True), ("empty_data", True), ("trailing_blanks", True), ("finish", "late"), ("finish", "absent"),
        ("early_markers", True), ("late_events", True), ("complete", False), ("title", "twice"), ("pad", 500),
        ("side_events", False), ("echoes", False), ("encoding", "v1"), ("encoding", "classic"),
        ("answer", "whole_add"), ("answer", "final_patch"), ("answer", "bare_lists"), ("answer", "memory"),
    )
]  # fmt: skip


@rows_over_wires(ODD_BYTES, plain=ODD_EVENTS)
async def test_R14_what_is_only_odd_does_not_harm(bench: Bench, row: Row, stream: bool) -> None:
    async with bench.case(1) as (account,):
        bench.clock.advance(901.0 if row.route == "home" else 0.0)
        row.lay(bench, account.user_id)
        told = await bench.ask(stream)
        assert bench.calls == 1
    check_answer(told)


@dataclass(frozen=True)
class LateRow:
    """A fault after the first content, and the code that ends the answer."""

    name: str
    fault: Fault | None
    code: str
    options: dict[str, JSON] = field(default_factory=dict)
    status: int = 502
    type: str = "server_error"


def late(do: str, code: str = "stream_interrupted", **settings: Any) -> LateRow:
    """Give a row for a fault after the second word."""
    return LateRow(do, Fault(do, at="mid_stream", after=2, **settings), code)  # type: ignore[arg-type]


AFTER_CONTENT = [
    late("reset"),
    late("close"),
    late("end"),
    late("reset_stream"),
    late("go_away"),
    late("cut_frame"),
    late("cut_character"),
    late("endless_line", size=3 * MEBIBYTE),
    late("oversized_event", size=3 * MEBIBYTE),
    late("error_event", "upstream_server_error"),
    late("flood", size=66 * MEBIBYTE),
    LateRow("error_midway", None, "upstream_server_error", {"answer": "error_midway"}),
]


@rows_over_wires(AFTER_CONTENT)
async def test_T1_R2_a_fault_after_content_ends_the_answer_and_is_never_repeated(
    bench: Bench, row: LateRow, stream: bool
) -> None:
    async with bench.case(2) as (account, _):
        # A pause between the words, so that the first ones are on their way when the fault comes.
        options = {"delay": 0.01, **row.options}
        bench.control.add_rule(
            Rule("conversation", account=account.user_id, times=None, fault=row.fault, settings=options)
        )
        told = await bench.ask(stream)
        assert bench.calls == 1
    if not stream:
        check_refusal(told, Row(row.name, status=row.status, type=row.type, code=row.code))
        return
    assert told.status == 200
    assert "[DONE]" not in told.data
    (error,) = told.stream_errors
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (row.type, row.code, None)
    check_message(error["message"])
    assert told.text() and ANSWER.startswith(told.text())
    assert not told.finish_reasons()
    assert "error" in told.data[-1], "the error is the last event"


@pytest.mark.parametrize("bench", WIRES, indirect=True)
@pytest.mark.parametrize("do", ["reset", "close"])
async def test_R3_a_connection_that_is_lost_at_once_is_tried_again(bench: Bench, do: Any) -> None:
    async with bench.case(2):
        rule = bench.control.fail(None, Fault(do, at="accept"))
        told = await bench.ask()
        assert rule.used == 1
        assert bench.calls == 1
    check_answer(told)


@pytest.mark.parametrize("bench", WIRES, indirect=True)
@pytest.mark.parametrize("do", ["reset", "close"])
async def test_T1_no_connection_at_all_is_a_502(bench: Bench, do: Any) -> None:
    async with bench.case(1):
        bench.control.fail(None, Fault(do, at="accept"), times=None)
        told = await bench.ask()
        assert bench.calls == 0
    check_refusal(told, Row(do, status=502, code="upstream_transport"))
