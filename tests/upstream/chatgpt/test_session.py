"""What one account sends on every call."""

import dataclasses
import uuid
from typing import Any

import pytest

from chat2api.upstream.chatgpt.session import Session, accept_language, call_headers, conversation_page, fresh_id

DEVICE = "11111111-2222-4333-8444-555555555555"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJjYW5hcnkiOjF9.c2ln"
SESSION = Session("account-1", DEVICE, "https://chatgpt.com", None, TOKEN)


def headers(session: Session = SESSION, path: str = "/backend-api/conversation", **more: Any) -> dict[str, str]:
    pairs = call_headers(session, path, session_id="session-1", language="en-GB", **more)
    names = [name.lower() for name, _ in pairs]
    assert len(names) == len(set(names)), "no header twice"
    return dict(pairs)


def test_a_signed_in_session_and_a_device_have_their_own_base() -> None:
    assert SESSION.base == "https://chatgpt.com/backend-api"
    device = dataclasses.replace(SESSION, access_token=None, credential="anonymous")
    assert device.base == "https://chatgpt.com/backend-anon"


def test_an_account_is_one_browser_with_its_own_connections() -> None:
    again = dataclasses.replace(SESSION, access_token="other", workspace_id="w")
    assert again.channel == SESSION.channel, "a new token is no new browser"
    assert SESSION.profile is SESSION.channel.profile
    assert dataclasses.replace(SESSION, key="account-2").channel != SESSION.channel
    assert dataclasses.replace(SESSION, proxy="http://127.0.0.1:1").channel != SESSION.channel


def test_the_device_is_the_same_in_header_and_cookie() -> None:
    sent = headers()
    assert sent["Oai-Device-Id"] == DEVICE
    assert sent["Cookie"] == f"oai-did={DEVICE}"


def test_what_is_not_there_has_no_header() -> None:
    sent = headers(dataclasses.replace(SESSION, access_token=None))
    absent = {"Authorization", "Chatgpt-Account-Id", "authkey", "Oai-Client-Version"}
    assert not absent & sent.keys()
    assert not {"None", "null", ""} & set(sent.values())


def test_what_is_there_is_told() -> None:
    session = dataclasses.replace(SESSION, workspace_id="w-1")
    sent = headers(session, build_id="prod-1", auth_key="gateway-key")
    assert sent["Authorization"] == f"Bearer {TOKEN}"
    assert sent["Chatgpt-Account-Id"] == "w-1"
    assert sent["authkey"] == "gateway-key"
    assert sent["Oai-Client-Version"] == "prod-1"
    assert sent["Accept-Language"] == "en-GB,en;q=0.9"
    assert sent["Oai-Language"] == "en-GB"


def test_the_referer_is_the_page_that_would_make_the_call() -> None:
    assert headers()["Referer"] == "https://chatgpt.com/"
    assert "Referer" not in headers(in_conversation=True), "that of each conversation is its own"
    assert conversation_page(SESSION, "c-1") == "https://chatgpt.com/c/c-1"
    assert headers(in_conversation=True)["Origin"] == "https://chatgpt.com"


def test_path_and_route_are_told() -> None:
    sent = headers(path="/backend-api/conversation/c-1", route="/backend-api/conversation/{conversation_id}")
    assert sent["X-OpenAI-Target-Path"] == "/backend-api/conversation/c-1"
    assert sent["X-OpenAI-Target-Route"] == "/backend-api/conversation/{conversation_id}"
    assert headers(path="/p")["X-OpenAI-Target-Route"] == "/p"


def test_S18_a_session_does_not_show_its_token() -> None:
    assert TOKEN not in repr(SESSION)


@pytest.mark.parametrize(
    ("language", "sent"), [("en-US", "en-US,en;q=0.9"), ("de", "de"), ("zh-Hant-TW", "zh-Hant-TW,zh;q=0.9")]
)
def test_languages_are_sent_as_browsers_do(language: str, sent: str) -> None:
    assert accept_language(language) == sent


def test_fresh_ids_are_random_uuids_of_version_4() -> None:
    made = {fresh_id() for _ in range(200)}
    assert len(made) == 200
    for text in made:
        assert str(uuid.UUID(text)) == text
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (4, uuid.RFC_4122)
