"""One attempt at a call of the API with one key, and the answer that begins by it.

An answer has begun with its first event, or with the whole of a short body: what goes wrong before that is the attempt's
failure, also where it stands behind a good status. A refusal that is about the request is an answer too, masked.
"""

import asyncio
from collections.abc import Mapping
from typing import cast

import orjson

from chat2api.accounts.exits import Exit, Exits
from chat2api.accounts.health import Verdict, judge
from chat2api.accounts.pool import Lease, Outcome
from chat2api.errors import UpstreamProtocolError, UpstreamRefusedRequestError, UpstreamTimeoutError
from chat2api.protocol.openai.models import ModelObject
from chat2api.protocol.openai.passing import first_event
from chat2api.protocol.openai.refusals import (
    classify_refusal,
    is_bare_error,
    mask_error,
    read_error,
    status_of_error,
)
from chat2api.upstream.exchange import ResponseStream
from chat2api.upstream.openai import ApiCall, OpenAIClient, read_refusal

FIRST_LIMIT = 256 * 1024
"""Bytes of an answer that are held before it is decided that it has begun."""

LIST_LIMIT = 8 * 1024 * 1024
"""Bytes of a list that is read here."""

OWN = "own"
"""Stands for the caller's own key where attempts are counted."""


class ApiAnswer:
    """An answer that has begun: `first` is what came of its body. Always `aclose` it with how it went."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        first: bytes,
        stream: ResponseStream | None,
        attempt: "ApiAttempt",
    ) -> None:
        """Made by ApiAttempt.open only."""
        self.status = status
        self.headers = headers
        self.first = first
        self.stream = stream
        """What comes behind `first`; None when that is all."""
        self._attempt = attempt

    @property
    def is_events(self) -> bool:
        """Whether the body is an event stream."""
        return is_event_stream(self.headers)

    async def read_whole(self, seconds: float) -> bytes:
        """Give the whole body of a short answer and close it. Raises UpstreamError."""
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            pieces = [self.first]
            async with asyncio.timeout(seconds):
                while self.stream is not None and (data := await self.stream.read()):
                    pieces.append(data)
                    if sum(map(len, pieces)) > LIST_LIMIT:
                        raise UpstreamProtocolError("The API's list is too long.")
            outcome = Outcome.SERVED
        except TimeoutError as error:
            raise UpstreamTimeoutError("The API did not end its answer in time.", phase="whole") from error
        finally:
            await self.aclose(outcome)
        return b"".join(pieces)

    async def aclose(self, outcome: Outcome | Exception) -> None:
        """Abort what still comes and free the key."""
        await self._attempt.finish(outcome)


class ApiAttempt:
    """One attempt with one key."""

    def __init__(
        self,
        client: OpenAIClient,
        exits: Exits,
        call: ApiCall,
        *,
        model: str,
        secret: str,
        lease: Lease | None,
        label: str,
        who: str,
    ) -> None:
        """Make an attempt with a leased key, or with the caller's own (no lease); `finish` it, however it ends.

        `who` asks, as the exits tell callers apart; "" for nobody in particular.
        """
        self._client = client
        self._exits = exits
        self._who = who
        self._call = call
        self._model = model
        self._secret = secret
        self._stream: ResponseStream | None = None
        self._finished = False
        self._sent = False
        self.lease = lease
        self.label = label
        self.id = lease.account.id if lease is not None else OWN
        self.proxy: Exit = None

    async def open(self, avoid: set[Exit]) -> ApiAnswer:
        """Give the answer once something of it is here. Raises what is wrong with the key or the server."""
        client = self._client
        self.proxy = self._exits.choose(self.id, client.host, avoid=avoid, who=self._who)
        self._sent = True
        self._stream = stream = await client.open(self._secret, self.proxy, self._call)
        if not 200 <= stream.status < 300:
            return await self._refused(stream)
        kind = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and self._call.accept != "*/*":
            raise UpstreamProtocolError("The API answered with a page.")
        if kind == "text/event-stream":
            return await self._begin_events(stream)
        return await self._begin_whole(stream, is_json=kind == "application/json")

    async def _refused(self, stream: ResponseStream) -> ApiAnswer:
        body = await read_refusal(stream)
        error = classify_refusal(stream.status, stream.headers, body)
        own = self.lease is None
        if error is not None and not (own and 400 <= stream.status < 500):
            raise error
        await stream.aclose()
        headers = {**stream.headers, "content-type": "application/json"}
        return ApiAnswer(stream.status, headers, mask_error(body), None, self)

    async def _begin_events(self, stream: ResponseStream) -> ApiAnswer:
        """Wait for the first event: an error there is this attempt's failure, or the answer's real status."""
        data = b""
        while True:
            first = first_event(data)
            if first.kind == "content" or len(data) > FIRST_LIMIT:
                return ApiAnswer(stream.status, stream.headers, data, stream, self)
            if first.kind == "error":
                return await self._failed_late(stream, first.error)
            if first.kind == "unreadable":
                raise UpstreamProtocolError("The API's answer does not begin with an event.")
            more = await stream.read()
            if not more:
                raise UpstreamProtocolError("The API's answer ended before its first event.")
            data += more

    async def _failed_late(self, stream: ResponseStream, payload: bytes) -> ApiAnswer:
        """Treat an error behind the head of an answer as the refusal that it is."""
        _, kind, code = read_error(payload)
        status = status_of_error(kind, code)
        error = classify_refusal(status, stream.headers, payload)
        if error is not None and not (self.lease is None and status < 500):
            raise error
        await stream.aclose()
        headers = {**stream.headers, "content-type": "application/json"}
        return ApiAnswer(status, headers, mask_error(payload), None, self)

    async def _begin_whole(self, stream: ResponseStream, *, is_json: bool) -> ApiAnswer:
        """Take a short JSON answer whole, so that one that breaks off may be tried again; others from their first bytes."""
        pieces: list[bytes] = []
        size = 0
        while data := await stream.read():
            pieces.append(data)
            size += len(data)
            if not is_json or size > FIRST_LIMIT:
                return ApiAnswer(stream.status, stream.headers, b"".join(pieces), stream, self)
        body = b"".join(pieces)
        if is_json and not body.strip() and stream.status != 204:
            raise UpstreamProtocolError("The API's answer is empty.")
        if is_json and is_bare_error(body):
            return await self._failed_late(stream, body)
        return ApiAnswer(stream.status, stream.headers, body, None, self)

    async def finish(self, outcome: Outcome | Exception) -> Verdict:
        """Abort what still comes, free the key, and give what a failure means; later calls change nothing."""
        if self._finished:
            return Verdict()
        self._finished = True
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            if self.lease is not None:
                verdict = await self.lease.release(outcome)
            else:
                verdict = judge(outcome, model=self._model) if isinstance(outcome, Exception) else Verdict()
            self._report(outcome, verdict)
        return verdict

    def _report(self, outcome: Outcome | Exception, verdict: Verdict) -> None:
        if not self._sent:
            return
        exits, host = self._exits, self._client.host
        if outcome is Outcome.ABANDONED:
            exits.abandon(self.proxy, host, who=self._who)
        else:
            exits.report(self.proxy, host, verdict.exit_fault, seconds=verdict.exit_seconds, who=self._who)


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether an answer's body is an event stream."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def read_offered(status: int, body: bytes) -> list[ModelObject]:
    """Give the models of an answer to the question for them. Raises UpstreamRefusedRequestError, UpstreamProtocolError."""
    if status == 404:
        raise UpstreamProtocolError("The API has no list of models at this address.")
    if status >= 400:
        raise UpstreamRefusedRequestError("The API does not list its models for this key.")
    return read_models(body)


def read_models(body: bytes) -> list[ModelObject]:
    """Give the models of the API's list, each as it was told. Raises UpstreamProtocolError."""
    return [cast(ModelObject, item) for item in read_list(body)]


def read_list(body: bytes) -> list[dict[str, object]]:
    """Give what a list of the API's names by ids. Raises UpstreamProtocolError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocolError("The API's list cannot be read.") from error
    listed = value.get("data") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise UpstreamProtocolError("The API's list cannot be read.")
    return [item for item in listed if isinstance(item, dict) and isinstance(item.get("id"), str)]
