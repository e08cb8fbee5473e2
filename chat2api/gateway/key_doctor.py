"""The doctor's checks of the API behind the operator's keys: each way to it, and each key by its label."""

import asyncio
from collections.abc import Awaitable, Callable

from chat2api.accounts.health import judge
from chat2api.accounts.views import AccountView
from chat2api.config import Config
from chat2api.errors import (
    AccountLimitedError,
    AccountRejectedError,
    Chat2APIError,
    KeyForbiddenError,
    TransportError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from chat2api.gateway.deadlines import deadline
from chat2api.gateway.doctor import REMEDY, SAY, Check, Finding, say_error, say_way
from chat2api.gateway.openai import OpenAIProvider
from chat2api.storage.values import ANY_MODEL
from chat2api.upstream.openai import ApiCall


class KeyDoctor:
    """Examines the operator's API keys; where there are none, there is nothing to examine."""

    def __init__(self, provider: OpenAIProvider, config: Config) -> None:
        """Examine the keys of that provider."""
        self._provider = provider
        self._config = config

    def checks(self) -> list[Check]:
        """Give a check for each way to the API and for each key; a key's name is its label."""
        provider = self._provider
        if not provider.configured:
            return []
        ways = [
            Check(f"api-{number}", say_way(provider.client.base, proxy), self._way_check(proxy))
            for number, proxy in enumerate(provider.exits.all, 1)
        ]
        keys = [(provider.keys[view.account.id].label, view) for view in provider.pool.views()]
        return ways + [Check(label, f"API {label}", self._key_check(label, view)) for label, view in keys]

    def _way_check(self, proxy: str | None) -> Callable[[], Awaitable[Finding]]:
        return lambda: self._examine_way(proxy)

    def _key_check(self, label: str, view: AccountView) -> Callable[[], Awaitable[Finding]]:
        return lambda: self._examine_key(f"API {label}", view)

    async def _examine_way(self, proxy: str | None) -> Finding:
        """Ask without a key: a refusal in the API's words shows that it is there."""
        client, exits = self._provider.client, self._provider.exits
        subject = say_way(client.base, proxy)
        seconds = self._config.preparation_timeout
        by = asyncio.get_running_loop().time() + seconds
        try:
            async with deadline(by, "first_content", "The API did not answer in time."):
                stream = await client.open(None, proxy, ApiCall("GET", ("models",), seconds))
            await stream.aclose()
            if stream.status >= 500:
                raise UpstreamServerError("The API failed to answer.", upstream_status=stream.status)
        except UpstreamError as error:
            verdict = judge(error, model=ANY_MODEL)
            if verdict.exit_fault is not None:
                exits.report(proxy, client.host, verdict.exit_fault, seconds=verdict.exit_seconds)
            return Finding(subject, False, say_error(error), _advice(error))
        kind = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
        if 300 <= stream.status < 400 or stream.status == 404 or kind == "text/html":
            return Finding(subject, False, SAY("not_an_api", status=stream.status), REMEDY("api_base"))
        return Finding(subject, True, SAY("reachable"))

    async def _examine_key(self, subject: str, view: AccountView) -> Finding:
        """Ask for the models by this key, unless it has to wait (R7); one that was refused serves again once it is accepted."""
        account = view.account
        try:
            if not account.usable and not await self._provider.ask_again(account.id):
                return Finding(subject, False, SAY("key_refused"), REMEDY("api_key"))
        except UpstreamError as error:
            return Finding(subject, False, say_error(error), _advice(error))
        if view.waits:
            waiting = ", ".join(sorted(wait.model for wait in view.waits))
            text = SAY("waits_all") if view.until_at is not None else SAY("waits", models=waiting)
            return Finding(subject, False, text, REMEDY("wait", seconds=round(view.waits[-1].seconds)))
        try:
            models = await self._provider.try_key(account.id)
        except KeyForbiddenError:
            return Finding(subject, True, SAY("key_lists_nothing"))
        except UpstreamError as error:
            return Finding(subject, False, say_error(error), _advice(error))
        except Chat2APIError as error:
            return Finding(subject, False, say_error(error), REMEDY("in_use"))
        return Finding(subject, True, SAY("key_lists", count=len(models)))


def _advice(error: Chat2APIError) -> str:
    match error:
        case AccountRejectedError():
            return REMEDY("api_key")
        case AccountLimitedError():
            return REMEDY("api_credit")
        case TransportError() | UpstreamTimeoutError():
            return REMEDY("api_network")
        case UpstreamProtocolError():
            return REMEDY("api_base")
        case _:
            return REMEDY("api_later")
