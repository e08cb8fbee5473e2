"""A small web client for the simulator's own tests, written after the published facts and not after our client."""

import base64
import hashlib
import json
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from chat2api.simulator.accounts import Credentials
from chat2api.simulator.app import Simulator

USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/136.0.0.0 Safari/537.36"
DEVICE = "0b9e1c34-0000-4000-8000-00000000d0d0"


def config(nonce: int = 0, user_agent: str = USER_AGENT, items: int = 18) -> list[object]:
    """A browser's config array."""
    array: list[object] = [3000, "Tue Oct 01 2024 07:00:00 GMT-0500", 4294705152, nonce, user_agent, None, "prod-x"]
    array += ["en-US", "en-US,en", nonce >> 1, "vendor−Google Inc.", "location", "alert", 12.5, "id", "", 8, 1.0]
    return array[:items]


def encode(value: object) -> str:
    return base64.b64encode(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()).decode()


def fnv(text: str) -> str:
    """The two-stage hash, from its description."""
    h = 2166136261
    for character in text:
        h = (h ^ ord(character)) * 16777619 % 2**32
    h ^= h >> 16
    h = h * 2246822507 % 2**32
    h ^= h >> 13
    h = h * 3266489909 % 2**32
    h ^= h >> 16
    return f"{h:08x}"


def solve(seed: str, difficulty: str, *, two_stage: bool = False, user_agent: str = USER_AGENT) -> str:
    """Find a proof; difficulties of tests are low."""
    for nonce in range(500_000):
        answer = encode(config(nonce, user_agent))
        digest = fnv(seed + answer) if two_stage else hashlib.sha3_512((seed + answer).encode()).hexdigest()
        if digest[: len(difficulty)] <= difficulty:
            return f"gAAAAAB{answer}" + ("~S" if two_stage else "")
    raise AssertionError("no proof found")


def message(text: str, role: str = "user") -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "author": {"role": role},
        "content": {"content_type": "text", "parts": [text]},
        "metadata": {},
    }


_UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_http() -> httpx.AsyncClient:
    """A client for plain HTTP. It shares one empty TLS context: httpx would load all CAs for each client."""
    return httpx.AsyncClient(timeout=5.0, verify=_UNUSED_TLS)


class WebClient:
    """Talks to one simulator as one account (None: anonymous)."""

    def __init__(self, sim: Simulator, account: Credentials | None, *, http2: bool | None = None) -> None:
        self.sim = sim
        self.account = account
        self.origin = sim.url
        self.base = "/backend-anon" if account is None else "/backend-api"
        self.workspace: str | None = None
        self.http = plain_http()
        if http2 is not None:
            context = ssl.create_default_context(cadata=sim.ca_pem.decode())
            self.origin = sim.tls_url
            self.http = httpx.AsyncClient(timeout=5.0, verify=context, http2=http2, http1=not http2)

    async def __aenter__(self) -> "WebClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    def headers(self, **more: str) -> dict[str, str]:
        headers = {"user-agent": USER_AGENT, "oai-device-id": DEVICE, **more}
        if self.account is not None:
            headers["authorization"] = f"Bearer {self.account.access_token}"
        if self.workspace is not None:
            headers["chatgpt-account-id"] = self.workspace
        return headers

    async def get(self, path: str, **more: str) -> httpx.Response:
        return await self.http.get(self.origin + path, headers=self.headers(**more))

    async def post(self, path: str, body: object, **more: str) -> httpx.Response:
        return await self.http.post(self.origin + path, json=body, headers=self.headers(**more))

    async def requirements(self) -> dict[str, Any]:
        """The single-stage answer."""
        answer = await self.post(f"{self.base}/sentinel/chat-requirements", {"p": "gAAAAAC" + encode(config())})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def sentinel(self) -> dict[str, str]:
        """Headers that a conversation call needs, by the single-stage form."""
        needed = await self.requirements()
        headers = {"openai-sentinel-chat-requirements-token": needed["token"]}
        work = needed["proofofwork"]
        if work["required"]:
            headers["openai-sentinel-proof-token"] = solve(work["seed"], work["difficulty"])
        return headers

    async def sentinel_in_two_stages(self) -> dict[str, str]:
        """Headers that a conversation call needs, by the two-stage form."""
        path = f"{self.base}/sentinel/chat-requirements"
        first = (await self.post(path + "/prepare", {"p": "gAAAAAC" + encode(config()) + "~S"})).json()
        proof = solve(first["proofofwork"]["seed"], first["proofofwork"]["difficulty"], two_stage=True)
        body = {"prepare_token": first["prepare_token"], "proofofwork": proof}
        second = (await self.post(path + "/finalize", body)).json()
        return {
            "openai-sentinel-chat-requirements-token": second["token"],
            "openai-sentinel-chat-requirements-prepare-token": first["prepare_token"],
            "openai-sentinel-proof-token": proof,
        }

    def body(self, prompt: str = "Name three rivers.", **more: Any) -> dict[str, Any]:
        body = {
            "action": "next",
            "messages": [message(prompt)],
            "model": "gpt-4o",
            "parent_message_id": str(uuid.uuid4()),
            "conversation_mode": {"kind": "primary_assistant"},
            "history_and_training_disabled": True,
            **more,
        }
        return {name: value for name, value in body.items() if value is not ...}

    async def ask(self, prompt: str = "Name three rivers.", **more: Any) -> httpx.Response:
        """One turn on the classic endpoint."""
        return await self.send(self.body(prompt, **more))

    async def send(self, body: dict[str, Any], **headers: str) -> httpx.Response:
        """A body on the classic endpoint, with fresh sentinel headers."""
        tokens = await self.sentinel()
        return await self.post(f"{self.base}/conversation", body, accept="text/event-stream", **{**tokens, **headers})


