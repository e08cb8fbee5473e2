"""The clients from npm, run by one Node process that makes the calls a test asks for.

`make node` installs the packages beside this file, in the versions of the lock. Where Node or they are missing the
tests are skipped, and `make test` says so.
"""

import asyncio
import itertools
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

FOLDER = Path(__file__).parent
LOCK = FOLDER / "package-lock.json"
INSTALLED = FOLDER / "node_modules" / ".installed-lock"
"""A copy of the lock whose packages are there."""


def missing() -> str | None:
    """Say what keeps the clients from running here, or None."""
    if shutil.which("node") is None:
        return "There is no Node here. Install it with: sudo apt-get install -y nodejs npm"
    if not INSTALLED.is_file() or INSTALLED.read_bytes() != LOCK.read_bytes():
        return "The clients from npm are not installed. Install them with: make node"
    return None


def require_clients() -> None:
    """Skip the test where the clients cannot run: without Node, or without the place that npm installs from."""
    if (message := missing()) is None:
        return
    pytest.skip(message)


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """What the official client threw: its class, and what a program can read of it; `items` came before it."""

    kind: str
    message: str
    status: int | None
    code: str | None
    param: str | None
    type: str | None
    request_id: str | None
    headers: dict[str, str] = field(repr=False)
    items: list[Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Official:
    """The official client with these options, of which `baseURL` and `apiKey` are always there."""

    driver: "NodeDriver"
    options: dict[str, object]

    async def call(self, method: str, *args: object, take: int | None = None) -> Any:
        """Call a method by its path and give its value, or the items of a stream or list. Raises Refused.

        With `take` the client leaves a stream after that many items.
        """
        asked: dict[str, object] = {"client": self.options, "method": method, "args": args}
        told = await self.driver.ask("official", **asked, **({} if take is None else {"take": take}))
        if (error := told.get("error")) is not None:
            named = {name: error.get(name) for name in ("kind", "message", "status", "code", "param", "type")}
            raise Refused(
                **named, request_id=error.get("requestID"), headers=error["headers"], items=told.get("items", [])
            )
        return told["items"] if "items" in told else told.get("value")

    async def chat(self, model: str, content: str, **fields: object) -> str:
        """Ask for a chat completion and give the text of the answer, whole or put together of its chunks."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
        told = await self.call("chat.completions.create", body)
        if isinstance(told, list):
            return "".join(choice["delta"].get("content") or "" for chunk in told for choice in chunk["choices"])
        return str(told["choices"][0]["message"]["content"])


class NodeDriver:
    """The Node process; an async context manager that runs while it is entered. Calls may be made side by side."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        """Start; the packages are loaded while the caller goes on."""
        environ = {"PATH": os.environ.get("PATH", os.defpath)}  # no proxy and no options of the machine
        self._process = await asyncio.create_subprocess_exec(
            "node", str(FOLDER / "driver.mjs"), stdin=PIPE, stdout=PIPE, limit=2**24, env=environ
        )
        self._reading = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(self, *exception: object) -> None:
        """End the process by closing its input; it is killed where that does not end it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._reading, 10)
        except TimeoutError:
            self._process.kill()
        await self._process.wait()

    def official(self, base: str, key: str, **options: object) -> Official:
        """Give the official client for a base URL, such as `http://127.0.0.1:5005/v1`; without repeats of its own."""
        return Official(self, {"baseURL": base, "apiKey": key, "maxRetries": 0, **options})

    async def talk(
        self, base: str, key: str, api: str, model: str, *texts: str, stream: bool = False
    ) -> dict[str, Any]:
        """Have a conversation by the AI SDK and give its `turns`, and the `error` that ended it if one did.

        `api` is `chat` or `responses`.
        """
        client = {"baseURL": base, "apiKey": key}
        return await self.ask("ai", client=client, api=api, model=model, texts=texts, stream=stream)

    async def ask(self, kind: str, **asked: object) -> dict[str, Any]:
        """Have the driver do something and give what it tells."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert not self._reading.done(), "the Node process has ended"
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "kind": kind, **asked}).encode() + b"\n")
        return await asyncio.wait_for(answer, 60)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            self._waiting.pop(told.pop("id")).set_result(told)
        for left in self._waiting.values():
            left.set_exception(AssertionError("the Node process ended before it answered"))
