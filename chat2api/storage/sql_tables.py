"""What each intention of `Records` does to the tables, inside one transaction that somebody else began.

`Tables` lives as long as that transaction. Everything here is synchronous and runs on the thread of the connection.
Only standard SQL: what differs between SQLite and PostgreSQL is in how a transaction begins.
"""

import json
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from chat2api.storage.schema import accounts, conversations, cooldowns, meta, token_digests
from chat2api.storage.sealing import Sealer
from chat2api.storage.sql_tokens import ACCOUNT_BY_TOKEN, TokenTables, never_renewed
from chat2api.storage.values import (
    TOMBSTONE_SECONDS,
    Account,
    AccountFacts,
    AccountState,
    Activity,
    Added,
    Changes,
    Cooldown,
    FreshTokens,
    Known,
    NewAccount,
    RefreshIntent,
    RefreshView,
)

MERGED = "merged"
"""The reason of a tombstone whose account was folded into another; such a one is not brought back."""


# Built once: building a statement costs more than SQLite's work on it.
_ACCOUNT_BY_ID = sa.select(accounts).where(accounts.c.id == sa.bindparam("account_id"))
_META = sa.select(meta.c.value).where(meta.c.name == sa.bindparam("wanted"))
_LOCKED_META = _META.with_for_update()
_UPDATE_META = sa.update(meta).where(meta.c.name == sa.bindparam("wanted")).values(value=sa.bindparam("new_value"))
_MARK = sa.select(meta.c.name, meta.c.value).where(meta.c.name.in_(("store_id", "rotations")))
_LAST_POSITION = sa.select(sa.func.max(accounts.c.position))
_INSERT_ACCOUNT = sa.insert(accounts)

_KEYED = frozenset({"user_id", "workspace_id", "home_workspace_id", "owner", "deleted_at"})
"""The columns that the merge key is made of."""


