"""The requirements exchange before each turn: page facts, sentinel calls, proof of work; the headers that come of it.

Which of the two forms a backend speaks is found out once for each origin and remembered as long as it holds:
404, 405, 410 or a prepare token in answer to the first call mean the newer one, and the same statuses there the older
one. Where the backend mentions a human check we go on without it: the turn itself tells whether the backend insists, and
then it ends as ChallengedError.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import orjson

from chat2api.clock import Clock
from chat2api.errors import AccountRejectedError, AnonymousUnavailableError, UpstreamError, UpstreamProtocolError
from chat2api.protocol.chatgpt.faults import Call, classify_answer
from chat2api.protocol.chatgpt.proof_of_work import Template
from chat2api.protocol.chatgpt.request import zone_at
from chat2api.protocol.chatgpt.sentinel import (
    FALLBACK_PAGE,
    PACIFIC,
    Device,
    Form,
    PageFacts,
    Requirements,
    Zone,
    check_difficulty,
    finalize_body,
    make_requirements_token,
    needs_two_stages,
    parse_finalized,
    parse_home_page,
    parse_requirements,
    requirements_body,
    sentinel_headers,
    single_stage_config,
    two_stage_config,
)
from chat2api.upstream.chatgpt.calls import BackendCalls
from chat2api.upstream.chatgpt.session import Session, fresh_id
from chat2api.upstream.chatgpt.solver import ProofSolver
from chat2api.upstream.transport import Response

log = logging.getLogger(__name__)

PAGE_LIFETIME = 15 * 60.0
"""How long the facts of a home page are used, in seconds; a page that could not be read is tried again as late."""

_SINGLE = "/sentinel/chat-requirements"
_GONE = frozenset({404, 405, 410})


@dataclass(frozen=True, slots=True)
class _Page:
    facts: PageFacts
    loaded_at: float
    expires: float


@dataclass(frozen=True, slots=True)
class Permit:
    """The sentinel headers of one turn, whether the backend asks for a check that only a person can pass, and its build.

    The check is Arkose, which it asks of few. Turnstile stands in nearly every answer, also where turns go well without it, so
    its mention tells nothing of why one is refused.
    """

    headers: tuple[tuple[str, str], ...]
    check_asked: bool
    build_id: str = ""


class RequirementsExchange:
    """Obtains the sentinel headers of one turn at a time, for any session."""

    def __init__(self, calls: BackendCalls, solver: ProofSolver, clock: Clock, *, hardest: str) -> None:
        """Make an exchange; `hardest` is the setting POW_DIFFICULTY."""
        self._calls = calls
        self._solver = solver
        self._clock = clock
        self._hardest = hardest
        self._rng = random.Random()
        self._two_stages: set[str] = set()
        self._pages: dict[str, _Page] = {}
        self._page_locks: dict[str, asyncio.Lock] = {}

    async def obtain(self, session: Session) -> Permit:
        """Give the permit for the next turn; it is good for one turn only.

        Raises the UpstreamError that the answer stands for, ProofTooHardError for a proof that is not worked on.
        """
        page = self._known_page(session.origin) or await self.page(session)
        if session.origin in self._two_stages:
            permit = await self._two_stage(session, page)
            if permit is not None:
                return permit
            log.info("the requirements in two stages are gone; asking for them in one")
            self._two_stages.discard(session.origin)
        configs = self._configs(Form.SINGLE_STAGE, session, page)
        requirements = await self._single_stage(session, configs.first)
        if requirements is not None:
            return _permit(requirements, await self._prove(requirements, configs), page)
        permit = await self._two_stage(session, page)
        if permit is None:
            raise UpstreamProtocolError("ChatGPT no longer has the requirements call.")
        # Remembered only now: a backend that refuses both forms for a while has dropped neither.
        self._two_stages.add(session.origin)
        return permit

    async def page(self, session: Session) -> _Page:
        """Give the home page's facts, at most 15 minutes old; the fallback where it cannot be read."""
        known = self._known_page(session.origin)
        if known is not None:
            return known
        async with self._page_locks.setdefault(session.origin, asyncio.Lock()):
            known = self._known_page(session.origin)
            if known is None:
                known = self._pages[session.origin] = await self._load_page(session)
            return known

    def _known_page(self, origin: str) -> _Page | None:
        known = self._pages.get(origin)
        return known if known is not None and known.expires > self._clock.monotonic() else None

    async def _load_page(self, session: Session) -> _Page:
        now = self._clock.now()
        facts = FALLBACK_PAGE
        try:
            answer = await self._calls.load_page(session)
            if answer.status == 200:
                facts = parse_home_page(answer.body.decode("utf-8", "replace"), f"{session.origin}/")
            else:
                log.info("home page answered %d; using the fallback build", answer.status)
        except UpstreamError as error:
            log.info("home page could not be read (%s); using the fallback build", error)
        return _Page(facts, now, self._clock.monotonic() + PAGE_LIFETIME)

    async def _single_stage(self, session: Session, template: Template) -> Requirements | None:
        """Give the answer of the single-stage form, None when this backend speaks the other one."""
        token = make_requirements_token(Form.SINGLE_STAGE, template, self._rng)
        answer = await self._calls.post(session, _SINGLE, orjson.dumps(requirements_body(token)))
        requirements = parse_requirements(answer.body, Form.SINGLE_STAGE) if _is_json(answer) else None
        if needs_two_stages(answer.status, requirements):
            return None
        return self._accepted(session, answer, requirements)

    async def _two_stage(self, session: Session, page: _Page) -> Permit | None:
        """Give the permit by the two-stage form, None when this backend does not speak it."""
        form = Form.TWO_STAGES
        configs = self._configs(form, session, page)
        token = make_requirements_token(form, configs.first, self._rng)
        answer = await self._calls.post(session, f"{_SINGLE}/prepare", orjson.dumps(requirements_body(token)))
        if answer.status in _GONE:
            return None
        prepared = self._accepted(session, answer, parse_requirements(answer.body, form) if _is_json(answer) else None)
        proof = await self._prove(prepared, configs)
        if prepared.prepare_token is None:
            return _permit(prepared, proof, page)
        body = orjson.dumps(finalize_body(prepared.prepare_token, proof))
        answer = await self._calls.post(session, f"{_SINGLE}/finalize", body)
        if not _is_json(answer):
            raise self._refusal(session, answer)
        return _permit(parse_finalized(answer.body, prepared), proof, page)

    def _accepted(self, session: Session, answer: Response, requirements: Requirements | None) -> Requirements:
        if requirements is None:
            raise self._refusal(session, answer)
        if requirements.force_login:
            if session.access_token is None:
                raise AnonymousUnavailableError(
                    "The backend asks for a sign-in, so sign-in-free chat is not open from this address. Another exit "
                    "(PROXY_URL) or an account helps."
                )
            raise AccountRejectedError("The backend does not accept the account's token.", reason="token_expired")
        if requirements.token is None and requirements.prepare_token is None:
            raise UpstreamProtocolError("The backend's requirements hold no token.")
        return requirements

    def _refusal(self, session: Session, answer: Response) -> UpstreamError:
        call = Call("requirements", session.credential, session.private)
        return classify_answer(answer.status, answer.headers, answer.body, call=call, now=self._clock.now())

    async def _prove(self, requirements: Requirements, configs: "_Configs") -> str | None:
        if requirements.challenge is None:
            return None
        check_difficulty(requirements.challenge, self._hardest)
        return await self._solver.solve(requirements.challenge, configs.next)

    def _configs(self, form: Form, session: Session, page: _Page) -> "_Configs":
        return _Configs(lambda: self._config(form, session, page))

    def _config(self, form: Form, session: Session, page: _Page) -> Template:
        now = self._clock.now()
        device = _device(session.device_id, session.profile.user_agent, _pacific(now))
        if form is Form.TWO_STAGES:
            config = two_stage_config(device, page.facts, now=now, loaded_at=page.loaded_at, rng=self._rng)
        else:
            config = single_stage_config(
                device, page.facts, now=now, loaded_at=page.loaded_at, rng=self._rng, unique_id=fresh_id()
            )
        return Template.of(config, form.algorithm)


