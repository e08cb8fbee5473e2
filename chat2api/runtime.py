"""Runtime: owns every long-lived part, opens them in order and closes them in reverse."""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from chat2api.accounts.editing import AccountEditor
from chat2api.accounts.exchange import RefreshAnswer
from chat2api.accounts.exits import Exits
from chat2api.accounts.health import ExitFault, judge
from chat2api.accounts.key_records import KeyPoolRecords
from chat2api.accounts.pastes import Pastes
from chat2api.accounts.pool import AccountPool
from chat2api.accounts.refresh import TokenKeeper
from chat2api.accounts.renewal import Renewals
from chat2api.accounts.timetable import Timetable
from chat2api.accounts.tokens import to_credential, to_new_account
from chat2api.clock import Clock, SystemClock
from chat2api.config import Config
from chat2api.errors import Chat2APIError, DrainingError, InvalidAPIKeyError, StorageError, UpstreamError
from chat2api.gateway.account_care import AccountCare, CareParts
from chat2api.gateway.api_objects import ApiObjects
from chat2api.gateway.chatgpt import ChatGPTProvider
from chat2api.gateway.checkups import Checkups
from chat2api.gateway.conversations import Conversations
from chat2api.gateway.doctor import Doctor
from chat2api.gateway.jobs import Jobs
from chat2api.gateway.key_doctor import KeyDoctor
from chat2api.gateway.offers import Offers
from chat2api.gateway.openai import ApiKey, OpenAIProvider
from chat2api.gateway.provider import Provider
from chat2api.gateway.routing import Routing, parse_rules
from chat2api.gateway.sources import AccountSource, Sources, host_of, stable_order
from chat2api.keys.digests import find_digest, secret_digest
from chat2api.keys.guesses import Guesses
from chat2api.keys.invitations import Invitations
from chat2api.keys.issue import KeyRing
from chat2api.keys.ledger import WRITE, Ledger
from chat2api.keys.operator import OperatorKeys, load_operator_key
from chat2api.keys.password import Password, SlowDigests
from chat2api.keys.quota import Quotas
from chat2api.keys.scope import AccountScopes
from chat2api.keys.tier_book import TierBook
from chat2api.keys.tier_quota import TierQuotas
from chat2api.keys.users import LocalUsers
from chat2api.logs import Redactor
from chat2api.protocol.chatgpt.drift import DriftWatch
from chat2api.protocol.chatgpt.proof_of_work import PYTHON, variants
from chat2api.protocol.openai.usage import load_tokenizer
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.folder_use import ServerPlace
from chat2api.storage.keys import IssuedKey
from chat2api.storage.quotas import MemoryQuotas
from chat2api.storage.records import Records
from chat2api.storage.shared import MemoryShared, SharedState
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.usage import day_of
from chat2api.storage.values import ANY_MODEL, TOMBSTONE_SECONDS, Account
from chat2api.upstream.alarms import Alarms
from chat2api.upstream.chatgpt.calls import BackendCalls, CallSettings
from chat2api.upstream.chatgpt.client import ChatGPTClient, ClientSettings
from chat2api.upstream.chatgpt.requirements import RequirementsExchange
from chat2api.upstream.chatgpt.solver import ProofSolver
from chat2api.upstream.chatgpt.tokens import TokenExchange
from chat2api.upstream.counting import CountedTransport
from chat2api.upstream.openai import OpenAIClient
from chat2api.upstream.profiles import profile_for
from chat2api.upstream.transport import Channel, CurlTransport

log = logging.getLogger(__name__)

OPERATOR_KEY_POLL = 1.0
"""How soon a key that another process made is used, in seconds."""

BEGIN_ANEW_SECONDS = 5.0
"""How long background work rests that failed in a way that nobody thought of."""

VISITORS_KEPT = 1000
VISITORS_SECONDS = 3600.0, 10 * 24 * 3600.0
"""How many accounts of AccessTokens that callers bring are kept for as long as such tokens last, the others for an hour."""

_ERASED_AT_ONCE = 200
"""Visitors removed in one transaction, which others wait for."""

