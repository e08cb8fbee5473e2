"""The whole house on loopback: the simulator, the real server in front of it, the official client in front of that."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from chat2api.accounts.tokens import parse_import, to_new_account
from chat2api.api.listening import Address
from chat2api.api.server import Shutdown
from chat2api.clock import SystemClock
from chat2api.config import Config
from chat2api.launch import run_server
from chat2api.logs import Redactor
from chat2api.runtime import Runtime
from chat2api.simulator.app import Simulator
from chat2api.storage.sql_records import SqlRecords

OPERATOR_KEY = "operator-key-for-the-suite-0123456789"


@dataclass(slots=True)
class House:
    """A running server. `base` is its origin; `shutdown` stops it."""

    base: str
    runtime: Runtime
    shutdown: Shutdown
    serving: "asyncio.Task[int]"

    def client(self, key: str = OPERATOR_KEY, **options: object) -> openai.AsyncOpenAI:
        """Give the official client for a key, at its defaults but for what is said."""
        return openai.AsyncOpenAI(base_url=f"{self.base}/v1", api_key=key, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def open_house(
    data_dir: Path, sim: Simulator | None = None, *, tokens: Sequence[str] = (), demo: bool = False, **settings: str
) -> AsyncIterator[House]:
    """Run a server on a free port of loopback, with these accounts, in front of the simulator.

    `settings` are environment variables by name; the base URL and the sign-in server are the simulator's plain origin
    unless they say otherwise.
    """
    environ = {"PORT": "0", "DATA_DIR": str(data_dir), "AUTHORIZATION": OPERATOR_KEY, "DRAIN_ACCEPT": "0"}
    if sim is not None:
        environ |= {"CHATGPT_BASE_URL": sim.url, "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token"}
    config = Config.from_env(environ | settings)
    if tokens:
        await add_tokens(data_dir, tokens)
    ready: asyncio.Future[House] = asyncio.get_running_loop().create_future()
    shutdown = Shutdown()

    def on_ready(runtime: Runtime, addresses: Sequence[Address]) -> None:
        ready.set_result(House(f"http://127.0.0.1:{addresses[0][1]}", runtime, shutdown, serving))

    serving = asyncio.get_running_loop().create_task(
        run_server(config, Redactor(), demo=demo, shutdown=shutdown, on_ready=on_ready)
    )
    waiting: list[asyncio.Future[Any]] = [ready, serving]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    house = ready.result()
    try:
        yield house
    finally:
        shutdown.request()
        shutdown.request()
        await serving


async def add_tokens(data_dir: Path, tokens: Sequence[str]) -> None:
    """Put accounts into the records of a data folder, as another process would."""
    records = await SqlRecords.open(data_dir)
    try:
        found = parse_import("\n".join(tokens))
        await records.add_accounts([to_new_account(item) for item in found.credentials], SystemClock().now())
    finally:
        await records.aclose()
