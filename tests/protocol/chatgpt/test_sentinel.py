"""What is sent in the requirements exchange and how its answers are read."""

import base64
import hashlib
import json
import random
import time

import pytest

from chat2api.errors import ProofTooHardError, UpstreamProtocolError
from chat2api.protocol.chatgpt.proof_of_work import Algorithm, Challenge, Template
from chat2api.protocol.chatgpt.sentinel import (
    EASTERN,
    FALLBACK_PAGE,
    PACIFIC,
    Device,
    Form,
    PageFacts,
    Requirements,
    Zone,
    check_difficulty,
    finalize_body,
    make_requirements_token,
    needs_two_stages,
    parse_finalized,
    parse_home_page,
    parse_requirements,
    requirements_body,
    sentinel_headers,
    single_stage_config,
    two_stage_config,
)

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/136.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:136.0) Gecko/20100101 Firefox/136.0"
DEVICE = Device(device_id="11111111-2222-4333-8444-555555555555", user_agent=CHROME)
PAGE = PageFacts(scripts=("https://chatgpt.com/a.js", "https://chatgpt.com/b.js"), build_id="prod-0123")
LOADED_AT = 1_727_784_000.0  # Tue Oct 01 2024 12:00:00 UTC
NOW = LOADED_AT + 1.2345
UNIQUE_ID = "00000000-0000-4000-8000-000000000001"

SINGLE_ANSWER = {
    "persona": "chatgpt-paid",
    "token": "gAAAAABm-requirements",
    "expire_after": 540,
    "force_login": False,
    "arkose": {"required": False, "dx": None},
    "turnstile": {"required": True, "dx": "b64"},
    "proofofwork": {"required": True, "seed": "0.4821937465", "difficulty": "00003a"},
    "so_token": None,
}
PREPARED_ANSWER = {
    "persona": "chatgpt-freeaccount",
    "prepare_token": "gAAAAAB-prepare",
    "token": "",
    "force_login": False,
    "proofofwork": {"required": True, "seed": "0.77123", "difficulty": "0fffff"},
    "turnstile": {"required": True, "dx": "b64"},
    "so": {"required": False},
}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_the_single_stage_array_describes_the_device_and_the_page() -> None:
    config = single_stage_config(DEVICE, PAGE, now=NOW, loaded_at=LOADED_AT, rng=random.Random(1), unique_id=UNIQUE_ID)

    assert len(config) == 18
    assert config[:3] == (3000, "Tue Oct 01 2024 07:00:01 GMT-0500 (Eastern Standard Time)", 4294705152)
    assert config[4] == CHROME
    assert config[5] in PAGE.scripts
    assert config[6:9] == ("prod-0123", "en-US", "en-US,es-US,en,es")
    assert isinstance(config[10], str)
    assert "−" in config[10]  # U+2212
    assert config[13:] == (1234.5, UNIQUE_ID, "", 16, 1_727_784_000_000)


def test_the_older_single_stage_array_is_its_first_15_items() -> None:
    def make(length: int) -> tuple[object, ...]:
        return single_stage_config(
            DEVICE,
            PAGE,
            now=NOW,
            loaded_at=LOADED_AT,
            rng=random.Random(1),
            unique_id=UNIQUE_ID,
            length=15 if length == 15 else 18,
        )

    assert make(15) == make(18)[:15]


def test_the_two_stage_array_has_25_items_and_the_device_id() -> None:
    config = two_stage_config(DEVICE, PAGE, now=NOW, loaded_at=LOADED_AT, rng=random.Random(1))

    assert len(config) == 25
    assert config[2] == 4294967296
    assert config[8] == "en-US,en"
    assert isinstance(config[9], int)
    assert config[13:15] == (1234.5, DEVICE.device_id)
    assert config[18:] == (0,) * 7


def test_the_same_random_numbers_give_the_same_array_and_others_another() -> None:
    def make(seed: int) -> tuple[object, ...]:
        return two_stage_config(DEVICE, PAGE, now=NOW, loaded_at=LOADED_AT, rng=random.Random(seed))

    assert make(5) == make(5)
    assert len({make(seed) for seed in range(20)}) > 10


