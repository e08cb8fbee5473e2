"""The doctor: tries each exit and each account, and says what works, what does not, and what to do about it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from chat2api.accounts.health import judge
from chat2api.accounts.pool import Outcome
from chat2api.accounts.views import AccountView
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import (
    AccountRejectedError,
    ChallengedError,
    Chat2APIError,
    NotFoundError,
    StorageError,
    TransportError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)
from chat2api.gateway.sources import AccountSource
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.protocol.chatgpt.account import AccountInfo
from chat2api.storage.values import ANY_MODEL, Account, AccountFacts
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

LEAST_SPACE = 100 * 1024 * 1024
"""Free bytes below which the data folder's disk is a finding: the records, their log and a backup must fit."""

MOST_SKEW = 30.0
"""Seconds that the clocks may differ: tokens are renewed ten minutes early, signed addresses are stricter."""

REMEDIES: Mapping[str, str] = {
    "add_account": "Add one: chat2api tokens add - (README: how to get a token).",
    "free_or_restore": "Free space on the disk, or restore a backup.",
    "confirm_restored": "Import the newest tokens, then say so: chat2api tokens confirm-restored",
    "data_dir": "Make the folder that DATA_DIR names usable.",
    "free_space": "Free some space: tokens cannot be renewed on a full disk.",
    "set_clock": "Set the clock, best by a time service.",
    "see_ways": "See what the ways to the backend say.",
    "compiler": "Install a C compiler and Python's headers, then run `make setup` again.",
    "in_use": "It is in use or waits; try again in a moment.",
    "ask_owner": "Ask its owner, or remove it.",
    "workspace": "Add the token again with the id of a workspace it belongs to (`token,account-id`), or with none.",
    "other_exit": "Use another exit address (PROXY_URL), or wait; the backend distrusts this one.",
    "network": "Check the network, PROXY_URL and CHATGPT_BASE_URL.",
    "later": "Try again later; if it stays so, the backend has changed or refuses this account.",
    "trusted_proxies": "Set TRUSTED_PROXIES to the proxy's address, 127.0.0.1 if it runs on this machine.",
    "sign_in": "Sign in with a browser, get a new token and add it: chat2api tokens add -",
}
"""What to do, by a word of its own: pages say it in their reader's language. Advice with numbers or addresses in it is not
here."""

_NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, what was seen, and what to do if it is not."""

    subject: str
    ok: bool
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that can be examined by itself. `name` stands in paths: it holds nothing but [a-z0-9-]."""

    name: str
    subject: str
    run: Callable[[], Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a check found last, and when."""

    finding: Finding
    at: float


class Doctor:
    """Examines the pool, its ways to the backend, and what the server stands on."""

    def __init__(self, client: ChatGPTClient, source: AccountSource, clock: Clock, config: Config) -> None:
        """Examine that source of accounts, and what those settings say of the machine."""
        self._client = client
        self._source = source
        self._clock = clock
        self._config = config
        self.latest: dict[str, Examined] = {}
        """By check, what `run` found last; those that there are no more are forgotten."""

    def checks(self) -> list[Check]:
        """Give all that can be examined now; a pool without accounts is examined as `accounts`."""
        found = [
            Check("proof-of-work", "proof of work", self._examine_proof),
            Check("store", "records", self._examine_store),
            Check("disk", "disk", self._examine_disk),
            Check("clock", "clock", self._examine_clock),
        ]
        if self._config.public_origins:
            found.append(Check("reverse-proxy", "reverse proxy", self._examine_proxy))
        for number, (origin, proxy) in enumerate(self._ways(), 1):
            found.append(Check(f"way-{number}", _way(origin, proxy), self._exit_check(origin, proxy)))
        views = self._source.pool.views()
        found += [
            Check(f"account-{view.account.label}", f"account {view.account.label}", self._account_check(view))
            for view in views
        ]
        if not views:
            found.append(Check("accounts", "accounts", self._miss_accounts))
        return found

    async def run(self, name: str) -> Finding:
        """Run one check alone. Raises NotFoundError when there is none of that name."""
        for check in self.checks():
            if check.name == name:
                finding = await check.run()
                there = {check.name for check in self.checks()}
                self.latest = {old: seen for old, seen in self.latest.items() if old in there}
                self.latest[name] = Examined(finding, self._clock.now())
                return finding
        raise NotFoundError("There is no such check. GET /tokens/doctor lists them.", param="check")

    async def examine(self) -> AsyncIterator[Finding]:
        """Yield the findings one by one, as they are made; nothing is changed but what using accounts and exits changes."""
        for check in self.checks():
            yield await check.run()

    def _ways(self) -> list[tuple[str, str | None]]:
        return [(origin, proxy) for origin in self._source.origins for proxy in self._source.exits.all]

    def _exit_check(self, origin: str, proxy: str | None) -> Callable[[], Awaitable[Finding]]:
        return lambda: self._examine_exit(origin, proxy)

    def _account_check(self, view: AccountView) -> Callable[[], Awaitable[Finding]]:
        return lambda: self.examine_account(view)

    async def _miss_accounts(self) -> Finding:
        return Finding("accounts", False, "there are none", REMEDIES["add_account"])

    async def _examine_store(self) -> Finding:
        try:
            await self._source.records.check()
            restored = await self._source.records.restored()
        except StorageError as error:
            return Finding("records", False, error.message, REMEDIES["free_or_restore"])
        if restored:
            return Finding(
                "records",
                False,
                "they are an older copy, so no token is renewed",
                REMEDIES["confirm_restored"],
            )
        return Finding("records", True, "whole, and they can be written")

    async def _examine_disk(self) -> Finding:
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, self._config.data_dir)).free
        except OSError as error:
            return Finding("disk", False, error.strerror or "unreadable", REMEDIES["data_dir"])
        text = f"{free // (1024 * 1024):,} MiB are free"
        if free < LEAST_SPACE:
            return Finding("disk", False, text, REMEDIES["free_space"])
        return Finding("disk", True, text)

    async def _examine_proxy(self) -> Finding:
        if self._config.unnamed_proxy:
            text = "PUBLIC_ORIGINS says that there is one, TRUSTED_PROXIES does not name it: all callers seem to be one"
            return Finding("reverse proxy", False, text, REMEDIES["trusted_proxies"])
        named = bool(self._config.trusted_proxies)
        return Finding("reverse proxy", True, "named in TRUSTED_PROXIES" if named else "PUBLIC_ORIGINS needs none")

    async def _examine_clock(self) -> Finding:
        for origin, proxy in self._ways():
            try:
                skew = await self._client.clock_skew(_nobody(origin, proxy))
            except Chat2APIError:
                continue  # the ways have checks of their own
            if skew is None:
                continue
            if abs(skew) > MOST_SKEW:
                return Finding(
                    "clock",
                    False,
                    f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead'}",
                    REMEDIES["set_clock"],
                )
            return Finding("clock", True, f"within {MOST_SKEW:.0f} s of the backend's")
        return Finding("clock", False, "nobody told the time", REMEDIES["see_ways"])

    async def _examine_proof(self) -> Finding:
        name = proof_of_work.describe()
        if proof_of_work.variants()[0] != proof_of_work.PYTHON:
            return Finding("proof of work", True, name)
        return Finding("proof of work", False, name, REMEDIES["compiler"])

    async def _examine_exit(self, origin: str, proxy: str | None) -> Finding:
        subject = _way(origin, proxy)
        session = _nobody(origin, proxy)
        try:
            await self._client.check_reachable(session)
        except Chat2APIError as error:
            verdict = judge(error, model=ANY_MODEL)
            if verdict.exit_fault is not None:
                # It spares requests the same failure. That a page came says too little to end what made an exit rest.
                self._source.report(session, verdict)
            return Finding(subject, False, error.message, _advice(error))
        return Finding(subject, True, "reachable")

    async def examine_account(self, view: AccountView) -> Finding:
        """Use an account once: is it signed in, what does it offer?"""
        account = view.account
        subject = f"account {account.label}"
        if not account.usable:
            text = f"{account.state}: {account.reason or 'no reason known'}"
            return Finding(subject, False, text, view.advice or REMEDIES["sign_in"])
        if view.waits:
            longest = view.waits[-1].seconds
            return Finding(
                subject,
                False,
                f"waits for {', '.join(sorted(wait.model for wait in view.waits))}",
                f"It is used again in {longest:.0f} s at most.",
            )
        try:
            lease = await self._source.pool.lease(model="doctor", account_id=account.id, errand=True)
        except Chat2APIError as error:
            return Finding(subject, False, error.message, REMEDIES["in_use"])
        outcome: Outcome | Exception = Outcome.ABANDONED
        session: Session | None = None
        try:
            session = await self._source.open_session(lease, workspace=None)
            offered = await self._client.models(session)
            info = await self._client.account_info(session, account.workspace)
            outcome = Outcome.SERVED
        except Chat2APIError as error:
            outcome = error
            advice = _advice(error) if session is not None else self._sign_in_advice(error, account)
            return Finding(subject, False, error.message, advice)
        finally:
            verdict = await lease.release(outcome)
            if session is not None:
                self._source.report(session, verdict if outcome is not Outcome.ABANDONED else None)
        if info is not None and info.is_deactivated:
            return Finding(subject, False, "the backend has closed this workspace", REMEDIES["ask_owner"])
        await self._remember(account, info, tuple(model.slug for model in offered))
        known_plan = (info.plan if info is not None else None) or account.plan
        plan = f"plan {known_plan}, " if known_plan else ""
        return Finding(subject, True, f"{plan}signed in, {len(offered)} models offered")

    def _sign_in_advice(self, error: Chat2APIError, account: Account) -> str:
        """Say what to do about a token that could not be renewed, and where that was tried."""
        if not isinstance(error, TransportError | UpstreamTimeoutError | UpstreamProtocolError | UpstreamServerError):
            return _advice(error)
        if account.kind == "session":
            return f"Check the network, PROXY_URL and CHATGPT_BASE_URL ({self._source.origins[0]}/api/auth/session)."
        return f"Check the network, PROXY_URL and OPENAI_AUTH_TOKEN_URL ({self._source.token_url})."

    async def _remember(self, account: Account, info: AccountInfo | None, models: tuple[str, ...]) -> None:
        """Keep what the backend told, for the pages; trouble with the records is a finding of its own."""
        facts = AccountFacts(models=models)
        if info is not None:
            facts = AccountFacts(plan=info.plan, models=models, capabilities=info.features)
        try:
            changed = await self._source.records.put_facts(account.id, facts, self._clock.now())
        except StorageError:
            return
        if changed is not None:
            self._source.pool.put(changed)


def _advice(error: Chat2APIError) -> str:
    match error:
        case AccountRejectedError():
            return REMEDIES["sign_in"]
        case WorkspaceRefusedError():
            return REMEDIES["workspace"]
        case ChallengedError():
            return REMEDIES["other_exit"]
        case TransportError() | UpstreamTimeoutError():
            return REMEDIES["network"]
        case _:
            return REMEDIES["later"]


def _nobody(origin: str, proxy: str | None) -> Session:
    return Session(f"doctor {proxy}", _NOBODY, origin, proxy, credential="anonymous")


def _way(origin: str, proxy: str | None) -> str:
    return f"{origin} {'directly' if proxy is None else 'through ' + _shown(proxy)}"


def _shown(proxy: str) -> str:
    """Give a proxy without its credentials."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
