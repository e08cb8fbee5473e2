"""The published vectors, and native code against Python on everything that can move a digit or a byte."""

import base64
import hashlib
import importlib
import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.protocol.chatgpt.proof_of_work import (
    PYTHON,
    Algorithm,
    Challenge,
    JSONScalar,
    Template,
    fnv1a,
    is_harder,
    proof_token,
    requirements_token,
    search,
    variants,
)

B15: tuple[JSONScalar, ...] = (
    4016,
    "Tue Oct 01 2024 07:00:00 GMT-0500 (Eastern Standard Time)",
    4294705152,
    0,
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36",
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
)
B18: tuple[JSONScalar, ...] = (*B15, "", 16, 1727784000000)
B25: tuple[JSONScalar, ...] = (*B18, 0, 0, 0, 0, 0, 0, 0)

V1_TEXT = (
    "WzQwMTYsIlR1ZSBPY3QgMDEgMjAyNCAwNzowMDowMCBHTVQtMDUwMCAoRWFzdGVybiBTdGFuZGFyZCBUaW1lKSIsNDI5NDcwNTE1MiwyLCJNb3ppbGxh"
    "LzUuMCAoV2luZG93cyBOVCAxMC4wOyBXaW42NDsgeDY0KSBBcHBsZVdlYktpdC81MzcuMzYgKEtIVE1MLCBsaWtlIEdlY2tvKSBDaHJvbWUvMTI3LjAu"
    "MC4wIFNhZmFyaS81MzcuMzYiLG51bGwsInByb2QtdGVzdC1idWlsZCIsImVuLVVTIiwiZW4tVVMsZXMtVVMsZW4sZXMiLDEsInZlbmRvcuKIkkdvb2ds"
    "ZSBJbmMuIiwibG9jYXRpb24iLCJhbGVydCIsMTIzNC41LCIwMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDAwMDEiXQ=="
)

# seed, difficulty, config, first nonce, length of the text, start of its SHA3-512
SHA3_VECTORS = [
    pytest.param("0.42", "0fffff", B15, 2, 448, "0cd019be228bf615fc790952f7c25bc7", id="V1"),
    pytest.param("0.8216273", "000fff", B15, 2859, 456, "00055ee8ffdaec2f35eb62ed04657359", id="V2"),
    pytest.param("0.1234567890123", "00ffff", B18, 190, 476, "004a6e182edb470b4c0662f79ac2aa80", id="V3"),
]


def sha3(seed: str, difficulty: str) -> Challenge:
    return Challenge(Algorithm.SHA3_512, seed, difficulty)


def plainly(challenge: Challenge, config: tuple[JSONScalar, ...], nonces: range) -> int | None:
    """The rule as it is written down: serialise, encode, hash and compare hex texts, one nonce at a time."""
    items = list(config)
    for nonce in nonces:
        items[3] = nonce
        if challenge.algorithm is Algorithm.SHA3_512:
            items[9] = nonce >> 1
        text = base64.b64encode(json.dumps(items, separators=(",", ":"), ensure_ascii=False).encode())
        data = challenge.seed.encode() + text
        digest = hashlib.sha3_512(data).hexdigest()
        if challenge.algorithm is Algorithm.FNV1A_32:
            digest = f"{fnv1a(data):08x}"
        if digest[: len(challenge.difficulty)] <= challenge.difficulty:
            return nonce
    return None


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize(("seed", "difficulty", "config", "nonce", "length", "digest"), SHA3_VECTORS)
def test_every_variant_finds_the_published_nonce(
    variant: str, seed: str, difficulty: str, config: tuple[JSONScalar, ...], nonce: int, length: int, digest: str
) -> None:
    challenge, template = sha3(seed, difficulty), Template.of(config, Algorithm.SHA3_512)

    found = search(challenge, template, variant=variant)

    assert found == nonce
    assert len(template.text(nonce)) == length
    assert hashlib.sha3_512(seed.encode() + template.text(nonce)).hexdigest().startswith(digest)
    assert challenge.accepts(template.text(nonce))


