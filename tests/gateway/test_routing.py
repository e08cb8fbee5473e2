"""Which provider serves a request: every rule and every kind of caller, without a network."""

import asyncio
from collections.abc import Sequence

import pytest

from chat2api.config import Config
from chat2api.errors import ConfigError, NoAccountError, NotFoundError, UpstreamServerError
from chat2api.gateway.provider import Caller, CallerKind
from chat2api.gateway.routing import OFFER_SECONDS, Route, Routing, Rule, parse_rules
from chat2api.protocol.openai.models import ModelObject
from tests.clocks import FakeClock

OPERATOR = Caller("operator", owner="key:one")


class Accounts:
    """Accounts that offer some models."""

    def __init__(self, *slugs: str, failure: Exception | None = None) -> None:
        self.slugs = slugs
        self.failure = failure
        self.asked = 0

    async def offered(self, caller: Caller, model: str) -> bool:
        self.asked += 1
        return model in self.slugs

    async def models(self, caller: Caller) -> Sequence[str]:
        if self.failure is not None:
            raise self.failure
        return self.slugs


class Keys:
    """API keys with a list of models."""

    def __init__(self, *names: str, failure: Exception | None = None, configured: bool = True) -> None:
        self.names = names
        self.failure = failure
        self.configured = configured

    def serves(self, caller: Caller) -> bool:
        return self.configured or caller.kind == "own_key"

    async def models(self, caller: Caller) -> Sequence[ModelObject]:
        if self.failure is not None:
            raise self.failure
        return [{"id": name, "object": "model", "created": 5, "owned_by": "system"} for name in self.names]

    async def lists(self, caller: Caller, model: str) -> bool:
        return model in self.names


def make(accounts: Accounts, keys: Keys, *rules: str, clock: FakeClock | None = None) -> Routing:
    return Routing(accounts, keys, parse_rules(rules), clock or FakeClock())


async def test_without_api_keys_everything_goes_to_the_accounts() -> None:
    routing = make(Accounts(), Keys(configured=False), "*=openai")
    assert await routing.route(OPERATOR, "gpt-4o") == Route("chatgpt", "gpt-4o")
    assert await routing.route(OPERATOR, "openai/gpt-4o") == Route("chatgpt", "openai/gpt-4o")


async def test_without_api_keys_who_brings_one_is_served_by_it() -> None:
    routing = make(Accounts("gpt-4o"), Keys(configured=False))
    mine = Caller("own_key", owner="own", token="sk-mine")
    assert await routing.route(mine, "gpt-4o") == Route("openai", "gpt-4o")
    assert await routing.route(mine, "openai/gpt-4o") == Route("openai", "gpt-4o", named=True)


async def test_with_both_a_model_goes_to_the_accounts_that_offer_it_and_else_to_the_keys() -> None:
    routing = make(Accounts("gpt-4o"), Keys())
    assert (await routing.route(OPERATOR, "gpt-4o")).provider == "chatgpt"
    assert (await routing.route(OPERATOR, "gpt-4.1")).provider == "openai"


async def test_without_accounts_everything_goes_to_the_keys() -> None:
    routing = make(Accounts(), Keys())
    for model in ("gpt-4o", "auto", "whatever"):
        assert await routing.route(OPERATOR, model) == Route("openai", model)


async def test_a_model_may_name_its_provider() -> None:
    routing = make(Accounts("gpt-4o"), Keys(), "*=openai")
    assert await routing.route(OPERATOR, "chatgpt/gpt-4o") == Route("chatgpt", "gpt-4o", named=True)
    assert await routing.route(OPERATOR, "openai/gpt-4o") == Route("openai", "gpt-4o", named=True)
    assert await routing.route(OPERATOR, "other/gpt-4o") == Route("openai", "other/gpt-4o")


async def test_a_name_that_the_api_itself_has_is_left_whole() -> None:
    routing = make(Accounts(), Keys("openai/gpt-oss", "gpt-4o"))
    for route in (routing.route, routing.route_to_keys):
        assert await route(OPERATOR, "openai/gpt-oss") == Route("openai", "openai/gpt-oss")
        assert await route(OPERATOR, "openai/gpt-4o") == Route("openai", "gpt-4o", named=True)
        with pytest.raises(NotFoundError):
            await route(OPERATOR, "chatgpt/gpt-4o")


