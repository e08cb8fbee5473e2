"""The cookies of one channel: what its servers set, sent back where it belongs, never seen by another channel."""

from collections.abc import Sequence
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import cast
from urllib.request import Request as UrlRequest


class _Answer:
    """The one method of an HTTPResponse that CookieJar calls."""

    def __init__(self, set_cookies: Sequence[str]) -> None:
        self._message = Message()
        for value in set_cookies:
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


class Cookies:
    """A jar with the browser's rules for domain, path, Secure and expiry, as the standard library knows them."""

    def __init__(self) -> None:
        """Make an empty jar."""
        self._jar = CookieJar()

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return len(self._jar) > 0

    def store(self, url: str, set_cookies: Sequence[str]) -> None:
        """Take the Set-Cookie values of an answer from `url`; a value that cannot be read is ignored, as browsers do."""
        self._jar.extract_cookies(cast("HTTPResponse", _Answer(set_cookies)), UrlRequest(url))

    def header(self, url: str, given: str = "") -> str:
        """Give the value of the Cookie header for `url`, "" for none.

        `given` is a value that the caller wants to send: its cookies come first and win over held ones of the same
        name.
        """
        if not self:
            return given
        request = UrlRequest(url)
        self._jar.add_cookie_header(request)
        held = request.get_header("Cookie")
        if held is None:
            return given
        names = {pair.partition("=")[0].strip() for pair in given.split(";")}
        fresh = [pair for pair in held.split("; ") if pair.partition("=")[0] not in names]
        return "; ".join([given, *fresh] if given else fresh)