def test_a_browser_never_shows_a_probe_of_another() -> None:
    firefox = Device(device_id="d", user_agent=FIREFOX)
    rng = random.Random(3)

    def probes(device: Device) -> set[object]:
        return {two_stage_config(device, PAGE, now=NOW, loaded_at=LOADED_AT, rng=rng)[10] for _ in range(300)}

    assert "vendor−Google Inc." in probes(DEVICE)
    assert "vendor−Google Inc." not in probes(firefox)


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (EASTERN, "Tue Oct 01 2024 07:00:00 GMT-0500 (Eastern Standard Time)"),
        (PACIFIC, "Tue Oct 01 2024 04:00:00 GMT-0800 (Pacific Standard Time)"),
        (Zone(330, "India Standard Time"), "Tue Oct 01 2024 17:30:00 GMT+0530 (India Standard Time)"),
        (Zone(840, "Line Islands Time"), "Wed Oct 02 2024 02:00:00 GMT+1400 (Line Islands Time)"),
    ],
)
def test_the_date_is_written_as_a_browser_in_that_zone_writes_it(zone: Zone, text: str) -> None:
    device = Device(device_id="d", user_agent=CHROME, zone=zone)

    config = two_stage_config(device, PAGE, now=LOADED_AT, loaded_at=LOADED_AT, rng=random.Random(1))

    assert config[1] == text


def test_the_requirements_token_of_the_single_stage_form_is_a_small_proof_of_work() -> None:
    config = single_stage_config(DEVICE, PAGE, now=NOW, loaded_at=LOADED_AT, rng=random.Random(1), unique_id="u")

    token = make_requirements_token(Form.SINGLE_STAGE, Template.of(config, Algorithm.SHA3_512), random.Random(7))

    text = token.removeprefix("gAAAAAC")
    items = json.loads(base64.b64decode(text))
    seed = repr(random.Random(7).random())  # what the function drew first
    assert hashlib.sha3_512((seed + text).encode()).hexdigest()[:6] <= "0fffff"
    assert items == [*config[:3], items[3], *config[4:9], items[3] >> 1, *config[10:]]


def test_the_requirements_token_of_the_two_stage_form_holds_nonce_1() -> None:
    config = two_stage_config(DEVICE, PAGE, now=NOW, loaded_at=LOADED_AT, rng=random.Random(1))

    token = make_requirements_token(Form.TWO_STAGES, Template.of(config, Algorithm.FNV1A_32), random.Random(7))

    assert token.startswith("gAAAAAC")
    assert token.endswith("~S")
    items = json.loads(base64.b64decode(token[len("gAAAAAC") : -len("~S")]))
    assert items == [*config[:3], 1, *config[4:]]


def test_the_page_gives_its_scripts_and_its_build() -> None:
    page = """<!DOCTYPE html><html lang="en-US" data-build="prod-89ab" dir="ltr"><head>
      <script nonce="x" src="https://cdn.oaistatic.com/assets/one.js?a=1&amp;b=2"></script>
      <script async src='/assets/two.js'></script><script>var inline = 1;</script>
      <script src="https://chatgpt.com/cdn-cgi/challenge-platform/scripts/jsd/main.js"></script></head></html>"""

    facts = parse_home_page(page, "https://chatgpt.com/?oai-dm=1")

    assert facts == PageFacts(
        ("https://cdn.oaistatic.com/assets/one.js?a=1&b=2", "https://chatgpt.com/assets/two.js"), "prod-89ab"
    )


def test_an_older_page_names_its_build_in_a_script() -> None:
    page = '<html><script src="/x.js"></script><script src="https://cdn.oaistatic.com/c/2b1f/_next/y.js"></script>'

    assert parse_home_page(page, "https://chatgpt.com/").build_id == "c/2b1f/_"


@pytest.mark.parametrize("page", ["", "<html><body>Just a moment</body></html>", "<script src=", "\x00<<<>>>"])
def test_a_page_that_tells_nothing_gives_the_fallback(page: str) -> None:
    assert parse_home_page(page, "https://chatgpt.com/") == FALLBACK_PAGE


def test_a_large_hostile_page_is_read_in_linear_time() -> None:
    page = "<script " * 100_000 + "<html " * 100_000 + "<script x" + " src=" * 100_000

    begin = time.thread_time()

    assert parse_home_page(page, "https://chatgpt.com/") == FALLBACK_PAGE
    assert time.thread_time() - begin < 0.5  # 2 MB; quadratic time would be minutes


def test_a_single_stage_answer_is_read() -> None:
    assert parse_requirements(body(SINGLE_ANSWER), Form.SINGLE_STAGE) == Requirements(
        token="gAAAAABm-requirements",
        prepare_token=None,
        persona="chatgpt-paid",
        challenge=Challenge(Algorithm.SHA3_512, "0.4821937465", "00003a"),
        turnstile_required=True,
        arkose_required=False,
        force_login=False,
        expire_after=540.0,
    )