def test_the_proof_token_is_the_prefix_and_the_text() -> None:
    template = Template.of(B15, Algorithm.SHA3_512)

    assert proof_token(sha3("0.42", "0fffff"), template, 2) == "gAAAAAB" + V1_TEXT
    assert requirements_token(Algorithm.SHA3_512, template, 2) == "gAAAAAC" + V1_TEXT


def test_the_fnv_tokens_end_in_a_mark() -> None:
    challenge = Challenge(Algorithm.FNV1A_32, "0.42", "0fffff")
    template = Template.of(B25, Algorithm.FNV1A_32)

    token = proof_token(challenge, template, 7)

    assert token.startswith("gAAAAAB")
    assert token.endswith("~S")
    items = json.loads(base64.b64decode(token.removeprefix("gAAAAAB").removesuffix("~S")))
    assert items == [*B25[:3], 7, *B25[4:]]
    assert requirements_token(Algorithm.FNV1A_32, template, 1).endswith("~S")


@pytest.mark.parametrize(("text", "value"), [(b"", 0xAB3E7C0B), (b"abc", 0x1CC93DBC), (b"0.42hello", 0x6497EA1C)])
def test_fnv_gives_the_published_check_values(text: bytes, value: int) -> None:
    assert fnv1a(text) == value


def test_splicing_gives_the_bytes_of_serialising() -> None:
    items = [*B18[:3], 123457, *B18[4:9], 123457 >> 1, *B18[10:]]

    text = Template.of(B18, Algorithm.SHA3_512).text(123457)

    assert base64.b64decode(text) == json.dumps(items, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_config_without_room_for_the_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 10 items"):
        Template.of(B15[:10], Algorithm.SHA3_512)


words = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FFF), max_size=40)
scalars = st.one_of(words, st.integers(0, 10**13), st.none(), st.floats(0.001, 1e6, allow_nan=False))
configs = st.lists(scalars, min_size=11, max_size=25).map(tuple)
seeds = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200)
edges = st.sampled_from([0, 10, 20, 100, 200, 1_000, 2_000, 10_000, 20_000, 100_000, 200_000, 10**6, 2 * 10**9])
starts = st.one_of(st.integers(0, 10**7), st.builds(lambda edge, back: max(0, edge - back), edges, st.integers(0, 40)))


@settings(max_examples=150, deadline=None)
@given(configs, seeds, st.sampled_from(["3f", "0ff", "08", "7", "0", "01f", "3fffffffffffffffffff"]), starts)
def test_every_variant_finds_the_nonce_of_the_plain_loop(
    config: tuple[JSONScalar, ...], seed: str, difficulty: str, start: int
) -> None:
    template = Template.of(config, Algorithm.SHA3_512)
    challenge = sha3(seed, difficulty)

    expected = plainly(challenge, config, range(start, start + 60))

    for variant in variants():
        assert search(challenge, template, start=start, stop=start + 60, variant=variant) == expected


