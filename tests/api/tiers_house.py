"""A server with tiers of each kind, for the tests of who may enter, what holds there, and how tiers are changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from chat2api.simulator.app import Simulator
from chat2api.storage.keys import NewKey
from tests.e2e.harness import House, HouseClock, open_house

TIERS = """
[free]
base = ["/free", "/api/blog"]
system = "drop"
text_only = true
max_answer_tokens = 3
notice = "Be kind & patient."
[free.per_person]
requests_per_minute = "unlimited"
requests_at_once = "unlimited"
[free.models]
"gpt-3.5-turbo" = { requests_per_minute = "unlimited", tokens_per_minute = "unlimited" }
gpt-4o-mini = { requests_per_minute = 60, tokens_per_minute = 100_000 }

[shared]
base = "/api/blog/shared"
shared_key = "sk-free-api"
[shared.models]
gpt-4o = { requests_per_minute = 60, tokens_per_minute = 100_000 }

[members]
base = "/members"
system = "reject"
[members.models]
gpt-4o = { requests_per_minute = 60, tokens_per_minute = 100_000 }
"""

SHARED_KEY = "sk-free-api"
SYSTEM = {"role": "system", "content": "Answer in Latin."}
QUESTION = {"role": "user", "content": "Name three rivers."}


def chat(model: str = "gpt-4o", *, system: bool = False, **fields: object) -> dict[str, object]:
    """Give a chat body."""
    return {"model": model, "messages": [SYSTEM, QUESTION] if system else [QUESTION], **fields}


def bearer(key: str | None) -> dict[str, str]:
    """Give the header for a key."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def open_tiers_house(folder: Path, sim: Simulator, text: str = TIERS, **settings: str) -> AsyncIterator[House]:
    """Run a server whose public tier is `free`, with one account in the pool; the file is `tiers.toml` in the folder."""
    file = folder / "tiers.toml"
    file.write_text(text, encoding="utf-8")
    account = sim.control.accounts[0].access_token
    settings = {"TIERS_FILE": str(file), "PUBLIC_MODE": "free"} | settings
    async with open_house(folder / "data", sim, tokens=[account], clock=HouseClock(), **settings) as house:  # type: ignore[arg-type]
        yield house


async def issue(house: House, tier: str | None, **options: object) -> str:
    """Issue a key of a tier and give it."""
    return (await house.runtime.keys.issue(NewKey("somebody", None, tier=tier, **options))).secret  # type: ignore[arg-type]


async def ask(
    http: httpx.AsyncClient, base: str, body: object, key: str | None = None, **headers: str
) -> httpx.Response:
    """Ask for a chat completion under a tier's base, "" for none."""
    return await http.post(f"{base}/v1/chat/completions", json=body, headers=bearer(key) | headers)
