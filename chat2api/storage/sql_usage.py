"""`SqlUsageRecords`: the usage ledger in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.schema import key_uses, usage
from chat2api.storage.sqlite import Database
from chat2api.storage.usage import KeyTotals, UsageRow

_MONTH = 7
_DAY = 10

# Written out, since SQLAlchemy has this clause once for each database; SQLite and PostgreSQL read the same words.
_ADD = sa.text("""
    INSERT INTO usage
        (day, key, account, model, requests, prompt_tokens, completion_tokens, images, seconds, errors)
    VALUES
        (:day, :key, :account, :model, :requests, :prompt_tokens, :completion_tokens, :images, :seconds, :errors)
    ON CONFLICT (day, key, account, model) DO UPDATE SET
        requests = usage.requests + excluded.requests,
        prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = usage.completion_tokens + excluded.completion_tokens,
        images = usage.images + excluded.images,
        seconds = usage.seconds + excluded.seconds,
        errors = usage.errors + excluded.errors
""")
_USE = sa.text("""
    INSERT INTO key_uses (key, last_at) VALUES (:key, :last_at)
    ON CONFLICT (key) DO UPDATE SET last_at = excluded.last_at WHERE excluded.last_at > key_uses.last_at
""")
_FOLD = sa.text("""
    INSERT INTO usage
        (day, key, account, model, requests, prompt_tokens, completion_tokens, images, seconds, errors)
    SELECT
        substr(day, 1, 7), key, account, model,
        sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(images), sum(seconds), sum(errors)
    FROM usage
    WHERE length(day) = 10 AND day < :before
    GROUP BY substr(day, 1, 7), key, account, model
    ON CONFLICT (day, key, account, model) DO UPDATE SET
        requests = usage.requests + excluded.requests,
        prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = usage.completion_tokens + excluded.completion_tokens,
        images = usage.images + excluded.images,
        seconds = usage.seconds + excluded.seconds,
        errors = usage.errors + excluded.errors
""")


class SqlUsageRecords:
    """`UsageRecords` on SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        """Serve this database."""
        self._database = database

    async def add(self, rows: Sequence[UsageRow], uses: Mapping[str, float] | None = None) -> None:
        """See UsageRecords."""
        values = [asdict(row) for row in rows]
        lasts = [{"key": key, "last_at": at} for key, at in (uses or {}).items()]

        def change(connection: sa.Connection) -> None:
            if values:
                connection.execute(_ADD, values)
            if lasts:
                connection.execute(_USE, lasts)

        if values or lasts:
            await self._database.write(change)

    async def rows(
        self, *, since: str | None = None, until: str | None = None, key: str | None = None
    ) -> tuple[UsageRow, ...]:
        """See UsageRecords."""
        query = sa.select(usage).order_by(usage.c.day, usage.c.key, usage.c.account, usage.c.model)
        if since is not None:
            # A month sorts before its own days.
            month = sa.and_(sa.func.length(usage.c.day) == _MONTH, usage.c.day >= since[:_MONTH])
            query = query.where(sa.or_(usage.c.day >= since, month))
        if until is not None:
            query = query.where(usage.c.day <= until)
        if key is not None:
            query = query.where(usage.c.key == key)
        found = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(UsageRow(**row) for row in found)

    async def totals(self, day: str) -> Mapping[str, KeyTotals]:
        """See UsageRecords."""
        tokens = usage.c.prompt_tokens + usage.c.completion_tokens
        today = usage.c.day == day
        sums = (
            sa.select(
                usage.c.key,
                sa.func.sum(sa.case((today, usage.c.requests), else_=0)).label("requests_today"),
                sa.func.sum(sa.case((today, tokens), else_=0)).label("tokens_today"),
                sa.func.sum(usage.c.requests).label("requests"),
                sa.func.sum(tokens).label("tokens"),
            )
            .group_by(usage.c.key)
            .subquery()
        )
        query = sa.select(sums, key_uses.c.last_at).outerjoin(key_uses, key_uses.c.key == sums.c.key)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {
            key: KeyTotals(int(requests_today), int(tokens_today), int(requests), int(tokens), last_at)
            for key, requests_today, tokens_today, requests, tokens, last_at in rows
        }

    async def roll_up(self, before: str) -> int:
        """See UsageRecords."""
        old = sa.delete(usage).where(sa.func.length(usage.c.day) == _DAY, usage.c.day < before)

        def change(connection: sa.Connection) -> int:
            connection.execute(_FOLD, {"before": before})
            return connection.execute(old).rowcount

        return await self._database.write(change)
