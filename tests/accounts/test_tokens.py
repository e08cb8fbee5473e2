"""`chat2api/accounts/tokens.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.accounts.tokens import (
    Claims,
    is_fresh,
    mask_email,
    read_claims,
    session_cookie,
    split_workspace,
    tell_kind,
    to_credential,
    to_new_account,
)
from chat2api.storage.values import Identity
from tests.accounts.jwt import SESSION, access_token, jwt, part

OLD = "v1." + "a" * 42  # a dot is in no RefreshToken
OLD_45 = "Abc-_" * 9
NEW = "rt_" + "Z9-_." * 12
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (access_token(), "access"),
        (jwt({}), "access"),
        (jwt({}, alg="none"), None),
        (SESSION, "session"),
        ("sess-" + SESSION, "session"),
        (SESSION[:100] + "|||" + SESSION[100:], "session"),
        ("eyJhbGciOi", None),
        ("eyJhbGciOiJSUzI1NiJ9.e30", None),
        ("eyJ" + "a" * 42, None),
        (OLD_45, "refresh"),
        (OLD_45[:-1], None),
        (OLD_45 + "a", None),
        (OLD, None),
        (NEW, "refresh"),
        ("rt_short", None),
        ("rt_" + "a" * 42, "refresh"),  # 45 characters: an old one may begin like that
        ("fk-" + "a" * 42, "share"),
        ("fk-", None),
        ("sk-" + "a" * 48, "api_key"),
        ("sk-proj-" + "a" * 37, "api_key"),  # 45 characters, and still a key
        ("sk-c2a-" + "a" * 43, "issued_key"),
        (UUID, "device"),
        (UUID.upper(), "device"),
        (UUID.replace("-", ""), None),
        ("", None),
        ("hello", None),
        (OLD_45[:-1] + "\n", None),
        (OLD_45[:-1] + "é", None),
        ("a b" * 15, None),
    ],
)
def test_a_token_is_told_by_its_form(token: str, kind: str | None) -> None:
    assert tell_kind(token) == kind


@given(st.text(max_size=80))
def test_S10_no_text_breaks_the_telling(text: str) -> None:
    assert tell_kind(text) is None or text.isascii()
    read_claims(text)
    read_claims("eyJ" + text + "." + text + ".x")


def test_claims_of_today() -> None:
    assert read_claims(access_token("user-AbC")) == Claims(
        Identity("user-AbC", "home", "plus", "s•••@e•••.test"), 1_789_000_000.0, 1_791_000_000.0
    )


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"https://api.openai.com/auth": {"user_id": "user-old", "poid": "org"}}, Identity("user-old")),
        ({"chatgpt_plan_type": "pro", "user_id": "u", "email": "a@b.c"}, Identity("u", None, "pro", "a•••@b•••.c")),
        ({"https://api.openai.com/auth": {"chatgpt_user_id": "x", "user_id": "y"}}, Identity("x")),
        ({"https://api.openai.com/auth": [1], "https://api.openai.com/profile": 3}, Identity()),
        ({"https://api.openai.com/auth": {"user_id": 7, "chatgpt_plan_type": ""}}, Identity()),
        ([], Identity()),
        ("text", Identity()),
    ],
)
def test_claims_of_other_years_and_of_none(claims: object, identity: Identity) -> None:
    assert read_claims(jwt(claims)).identity == identity


@pytest.mark.parametrize("value", [True, "1790000000", -5, 0, 1e300, None, [], {}])
def test_an_end_that_is_no_instant_is_none(value: object) -> None:
    assert read_claims(jwt({"exp": value, "iat": value})) == Claims(Identity(), None, None)


@pytest.mark.parametrize(
    ("expires_at", "now", "issued_at", "skew", "fresh"),
    [
        (1000.0, 399.0, None, 0.0, True),
        (1000.0, 400.0, None, 0.0, False),
        (1000.0, 300.0, None, 150.0, False),
        (1000.0, 500.0, None, -150.0, True),
        (1000.0, 949.0, 500.0, 0.0, True),  # a life of 500 s has a margin of 50 s
        (1000.0, 950.0, 500.0, 0.0, False),
        (1000.0, 399.0, 2000.0, 0.0, True),  # issued after its end: nonsense, so the whole margin
        (None, 1e12, None, 0.0, True),
    ],
)
def test_R22_a_token_is_renewed_a_little_early(
    expires_at: float | None, now: float, issued_at: float | None, skew: float, fresh: bool
) -> None:
    assert is_fresh(expires_at, now, issued_at=issued_at, skew=skew) is fresh


@pytest.mark.parametrize(
    ("email", "masked"),
    [
        ("someone@example.test", "s•••@e•••.test"),
        ("a@b.co.uk", "a•••@b•••.uk"),
        ("nobody", "•••"),
        ("@x.y", "•••"),
        ("a@b", "•••"),
    ],
)
def test_an_address_is_masked(email: str, masked: str) -> None:
    assert mask_email(email) == masked


@pytest.mark.parametrize(
    ("bearer", "parts"),
    [("t", ("t", None)), ("t,w", ("t", "w")), (" t , w ", ("t", "w")), ("t,", ("t", None)), ("t,a,b", ("t", "a,b"))],
)
def test_a_bearer_splits_at_its_first_comma(bearer: str, parts: tuple[str, str | None]) -> None:
    assert split_workspace(bearer) == parts


def test_a_session_token_loses_its_artificial_prefix() -> None:
    assert to_credential("sess-" + SESSION).renewable == session_cookie(SESSION) == SESSION


def test_an_access_token_tells_its_account() -> None:
    new = to_new_account(to_credential(access_token("user-7"), "team"), owner="caller")

    assert (new.identity.user_id, new.workspace_id, new.expires_at, new.owner) == (
        "user-7",
        "team",
        1_791_000_000.0,
        "caller",
    )


def test_S17_credentials_do_not_print_their_tokens() -> None:
    assert NEW not in repr(to_credential(NEW)) + repr(to_new_account(to_credential(NEW)))


def test_a_header_that_is_no_object_is_no_token() -> None:
    assert tell_kind(f"{part([1])}.{part({})}.sss") is None
