"""`/usage`: what a key used and what is left of it, for its holder; for the operator, everybody's use."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Protocol
from urllib.parse import urlencode

from quart import Blueprint, Response, current_app, redirect, render_template, request
from quart.typing import ResponseReturnValue

from chat2api.api.charts import Chart, bar_chart
from chat2api.api.context import current_runtime, current_visitor, paste_owner, record_action
from chat2api.api.entry import person_of
from chat2api.api.pages import api_base
from chat2api.api.shell import shell_of
from chat2api.api.tiers import base_of
from chat2api.api.usage import report
from chat2api.errors import InvalidAPIKeyError, InvalidRequestError, NotFoundError, PermissionDeniedError
from chat2api.keys.listing import state_of
from chat2api.keys.quota import tightest
from chat2api.keys.terms import Json
from chat2api.keys.tiers import Tier
from chat2api.runtime import Runtime
from chat2api.storage.keys import IssuedKey
from chat2api.storage.quotas import Room
from chat2api.storage.usage import UsageRow, day_of

blueprint = Blueprint("usage_page", __name__)

DAYS = (7, 30, 90)
"""Days that the page can look back; without a wish it is the middle one."""
MOST_ROWS = 50
"""Models or keys that are shown, the most used first."""


class Sums:
    """Numbers of several rows together; `title` is how people call it, `known` whether there is more to see of it."""

    def __init__(self, name: str) -> None:
        """Start with nothing."""
        self.name = self.title = name
        self.known = False
        self.requests = self.tokens = self.errors = 0

    def add(self, row: UsageRow) -> None:
        """Take a row in."""
        self.requests += row.requests
        self.tokens += row.prompt_tokens + row.completion_tokens
        self.errors += row.errors


class _Grouping(Protocol):
    def __call__(self, row: UsageRow, /) -> str: ...


@blueprint.get("/usage")
async def usage_page() -> ResponseReturnValue:
    """The page of whoever is signed in; with `shown`, a person's new key itself, this once."""
    runtime = current_runtime()
    key = _own_key()
    if key is not None and (ticket := request.args.get("shown")):
        try:
            return await _shown_once(key, runtime.pastes.take(paste_owner(), ticket))
        except NotFoundError:
            return redirect(_path(), 303)
    asked = runtime.keys.require(request.args["key"]) if key is None and request.args.get("key") else None
    tier = runtime.tiers.get(key.tier) if key is not None and key.tier is not None else None
    period = _period()
    days = _days(runtime, period)
    await runtime.ledger.flush()
    kept = await runtime.records.usage.rows(
        since=days[0], until=days[-1], key=one.id if (one := key or asked) else None
    )
    # Of months long past only the sums are kept. One that began before the period cannot be cut, so it is left out.
    rows = [row for row in kept if not is_month(row.day) or f"{row.day}-01" >= days[0]]
    texts = shell_of(current_app).language()
    by_day = {sums.name: sums for sums in group(rows, lambda row: row.day)}
    return await render_template(
        "usage.html",
        key=key,
        asked=asked,
        accounts=_accounts(runtime, group(rows, lambda row: row.account)[:MOST_ROWS]) if key is None else (),
        period=period,
        period_options=[(count, texts.get("usage.days", n=count), None) for count in DAYS],
        link=lambda days: (
            "?" + urlencode({"days": days} | ({"key": asked.id} if asked is not None else {})) + "#period"
        ),
        total=_total(rows),
        months=sorted(group([row for row in rows if is_month(row.day)], lambda row: row.day), key=lambda one: one.name),
        since=days[0],
        until=days[-1],
        state=state_of(key, runtime.clock.now()),
        rooms=await _rooms(runtime, key, tier) if key is not None else (),
        tier=tier,
        requests_chart=_chart(days, by_day, "requests"),
        tokens_chart=_chart(days, by_day, "tokens"),
        models=group(rows, lambda row: row.model)[:MOST_ROWS],
        keys=_named(runtime, group(rows, lambda row: row.key)[:MOST_ROWS]) if key is None else (),
        base_url=api_base(runtime.config) if tier is None else base_of(tier),
        example_model=_example_model(key) if tier is None else tier.models[0].name,
    )


