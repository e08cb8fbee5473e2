"""Sign-ins: kept by digest, ended by time or by hand."""

import pytest

from chat2api.storage.records import Records
from chat2api.storage.sign_ins import IDLE_SECONDS, LONGEST_SECONDS, SignIn, SignInKind

NOW = 1_700_000_000.0


def sign_in(digest: str, at: float = NOW, kind: SignInKind = "operator", key_id: str | None = None) -> SignIn:
    return SignIn(digest, kind, "p" * 64, key_id, began_at=at, used_at=at)


async def test_a_sign_in_is_found_until_it_is_ended(records: Records) -> None:
    one, other = sign_in("1" * 64), sign_in("2" * 64, kind="key", key_id="key_x")
    await records.sign_ins.begin(one)
    await records.sign_ins.begin(other)
    assert await records.sign_ins.find(one.digest) == one
    await records.sign_ins.end(one.digest)
    await records.sign_ins.end(one.digest)
    assert await records.sign_ins.find(one.digest) is None
    assert await records.sign_ins.find(other.digest) == other


async def test_its_last_use_is_noted_but_never_brings_it_back(records: Records) -> None:
    await records.sign_ins.begin(sign_in("1" * 64))
    await records.sign_ins.touch("1" * 64, NOW + 500)
    found = await records.sign_ins.find("1" * 64)
    assert found is not None
    assert (found.began_at, found.used_at) == (NOW, NOW + 500)
    await records.sign_ins.end("1" * 64)
    await records.sign_ins.touch("1" * 64, NOW + 600)
    assert await records.sign_ins.find("1" * 64) is None


async def test_those_that_are_over_are_forgotten_when_the_next_begins(records: Records) -> None:
    await records.sign_ins.begin(sign_in("1" * 64, NOW - IDLE_SECONDS))
    await records.sign_ins.begin(sign_in("2" * 64, NOW - IDLE_SECONDS + 1))
    await records.sign_ins.begin(sign_in("3" * 64, NOW))
    assert await records.sign_ins.find("1" * 64) is None
    assert await records.sign_ins.find("2" * 64) is not None


@pytest.mark.parametrize(
    ("began", "used", "ended"),
    [
        (0, 0, False),
        (-IDLE_SECONDS + 1, -IDLE_SECONDS + 1, False),
        (-IDLE_SECONDS, -IDLE_SECONDS, True),
        (-LONGEST_SECONDS + 1, 0, False),
        (-LONGEST_SECONDS, 0, True),
        (60, 60, False),
        (25 * 3600, 25 * 3600, True),
    ],
)
def test_R21_a_sign_in_ends_by_idleness_by_age_and_by_a_clock_that_jumped(
    began: float, used: float, ended: bool
) -> None:
    one = SignIn("1" * 64, "operator", "", None, began_at=NOW + began, used_at=NOW + used)
    assert one.ended(NOW) is ended