class _Configs:
    """The config arrays of one exchange, serialised: the page proves with the array that it introduced itself with.

    Only a search that finds nothing in that one goes on with fresh ones.
    """

    def __init__(self, make: Callable[[], Template]) -> None:
        self._make = make
        self._unused: Template | None = None
        self.first = self._unused = make()

    def next(self) -> Template:
        """Give the first array once, then a fresh one each time."""
        config, self._unused = self._unused, None
        return config if config is not None else self._make()


@lru_cache(maxsize=4096)
def _device(device_id: str, user_agent: str, zone: Zone) -> Device:
    return Device(device_id, user_agent, zone=zone)


def _permit(requirements: Requirements, proof: str | None, page: _Page) -> Permit:
    return Permit(sentinel_headers(requirements, proof), requirements.arkose_required, page.facts.build_id)


def _is_json(answer: Response) -> bool:
    return answer.status == 200 and answer.headers.get("content-type", "").startswith("application/json")


def _pacific(now: float) -> Zone:
    """Give the zone that the conversation bodies name, as the page's clock shows it on that day."""
    return _named(-zone_at("America/Los_Angeles", now).offset_min)


@lru_cache(maxsize=4)
def _named(offset: int) -> Zone:
    return PACIFIC if offset == PACIFIC.offset_minutes else Zone(offset, "Pacific Daylight Time")
