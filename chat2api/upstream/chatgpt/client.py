"""The conversation calls of the web backend: start a turn, continue it, resume it, and what belongs to its answer."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode, urljoin

import orjson

from chat2api.clock import Clock
from chat2api.errors import Chat2APIError, StreamInterruptedError, UpstreamError, UpstreamProtocolError
from chat2api.protocol.chatgpt.account import AccountInfo, parse_account_check
from chat2api.protocol.chatgpt.faults import Call, classify_answer
from chat2api.protocol.chatgpt.handoff import PUBSUB_PROTOCOL
from chat2api.protocol.chatgpt.models import OfferedModel, parse_models
from chat2api.protocol.chatgpt.request import (
    Body,
    Form,
    Surroundings,
    continue_body,
    conversation_body,
    needs_f_form,
    prepare_body,
    resume_body,
    zone_at,
)
from chat2api.protocol.chatgpt.stream import ConversationDecoder
from chat2api.protocol.chatgpt.website import SiteCall
from chat2api.protocol.chatgpt.website_turns import SiteTurn, classic_turn_body, newer_turn_bodies
from chat2api.protocol.chatgpt.workspaces import Workspace, parse_workspaces
from chat2api.protocol.events import FilePointer, Finished, HandedOff
from chat2api.protocol.prompt import ModelChoice, Prompt
from chat2api.upstream.chatgpt.backend_turn import BackendTurn
from chat2api.upstream.chatgpt.calls import BackendCalls
from chat2api.upstream.chatgpt.moved import read_pubsub, read_topic
from chat2api.upstream.chatgpt.requirements import Permit, RequirementsExchange
from chat2api.upstream.chatgpt.session import Session, fresh_id
from chat2api.upstream.headers import Fields
from chat2api.upstream.sockets import PING_PERIOD
from chat2api.upstream.transport import Response, ResponseStream, WebSocket

log = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")

ZONE_NAME = "America/Los_Angeles"
"""The time zone that the calls tell, with its true offset of the day."""

SIMULTANEOUS_STARTS = 128
"""Turns whose preparing calls may be under way at once. In a stampede of thousands all would share this process's time
and run into the limit on preparing calls together, as if the backend were slow; so some go first."""

RESUME_OFFSETS = (0, 1, 2)
"""What public clients try, in this order. The website's own client sends how many events it has received."""

ADDRESS_LIFETIME = 50 * 60.0
"""Seconds for which the address of a socket of 2024 is used again; it is said to be good for an hour."""

