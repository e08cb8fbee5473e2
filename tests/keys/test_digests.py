"""Comparing secrets."""

from chat2api.keys.digests import find_digest, secret_digest


def test_S11_the_right_digest_is_found_among_all() -> None:
    digests = [secret_digest(name) for name in ("a", "b", "c")]
    assert find_digest(secret_digest("b"), digests) == 1
    assert find_digest(secret_digest("d"), digests) is None
    assert find_digest(secret_digest("a"), []) is None


def test_any_text_has_a_digest_of_equal_length() -> None:
    assert {len(secret_digest(text)) for text in ("", "x", "é" * 1000, "\udcff")} == {32}
