"""The accounts' sealed tokens, the digests of all that were seen, and the intents to send one: within a transaction.

Beside `sql_tables`, which knows the accounts themselves and uses this.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from chat2api.storage.schema import accounts, refresh_intents, token_digests, tokens
from chat2api.storage.sealing import Sealer
from chat2api.storage.values import Account, RefreshIntent, Secrets

ACCOUNT_BY_TOKEN = sa.select(accounts).where(
    accounts.c.id.in_(sa.select(token_digests.c.account_id).where(token_digests.c.digest == sa.bindparam("digest")))
)
"""Finds the row of the account that ever had the token of that digest."""

# Built once: a renewed token waits for these, and building a statement costs more than SQLite's work on it.
_TOKENS = sa.select(tokens).where(tokens.c.account_id == sa.bindparam("of_account"))
_UPDATE_TOKEN = (
    sa.update(tokens)
    .where(tokens.c.account_id == sa.bindparam("of_account"), tokens.c.name == sa.bindparam("of_name"))
    .values({name: sa.bindparam(name) for name in ("sealed", "key_version", "stored_at")})
)
_UPDATE_DIGEST = (
    sa.update(token_digests)
    .where(token_digests.c.digest == sa.bindparam("seen"))
    .values(account_id=sa.bindparam("account_id"))
)
_INTENT = sa.select(refresh_intents).where(refresh_intents.c.account_id == sa.bindparam("of_account"))
_INSERT_TOKEN = sa.insert(tokens)
_INSERT_DIGEST = sa.insert(token_digests)


def never_renewed(until: float) -> tuple[sa.ColumnElement[bool], ...]:
    """Give the condition of callers' accounts that were added until then and whose token never brought anything."""
    return (
        accounts.c.owner.is_not(None),
        accounts.c.kind.in_(("refresh", "session")),
        accounts.c.generation == 0,
        accounts.c.added_at <= until,
        accounts.c.deleted_at.is_(None),
        accounts.c.id.not_in(sa.select(refresh_intents.c.account_id)),
    )


