"""`ApiObjects`: whose the objects are that the API made for callers by the operator's keys.

Files and responses are written down before their caller learns their ids. The items of an answer are told in the middle of
its stream, which waits for nothing: they count at once, and what came together within half a second is written in one go.
So `kill -9` may make items unknown that are younger than that; an orderly stop loses nothing.
"""

import logging
from collections.abc import Collection, Iterable
from itertools import islice

from chat2api.clock import Clock
from chat2api.errors import StorageError
from chat2api.keys.ledger import Spawn
from chat2api.storage.api_objects import ApiObject, ApiObjectRecords, ObjectKind

log = logging.getLogger(__name__)

WRITE_SECONDS = 0.5

MAX_UNWRITTEN = 20_000
"""Items that are held while the records cannot be written; of more, the oldest are dropped."""


class ApiObjects:
    """Objects by their owners. `aclose` it in the end."""

    def __init__(self, records: ApiObjectRecords, clock: Clock, spawn: Spawn) -> None:
        """Keep them in these records, written by tasks that `spawn` starts."""
        self._records = records
        self._clock = clock
        self._spawn = spawn
        self._unwritten: dict[str, ApiObject] = {}
        self._writing = False

    def note(self, made: Iterable[ApiObject]) -> None:
        """Take items of an answer that is on its way: they are found from now on, and written soon."""
        for one in made:
            self._unwritten.setdefault(one.id, one)
        if (over := len(self._unwritten) - MAX_UNWRITTEN) > 0:
            for identifier in list(islice(self._unwritten, over)):
                del self._unwritten[identifier]
        if self._unwritten and not self._writing:
            self._writing = True
            self._spawn(self._write_soon(), "items of answers")

    async def keep(self, made: ApiObject) -> None:
        """Store a file or response. Raises StorageError."""
        await self._records.put([made])

    async def find(self, identifiers: Collection[str]) -> dict[str, ApiObject]:
        """Give whose these are, as far as they are known, by id. Raises StorageError."""
        unwritten = {one: self._unwritten[one] for one in identifiers if one in self._unwritten}
        known = {one.id: one for one in await self._records.find(identifiers)} if identifiers else {}
        return unwritten | known

    async def of(self, owner: str, kind: ObjectKind) -> list[ApiObject]:
        """Give what is kept of an owner's objects, the newest first. Raises StorageError."""
        return await self._records.of(owner, kind)

    async def forget(self, identifier: str) -> None:
        """Forget an object; an unknown one is no error. Raises StorageError."""
        await self._records.forget(identifier)

    async def aclose(self) -> None:
        """Write what is not written yet; trouble with the records is logged, not raised."""
        await self._write()

    async def _write_soon(self) -> None:
        try:
            while self._unwritten:
                await self._clock.sleep(WRITE_SECONDS)
                await self._write()
        finally:
            self._writing = False

    async def _write(self) -> None:
        """Write all; what cannot be written is kept for the next time."""
        written = list(self._unwritten.values())
        if not written:
            return
        try:
            await self._records.put(written)
        except StorageError as error:
            log.warning("cannot keep whose %d items are: %s", len(written), error)
            return
        for one in written:
            if self._unwritten.get(one.id) is one:
                del self._unwritten[one.id]
