"""Calls that are forwarded to the OpenAI API: its answer goes to our caller as it comes, byte for byte.

Nothing is sent before the answer has begun (its first event, or the whole of a short body), unless a stream lets its
caller wait for longer than the keep-alive interval. While a stream flows, most of its pieces go from the socket that they
came by to the caller's without a switch of tasks.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal, cast

import orjson
from quart import Response, request

from chat2api.accounts.pool import Outcome
from chat2api.api.charging import Charge
from chat2api.api.context import current_caller, current_runtime, on_request_end, track_answer
from chat2api.api.dispatch import DIRECT_BODY, DirectBody, LastPiece
from chat2api.api.openai.objects import is_id
from chat2api.errors import (
    Chat2APIError,
    LoopDetectedError,
    StorageError,
    StreamInterruptedError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from chat2api.gateway.api_answers import ApiAnswer
from chat2api.gateway.deadlines import AnswerLimits, Watchdog
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.protocol.event_stream import encode_comment, encode_event
from chat2api.protocol.openai.errors import error_object
from chat2api.protocol.openai.passing import StreamPassage, WholePassage, find_id
from chat2api.protocol.openai.references import MadeReader, is_looked_up
from chat2api.protocol.openai.usage import Usage
from chat2api.runtime import Runtime
from chat2api.storage.api_objects import ApiObject, ObjectKind
from chat2api.upstream.exchange import ResponseStream
from chat2api.upstream.openai import VIA, ApiCall, is_safe_value, passed_through
from chat2api.upstream.uploads import Upload

log = logging.getLogger(__name__)

MAX_VIA = 8
"""Servers of ours that a call may have passed through."""

_KEEP_ALIVE = encode_comment("keep-alive")
_PASSED = ("content-type", "content-disposition", "content-language")
"""Headers of an answer that are passed on; the others say how, by whom or for whom it was made."""
_LIMIT_HEADERS = ("retry-after", "retry-after-ms")


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What is to be forwarded. `path`, `body` and `content_type` are the API's; `kind` is how a streamed answer ends.

    `stream` says that events are asked for, `asked_usage` that we alone ask for the chunk with the usage.
    """

    method: str
    path: tuple[str, ...]
    model: str
    body: bytes | None = None
    content_type: str | None = "application/json"
    stream: bool = False
    asked_usage: bool = False
    plain_body: bytes | None = None
    """The body without what we ask for, for servers that do not take it."""
    kind: Literal["chat", "responses", "other"] = "other"
    query: tuple[tuple[str, str], ...] = ()
    count_images: Callable[[], int] = int
    """Gives how many pictures are asked for, once all of the call is here; none as it stands."""
    upload: Upload | None = None
    """A body that comes while it is sent, in place of `body`."""
    feed: Callable[[], Awaitable[None]] | None = None
    """Brings it; what it raises ends the call."""
    longest: int | None = None
    """Tokens that an answer is booked as that is made in the background, when nobody tells its usage."""
    affinity: str | None = None
    key: str | None = None
    """The label of the only key that can serve."""
    makes: ObjectKind | None = None
    """What the call makes: it is its caller's, and stays with the key."""
    deletes: str | None = None
    """The id of what the call takes away."""


async def forward(forwarding: Forwarding, charge: Charge | None) -> Response:
    """Give the API's answer to the current request; raise what kept it from beginning.

    `charge` None is for calls that make no model work.
    """
    runtime, caller = current_runtime(), current_caller()
    limits = runtime.openai.limits(forwarding.model)
    seconds = limits.first_content if forwarding.stream else limits.whole  # also for what is uploaded
    call = ApiCall(
        forwarding.method,
        forwarding.path,
        seconds,
        body=forwarding.body,
        content_type=forwarding.content_type if forwarding.body is not None or forwarding.upload is not None else None,
        accept="text/event-stream" if forwarding.stream else "*/*" if forwarding.path[-1] == "content" else None,
        query=forwarding.query,
        headers=_headers_sent(runtime, caller),
        upload=forwarding.upload,
        plain_body=forwarding.plain_body,
    )
    relay = _Relay(runtime, caller, forwarding, call, charge, limits)
    track_answer(relay, caller.key.id if caller.key is not None else None)
    on_request_end(relay.finish)
    return await relay.answer(asyncio.get_running_loop().time() + seconds)


