"""What a URL says, taken apart once: a server asks the same few URLs all day."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Location:
    """The parts of a URL that requests and cookies go by.

    `host` is lower case and without brackets, "" when the URL has none; `port` is that of the scheme when none is
    written; `path` is at least "/". `origin` is the part before the path as it was written.
    """

    scheme: str
    host: str
    port: int
    path: str
    origin: str
    credentials: bool


@lru_cache(maxsize=512)
def locate(url: str) -> Location:
    """Give the parts of a URL. Raises ValueError for one that cannot be read, such as a port that is no number."""
    parts = urlsplit(url)
    return Location(
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        path=parts.path or "/",
        origin=f"{parts.scheme}://{parts.netloc}",
        credentials=parts.username is not None,
    )
