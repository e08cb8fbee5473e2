"""Checkups: what is known of accounts is asked again now and then, and accounts under suspicion get their probe.

A look costs two short calls and no answer. It tells the plan, the models and the features of an account; that it was
answered well makes a suspect account a trusted one, without waiting for somebody's request to be the probe.
"""

import logging
import random

from chat2api.accounts.pool import Outcome
from chat2api.accounts.renewal import GAP_SECONDS
from chat2api.accounts.views import AccountView
from chat2api.clock import Clock
from chat2api.errors import AccountRejectedError, Chat2APIError, UpstreamError
from chat2api.gateway.sources import AccountSource
from chat2api.protocol.chatgpt.workspaces import choose_workspace, known_names
from chat2api.storage.values import Account, AccountFacts
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

log = logging.getLogger(__name__)

FACTS_SECONDS = 24 * 3600.0
"""How old what the backend told may become while an account is in use."""

LOOKS_AT_ONCE = 100
"""Accounts looked at in one pass; the others have their turn in the next."""


class Checkups:
    """Looks after one source of accounts. A timetable calls `pass_over`."""

    def __init__(self, client: ChatGPTClient, source: AccountSource, clock: Clock, rng: random.Random) -> None:
        """Look through that client."""
        self._client = client
        self._source = source
        self._clock = clock
        self._rng = rng

    async def pass_over(self) -> int:
        """Look at the accounts that need it, one after the other; give how many answered well."""
        now = self._clock.now()
        due = [view for view in self._source.pool.views() if _needs_look(view, now)]
        due.sort(key=lambda view: (view.account.state != "suspect", view.account.facts_at or 0.0))
        well = 0
        for number, view in enumerate(due[:LOOKS_AT_ONCE]):
            if number:
                await self._clock.sleep(GAP_SECONDS * (1 + 0.1 * self._rng.random()))
            try:
                await self.look(view.account.id)
                well += 1
            except Chat2APIError as error:
                log.info("account %s did not answer its checkup: %s", view.account.label, error)
        return well

    async def look(self, account_id: str, *, probe: bool = False) -> Account | None:
        """Ask the backend for an account's plan, models and features, keep them, and give the account.

        `probe` is the operator's own wish: it waits for nothing but what the backend stated. Raises the UpstreamError
        that the backend answered with, NoAccountError, AllAccountsCoolingError while it waits, StorageError.
        """
        pool = self._source.pool
        lease = await pool.lease(model="models", account_id=account_id, errand=not probe, probe=probe)
        outcome: Outcome | Exception = Outcome.ABANDONED
        session: Session | None = None
        try:
            session = await self._source.open_session(lease, workspace=None)
            workspaces = await self._client.workspaces(session)
            if workspaces and all(one.deactivated for one in workspaces):
                raise AccountRejectedError("The backend has closed this account.", reason="account_deactivated")
            models = await self._client.models(session)
            outcome = Outcome.SERVED
        except UpstreamError as error:
            outcome = error
            raise
        finally:
            await self._source.free(lease, session, outcome)
        own = choose_workspace(workspaces, lease.account.workspace)
        facts = AccountFacts(
            plan=own.plan if own is not None else None,
            models=known_names([model.slug for model in models]),
            capabilities=own.features if own is not None else None,
        )
        account = await self._source.records.put_facts(account_id, facts, self._clock.now())
        if account is not None:
            pool.put(account)
        return account


def _needs_look(view: AccountView, now: float) -> bool:
    account = view.account
    if account.kind == "device" or not account.usable or view.until_at is not None:
        return False
    if account.state == "suspect":
        return view.in_flight == 0  # else a request is its probe
    if account.facts_at is None:
        return True
    used = view.last_used_at is not None and view.last_used_at > account.facts_at
    return used and now - account.facts_at >= FACTS_SECONDS