@blueprint.post("/usage/renew")
async def renew() -> ResponseReturnValue:
    """Replace the person's key, once that is sure; the old one works for a day more."""
    runtime = current_runtime()
    key = _own_key()
    if key is None:
        raise PermissionDeniedError("Operator keys are replaced by `chat2api keys operator --new`.")
    if (await request.form).get("sure") != "yes":
        question = shell_of(current_app).language().get("usage.renew_sure")
        return await render_template(
            "confirm.html", question=question, action=f"{_path()}/renew", fields={}, back=_path()
        )
    issued = await runtime.keys.rotate(key.id)
    await record_action("keys.rotate", key.id)
    return redirect(f"{_path()}?shown={runtime.pastes.hold(paste_owner(), issued.secret)}", 303)


@blueprint.get("/usage/data")
async def usage_data() -> Json | Response:
    """The same numbers for programs and spreadsheets: what `GET /v1/usage` tells, for whoever is signed in."""
    key = _own_key()
    return await report(key, key is None)


async def _shown_once(key: IssuedKey, secret: str) -> str:
    runtime = current_runtime()
    tier = runtime.tiers.get(key.tier) if key.tier is not None else None
    return await render_template(
        "own_key.html",
        title=shell_of(current_app).language().get("usage.renewed_title"),
        lead=key.name,
        key=key,
        secret=secret,
        base_url=api_base(runtime.config) if tier is None else base_of(tier),
        model=_example_model(key) if tier is None else tier.models[0].name,
        old_key_left=max(0.0, (key.previous_until_at or 0) - runtime.clock.now()),
    )


def _path() -> str:
    prefix = current_runtime().config.api_prefix
    return f"/{prefix}/usage" if prefix else "/usage"


async def _rooms(runtime: Runtime, key: IssuedKey, tier: Tier | None) -> Sequence[Room]:
    """Give what is left of a key's limits, and of those that each person has in its tier."""
    own = await runtime.quotas.rooms(key)
    if tier is None:
        return own
    return tightest((*own, *await runtime.tier_quotas.rooms(tier, person_of(key), None)))


def _own_key() -> IssuedKey | None:
    """Give the key of the person who is signed in, None for the operator. Raises InvalidAPIKeyError for nobody."""
    visitor = current_visitor()
    key = current_runtime().keys.get(visitor.key_id) if visitor is not None and visitor.key_id is not None else None
    if visitor is None or (visitor.role == "person" and key is None):
        raise InvalidAPIKeyError("Sign in first.")
    return key


def group(rows: Sequence[UsageRow], name: _Grouping) -> list[Sums]:
    """Give the sums of rows by a name, the most requests first."""
    sums: dict[str, Sums] = {}
    for row in rows:
        sums.setdefault(name(row), Sums(name(row))).add(row)
    return sorted(sums.values(), key=lambda one: (-one.requests, -one.errors, one.name))


def _period() -> int:
    wish = request.args.get("days", str(DAYS[1]))
    if wish not in map(str, DAYS):
        raise InvalidRequestError(f"The days are one of {', '.join(map(str, DAYS))}.", param="days")
    return int(wish)


def is_month(day: str) -> bool:
    """Whether a row of the ledger is the sum of a month."""
    return len(day) == len("2026-11")


def _days(runtime: Runtime, count: int) -> list[str]:
    today = date.fromisoformat(day_of(runtime.clock.now()))
    return [(today - timedelta(days=back)).isoformat() for back in reversed(range(count))]


def _total(rows: Sequence[UsageRow]) -> Sums:
    return next(iter(group(rows, lambda row: "")), Sums(""))


def _chart(days: Sequence[str], by_day: dict[str, Sums], what: str) -> Chart:
    return bar_chart([(day[5:], getattr(by_day[day], what) if day in by_day else 0) for day in days])


def _named(runtime: Runtime, sums: Sequence[Sums]) -> Sequence[Sums]:
    for one in sums:
        key = runtime.keys.get(one.name)
        one.title, one.known = (key.name, True) if key is not None else (one.name, False)
    return sums


def _accounts(runtime: Runtime, sums: Sequence[Sums]) -> Sequence[Sums]:
    labels = {account.label for account in runtime.pool.accounts()}
    for one in sums:
        one.known = one.name in labels
    return sums


def _example_model(key: IssuedKey | None) -> str:
    """Give a model that the key may use: one that is named in full, else the default."""
    patterns = key.scope.models if key is not None else None
    return next((pattern for pattern in patterns or () if "*" not in pattern), "auto")
