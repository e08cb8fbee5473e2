"""Bringing a copy of the records back into a store that may be in use, as one transaction.

Theory of operation. What the copy has replaces what is here, with three exceptions, each because the opposite could not
be made good again. Tokens: an account that was renewed after the copy was made stays as it is here, since the copy's
token is consumed. Doors: an issued key that was revoked or replaced after the copy was made stays so, and sign-ins do not
come back. Memory: accounts that the copy does not know become tombstones, which can be undone for a day; waits,
conversations and usage of after the copy stay.

Where a refresh token comes back without anything here that vouches for it, nothing is renewed until the operator
confirms. Whatever runs beside this sees new revisions, and a new version of the data key, and reads everything anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chat2api.storage.schema import (
    accounts,
    conversation_files,
    conversations,
    cooldowns,
    issued_keys,
    keyring,
    meta,
    metadata,
    refresh_intents,
    token_digests,
    tokens,
)
from chat2api.storage.sealing import Sealer

Row = dict[str, Any]

SIGN_INS = "sign_ins"
INVITATIONS = "invitations"
"""The table of people who are signed in, if there is one: an old sign-in must not come back to life."""

_OPERATOR_KEY = "operator_key_digest"
_BATCH = 500

_UNTOLD = frozenset({"revision", "position", "state_at", "last_used_at", "last_error", "last_error_at"})
"""Columns in which a difference is no change worth telling."""

_SECRET_COLUMNS = ("digest", "shown", "previous_digest", "previous_until_at", "rotated_at")


@dataclass(frozen=True, slots=True)
class Restoration:
    """What bringing a copy back changes: accounts by label, issued keys by name.

    accounts_kept were renewed after the copy was made and stay as they are; keys_kept were revoked or replaced after it and
    stay so. accounts_removed and keys_revoked are those that the copy does not know. accounts_in_doubt come with a token
    that may be consumed. `must_confirm`: nothing is renewed until the operator confirms.

    keys_added were not here before, so nobody here knows whether one of them was revoked or replaced meanwhile.
    """

    accounts_added: tuple[str, ...]
    accounts_changed: tuple[str, ...]
    accounts_kept: tuple[str, ...]
    accounts_removed: tuple[str, ...]
    keys_added: tuple[str, ...]
    keys_changed: tuple[str, ...]
    keys_revoked: tuple[str, ...]
    keys_kept: tuple[str, ...]
    accounts_in_doubt: tuple[str, ...]
    conversations_added: int
    must_confirm: bool


def bring_back(here: sa.Connection, copy: sa.Connection, sealer: Sealer, after: Sealer, now: float) -> Restoration:
    """Change the store `here` to what `copy` has; the caller stores the keys of `after`.

    `sealer` opens what is here; `after` opens what is in the copy, and seals what stays.
    """
    return _Restore(here, copy, sealer, after, now).run()


class _Restore:
    """One run of `bring_back`."""

    def __init__(self, here: sa.Connection, copy: sa.Connection, sealer: Sealer, after: Sealer, now: float) -> None:
        self._here = here
        self._copy = copy
        self._sealer = sealer
        self._after = after
        self._now = now
        self._meta_here, self._meta_copy = _meta(here), _meta(copy)
        self._same_store = self._meta_here.get("store_id") == self._meta_copy.get("store_id")
        self._accounts_here = _by_id(here, accounts)
        self._accounts_copy = _by_id(copy, accounts)
        self._kept, self._folded = self._find_kept()
        self._staying = self._kept | (self._accounts_here.keys() - self._accounts_copy.keys())
        """Accounts that are taken from here, with their tokens: those kept, and those that become tombstones."""

    def run(self) -> Restoration:
        in_doubt = self._find_doubts()
        must_confirm = bool(in_doubt) or self._meta_here.get("restored") == "1"
        found = self._compare_accounts()
        staying = {account_id: self._secrets(account_id) for account_id in self._staying}
        children = {
            table: self._merge_children(table)
            for table in (token_digests, refresh_intents, cooldowns, conversations, tokens)
        }
        files = self._merge_children(conversation_files)
        conversations_here = {row["conversation_id"] for row in _rows(self._here, conversations)}
        for table in (*children, accounts):
            self._here.execute(sa.delete(table))
        inserted = self._put_accounts()
        for table, rows in children.items():
            _insert(self._here, table, (row for row in rows if row["account_id"] in inserted))
        owned = {row["conversation_id"] for row in _rows(self._here, conversations)}
        _insert(self._here, conversation_files, (row for row in files if row["conversation_id"] in owned))
        for account_id, secrets in staying.items():
            self._put_secrets(account_id, secrets)
        keys = self._put_keys()
        self._unite_others()
        self._put_meta(must_confirm)
        return Restoration(
            **found,
            **keys,
            accounts_in_doubt=in_doubt,
            conversations_added=sum(
                row["conversation_id"] not in conversations_here and row["account_id"] in inserted
                for row in children[conversations]
            ),
            must_confirm=must_confirm,
        )

    # What stays, what comes

    def _find_kept(self) -> tuple[set[str], set[str]]:
        """Find the accounts that stay because they were renewed since, and the copy's accounts that are left out.

        A renewal may have shown that two accounts are one. Then the other one is what it is here, if it is here.
        """
        if not self._same_store:
            return set(), set()
        both = self._accounts_here.keys() & self._accounts_copy.keys()
        kept = {one for one in both if self._accounts_here[one]["generation"] > self._accounts_copy[one]["generation"]}
        claimed = {self._accounts_here[one]["merge_key"] for one in kept} - {None}
        twins = {one for one, row in self._accounts_copy.items() if row["merge_key"] in claimed}
        return kept | (twins & both), twins - both

    def _find_doubts(self) -> tuple[str, ...]:
        """Give the labels of accounts whose token may be consumed: nobody here has it at the same generation."""
        renewable = set(self._copy.scalars(sa.select(tokens.c.account_id).where(tokens.c.name == "renewable")))
        return tuple(
            there["label"]
            for account_id, there in self._accounts_copy.items()
            if account_id in renewable - self._staying - self._folded and not self._is_newest(account_id)
        )

    def _is_newest(self, account_id: str) -> bool:
        """Whether the copy's token of an account is the newest that is known here."""
        present = self._accounts_here.get(account_id) if self._same_store else None
        return present is not None and present["generation"] == self._accounts_copy[account_id]["generation"]

    def _compare_accounts(self) -> dict[str, tuple[str, ...]]:
        added, changed, kept, removed = [], [], [], []
        for account_id, there in self._accounts_copy.items():
            present = self._accounts_here.get(account_id)
            lives = there["deleted_at"] is None and account_id not in self._folded
            if account_id in self._kept:
                if present is not None and present["deleted_at"] is None:
                    kept.append(present["label"])
            elif present is None or (present["deleted_at"] is not None and lives):
                if lives:
                    added.append(there["label"])
            elif _differ(present, there):
                changed.append(there["label"])
        for account_id, present in self._accounts_here.items():
            if account_id not in self._accounts_copy and present["deleted_at"] is None:
                removed.append(present["label"])
        return {
            "accounts_added": tuple(added),
            "accounts_changed": tuple(changed),
            "accounts_kept": tuple(kept),
            "accounts_removed": tuple(removed),
        }

    def _put_accounts(self) -> set[str]:
        revision = self._next("revision")
        rows = []
        for account_id, there in self._accounts_copy.items():
            if account_id in self._folded:
                continue
            source = self._accounts_here[account_id] if account_id in self._kept else there
            rows.append(source | {"position": there["position"], "revision": revision})
        last = max((row["position"] for row in rows), default=0)
        gone = [row for one, row in self._accounts_here.items() if one not in self._accounts_copy]
        for number, row in enumerate(gone, last + 1):
            deleted_at = row["deleted_at"] if row["deleted_at"] is not None else self._now
            rows.append(row | {"position": number, "revision": revision, "deleted_at": deleted_at, "merge_key": None})
        _insert(self._here, accounts, rows)
        return {row["id"] for row in rows}

    # What belongs to accounts

    def _merge_children(self, table: sa.Table) -> list[Row]:
        """Give a table's rows: of accounts that stay, those of here; of the others the copy's, or what is later here."""
        mine, theirs = _rows(self._here, table), _rows(self._copy, table)
        if table is tokens:
            return [row for row in theirs if row["account_id"] not in self._staying]
        if table is refresh_intents:
            return [row for row in mine if row["account_id"] in self._staying] + [
                row for row in theirs if row["account_id"] not in self._staying
            ]
        if table is token_digests and not self._same_store:
            mine = []  # they were made with another pepper; the tokens that stay are digested anew
        if table is cooldowns:
            revision = self._next("revision")
            theirs = [row for row in theirs if row["until_at"] > self._now]
            mine = [row | {"revision": revision} for row in mine]
            theirs = [row | {"revision": revision} for row in theirs]
        names = [column.name for column in table.primary_key]
        merged = {tuple(row[name] for name in names): row for row in (*theirs, *mine)}
        return list(merged.values())

    def _secrets(self, account_id: str) -> dict[str, tuple[str, float]]:
        """Give the tokens in clear of an account that stays, by name, with the instants at which they were stored."""
        found = self._here.execute(sa.select(tokens).where(tokens.c.account_id == account_id)).mappings()
        return {
            row["name"]: (
                self._sealer.open("tokens", f"{account_id}/{row['name']}", "sealed", row["key_version"], row["sealed"]),
                row["stored_at"],
            )
            for row in found
        }

    def _put_secrets(self, account_id: str, secrets: Mapping[str, tuple[str, float]]) -> None:
        workspace = self._accounts_here[account_id]["workspace_id"]
        for name, (plain, stored_at) in secrets.items():
            sealed = self._after.seal("tokens", f"{account_id}/{name}", "sealed", plain)
            row = {"account_id": account_id, "name": name, "key_version": self._after.version, "sealed": sealed}
            self._here.execute(sa.insert(tokens).values(**row, stored_at=stored_at))
            if not self._same_store:
                for text in {plain, f"{plain},{workspace}" if name == "access" and workspace else plain}:
                    self._remember(text, account_id)

    def _remember(self, text: str, account_id: str) -> None:
        digest = self._after.digest("token", text)
        if self._here.scalar(sa.select(token_digests.c.digest).where(token_digests.c.digest == digest)) is None:
            values = {"digest": digest, "account_id": account_id, "seen_at": self._now}
            self._here.execute(sa.insert(token_digests).values(**values))

    # The rest

    def _put_keys(self) -> dict[str, tuple[str, ...]]:
        mine, theirs = _by_id(self._here, issued_keys), _by_id(self._copy, issued_keys)
        revision = self._next("keys_revision")
        added, changed, revoked, kept, rows = [], [], [], [], []
        for key_id, there in theirs.items():
            row, present = dict(there), mine.get(key_id)
            if present is not None:
                was_replaced = (present["rotated_at"] or 0.0) > (there["rotated_at"] or 0.0)
                if was_replaced:
                    row |= {name: present[name] for name in _SECRET_COLUMNS}
                if was_replaced or (present["revoked_at"] is not None and there["revoked_at"] is None):
                    kept.append(there["name"])
                if present["revoked_at"] is not None:
                    row |= {name: present[name] for name in ("revoked_at", "previous_digest", "previous_until_at")}
                if _differ(present, row):
                    changed.append(there["name"])
            elif there["revoked_at"] is None:
                added.append(there["name"])
            rows.append(row | {"revision": revision})
        last = max((row["position"] for row in rows), default=0)
        gone = [row for key_id, row in mine.items() if key_id not in theirs]
        for number, row in enumerate(gone, last + 1):
            if row["revoked_at"] is None:
                revoked.append(row["name"])
                row = row | {"revoked_at": self._now, "previous_digest": None, "previous_until_at": None}
            rows.append(row | {"position": number, "revision": revision})
        self._here.execute(sa.delete(issued_keys))
        _insert(self._here, issued_keys, rows)
        return {
            "keys_added": tuple(added),
            "keys_changed": tuple(changed),
            "keys_revoked": tuple(revoked),
            "keys_kept": tuple(kept),
        }

    def _unite_others(self) -> None:
        """Add to all other tables the rows that are not here any more."""
        known = {
            accounts, tokens, token_digests, refresh_intents, cooldowns, conversations, conversation_files, issued_keys, meta,
            keyring,
        }  # fmt: skip
        for table in metadata.sorted_tables:
            if table in known or table.name in (SIGN_INS, INVITATIONS):  # what was used up or ended stays so
                continue
            names = [column.name for column in table.primary_key]
            mine = {tuple(row[name] for name in names) for row in _rows(self._here, table)}
            missing = (row for row in _rows(self._copy, table) if tuple(row[name] for name in names) not in mine)
            _insert(self._here, table, missing)

    def _put_meta(self, must_confirm: bool) -> None:
        values = {**self._meta_here, **self._meta_copy, "restored": "1" if must_confirm else "0"}
        for name in ("revision", "keys_revision", "users_revision"):
            values[name] = str(self._next(name))
        if self._same_store:
            rotations = (int(known.get("rotations") or 0) for known in (self._meta_here, self._meta_copy))
            values["rotations"] = str(max(rotations))
        if _OPERATOR_KEY in self._meta_here:
            # Whoever can run this has the key of here; the copy's may lie in a file that is gone.
            values[_OPERATOR_KEY] = self._meta_here[_OPERATOR_KEY]
        self._here.execute(sa.delete(meta))
        _insert(self._here, meta, [{"name": name, "value": value} for name, value in values.items()])

    def _next(self, name: str) -> int:
        """Give the revision of this change: after all of here and of the copy."""
        return max(int(known.get(name) or 0) for known in (self._meta_here, self._meta_copy)) + 1


def _meta(connection: sa.Connection) -> dict[str, str]:
    return {row["name"]: row["value"] for row in _rows(connection, meta)}


def _rows(connection: sa.Connection, table: sa.Table) -> list[Row]:
    return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def _by_id(connection: sa.Connection, table: sa.Table) -> dict[str, Row]:
    found = connection.execute(sa.select(table).order_by(table.c.position)).mappings()
    return {row["id"]: dict(row) for row in found}


def _differ(one: Row, other: Row) -> bool:
    return any(one[name] != other[name] for name in one.keys() - _UNTOLD)


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[Row]) -> None:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            connection.execute(sa.insert(table), batch)
            batch = []
    if batch:
        connection.execute(sa.insert(table), batch)
