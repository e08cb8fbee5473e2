"""The baseline: the server that one writes first, on the same libraries.

Quart under hypercorn. For each request a new curl_cffi session that plays a browser, the requirements call, the proof
of work in Python in a thread, the conversation call, the answer read line by line, each line parsed and turned into a
chunk with the standard library's json, one yield for each. Servers of this kind that are in use do the same and more
(accounts, retries, several kinds of content), so it stands for the least that such a server costs.

Settings come from the environment: CHATGPT_BASE_URL and BASELINE_TOKEN, an access token. curl_cffi reads REQUESTS_CA_BUNDLE
by itself.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from curl_cffi.requests import AsyncSession, Response
from quart import Quart, request
from quart import Response as QuartResponse

from benchmarks import backend_calls

_IMPERSONATE = "chrome131"


class UpstreamRefusedError(Exception):
    """The backend answered with another status than 200; the text says which call and which status."""


def create_app() -> Quart:
    """Make the application from the environment."""
    origin = os.environ["CHATGPT_BASE_URL"]
    token = os.environ["BASELINE_TOKEN"]
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = None

    @app.get("/healthz")
    async def health() -> str:
        return "ok"

    @app.post("/v1/chat/completions")
    async def chat() -> Any:
        body = await request.get_json()
        session: AsyncSession[Response] = AsyncSession(impersonate=_IMPERSONATE, timeout=600)
        try:
            upstream = await _open_conversation(session, origin, token, body)
        except (UpstreamRefusedError, backend_calls.ProofNotFoundError) as error:
            await session.close()
            text = str(error) or type(error).__name__
            return {
                "error": {"message": text, "type": "server_error", "param": None, "code": type(error).__name__}
            }, 502
        except BaseException:
            await session.close()
            raise
        return QuartResponse(_chunks(session, upstream, body["model"]), content_type="text/event-stream")

    return app


async def _open_conversation(session: Any, origin: str, token: str, body: dict[str, Any]) -> Any:
    """Make the two calls and give the open response. Raises UpstreamRefusedError and ProofNotFoundError."""
    requirements_body = await asyncio.to_thread(backend_calls.requirements_body)
    answer = await session.post(
        origin + backend_calls.REQUIREMENTS_PATH,
        headers=backend_calls.call_headers(token, origin),
        json=requirements_body,
    )
    if answer.status_code != 200:
        raise UpstreamRefusedError(f"requirements: {answer.status_code}")
    headers = await asyncio.to_thread(backend_calls.conversation_headers, token, origin, answer.json())
    prompt = body["messages"][-1]["content"]
    upstream = await session.post(
        origin + backend_calls.CONVERSATION_PATH,
        headers=headers,
        json=backend_calls.conversation_body(prompt, body["model"]),
        stream=True,
    )
    if upstream.status_code != 200:
        raise UpstreamRefusedError(f"conversation: {upstream.status_code}")
    return upstream


async def _chunks(session: Any, upstream: Any, model: str) -> AsyncIterator[bytes]:
    """Give the answer's chunks, one for each line that brings text, and close what was opened."""
    completion_id = f"chatcmpl-{uuid.uuid4().hex[:29]}"
    created = int(time.time())

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        payload = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "choices": [choice],
        }
        return f"data: {json.dumps(payload)}\n\n".encode()

    answer = backend_calls.AnswerText()
    try:
        yield chunk({"role": "assistant", "content": ""})
        async for line in upstream.aiter_lines():
            text = line.decode()
            if not text.startswith("data: {"):
                continue
            if more := answer.take(json.loads(text[6:])):
                yield chunk({"content": more})
        yield chunk({}, "stop")
        yield b"data: [DONE]\n\n"
    finally:
        await upstream.aclose()
        await session.close()