class TokenTables:
    """The tables of tokens within one transaction."""

    def __init__(self, connection: sa.Connection, sealer: Sealer) -> None:
        """Work on this connection, with these keys."""
        self._db = connection
        self._sealer = sealer

    def digest(self, token: str) -> str:
        """Give the keyed digest by which a token is known again."""
        return self._sealer.digest("token", token)

    def label(self, token: str) -> str:
        """Give the short name that pages and logs show for an account with this token."""
        return self._sealer.digest("label", token)[:10]

    def secrets(self, account_id: str) -> Secrets:
        """Give an account's tokens in clear."""
        rows = self._db.execute(_TOKENS, {"of_account": account_id}).mappings()
        return Secrets(
            **{
                row["name"]: self._sealer.open(
                    "tokens", f"{account_id}/{row['name']}", "sealed", row["key_version"], row["sealed"]
                )
                for row in rows
            }
        )

    def insert(self, account_id: str, given: Sequence[tuple[str, str | None]], now: float) -> None:
        """Store the tokens of a new account, by name."""
        sealed = [self._seal(account_id, name, plain, now) for name, plain in given if plain is not None]
        if sealed:
            self._db.execute(_INSERT_TOKEN, sealed)

    def store(self, account_id: str, name: str, plain: str, now: float) -> None:
        """Store a token in place of the one of that name."""
        row = self._seal(account_id, name, plain, now)
        changed = {key: row[key] for key in ("sealed", "key_version", "stored_at")}
        if not self._db.execute(_UPDATE_TOKEN, {"of_account": account_id, "of_name": name, **changed}).rowcount:
            self._db.execute(_INSERT_TOKEN, row)

    def drop_previous(self, until: float) -> None:
        """Erase replaced tokens that were stored until then."""
        self._db.execute(sa.delete(tokens).where(tokens.c.name == "previous", tokens.c.stored_at <= until))

    def remembers(self, token: str) -> bool:
        """Tell whether any account ever had this token."""
        query = sa.select(token_digests.c.digest).where(token_digests.c.digest == self.digest(token))
        return self._db.scalar(query) is not None

    def remember(self, token: str, account_id: str, now: float) -> None:
        """Note that the account has this token."""
        digest = self.digest(token)
        if not self._db.execute(_UPDATE_DIGEST, {"seen": digest, "account_id": account_id}).rowcount:
            self._db.execute(_INSERT_DIGEST, {"digest": digest, "account_id": account_id, "seen_at": now})

    def reseal(self, limit: int) -> int:
        """Seal up to that many secrets of older key versions with the newest one; give how many there were."""
        query = sa.select(tokens).where(tokens.c.key_version != self._sealer.version).limit(limit)
        rows = self._db.execute(query).mappings().all()
        for row in rows:
            place = f"{row['account_id']}/{row['name']}"
            plain = self._sealer.open("tokens", place, "sealed", row["key_version"], row["sealed"])
            self._db.execute(
                sa.update(tokens)
                .where(tokens.c.account_id == row["account_id"], tokens.c.name == row["name"])
                .values(sealed=self._sealer.seal("tokens", place, "sealed", plain), key_version=self._sealer.version)
            )
        return len(rows)

    # Intents

    def intent(self, account_id: str) -> RefreshIntent | None:
        """Give the intent of an account."""
        found = self._db.execute(_INTENT, {"of_account": account_id})
        row = found.mappings().one_or_none()
        return RefreshIntent(**row) if row else None

    def doubts(self) -> tuple[RefreshIntent, ...]:
        """Give all intents."""
        query = sa.select(refresh_intents).order_by(refresh_intents.c.started_at)
        return tuple(RefreshIntent(**row) for row in self._db.execute(query).mappings())

    def begin_intent(self, account: Account, renewable: str, replica: str, now: float) -> RefreshIntent:
        """Store the intent to send that token; the caller has seen that none stands."""
        intent = RefreshIntent(account.id, account.generation, self.digest(renewable), now, replica, None)
        self._db.execute(
            sa.insert(refresh_intents).values(
                account_id=intent.account_id,
                generation=intent.generation,
                token_digest=intent.token_digest,
                started_at=now,
                replica=replica,
            )
        )
        return intent

    def claim_doubt(self, intent: RefreshIntent, replica: str, now: float) -> RefreshIntent | None:
        """Mark an intent as tried again, once."""
        changed = self._db.execute(
            sa.update(refresh_intents)
            .where(*_same_intent(intent), refresh_intents.c.retried_at.is_(None))
            .values(retried_at=now, replica=replica)
        )
        return self.intent(intent.account_id) if changed.rowcount else None

    def end_intent(self, intent: RefreshIntent) -> bool:
        """End the very intent; tell whether it still stood."""
        return bool(self._db.execute(sa.delete(refresh_intents).where(*_same_intent(intent))).rowcount)

    def drop_intent(self, account_id: str) -> None:
        """End whatever intent the account has: its operator brought the token again."""
        self._db.execute(sa.delete(refresh_intents).where(refresh_intents.c.account_id == account_id))

    def _seal(self, account_id: str, name: str, plain: str, now: float) -> dict[str, object]:
        """Give the row of a token."""
        return {
            "account_id": account_id,
            "name": name,
            "sealed": self._sealer.seal("tokens", f"{account_id}/{name}", "sealed", plain),
            "key_version": self._sealer.version,
            "stored_at": now,
        }


def _same_intent(intent: RefreshIntent) -> tuple[sa.ColumnElement[bool], ...]:
    """Give the condition that the very intent still stands, in the hands of the same replica."""
    return (
        refresh_intents.c.account_id == intent.account_id,
        refresh_intents.c.generation == intent.generation,
        refresh_intents.c.started_at == intent.started_at,
        refresh_intents.c.replica == intent.replica,
    )