_PATHS: dict[Form, str] = {"2024": "/conversation", "classic": "/conversation", "f": "/f/conversation"}
_FAULT_BODY_LIMIT = 64 * 1024
_ADDRESSES_KEPT = 4096
_DOWNLOAD_TRIES = 5
_DOWNLOAD_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How the client behaves. With conversation_only the gateway in front of the backend does the requirements."""

    conversation_only: bool = False


class ChatGPTClient:
    """The backend as any session sees it."""

    def __init__(
        self, calls: BackendCalls, requirements: RequirementsExchange, clock: Clock, settings: ClientSettings
    ) -> None:
        """Make a client over these calls."""
        self._calls = calls
        self._requirements = requirements
        self._clock = clock
        self._settings = settings
        self._only_f: set[str] = set()
        self._socket_addresses: dict[str, tuple[str, float]] = {}
        """Of accounts whose answers come by the sockets of 2024: where, and when that was told."""
        self._starting = asyncio.Semaphore(SIMULTANEOUS_STARTS)

    async def start_turn(self, session: Session, prompt: Prompt) -> BackendTurn:
        """Send a prompt and give its answer. Raises the UpstreamError that a refusal stands for.

        The classic call comes first; where it is gone and the newer one is there, that takes its place for the life of
        the process.
        """
        around = self.surroundings()
        return await self._send_turn(
            session,
            None if needs_f_form(prompt) else conversation_body(prompt, around),
            lambda: (conversation_body(prompt, around, form="f"), prepare_body(prompt, around)),
        )

    async def send_turn(self, session: Session, turn: SiteTurn, *, sent_text: str = "") -> BackendTurn:
        """Send a turn whose body a caller wrote and give its answer; otherwise as `start_turn`.

        `sent_text` is what was decoded of an answer that the turn continues.
        """
        around = self.surroundings()
        return await self._send_turn(
            session,
            classic_turn_body(turn, around),
            lambda: newer_turn_bodies(turn, around),
            continued_text=sent_text,
        )

    async def call(self, session: Session, call: SiteCall) -> Response:
        """Make one of the website's calls beside the turns; raises the UpstreamError that a refusal stands for."""
        body = orjson.dumps(call.body)
        if call.method == "GET":
            answer = await self._calls.get(session, call.path, route=call.route)
        elif call.method == "POST":
            answer = await self._calls.post(session, call.path, body, route=call.route)
        else:
            answer = await self._calls.patch(session, call.path, body, route=call.route)
        return self._accepted(session, answer, call.name)

    async def continue_turn(
        self, session: Session, model: ModelChoice, cut: Finished, *, sent_text: str, temporary: bool
    ) -> BackendTurn:
        """Ask for the rest of an answer that the backend cut; `sent_text` is what was decoded of it."""
        if cut.conversation_id is None or cut.message_id is None:
            raise UpstreamProtocolError("The backend cut its answer without saying where.")
        body = continue_body(cut.conversation_id, cut.message_id, model, self.surroundings(), temporary=temporary)
        return await self._send_turn(session, body, lambda: (body, body), continued_text=sent_text)

    async def resume_turn(self, session: Session, handed: HandedOff) -> BackendTurn:
        """Give the answer that the backend handed off to its resume call; it may begin anew.

        Raises StreamInterruptedError when it is not to be had there.
        """
        if handed.conversation_id is None:
            raise StreamInterruptedError("The backend moved its answer elsewhere without saying where.")
        extra: tuple[tuple[str, str], ...] = (("X-Oai-Turn-Trace-Id", fresh_id()),)
        if handed.resume_token is not None:
            extra = (("X-Conduit-Token", handed.resume_token), *extra)
        known = () if handed.received is None else (handed.received,)
        for offset in dict.fromkeys((*known, *RESUME_OFFSETS)):
            body = orjson.dumps(resume_body(handed.conversation_id, offset))
            stream = await self._calls.open_stream(
                session, "/f/conversation/resume", body, conversation_id=handed.conversation_id, extra=extra
            )
            if stream.status == 200:
                return BackendTurn(stream, ConversationDecoder())
            answer = await _read_fault(stream)
            if answer.status != 404:
                raise self._refusal(session, answer, "conversation")
        raise StreamInterruptedError("The backend moved its answer elsewhere, and it is not to be had there.")

    async def topic_turn(self, session: Session, handed: HandedOff) -> BackendTurn:
        """Give the answer that the backend handed off, from its topic on the account's socket; it begins anew.

        Raises StreamInterruptedError when it has no topic, and the UpstreamError for which there is no socket.
        """
        if handed.topic_id is None:
            raise StreamInterruptedError("The backend moved its answer elsewhere without saying where.")
        facts = self._read_object(session, await self._calls.get(session, "/celsius/ws/user"), "socket")
        socket = await self._calls.connect(session, _address(facts, "websocket_url"), ping_period=PING_PERIOD)
        try:
            return BackendTurn(read_topic(socket, handed.topic_id), ConversationDecoder())
        except BaseException:
            await socket.aclose()
            raise

    async def socket_turn(self, session: Session, handed: HandedOff) -> BackendTurn:
        """Give the answer for which the backend named a socket of 2024.

        From then on the account's sockets are opened before its turns, so that no early frame is missed.
        """
        address = handed.websocket_url or ""
        socket = await self._calls.connect(session, address, sub_protocol=PUBSUB_PROTOCOL)
        self._note_address(session, address)
        return BackendTurn(read_pubsub(socket, handed.conversation_id), ConversationDecoder())

    async def stored_conversation(self, session: Session, conversation_id: str) -> dict[str, object]:
        """Give a stored conversation, the backend's JSON object."""
        answer = await self._calls.get(
            session, f"/conversation/{quote(conversation_id, safe='')}", route="/conversation/{conversation_id}"
        )
        return self._read_object(session, answer, "conversation")

    async def current_message(self, session: Session, conversation_id: str) -> str:
        """Give the id of a stored conversation's last message."""
        current = (await self.stored_conversation(session, conversation_id)).get("current_node")
        if not isinstance(current, str):
            raise UpstreamProtocolError("The backend's conversation does not say where it ends.")
        return current

    async def check_reachable(self, session: Session) -> None:
        """Return when the backend's home page can be had through the session's exit; raise what it answered instead."""
        self._accepted(session, await self._calls.load_page(session), "home page")

    async def clock_skew(self, session: Session) -> float | None:
        """Give how many seconds the backend's clock is ahead of ours, None when it does not tell."""
        answer = await self._calls.load_page(session)
        try:
            return parsedate_to_datetime(answer.headers["date"]).timestamp() - self._clock.now()
        except (KeyError, ValueError):
            return None

    async def account_info(self, session: Session, workspace: str | None) -> AccountInfo | None:
        """Give what the backend tells of the account in that workspace, None when it cannot be read."""
        answer = await self._calls.get(session, "/accounts/check/v4-2023-04-27")
        return parse_account_check(self._read_object(session, answer, "account"), workspace)

    async def models(self, session: Session) -> tuple[OfferedModel, ...]:
        """Give the models that the backend offers to this session."""
        query = "iim=false&is_gizmo=false" if session.access_token is None else "history_and_training_disabled=false"
        answer = self._accepted(session, await self._calls.get(session, f"/models?{query}"), "models")
        try:
            return parse_models(orjson.loads(answer.body))
        except orjson.JSONDecodeError as error:
            raise UpstreamProtocolError("The backend's list of models is not JSON.") from error

    async def workspaces(self, session: Session) -> tuple[Workspace, ...]:
        """Give the workspaces of a signed-in session's account."""
        answer = await self._calls.get(session, "/accounts/check/v4-2023-04-27")
        return parse_workspaces(self._read_object(session, answer, "accounts"))

    async def file_url(self, session: Session, pointer: FilePointer) -> str | None:
        """Give the address of a file that the backend made, None when it cannot be had."""
        path = _download_path(pointer)
        if path is None:
            return None
        for attempt in range(_DOWNLOAD_TRIES):
            if attempt:
                await self._clock.sleep(_DOWNLOAD_PAUSE)
            try:
                answer = await self._calls.get(session, path)
                facts = orjson.loads(answer.body) if answer.status == 200 else None
            except (UpstreamError, orjson.JSONDecodeError) as error:
                log.info("the address of a file could not be had: %s", error)
                return None
            if not isinstance(facts, dict):
                return None
            url = facts.get("download_url") or facts.get("url")
            if isinstance(url, str) and url:
                return urljoin(f"{session.origin}/", url)
            if facts.get("status") != "retry":
                return None
        return None

    async def _send_turn(
        self,
        session: Session,
        classic: Body | None,
        newer: Callable[[], tuple[Body, Body]],
        *,
        continued_text: str = "",
    ) -> BackendTurn:
        """Send by the classic call, or by the newer one where there is no classic one (any more).

        `newer` gives the newer call's body and that of the prepare call before it.
        """
        is_gone = False
        if classic is None and self._settings.conversation_only:
            classic, _ = newer()  # a gateway has one call, and finds by what the body asks for how the backend takes it
        if classic is not None and session.origin not in self._only_f:
            try:
                return await self._send(session, "classic", classic, continued_text=continued_text)
            except _EndpointGoneError:
                is_gone = True
        body, prepare = newer()
        try:
            turn = await self._send(session, "f", body, prepare=prepare, continued_text=continued_text)
        except _EndpointGoneError as error:
            raise UpstreamProtocolError("ChatGPT no longer has the conversation call.") from error
        if is_gone:
            # Remembered only now: a backend that refuses both forms for a while is not one that has dropped the first.
            log.info("the classic conversation call is gone; using the newer one")
            self._only_f.add(session.origin)
        return turn

    async def _send(
        self, session: Session, form: Form, body: Body, *, prepare: Body | None = None, continued_text: str = ""
    ) -> BackendTurn:
        trace = (("X-Oai-Turn-Trace-Id", fresh_id()),) if form == "f" else ()
        async with self._starting:
            permit = await self._before_turn(session, prepare, trace)
        conversation_id = cast("str | None", body.get("conversation_id"))
        early = await self._open_early(session)
        try:
            stream = await self._calls.open_stream(
                session,
                _PATHS[form],
                orjson.dumps(body),
                conversation_id=conversation_id,
                build_id=permit.build_id if permit.build_id.startswith("prod-") else None,
                extra=(*permit.headers, *trace),
            )
            if stream.status == 200:
                decoder = ConversationDecoder(own_message_ids=_message_ids(body), continued_text=continued_text)
                turn, early = BackendTurn(stream, decoder, early), None
                if "event-stream" in stream.headers.get("content-type", ""):
                    self._socket_addresses.pop(session.key, None)
                return turn
        finally:
            if early is not None:
                await early.aclose()
        answer = await _read_fault(stream)
        if _is_endpoint_gone(answer):
            raise _EndpointGoneError
        raise self._refusal(session, answer, "conversation", check_asked=permit.check_asked)

    async def _before_turn(self, session: Session, prepare: Body | None, trace: Fields) -> Permit:
        """Give the headers that the turn needs, and the web build: requirements and prepare call side by side."""
        if self._settings.conversation_only:
            return Permit((), check_asked=False)
        if prepare is None:
            return await self._requirements.obtain(session)
        permit, conduit = await _side_by_side(
            self._requirements.obtain(session), self._prepare(session, prepare, trace)
        )
        return replace(permit, headers=(*permit.headers, ("X-Conduit-Token", conduit)))

    async def _open_early(self, session: Session) -> WebSocket | None:
        """Open the socket of an account whose answers come there; None for all others, and when it cannot be had."""
        known = self._socket_addresses.get(session.key)
        if known is None:
            return None
        address, told_at = known
        try:
            if self._clock.monotonic() - told_at >= ADDRESS_LIFETIME:
                answer = await self._calls.post(session, "/register-websocket", b"")
                address = _address(self._read_object(session, answer, "socket"), "wss_url")
                self._note_address(session, address)
            return await self._calls.connect(session, address, sub_protocol=PUBSUB_PROTOCOL)
        except UpstreamError as error:
            log.info("a socket could not be opened before its turn: %s", error)
            self._socket_addresses.pop(session.key, None)
            return None

    def _note_address(self, session: Session, address: str) -> None:
        if len(self._socket_addresses) >= _ADDRESSES_KEPT:
            self._socket_addresses.clear()
        self._socket_addresses[session.key] = (address, self._clock.monotonic())

    async def _prepare(self, session: Session, body: Body, trace: Fields) -> str:
        """Give the conduit token, "" when the backend gives none."""
        answer = await self._calls.post(
            session, "/f/conversation/prepare", orjson.dumps(body), extra=(("X-Conduit-Token", "no-token"), *trace)
        )
        if _is_endpoint_gone(answer):
            raise UpstreamProtocolError("ChatGPT no longer has the call that prepares a turn.")
        token = self._read_object(session, answer, "conversation").get("conduit_token")
        return token if isinstance(token, str) else ""

    def _read_object(self, session: Session, answer: Response, name: str) -> dict[str, object]:
        """Give the JSON object that a call answered."""
        try:
            facts = orjson.loads(self._accepted(session, answer, name).body)
        except orjson.JSONDecodeError as error:
            raise UpstreamProtocolError(f"ChatGPT's answer to the {name} call is not JSON.") from error
        if not isinstance(facts, dict):
            raise UpstreamProtocolError(f"ChatGPT's answer to the {name} call is not an object.")
        return facts

    def _accepted(self, session: Session, answer: Response, name: str) -> Response:
        if answer.status == 200:
            return answer
        raise self._refusal(session, answer, name)

    def _refusal(self, session: Session, answer: Response, name: str, *, check_asked: bool = False) -> UpstreamError:
        call = Call(name, session.credential, session.private, check_asked)
        return classify_answer(answer.status, answer.headers, answer.body, call=call, now=self._clock.now())

    def surroundings(self) -> Surroundings:
        """Give what bodies tell beside what is asked, as it is now."""
        now = self._clock.now()
        return Surroundings(now=now, zone=zone_at(ZONE_NAME, now), new_id=fresh_id)