class Tables:
    """The tables within one transaction."""

    def __init__(self, connection: sa.Connection, sealer: Sealer) -> None:
        """Work on this connection, with these keys."""
        self._db = connection
        self.tokens = TokenTables(connection, sealer)
        self._revision: int | None = None

    # Single values

    def get_meta(self, name: str) -> str | None:
        """Give a single value."""
        return self._db.scalar(_META, {"wanted": name})

    def mark(self) -> tuple[str, int]:
        """Give whose database this is, and how many refreshes it has seen."""
        found = {name: value for name, value in self._db.execute(_MARK)}
        return found.get("store_id", ""), int(found.get("rotations", 0))

    def set_meta(self, name: str, value: str) -> None:
        """Store a single value."""
        if not self._db.execute(_UPDATE_META, {"wanted": name, "new_value": value}).rowcount:
            self._db.execute(sa.insert(meta).values(name=name, value=value))

    def count_meta(self, name: str) -> int:
        """Raise a number by one and give it; the row stays locked until the transaction ends."""
        value = self._db.scalar(_LOCKED_META, {"wanted": name})
        number = int(value or 0) + 1
        self.set_meta(name, str(number))
        return number

    # Accounts

    def account(self, account_id: str) -> Account | None:
        """Give one account."""
        row = self._db.execute(_ACCOUNT_BY_ID, {"account_id": account_id}).mappings().one_or_none()
        return _to_account(row) if row else None

    def account_by_token(self, token: str) -> Account | None:
        """Give the account that ever had this token, tombstones included."""
        row = self._db.execute(ACCOUNT_BY_TOKEN, {"digest": self.tokens.digest(token)}).mappings().one_or_none()
        return _to_account(row) if row else None

    def changes(self, since: int) -> Changes:
        """Give what changed after a revision."""
        revision = int(self.get_meta("revision") or 0)
        found = self._db.execute(
            sa.select(accounts).where(accounts.c.revision > since).order_by(accounts.c.position)
        ).mappings()
        waits = self._db.execute(sa.select(cooldowns).where(cooldowns.c.revision > since)).mappings()
        return Changes(revision, tuple(map(_to_account, found)), tuple(map(_to_cooldown, waits)))

    def known(self, new: NewAccount) -> Known:
        """Find the account that a new one is."""
        workspace = new.workspace_id or new.identity.home_workspace_id
        token, key = _lookup_token(new), _merge_key(new.owner, new.identity.user_id, workspace)
        account = self.account_by_token(token)
        # An AccessToken that a caller used before is of the pool's account of its user, where there is one: folding that
        # into the caller's would take the RefreshToken with it.
        is_taken = account is not None and account.owner is not None and new.owner is None
        if key is not None and (account is None or (is_taken and new.secrets.renewable is None)):
            account = self._one_account(accounts.c.merge_key == key) or account
        if account is None and new.secrets.access is not None and new.secrets.renewable is not None:
            account = self.account_by_token(new.secrets.access)
        return Known(account, self.tokens.label(token), key)

    def add(self, new: NewAccount, now: float) -> Added:
        """Add one account, or merge it into the one that it is."""
        token, known = _lookup_token(new), self.known(new).account
        if known is None:
            return Added(self._insert(new, token, now), "added")
        if new.owner is not None and known.owner != new.owner:
            # Somebody else brought the very same token before; it works for whoever has it, and stays where it is.
            return Added(known, "unchanged")
        return self._merge(known, new, now)

    def update_account(self, account_id: str, now: float | None, /, **values: object) -> Account:
        """Change columns of a row that exists, with its revision and merge key, and give the row.

        `now` is None where no column of the merge key changes; else another account may turn out to be the same one.
        """
        self._db.execute(
            sa.update(accounts).where(accounts.c.id == account_id).values(**values, revision=self._next_revision())
        )
        if "deleted_at" in values and values["deleted_at"] is None:
            # Whoever forgot the account has forgotten its waits too: they are told once more.
            again = sa.update(cooldowns).where(cooldowns.c.account_id == account_id)
            self._db.execute(again.values(revision=self._next_revision()))
        changed = self.account(account_id)
        assert changed is not None
        if not _KEYED.isdisjoint(values):
            assert now is not None
            self._claim_merge_key(changed, now)
        return changed

    def set_state(self, seen: Account, state: AccountState, reason: str | None, now: float) -> Account | None:
        """Set the state of a row that is still as it was seen; what its operator disabled stays so."""
        present = self.account(seen.id)
        if present is None or present.revision != seen.revision or present.state == "disabled":
            return None
        return self.update_account(seen.id, now, state=state, reason=reason, state_at=now)

    def set_enabled(self, account_id: str, enabled: bool, now: float) -> Account | None:
        """Set a living account aside, or let it serve again; an open intent is a doubt again then."""
        present = self.account(account_id)
        if present is None or present.deleted_at is not None:
            return None
        if (present.state != "disabled") is enabled:
            return present
        values: dict[str, object] = {"state": "disabled", "reason": "by_operator"}
        if enabled and self.tokens.intent(account_id) is not None:
            values = {"state": "in_doubt", "reason": "unknown_outcome"}
        elif enabled:
            values = {"state": "ok", "reason": None}
        return self.update_account(account_id, now, **values, state_at=now)

    def set_details(self, account_id: str, *, note: str | None, groups: Sequence[str] | None) -> Account | None:
        """Store the operator's words for a living account; None leaves what is there."""
        present = self.account(account_id)
        if present is None or present.deleted_at is not None:
            return None
        values: dict[str, object] = {}
        if note is not None:
            values["note"] = note
        if groups is not None:
            values["groups_json"] = _to_json(list(dict.fromkeys(groups)))
        return self.update_account(account_id, None, **values) if values else present

    def put_facts(self, account_id: str, facts: AccountFacts, now: float) -> Account | None:
        """Store what the backend told of an account."""
        if self.account(account_id) is None:
            return None
        values: dict[str, object] = {"facts_at": now}
        if facts.plan is not None:
            values["plan"] = facts.plan
        if facts.models is not None:
            values["models_json"] = _to_json(facts.models)
        if facts.capabilities is not None:
            values["capabilities_json"] = _to_json(facts.capabilities)
        return self.update_account(account_id, now, **values)

    def put_activity(self, activity: Iterable[Activity]) -> None:
        """Store how accounts fared; their revisions stay, so that nobody reads them all again for it."""
        for one in activity:
            values: dict[str, object] = {}
            if one.last_used_at is not None:
                values["last_used_at"] = one.last_used_at
            if one.last_error_at is not None:
                values |= {"last_error": one.last_error, "last_error_at": one.last_error_at}
            if values:
                self._db.execute(sa.update(accounts).where(accounts.c.id == one.account_id).values(**values))

    def deleted(self, now: float) -> tuple[Account, ...]:
        """Give the pool's tombstones that can be brought back, the last deleted first."""
        query = sa.select(accounts).where(accounts.c.deleted_at > now - TOMBSTONE_SECONDS, accounts.c.owner.is_(None))
        query = query.where(accounts.c.reason.is_distinct_from(MERGED)).order_by(accounts.c.deleted_at.desc())
        return tuple(_to_account(row) for row in self._db.execute(query).mappings())

    def delete(self, ids: Sequence[str] | None, now: float) -> int:
        """Turn living accounts into tombstones."""
        living = sa.select(accounts.c.id).where(accounts.c.deleted_at.is_(None))
        living = living.where(accounts.c.owner.is_(None) if ids is None else accounts.c.id.in_(ids))
        found = self._db.scalars(living).all()
        for account_id in found:
            self.update_account(account_id, now, deleted_at=now)
        return len(found)

    def restore(self, now: float, ids: Sequence[str] | None) -> int:
        """Bring tombstones back, except those whose user and workspace came back by another way."""
        count = 0
        for account in self.deleted(now):
            if ids is not None and account.id not in ids:
                continue
            key = _merge_key(account.owner, account.user_id, account.workspace)
            if key is None or self._one_account(accounts.c.merge_key == key) is None:
                self.update_account(account.id, now, deleted_at=None)
                count += 1
        return count

    def sweep(self, now: float) -> None:
        """Erase what is past its time, and begin with what callers brought and never was good for anything."""
        limit = now - TOMBSTONE_SECONDS
        worthless = never_renewed(limit)
        if self._db.scalar(sa.select(accounts.c.id).where(*worthless).limit(1)) is not None:
            gone = {"deleted_at": now, "merge_key": None, "revision": self._next_revision()}
            self._db.execute(sa.update(accounts).where(*worthless).values(gone))
        self._db.execute(sa.delete(accounts).where(accounts.c.deleted_at <= limit))
        self.tokens.drop_previous(limit)
        self._db.execute(sa.delete(cooldowns).where(cooldowns.c.until_at <= now))

    # Tokens

    def refresh_view(self, account_id: str) -> RefreshView | None:
        """Give an account with its tokens and intent."""
        account = self.account(account_id)
        if account is None:
            return None
        return RefreshView(account, self.tokens.secrets(account_id), self.tokens.intent(account_id))

    def begin_refresh(self, account: Account, replica: str, now: float) -> RefreshIntent | None:
        """Store an intent if the account is as its writer saw it and none stands."""
        view = self.refresh_view(account.id)
        if view is None or view.intent is not None or view.account.generation != account.generation:
            return None
        if view.secrets.renewable is None or view.account.deleted_at is not None:
            return None
        return self.tokens.begin_intent(account, view.secrets.renewable, replica, now)

    def complete_refresh(self, intent: RefreshIntent, fresh: FreshTokens, now: float) -> Account | None:
        """Store the successors of the token that the account has; None when it has another one by now.

        Its intent may be gone, since its operator brought that token again meanwhile: the token is consumed all the same.
        """
        view = self.refresh_view(intent.account_id)
        if view is None:
            return None
        old = view.secrets.renewable
        rotated = fresh.renewable is not None and fresh.renewable != old
        if old is None or self.tokens.digest(old) != intent.token_digest:
            return None
        if not self.tokens.end_intent(intent) and (view.intent is not None or not rotated):
            return None
        self.tokens.store(intent.account_id, "access", fresh.access, now)
        if rotated and fresh.renewable is not None:
            self.tokens.store(intent.account_id, "previous", old, now)
            self.tokens.store(intent.account_id, "renewable", fresh.renewable, now)
            self.tokens.remember(fresh.renewable, intent.account_id, now)
        self.count_meta("rotations")
        learnt = {
            name: value
            for name, value in asdict(fresh.identity).items()
            if value and value != getattr(view.account, name)
        }
        return self.update_account(
            intent.account_id,
            now,
            **_unless_disabled(view.account, state="ok", reason=None, state_at=now),
            generation=view.account.generation + 1,
            expires_at=fresh.expires_at,
            rotates=rotated,
            **learnt,
        )

    def abandon_refresh(
        self, intent: RefreshIntent, now: float, state: AccountState | None, reason: str | None
    ) -> Account | None:
        """End an intent without new tokens; what it learnt is not of an account that got other tokens meanwhile."""
        account = self.account(intent.account_id)
        if account is None or not self.tokens.end_intent(intent):
            return None
        if state is None or account.generation != intent.generation:
            return account
        return self.update_account(
            intent.account_id, now, **_unless_disabled(account, state=state, reason=reason, state_at=now)
        )

    # Cooldowns

    def put_cooldowns(self, waits: Iterable[Cooldown]) -> None:
        """Store waits of accounts that exist."""
        waits = list(waits)
        known = set(
            self._db.scalars(sa.select(accounts.c.id).where(accounts.c.id.in_({wait.account_id for wait in waits})))
        )
        for wait in waits:
            if wait.account_id in known:
                self._put_cooldown(wait)

    def _put_cooldown(self, wait: Cooldown) -> None:
        same = (cooldowns.c.account_id == wait.account_id, cooldowns.c.model == wait.model)
        values = {
            "until_at": wait.until_at,
            "stated": wait.stated,
            "reason": wait.reason,
            "strikes": wait.strikes,
            "revision": self._next_revision(),
        }
        if not self._db.execute(sa.update(cooldowns).where(*same).values(**values)).rowcount:
            self._db.execute(sa.insert(cooldowns).values(account_id=wait.account_id, model=wait.model, **values))

    # What the above is made of

    def _next_revision(self) -> int:
        """Give this transaction's revision; all its rows share it."""
        if self._revision is None:
            self._revision = self.count_meta("revision")
        return self._revision

    def _one_account(self, condition: sa.ColumnElement[bool]) -> Account | None:
        row = self._db.execute(sa.select(accounts).where(condition)).mappings().one_or_none()
        return _to_account(row) if row else None

    def _insert(self, new: NewAccount, token: str, now: float) -> Account:
        account = Account(
            id=f"acc_{secrets.token_hex(8)}",
            label=self.tokens.label(token),
            kind=new.kind,
            state="ok",
            reason=None,
            state_at=now,
            plan=new.identity.plan,
            user_id=new.identity.user_id,
            workspace_id=new.workspace_id,
            home_workspace_id=new.identity.home_workspace_id,
            email=new.identity.email,
            device_id=new.device_id or str(uuid.uuid4()),
            expires_at=new.expires_at,
            generation=0,
            added_at=now,
            owner=new.owner,
            rotates=None,
            deleted_at=None,
            revision=self._next_revision(),
        )
        last = self._db.scalar(_LAST_POSITION)
        # `add` looked for the key before: nobody has it.
        key = _merge_key(account.owner, account.user_id, account.workspace)
        self._db.execute(_INSERT_ACCOUNT, {**_to_row(account), "position": (last or 0) + 1, "merge_key": key})
        self.tokens.insert(account.id, (("access", new.secrets.access), ("renewable", new.secrets.renewable)), now)
        for seen in {token, new.secrets.access or token}:
            self.tokens.remember(seen, account.id, now)
        return account

    def _merge(self, known: Account, new: NewAccount, now: float) -> Added:
        """Take over what is new. A token that was seen before and is not the present one is consumed: ignored."""
        held = self.tokens.secrets(known.id)
        values: dict[str, object] = {}
        renewable, access = new.secrets.renewable, new.secrets.access
        consumed = renewable is not None and renewable != held.renewable and self.tokens.remembers(renewable)
        if renewable is not None and not consumed:
            if renewable != held.renewable:
                if held.renewable is not None:
                    self.tokens.store(known.id, "previous", held.renewable, now)
                self.tokens.store(known.id, "renewable", renewable, now)
                self.tokens.remember(renewable, known.id, now)
                values |= {"kind": new.kind, "generation": known.generation + 1, "rotates": None}
            # Pasting the present token again is the operator's word that it may be tried again.
            self.tokens.drop_intent(known.id)
        if access is not None and access != held.access and (new.expires_at or 0) >= (known.expires_at or 0):
            self.tokens.store(known.id, "access", access, now)
            values |= {"generation": known.generation + 1, "expires_at": new.expires_at}
            if renewable is None:
                self.tokens.remember(_lookup_token(new), known.id, now)
        if not consumed and known.state in ("needs_sign_in", "in_doubt"):
            values |= {"state": "ok", "reason": None, "state_at": now}
        values |= {
            name: value
            for name, value in (
                ("workspace_id", new.workspace_id),
                ("user_id", new.identity.user_id),
                ("home_workspace_id", new.identity.home_workspace_id),
                ("plan", new.identity.plan),
                ("email", new.identity.email),
            )
            if value is not None and value != getattr(known, name)
        }
        if known.deleted_at is not None:
            values["deleted_at"] = None
        if known.owner is not None and new.owner is None:
            values["owner"] = None
        if not values:
            return Added(known, "unchanged")
        return Added(self.update_account(known.id, now, **values), "merged")

    def _claim_merge_key(self, account: Account, now: float) -> None:
        """Give the row its merge key; whoever had the same key is the same account and is folded into it."""
        key = None
        if account.deleted_at is None:
            key = _merge_key(account.owner, account.user_id, account.workspace)
        if key is not None:
            twin = self._one_account(sa.and_(accounts.c.merge_key == key, accounts.c.id != account.id))
            if twin is not None:
                self._fold(twin, account, now)
        self._db.execute(sa.update(accounts).where(accounts.c.id == account.id).values(merge_key=key))

    def _fold(self, twin: Account, into: Account, now: float) -> None:
        """Make the twin a tombstone and hand over what others may look for: tokens seen, conversations, waits."""
        for table in (token_digests, conversations):
            self._db.execute(sa.update(table).where(table.c.account_id == twin.id).values(account_id=into.id))
        waits = self._db.execute(sa.select(cooldowns).where(cooldowns.c.account_id == twin.id, cooldowns.c.stated))
        for wait in [_to_cooldown(row) for row in waits.mappings()]:
            query = sa.select(cooldowns.c.until_at).where(
                cooldowns.c.account_id == into.id, cooldowns.c.model == wait.model
            )
            if (self._db.scalar(query) or 0) < wait.until_at:
                self._put_cooldown(Cooldown(into.id, wait.model, wait.until_at, wait.stated, wait.reason, wait.strikes))
        self._db.execute(
            sa.update(accounts)
            .where(accounts.c.id == twin.id)
            .values(
                merge_key=None,
                deleted_at=now,
                state="disabled",
                reason=MERGED,
                state_at=now,
                revision=self._next_revision(),
            )
        )


