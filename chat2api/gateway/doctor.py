"""The doctor: tries each exit and each account, and says what works, what does not, and what to do about it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from chat2api.accounts.pool import AccountView, Outcome
from chat2api.errors import AccountRejectedError, ChallengedError, Chat2APIError, TransportError, UpstreamTimeoutError
from chat2api.gateway.sources import AccountSource
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

_NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, what was seen, and what to do if it is not."""

    subject: str
    ok: bool
    text: str
    advice: str = ""


class Doctor:
    """Examines the pool and its ways to the backend."""

    def __init__(self, client: ChatGPTClient, source: AccountSource) -> None:
        """Examine that source of accounts."""
        self._client = client
        self._source = source

    async def examine(self) -> AsyncIterator[Finding]:
        """Yield the findings one by one, as they are made; nothing is changed but what using an account changes."""
        yield self._examine_proof()
        for origin in self._source.origins:
            for proxy in self._source.exits.all:
                yield await self._examine_exit(origin, proxy)
        views = self._source.pool.views()
        if not views:
            yield Finding(
                "accounts", False, "there are none", "Add one: chat2api tokens add - (README: how to get a token)."
            )
        for view in views:
            yield await self._examine_account(view)

    def _examine_proof(self) -> Finding:
        name = proof_of_work.describe()
        if proof_of_work.variants()[0] != proof_of_work.PYTHON:
            return Finding("proof of work", True, name)
        return Finding(
            "proof of work", False, name, "Install a C compiler and Python's headers, then run `make setup` again."
        )

    async def _examine_exit(self, origin: str, proxy: str | None) -> Finding:
        subject = f"{origin} {'directly' if proxy is None else 'through ' + _shown(proxy)}"
        session = Session(f"doctor {proxy}", _NOBODY, origin, proxy, credential="anonymous")
        try:
            await self._client.check_reachable(session)
        except Chat2APIError as error:
            return Finding(subject, False, error.message, _advice(error))
        return Finding(subject, True, "reachable")

    async def _examine_account(self, view: AccountView) -> Finding:
        account = view.account
        subject = f"account {account.label}"
        if not account.usable:
            return Finding(subject, False, f"{account.state}: {account.reason or 'no reason known'}", _SIGN_IN)
        if view.waits:
            longest = max(view.waits.values())
            return Finding(
                subject,
                False,
                f"waits for {', '.join(sorted(view.waits))}",
                f"It is used again in {longest:.0f} s at most.",
            )
        lease = await self._source.pool.lease(model="doctor", account_id=account.id)
        outcome: Outcome | Exception = Outcome.ABANDONED
        try:
            session = await self._source.open_session(lease, workspace=None)
            offered = await self._client.models(session)
            outcome = Outcome.SERVED
        except Chat2APIError as error:
            outcome = error
            return Finding(subject, False, error.message, _advice(error))
        finally:
            await lease.release(outcome)
        plan = f"plan {account.plan}, " if account.plan else ""
        return Finding(subject, True, f"{plan}signed in, {len(offered)} models offered")


_SIGN_IN = "Sign in with a browser, get a new token and add it: chat2api tokens add -"


def _advice(error: Chat2APIError) -> str:
    match error:
        case AccountRejectedError():
            return _SIGN_IN
        case ChallengedError():
            return "Use another exit address (PROXY_URL), or wait; the backend distrusts this one."
        case TransportError() | UpstreamTimeoutError():
            return "Check the network, PROXY_URL and CHATGPT_BASE_URL."
        case _:
            return "Try again later; if it stays so, the backend has changed or refuses this account."


def _shown(proxy: str) -> str:
    """Give a proxy without its credentials."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
