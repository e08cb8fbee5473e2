"""How tests steer the simulator and look at what it saw: from Python, and as JSON over HTTP for other processes.

GET  /__control__/state                      accounts, counters, violations, why tokens were refused
GET  /__control__/requests[?since=N&route=X] the recorded requests, from number N+1 on
GET  /__control__/replies[?since=N]          how the replies ended
GET  /__control__/counters                   totals
GET  /__control__/ca.pem                     the CA, when TLS is on
POST /__control__/rules                      a list of rules (faults.py), added behind the others
POST /__control__/options                    an object of options, replaced for all calls from now on
POST /__control__/accounts                   {"plan", "team", "kind"}: a new account; answers its credentials
POST /__control__/access_tokens              {"user_id", "lifetime"}: one more access token
POST /__control__/revoke                     {"user_id"}: end all its tokens
POST /__control__/deactivate                 {"user_id"}: close the account
POST /__control__/reset                      forget rules, records and changed options; state of accounts stays
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from chat2api.simulator.accounts import Credentials
from chat2api.simulator.faults import Fault, Rule, rule_from_json
from chat2api.simulator.options import with_settings
from chat2api.simulator.recorder import Counters, ReplyRecord, RequestRecord
from chat2api.simulator.wire import JSON, Answer, Object, Request, json_answer

if TYPE_CHECKING:
    from chat2api.simulator.backend import Backend

PREFIX = "/__control__/"


class Control:
    """The test's handle on one simulator."""

    def __init__(self, backend: "Backend") -> None:
        """Steer this backend."""
        self._backend = backend
        self._first_options = backend.options

    # Scripting

    def add_rule(self, rule: Rule) -> Rule:
        """Lay a rule on calls to come and give it back: `used` counts what it did."""
        self._backend.rules.add(rule)
        return rule

    def fail(
        self,
        route: str | None,
        fault: Fault,
        *,
        path: str = "/",
        account: str | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Rule:
        """Lay a fault on the next calls of a route (None: of any route)."""
        return self.add_rule(Rule(route=route, path=path, account=account, skip=skip, times=times, fault=fault))

    def refuse(
        self,
        route: str | None,
        named: str,
        *,
        account: str | None = None,
        skip: int = 0,
        times: int | None = 1,
        effect: bool = False,
        **values: JSON,
    ) -> Rule:
        """Let the next calls of a route get a ready-made answer of refusals.py."""
        fault = Fault("answer", named=named, values=values, effect=effect)
        return self.fail(route, fault, account=account, skip=skip, times=times)

    def choose(
        self,
        route: str | None = "conversation",
        *,
        account: str | None = None,
        skip: int = 0,
        times: int | None = 1,
        **settings: JSON,
    ) -> Rule:
        """Replace options for the next calls of a route. Raises ValueError for unknown options."""
        with_settings(self._backend.options, settings)
        return self.add_rule(Rule(route=route, account=account, skip=skip, times=times, settings=settings))

    def set_options(self, **settings: JSON) -> None:
        """Replace options for all calls from now on."""
        self._backend.options = with_settings(self._backend.options, settings)

    def reset(self) -> None:
        """Forget rules, records and changed options; accounts, conversations and files stay."""
        self._backend.rules.listed.clear()
        self._backend.recorder.reset()
        self._backend.sentinel.refusals.clear()
        self._backend.options = self._first_options

    # Accounts

    @property
    def accounts(self) -> Sequence[Credentials]:
        """The ready-made accounts and those added later."""
        return self._backend.credentials

    def add_account(self, plan: str = "plus", *, team: bool = False, kind: Literal["rt", "ios"] = "rt") -> Credentials:
        """Make one more account."""
        return self._backend.add_account(plan, team=team, kind=kind)

    def make_access_token(self, user_id: str, lifetime: float | None = None) -> str:
        """Make one more access token of an account; a negative lifetime in seconds makes an expired one."""
        grant = self._backend.book.grant_of(user_id)
        return self._backend.book.make_access_token(grant, self._backend.clock.now(), lifetime=lifetime)

    def refresh_token(self, user_id: str) -> str:
        """Give the refresh token that is good now."""
        return self._backend.book.grant_of(user_id).refresh_token

    def revoke(self, user_id: str) -> None:
        """End the sign-in of an account: its access tokens are invalidated, its refresh token dead."""
        self._backend.book.grant_of(user_id).revoked = True

    def deactivate(self, user_id: str) -> None:
        """Close an account. Raises KeyError."""
        for workspace in self._backend.book.accounts[user_id].workspaces:
            workspace.deactivated = True

    # Looking

    @property
    def requests(self) -> list[RequestRecord]:
        """What was received, in order; without the control calls."""
        return self._backend.recorder.requests

    def requests_to(self, route: str) -> list[RequestRecord]:
        """What one route received."""
        return [record for record in self.requests if record.route == route]

    @property
    def replies(self) -> list[ReplyRecord]:
        """How each reply went out, in the order of the requests."""
        return self._backend.recorder.replies

    @property
    def streams(self) -> list[ReplyRecord]:
        """The replies that are event streams."""
        return [reply for reply in self.replies if reply.streamed]

    @property
    def counters(self) -> Counters:
        """Totals."""
        return self._backend.recorder.counters

    @property
    def violations(self) -> list[str]:
        """Habits that a browser would not have."""
        return self._backend.recorder.violations

    @property
    def refusals(self) -> list[str]:
        """Why requirement tokens and proofs were refused."""
        return self._backend.sentinel.refusals

    def received(self, text: str) -> bool:
        """Tell whether the text occurs in anything that was received: targets, header values, bodies."""
        wanted = text.encode()
        return any(
            text in record.request.target
            or wanted in record.request.body
            or any(text in value for _, value in record.request.headers)
            for record in self.requests
        )

    async def wait_until(self, holds: Callable[[], bool], timeout: float = 20.0) -> None:
        """Return once `holds()` is true, looking after each request and each end of a reply. Raises TimeoutError."""
        await self._backend.recorder.wait_until(holds, timeout)

    # Over HTTP

    def answer(self, request: Request) -> Answer:
        """Answer a control call; 400 with `error` for one that cannot be understood."""
        name = request.path.removeprefix(PREFIX)
        try:
            if request.method == "GET" and name == "ca.pem" and self._backend.ca_pem is not None:
                return Answer(200, self._backend.ca_pem, (("content-type", "application/x-pem-file"),))
            if request.method == "GET":
                value = self._look(name, request.query)
            else:
                value = self._steer(name, request.json() if request.body else {})
        except KeyError as error:
            return json_answer({"error": f"unknown: {error}"}, 404)
        except (ValueError, TypeError) as error:
            return json_answer({"error": str(error)}, 400)
        return json_answer(value)

    def _look(self, name: str, query: Mapping[str, str]) -> JSON:
        since = int(query.get("since", "0"))
        match name:
            case "state":
                accounts: list[JSON] = [credentials.to_json() for credentials in self.accounts]
                return {
                    "accounts": accounts,
                    "counters": self.counters.to_json(),
                    "violations": list(self.violations),
                    "refusals": list(self.refusals),
                }
            case "requests":
                route = query.get("route")
                return [r.to_json() for r in self.requests if r.number > since and route in (None, r.route)]
            case "replies":
                return [reply.to_json() for reply in self.replies if reply.number > since]
            case "counters":
                return self.counters.to_json()
        raise KeyError(name)

    def _steer(self, name: str, value: JSON) -> JSON:
        if name == "rules":
            rules = [rule_from_json(item) for item in (value if isinstance(value, list) else [value])]
            for rule in rules:
                with_settings(self._backend.options, rule.settings)
                self.add_rule(rule)
            return {"added": len(rules)}
        given: Object = value if isinstance(value, dict) else {}
        user_id = str(given.get("user_id", ""))
        match name:
            case "options":
                self.set_options(**given)
            case "accounts":
                kind: Literal["rt", "ios"] = "ios" if given.get("kind") == "ios" else "rt"
                return self.add_account(
                    str(given.get("plan", "plus")), team=given.get("team") is True, kind=kind
                ).to_json()
            case "access_tokens":
                lifetime = given.get("lifetime")
                seconds = float(lifetime) if isinstance(lifetime, (int, float)) else None
                return {"access_token": self.make_access_token(user_id, seconds)}
            case "revoke":
                self.revoke(user_id)
            case "deactivate":
                self.deactivate(user_id)
            case "reset":
                self.reset()
            case _:
                raise KeyError(name)
        return {"ok": True}
