"""The simulator: plays the ChatGPT web backend on a loopback port, for the demo and for tests.

    async with Simulator(SimulatorOptions(difficulty="00ffff"), tls=True) as sim:
        sim.url                        # http://127.0.0.1:…; HTTP/1.1, and HTTP/2 with prior knowledge
        sim.tls_url, sim.ca_pem        # https, HTTP/2 and HTTP/1.1 by ALPN; the CA to trust
        account = sim.control.accounts[0]            # access_token, refresh_token, session_cookie, account_ids, …

        sim.control.choose(answer="thoughts", encoding="v1", delay=0.01)     # options of the next conversation call
        sim.control.refuse("conversation", "model_cap", clears_in=60)        # a ready-made refusal (refusals.py)
        sim.control.fail("conversation", Fault("reset", at="mid_stream", after=3))
        sim.control.fail(None, Fault("stall", at="accept"))
        sim.control.set_options(stages="two")                                # from now on

        sim.control.requests_to("oauth_token")[0].request.body               # what arrived
        await sim.control.wait_until(lambda: sim.control.counters.aborted == 1)
        sim.control.streams[0].outcome, sim.control.streams[0].ended_at      # how a stream ended, and when

Origin, sign-in server and blob store are one origin here: `/` and `/backend-api` as on chatgpt.com, `/oauth/token` as
on the sign-in server, `/blob/…` for signed links. Other processes use `/__control__/…` (control.py).

The simulator follows published facts about the backend and shares no code with chat2api's own reading of them, so one
misunderstanding cannot pass on both sides.

    options.py    everything that can be chosen       faults.py     what goes wrong, when, for which calls
    server.py     sockets; http1.py, http2.py         delivery.py   sends a reply, at its pace and with its fault
    backend.py    the way of a request                routes.py     paths and handlers
    accounts.py, sign_in.py                           proof.py, sentinel.py
    conversation.py, request_body.py, history.py      answers.py -> script.py -> encoders.py; replies.py
    files.py, pages.py, refusals.py                   sockets.py, websocket.py: the web sockets of 2024 and 2026
    recorder.py, control.py, command.py
"""

from pathlib import Path
from types import TracebackType
from typing import Self

from chat2api.clock import Clock, SystemClock
from chat2api.simulator.backend import Backend
from chat2api.simulator.certificates import Certificates, make_certificates
from chat2api.simulator.control import Control
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.server import Listener
from chat2api.simulator.tasks import Tasks


class Simulator:
    """One simulated backend; an async context manager that listens while it is entered."""

    def __init__(
        self,
        options: SimulatorOptions | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: bool = False,
        tls_port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """Make one. Port 0 takes a free one; `tls` adds a second port with TLS."""
        self._host = host
        self._port = port
        self._tls_port = tls_port
        self._tasks = Tasks()
        self._backend = self._make_backend(options or SimulatorOptions(), clock or SystemClock())
        self._plain = Listener(self._backend, self._tasks, None)
        self._certificates: Certificates | None = None
        self._secure: Listener | None = None
        if tls:
            names = ("localhost", "127.0.0.1", "::1")
            self._certificates = make_certificates(names if host in names else (*names, host))
            self._backend.ca_pem = self._certificates.ca_pem
            self._secure = Listener(self._backend, self._tasks, self._certificates.context)

    def _make_backend(self, options: SimulatorOptions, clock: Clock) -> Backend:
        return Backend(options, clock)

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError when a port is taken."""
        try:
            await self._plain.start(self._host, self._port)
            if self._secure is not None:
                await self._secure.start(self._host, self._tls_port)
        except OSError:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close everything. Raises what crashed inside, so that it never looks like the backend's misbehaviour."""
        await self.aclose()
        if self._tasks.crashes and error is None:
            raise BaseExceptionGroup("the simulator itself failed", self._tasks.crashes)

    async def aclose(self) -> None:
        """Stop listening, close all connections, end all tasks."""
        self._plain.close()
        if self._secure is not None:
            self._secure.close()
        await self._tasks.cancel_all()

    @property
    def control(self) -> Control:
        """Scripts faults and gives records."""
        return self._backend.control

    @property
    def url(self) -> str:
        """The plain origin."""
        return self._origin("http", self._plain.port)

    @property
    def tls_url(self) -> str:
        """The origin with TLS. Raises RuntimeError when it was not asked for."""
        if self._secure is None:
            raise RuntimeError("the simulator was made without tls=True")
        return self._origin("https", self._secure.port)

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate. Raises RuntimeError without TLS."""
        if self._certificates is None:
            raise RuntimeError("the simulator was made without tls=True")
        return self._certificates.ca_pem

    def write_ca(self, path: Path) -> Path:
        """Write the CA's certificate to a file and give its path."""
        path.write_bytes(self.ca_pem)
        return path

    def _origin(self, scheme: str, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{port}"
