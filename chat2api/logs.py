"""Log format, request id and redaction: what a log line may hold is decided here, once.

Redaction works in two ways: by pattern (tokens, keys, bearers, cookies, addresses of mail) and by exact match of every
secret that the server has loaded. It happens when a record is formatted, tracebacks included, so no caller can forget it.
"""

import logging
import re
import sys
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the request being served, `-` outside of one."""

_PATTERNS = re.compile(
    r"(?P<jwt>\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4})"
    r"|(?P<refresh>\brt_[A-Za-z0-9._-]{16,})"
    r"|(?P<key>\b(?:sk|sess|fk)-[A-Za-z0-9_-]{8,})"
    r"|(?P<bearer>(?<=\bBearer )[^\s'\",]+)"
    r"|(?P<cookie>(?<=[Cc]ookie: )[^\r\n]+)"
    r"|(?P<userinfo>(?<=://)[^/\s:@]+:[^/\s@]+(?=@))"
    r"|(?P<token45>(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{45}(?![A-Za-z0-9_-]))"
    r"|(?P<mail>[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)"
)

_SHORTEST_SECRET = 8


class Redactor:
    """Takes secrets out of text."""

    def __init__(self) -> None:
        """Start with the patterns alone; `learn` adds exact secrets."""
        self._exact: set[str] = set()

    def learn(self, *secrets: str) -> None:
        """Remember loaded secrets; ones under 8 characters are left out, they would blank ordinary words."""
        self._exact.update(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)

    def redact(self, text: str) -> str:
        """Give the text without secrets."""
        for secret in self._exact:
            if secret in text:
                text = text.replace(secret, "[secret]")
        return _PATTERNS.sub(lambda match: f"[{match.lastgroup}]", text)


class RedactingFormatter(logging.Formatter):
    """One line a record: time, level, request id, logger, message; secrets taken out, line breaks escaped."""

    def __init__(self, redactor: Redactor) -> None:
        """Format with that redactor."""
        super().__init__("%(asctime)s %(levelname)-7s %(request_id)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Give the finished line; a traceback follows on lines of its own."""
        record.request_id = request_id.get()
        message = self._redactor.redact(record.getMessage()).replace("\r", "\\r").replace("\n", "\\n")
        record.message, record.asctime = message, self.formatTime(record)
        line = self.formatMessage(record)
        if record.exc_info:
            line += "\n" + self._redactor.redact(self.formatException(record.exc_info))
        return line


def configure_logging(level: str, redactor: Redactor) -> None:
    """Send all log records to standard error through the redactor. `level` is a name such as info."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("hypercorn.error", "hypercorn.access", "asyncio", "apscheduler", "alembic", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
