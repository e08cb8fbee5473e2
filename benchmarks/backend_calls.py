"""The least that a client of the web backend has to send: headers, bodies and the proof of work, as a plain client does.

Used by the baseline server and by the load generator when it drives the simulator directly. It shares nothing with
chat2api's own client, so that what is compared stays independent of what it is compared with.
"""

import base64
import hashlib
import json
import random
import time
import uuid
from typing import Any

USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
REQUIREMENTS_PATH = "/backend-api/sentinel/chat-requirements"
CONVERSATION_PATH = "/backend-api/conversation"

_TRIES = 500_000
_EASY = "0fffff"
_UNSET = object()


class ProofNotFoundError(Exception):
    """No nonce below the usual limit of plain clients answers the challenge."""


def config_array() -> list[Any]:
    """Give the array of 15 items that describes a browser to the proof of work; items 3 and 9 are the nonce's."""
    written = time.strftime("%a %b %d %Y %H:%M:%S", time.gmtime()) + " GMT+0000 (Coordinated Universal Time)"
    return [
        3000 + random.choice((1080, 1200, 1440)),
        written,
        4294705152,
        0,
        USER_AGENT,
        "https://cdn.oaistatic.com/_next/static/chunks/main.js",
        "prod-0123456789abcdef0123456789abcdef01234567",
        "en-US",
        "en-US,es-US,en,es",
        0,
        "hardwareConcurrency−8",
        "location",
        "alert",
        random.uniform(1000.0, 9000.0),
        str(uuid.uuid4()),
    ]


def find_answer(seed: str, difficulty: str, config: list[Any]) -> bytes:
    """Give the base64 text that answers the challenge, by the plain loop: splice, base64, SHA3-512 of the whole.

    Raises ProofNotFoundError after 500,000 nonces.
    """
    separators = (",", ":")
    head = json.dumps(config[:3], separators=separators, ensure_ascii=False).encode()[:-1] + b","
    middle = b"," + json.dumps(config[4:9], separators=separators, ensure_ascii=False).encode()[1:-1] + b","
    tail = b"," + json.dumps(config[10:], separators=separators, ensure_ascii=False).encode()[1:]
    target = bytes.fromhex(difficulty)
    size = len(target)
    encoded_seed = seed.encode()
    for nonce in range(_TRIES):
        text = base64.b64encode(head + str(nonce).encode() + middle + str(nonce >> 1).encode() + tail)
        if hashlib.sha3_512(encoded_seed + text).digest()[:size] <= target:
            return text
    raise ProofNotFoundError


def requirements_body() -> dict[str, str]:
    """Give the body of the requirements call, which carries an easy proof of the client's own making."""
    return {"p": "gAAAAAC" + find_answer(str(random.random()), _EASY, config_array()).decode()}


def proof_token(seed: str, difficulty: str) -> str:
    """Give the proof's header value. Raises ProofNotFoundError."""
    return "gAAAAAB" + find_answer(seed, difficulty, config_array()).decode()


def call_headers(token: str, origin: str, accept: str = "*/*") -> dict[str, str]:
    """Give the headers that every call carries."""
    return {
        "Accept": accept,
        "Accept-Language": "en-US,en;q=0.9",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Oai-Device-Id": str(uuid.uuid4()),
        "Oai-Language": "en-US",
        "Origin": origin,
        "Referer": f"{origin}/",
        "User-Agent": USER_AGENT,
    }


def conversation_headers(token: str, origin: str, requirements: dict[str, Any]) -> dict[str, str]:
    """Give the headers of the conversation call, with the proof that its requirements ask for; solving takes its time."""
    headers = call_headers(token, origin, accept="text/event-stream")
    headers["OpenAI-Sentinel-Chat-Requirements-Token"] = requirements["token"]
    proof = requirements.get("proofofwork") or {}
    if proof.get("required"):
        headers["OpenAI-Sentinel-Proof-Token"] = proof_token(proof["seed"], proof["difficulty"])
    return headers


def conversation_body(prompt: str, model: str) -> dict[str, Any]:
    """Give the body of the conversation call: one question, a temporary chat, an answer in deltas."""
    return {
        "action": "next",
        "conversation_mode": {"kind": "primary_assistant"},
        "conversation_origin": None,
        "force_paragen": False,
        "force_rate_limit": False,
        "force_use_sse": True,
        "history_and_training_disabled": True,
        "messages": [
            {
                "id": str(uuid.uuid4()),
                "author": {"role": "user"},
                "content": {"content_type": "text", "parts": [prompt]},
                "metadata": {},
            }
        ],
        "model": model,
        "parent_message_id": str(uuid.uuid4()),
        "suggestions": [],
        "supported_encodings": ["v1"],
        "system_hints": [],
        "timezone": "America/Los_Angeles",
        "timezone_offset_min": 480,
        "websocket_request_id": str(uuid.uuid4()),
    }


class AnswerText:
    """Reads the assistant's text out of one answer's payloads, cumulative messages or deltas, and nothing else.

    Enough for the simulator's plain answers: no tools, no citations, no several messages.
    """

    def __init__(self) -> None:
        """Start with no text."""
        self._text = ""
        self._visible = False
        self._path: object = None

    def take(self, payload: Any) -> str:
        """Give the text that a payload adds. Raises ValueError when it reports an error."""
        if not isinstance(payload, dict) or "type" in payload:
            return ""
        if payload.get("error"):
            raise ValueError(str(payload["error"]))
        if "message" in payload:
            return self._take_message(payload["message"])
        value = payload.get("v", _UNSET)
        path = payload.get("p", _UNSET)
        if isinstance(value, dict) and "message" in value:
            return self._take_message(value["message"])
        if path is not _UNSET:
            self._path = path
        if isinstance(value, str):
            return self._append(value) if self._path == "/message/content/parts/0" else ""
        if isinstance(value, list):
            return "".join(self.take(item) for item in value)
        return ""

    def _append(self, more: str) -> str:
        if not self._visible:
            return ""
        self._text += more
        return more

    def _take_message(self, message: dict[str, Any]) -> str:
        self._visible = message["author"]["role"] == "assistant"
        parts = message["content"].get("parts") or [""]
        if not self._visible or not isinstance(parts[0], str):
            return ""
        more = parts[0][len(self._text) :]
        self._text = parts[0]
        return more
