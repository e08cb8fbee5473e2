"""`/tokens/overview`: whether all is well, at one look: accounts, API keys, alarms, requests, how fast answers begin.

The day's numbers are counted in memory since the start; the month's come from the ledger, which lasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from quart import Blueprint, render_template, request

from chat2api import __version__
from chat2api.accounts.listing import STATES
from chat2api.api.charts import Chart, bar_chart
from chat2api.api.context import current_runtime
from chat2api.api.hours import HourlyCounts, quantile
from chat2api.api.metrics import current_metrics
from chat2api.api.usage_page import Sums, group
from chat2api.errors import InvalidRequestError
from chat2api.gateway.key_views import count_keys, key_views
from chat2api.protocol.chatgpt import proof_of_work
from chat2api.runtime import Runtime
from chat2api.storage.usage import day_of

blueprint = Blueprint("overview_page", __name__)

PERIODS = ("day", "month")
DAYS = 30

_COUNTS = ("answered", "failed", "tokens")


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted in an hour or on a day, which `label` names."""

    label: str
    answered: int
    failed: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to look at: `name` names its words, which hold `number` and `shapes`; `kind` is that of a notice."""

    name: str
    kind: str
    number: int = 0
    shapes: str = ""


@blueprint.get("/tokens/overview")
async def overview_page() -> str:
    """The overview; `period` is `day` (24 hours) or `month` (30 days)."""
    period = request.args.get("period", "day")
    if period not in PERIODS:
        raise InvalidRequestError(f"The period is one of {', '.join(PERIODS)}.", param="period")
    runtime, hours = current_runtime(), current_metrics().hours
    counts = _by_hour(hours) if period == "day" else await _by_day(runtime)
    statistics = runtime.pool.statistics()
    waits = hours.hours()
    return await render_template(
        "overview.html",
        statistics=statistics,
        states=[(state, statistics.by_state[state]) for state in STATES if statistics.by_state.get(state)],
        alarms=await _alarms(runtime),
        api_keys=key_views(runtime.openai),
        api_base=runtime.openai.client.base,
        at=runtime.clock.now(),
        period=period,
        slot="hour" if period == "day" else "day",
        periods=PERIODS,
        total=_total(counts),
        charts=[(what, _chart(counts, what)) for what in _COUNTS],
        since_at=hours.since_at,
        uptime=hours.uptime,
        half=_seconds(quantile(waits, 0.5)),
        most=_seconds(quantile(waits, 0.95)),
        wait_chart=bar_chart([(_clock_of(hour.begins_at), _seconds(quantile([hour], 0.5)) or 0) for hour in waits]),
        version=__version__,
        upstream=("simulator",) if runtime.demo is not None else runtime.config.chatgpt_base_url,
        proof=proof_of_work.describe(),
        answers=len(runtime.answers),
        live_keys=sum(key.ended(runtime.clock.now()) is None for key in runtime.keys.all()),
    )


async def _alarms(runtime: Runtime) -> list[Alarm]:
    """Give what the operator should look at, the worst first; that somebody guesses keys stands above every page."""
    found = []
    if runtime.operator_keys.shut is not None:
        found.append(Alarm("shut", "bad"))
    if await runtime.records.restored():
        found.append(Alarm("restored", "bad"))
    if runtime.keeper.reused_total:
        found.append(Alarm("reused", "bad", runtime.keeper.reused_total))
    drifted = runtime.drifted
    if drifted:
        found.append(Alarm("drift", "bad", len(drifted), ", ".join(drifted)))
    statistics = runtime.pool.statistics()
    if statistics.total and not statistics.ready:
        found.append(Alarm("none_ready", "bad"))
    keys = count_keys(runtime.openai)
    if runtime.openai.configured and not keys["ok"]:
        found.append(Alarm("no_key_ready", "bad"))
    if keys["refused"]:
        found.append(Alarm("keys_refused", "warn", keys["refused"]))
    for state in ("in_doubt", "needs_sign_in"):
        if number := statistics.by_state.get(state, 0):
            found.append(Alarm(state, "warn", number))
    if runtime.keys.stopped:
        found.append(Alarm("stopped", "warn"))
    if not runtime.config.secret_key:
        found.append(Alarm("key_file", "info"))
    return found


def _by_hour(hours: HourlyCounts) -> list[Count]:
    return [Count(_clock_of(hour.begins_at), hour.answered, hour.failed, hour.tokens) for hour in hours.hours()]


async def _by_day(runtime: Runtime) -> list[Count]:
    today = date.fromisoformat(day_of(runtime.clock.now()))
    days = [(today - timedelta(days=back)).isoformat() for back in reversed(range(DAYS))]
    await runtime.ledger.flush()
    rows = await runtime.records.usage.rows(since=days[0], until=days[-1])
    by_day = {sums.name: sums for sums in group(rows, lambda row: row.day)}
    found = [by_day.get(day, Sums(day)) for day in days]
    return [Count(sums.name[5:], sums.requests, sums.errors, sums.tokens) for sums in found]


def _total(counts: Sequence[Count]) -> Count:
    return Count(
        "",
        sum(count.answered for count in counts),
        sum(count.failed for count in counts),
        sum(count.tokens for count in counts),
    )


def _chart(counts: Sequence[Count], what: str) -> Chart:
    return bar_chart([(count.label, getattr(count, what)) for count in counts])


def _clock_of(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%H:%M")


def _seconds(value: float | None) -> float | None:
    """Give seconds as a page shows them: to the hundredth, so that no more is claimed than is known."""
    return None if value is None else max(0.01, round(value, 2))
