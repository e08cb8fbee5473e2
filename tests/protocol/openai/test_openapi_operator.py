"""The operator's routes in the OpenAPI document: all of them, with the words that the code has."""

from typing import Any, cast, get_args

from chat2api.accounts import listing
from chat2api.gateway.account_care import BULK_ACTIONS
from chat2api.keys.listing import KEYS, STATES, USERS
from chat2api.keys.terms import FIELD_NAMES, LIMIT_NAMES, SCOPE_NAMES
from chat2api.keys.users import LEAST_PASSWORD, MAX_NAME, MAX_PASSWORD, TERM_NAMES
from chat2api.protocol.openai import openapi_operator
from chat2api.protocol.openai.openapi import openapi_document
from chat2api.storage.values import AccountKind
from tests.described import DOCUMENT
from tests.test_documents import real_routes

PATHS = cast("dict[str, dict[str, Any]]", DOCUMENT["paths"])


def described() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, operations in PATHS.items()
        if path.startswith(("/keys", "/tokens", "/users"))
        for method, operation in operations.items()
    }


def test_every_route_of_the_operators_rest_is_described_and_no_other() -> None:
    assert set(described()) == real_routes("accounts.", "keys.", "invites.", "local_users.")


def test_every_one_of_them_needs_a_bearer() -> None:
    for operation in described().values():
        assert operation["security"] == [{"bearer": []}]
        assert {"401", "403"} <= operation["responses"].keys()


def test_S3_they_are_behind_the_prefix() -> None:
    paths = cast("dict[str, object]", openapi_document("1", "/x")["paths"])
    assert "/x/keys/{key_id}" in paths
    assert not [path for path in paths if path.startswith(("/keys", "/tokens", "/users"))]


def test_the_words_are_those_of_the_code() -> None:
    assert openapi_operator.LIMITS == LIMIT_NAMES
    assert openapi_operator.SCOPES == SCOPE_NAMES
    assert openapi_operator.STATES == listing.STATES
    assert openapi_operator.SORTS == listing.SORTS
    assert openapi_operator.KEY_STATES == STATES
    assert (tuple(KEYS.sorts), tuple(USERS.sorts)) == (openapi_operator.KEY_SORTS, openapi_operator.USER_SORTS)
    assert openapi_operator.ACTIONS == BULK_ACTIONS
    assert get_args(AccountKind) == openapi_operator.KINDS
    schemas = cast("dict[str, dict[str, Any]]", cast("dict[str, object]", DOCUMENT["components"])["schemas"])
    assert set(schemas["KeyFields"]["properties"]) == set(FIELD_NAMES)
    new_user = described()["POST", "/users"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(new_user) == {"username", "password", *TERM_NAMES}
    assert new_user["username"]["maxLength"] == MAX_NAME
    assert (new_user["password"]["minLength"], new_user["password"]["maxLength"]) == (LEAST_PASSWORD, MAX_PASSWORD)