@pytest.mark.parametrize("model", ["chatgpt/nobody-knows-this", "chatgpt/gpt-4.1"])
async def test_a_named_provider_that_does_not_know_the_model_is_a_404(model: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        await make(Accounts("gpt-4o"), Keys()).route(OPERATOR, model)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_the_first_rule_that_fits_decides_and_may_name_a_fallback() -> None:
    routing = make(Accounts("gpt-4o", "o1"), Keys(), "gpt-4*=openai", "gpt-*=chatgpt", "o1=chatgpt|openai")
    assert await routing.route(OPERATOR, "gpt-4o") == Route("openai", "gpt-4o")
    assert await routing.route(OPERATOR, "gpt-5") == Route("chatgpt", "gpt-5")
    assert await routing.route(OPERATOR, "o1") == Route("chatgpt", "o1", fallback="openai")
    assert (await routing.route(OPERATOR, "o3")).provider == "openai"


@pytest.mark.parametrize(
    ("kind", "provider"),
    [("own_token", "chatgpt"), ("anonymous", "chatgpt"), ("demo", "chatgpt"), ("own_key", "openai")],
)
async def test_who_brings_a_credential_is_served_where_it_belongs_whatever_the_rules_say(
    kind: CallerKind, provider: str
) -> None:
    caller = Caller(kind, owner="own")
    for rule in ("*=openai", "*=chatgpt", "*=chatgpt|openai", "*=openai|chatgpt"):
        route = await make(Accounts("gpt-4o"), Keys(), rule).route(caller, "gpt-4o")
        assert (route.provider, route.fallback) == (provider, None)
        other = "openai" if provider == "chatgpt" else "chatgpt"
        with pytest.raises(NotFoundError):
            await make(Accounts("gpt-4o"), Keys(), rule).route(caller, f"{other}/gpt-4o")


async def test_a_key_that_is_held_to_accounts_never_uses_an_api_key() -> None:
    held = Caller("issued_key", owner="issued:1", allowed=frozenset({"account"}))
    routing = make(Accounts(), Keys("gpt-4.1"), "*=openai")
    assert (await routing.route(held, "gpt-4.1")).provider == "chatgpt"
    with pytest.raises(NotFoundError):
        await routing.route(held, "openai/gpt-4.1")
    assert await routing.models(held) == []


async def test_what_the_accounts_offer_is_asked_for_now_and_then() -> None:
    clock, accounts = FakeClock(), Accounts("gpt-4o")
    routing = make(accounts, Keys(), clock=clock)
    for _ in range(5):
        await routing.route(OPERATOR, "gpt-4o")
    assert accounts.asked == 1
    clock.advance(OFFER_SECONDS + 1)
    accounts.slugs = ()
    assert (await routing.route(OPERATOR, "gpt-4o")).provider == "openai"


async def test_any_number_of_names_is_remembered_only_so_far() -> None:
    routing = make(Accounts("gpt-4o"), Keys())
    await asyncio.gather(*(routing.route(OPERATOR, f"model-{number}") for number in range(5000)))
    assert len(routing._offered) <= 1024


async def test_the_list_is_the_union_and_names_each_model_once() -> None:
    listed = await make(Accounts("gpt-4o", "gpt-5"), Keys("gpt-4o", "whisper-1")).models(OPERATOR)
    assert [model["id"] for model in listed] == ["gpt-4o", "gpt-5", "whisper-1"]


async def test_one_provider_that_fails_leaves_the_others_models() -> None:
    down = UpstreamServerError("down", upstream_status=500)
    assert [m["id"] for m in await make(Accounts(failure=NoAccountError("none")), Keys("a")).models(OPERATOR)] == ["a"]
    assert [m["id"] for m in await make(Accounts("b"), Keys(failure=down)).models(OPERATOR)] == ["b"]
    with pytest.raises(NoAccountError):
        await make(Accounts(failure=NoAccountError("none")), Keys(failure=down)).models(OPERATOR)


def test_rules_are_read_as_written() -> None:
    rules = Config.from_env({"MODEL_ROUTES": "gpt-4* = openai, *=ChatGPT | openai"}).model_routes
    assert parse_rules(rules) == (Rule("gpt-4*", ("openai",)), Rule("*", ("chatgpt", "openai")))


@pytest.mark.parametrize(
    "rule", ["gpt-4", "=openai", "gpt-4=", "gpt-4=azure", "a=openai|openai", "a=openai|b", " =openai"]
)
def test_a_rule_that_means_nothing_stops_the_start(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"MODEL_ROUTES.*pattern"):
        Config.from_env({"MODEL_ROUTES": rule})
