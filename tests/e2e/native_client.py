"""A small client of the website's conversation calls, written after their description and not after our code.

It reads the event stream as front ends of 2023 did: whole messages, one JSON document an event, `[DONE]` at the end.
"""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import httpx


class NativeError(Exception):
    """A call was refused: its status and the one message that says why."""

    def __init__(self, status: int, message: str) -> None:
        """Keep both."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: its text, and where it stands."""

    text: str
    conversation_id: str
    message_id: str


class NativeClient:
    """Somebody with a token, at one of the places where the calls are found."""

    def __init__(self, http: httpx.AsyncClient, token: str | None, place: str = "", *, bare: bool = False) -> None:
        """Make calls over that connection; `bare` leaves the word Bearer out."""
        self._http = http
        self._place = place
        self._headers = {} if token is None else {"Authorization": token if bare else f"Bearer {token}"}

    @classmethod
    async def sign_in(cls, http: httpx.AsyncClient, username: str, password: str, place: str = "") -> "NativeClient":
        """Sign in by name and password, and go on with the token."""
        answer = _accepted(await http.post("/auth/login", json={"username": username, "password": password}))
        assert answer.json()["expires"]
        return cls(http, answer.json()["accessToken"], place)

    async def page(self, offset: int = 0, limit: int = 20) -> dict[str, Any]:
        """GET /conversations."""
        return await self._json("GET", f"/conversations?offset={offset}&limit={limit}")

    async def get(self, conversation_id: str) -> dict[str, Any]:
        """GET /conversation/{id}."""
        return await self._json("GET", f"/conversation/{conversation_id}")

    async def say(self, text: str, after: Said | None = None, **fields: Any) -> Said:
        """POST /conversation, and read its stream to the end."""
        body: dict[str, Any] = {
            "action": "next",
            "messages": [
                {
                    "id": str(uuid.uuid4()),
                    "content": {"content_type": "text", "parts": [text]},
                    "author": {"role": "user"},
                }
            ],
            "model": "auto",
            "parent_message_id": after.message_id if after else str(uuid.uuid4()),
            "conversation_id": after.conversation_id if after else "",
            **fields,
        }
        texts: dict[str, str] = {}
        conversation_id = ""
        done = 0
        request = self._http.build_request("POST", f"{self._place}/conversation", json=body, headers=self._headers)
        answer = await self._http.send(request, stream=True)
        try:
            if answer.status_code != 200:
                await answer.aread()
            _accepted(answer)
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    done += line == "data: [DONE]"
                    continue
                event = json.loads(line.removeprefix("data: "))
                if event.get("error"):
                    raise NativeError(200, event["error"])
                message = event.get("message")
                if message and message["author"]["role"] == "assistant":
                    parts = message["content"].get("parts") or [""]
                    texts[message["id"]] = parts[0]
                    conversation_id = event["conversation_id"]
        finally:
            await answer.aclose()
        assert done == 1
        return Said("".join(texts.values()), conversation_id, list(texts)[-1])

    async def title(self, said: Said) -> str:
        """POST /conversation/gen_title/{id}."""
        body = {"message_id": said.message_id}
        told = await self._json("POST", f"/conversation/gen_title/{said.conversation_id}", body)
        return str(told["title"])

    async def rename(self, conversation_id: str, title: str, method: str = "PATCH") -> None:
        """PATCH /conversation/{id} with a title."""
        await self._json(method, f"/conversation/{conversation_id}", {"title": title})

    async def hide(self, conversation_id: str, method: str = "PATCH") -> None:
        """PATCH /conversation/{id} with is_visible false."""
        await self._json(method, f"/conversation/{conversation_id}", {"is_visible": False})

    async def hide_all(self, method: str = "PATCH") -> None:
        """PATCH /conversations."""
        await self._json(method, "/conversations", {"is_visible": False})

    async def rate(self, said: Said, rating: str) -> None:
        """POST /conversation/message_feedback."""
        body = {"message_id": said.message_id, "conversation_id": said.conversation_id, "rating": rating}
        await self._json("POST", "/conversation/message_feedback", body)

    async def link(self, file: str, conversation_id: str | None = None) -> str:
        """GET /files/{file}/download, or the same of a conversation's attachment."""
        place = "/files" if conversation_id is None else f"/conversation/{conversation_id}/attachment"
        return str((await self._json("GET", f"{place}/{file}/download"))["download_url"])

    async def models(self) -> list[str]:
        """GET /models."""
        return [model["slug"] for model in (await self._json("GET", "/models"))["models"]]

    async def accounts(self) -> dict[str, Any]:
        """GET /accounts/check."""
        return await self._json("GET", "/accounts/check")

    async def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        given: dict[str, Any] = {} if body is None else {"json": body}
        answer = await self._http.request(method, self._place + path, headers=self._headers, **given)
        told = _accepted(answer).json()
        assert isinstance(told, dict)
        return told


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.status_code != 200:
        (message,) = answer.json().items()
        assert message[0] == "errorMessage"
        raise NativeError(answer.status_code, message[1])
    return answer