def test_the_answers_of_two_stages_are_joined() -> None:
    prepared = parse_requirements(body(PREPARED_ANSWER), Form.TWO_STAGES)

    final = parse_finalized(body({"token": "gAAAAAB-final", "expire_after": 540}), prepared)

    assert prepared.token is None
    assert prepared.challenge == Challenge(Algorithm.FNV1A_32, "0.77123", "0fffff")
    assert (final.token, final.prepare_token, final.persona) == (
        "gAAAAAB-final",
        "gAAAAAB-prepare",
        "chatgpt-freeaccount",
    )
    assert final.expire_after == 540.0


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"proofofwork": None, "turnstile": None, "arkose": "no", "persona": 7, "expire_after": "soon"},
        {"proofofwork": {"required": False, "seed": "0.1", "difficulty": "000032"}, "force_login": None},
        {"proofofwork": [], "expire_after": -1, "turnstile": {"required": "false"}},
        {"expire_after": 10**400, "persona": ""},
    ],
)
def test_missing_and_odd_fields_count_as_absent(extra: dict[str, object]) -> None:
    answer = parse_requirements(body({"token": "t", **extra}), Form.SINGLE_STAGE)

    assert answer == Requirements("t", None, None, None, False, False, False, None)


def test_a_seed_given_as_a_number_is_taken_as_its_text() -> None:
    pow_field = {"required": True, "seed": 0.25, "difficulty": "0fffff"}

    answer = parse_requirements(body({"token": "t", "proofofwork": pow_field}), Form.SINGLE_STAGE)

    assert answer.challenge == Challenge(Algorithm.SHA3_512, "0.25", "0fffff")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'"token"',
        b"{}",
        b'{"token":""}',
        b'{"token":5}',
        b'{"token":"t","proofofwork":{"required":true}}',
        b'{"token":"t","proofofwork":{"required":true,"seed":"0.1","difficulty":"xyz"}}',
        b'{"token":"t","proofofwork":{"required":true,"seed":"0.1","difficulty":""}}',
    ],
)
def test_R14_an_answer_of_no_use_is_a_protocol_error(answer: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_requirements(answer, Form.SINGLE_STAGE)


def test_an_answer_that_only_demands_a_login_is_passed_on() -> None:
    answer = parse_requirements(body({"force_login": True}), Form.SINGLE_STAGE)

    assert answer.force_login
    assert answer.token is None


def test_a_final_answer_without_a_token_is_a_protocol_error() -> None:
    prepared = parse_requirements(body(PREPARED_ANSWER), Form.TWO_STAGES)

    with pytest.raises(UpstreamProtocolError):
        parse_finalized(b'{"persona":"chatgpt-freeaccount"}', prepared)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (404, None, True),
        (405, None, True),
        (410, None, True),
        (401, None, False),
        (403, None, False),
        (500, None, False),
        (200, PREPARED_ANSWER, True),
        (200, SINGLE_ANSWER, False),
        (200, {"token": "t", "prepare_token": "p"}, False),
        (200, {"force_login": True}, False),
    ],
)
def test_the_two_stage_form_is_recognised(status: int, answer: object, expected: bool) -> None:
    requirements = None if answer is None else parse_requirements(body(answer), Form.SINGLE_STAGE)

    assert needs_two_stages(status, requirements) is expected


def test_only_a_difficulty_below_the_setting_is_refused() -> None:
    check_difficulty(Challenge(Algorithm.SHA3_512, "0.1", "000032"), "000032")
    check_difficulty(Challenge(Algorithm.SHA3_512, "0.1", "0fffff"), "000032")
    with pytest.raises(ProofTooHardError, match=r"000031.*POW_DIFFICULTY \(000032\)"):
        check_difficulty(Challenge(Algorithm.SHA3_512, "0.1", "000031"), "000032")


def test_bodies_leave_out_what_has_no_value() -> None:
    assert requirements_body("gAAAAACx") == {"p": "gAAAAACx"}
    assert finalize_body("p", None) == {"prepare_token": "p"}
    assert finalize_body("p", "gAAAAABx~S") == {"prepare_token": "p", "proofofwork": "gAAAAABx~S"}


def test_headers_leave_out_what_has_no_value() -> None:
    single = parse_requirements(body({"token": "t"}), Form.SINGLE_STAGE)
    final = parse_finalized(b'{"token":"f"}', parse_requirements(body(PREPARED_ANSWER), Form.TWO_STAGES))

    assert sentinel_headers(single, None) == (("OpenAI-Sentinel-Chat-Requirements-Token", "t"),)
    assert sentinel_headers(final, "gAAAAABx~S") == (
        ("OpenAI-Sentinel-Chat-Requirements-Token", "f"),
        ("OpenAI-Sentinel-Chat-Requirements-Prepare-Token", "gAAAAAB-prepare"),
        ("OpenAI-Sentinel-Proof-Token", "gAAAAABx~S"),
    )
