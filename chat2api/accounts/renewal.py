"""When tokens are renewed without anybody asking: ahead of their end, and all of them every fourth day.

Renewals of a pass stand some seconds apart, each by a little chance more: a server that sees a hundred sign-ins in one
second takes them for an attack.
"""

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

from chat2api.accounts.refresh import TokenKeeper
from chat2api.clock import Clock
from chat2api.errors import Chat2APIError
from chat2api.storage.records import Records
from chat2api.storage.values import Account

log = logging.getLogger(__name__)

GAP_SECONDS = 2.0
"""Between two accounts of a pass over all."""

REFRESH_DAYS = 4
REFRESH_AT = time(15, 0)
"""When SCHEDULED_REFRESH renews all tokens: every fourth day at this local time."""

_LAST_RUN = "scheduled_refresh_at"

CLOCK_ERROR = 2 * 24 * 3600.0
"""A last run that lies further ahead than this was noted by a wrong clock."""

AHEAD = (0.05, 0.1)
"""How long before its end a token is renewed, as shares of its life: each account has its own place between."""

AGAIN_SECONDS = 600.0
"""After a try ahead of the end, the next one for the same account; what fails now is not urgent yet."""


@dataclass(frozen=True, slots=True)
class RefreshTally:
    """How a pass over all accounts went; those that needed nothing are not counted."""

    renewed: int
    failed: int


def next_run(last_run_at: float, now: float, zone: tzinfo | None = None) -> float:
    """Give when SCHEDULED_REFRESH is due: 15:00 local on the fourth day after the last run, or now if that is past.

    `zone` None means the machine's own. Runs that were missed collapse into one.
    """
    last = datetime.fromtimestamp(last_run_at, zone)
    due = datetime.combine(last.date() + timedelta(days=REFRESH_DAYS), REFRESH_AT, zone)
    return max(due.timestamp(), now)


class Renewals:
    """Renews the pool's tokens in passes. A timetable calls its passes, one at a time over all replicas."""

    def __init__(
        self, keeper: TokenKeeper, records: Records, clock: Clock, rng: random.Random, zone: tzinfo | None = None
    ) -> None:
        """Renew by that keeper; `zone` None means the machine's own."""
        self._keeper = keeper
        self._records = records
        self._clock = clock
        self._rng = rng
        self._zone = zone
        self._begun = False
        self._tried: dict[str, float] = {}

    async def renew_all(self, *, force: bool) -> RefreshTally:
        """Renew the pool's tokens, without `force` only those that need it, and give how that went.

        Accounts that wait for the operator are left alone.
        """
        due = [one for one in await self._renewable() if force or not await self._keeper.is_fresh(one)]
        return await self._renew(due)

    async def renew_ahead(self) -> RefreshTally:
        """Renew the tokens that end soon, whether or not their accounts wait; those in doubt are left alone."""
        now = self._clock.monotonic()
        due = []
        for account in await self._renewable():
            tried_at = self._tried.get(account.id)
            if account.state == "in_doubt" or (tried_at is not None and now - tried_at < AGAIN_SECONDS):
                continue
            life = await self._keeper.life(account)
            if life is not None and self._clock.now() >= renewal_at(account.id, *life):
                due.append(account)
        for account in due:
            self._tried[account.id] = now
        return await self._renew(due)

    async def tick(self) -> bool:
        """Do what SCHEDULED_REFRESH asks for now: at the start what needs it, later everything on its day.

        Tell whether everything was renewed. Call it every minute or so.
        """
        if not self._begun:
            await self.begin()
            self._begun = True
        return await self.run_if_due()

    async def begin(self) -> None:
        """Renew what needs it. The first start of all begins the count of days."""
        if await self._records.get_meta(_LAST_RUN) is None:
            await self._records.set_meta(_LAST_RUN, str(self._clock.now()))
        await self.renew_all(force=False)

    async def due_at(self) -> float:
        """Give when the next full run is due."""
        now = self._clock.now()
        last = await self._records.get_meta(_LAST_RUN)
        return next_run(float(last) if last is not None else now, now, self._zone)

    async def run_if_due(self) -> bool:
        """Renew everything if it is time; tell whether it was. The run counts from its beginning."""
        now = self._clock.now()
        last = await self._records.get_meta(_LAST_RUN)
        if last is None or float(last) > now + CLOCK_ERROR:
            # The clock was wrong when that was noted: the days are counted anew.
            await self._records.set_meta(_LAST_RUN, str(now))
            return False
        if await self.due_at() > now:
            return False
        await self._records.set_meta(_LAST_RUN, str(now))
        await self.renew_all(force=True)
        return True

    async def _renewable(self) -> Sequence[Account]:
        return [
            account
            for account in (await self._records.changes()).accounts
            if account.owner is None and account.kind in ("refresh", "session") and account.usable
        ]

    async def _renew(self, accounts: Sequence[Account]) -> RefreshTally:
        renewed = failed = 0
        for account in accounts:
            if renewed + failed:
                await self._clock.sleep(GAP_SECONDS * (1 + 0.1 * self._rng.random()))
            try:
                await self._keeper.renew(account)
                renewed += 1
            except Chat2APIError as error:
                log.warning("account %s was not renewed: %s", account.label, error)
                failed += 1
        return RefreshTally(renewed, failed)


def renewal_at(account_id: str, issued_at: float, expires_at: float) -> float:
    """Give when a token is renewed ahead of its end; accounts added together do not come due together."""
    digest = hashlib.blake2b(account_id.encode(), digest_size=4).digest()
    least, most = AHEAD
    share = least + (most - least) * int.from_bytes(digest, "big") / 2**32
    return expires_at - share * max(expires_at - issued_at, 0.0)
