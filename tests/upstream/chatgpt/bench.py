"""The parts that speak to the backend, put together over a real transport, in front of the simulator."""

import base64
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator
from chat2api.simulator.control import Control
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.recorder import RequestRecord
from chat2api.upstream.chatgpt.calls import BackendCalls, CallSettings
from chat2api.upstream.chatgpt.client import ChatGPTClient, ClientSettings
from chat2api.upstream.chatgpt.requirements import RequirementsExchange
from chat2api.upstream.chatgpt.session import Session
from chat2api.upstream.chatgpt.solver import ProofSolver
from chat2api.upstream.transport import CurlTransport
from tests.clocks import FakeClock

NO_SIGN_IN = "anonymous"
"""The key of a session without an account."""


@dataclass(slots=True)
class Bench:
    """One simulator, one transport, and clients over them; `clock` moves only when told."""

    sim: Simulator
    transport: CurlTransport
    solver: ProofSolver
    clock: FakeClock
    settings: CallSettings
    hardest: str
    calls: BackendCalls = field(init=False)
    exchange: RequirementsExchange = field(init=False)
    client: ChatGPTClient = field(init=False)

    def __post_init__(self) -> None:
        self.calls = BackendCalls(self.transport, self.settings)
        self.exchange = RequirementsExchange(self.calls, self.solver, self.clock, hardest=self.hardest)
        self.client = self.make_client()

    @property
    def control(self) -> Control:
        return self.sim.control

    @property
    def account(self) -> Credentials:
        return self.sim.control.accounts[0]

    @property
    def routes(self) -> list[str]:
        """What the simulator was asked for, in order."""
        return [record.route for record in self.control.requests]

    def make_client(self, **settings: bool) -> ChatGPTClient:
        return ChatGPTClient(self.calls, self.exchange, self.clock, ClientSettings(**settings))

    def session(
        self, account: Credentials | None = None, *, origin: str | None = None, workspace_id: str | None = None
    ) -> Session:
        """Give the session of an account, the first one if none is named."""
        account = account or self.account
        return Session(
            key=account.user_id,
            device_id=f"00000000-0000-4000-8000-{account.user_id.encode().hex()[-12:]}",
            origin=origin or self.sim.url,
            proxy=None,
            access_token=account.access_token,
            workspace_id=workspace_id,
        )

    def anonymous(self) -> Session:
        """Give the session of a device that is not signed in."""
        return Session(NO_SIGN_IN, "00000000-0000-4000-8000-000000000001", self.sim.url, None, credential="anonymous")


@asynccontextmanager
async def open_bench(
    options: SimulatorOptions | None = None,
    *,
    hardest: str = "000010",
    tls: bool = False,
    auth_key: str = "",
    timeout: float = 10.0,
) -> AsyncIterator[Bench]:
    """Run a bench; `timeout` is the limit of every call in seconds."""
    settings = CallSettings(timeout, timeout, timeout, auth_key=auth_key)
    clock = FakeClock(time.time())
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator(options, tls=tls))
        if tls:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            transport = CurlTransport(ca_file=str(sim.write_ca(folder / "ca.pem")))
        else:
            transport = CurlTransport()
        stack.push_async_callback(transport.aclose)
        solver = ProofSolver()
        stack.push_async_callback(solver.aclose)
        yield Bench(sim, transport, solver, clock, settings, hardest)


def config_of(token: str) -> list[object]:
    """Give the config array inside a requirements token or a proof."""
    body = token[len("gAAAAAB") :].partition("~")[0]
    found = json.loads(base64.b64decode(body))
    assert isinstance(found, list)
    return found


def sent_config(record: RequestRecord) -> list[object]:
    """Give the config array of the requirements token that a recorded call brought."""
    return config_of(json.loads(record.request.body)["p"])