@settings(max_examples=150, deadline=None)
@given(configs, seeds, st.sampled_from(["3f", "0ff", "08ffffff", "7", "0", "01f0a"]), starts)
def test_every_variant_finds_the_nonce_of_the_plain_loop_with_fnv(
    config: tuple[JSONScalar, ...], seed: str, difficulty: str, start: int
) -> None:
    template = Template.of(config, Algorithm.FNV1A_32)
    challenge = Challenge(Algorithm.FNV1A_32, seed, difficulty)

    expected = plainly(challenge, config, range(start, start + 150))

    for variant in variants():
        assert search(challenge, template, start=start, stop=start + 150, variant=variant) == expected


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_nonce_across_the_changes_of_width_has_the_right_hash(variant: str, algorithm: Algorithm) -> None:
    config = B18 if algorithm is Algorithm.SHA3_512 else B25
    template = Template.of(config, algorithm)
    nonces = [*range(0, 25), *range(95, 105), *range(195, 205), *range(995, 1005), *range(1995, 2005)]

    for nonce in nonces:
        data = b"0.5" + template.text(nonce)
        digest = hashlib.sha3_512(data).hexdigest() if algorithm is Algorithm.SHA3_512 else f"{fnv1a(data):08x}"
        exact = Challenge(algorithm, "0.5", digest[:8])
        below = Challenge(algorithm, "0.5", f"{int(digest[:8], 16) - 1:08x}")
        start = max(0, nonce - 3)

        assert search(exact, template, start=nonce, stop=nonce + 1, variant=variant) == nonce
        assert search(below, template, start=nonce, stop=nonce + 1, variant=variant) is None
        assert search(exact, template, start=start, stop=nonce + 5, variant=variant) == plainly(
            exact, config, range(start, nonce + 5)
        )


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("digits", [1, 3, 5, 15, 16, 17, 40, 128])
def test_the_comparison_is_not_strict_at_any_count_of_digits(variant: str, digits: int) -> None:
    template = Template.of(B15, Algorithm.SHA3_512)
    digest = hashlib.sha3_512(b"0.5" + template.text(4321)).hexdigest()

    equal = sha3("0.5", digest[:digits])
    smaller = sha3("0.5", f"{int(digest[:digits], 16) - 1:0{digits}x}")

    assert search(equal, template, start=4321, stop=4322, variant=variant) == 4321
    assert search(smaller, template, start=4321, stop=4322, variant=variant) is None


@pytest.mark.parametrize("variant", variants())
def test_a_search_past_a_candidate_that_fails_in_its_last_digits_goes_on(variant: str) -> None:
    template = Template.of(B15, Algorithm.SHA3_512)
    start = 5000
    digests = [hashlib.sha3_512(b"0.5" + template.text(nonce)).hexdigest() for nonce in range(start, start + 400)]
    near = min(range(400), key=lambda index: digests[index])
    difficulty = f"{int(digests[near][:20], 16) - 1:020x}"  # agrees with that digest in the first 16 digits and more

    assert search(sha3("0.5", difficulty), template, start=start, stop=start + 400, variant=variant) is None


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("algorithm", Algorithm)
def test_an_empty_or_hopeless_range_gives_none(variant: str, algorithm: Algorithm) -> None:
    template = Template.of(B25, algorithm)

    assert search(Challenge(algorithm, "0.5", "f"), template, start=9, stop=9, variant=variant) is None
    assert search(Challenge(algorithm, "0.5", "00000000"), template, start=0, stop=300, variant=variant) is None


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a single thread here")
@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("algorithm", Algorithm)
def test_R10_a_set_flag_stops_a_search_within_10_ms_of_work(variant: str, algorithm: Algorithm) -> None:
    cancel = bytearray(1)
    challenge, template = Challenge(algorithm, "0.5", "00000000"), Template.of(B25, algorithm)
    started, spent_at_flag, spent = threading.Event(), [0.0], [0.0]
    result: list[int | None] = [0]

    def run() -> None:
        clock = time.pthread_getcpuclockid(threading.get_ident())
        clocks.append(clock)
        started.set()
        result[0] = search(challenge, template, stop=10**12, cancel=cancel, variant=variant)
        spent[0] = time.clock_gettime(clock)

    clocks: list[int] = []
    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    while time.clock_gettime(clocks[0]) < 0.005:  # the thread is at work
        time.sleep(0.001)
    spent_at_flag[0] = time.clock_gettime(clocks[0])
    cancel[0] = 1
    thread.join(10)

    assert result == [None]
    assert spent[0] - spent_at_flag[0] < 0.010


