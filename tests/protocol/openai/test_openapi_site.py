"""The website's calls in the OpenAPI document: all of them, with bodies that the code takes."""

import itertools
from typing import Any, cast

import pytest

from chat2api.protocol.chatgpt.request import Surroundings, Zone
from chat2api.protocol.chatgpt.website import (
    feedback_call,
    hide_all_call,
    read_page,
    title_call,
    update_call,
)
from chat2api.protocol.chatgpt.website_turns import read_turn
from chat2api.protocol.openai.openapi import openapi_document
from chat2api.protocol.openai.openapi_site import STATUSES, site_paths
from tests.described import DOCUMENT, check
from tests.test_documents import real_routes

PATHS = cast("dict[str, dict[str, Any]]", site_paths(""))


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): operation for path, found in PATHS.items() for method, operation in found.items()}


def schema(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_every_one_of_these_routes_is_described_and_no_other() -> None:
    assert set(operations()) == real_routes("site.", "users.")


def test_all_refuse_in_the_same_form_and_have_a_name_of_their_own() -> None:
    for operation in operations().values():
        assert {str(status) for status in STATUSES} | {"200", "default"} == operation["responses"].keys()
    assert len({operation["operationId"] for operation in operations().values()}) == len(operations())


def test_S3_they_are_behind_the_prefix() -> None:
    paths = cast("dict[str, object]", openapi_document("1", "/x")["paths"])
    assert "/x/conversation" in paths
    assert not [path for path in paths if path.startswith(("/conversation", "/auth", "/models", "/accounts", "/files"))]


TURN = {"messages": [{"content": {"parts": ["Name three rivers."]}}]}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("SiteTurn", TURN),
        ("SiteTurn", {**TURN, "conversation_id": "", "auto_continue": True, "history_and_training_disabled": True}),
        ("SiteUpdate", {"title": "Rivers"}),
        ("SiteUpdate", {"is_visible": False}),
        ("SiteHide", {"is_visible": False}),
        ("SiteMessageId", {"message_id": "m-1"}),
        ("SiteFeedback", {"conversation_id": "c-1", "message_id": "m-1", "rating": "thumbsDown", "text": "Wrong."}),
        ("SiteList", {"items": [], "total": 0, "limit": 20, "offset": 0}),
        ("SiteError", {"errorMessage": "No."}),
    ],
)
def test_what_is_sent_and_taken_fits_its_description(name: str, body: dict[str, Any]) -> None:
    check(body, schema(name))
    numbers = itertools.count()
    around = Surroundings(now=1.0, zone=Zone("UTC", 0), new_id=lambda: f"id-{next(numbers)}")
    match name:
        case "SiteTurn":
            assert read_turn(body, around).ignored == ()
        case "SiteUpdate":
            assert update_call("c-1", body).body == body
        case "SiteHide":
            assert hide_all_call(body).body == body
        case "SiteMessageId":
            assert title_call("c-1", body).body == body
        case "SiteFeedback":
            assert feedback_call(body).body == body


def test_the_lists_parameters_are_those_that_are_read() -> None:
    described = {one["name"]: one["schema"] for one in operations()["GET", "/conversations"]["parameters"]}
    assert described.keys() == {"offset", "limit", "order", "is_archived", "account"}
    for order in described["order"]["enum"]:
        assert read_page({"order": order}).order == order
    assert read_page({"limit": str(described["limit"]["maximum"])}).limit == 100
    assert DOCUMENT["paths"]
