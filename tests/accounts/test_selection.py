"""`chat2api/accounts/selection.py`."""

import random
from collections import Counter

import pytest

from chat2api.accounts.selection import OrderedRing, RandomRing, Ring


@pytest.fixture(params=["random", "ordered"])
def ring(request: pytest.FixtureRequest) -> Ring:
    return RandomRing(random.Random(1)) if request.param == "random" else OrderedRing()


def test_nothing_is_picked_from_an_empty_ring(ring: Ring) -> None:
    ring.discard("a")

    assert ring.pick(set()) is None
    assert len(ring) == 0


def test_only_what_is_in_and_not_excluded_is_picked(ring: Ring) -> None:
    for name in "abcdefgh":
        ring.add(name)
        ring.add(name)
    for name in "ace":
        ring.discard(name)

    picked = {ring.pick({"b", "h"}) for _ in range(200)}

    assert picked == {"d", "f", "g"}
    assert len(ring) == 5
    assert ring.pick(set("bdfgh")) is None


def test_R29_the_picker_ends_on_any_list(ring: Ring) -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        name = str(rng.randrange(20))
        ring.discard(name) if rng.random() < 0.5 else ring.add(name)
        exclude = {str(rng.randrange(20)) for _ in range(rng.randrange(25))}
        picked = ring.pick(exclude)
        assert picked is None or picked not in exclude


def test_every_account_gets_its_turn_in_order() -> None:
    ring = OrderedRing()
    for name in "abc":
        ring.add(name)

    assert "".join(ring.pick(set()) or "" for _ in range(7)) == "abcabca"
    ring.discard("b")
    ring.add("b")
    assert "".join(ring.pick(set()) or "" for _ in range(4)) == "cabc"


def test_random_picks_are_even_also_when_most_are_excluded() -> None:
    ring = RandomRing(random.Random(3))
    names = [str(number) for number in range(100)]
    for name in names:
        ring.add(name)

    everyone = Counter(ring.pick(set()) for _ in range(20_000))
    few = Counter(ring.pick(set(names[4:])) for _ in range(4000))

    assert len(everyone) == 100 and max(everyone.values()) < 2 * min(everyone.values())
    assert len(few) == 4 and max(few.values()) < 1.3 * min(few.values())
