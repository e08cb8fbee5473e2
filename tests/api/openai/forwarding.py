"""A server in front of the simulated OpenAI API, for the tests of forwarding."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from chat2api.clock import Clock
from chat2api.simulator.openai_api import ApiSimulator
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from tests.e2e.harness import OPERATOR_KEY, House, HouseClock, open_house

CHAT = "/v1/chat/completions"
OPERATOR = {"Authorization": f"Bearer {OPERATOR_KEY}"}
QUESTION = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Name three rivers."}]}


@dataclass(slots=True)
class Forwarding:
    """The simulated API, the server in front of it, and a plain client of the server."""

    api: ApiSimulator
    house: House
    http: httpx.AsyncClient

    def fresh(self) -> None:
        """Forget what one test has done to the API."""
        self.api.control.reset()

    def used(self) -> list[str]:
        """Give the keys that the chats came by, oldest first."""
        return [str(record.account) for record in self.api.control.requests_to("chat")]

    async def issue(
        self, name: str = "somebody", *, models: Sequence[str] | None = None, limits: KeyLimits | None = None
    ) -> dict[str, str]:
        """Give the headers of another caller, with a new key."""
        scope = KeyScope(models=tuple(models)) if models is not None else KeyScope()
        issued = await self.house.runtime.keys.issue(NewKey(name, None, scope=scope, limits=limits or KeyLimits()))
        return {"Authorization": f"Bearer {issued.secret}"}

    async def recover(self, clock: HouseClock) -> None:
        """Let every wait end, and let every key and the operator find the API well."""
        self.fresh()
        clock.advance(8 * 24 * 3600)
        for key_id in self.house.runtime.openai.keys:
            await self.house.runtime.openai.try_key(key_id)
        assert (await self.http.post(CHAT, json=QUESTION)).status_code == 200
        self.fresh()


@asynccontextmanager
async def open_forwarding(
    folder: Path,
    *,
    keys: int = 1,
    options: SimulatorOptions | None = None,
    clock: Clock | None = None,
    tokens: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Forwarding]:
    """Run both, with that many API keys."""
    async with ApiSimulator(options or SimulatorOptions(accounts=max(keys, 1))) as api:
        given = {"OPENAI_BASE_URL": f"{api.url}/v1", "OPENAI_API_KEYS": ",".join(api.keys[:keys])} | settings
        async with (
            open_house(folder, None, demo=False, clock=clock, tokens=tokens, **given) as house,
            httpx.AsyncClient(base_url=house.base, headers=OPERATOR, timeout=30, trust_env=False) as http,
        ):
            yield Forwarding(api, house, http)
