"""What was used and what is left: for the holder of an issued key their own, for the operator everybody's.

`/dashboard/billing/*` say the same in the form of OpenAI's old billing pages, which chat clients still read. There are no
prices here, so a "dollar" stands for a thousand tokens where the key has a token quota, else for one request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from quart import Blueprint, Response, request

from chat2api.api.body import check_names
from chat2api.api.context import current_caller, current_runtime
from chat2api.errors import InvalidRequestError, PermissionDeniedError
from chat2api.keys.reports import by, read_period, table, to_csv, total
from chat2api.keys.terms import Json, show_key, show_rooms
from chat2api.storage.keys import IssuedKey
from chat2api.storage.quotas import Room
from chat2api.storage.usage import UsageRow, day_of

blueprint = Blueprint("usage", __name__)

NO_LIMIT = 100_000_000.0
"""Dollars that clients are told where there is no quota; they cannot show "unlimited"."""

_TOKENS_PER_DOLLAR = 1000


@blueprint.get("/v1/usage")
async def usage() -> Json | Response:
    """Usage from `since` to `until` (dates; the last 30 days), by day and model; for the operator by key and account too.

    The operator may ask for one `key` and for `format=csv`.
    """
    return await report(*_whose())


async def report(key: IssuedKey | None, everything: bool) -> Json | Response:
    """Answer the current request with the usage of a key, or with everybody's. Raises InvalidRequestError."""
    runtime = current_runtime()
    names = ("since", "until", "key", "format") if everything else ("since", "until", "format")
    check_names(request.args, names)
    since, until = read_period(request.args.get("since"), request.args.get("until"), day_of(runtime.clock.now()))
    asked = request.args.get("key") if everything else (key.id if key is not None else None)
    rows = await _rows(since, until, asked)
    key_names = {one.id: one.name for one in runtime.keys.all()}
    form = request.args.get("format", "json")
    if form not in ("json", "csv"):
        raise InvalidRequestError("`format` must be json or csv.", param="format", code="invalid_value")
    if not everything:
        rows = tuple(_without_account(row) for row in rows)
    if form == "csv":
        return Response(
            to_csv(rows, key_names),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="usage-{since}-{until}.csv"'},
        )
    told: Json = {
        "object": "usage",
        "since": since,
        "until": until,
        "total": total(rows),
        "days": by("day", rows, lambda row: row.day),
        "models": by("model", rows, lambda row: row.model),
    }
    if key is not None:
        now = runtime.clock.now()
        return told | {"key": _for_its_holder(show_key(key, now)), "left": show_rooms(await runtime.quotas.rooms(key))}
    return told | {
        "keys": [group | {"name": key_names.get(str(group["key"]))} for group in by("key", rows, lambda row: row.key)],
        "accounts": by("account", rows, lambda row: row.account),
        "rows": table(rows, key_names),
    }


@blueprint.get("/dashboard/billing/subscription")
@blueprint.get("/v1/dashboard/billing/subscription")
async def subscription() -> Json:
    """How much the key may use, as OpenAI's old billing page said it."""
    key, _ = _whose()
    quota = await _quota(key)
    limit = NO_LIMIT if quota is None else quota.dollars(quota.room.limit)
    expires = key.expires_at if key is not None else None
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": limit,
        "hard_limit_usd": limit,
        "system_hard_limit_usd": limit,
        "access_until": int(expires) if expires is not None else 0,
        "unit": quota.unit if quota is not None else _Quota.REQUESTS,
    }


@blueprint.get("/dashboard/billing/usage")
@blueprint.get("/v1/dashboard/billing/usage")
async def billing_usage() -> Json:
    """How much was used, in cents: of the quota where there is one, whatever the dates say, so that the rest is right."""
    runtime = current_runtime()
    key, _ = _whose()
    today = day_of(runtime.clock.now())
    since, until = read_period(request.args.get("start_date"), request.args.get("end_date"), today)
    rows = await _rows(since, until, key.id if key is not None else None)
    quota = await _quota(key)
    days = [
        {
            "timestamp": _timestamp(str(day["day"])),
            "line_items": [{"name": "usage", "cost": 100 * _dollars(day, quota)}],
        }
        for day in by("day", rows, lambda row: row.day)
    ]
    used = _dollars(total(rows), quota) if quota is None else quota.dollars(quota.room.used)
    return {"object": "list", "total_usage": round(100 * used, 2), "daily_costs": days}


@dataclass(frozen=True, slots=True)
class _Quota:
    """The quota that a key's billing page is about."""

    room: Room

    REQUESTS = "1 USD = 1 request"
    TOKENS = f"1 USD = {_TOKENS_PER_DOLLAR} tokens"

    @property
    def counts_tokens(self) -> bool:
        return self.room.name.startswith("tokens")

    @property
    def unit(self) -> str:
        return self.TOKENS if self.counts_tokens else self.REQUESTS

    def dollars(self, amount: int) -> float:
        return amount / _TOKENS_PER_DOLLAR if self.counts_tokens else float(amount)


async def _quota(key: IssuedKey | None) -> _Quota | None:
    """Give the quota that ends first for good: all tokens, else all requests, else a day's."""
    if key is None:
        return None
    rooms = {room.name: room for room in await current_runtime().quotas.rooms(key)}
    order = ("tokens_total", "requests_total", "tokens_per_day", "requests_per_day")
    return next((_Quota(rooms[name]) for name in order if name in rooms), None)


def _timestamp(day: str) -> float:
    """Give the beginning of a day, or of a month of which only the sum is kept, in Unix seconds."""
    return datetime.strptime(day if len(day) == 10 else f"{day}-01", "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def _dollars(sums: Json, quota: _Quota | None) -> float:
    amount = sums["total_tokens" if quota is not None and quota.counts_tokens else "requests"]
    assert isinstance(amount, int)
    return quota.dollars(amount) if quota is not None else float(amount)


def _whose() -> tuple[IssuedKey | None, bool]:
    """Give whose usage the caller may see: their own key's, or (None, True) for everybody's."""
    caller = current_caller()
    if caller.key is not None:
        return caller.key, False
    if caller.kind == "operator":
        return None, True
    raise PermissionDeniedError("Usage is told to the holders of issued keys and to the operator of this server.")


async def _rows(since: str, until: str, key: str | None) -> Sequence[UsageRow]:
    runtime = current_runtime()
    await runtime.ledger.flush()
    return await runtime.records.usage.rows(since=since, until=until, key=key)


def _without_account(row: UsageRow) -> UsageRow:
    """Give a row as the holder of a key may see it: the operator's accounts are no business of theirs."""
    return UsageRow(
        row.day,
        row.key,
        "",
        row.model,
        row.requests,
        row.prompt_tokens,
        row.completion_tokens,
        row.images,
        row.seconds,
        row.errors,
    )


def _for_its_holder(shown: Json) -> Json:
    return {name: value for name, value in shown.items() if name not in ("note", "accounts", "groups")}
