"""Tests of the ready-made refusals: the codes and statuses that clients match on."""

import json

import pytest

from chat2api.simulator.refusals import NAMES, named_answer, refuse, refuse_field


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("token_expired", 401, '"code":"token_expired"'),
        ("invalid_jwt", 401, '"code":"invalid_jwt"'),
        ("token_invalidated", 401, '"code":"token_invalidated"'),
        ("token_revoked", 401, '"code":"token_revoked"'),
        ("account_deactivated", 401, '"code":"account_deactivated"'),
        ("unauthorized", 401, '{"detail":"Unauthorized"}'),
        ("cloudflare", 403, "cf_chl_opt"),
        ("cloudflare_2024", 403, "cf-please-wait"),
        ("unusual_activity", 403, "Unusual activity has been detected from your device"),
        ("unusual_activity_2024", 403, "detected unusual activity from your system"),
        ("conversation_not_found", 404, '"code":"conversation_not_found"'),
        ("message_too_long", 413, '"code":"message_length_exceeds_limit"'),
        ("bad_field", 422, '"loc":["body","thinking_effort"]'),
        ("model_cap", 429, '"clears_in":11461'),
        ("too_many_requests", 429, '{"detail":"Too many requests"}'),
        ("bad_gateway_page", 502, "<html>"),
        ("page_instead", 200, "<!DOCTYPE html>"),
        ("invalid_grant", 400, '"error":"invalid_grant"'),
        ("refresh_token_reused", 401, '"code":"refresh_token_reused"'),
    ],
)
def test_known_refusals(name: str, status: int, text: str) -> None:
    answer = named_answer(name)
    assert answer.status == status
    assert text in answer.body.decode()


def test_every_name_gives_an_answer_of_its_content_type() -> None:
    for name in NAMES:
        answer = named_answer(name)
        kind = dict(answer.headers)["content-type"]
        if kind == "application/json":
            json.loads(answer.body)
        else:
            assert kind == "text/html; charset=utf-8"
    with pytest.raises(ValueError, match="nonsense"):
        named_answer("nonsense")


def test_some_refusals_are_filled() -> None:
    assert b'"clears_in":5' in named_answer("model_cap", {"clears_in": 5}).body
    assert ("retry-after", "9") in named_answer("retry_later", {"retry_after": 9}).headers
    assert b"the whole prompt" in named_answer("bad_value", {"input": "the whole prompt"}).body


def test_refusals_are_raised() -> None:
    assert refuse("not_found").answer.status == 404
    assert b'"loc":["body","a","b"]' in refuse_field("a.b", "Bad").answer.body