def _unless_disabled(account: Account, **values: object) -> dict[str, object]:
    """Give these values, or none for an account that its operator set aside: only they end that."""
    return {} if account.state == "disabled" else values


def _lookup_token(new: NewAccount) -> str:
    """Give the text that a new account is known again by.

    One AccessToken may serve several workspaces, as an account each; a renewable token cannot, since each use may
    replace it.
    """
    if new.secrets.renewable is not None:
        return new.secrets.renewable
    if new.secrets.access is not None:
        return f"{new.secrets.access},{new.workspace_id}" if new.workspace_id else new.secrets.access
    if new.device_id is None:
        raise ValueError("an account needs a token or a device id")
    return new.device_id


def _merge_key(owner: str | None, user_id: str | None, workspace: str | None) -> str | None:
    """Give what must be unique among living accounts; callers' private accounts never meet the pool's."""
    return f"{owner or ''}|{user_id}|{workspace or ''}" if user_id else None


_LISTS = ("groups", "models", "capabilities")
"""Fields of an account that are stored as JSON, in columns of the same name with `_json` behind."""


def _to_account(row: sa.RowMapping) -> Account:
    values = {name: value for name, value in row.items() if name not in ("position", "merge_key")}
    for name in _LISTS:
        values[name] = tuple(json.loads(values.pop(f"{name}_json")))
    return Account(**values)


def _to_row(account: Account) -> dict[str, object]:
    values: dict[str, object] = asdict(account)
    for name in _LISTS:
        values[f"{name}_json"] = _to_json(values.pop(name))
    return values


def _to_json(names: object) -> str:
    return json.dumps(names, ensure_ascii=False)


def _to_cooldown(row: sa.RowMapping) -> Cooldown:
    return Cooldown(**{name: value for name, value in row.items() if name != "revision"})
