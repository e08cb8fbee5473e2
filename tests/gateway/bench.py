"""A runtime in front of a simulator, for many cases one after the other: the gateway without the HTTP around it."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.config import Config
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.gateway.sources import AccountSource, host_of
from chat2api.protocol.events import Event, TextDelta
from chat2api.protocol.openai.chat import ChatRequest, parse_chat_request
from chat2api.runtime import Runtime
from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator
from chat2api.simulator.control import Control
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.values import Account
from tests.e2e.harness import HouseClock, until

OPERATOR = Caller("operator", owner="key:one")
ANOTHER = Caller("operator", owner="key:two")
ANONYMOUS = Caller("anonymous", owner="anonymous")

ANSWER = "Nile, Amazon, Danube."


def own(token: str, workspace: str | None = None) -> Caller:
    """Give a caller who brings their own token."""
    return Caller("own_token", owner=f"own:{hash(token):x}", token=token, workspace=workspace)


def chat_request(content: str = "Name three rivers.", **fields: object) -> ChatRequest:
    """Give a chat completion's request."""
    return parse_chat_request({"model": "auto", "messages": [{"role": "user", "content": content}], **fields})


def text_of(events: Sequence[Event]) -> str:
    """Give what the events say."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


class _SimulatorClock:
    """Dates as the runtime's clock has them; pauses as long as they are."""

    def __init__(self, clock: HouseClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await HouseClock().sleep(seconds)


@dataclass(slots=True)
class Gateway:
    """A runtime, its simulator, and the clock of both."""

    sim: Simulator
    runtime: Runtime
    clock: HouseClock

    @property
    def control(self) -> Control:
        return self.sim.control

    @property
    def source(self) -> AccountSource:
        """The operator's accounts."""
        return self.runtime.sources.pool

    @property
    def turns(self) -> int:
        """How many conversation calls arrived."""
        return len(self.control.requests_to("conversation"))

    @property
    def in_flight(self) -> int:
        sources = self.runtime.sources
        return sources.pool.pool.statistics().in_flight + sources.visitors.pool.statistics().in_flight

    async def fresh(self, count: int = 1, plan: str = "plus", *, team: bool = False) -> tuple[Credentials, ...]:
        """Begin a case: forget scripts, waits and accounts, and put that many new accounts into the pool."""
        await self.runtime.records.delete_accounts(None, self.clock.now())
        self.control.reset()
        self.clock.advance(4000.0)
        host = host_of(self.sim.url)
        for source in (self.runtime.sources.pool, self.runtime.sources.visitors):
            source.exits.report(None, host, None)
        given = tuple(self.control.add_account(plan, team=team) for _ in range(count))
        await self.add(*(account.access_token for account in given))
        return given

    async def add(self, *tokens: str, workspace: str | None = None) -> list[Account]:
        """Put accounts into the pool and give them as the records have them."""
        new = [to_new_account(to_credential(token, workspace)) for token in tokens]
        added = await self.runtime.records.add_accounts(new, self.clock.now())
        await self.runtime.pool.reload()
        return [one.account for one in added]

    async def ask(
        self, caller: Caller = OPERATOR, request: ChatRequest | None = None, facts: AnswerFacts | None = None
    ) -> list[Event]:
        """Give all events of an answer."""
        events: list[Event] = []
        async with aclosing(
            self.runtime.provider.chat(caller, request or chat_request(), facts or AnswerFacts())
        ) as batches:
            async for batch in batches:
                assert batch, "no batch is empty"
                events += batch
        return events

    async def settled(self) -> None:
        """Return once no account is leased and nothing is open at the backend."""
        await until(lambda: self.in_flight == 0, "an account is still leased")
        await self.control.wait_until(lambda: self.control.counters.open_replies == 0)


@asynccontextmanager
async def open_gateway(
    folder: Path, options: SimulatorOptions | None = None, *, clock: HouseClock | None = None, **settings: str
) -> AsyncIterator[Gateway]:
    """Run a runtime in front of a simulator; `settings` are environment variables by name."""
    clock = clock or HouseClock(20.0)
    async with AsyncExitStack() as stack:
        sim = Simulator(options or SimulatorOptions(accounts=1), clock=_SimulatorClock(clock))
        await stack.enter_async_context(sim)
        environ = {
            "DATA_DIR": str(folder),
            "AUTHORIZATION": "operator-key-of-the-suite",
            "RANDOM_TOKEN": "false",
            "ACCOUNT_CONCURRENCY": "1000",
            "CHATGPT_BASE_URL": sim.url,
            "OPENAI_AUTH_TOKEN_URL": f"{sim.url}/oauth/token",
        }
        runtime = await Runtime.open(Config.from_env(environ | settings), clock=clock)
        stack.push_async_callback(runtime.aclose)
        yield Gateway(sim, runtime, clock)
