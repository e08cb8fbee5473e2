"""The backend: all its parts, and the way of a request through them."""

from collections.abc import Sequence
from email.utils import formatdate
from typing import Literal

from chat2api.clock import Clock
from chat2api.simulator.accounts import AccountBook, Caller, Credentials, make_starting_accounts, select_workspace
from chat2api.simulator.control import PREFIX, Control
from chat2api.simulator.conversation import Conversations
from chat2api.simulator.delivery import Delivery
from chat2api.simulator.faults import Fault, Rules
from chat2api.simulator.files import Files
from chat2api.simulator.history import History
from chat2api.simulator.options import SimulatorOptions, with_settings
from chat2api.simulator.pages import Pages
from chat2api.simulator.recorder import Recorder
from chat2api.simulator.refusals import named_answer, refuse
from chat2api.simulator.routes import Call, Route, find_route
from chat2api.simulator.sentinel import Sentinel
from chat2api.simulator.sign_in import SignIn
from chat2api.simulator.sockets import Sockets
from chat2api.simulator.wire import Answer, Exchange, Headers, PeerGone, Refusal, Reply, Request

_UNKNOWN = "unknown"


class Backend:
    """Everything behind the listening sockets."""

    def __init__(self, options: SimulatorOptions, clock: Clock) -> None:
        """Make all parts and the ready-made accounts."""
        self.options = options
        self.clock = clock
        self.recorder = Recorder(clock, keep=options.record)
        self.rules = Rules()
        self.ca_pem: bytes | None = None
        self.book = AccountBook(options.seed, options.access_token_lifetime)
        self.credentials: list[Credentials] = list(make_starting_accounts(self.book, options.accounts, clock.now()))
        self.sentinel = Sentinel(self.book, self.recorder)
        self.history = History(self.book)
        self.files = Files(self.book)
        sockets = Sockets(self.book)
        conversations = Conversations(self.book, self.sentinel, self.history, self.files, sockets, self.recorder)
        parts = (
            conversations,
            sockets,
            self.sentinel,
            SignIn(self.book),
            self.history,
            self.files,
            Pages(self.book, self.history),
        )
        self.routes: Sequence[Route] = [one for part in parts for one in part.routes()]
        self._devices: dict[str, str] = {}
        self.control = Control(self)

    def add_account(self, plan: str, *, team: bool, kind: Literal["rt", "ios"]) -> Credentials:
        """Make one more account."""
        credentials = self.book.add_account(plan, now=self.clock.now(), team=team, kind=kind)
        self.credentials.append(credentials)
        return credentials

    async def serve(self, request: Request, exchange: Exchange) -> None:
        """Answer one request, with whatever fault its rule holds."""
        if request.path.startswith(PREFIX):
            await self._serve_control(request, exchange)
            return
        found = find_route(self.routes, request.method, request.path)
        name = found[0].name if found is not None else _UNKNOWN
        user_id = self.known_caller(request)
        record = self.recorder.add_request(request, name, user_id)
        outcome: Literal["completed", "aborted", "faulted"] = "aborted"
        try:
            fault, settings = self.rules.for_call(request, name, user_id)
            options = with_settings(self.options, settings)
            reply = self._reply(request, found, options, fault)
            delivery = Delivery(exchange, reply, fault, self.headers(), record, self.recorder, self.clock)
            outcome = await delivery.run()
        except PeerGone:
            pass  # the record says so
        finally:
            self.recorder.end(record, outcome)

    def known_caller(self, request: Request) -> str | None:
        """Give by what name rules and records know who calls, None for nobody known."""
        return self.book.known_user(request)

    async def _serve_control(self, request: Request, exchange: Exchange) -> None:
        answer = self.control.answer(request)
        try:
            await exchange.send_headers(answer.status, answer.headers, len(answer.body))
            await exchange.send_data(answer.body)
            await exchange.end()
        except PeerGone:
            return

    def _reply(
        self,
        request: Request,
        found: tuple[Route, dict[str, str]] | None,
        options: SimulatorOptions,
        fault: Fault | None,
    ) -> Reply:
        """Make the reply; one that a fault replaces does no work unless the fault says so."""
        replaced = fault is not None and fault.at in ("before_headers", "mid_headers") and fault.do != "stall"
        reply: Reply = Answer(200)
        if not replaced or (fault is not None and fault.effect):
            reply = self.handle(request, found, options)
        if fault is not None and fault.do == "answer":
            return _faulty_answer(fault, reply)
        return reply

    def handle(self, request: Request, found: tuple[Route, dict[str, str]] | None, options: SimulatorOptions) -> Reply:
        """Do what a request asks and give the reply."""
        if found is None:
            known_path = any(route.pattern.fullmatch(request.path) for route in self.routes)
            return named_answer("method_not_allowed" if known_path else "not_found")
        route, parts = found
        try:
            caller = self._identify(request, route, parts, options)
            return route.handler(Call(request, options, parts, self.clock.now(), caller))
        except Refusal as refusal:
            return refusal.answer

    def _identify(self, request: Request, route: Route, parts: dict[str, str], options: SimulatorOptions) -> Caller:
        device = request.header("oai-device-id")
        if route.access == "open":
            return Caller(None, None, device)
        account = self.book.find_account(request, self.clock.now())
        if account is None:
            allowed = route.access == "anybody" and parts["base"] == "backend-anon" and options.anonymous
            if not allowed:
                raise refuse("unauthorized")
            return Caller(None, None, device)
        if parts["base"] == "backend-anon":
            self.recorder.add_violation("a call to /backend-anon brings an access token")
        known_device = self._devices.setdefault(account.user_id, device or "")
        if device is not None and known_device not in ("", device):
            self.recorder.add_violation(f"{account.user_id} came with more than one Oai-Device-Id")
        return Caller(account, select_workspace(account, request), device)

    def headers(self) -> Headers:
        """Give the headers of every reply."""
        now = self.clock.now() + self.options.date_skew
        return (
            ("date", formatdate(now, usegmt=True)),
            ("server", "cloudflare"),
            ("cf-ray", "8f3ac07d1b2e4a51-FRA"),
            ("x-content-type-options", "nosniff"),
        )


def _faulty_answer(fault: Fault, reply: Reply) -> Answer:
    if fault.truncate is not None and not fault.named and not fault.body:
        return reply if isinstance(reply, Answer) else Answer(200)
    if fault.named is not None:
        answer = named_answer(fault.named, fault.values)
        return Answer(answer.status, answer.body, (*answer.headers, *fault.headers))
    kind = () if any(name.lower() == "content-type" for name, _ in fault.headers) else _kind_of(fault.body)
    return Answer(fault.status, fault.body.encode(), (*kind, *fault.headers))


def _kind_of(body: str) -> Headers:
    if body[:1] in ("{", "["):
        return (("content-type", "application/json"),)
    if body[:1] == "<":
        return (("content-type", "text/html; charset=utf-8"),)
    return (("content-type", "text/plain; charset=utf-8"),)
