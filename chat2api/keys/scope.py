"""What an issued key may use: models by pattern, accounts by label or group."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Protocol

from chat2api.clock import Clock
from chat2api.storage.keys import IssuedKey, KeyScope

REFRESH_SECONDS = 1.0
"""How soon a change of the pool's accounts reaches the keys that are held to some of them."""

MAX_PATTERNS = 100
_MAX_KEPT = 1000
_DOTTED = re.compile(r"(?<=\d)\.(?=\d)")


class Labelled(Protocol):
    """What is needed of an account here."""

    @property
    def id(self) -> str:
        """The account's id."""
        ...

    @property
    def label(self) -> str:
        """What people call it."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that it is in."""
        ...


def may_use_model(scope: KeyScope, name: str) -> bool:
    """Whether a model may be asked for by this name; `gpt-5.2` and `gpt-5-2` are one."""
    return scope.models is None or _matcher(scope.models)(_spell(name)) is not None


def same_model(name: str, other: str) -> bool:
    """Whether two names mean one model; `gpt-5.2` and `gpt-5-2` do."""
    return _spell(name) == _spell(other)


@lru_cache(maxsize=_MAX_KEPT)
def _matcher(patterns: tuple[str, ...]) -> "Callable[[str], re.Match[str] | None]":
    # `*` is the only wildcard: brackets and question marks occur in no model's name.
    alternatives = (".*".join(map(re.escape, _spell(pattern).split("*"))) for pattern in patterns)
    return re.compile("|".join(alternatives)).fullmatch


def _spell(name: str) -> str:
    return _DOTTED.sub("-", name.strip().lower())


def unknown_names(scope: KeyScope, accounts: Iterable[Labelled]) -> list[str]:
    """Give the labels and groups of a scope that no account has: mostly slips, which would leave a key without accounts."""
    known: set[str] = set()
    groups: set[str] = set()
    for account in accounts:
        known.add(account.label)
        groups.update(account.groups)
    return [name for name in scope.accounts or () if name not in known] + [
        name for name in scope.groups or () if name not in groups
    ]


class AccountScopes:
    """The accounts that keys are held to, by id; the pool is looked at every second at most, whatever the number of keys."""

    def __init__(self, accounts: Callable[[], Iterable[Labelled]], clock: Clock) -> None:
        """Look among these accounts."""
        self._accounts = accounts
        self._clock = clock
        self._until = 0.0
        self._labels: dict[str, str] = {}
        self._groups: dict[str, frozenset[str]] = {}
        self._version = 0
        self._found: dict[str, tuple[int, KeyScope, frozenset[str]]] = {}

    def allowed(self, key: IssuedKey) -> frozenset[str] | None:
        """Give the ids of the accounts that a key may use; None for all. The same set as long as nothing changed."""
        scope = key.scope
        if scope.accounts is None and scope.groups is None:
            return None
        self._look()
        kept = self._found.pop(key.id, None)
        if kept is None or kept[0] != self._version or kept[1] != scope:
            found = self._resolve(scope)
            # A pool that arranges accounts by such sets knows the same object at a glance.
            kept = (self._version, scope, kept[2] if kept is not None and kept[2] == found else found)
            if len(self._found) >= _MAX_KEPT:
                del self._found[next(iter(self._found))]
        self._found[key.id] = kept
        return kept[2]

    def _look(self) -> None:
        """Take over the pool's labels and groups, if it is time to."""
        now = self._clock.monotonic()
        if now < self._until:
            return
        self._until = now + REFRESH_SECONDS
        labels: dict[str, str] = {}
        members: dict[str, set[str]] = {}
        for account in self._accounts():
            labels[account.label] = account.id
            for group in account.groups:
                members.setdefault(group, set()).add(account.id)
        groups = {name: frozenset(ids) for name, ids in members.items()}
        if labels != self._labels or groups != self._groups:
            self._labels, self._groups = labels, groups
            self._version += 1

    def _resolve(self, scope: KeyScope) -> frozenset[str]:
        named = {self._labels[label] for label in scope.accounts or () if label in self._labels}
        return frozenset(named.union(*(self._groups.get(group, frozenset()) for group in scope.groups or ())))
