"""`chat2api/keys/scope.py`: which models and accounts a key may use."""

from dataclasses import dataclass, replace

import pytest

from chat2api.keys.scope import REFRESH_SECONDS, AccountScopes, may_use_model, unknown_names
from chat2api.storage.keys import IssuedKey, KeyLimits, KeyScope
from tests.clocks import FakeClock


@dataclass(frozen=True)
class Account:
    id: str
    label: str
    groups: tuple[str, ...] = ()


def key(scope: KeyScope) -> IssuedKey:
    return IssuedKey("key_1", "n", "", "s", "d", None, None, 0, None, None, None, scope, KeyLimits(), 1)


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (None, "anything", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o*",), "gpt-4o-mini", True),
        (("gpt-4o", "o3*"), "o3-pro", True),
        (("*mini",), "gpt-5-mini", True),
        (("*mini",), "gpt-5-minimal", False),
        (("gpt-5.2*",), "gpt-5-2-thinking", True),
        (("gpt-5-2",), "gpt-5.2", True),
        (("GPT-4o",), " gpt-4O ", True),
        (("gpt-4*",), "gpt-4-gizmo-g-abc", True),
        (("gpt[45]",), "gpt5", False),
        (("gpt.4o",), "gptx4o", False),
        ((), "gpt-4o", False),
        (("auto",), "no-such-model", False),
    ],
)
def test_a_model_is_allowed_by_any_pattern(patterns: tuple[str, ...] | None, name: str, allowed: bool) -> None:
    assert may_use_model(KeyScope(models=patterns), name) is allowed


def test_accounts_are_allowed_by_label_or_group(clock: FakeClock) -> None:
    accounts = [Account("a", "la"), Account("b", "lb", ("team",)), Account("c", "lc", ("team", "home"))]
    scopes = AccountScopes(lambda: accounts, clock)

    assert scopes.allowed(key(KeyScope())) is None
    assert scopes.allowed(key(KeyScope(accounts=("la", "unknown")))) == frozenset({"a"})
    assert scopes.allowed(key(KeyScope(accounts=("la",), groups=("home",)))) == frozenset({"a", "c"})
    assert scopes.allowed(key(KeyScope(groups=()))) == frozenset(), "held to nothing is not held to all"


def test_S13_a_change_of_accounts_or_scope_is_seen_within_a_second_and_nothing_is_counted_before(
    clock: FakeClock,
) -> None:
    accounts = [Account("a", "la", ("team",))]
    looks: list[int] = []

    def look() -> list[Account]:
        looks.append(1)
        return accounts

    scopes = AccountScopes(look, clock)
    mine = key(KeyScope(groups=("team",)))
    first = scopes.allowed(mine)
    accounts.append(Account("b", "lb", ("team",)))
    assert scopes.allowed(mine) is first
    clock.advance(REFRESH_SECONDS)
    second = scopes.allowed(mine)
    assert second == frozenset({"a", "b"})
    clock.advance(REFRESH_SECONDS)
    assert scopes.allowed(mine) is second, "the same set while nothing changed"
    accounts.append(Account("c", "lc", ("other",)))
    clock.advance(REFRESH_SECONDS)
    assert scopes.allowed(mine) is second, "also when something else changed"
    assert len(looks) == 4
    assert scopes.allowed(replace(mine, scope=KeyScope(accounts=("la",)))) == frozenset({"a"}), (
        "a changed scope holds at once"
    )


def test_names_that_no_account_has_are_told() -> None:
    accounts = [Account("a", "la", ("team",)), Account("b", "lb")]
    assert unknown_names(KeyScope(accounts=("la", "lx"), groups=("home", "team")), accounts) == ["lx", "home"]
    assert unknown_names(KeyScope(), accounts) == []
