"""Tests of the proof-of-work check: the published vectors pass, twenty kinds of wrong proofs do not."""

import base64
import hashlib
import json

import pytest

from chat2api.simulator.proof import ProofError, check_proof, decode_config, fnv_hex, sha3_hex
from tests.simulator.web_client import USER_AGENT, config, encode, fnv, solve

_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36"
)
_B15: list[object] = [
    4016,
    "Tue Oct 01 2024 07:00:00 GMT-0500 (Eastern Standard Time)",
    4294705152,
    0,
    _AGENT,
    None,
    "prod-test-build",
    "en-US",
    "en-US,es-US,en,es",
    0,
    "vendor−Google Inc.",
    "location",
    "alert",
    1234.5,
    "00000000-0000-4000-8000-000000000001",
]
_B18 = [*_B15, "", 16, 1727784000000]

_VECTORS = [
    (_B15, "0.42", "0fffff", 2, "0cd019be228bf615fc790952f7c25bc7"),
    (_B15, "0.8216273", "000fff", 2859, "00055ee8ffdaec2f35eb62ed04657359"),
    (_B18, "0.1234567890123", "00ffff", 190, "004a6e182edb470b4c0662f79ac2aa80"),
]


def _answer(array: list[object], nonce: int) -> str:
    filled = [*array]
    filled[3], filled[9] = nonce, nonce >> 1
    return encode(filled)


@pytest.mark.parametrize(("array", "seed", "difficulty", "nonce", "digest"), _VECTORS)
def test_the_published_vectors_are_accepted(
    array: list[object], seed: str, difficulty: str, nonce: int, digest: str
) -> None:
    answer = _answer(array, nonce)
    assert sha3_hex(seed, answer).startswith(digest)
    check_proof("gAAAAAB" + answer, seed=seed, difficulty=difficulty, user_agent=_AGENT, hash_name="sha3")
    for earlier in range(nonce - min(nonce, 50), nonce):
        with pytest.raises(ProofError):
            check_proof(
                "gAAAAAB" + _answer(array, earlier),
                seed=seed,
                difficulty=difficulty,
                user_agent=_AGENT,
                hash_name="sha3",
            )


@pytest.mark.parametrize(("text", "value"), [("", "ab3e7c0b"), ("abc", "1cc93dbc"), ("0.42hello", "6497ea1c")])
def test_the_second_hash_has_its_published_values(text: str, value: str) -> None:
    assert fnv_hex(text) == value == fnv(text)


def test_a_digest_equal_to_the_difficulty_is_enough() -> None:
    answer = encode(config(7))
    digest = hashlib.sha3_512(("0.5" + answer).encode()).hexdigest()
    for digits in (1, 5, 6, 9):
        check_proof("gAAAAAB" + answer, seed="0.5", difficulty=digest[:digits], user_agent=USER_AGENT, hash_name="sha3")


def test_what_follows_a_tilde_is_not_hashed() -> None:
    proof = solve("0.5", "0fffff")
    for suffix in ("", "~S", "~anything~else"):
        check_proof(proof + suffix, seed="0.5", difficulty="0fffff", user_agent=USER_AGENT, hash_name="sha3")


_GOOD = solve("0.25", "0fffff")
_GOOD_ANSWER = _GOOD.removeprefix("gAAAAAB")
_GOOD_CONFIG = json.loads(base64.b64decode(_GOOD_ANSWER))


def _altered(index: int, value: object) -> str:
    array = [*_GOOD_CONFIG]
    array[index] = value
    return "gAAAAAB" + encode(array)


_WRONG = [
    ("", "begin"),
    ("gAAAAAB", "decode"),
    ("gAAAAAB~S", "decode"),
    ("gAAAAAC" + _GOOD_ANSWER, "begin"),
    (_GOOD_ANSWER, "begin"),
    ("x" + _GOOD, "begin"),
    (_GOOD + "!", "decode"),
    (_GOOD.rstrip("=")[:-1], "decode"),
    ("gAAAAAB" + base64.b64encode(b"\xff\xfe\x00").decode(), "decode"),
    ("gAAAAAB" + base64.b64encode(b"[1,2").decode(), "decode"),
    ("gAAAAAB" + encode({"4": USER_AGENT}), "array"),
    ("gAAAAAB" + encode(USER_AGENT), "array"),
    ("gAAAAAB" + encode(config(items=12)), "array"),
    ("gAAAAABwQ8Lk5FbGpA2NcR9dShT6gYjU7VxZ4D" + base64.b64encode(b'"0.25"').decode(), "decode"),
    (_altered(3, "5"), "nonce"),
    (_altered(3, None), "nonce"),
    (_altered(3, True), "nonce"),
    (_altered(4, _AGENT), "User-Agent"),
    (_altered(4, None), "User-Agent"),
    ("gAAAAAB" + encode(config(1_000_003)), "good enough"),
]


@pytest.mark.parametrize(("proof", "reason"), _WRONG)
def test_wrong_proofs_are_refused_each_for_its_reason(proof: str, reason: str) -> None:
    assert len(_WRONG) == 20
    with pytest.raises(ProofError, match=reason):
        check_proof(proof, seed="0.25", difficulty="00000f", user_agent=USER_AGENT, hash_name="sha3")


def test_a_proof_for_another_seed_or_with_the_other_hash_is_refused() -> None:
    proof = solve("0.25", "000fff")
    with pytest.raises(ProofError, match="good enough"):
        check_proof(proof, seed="0.26", difficulty="000fff", user_agent=USER_AGENT, hash_name="sha3")
    with pytest.raises(ProofError, match="good enough"):
        check_proof(proof, seed="0.25", difficulty="000fff", user_agent=USER_AGENT, hash_name="fnv")


def test_a_requirements_token_is_decoded_without_a_search() -> None:
    assert decode_config("gAAAAAC" + encode(config(1)) + "~S", "gAAAAAC")[4] == USER_AGENT
