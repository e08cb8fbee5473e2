"""Forms with files (multipart/form-data), looked into while they pass: their fields are read, their files are not kept.

Source: RFC 7578, and RFC 2046 section 5.1.1 for where a part ends.
"""

import re

from chat2api.errors import InvalidRequestError, UnsupportedMediaTypeError

VALUE_LIMIT = 64 * 1024
"""Bytes of a field's value."""

_HEAD_LIMIT = 16 * 1024
_FIELDS_LIMIT = 256
_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;(?:[^"]*;)?\s*boundary="""
    r"""(?:"([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])"|([0-9A-Za-z'()+_,./:=?-]{1,70}))\s*(?:;.*)?""",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[0-9A-Za-z'+_.-]+")
_NAME = re.compile(
    rb"""^content-disposition[ \t]*:[ \t]*form-data\b[^\r\n]*?;[ \t]*name="([^"\\\r\n]*)\"""",
    re.IGNORECASE | re.MULTILINE,
)
_NAMES = re.compile(rb"""[; \t]name[ \t]*\*?[ \t]*=""", re.IGNORECASE)
_UNCLEAR = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")
"""Ends of lines that not everybody takes for one."""
_FILE = re.compile(rb"""^content-disposition[ \t]*:[^\r\n]*;[ \t]*filename\*?=""", re.IGNORECASE | re.MULTILINE)


def read_boundary(content_type: str | None) -> bytes:
    """Give what separates a form's parts. Raises UnsupportedMediaTypeError for what is no such form."""
    match = _BOUNDARY.fullmatch((content_type or "").strip())
    if (
        match is None
        or (content_type or "").lower().count("boundary") > (match[1] or match[2]).lower().count("boundary") + 1
    ):
        raise UnsupportedMediaTypeError("Send the body as a form with a file, with the type multipart/form-data.")
    return (match[1] or match[2]).encode("latin-1")


def write_type(boundary: bytes) -> str:
    """Give the Content-Type that says what separates a form's parts, and nothing else."""
    text = boundary.decode("latin-1")
    return "multipart/form-data; boundary=" + (text if _TOKEN.fullmatch(text) else f'"{text}"')


class FormReader:
    """One form: `feed` its bytes as they pass."""

    def __init__(self, boundary: bytes) -> None:
        """Read a form whose parts are separated so."""
        self._separator = b"\n--" + boundary
        self._buffer = b"\r\n"  # a separator may stand at the very beginning
        self._at = -2
        """Where the buffer begins in the form."""
        self._begins_at = 0
        self._inside = "preamble"
        self._name = ""
        self._is_file = False
        self._value = b""
        self.fields: dict[str, str] = {}
        """The values of the fields that have come whole; of a name that comes several times, the last."""
        self.places: dict[str, int] = {}
        """Where in the form those values begin."""
        self.files: set[str] = set()
        """The names of the files that have begun."""
        self.ended = False
        """Whether the form's end has come."""

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises InvalidRequestError for a form that two readers could read in different ways, or that is out of bounds.
        """
        self._buffer += data
        while not self.ended and self._step():
            pass
        if self.ended:
            self._buffer = self._buffer[:2]
            if not b"\r\n".startswith(self._buffer):
                raise _malformed("more than a line's end stands behind its last part")

    def _step(self) -> bool:
        """Go one step on; False when more bytes are needed for the next."""
        if self._inside == "head":
            return self._read_head()
        return self._read_content()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise _malformed("a part's head is too long")
            return False
        head = self._drop(end + 2)  # its blank line may begin a separator
        self._begins_at = self._at + 2
        names = _NAME.findall(head)
        if len(names) != 1 or len(_NAMES.findall(head)) != 1:
            raise _malformed("a part has no name, or several")
        if _UNCLEAR.search(head) is not None:
            raise _malformed("a part's head has lines that do not end as they must")
        self._name = names[0].decode("utf-8", "replace")
        self._is_file = _FILE.search(head) is not None
        if self._is_file:
            if len(self.files) >= _FIELDS_LIMIT:
                raise _malformed("it has too many files")
            self.files.add(self._name)
        self._value = b""
        self._inside = "content"
        return True

    def _read_content(self) -> bool:
        end = self._buffer.find(self._separator)
        if end < 0:
            keep = len(self._separator) + 2
            self._take(self._drop(max(len(self._buffer) - keep, 0)))
            return False
        after = end + len(self._separator)
        if len(self._buffer) < after + 2:
            return False
        mark = self._buffer[after : after + 2]
        if self._buffer[end - 1 : end] != b"\r" or (mark != b"\r\n" and mark[:1] in b" \t\r\n"):
            raise _malformed("what separates its parts is not a line of its own")
        if mark not in (b"\r\n", b"--"):
            # The separator is only the beginning of other text.
            self._take(self._drop(after))
            return True
        self._take(self._buffer[: end - 1])
        self._end_part()
        self._drop(after + 2)
        self.ended = mark == b"--"
        self._inside = "head"
        return True

    def _drop(self, size: int) -> bytes:
        """Give the beginning of the buffer and go on behind it."""
        dropped, self._buffer = self._buffer[:size], self._buffer[size:]
        self._at += len(dropped)
        return dropped

    def _take(self, data: bytes) -> None:
        if self._inside == "content" and not self._is_file:
            self._value += data
            if len(self._value) > VALUE_LIMIT:
                raise _malformed("a field's value is too long")

    def _end_part(self) -> None:
        if self._inside != "content" or self._is_file:
            return
        if self._name in self.fields and not self._name.endswith("[]"):
            raise InvalidRequestError(f"The form has the field `{self._name[:64]}` twice.", param=self._name[:64])
        if len(self.fields) >= _FIELDS_LIMIT:
            raise _malformed("it has too many fields")
        self.places[self._name] = self._begins_at
        self.fields[self._name] = self._value.removeprefix(b"\r\n").decode("utf-8", "replace")


def _malformed(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"The form cannot be read: {why}.", code="malformed_form")