def test_searching_natively_leaves_the_interpreter_to_other_threads() -> None:
    if variants() == (PYTHON,):
        pytest.skip("no native search here")
    cancel = bytearray(1)
    challenge, template = sha3("0.5", "00000000"), Template.of(B15, Algorithm.SHA3_512)
    thread = threading.Thread(target=search, args=(challenge, template), kwargs={"stop": 3_000_000, "cancel": cancel})

    thread.start()  # seconds of work: a search that kept the lock would be over when we come to run again
    begin = time.thread_time()
    while time.thread_time() - begin < 0.02:
        pass
    still_searching = thread.is_alive()
    cancel[0] = 1
    thread.join(10)

    assert still_searching
    assert not thread.is_alive()


def test_python_searches_where_native_code_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_of_work, "_pow", None)
    template = Template.of(B15, Algorithm.SHA3_512)

    assert variants() == (PYTHON,)
    assert search(sha3("0.8216273", "000fff"), template) == 2859
    with pytest.raises(ValueError, match="not built"):
        search(sha3("0.42", "0fffff"), template, variant="avx2")


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="variant"):
        search(sha3("0.42", "0fffff"), Template.of(B15, Algorithm.SHA3_512), variant="abacus")


@pytest.mark.skipif(variants() == (PYTHON,), reason="no native search here")
@pytest.mark.parametrize(
    ("algorithm", "middle", "stop", "cancel"),
    [
        ("md5", b",,,", 10, bytearray(1)),
        ("sha3-512", b",", 10, bytearray(1)),
        ("sha3-512", b",,,", 10**18 + 1, bytearray(1)),
        ("sha3-512", b",,,", 10, bytearray()),
        ("sha3-512", b"," * (1 << 20), 10, bytearray(1)),
    ],
)
def test_native_code_refuses_what_would_lead_it_astray(
    algorithm: str, middle: bytes, stop: int, cancel: bytearray
) -> None:
    with pytest.raises(ValueError, match=r"algorithm|middle|stop|cancel|long"):
        native = importlib.import_module("chat2api.protocol.chatgpt._pow")
        native.search(algorithm, b"0.5", b"[", middle, b"]", 0, stop, 0, cancel)


@pytest.mark.parametrize("difficulty", ["", "0x1f", "zz", "-1", "1 ", "f" * 129, "ｆ"])
def test_a_difficulty_that_is_no_hex_of_sensible_length_is_a_protocol_error(difficulty: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        sha3("0.5", difficulty)


@pytest.mark.parametrize("seed", ["", "é", "0" * 1025])
def test_a_seed_that_cannot_be_hashed_as_the_page_does_is_a_protocol_error(seed: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        sha3(seed, "0fffff")


def test_fnv_takes_eight_digits_at_most() -> None:
    assert Challenge(Algorithm.FNV1A_32, "0.5", "0000000F").difficulty == "0000000f"
    with pytest.raises(UpstreamProtocolError):
        Challenge(Algorithm.FNV1A_32, "0.5", "0fffffff0")


@pytest.mark.parametrize(
    ("difficulty", "tries"), [("0fffff", 16), ("000fff", 4096), ("00003a", 284_359.6), ("f", 1), ("00000000", 2**32)]
)
def test_expected_tries_follow_from_the_difficulty(difficulty: str, tries: float) -> None:
    assert sha3("0.5", difficulty).expected_tries == pytest.approx(tries, rel=1e-4)


@pytest.mark.parametrize(
    ("difficulty", "limit", "harder"),
    [
        ("000031", "000032", True),
        ("000032", "000032", False),
        ("000033", "000032", False),
        ("00003A", "00003a", False),
        ("0000", "000032", False),  # accepts all of 0000ff, so it is the easier one
        ("00000", "000032", True),  # 00000f
        ("00003200", "000032", True),
        ("000032ff", "000032", False),
    ],
)
def test_harder_means_that_fewer_hashes_are_accepted(difficulty: str, limit: str, harder: bool) -> None:
    assert is_harder(difficulty, limit) is harder