_REFRESH = "refresh "
"""Begins the names of tasks that are never cancelled: a token that was sent must be stored (3.4)."""

T = TypeVar("T")


class Interruptible(Protocol):
    """An answer that can be ended with an error."""

    def interrupt(self, error: Chat2APIError) -> None:
        """End it; what has arrived is still given first."""
        ...


class Demo:
    """The demo: a simulator in this process, an account at it, and a key that opens it for this run alone."""

    def __init__(self, simulator: Simulator) -> None:
        """Make a key for that simulator."""
        self.simulator = simulator
        self.key = "demo-" + secrets.token_urlsafe(24)
        self._digest = secret_digest(self.key)

    def key_matches(self, bearer: str) -> bool:
        """Whether the bearer is the demo key."""
        return find_digest(secret_digest(bearer), (self._digest,)) is not None


class Runtime:
    """All long-lived parts of one server. `open` makes it; `aclose` ends it."""

    config: Config
    clock: Clock
    records: Records
    shared: SharedState
    pool: AccountPool
    keeper: TokenKeeper
    editor: AccountEditor
    transport: CountedTransport
    client: ChatGPTClient
    provider: Provider
    openai: OpenAIProvider
    api_objects: ApiObjects
    routing: Routing
    conversations: Conversations
    sources: Sources
    doctor: Doctor
    jobs: Jobs
    care: AccountCare
    operator_keys: OperatorKeys
    keys: KeyRing
    key_accounts: AccountScopes
    quotas: Quotas
    ledger: Ledger
    password: Password | None
    digests: SlowDigests
    users: LocalUsers
    guesses: Guesses
    tiers: TierBook
    tier_quotas: TierQuotas
    invitations: Invitations
    demo: Demo | None

    def __init__(self, config: Config, clock: Clock, redactor: Redactor) -> None:
        """Start with nothing open; use `open`."""
        self.config = config
        self.clock = clock
        self.redactor = redactor
        self.answers: dict[Interruptible, str | None] = {}
        """Answers on their way until they are settled, each with the id of the issued key that it was asked for with: for a
        stop that cannot wait, and for a key that is revoked."""
        self.guesses = Guesses(clock)
        self.password = None
        self.draining = False
        self.address_key = secrets.token_bytes(32)
        """Of what is kept of the addresses of callers without a key; it ends with this process."""
        self.drift = DriftWatch()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resources = AsyncExitStack()

    @classmethod
    async def open(
        cls,
        config: Config,
        *,
        demo: bool = False,
        clock: Clock | None = None,
        redactor: Redactor | None = None,
        taken: Collection[str] = (),
        serving: bool = False,
    ) -> "Runtime":
        """Open everything. With demo, start the simulator if the pool has no account.

        `taken` are the first segments of the app's paths; with `serving` this is the data folder's one server. Raises
        StorageError when the records cannot be opened, ConfigError for tiers that cannot be.
        """
        runtime = cls(config, clock or SystemClock(), redactor or Redactor())
        runtime.tiers = TierBook(
            Path(config.tiers_file) if config.tiers_file else None,
            public=config.public_mode,
            taken=taken,
            keys=config.authorization,
        )
        try:
            await runtime._open(demo, serving)
        except BaseException:
            await runtime.aclose()
            raise
        return runtime

    async def _open(self, demo: bool, serving: bool) -> None:
        config = self.config
        await self.tiers.load()
        self.records = await self._open_records(serving)
        self.shared = MemoryShared(self.clock)
        self.transport = transport = CountedTransport(
            CurlTransport(ca_file=config.upstream_ca_file or None, clock=self.clock)
        )
        self._resources.push_async_callback(transport.aclose)
        self.alarms = Alarms(asyncio.get_running_loop())
        native = variants()[0] != PYTHON
        solver = ProofSolver(search_limit=config.proof_timeout if native else config.proof_fallback_timeout)
        self._resources.push_async_callback(solver.aclose)
        calls = BackendCalls(
            transport,
            CallSettings(
                connect_timeout=config.connect_timeout,
                preparation_timeout=config.preparation_timeout,
                headers_timeout=config.upstream_headers_timeout,
                language=config.oai_language,
                auth_key=config.auth_key,
            ),
        )
        requirements = RequirementsExchange(calls, solver, self.clock, hardest=config.pow_difficulty)
        self.client = ChatGPTClient(
            calls, requirements, self.clock, ClientSettings(conversation_only=config.conversation_only)
        )

        exits = Exits(config.proxy_url, self.clock)
        pool = await self._account_source(self.records, exits, config.chatgpt_base_url, config.openai_auth_token_url)
        self.pool, self.keeper = pool.pool, pool.keeper
        self.editor = AccountEditor(self.records, self.pool, self.clock)
        visitors = await self._account_source(
            await self._in_memory(), exits, config.chatgpt_base_url, config.openai_auth_token_url
        )
        self.demo = await self._open_demo() if demo and not self.pool.statistics().total else None
        demo_source = await self._demo_source(self.demo) if self.demo is not None else None
        self.sources = Sources(pool, visitors, demo_source, self.clock)
        self.openai = await self._open_openai(exits)
        self.api_objects = ApiObjects(self.records.api_objects, self.clock, self.spawn)
        self._resources.push_async_callback(self.api_objects.aclose)
        self.doctor = Doctor(self.client, pool, self.clock, config, more=KeyDoctor(self.openai, config).checks)
        self.jobs = Jobs(self.clock, self.spawn)
        self.pastes = Pastes(self.clock, self.spawn)
        self.care = AccountCare(
            CareParts(self.records, self.pool, self.editor, self.keeper, self.doctor, self.jobs, self.clock)
        )
        self.provider = ChatGPTProvider(
            config, self.clock, self.client, self.sources, Offers(self.client, self.clock), self.drift, self.alarms
        )
        self.routing = Routing(self.provider, self.openai, parse_rules(config.model_routes), self.clock)
        self.conversations = Conversations(config, self.clock, self.client, self.sources, self.drift)

        self.redactor.learn(*config.authorization, config.admin_password, config.auth_key, config.secret_key)
        self.digests = SlowDigests()
        self._resources.callback(self.digests.close)
        if config.admin_password:
            self.password = Password(config.admin_password, self.digests)
        self.operator_keys = await self._open_operator_keys()
        await self._open_keys()
        self.spawn(self._settle_doubts(), name="doubts")
        self._start_timetable()
        await asyncio.to_thread(load_tokenizer)

    def _start_timetable(self) -> None:
        renewals = Renewals(self.keeper, self.records, self.clock, random.Random())
        timetable = self.timetable = Timetable(self.shared, self.clock, self.spawn)
        if self.config.scheduled_refresh:
            timetable.add("scheduled refresh", renewals.tick, every=60.0, soon=True)
        timetable.add("renewal ahead", renewals.renew_ahead, every=60.0)
        checkups = self.checkups = Checkups(self.client, self.sources.pool, self.clock, random.Random())
        if not self.config.conversation_only:  # a gateway that does the rest knows no such calls
            timetable.add("checkups", checkups.pass_over, every=600.0)
        timetable.add("sweep", self._sweep, every=600.0)
        timetable.add("forget addresses", self.tier_quotas.forget, every=60.0)
        timetable.start()
        self._resources.push_async_callback(timetable.aclose)
        self.keep_doing(timetable.watch, name="timetable")

    async def _sweep(self) -> None:
        """Erase what is past its time: removed accounts after their day, replaced tokens, ended waits, visitors."""
        now = self.clock.now()
        pool, visitors = self.sources.pool, self.sources.visitors
        # Anybody can make up AccessTokens, and each makes an account. They go at once: a tombstone is for second thoughts.
        unused = visitors.pool.unused(kept=VISITORS_KEPT, least=VISITORS_SECONDS[0], most=VISITORS_SECONDS[1])
        for start in range(0, len(unused), _ERASED_AT_ONCE):
            batch = unused[start : start + _ERASED_AT_ONCE]
            await visitors.records.delete_accounts(batch, now - TOMBSTONE_SECONDS)
        await visitors.pool.reload()
        for source in (pool, visitors):
            await source.records.sweep(now)
            source.keeper.forget_others(source.pool)
        await self.records.api_keys.sweep(now)
        await self.records.api_objects.sweep(self.clock.now())

    async def aclose(self) -> None:
        """Stop the background work, let refreshes under way finish, then close everything in reverse."""
        try:
            await self._cancel_tasks()
        finally:
            await self._resources.aclose()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Start background work that is kept until it ends and cancelled when the runtime closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep_doing(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Start background work that goes on until the runtime closes: where a mistake ends it, it begins anew."""

        async def go_on() -> None:
            while True:
                try:
                    await work()
                except Exception:
                    # A job's outermost loop: without it keys would stay valid that were revoked, and limits be forgotten.
                    log.exception("%s failed and begins anew", name)
                await self.clock.sleep(BEGIN_ANEW_SECONDS)

        self.spawn(go_on(), name)

    def readiness(self) -> str:
        """Give one word: ready, draining or degraded."""
        if self.draining:
            return "draining"
        return "degraded" if self.operator_keys.shut is not None or self.drifted else "ready"

    @property
    def drifted(self) -> tuple[str, ...]:
        """The shapes of answers that are not understood, once they are too many to be chance (R15)."""
        return self.drift.alarm(self.clock.monotonic())

    def drain(self) -> None:
        """Take note that the server is stopping."""
        self.draining = True

    def watch_shutdown(self, ending: asyncio.Event) -> None:
        """End all answers on their way once `ending` is set: the stop cannot wait any longer."""

        async def watch() -> None:
            await ending.wait()
            self._interrupt_answers()

        self.spawn(watch(), name="shutdown")

    def _interrupt_answers(self) -> None:
        for answer in list(self.answers):
            answer.interrupt(DrainingError("The server was stopped in the middle of this answer.", final=True))

    async def _open_keys(self) -> None:
        """Open what belongs to issued keys: the keys, their limits with what was used before, and the ledger."""
        self.keys = KeyRing(self.records, self.clock, on_end=self._end_answers_of)
        await self.keys.start()
        self.key_accounts = AccountScopes(self.pool.accounts, self.clock)
        used = await self.records.usage.totals(day_of(self.clock.now()))
        self.quotas = Quotas(MemoryQuotas(self.clock, used))
        self.tier_quotas = TierQuotas(self.clock)
        self.invitations = Invitations(self.records, self.keys, self.clock)
        self.ledger = Ledger(self.records.usage, self.clock, self.spawn)
        self._resources.push_async_callback(self._close_ledger)
        self.keep_doing(self.keys.run, name="issued keys")
        self.users = LocalUsers(self.records, self.keys, self.digests, self.clock)
        await self.users.start()
        self.keep_doing(self.users.run, name="local users")
        self.keep_doing(self.ledger.run, name="ledger")

    def _end_answers_of(self, key: IssuedKey) -> None:
        for answer, key_id in list(self.answers.items()):
            if key_id == key.id:
                answer.interrupt(InvalidAPIKeyError("This key was revoked or stopped in the middle of this answer."))

    async def _close_ledger(self) -> None:
        try:
            await self.ledger.flush()
        except StorageError as error:
            log.error("the last usage could not be written: %s", error)

    async def _account_source(
        self, records: Records, exits: Exits, origins: tuple[str, ...], token_url: str, upstream: str | None = None
    ) -> AccountSource:
        config = self.config
        pool = AccountPool(
            records,
            self.clock,
            in_order=not config.random_token,
            guessed_limits=config.enable_limit,
            account_cap=config.account_concurrency,
        )
        exchange = TokenExchange(
            self.transport,
            self.clock,
            token_url=token_url,
            client_id=config.openai_auth_client_id,
            connect_timeout=config.connect_timeout,
            timeout=config.refresh_timeout,
        )

        async def renew(account: Account, token: str) -> RefreshAnswer:
            origin = stable_order(account.id, origins)[0]
            is_cookie = account.kind == "session"
            host = host_of(origin if is_cookie else token_url)
            proxy = exits.choose(account.id, host)
            channel = Channel(account.id, proxy, profile_for(account.id))
            fault: ExitFault | None = None
            try:
                if is_cookie:
                    fresh = await exchange.exchange_cookie(channel, origin, token)
                else:
                    fresh = await exchange.refresh(channel, token)
            except UpstreamError as error:
                fault = judge(error, model=ANY_MODEL).exit_fault
                raise
            finally:
                exits.report(proxy, host, fault)
            self.redactor.learn_passing(fresh.access, fresh.renewable or "")
            return RefreshAnswer(fresh.access, fresh.renewable, fresh.expires_in, fresh.date_skew)

        keeper = TokenKeeper(records, self.shared, self.clock, renew, self.spawn, on_change=pool.put, on_wait=pool.cool)
        await pool.start()
        self._resources.push_async_callback(pool.aclose)
        self.keep_doing(pool.run, name="pool")
        return AccountSource(pool, keeper, records, origins, exits, upstream, token_url)

    async def _open_openai(self, exits: Exits) -> OpenAIProvider:
        """Open the provider behind API keys: they are accounts of a pool of their own."""
        config = self.config
        client = OpenAIClient(self.transport, config.openai_base_url, connect_timeout=config.connect_timeout)
        digests = {self.records.digest("api_key", secret): secret for secret in config.openai_api_keys}
        keys = {digest: ApiKey("key-" + digest[:8], secret) for digest, secret in digests.items()}
        labels = {digest: key.label for digest, key in keys.items()}
        records = KeyPoolRecords(self.records.api_keys, labels, self.clock.now())
        pool = AccountPool(records, self.clock, in_order=not config.random_token, guessed_limits=config.enable_limit)
        await pool.start()
        self._resources.push_async_callback(pool.aclose)
        self.keep_doing(pool.run, name="API keys")
        self.redactor.learn(*config.openai_api_keys)
        direct = Exits((), self.clock) if client.is_local else exits
        return OpenAIProvider(config, self.clock, client, pool, keys, direct)

    async def _open_records(self, serving: bool) -> Records:
        """Open what is kept; where nothing is to be kept, records that end with this process."""
        if self.config.diskless:
            return await self._in_memory()
        records = await SqlRecords.open(self.config.data_dir, secret_key=self.config.secret_key or None)
        self._resources.push_async_callback(records.aclose)
        if serving:
            self._resources.callback(ServerPlace(self.config.data_dir).end)
        return records

    async def _open_operator_keys(self) -> OperatorKeys:
        config = self.config
        if config.authorization:
            return OperatorKeys.configured(config.authorization)
        if config.diskless:
            return OperatorKeys((), shut="DATA_DIR is none, so no operator key can be kept. Set AUTHORIZATION.")
        keys = await load_operator_key(self.records, config.data_dir)
        self.keep_doing(self._follow_operator_key, name="operator key")
        return keys

    async def _in_memory(self) -> Records:
        records = await SqlRecords.in_memory()
        self._resources.push_async_callback(records.aclose)
        return records

    async def _open_demo(self) -> Demo:
        simulator = Simulator(SimulatorOptions(delay=0.02, record=False))
        await self._resources.enter_async_context(simulator)
        return Demo(simulator)

    async def _demo_source(self, demo: Demo) -> AccountSource:
        records = await self._in_memory()
        account = demo.simulator.control.accounts[0]
        await records.add_accounts([to_new_account(to_credential(account.access_token))], self.clock.now())
        url = demo.simulator.url
        return await self._account_source(records, Exits((), self.clock), (url,), f"{url}/oauth/token", "simulator")

    async def _follow_operator_key(self) -> None:
        while True:
            await self.clock.sleep(OPERATOR_KEY_POLL)
            try:
                self.operator_keys = await load_operator_key(self.records, self.config.data_dir)
            except Chat2APIError as error:
                log.warning("the operator key could not be read again: %s", error)

    async def _settle_doubts(self) -> None:
        left = await self.keeper.recover()
        if left:
            log.warning("%d account(s) in doubt: sign in again and add the new token", left)

    async def _cancel_tasks(self) -> None:
        while tasks := list(self._tasks):  # a pass over all accounts may begin the next refresh meanwhile
            for task in tasks:
                if not task.get_name().startswith((_REFRESH, WRITE)):
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
