"""The baseline of forwarding: the relay that one writes first, Quart under hypercorn with one httpx client for all calls.

It passes the body on with the operator's key and the answer back as it comes. It knows no limits, no other key, no usage and no
errors. Settings come from the environment: OPENAI_BASE_URL and OPENAI_API_KEY.
"""

import os
from collections.abc import AsyncIterator

import httpx
from quart import Quart, Response, request


def create_app() -> Quart:
    """Make the application from the environment."""
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = None
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "Content-Type": "application/json"}
    client = httpx.AsyncClient(
        base_url=os.environ["OPENAI_BASE_URL"],
        headers=headers,
        timeout=600,
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=1000),
    )

    @app.get("/healthz")
    async def health() -> str:
        return "ok"

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        call = client.build_request("POST", "/chat/completions", content=await request.get_data())
        answer = await client.send(call, stream=True)
        return Response(_pieces(answer), answer.status_code, content_type=answer.headers["content-type"])

    return app


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for data in answer.aiter_raw():
            yield data
    finally:
        await answer.aclose()
