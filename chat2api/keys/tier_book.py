"""The tiers as they are now: read from their file at the start, and anew whenever somebody asks for it.

All tiers are exchanged at one moment, and a request keeps the tier that it began with; so a change under load touches
no request that is on its way. A file with a mistake changes nothing.
"""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from chat2api.errors import ConfigError, InvalidRequestError
from chat2api.keys.digests import find_digest, secret_digest
from chat2api.keys.terms import MAX_TIER, NONE
from chat2api.keys.tier_file import MAX_FILE, SAY, Problem, TiersError, read_tiers
from chat2api.keys.tiers import BUILT_IN, Tier

log = logging.getLogger(__name__)

OFF = "off"
"""What PUBLIC_MODE says where no tier is public."""


class TierBook:
    """All tiers. Make one, `await load()`, and `await reload()` when the file has changed."""

    def __init__(
        self, path: Path | None, *, public: str = OFF, taken: Collection[str] = (), keys: Collection[str] = ()
    ) -> None:
        """Begin without tiers. `path` None stands for the built-in one; `taken` and `keys` are as for `read_tiers`."""
        self.path = path
        self._public_name = public
        self._taken = frozenset(taken)
        self._keys = tuple(keys)
        self._tiers: tuple[Tier, ...] = ()
        self._by_name: dict[str, Tier] = {}
        self._by_base: tuple[tuple[str, Tier], ...] = ()
        self._first_segments: frozenset[str] = frozenset()
        self._shared: tuple[tuple[bytes, Tier], ...] = ()
        self._reading = asyncio.Lock()
        self.problems: tuple[Problem, ...] = ()
        """What was wrong when the file was read last; the tiers are then still those from before."""

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """All tiers in the order of the file."""
        return self._tiers

    @property
    def public(self) -> Tier | None:
        """The tier that needs no key, None where there is none."""
        return self._by_name.get(self._public_name)

    async def load(self) -> None:
        """Take over what the file says. Raises ConfigError, TiersError where the file can be read; nothing changes then."""
        async with self._reading:
            try:
                tiers = await asyncio.to_thread(self._read)
            except TiersError as error:
                self.problems = error.problems
                raise
            except ConfigError as error:
                self.problems = (Problem(0, "", error.message),)
                raise
            self.problems = ()
            self._take(tiers)

    async def reload(self) -> bool:
        """Take over what the file says now, and tell whether that was possible; what was wrong is in `problems`."""
        try:
            await self.load()
        except ConfigError:
            for problem in self.problems:  # a line of the log each
                log.error("the tiers' file: %s", problem)
            log.error("the tiers stay as they were")
            return False
        log.info("%d tier(s): %s", len(self._tiers), ", ".join(self._by_name))
        return True

    def get(self, name: str) -> Tier | None:
        """Give a tier by its name."""
        return self._by_name.get(name)

    def require(self, name: str) -> Tier:
        """Give a tier that somebody asks for by name. Raises InvalidRequestError, which names those that there are."""
        tier = self._by_name.get(name)
        if tier is None:
            names = ", ".join(self._by_name)
            words = f"There is no tier {name[:MAX_TIER]!r}. There are: {names}."
            raise InvalidRequestError(words, param="tier", code="invalid_value")
        return tier

    def check(self, said: object) -> None:
        """Raise InvalidRequestError for a tier that there is not: a key of it would open nothing. `none` is no tier."""
        if isinstance(said, str) and said != NONE:
            self.require(said)

    def find(self, path: str) -> tuple[Tier, str] | None:
        """Give the tier under one of whose bases a path lies, and the rest of the path; the longest base wins."""
        if path[1:].partition("/")[0] not in self._first_segments:
            return None
        for base, tier in self._by_base:
            if path.startswith(base) and path[len(base) : len(base) + 1] in ("", "/"):
                return tier, path[len(base) :]
        return None

    def with_shared_key(self, bearer: str) -> Tier | None:
        """Give the tier whose shared key a bearer is."""
        if not self._shared:
            return None
        found = find_digest(secret_digest(bearer), [digest for digest, _ in self._shared])
        return None if found is None else self._shared[found][1]

    def _read(self) -> tuple[Tier, ...]:
        if self.path is None:
            tiers: tuple[Tier, ...] = (BUILT_IN,)
        else:
            try:
                with self.path.open("rb") as file:
                    data = file.read(MAX_FILE + 1)
                text = data.decode("utf-8-sig")
            except OSError as error:
                raise ConfigError(SAY("unreadable", path=self.path, why=error.strerror)) from error
            except UnicodeDecodeError as error:
                line = data[: error.start].count(b"\n") + 1
                raise TiersError([Problem(line, "", SAY("not_utf8"))]) from None
            tiers = read_tiers(text, taken=self._taken, keys=self._keys)
        if self._public_name != OFF and all(tier.name != self._public_name for tier in tiers):
            names = ", ".join(tier.name for tier in tiers)
            raise ConfigError(SAY("not_public", name=self._public_name, names=names))
        return tiers

    def _take(self, tiers: tuple[Tier, ...]) -> None:
        self._tiers = tiers
        self._by_name = {tier.name: tier for tier in tiers}
        bases = [(base, tier) for tier in tiers for base in tier.bases]
        self._by_base = tuple(sorted(bases, key=lambda entry: -len(entry[0])))
        self._first_segments = frozenset(base.split("/")[1] for base, _ in bases)
        self._shared = tuple((secret_digest(tier.shared_key), tier) for tier in tiers if tier.shared_key)