class _EndpointGoneError(Exception):
    """The conversation call that was tried does not exist (any more)."""


async def _side_by_side(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Give the results of both; when one fails, end the other and raise that failure as it is, not in a group."""
    failure: Chat2APIError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as errors:
        failure = next((error for error in errors.exceptions if isinstance(error, Chat2APIError)), None)
        if failure is None:
            raise
    if failure is not None:
        raise failure
    return one.result(), other.result()


async def _read_fault(stream: ResponseStream) -> Response:
    """Give a refused call's whole answer, as far as anyone wants to read it, and close it."""
    body = b""
    try:
        while len(body) < _FAULT_BODY_LIMIT and (data := await stream.read()):
            body += data
    except UpstreamError as error:
        log.debug("a refusal's body broke off: %s", error)
    finally:
        await stream.aclose()
    return Response(stream.status, stream.headers, body[:_FAULT_BODY_LIMIT], "")


def _is_endpoint_gone(answer: Response) -> bool:
    """Tell "no such call" from "no such conversation", which comes with a code."""
    if answer.status in (405, 410):
        return True
    return answer.status == 404 and b'"code"' not in answer.body


def _address(facts: dict[str, object], name: str) -> str:
    """Give the address of a socket out of the answer that tells it."""
    address = facts.get(name)
    if not isinstance(address, str):
        raise UpstreamProtocolError("The backend named no address for its web socket.")
    return address


def _message_ids(body: Body) -> Sequence[str]:
    messages = cast("list[dict[str, object]]", body.get("messages", []))
    return [cast(str, message["id"]) for message in messages]


def _download_path(pointer: FilePointer) -> str | None:
    """Give the call that tells a file's address, by the scheme of its pointer."""
    scheme, _, rest = pointer.pointer.partition(":")
    name = quote(rest.lstrip("/"), safe="")
    conversation = quote(pointer.conversation_id or "", safe="")
    if scheme == "file-service":
        return f"/files/{name}/download"
    if scheme == "sediment" and conversation:
        return f"/conversation/{conversation}/attachment/{name}/download"
    if scheme == "sandbox" and conversation and pointer.message_id:
        query = urlencode({"message_id": pointer.message_id, "sandbox_path": rest})
        return f"/conversation/{conversation}/interpreter/download?{query}"
    return None
