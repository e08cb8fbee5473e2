"""Backups: whole, sealed, and brought back without losing what cannot be had again."""

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chat2api.accounts.exchange import RefreshAnswer
from chat2api.accounts.refresh import TokenKeeper
from chat2api.errors import AccountRejectedError, InvalidRequestError, StorageError
from chat2api.storage import backup
from chat2api.storage.backup import open_backup, restore_backup, write_backup
from chat2api.storage.keys import KeyLimits, KeyScope, NewKey
from chat2api.storage.shared import MemoryShared
from chat2api.storage.sql_records import SqlRecords
from chat2api.storage.sql_restore import Restoration
from chat2api.storage.values import Account, ConversationOwner, Cooldown
from tests.clocks import FakeClock
from tests.storage.accounts import NOW, add, fresh, new_account, rotating

PASSPHRASE = "a long canary passphrase"
NOTHING = Restoration((), (), (), (), (), (), (), (), (), 0, must_confirm=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scrypt take a millisecond."""
    monkeypatch.setattr(backup, "_LOG_N", 10)


@pytest.fixture
async def store(tmp_path: Path, file_records: SqlRecords) -> SqlRecords:
    """Records with three accounts: `file_records`, in the folder `data`."""
    for number in range(3):
        await add(file_records, new_account(number))
    return file_records


@pytest.fixture
async def elsewhere(tmp_path: Path, empty_store: Path) -> AsyncIterator[SqlRecords]:
    """Empty records of another machine: with a store id, a pepper and keys of its own."""
    (tmp_path / "elsewhere").mkdir()
    records = await SqlRecords.open(tmp_path / "elsewhere", secret_key="another wrapping key")
    yield records
    await records.aclose()


async def save(records: SqlRecords, tmp_path: Path, name: str = "backup") -> Path:
    path = tmp_path / name
    await write_backup(records, path, PASSPHRASE, folder=tmp_path / "data", release="1.2.3", now=NOW)
    return path


async def restore(records: SqlRecords, path: Path, *, dry_run: bool = False, now: float = NOW) -> Restoration:
    folder = path.parent / "restoring"
    folder.mkdir(exist_ok=True)
    async with open_backup(path, PASSPHRASE, folder=folder) as opened:
        told = await restore_backup(records, opened, now, dry_run=dry_run)
    assert os.listdir(folder) == [], "nothing stays behind"
    return told


async def living(records: SqlRecords) -> dict[str, Account]:
    return {one.label: one for one in (await records.changes()).accounts if one.deleted_at is None}


async def renewable(records: SqlRecords, account: Account) -> str | None:
    view = await records.refresh_view(account.id)
    return view.secrets.renewable if view is not None else None


async def renew(records: SqlRecords, account: Account, token: str, user: str | None = None) -> Account:
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    changed = await records.complete_refresh(intent, fresh(renewable=token, user=user), NOW)
    assert changed is not None
    return changed


async def issue(records: SqlRecords, name: str, digest: str) -> str:
    new = NewKey(name=name, note="", expires_at=None, scope=KeyScope(), limits=KeyLimits())
    return (await records.keys.add(new, digest, "sk-c2a-xx", NOW)).id


# The file


async def test_S15_a_backup_shows_nothing_and_leaves_nothing_beside_it(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)

    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for told in (rotating(1).encode(), b"SQLite format", b"needs_sign_in", PASSPHRASE.encode(), b"1.2.3"):
        assert told not in content
    assert not [name for name in os.listdir(tmp_path / "data") if name.startswith(".")]


async def test_R30_a_backup_never_overwrites_and_a_failed_one_leaves_nothing(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="exists"):
        await save(store, tmp_path)
    with pytest.raises(StorageError):
        await write_backup(store, tmp_path / "no" / "where", PASSPHRASE, folder=tmp_path / "data", release="1", now=NOW)
    with pytest.raises(InvalidRequestError):
        await write_backup(store, tmp_path / "weak", "short", folder=tmp_path / "data", release="1", now=NOW)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["backup", "data"]
    assert not [name for name in os.listdir(tmp_path / "data") if name.startswith(".")]


def _cut_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda content: b""),
    ("another file", lambda content: b"SQLite format 3\0" * 100),
    ("cut in half", _cut_half),
    ("cut after a chunk", lambda content: content[: backup._HEADER + backup.CHUNK + 16]),
    ("last byte lost", lambda content: content[:-1]),
    ("a byte more", lambda content: content + b"\0"),
    ("a bit in the salt", lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:]),
    ("a bit in the middle", lambda content: content[:70000] + bytes([content[70000] ^ 1]) + content[70001:]),
    ("cheaper scrypt", lambda content: content[:32] + b"\x0b" + content[33:]),
    ("scrypt without bounds", lambda content: content[:32] + b"\x40" + content[33:]),
    (
        "chunks exchanged",
        lambda content: (
            content[:33] + content[33 + 65552 : 33 + 2 * 65552] + content[33:65585] + content[33 + 131104 :]
        ),
    ),
]


@pytest.mark.parametrize("damage", [change for _, change in DAMAGES], ids=[name for name, _ in DAMAGES])
async def test_R17_a_damaged_backup_is_refused_and_changes_nothing(
    tmp_path: Path, store: SqlRecords, damage: Callable[[bytes], bytes]
) -> None:
    path = await save(store, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    before = await store.changes()

    with pytest.raises(StorageError):
        await restore(store, path)

    assert await store.changes() == before


async def test_another_passphrase_does_not_open_it(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)

    with pytest.raises(StorageError, match="passphrase"):
        async with open_backup(path, PASSPHRASE + "!", folder=tmp_path):
            pass


async def test_a_backup_tells_when_and_by_what_it_was_made(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)

    async with open_backup(path, PASSPHRASE, folder=tmp_path) as opened:
        assert (opened.made_at, opened.release) == (NOW, "1.2.3")
        assert "material" not in repr(opened)


async def test_R30_a_backup_of_a_store_in_use_is_of_one_moment(tmp_path: Path, store: SqlRecords) -> None:
    async def write_on() -> None:
        for number in range(100, 160):
            await store.add_accounts([new_account(number), new_account(number + 1000)], NOW)

    _, path = await asyncio.gather(write_on(), save(store, tmp_path))

    (tmp_path / "fresh").mkdir()
    other = await SqlRecords.open(tmp_path / "fresh")
    added = len((await restore(other, path)).accounts_added)
    assert (added - 3) % 2 == 0, "both accounts of a transaction, or none"
    await other.aclose()


# Bringing back


async def test_R30_another_machine_gets_everything_with_its_generations(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    first = (await store.changes()).accounts[0]
    first = await renew(store, first, rotating(50))
    await store.set_details(first.id, note="mine", groups=["family"])
    await store.put_conversation(ConversationOwner("c1", first.id, "key:1", None, NOW))
    await issue(store, "anna", "d" * 64)

    told = await restore(elsewhere, await save(store, tmp_path))

    assert set(told.accounts_added) == set(await living(store))
    assert (told.keys_added, told.conversations_added, told.must_confirm) == (("anna",), 1, True)
    assert set(told.accounts_in_doubt) == set(told.accounts_added)
    brought = await elsewhere.account(first.id)
    assert brought is not None
    assert (brought.generation, brought.note, brought.groups) == (1, "mine", ("family",))
    assert await renewable(elsewhere, brought) == rotating(50)
    assert (await elsewhere.find_by_token(rotating(1))) is not None
    assert (await add(elsewhere, new_account(2))).id in {one.id for one in (await living(store)).values()}
    assert await elsewhere.restored()
    reopened = await SqlRecords.open(tmp_path / "elsewhere", secret_key="another wrapping key")
    assert await renewable(reopened, brought) == rotating(50)
    await reopened.aclose()


async def test_R30_nothing_is_renewed_from_an_older_copy_until_the_operator_confirms(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    await restore(elsewhere, await save(store, tmp_path))
    sent: list[str] = []

    async def exchange(account: Account, token: str) -> RefreshAnswer:
        sent.append(token)
        return RefreshAnswer("access", "rt_" + "n" * 60, 3600.0)

    tasks: list[asyncio.Task[str]] = []

    def spawn(work: object, name: str) -> "asyncio.Task[str]":
        tasks.append(asyncio.get_running_loop().create_task(work, name=name))  # type: ignore[arg-type]  # a coroutine
        return tasks[-1]

    clock = FakeClock()
    keeper = TokenKeeper(elsewhere, MemoryShared(clock), clock, exchange, spawn)
    account = (await elsewhere.changes()).accounts[0]
    with pytest.raises(AccountRejectedError) as refused:
        await keeper.renew(account)
    assert (refused.value.reason, sent) == ("restored_copy", [])

    await elsewhere.confirm_restored()

    await keeper.renew(account)
    assert sent == [rotating(0)]


async def test_R30_a_renewed_token_is_never_replaced_by_a_consumed_one(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)
    first, second, third = (await store.changes()).accounts
    await renew(store, first, rotating(77))
    await store.set_details(second.id, note="later")
    await store.delete_accounts([third.id], NOW)
    added = await add(store, new_account(9))

    told = await restore(store, path)

    assert told == Restoration(
        (third.label,), (second.label,), (first.label,), (added.label,), (), (), (), (), (), 0, must_confirm=False
    )
    assert set(await living(store)) == {first.label, second.label, third.label}
    assert await renewable(store, first) == rotating(77)
    assert (await living(store))[second.label].note == ""
    assert (await store.account(first.id) or first).generation == 1
    assert not await store.restored(), "all tokens are the newest that there are"


async def test_R30_what_a_copy_does_not_know_can_be_undone(tmp_path: Path, store: SqlRecords) -> None:
    path = await save(store, tmp_path)
    added = await add(store, new_account(9))
    await restore(store, path)

    assert await store.restore_accounts(NOW) == 1

    assert await renewable(store, added) == rotating(9)
    found = await store.find_by_token(rotating(9))
    assert found is not None and found.id == added.id


async def test_R30_accounts_of_another_store_are_removed_with_their_tokens_kept(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    own = await add(elsewhere, new_account(9))

    told = await restore(elsewhere, await save(store, tmp_path))

    assert told.accounts_removed == (own.label,)
    assert await elsewhere.restore_accounts(NOW) == 1
    assert await renewable(elsewhere, own) == rotating(9)
    assert (await elsewhere.find_by_token(rotating(9)) or own).id == own.id


async def test_a_dry_run_says_the_same_and_changes_nothing(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    path = await save(store, tmp_path)
    await add(elsewhere, new_account(9))
    before, digest = await elsewhere.changes(), elsewhere.digest("x", "y")

    foretold = await restore(elsewhere, path, dry_run=True)

    assert await elsewhere.changes() == before
    assert elsewhere.digest("x", "y") == digest
    assert not await elsewhere.restored()
    assert await restore(elsewhere, path) == foretold
    assert elsewhere.digest("x", "y") == store.digest("x", "y"), "what was digested before is found again"


async def test_restoring_what_is_here_changes_nothing(tmp_path: Path, store: SqlRecords) -> None:
    await issue(store, "anna", "d" * 64)

    assert await restore(store, await save(store, tmp_path)) == NOTHING


async def test_R7_waits_and_conversations_of_after_the_copy_stay(tmp_path: Path, store: SqlRecords) -> None:
    first = (await store.changes()).accounts[0]
    await store.put_conversation(ConversationOwner("old", first.id, "key:1", None, NOW))
    await store.files.put("old", ["file-old"])
    path = await save(store, tmp_path)
    await store.forget_conversation("old")
    await store.put_conversation(ConversationOwner("new", first.id, "key:1", None, NOW))
    await store.files.put("new", ["file-new"])
    wait = Cooldown(first.id, "gpt-5", NOW + 3600, True, "stated_limit")
    await store.put_cooldowns([wait])

    told = await restore(store, path)

    assert told.conversations_added == 1
    assert {one.conversation_id for one in await store.conversations("key:1")} == {"old", "new"}
    for name in ("old", "new"):
        assert await store.files.accounts(f"file-{name}", "key:1") == {first.id}
    assert (await store.changes()).cooldowns == (wait,)


async def test_S13_a_revoked_or_replaced_key_does_not_come_back(tmp_path: Path, store: SqlRecords) -> None:
    revoked = await issue(store, "revoked", "a" * 64)
    replaced = await issue(store, "replaced", "b" * 64)
    path = await save(store, tmp_path)
    await store.keys.revoke(revoked, NOW + 1)
    key = await store.keys.key(replaced)
    assert key is not None
    await store.keys.rotate(key, "c" * 64, "sk-c2a-yy", previous_until_at=None, now=NOW + 1)
    await issue(store, "later", "e" * 64)
    revision = await store.keys.revision()

    told = await restore(store, path, now=NOW + 5)

    assert (told.keys_added, told.keys_changed, told.keys_revoked) == ((), (), ("later",))
    assert told.keys_kept == ("revoked", "replaced")
    assert (await restore(store, path, now=NOW + 6)).keys_kept == told.keys_kept, (
        "of all since the backup, not of the last"
    )
    keys = {key.name: key for key in (await store.keys.changes(revision)).keys}
    assert keys["revoked"].revoked_at == NOW + 1
    assert keys["replaced"].digest == "c" * 64
    assert keys["later"].revoked_at == NOW + 5


async def test_whoever_runs_beside_it_sees_everything_anew(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    own = await add(elsewhere, new_account(9))
    server = await SqlRecords.open(tmp_path / "elsewhere", secret_key="another wrapping key")
    seen = (await server.changes()).revision
    assert await renewable(server, own) == rotating(9)

    await restore(elsewhere, await save(store, tmp_path))

    assert await server.revision() > seen
    changed = {one.label: one for one in (await server.changes(seen)).accounts}
    assert changed[own.label].deleted_at is not None
    assert set(await living(store)) < set(changed)
    for account in (await living(server)).values():
        assert await renewable(server, account) is not None, "with the keys that came with the copy"
    await add(server, new_account(123))
    await server.aclose()


async def test_R29_two_that_turned_out_to_be_one_stay_one(tmp_path: Path, store: SqlRecords) -> None:
    twin = await add(store, new_account(20, user="u"))
    path = await save(store, tmp_path)
    first = (await store.changes()).accounts[0]
    await renew(store, first, rotating(21), user="u")
    assert twin.label not in await living(store)

    told = await restore(store, path)

    assert told.accounts_kept == (first.label,)
    assert twin.label not in await living(store)
    assert (await store.find_by_token(rotating(20)) or twin).id == first.id

    connection = sqlite3.connect(tmp_path / "data" / "records.db")
    with connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("DELETE FROM accounts WHERE id = ?", (twin.id,))
    connection.close()
    assert (await restore(store, path)).accounts_added == (), "nor when the other one is gone altogether"


async def test_S16_a_restored_store_is_sealed_anew_by_the_next_rotation(
    tmp_path: Path, store: SqlRecords, elsewhere: SqlRecords
) -> None:
    await add(elsewhere, new_account(9))
    await restore(elsewhere, await save(store, tmp_path))

    assert await elsewhere.rotate_keys() == 3, "what stayed was sealed with the newest key"

    for account in (await elsewhere.changes()).accounts:
        assert await renewable(elsewhere, account) is not None


async def test_T8_a_copy_of_a_newer_release_is_refused(tmp_path: Path, store: SqlRecords) -> None:
    folder = shutil.copytree(tmp_path / "data", tmp_path / "newer")
    newer = await SqlRecords.open(folder)
    path = tmp_path / "copy.db"
    await newer.backup(path, material=b"m" * 32)
    await newer.aclose()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    with pytest.raises(StorageError, match="newer release"):
        await store.bring_back(path, b"m" * 32, NOW)
