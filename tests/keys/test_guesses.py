"""Who guesses too often waits, and nobody else does."""

import pytest

from chat2api.errors import RateLimitedError
from chat2api.keys.digests import secret_digest
from chat2api.keys.guesses import ALARM_GUESSES, ALARM_SECONDS, FIRST_WAIT, GUESSES, LONGEST_WAIT, Guesses
from tests.clocks import FakeClock

HERE, THERE = "198.51.100.7", "203.0.113.9"


def wrong(number: int) -> bytes:
    return secret_digest(f"wrong {number}")


def guess(guesses: Guesses, address: str, number: int) -> bool:
    """Guess once; True when the guess was compared."""
    try:
        guesses.check(address, wrong(number))
    except RateLimitedError:
        return False
    guesses.failed(address, wrong(number))
    return True


def test_S14_ten_thousand_guesses_in_a_minute_are_ten_comparisons() -> None:
    clock = FakeClock()
    guesses = Guesses(clock)
    compared = 0
    for number in range(10_000):
        compared += guess(guesses, HERE, number)
        clock.advance(59 / 10_000)
    assert compared == GUESSES
    assert guesses.refused == 10_000 - GUESSES


def test_S14_the_wait_doubles_to_a_quarter_of_an_hour_and_is_forgiven_after_a_quiet_one() -> None:
    clock = FakeClock()
    guesses = Guesses(clock)
    waits, number = [], 0
    for _ in range(7):
        for _ in range(GUESSES):
            assert guess(guesses, HERE, number)
            number += 1
        with pytest.raises(RateLimitedError) as refusal:
            guesses.check(HERE, wrong(number))
        assert refusal.value.retry_after is not None
        waits.append(refusal.value.retry_after)
        clock.advance(refusal.value.retry_after)
    assert waits == pytest.approx([60, 120, 240, 480, 900, 900, 900])
    clock.advance(LONGEST_WAIT)
    for _ in range(GUESSES):
        number += 1
        assert guess(guesses, HERE, number)
    with pytest.raises(RateLimitedError) as refusal:
        guesses.check(HERE, wrong(0))
    assert refusal.value.retry_after == pytest.approx(FIRST_WAIT)


def test_S14_nobody_else_waits_and_neither_does_who_was_right_before() -> None:
    guesses = Guesses(FakeClock())
    right = secret_digest("right")
    guesses.succeeded(HERE, right)
    for number in range(GUESSES):
        assert guess(guesses, HERE, number)
    assert not guess(guesses, HERE, 99)
    assert guess(guesses, THERE, 99)
    guesses.check(HERE, right)
    with pytest.raises(RateLimitedError):
        guesses.check(HERE, secret_digest("right elsewhere"))


def test_the_same_wrong_key_again_and_again_is_one_guess() -> None:
    guesses = Guesses(FakeClock())
    for _ in range(1000):
        assert guess(guesses, HERE, 1)
    guesses.check(HERE, secret_digest("right"))


def test_slow_wrong_keys_never_make_anybody_wait() -> None:
    clock = FakeClock()
    guesses = Guesses(clock)
    for number in range(200):
        assert guess(guesses, HERE, number)
        clock.advance(60.1 / (GUESSES - 1))


def test_S14_guesses_at_once_are_counted_before_any_has_been_compared() -> None:
    guesses = Guesses(FakeClock())
    let_in = 0
    for number in range(200):
        try:
            guesses.check(HERE, wrong(number))
        except RateLimitedError:
            continue
        guesses.failed(HERE, wrong(number))
        let_in += 1
    assert let_in == GUESSES


def test_a_secret_that_proves_right_is_no_guess_even_as_the_tenth() -> None:
    guesses = Guesses(FakeClock())
    for number in range(GUESSES - 1):
        guesses.failed(HERE, wrong(number))
    guesses.failed(HERE, secret_digest("right"))()
    assert guess(guesses, HERE, 50)
    assert not guess(guesses, HERE, 51)


def test_S14_a_hundred_in_a_minute_from_anywhere_raise_the_alarm_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    guesses = Guesses(clock)
    for number in range(ALARM_GUESSES - 1):
        guesses.failed(f"192.0.2.{number}", wrong(number))
    before = guesses.alarm
    assert not before
    for number in range(50):
        guesses.failed(f"198.51.100.{number}", wrong(1000 + number))
    assert guesses.alarm
    assert [record.getMessage() for record in caplog.records if "guessing" in record.getMessage()] == [
        "100 wrong keys or passwords within a minute: somebody may be guessing"
    ]
    clock.advance(ALARM_SECONDS + 1)
    assert not guesses.alarm


def test_what_is_remembered_is_bounded_and_forgotten() -> None:
    clock = FakeClock()
    guesses = Guesses(clock)
    assert guesses.quiet
    for number in range(25_000):
        guesses.failed(f"2001:db8:{number:x}::/64", wrong(number))
        guesses.succeeded(f"2001:db8:{number:x}::/64", wrong(number))
    assert len(guesses._addresses) <= 10_001
    assert len(guesses._known) <= 4096
    clock.advance(LONGEST_WAIT * 3)
    for number in range(3):
        guesses.failed(HERE, wrong(number))
    assert len(guesses._addresses) == 1
