"""What tests of pages need: a server whose settings change for one test, and a browser's ways without a browser."""

import dataclasses
import re
from typing import Any, Self

import httpx
from quart import Quart

from chat2api.api.admission import PageAccess
from chat2api.api.auth import declare_access
from chat2api.api.context import current_visitor
from chat2api.api.sessions import csrf_token
from tests.e2e.harness import OPERATOR_KEY, House

OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
PASSWORD = "four quiet words together"


class SettingsChange:
    """Changes settings of a running server; `undo` puts them back."""

    def __init__(self, house: House) -> None:
        self._house, self._before = house, house.runtime.config

    def __call__(self, **changes: Any) -> None:
        """Set these fields."""
        self._house.runtime.config = dataclasses.replace(self._house.runtime.config, **changes)

    def undo(self) -> None:
        """Put all back."""
        self._house.runtime.config = self._before


class Person:
    """Somebody at a browser: keeps cookies, sends Origin, and fills in the hidden fields of the forms it was given."""

    def __init__(self, base: str, host: str | None = None, scheme: str = "http") -> None:
        """Sit down before the server at `base`, reached under a host name of its own if one is given."""
        self.http = httpx.AsyncClient(base_url=base, timeout=30, trust_env=False)
        self.host = host or base.partition("://")[2]
        self.origin = f"{scheme}://{self.host}"
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def token(self) -> str:
        """Give the token of the sign-in's forms, as the server makes it."""
        return csrf_token(self.cookies["chat2api"])

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page, and remember the token of its forms."""
        answer = await self.http.get(path, headers={"Accept": "text/html", **self._cookie(), **headers})
        self._remember(answer)
        if token := re.search(r'name="csrf" value="(\w+)"', answer.text):
            self.csrf = token[1]
        return answer

    async def post(
        self, path: str, fields: dict[str, str] | None = None, *, origin: str | None = "own", **headers: str
    ) -> httpx.Response:
        """Send a form."""
        sent = {"Accept": "text/html", **self._cookie(), **headers}
        if origin is not None:
            sent["Origin"] = self.origin if origin == "own" else origin
        answer = await self.http.post(path, data={"csrf": self.csrf} | (fields or {}), headers=sent)
        self._remember(answer)
        return answer

    async def sign_in(self, secret: str = OPERATOR_KEY, next: str = "") -> httpx.Response:
        """Fill in the box."""
        return await self.post("/login", {"key": secret, "next": next})

    def _cookie(self) -> dict[str, str]:
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Host": self.host} | ({"Cookie": jar} if jar else {})

    def _remember(self, answer: httpx.Response) -> None:
        self.http.cookies.clear()  # they are kept here alone, where tests can see and change them
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]


CLASSES: tuple[PageAccess, ...] = ("page", "person", "admin", "signed_in")


def add_probe_routes(app: Quart) -> None:
    """Give the app one route of each class, which tells who stands before it."""

    async def tell() -> dict[str, Any]:
        visitor = current_visitor()
        return {"role": visitor.role if visitor else None, "who": visitor.who if visitor else None}

    for access in CLASSES:
        app.add_url_rule(f"/probe/{access}", f"probe_{access}", tell, methods=["GET", "POST"])
        declare_access(app, f"probe_{access}", access)


class FakeKey:
    """An issued key."""

    def __init__(self, key_id: str, digest: str) -> None:
        self.id, self.digest = key_id, digest
        self.reason: str | None = None

    def ended(self, now: float) -> str | None:
        return self.reason


class FakeKeys:
    """Issued keys: one, `sk-c2a-person`."""

    SECRET = "sk-c2a-person"

    def __init__(self) -> None:
        self.key = FakeKey("key_1", "a" * 64)

    def find(self, bearer: str) -> FakeKey | None:
        return self.key if bearer == self.SECRET and self.key.reason is None else None

    def fingerprint(self, bearer: str) -> str:
        return self.key.digest

    def opens(self, key_id: str, fingerprint: str) -> bool:
        return key_id == self.key.id and self.key.reason is None and fingerprint == self.key.digest

    def get(self, key_id: str) -> FakeKey | None:
        return self.key if key_id == self.key.id else None
