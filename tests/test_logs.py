"""Log lines: secrets never in clear, one line a record, tracebacks included."""

import logging
import random

import pytest

from chat2api.errors import StorageError
from chat2api.logs import _PATTERNS, RedactingFormatter, Redactor, configure_logging, request_id

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ"


def render(message: str, *args: object, redactor: Redactor | None = None, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("chat2api.test", logging.INFO, __file__, 1, message, args, info)
    return RedactingFormatter(redactor or Redactor()).format(record)


@pytest.mark.parametrize(
    "secret",
    [
        JWT,
        "rt_abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz",
        "sk-proj-abcdefgh12345678",
        "sk-c2a-abcdefgh12345678",
        "c2a-user-0123456789abcdef-1790000000-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "Abcdefghijklmnopqrstuvwxyz0123456789_-ABCDEFG",
        "someone.private@example.test",
    ],
)
def test_S18_every_kind_of_secret_is_taken_out_of_messages_and_arguments(secret: str) -> None:
    line = render("the value %s came", secret)
    assert secret not in line
    assert "the value" in line


def test_S18_headers_and_proxy_passwords_are_taken_out() -> None:
    line = render("Authorization: Bearer hunter2hunter2 and http://user:hunter3@proxy:1 and Cookie: sid=hunter4")
    assert "hunter" not in line


def test_S18_learned_secrets_are_taken_out_whatever_their_form() -> None:
    redactor = Redactor()
    redactor.learn("correct horse battery", "abc")
    line = render("correct horse battery staple abc", redactor=redactor)
    assert "correct horse" not in line
    assert "abc" in line, "very short secrets would blank ordinary words"


def test_S18_of_secrets_without_end_the_last_unlikely_ones_are_remembered() -> None:
    redactor = Redactor()
    odd = [f"{number:06d}/secret/without/form" for number in range(1500)]
    redactor.learn("correct horse battery")
    redactor.learn_passing(JWT, *odd, *(f"rt_{number:060d}" for number in range(2000)))

    line = render(f"{odd[0]} {odd[-1]} {JWT} rt_{7:060d} correct horse battery", redactor=redactor)

    assert line.endswith(f"{odd[0]} [secret] [jwt] [refresh] [secret]")


def test_S18_tracebacks_are_redacted_too() -> None:
    try:
        raise ValueError(f"bad token {JWT}")
    except ValueError as error:
        line = render("failed", error=error)
    assert "Traceback" in line
    assert JWT not in line


def test_G6_a_traceback_tells_where_and_what_but_not_what_the_exception_quotes() -> None:
    asked, answered = "the text of a pr" + "ompt", "the text of an ans" + "wer"
    try:
        try:
            raise KeyError(asked)
        except KeyError as cause:
            raise ExceptionGroup(asked, [StorageError("The disk is full."), ValueError(answered)]) from cause
    except ExceptionGroup as error:
        line = render("failed: future: <Task exception=%r>", error, error=error)
    assert asked not in line
    assert answered not in line
    assert "The disk is full." in line
    for kind in ("builtins.KeyError", "builtins.ExceptionGroup", "builtins.ValueError", "StorageError"):
        assert kind in line
    assert line.count("test_logs.py") >= 2, "the frames are told"
    assert line.index("KeyError") < line.index("which led to:") < line.index("of which one was:")


def test_a_traceback_keeps_what_the_system_says_and_ends_on_any_chain() -> None:
    first, second = OSError(28, "No space left on device", "/a/place"), ValueError("x")
    first.__context__, second.__context__ = second, first
    line = render("failed", error=first)
    assert "OSError: No space left on device" in line
    assert "/a/place" not in line


def test_a_record_is_one_line_and_bears_the_request_id() -> None:
    token = request_id.set("req_1")
    try:
        line = render("first\nsecond\rthird")
    finally:
        request_id.reset(token)
    assert "\n" not in line
    assert " req_1 " in line


def test_each_record_bears_its_own_time() -> None:
    formatter = RedactingFormatter(Redactor())
    for created in (1790000000.25, 1790000000.75, 1790000007.0, 1790000000.5):
        record = logging.LogRecord("chat2api.test", logging.INFO, __file__, 1, "told", (), None)
        record.created, record.msecs = created, created % 1 * 1000
        time_of_day = logging.Formatter().formatTime(record)
        assert formatter.format(record) == f"{time_of_day} INFO    - chat2api.test: told"


def test_the_log_goes_to_standard_error_from_its_level_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, quiet = logging.getLogger(), logging.getLogger("hypercorn.error")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(quiet, "level", logging.NOTSET)
    for switch in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, switch, getattr(logging, switch))
    before = root.level
    try:
        configure_logging("info", Redactor())
        told = logging.getLogger("chat2api.told")
        told.debug("too low")
        told.info("with %s", JWT)
        quiet.info("too low")
    finally:
        root.setLevel(before)
    assert [line.partition(" INFO ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "   - chat2api.told: with [jwt]"
    ]


def test_ordinary_words_stay() -> None:
    text = "leased account 3f9c for model gpt-4o after 2 attempts, status 429, https://chatgpt.com/backend-api"
    assert text in render(text)


def test_S18_a_line_without_a_mark_is_looked_through_by_one_pattern_with_the_same_result() -> None:
    rng = random.Random(18)
    parts = [
        "eyJ",
        "rt_",
        "sk-",
        "sess-",
        "fk-",
        "Bearer ",
        "cookie: ",
        "Cookie: ",
        "://",
        "@",
        "a.b",
        "A1",
        "x" * 9,
        " ",
        "-",
    ]
    parts += ["A1" * 22 + "b", "a1" * 9, "=", "/", ":", ".", "\u2003", "\u00e4"]
    for _ in range(20_000):
        text = "".join(rng.choices(parts, k=rng.randint(1, 8)))
        assert Redactor().redact(text) == _PATTERNS.sub(lambda match: f"[{match.lastgroup}]", text), text