class _Relay:
    """One forwarded call, from its beginning to its settlement."""

    def __init__(
        self,
        runtime: Runtime,
        caller: Caller,
        forwarding: Forwarding,
        call: ApiCall,
        charge: Charge | None,
        limits: AnswerLimits,
    ) -> None:
        self._runtime = runtime
        self._caller = caller
        self._forwarding = forwarding
        self._call = call
        self._charge = charge
        self._facts = charge.facts if charge is not None else AnswerFacts()
        self._limits = limits
        self._direct = cast(
            "DirectBody | None", cast("dict[str, object]", request.scope.get("extensions", {})).get(DIRECT_BODY)
        )
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[ApiAnswer] | None = None
        self._interruption: Chat2APIError | None = None
        self._outcome: Outcome | Exception = Outcome.ABANDONED
        self._begun = False
        self._failed = False
        making = _making(caller, forwarding)
        self._events = StreamPassage(asked_usage=forwarding.asked_usage, kind=forwarding.kind, making=making)
        self._whole = WholePassage()
        self._made = MadeReader() if making is not None else None

    async def answer(self, first_by: float) -> Response:
        """Give the response."""
        opening = self._opening = self._runtime.spawn(
            self._runtime.openai.open(
                self._caller,
                self._call,
                model=self._forwarding.model,
                first_by=first_by,
                facts=self._facts,
                affinity=self._forwarding.affinity,
                key=self._forwarding.key,
            ),
            name="forwarding",
        )
        await self._feed(opening)
        interval = self._runtime.config.keep_alive_interval if self._forwarding.stream else None
        await asyncio.wait((opening,), timeout=interval)
        if not opening.done():
            return self._event_response(self._late_events(opening))
        answer = self._opened()
        await self._note_object(answer)
        headers = _headers_told(answer, self._caller)
        if answer.is_events:
            return self._event_response(self._pass_events(answer), answer.status, headers)
        if answer.stream is None:
            self._give(answer, answer.first)
            self._outcome = Outcome.SERVED
            return Response(answer.first, answer.status, headers)
        response = Response(self._pass_whole(answer, answer.stream), answer.status, headers)
        response.timeout = None
        return response

    async def _feed(self, opening: "asyncio.Task[ApiAnswer]") -> None:
        """Bring what is to be uploaded, until it is all there or nobody wants it any more. Raises what is wrong with it."""
        upload, feed = self._forwarding.upload, self._forwarding.feed
        if upload is None or feed is None:
            return
        opening.add_done_callback(lambda _: upload.stop())
        await feed()

    def interrupt(self, error: Chat2APIError) -> None:
        """End the answer with that error; what has been passed on stays."""
        self._interruption = error
        opening = self._opening
        if opening is None or not opening.done():
            if opening is not None:
                opening.cancel()
        elif (
            not opening.cancelled() and opening.exception() is None and (stream := opening.result().stream) is not None
        ):
            self._runtime.spawn(stream.aclose(), name="interruption")  # its reader wakes up with an error

    async def finish(self) -> None:
        """End what still runs and settle what was used."""
        opening = self._opening
        try:
            if opening is not None:
                if not opening.done():
                    opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                if not opening.cancelled() and opening.exception() is None:
                    await opening.result().aclose(self._outcome)
        finally:
            if self._charge is not None:
                await self._settle(self._charge)

    def _opened(self) -> ApiAnswer:
        """Give the answer that has begun. Raises what kept it from that."""
        assert self._opening is not None
        if self._interruption is not None:
            raise self._interruption
        answer = self._opening.result()
        if not self._runtime.openai.tells_usage:
            self._events.asked_usage = False
        if answer.status < 400:
            self._facts.model = self._forwarding.model
        return answer

    def _give(self, answer: ApiAnswer, data: bytes) -> None:
        """Note what goes to the caller."""
        if answer.status < 400:
            self._begun = True
            self._whole.feed(data)
            if self._made is not None:
                self._note_made(self._made.feed(data))

    async def _settle(self, charge: Charge) -> None:
        """Book what was used: as the API counted it, else an estimate."""
        if self._begun:
            usage = self._events.usage or self._whole.usage()
            if usage is None:
                completion = self._events.events or self._whole.estimate() or self._forwarding.longest or 0
                usage = Usage(charge.usage().prompt_tokens, completion)
            charge.measure(usage, self._forwarding.count_images())
        await charge.settle(failed=self._failed or not self._begun, told=self._forwarding.stream)

    async def _note_object(self, answer: ApiAnswer) -> None:
        """Keep whose an object is before its caller learns its id, or forget one that is gone."""
        forwarding, objects = self._forwarding, self._runtime.api_objects
        if self._caller.kind == "own_key" or answer.status >= 300 or not (forwarding.makes or forwarding.deletes):
            return
        try:
            if forwarding.deletes is not None:
                await objects.forget(forwarding.deletes)
            elif forwarding.makes is not None and (made := find_id(answer.first)) is not None:
                await objects.keep(self._made_now(made, forwarding.makes))
        except StorageError as error:
            log.warning("cannot keep whose an object is: %s", error)

    def _note_made(self, identifiers: Collection[str]) -> None:
        """Note whose the items of an answer are, before they are passed on."""
        stored = self._forwarding.makes is not None or self._forwarding.method == "GET"
        known = [one for one in identifiers if is_id(one) and (stored or is_looked_up(one))]
        if known:
            self._runtime.api_objects.note([self._made_now(one, "item") for one in known])

    def _made_now(self, identifier: str, kind: ObjectKind) -> ApiObject:
        key, now = self._facts.account or "", self._runtime.clock.now()
        return ApiObject(identifier, kind, key, self._caller.owner, now)

    def _event_response(
        self, body: AsyncGenerator[bytes], status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        response = Response(body, status, headers or {"Content-Type": "text/event-stream; charset=utf-8"})
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Accel-Buffering"] = "no"
        response.timeout = None
        return response

    async def _late_events(self, opening: "asyncio.Task[ApiAnswer]") -> AsyncGenerator[bytes]:
        """Keep a caller alive whose answer has not begun, then pass it on; a failure is an event by now."""
        while not opening.done():
            yield _KEEP_ALIVE
            await asyncio.wait((opening,), timeout=self._runtime.config.keep_alive_interval)
        try:
            answer = self._opened()
        except Chat2APIError as error:
            self._failed = True
            yield LastPiece(_error_event(error))
            return
        await self._note_object(answer)
        if answer.is_events:
            async for data in self._pass_events(answer):
                yield data
            return
        # The answer has turned out to be no stream; as one event it is still what a client can read.
        self._failed = answer.status >= 400
        self._outcome = Outcome.SERVED
        self._give(answer, answer.first)
        yield LastPiece(encode_event(answer.first) + (b"" if self._failed else encode_event("[DONE]")))

    async def _pass_events(self, answer: ApiAnswer) -> AsyncGenerator[bytes]:
        """Pass a stream on."""
        self._begun = True
        passage, stream = self._events, answer.stream
        watchdog = Watchdog()
        try:
            first = passage.feed(answer.first)
            self._take_made()
            if first:
                yield first
            if stream is not None:
                async for data in self._pass_pieces(stream, watchdog):
                    yield data
            rest = passage.finish()
            self._take_made()
            if not passage.whole:
                raise StreamInterruptedError("The API's answer ended before its end.")
            if passage.failed:
                self._failed = True
                self._outcome = StreamInterruptedError("The API told an error in the middle of its answer.")
            else:
                self._outcome = Outcome.SERVED
            yield LastPiece(rest)
        except Chat2APIError as error:
            yield LastPiece(passage.cut() + _error_event(self._failure(error)))
        except Exception as error:  # what the error handler is for answers that have not begun
            log.error("unexpected failure in the middle of a forwarded answer", exc_info=error)
            self._failed = True
            yield LastPiece(passage.cut() + _error_event(error))
        finally:
            watchdog.close()

    def _take_made(self) -> None:
        self._note_made(self._events.made)
        self._events.made.clear()

    async def _pass_pieces(self, stream: ResponseStream, watchdog: Watchdog) -> AsyncGenerator[bytes]:
        """Yield what cannot be written where it stands: the rest goes out from within `take`."""
        passage, clock = self._events, self._loop.time
        interval, limits = self._runtime.config.keep_alive_interval, self._limits
        direct = self._direct
        whole_by = clock() + limits.whole
        heard_at = clock()
        held = b""

        def take(data: bytes) -> bool:
            nonlocal heard_at, held
            heard_at = clock()
            out = passage.feed(data)
            if passage.made:
                self._take_made()
            if out and direct is not None and direct.may_write:
                direct.write_now(out)
            else:
                held = out
            watchdog.put_off(min(heard_at + interval, whole_by))
            return not held

        while True:
            by = min(clock() + interval, heard_at + limits.between_events, whole_by)
            try:
                more = await watchdog.wait(stream.pass_on(take), by)
            except TimeoutError as error:
                if clock() >= min(heard_at + limits.between_events, whole_by):
                    raise UpstreamTimeoutError("The API went silent in its answer.", phase="between_events") from error
                if passage.between_events:
                    yield _KEEP_ALIVE
                continue
            if held:
                out, held = held, b""
                yield out
            if not more:
                return

    async def _pass_whole(self, answer: ApiAnswer, stream: ResponseStream) -> AsyncGenerator[bytes]:
        """Pass on a body that is no stream of events; one that breaks off breaks off for the caller, too."""
        watchdog, clock = Watchdog(), self._loop.time
        whole_by = clock() + self._limits.whole
        try:
            self._give(answer, answer.first)
            yield answer.first
            while True:
                by = min(clock() + self._limits.between_events, whole_by)
                data = await watchdog.wait(stream.read(), by)
                if not data:
                    break
                self._give(answer, data)
                yield data
            self._outcome = Outcome.SERVED
        except (Chat2APIError, TimeoutError) as error:
            failure = error if isinstance(error, Chat2APIError) else UpstreamTimeoutError("", phase="between_events")
            log.info("a forwarded answer broke off: %s", self._failure(failure))
            raise ConnectionError("the answer broke off") from error
        finally:
            watchdog.close()

    def _failure(self, error: Chat2APIError) -> Chat2APIError:
        """Note what broke an answer off; give what its caller is told."""
        self._failed = True
        if self._interruption is not None:
            return self._interruption
        if isinstance(error, UpstreamError):
            self._outcome = error
        if isinstance(error, TransportError | UpstreamProtocolError | UpstreamTimeoutError):
            return StreamInterruptedError(f"The answer was cut off: {error.message}")
        return error


def _making(caller: Caller, forwarding: Forwarding) -> bytes | None:
    """Give what stands in the events that tell ids of what was made; None where there are none, or nobody's here."""
    if caller.kind in ("own_key", "public"):
        return None
    if forwarding.path[0] == "responses":
        return b"output_item."
    return b'"audio"' if forwarding.kind == "chat" and b'"audio"' in (forwarding.body or b"") else None


def _error_event(error: BaseException) -> bytes:
    return encode_event(orjson.dumps(error_object(error)[1]))


def _headers_sent(runtime: Runtime, caller: Caller) -> tuple[tuple[str, str], ...]:
    """Give the headers that go with a call: nothing of the caller's but what the API itself asks for.

    Raises LoopDetectedError for a call that has come back.
    """
    via = passed_through(request.headers.get(VIA))
    own = runtime.openai.id
    if own in via or len(via) >= MAX_VIA:
        raise LoopDetectedError("This call has passed through this server before. OPENAI_BASE_URL leads in a circle.")
    sent = [(VIA, ", ".join([*via, own]))]
    names = ("OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project") if caller.kind == "own_key" else ("OpenAI-Beta",)
    for name in names:
        value = request.headers.get(name)
        if value is not None and is_safe_value(value):
            sent.append((name, value))
    return tuple(sent)


def _headers_told(answer: ApiAnswer, caller: Caller) -> dict[str, str]:
    """Give the headers of an answer that its caller sees: of whose key it was by, only the key's owner hears."""
    headers = {name: value for name, value in answer.headers.items() if is_safe_value(value)}
    told = {name.title(): headers[name] for name in _PASSED if name in headers}
    if (theirs := headers.get("x-request-id")) is not None:
        told["x-upstream-request-id"] = theirs
    if caller.kind == "own_key":
        for name, value in headers.items():
            if name in _LIMIT_HEADERS or name.startswith("x-ratelimit-"):
                told[name] = value
    return told
