"""`chat2api/accounts/affinity.py`."""

import random

from chat2api.accounts.affinity import Affinity


def bind(affinity: Affinity, key: str, account: str) -> list[str]:
    """Bind and give the accounts that have fewer keys for it."""
    return list(affinity.bind(key, account))


def test_a_key_is_found_where_it_was_bound_last() -> None:
    affinity = Affinity()

    assert bind(affinity, "a", "acc_1") == []
    assert bind(affinity, "a", "acc_2") == ["acc_1"]

    assert (affinity.find("a"), affinity.find("b")) == ("acc_2", None)
    assert affinity.load == {"acc_2": 1}


def test_the_longest_unused_key_is_forgotten_first() -> None:
    affinity = Affinity(capacity=2)
    for key in ("a", "b"):
        bind(affinity, key, "acc_1")
    affinity.find("a")

    assert bind(affinity, "c", "acc_2") == ["acc_1"]

    assert [affinity.find(key) for key in ("a", "b", "c")] == ["acc_1", None, "acc_2"]
    assert (len(affinity), affinity.load) == (2, {"acc_1": 1, "acc_2": 1})


def test_the_load_is_what_the_table_says_whatever_happened() -> None:
    rng = random.Random(3)
    affinity, keys = Affinity(capacity=20), [str(number) for number in range(40)]
    for _ in range(2000):
        bind(affinity, rng.choice(keys), rng.choice("ABCD"))

    counted: dict[str, int] = {}
    for key in keys:
        account = affinity.find(key)
        if account is not None:
            counted[account] = counted.get(account, 0) + 1

    assert (affinity.load, sum(counted.values())) == (counted, 20)


def test_any_text_of_a_caller_is_a_key() -> None:
    affinity = Affinity()

    bind(affinity, "\ud800", "acc_1")

    assert affinity.find("\ud800") == "acc_1"
