"""Log format, request id and redaction: what a log line may hold is decided here, once.

Redaction works in two ways: by pattern (tokens, keys, bearers, cookies, addresses of mail) and by exact match of every
secret that the server has loaded. It happens when a record is formatted, tracebacks included, so no caller can forget it.
A traceback tells where something failed and of which kind it was; what a foreign exception says is left out, since a
KeyError or a decoding error quotes the text that it met, which may be a prompt (G6).
"""

import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import chain

from chat2api.errors import Chat2APIError

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the request being served, `-` outside of one."""

_TOKEN45 = (
    r"(?P<token45>(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{45}(?![A-Za-z0-9_-]))"
)

_PATTERNS = re.compile(
    r"(?P<jwt>\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4})"
    r"|(?P<refresh>\brt_[A-Za-z0-9._-]{16,})"
    r"|(?P<key>\b(?:sk|sess|fk)-[A-Za-z0-9_-]{8,})"
    r"|(?P<user>\bc2a-user-[0-9a-f-]{8,})"
    r"|(?P<bearer>(?<=\bBearer )[^\s'\",]+)"
    r"|(?P<cookie>(?<=[Cc]ookie: )[^\r\n]+)"
    r"|(?P<userinfo>(?<=://)[^/\s:@]+:[^/\s@]+(?=@))"
    rf"|{_TOKEN45}"
    r"|(?P<mail>[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)"
)

_MARKS = ("eyJ", "rt_", "sk-", "sess-", "fk-", "c2a-", "Bearer ", "ookie: ", "://", "@")
"""Each pattern but that of 45 characters needs one of these. Most lines have none, and looking for all patterns at every
place of a line costs as much as all the rest of logging it."""

_LONG_WORD = re.compile(_TOKEN45)
_LONGEST_PLAIN = 45
"""Characters between blanks, fewer than which hold none of these words."""

_SHORTEST_SECRET = 8

_PASSING_KEPT = 1000


class Redactor:
    """Takes secrets out of text."""

    def __init__(self) -> None:
        """Start with the patterns alone; `learn` adds exact secrets."""
        self._exact: set[str] = set()
        self._passing: deque[str] = deque(maxlen=_PASSING_KEPT)

    def learn(self, *secrets: str) -> None:
        """Remember loaded secrets; ones under 8 characters are left out, they would blank ordinary words."""
        self._exact.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)

    def learn_passing(self, *secrets: str) -> None:
        """Remember secrets of which there are always new ones: the last of those that no pattern finds whole."""
        self._passing.extend(one for one in secrets if len(one) >= _SHORTEST_SECRET and not _PATTERNS.fullmatch(one))

    def redact(self, text: str) -> str:
        """Give the text without secrets."""
        for secret in chain(self._exact, self._passing):
            if secret in text:
                text = text.replace(secret, "[secret]")
        for mark in _MARKS:
            if mark in text:
                return _PATTERNS.sub(_kind, text)
        if max(map(len, text.split()), default=0) < _LONGEST_PLAIN:
            return text
        return _LONG_WORD.sub(_kind, text)


def _kind(match: re.Match[str]) -> str:
    return f"[{match.lastgroup}]"


class RedactingFormatter(logging.Formatter):
    """One line a record: time, level, request id, logger, message; secrets taken out, line breaks escaped."""

    def __init__(self, redactor: Redactor) -> None:
        """Format with that redactor."""
        super().__init__()
        self._redactor = redactor
        self._second = 0
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        """Give the finished line; a traceback follows on lines of its own."""
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            # asyncio's own records show the exception in the text.
            message = message.replace(repr(error), type(error).__name__)
        message = self._redactor.redact(message).replace("\r", "\\r").replace("\n", "\\n")
        line = f"{self._time(record)} {record.levelname:<7} {request_id.get()} {record.name}: {message}"
        if error is not None:
            line += "\n" + self._redactor.redact("\n".join(_told(error, set())))
        return line

    def _time(self, record: logging.LogRecord) -> str:
        """Give a record's time of day; most records share their second with the one before."""
        second = int(record.created)
        if second != self._second:
            self._second_text, self._second = self.formatTime(record, self.default_time_format), second
        return f"{self._second_text},{int(record.msecs):03d}"


def _told(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yield the lines of a traceback, causes first, with the words of our own exceptions and the system's only."""
    seen.add(id(error))
    for earlier in (error.__cause__, None if error.__suppress_context__ else error.__context__):
        if earlier is not None and id(earlier) not in seen:
            yield from _told(earlier, seen)
            yield "which led to:"
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield f"{type(error).__module__}.{type(error).__qualname__}{_words(error)}"
    for member in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        if id(member) not in seen:
            yield "of which one was:"
            yield from _told(member, seen)


def _words(error: BaseException) -> str:
    if isinstance(error, Chat2APIError):
        return f": {error}"
    return f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""


def configure_logging(level: str, redactor: Redactor) -> None:
    """Send all log records to standard error through the redactor. `level` is a name such as info.

    From then on records of this process do not tell which line, thread and process they come from: no line of the log
    shows it, and finding it out takes as long as writing the line. Source: Python's logging HOWTO, "Optimization".
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("hypercorn.error", "hypercorn.access", "asyncio", "apscheduler", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