def read_events(text: str) -> list[tuple[str | None, str]]:
    """Name and data of each event, read line by line."""
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data:"):
                data = line[5:].strip()
        if data is not None:
            events.append((name, data))
    return events


def read_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, glued ones too."""
    decoder = json.JSONDecoder()
    for _, data in read_events(text):
        for part in data.split("data: {"):
            piece = part if part.startswith("{") else "{" + part
            try:
                value, _ = decoder.raw_decode(piece)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def read_classic(text: str) -> dict[str, dict[str, Any]]:
    """The last state of each message, by id."""
    found = {}
    for value in read_objects(text):
        if isinstance(value.get("message"), dict):
            found[value["message"]["id"]] = value["message"]
    return found


def read_v1(text: str) -> dict[str, dict[str, Any]]:
    """The last state of each message of the delta encoding, by id; sticky path and operation as described."""
    found: dict[str, dict[str, Any]] = {}
    document: dict[str, Any] = {}
    path, operation = "", "add"
    for value in read_objects(text):
        if "v" not in value:
            continue
        if "c" in value and "p" not in value:
            path, operation = "", "add"
        path, operation = value.get("p", path), value.get("o", operation)
        if operation == "patch":
            for change in value["v"]:
                change_document(document, change["p"], change["o"], change["v"])
        elif path == "":
            document = value["v"]
            found[document["message"]["id"]] = document["message"]
        else:
            change_document(document, path, operation, value["v"])
    return found


def change_document(document: Any, path: str, operation: str, value: Any) -> None:
    *way, last = path.split("/")[1:]
    for part in way:
        document = document[int(part)] if isinstance(document, list) else document[part]
    if isinstance(document, list):
        if operation == "add":
            document.insert(int(last), value)
            return
        key: Any = int(last)
    else:
        key = last
    if operation == "append" and isinstance(document, dict) and key not in document:
        document[key] = value
    elif operation == "append" and isinstance(value, dict):
        document[key].update(value)
    elif operation == "append":
        document[key] = document[key] + value
    else:
        document[key] = value


def visible_text(messages: dict[str, dict[str, Any]]) -> str:
    """The text of the last message for the reader."""
    texts = [
        m["content"]["parts"][0]
        for m in messages.values()
        if m["author"]["role"] == "assistant" and m["channel"] == "final" and m["content"]["content_type"] == "text"
    ]
    return str(texts[-1])
