"""The doctor: tries each exit and each account, and says what works, what does not, and what to do about it."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from chat2api.accounts.health import judge
from chat2api.accounts.pool import Outcome
from chat2api.accounts.views import AccountView, error_code
from chat2api.clock import Clock
from chat2api.config import Config
from chat2api.errors import (
    AccountRejectedError,
    AnonymousUnavailableError,
    ChallengedError,
    Chat2APIError,
    NotFoundError,
    StorageError,
    TransportError,
    UpstreamProtocolError,
    UpstreamRefusedRequestError,
    UpstreamServerError,
    UpstreamTimeoutError,
    WorkspaceRefusedError,
)
from chat2api.gateway.sources import AccountSource
from chat2api.keys.tier_book import OFF
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.protocol.chatgpt.account import AccountInfo
from chat2api.sentences import Phrases, Sentence, words_of_error
from chat2api.storage.values import ANY_MODEL, Account, AccountFacts
from chat2api.upstream.chatgpt.client import ChatGPTClient
from chat2api.upstream.chatgpt.session import Session

LEAST_SPACE = 100 * 1024 * 1024
"""Free bytes below which the data folder's disk is a finding: the records, their log and a backup must fit."""

MOST_SKEW = 30.0
"""Seconds that the clocks may differ: tokens are renewed ten minutes early, signed addresses are stricter."""

SAY = Phrases(
    "finding",
    {
        "no_accounts": "there are none",
        "not_needed": "not examined: there is no account, and API keys answer",
        "free_offered": "offered to this address, {count} models",
        "store_memory": "in memory, they end with the server",
        "store_restored": "they are an older copy, so no token is renewed",
        "store_whole": "whole, and they can be written",
        "disk_free": "{amount} MiB are free",
        "disk_unreadable": "unreadable",
        "proxy_unnamed": "PUBLIC_ORIGINS says that there is one, TRUSTED_PROXIES does not name it: all callers seem to be one",
        "proxy_named": "named in TRUSTED_PROXIES",
        "proxy_none": "PUBLIC_ORIGINS needs none",
        "clock_behind": "this machine's clock is {seconds} s behind",
        "clock_ahead": "this machine's clock is {seconds} s ahead",
        "clock_right": "within {seconds} s of the backend's",
        "clock_unknown": "nobody told the time",
        "proof": "{way}",
        "reachable": "reachable",
        "way_direct": "{origin} directly",
        "way_through": "{origin} through {proxy}",
        "state": "{state}: {reason}",
        "no_reason": "no reason known",
        "waits_all": "waits for all models",
        "waits": "waits for {models}",
        "workspace_closed": "the backend has closed this workspace",
        "signed_in": "signed in, {count} models offered",
        "signed_in_plan": "plan {plan}, signed in, {count} models offered",
        "key_lists": "the API accepts it and lists {count} models",
        "key_refused": "the API refuses it",
        "key_lists_nothing": "the API accepts it, but it may not list models",
        "not_an_api": "it answers with status {status}, not as an API does",
        "not_chatgpt": "it answers, but not as ChatGPT does",
    },
)
"""What was seen."""

REMEDY = Phrases(
    "remedy",
    {
        "add_account": "Add one: chat2api tokens add - (README: how to get a token).",
        "add_on_page": "With DATA_DIR=none accounts are known to the running server alone: add and examine them on its pages.",
        "free_or_restore": "Free space on the disk, or restore a backup.",
        "confirm_restored": "Import the newest tokens, revoke again the keys that were revoked since, then say so: "
        "chat2api tokens confirm-restored",
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
        "proxy": "Check the proxy that PROXY_URL names.",
        "trust": "Check CHATGPT_BASE_URL, and UPSTREAM_CA_FILE where a proxy or gateway has a certificate of its own.",
        "base": "Check CHATGPT_BASE_URL, and AUTH_KEY if that is a gateway.",
        "later": "Try again later; if it stays so, the backend has changed or refuses this account.",
        "trusted_proxies": "Set TRUSTED_PROXIES to the proxy's address, 127.0.0.1 if it runs on this machine.",
        "sign_in": "Sign in with a browser, get a new token and add it: chat2api tokens add -",
        "wait": "It is used again in {seconds} s at most.",
        "session_network": "Check the network, PROXY_URL and CHATGPT_BASE_URL ({address}).",
        "api_network": "Check the network, PROXY_URL and OPENAI_BASE_URL.",
        "api_base": "Check OPENAI_BASE_URL: mostly it ends with /v1.",
        "api_key": "Set another key in OPENAI_API_KEYS and start the server again. If this one is good again, let the doctor's "
        "page examine it.",
        "api_credit": "See the key's credit and limits where it was made. It is tried again by itself.",
        "api_wait": "Nothing needs to be done: it is used again when its wait ends.",
        "api_rights": "It may not do all that was asked of it. Give it that right where it was made, or route by MODEL_ROUTES.",
        "api_later": "Try again later; if it stays so, see what the API's own pages say of this key.",
        "token_network": "Check the network, PROXY_URL and OPENAI_AUTH_TOKEN_URL ({address}).",
    },
)
"""What to do."""

_NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, what was seen, and what to do if it is not.

    What is seen and advised is a Sentence, so that pages say it in their reader's language.
    """

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

    def __init__(
        self,
        client: ChatGPTClient,
        source: AccountSource,
        clock: Clock,
        config: Config,
        *,
        more: "Callable[[], list[Check]]" = list,
    ) -> None:
        """Examine that source of accounts, what those settings say of the machine, and what `more` gives."""
        self._client = client
        self._source = source
        self._clock = clock
        self._config = config
        self._more = more
        self.latest: dict[str, Examined] = {}
        """By check, what `run` found last; those that there are no more are forgotten."""

    def checks(self) -> list[Check]:
        """Give all that can be examined now.

        What ChatGPT is needed for is left out, and that is told, while there is no account and others can answer. A pool
        without accounts is examined as `accounts`, or as `sign-in-free` where that is what everybody may use.
        """
        others, views = self._more(), self._source.pool.views()
        needed = bool(views) or not others
        found = [Check("proof-of-work", "proof of work", self._examine_proof)] if needed else []
        found.append(Check("store", "records", self._examine_store))
        if not self._config.diskless:
            found.append(Check("disk", "disk", self._examine_disk))
        if needed:
            found.append(Check("clock", "clock", self._examine_clock))
        if self._config.public_origins:
            found.append(Check("reverse-proxy", "reverse proxy", self._examine_proxy))
        if needed:
            found += [
                Check(f"way-{number}", say_way(*way), self._exit_check(*way))
                for number, way in enumerate(self._ways(), 1)
            ]
        else:
            found.append(Check("chatgpt", "ChatGPT", self._leave_out))
        found += others
        found += [
            Check(f"account-{view.account.label}", f"account {view.account.label}", self._account_check(view))
            for view in views
        ]
        if not views and not others:
            if self._config.public_mode != OFF:
                found.append(Check("sign-in-free", "sign-in-free chat", self._examine_free))
            else:
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
        remedy = REMEDY("add_on_page" if self._config.diskless else "add_account")
        return Finding("accounts", False, SAY("no_accounts"), remedy)

    async def _leave_out(self) -> Finding:
        return Finding("ChatGPT", True, SAY("not_needed"))

    async def _examine_free(self) -> Finding:
        subject = "sign-in-free chat"
        try:
            offered = await self._client.models(_nobody(*self._ways()[0]))
        except Chat2APIError as error:
            return Finding(subject, False, say_error(error), _advice(error))
        return Finding(subject, True, SAY("free_offered", count=len(offered)))

    async def _examine_store(self) -> Finding:
        try:
            await self._source.records.check()
            restored = await self._source.records.restored()
        except StorageError as error:
            return Finding("records", False, say_error(error), REMEDY("free_or_restore"))
        if restored:
            return Finding(
                "records",
                False,
                SAY("store_restored"),
                REMEDY("confirm_restored"),
            )
        return Finding("records", True, SAY("store_memory" if self._config.diskless else "store_whole"))

    async def _examine_disk(self) -> Finding:
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, self._config.data_dir)).free
        except OSError as error:
            return Finding("disk", False, error.strerror or SAY("disk_unreadable"), REMEDY("data_dir"))
        text = SAY("disk_free", amount=f"{free // (1024 * 1024):,}")
        if free < LEAST_SPACE:
            return Finding("disk", False, text, REMEDY("free_space"))
        return Finding("disk", True, text)

    async def _examine_proxy(self) -> Finding:
        if self._config.unnamed_proxy:
            return Finding("reverse proxy", False, SAY("proxy_unnamed"), REMEDY("trusted_proxies"))
        return Finding("reverse proxy", True, SAY("proxy_named" if self._config.trusted_proxies else "proxy_none"))

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
                    SAY("clock_behind" if skew > 0 else "clock_ahead", seconds=round(abs(skew))),
                    REMEDY("set_clock"),
                )
            return Finding("clock", True, SAY("clock_right", seconds=round(MOST_SKEW)))
        return Finding("clock", False, SAY("clock_unknown"), REMEDY("see_ways"))

    async def _examine_proof(self) -> Finding:
        name = proof_of_work.describe()
        if proof_of_work.variants()[0] != proof_of_work.PYTHON:
            return Finding("proof of work", True, SAY("proof", way=name))
        return Finding("proof of work", False, SAY("proof", way=name), REMEDY("compiler"))

    async def _examine_exit(self, origin: str, proxy: str | None) -> Finding:
        subject = say_way(origin, proxy)
        session = _nobody(origin, proxy)
        try:
            await self._client.check_reachable(session)
        except Chat2APIError as error:
            verdict = judge(error, model=ANY_MODEL)
            if verdict.exit_fault is not None:
                # It spares requests the same failure. That a page came says too little to end what made an exit rest.
                self._source.report(session, verdict)
            if isinstance(error, AnonymousUnavailableError | UpstreamRefusedRequestError | UpstreamProtocolError):
                return Finding(subject, False, SAY("not_chatgpt"), REMEDY("base"))
            return Finding(subject, False, say_error(error), _advice(error))
        return Finding(subject, True, SAY("reachable"))

    async def examine_account(self, view: AccountView) -> Finding:
        """Use an account once: is it signed in, what does it offer?"""
        account = view.account
        subject = f"account {account.label}"
        if not account.usable:
            text = SAY(
                "state",
                state=Sentence(account.state, f"state.{account.state}", {}),
                reason=Sentence(account.reason, f"reason.{account.reason}", {}) if account.reason else SAY("no_reason"),
            )
            return Finding(subject, False, text, view.advice or REMEDY("sign_in"))
        if view.waits:
            longest = view.waits[-1].seconds
            return Finding(
                subject,
                False,
                SAY("waits_all")
                if view.until_at is not None
                else SAY("waits", models=", ".join(sorted(wait.model for wait in view.waits))),
                REMEDY("wait", seconds=round(longest)),
            )
        try:
            lease = await self._source.pool.lease(model="doctor", account_id=account.id, errand=True)
        except Chat2APIError as error:
            return Finding(subject, False, say_error(error), REMEDY("in_use"))
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
            return Finding(subject, False, say_error(error), advice)
        finally:
            await self._source.free(lease, session, outcome)
        if info is not None and info.is_deactivated:
            return Finding(subject, False, SAY("workspace_closed"), REMEDY("ask_owner"))
        await self._remember(account, info, tuple(model.slug for model in offered))
        known_plan = (info.plan if info is not None else None) or account.plan
        if known_plan:
            return Finding(subject, True, SAY("signed_in_plan", plan=known_plan, count=len(offered)))
        return Finding(subject, True, SAY("signed_in", count=len(offered)))

    def _sign_in_advice(self, error: Chat2APIError, account: Account) -> str:
        """Say what to do about a token that could not be renewed, and where that was tried."""
        if not isinstance(error, TransportError | UpstreamTimeoutError | UpstreamProtocolError | UpstreamServerError):
            return _advice(error)
        if account.kind == "session":
            return REMEDY("session_network", address=f"{self._source.origins[0]}/api/auth/session")
        return REMEDY("token_network", address=self._source.token_url)

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


def say_error(error: Chat2APIError) -> Sentence:
    """Say what went wrong."""
    return words_of_error(error.message, error_code(error) or error.code)


def _advice(error: Chat2APIError) -> str:
    match error:
        case AccountRejectedError():
            return REMEDY("sign_in")
        case WorkspaceRefusedError():
            return REMEDY("workspace")
        case ChallengedError() | AnonymousUnavailableError():
            return REMEDY("other_exit")
        case TransportError(phase="proxy"):
            return REMEDY("proxy")
        case TransportError(phase="tls"):
            return REMEDY("trust")
        case TransportError() | UpstreamTimeoutError():
            return REMEDY("network")
        case _:
            return REMEDY("later")


def _nobody(origin: str, proxy: str | None) -> Session:
    return Session(f"doctor {proxy}", _NOBODY, origin, proxy, credential="anonymous")


def say_way(origin: str, proxy: str | None) -> Sentence:
    """Name a way to a server, by an exit or directly."""
    return SAY("way_direct", origin=origin) if proxy is None else SAY("way_through", origin=origin, proxy=_shown(proxy))


def _shown(proxy: str) -> str:
    """Give a proxy without its credentials."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
