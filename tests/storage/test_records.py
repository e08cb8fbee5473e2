"""The contract of `Records`, which every implementation keeps."""

from dataclasses import replace
from pathlib import Path

import pytest

from chat2api.errors import StorageError
from chat2api.storage.records import Records
from chat2api.storage.values import (
    AccountFacts,
    Activity,
    ConversationOwner,
    Cooldown,
    Identity,
    NewAccount,
    Secrets,
)
from tests.storage.accounts import DAY, NOW, add, fresh, new_account, rotating


async def test_an_added_account_is_told_with_its_tokens(records: Records) -> None:
    account = await add(records, new_account(1, access="a-1", user="user-1", workspace="team"))

    view = await records.refresh_view(account.id)

    assert view is not None
    assert (view.account, view.secrets) == (account, Secrets(access="a-1"))
    assert (account.state, account.generation, account.workspace, account.owner) == ("ok", 0, "team", None)
    assert await records.account(account.id) == account
    assert await records.account("acc_unknown") is None


async def test_an_account_keeps_its_device_id_and_label(records: Records) -> None:
    first = await add(records, new_account(1))
    again = await add(records, new_account(1, user="user-1"))

    assert (again.device_id, again.label, len(again.label)) == (first.device_id, first.label, 10)
    assert (await add(records, new_account(2))).device_id != first.device_id


async def test_changes_tells_each_change_once_and_in_order(records: Records) -> None:
    accounts = [await add(records, new_account(number)) for number in range(3)]
    everything = await records.changes()
    assert [one.id for one in everything.accounts] == [one.id for one in accounts]
    assert everything.revision == await records.revision()
    assert await records.changes(everything.revision) == replace(everything, accounts=(), cooldowns=())

    await records.set_state(accounts[1], "disabled", "by hand", NOW)
    await records.put_cooldowns([Cooldown(accounts[2].id, "gpt", NOW + 60, True, "stated_limit")])

    later = await records.changes(everything.revision)
    assert [one.state for one in later.accounts] == ["disabled"]
    assert later.cooldowns == (Cooldown(accounts[2].id, "gpt", NOW + 60, True, "stated_limit"),)
    assert later.revision == await records.revision() == everything.revision + 2


async def test_R17_a_late_writer_of_a_state_is_refused(records: Records) -> None:
    seen = await add(records, new_account(1))
    assert await records.set_state(seen, "disabled", None, NOW) is not None

    assert await records.set_state(seen, "ok", None, NOW) is None

    now_there = await records.account(seen.id)
    assert now_there is not None and now_there.state == "disabled"


async def test_R29_a_token_that_is_known_merges(records: Records) -> None:
    first, *rest = [(await records.add_accounts([new_account(1)], NOW))[0] for _ in range(3)]

    assert [first.outcome] + [one.outcome for one in rest] == ["added", "unchanged", "unchanged"]
    assert len((await records.changes()).accounts) == 1


async def test_R29_the_same_user_and_workspace_merges_and_takes_the_new_token(records: Records) -> None:
    old = await add(records, new_account(1, user="user-1"))

    answer = (await records.add_accounts([new_account(2, user="user-1")], NOW))[0]

    assert (answer.outcome, answer.account.id, answer.account.generation) == ("merged", old.id, 1)
    view = await records.refresh_view(old.id)
    assert view is not None and view.secrets == Secrets(renewable=rotating(2), previous=rotating(1))


async def test_another_workspace_of_the_same_user_is_another_account(records: Records) -> None:
    first = await add(records, new_account(1, user="user-1"))
    second = await add(records, new_account(2, user="user-1", workspace="team"))

    assert first.id != second.id


async def test_one_access_token_serves_two_workspaces_as_two_accounts(records: Records) -> None:
    first = await add(records, new_account(1, access="same", workspace="one"))
    second = await add(records, new_account(1, access="same", workspace="two"))

    assert first.id != second.id
    assert (await add(records, new_account(1, access="same", workspace="two"))).id == second.id


async def test_a_refresh_token_for_a_known_access_account_upgrades_it(records: Records) -> None:
    first = await add(records, new_account(1, access="a-1", user="user-1"))
    second = await add(records, new_account(1, renewable=rotating(1), access="a-1", user="user-1"))

    assert (second.id, second.kind) == (first.id, "refresh")


async def test_an_account_needs_something_to_be_known_by(records: Records) -> None:
    with pytest.raises(ValueError, match="token or a device id"):
        await records.add_accounts([NewAccount("access", Secrets(), Identity())], NOW)


async def test_R29_pasting_a_consumed_token_does_not_bring_it_back(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)

    answer = (await records.add_accounts([new_account(1)], NOW))[0]

    assert (answer.outcome, answer.account.id) == ("unchanged", account.id)
    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets.renewable == rotating(2)


async def test_pasting_the_present_token_again_is_the_operators_word(records: Records) -> None:
    account = await add(records, new_account(1))
    assert await records.begin_refresh(account, "replica", NOW) is not None
    assert await records.set_state(account, "in_doubt", "unknown_outcome", NOW) is not None

    answer = (await records.add_accounts([new_account(1)], NOW))[0]

    assert (answer.outcome, answer.account.state) == ("merged", "ok")
    assert await records.doubts() == ()


async def test_a_callers_account_and_the_pools_stay_apart(records: Records) -> None:
    pool = await add(records, new_account(1, user="user-1"))
    private = await add(records, new_account(2, user="user-1", owner="caller"))
    other = await add(records, new_account(3, user="user-1", owner="other"))

    assert len({pool.id, private.id, other.id}) == 3


async def test_a_caller_with_the_pools_very_token_leaves_the_account_in_the_pool(records: Records) -> None:
    pool = await add(records, new_account(1))

    answer = (await records.add_accounts([new_account(1, owner="caller")], NOW))[0]

    assert (answer.outcome, answer.account) == ("unchanged", pool)


async def test_the_operators_import_makes_a_private_account_the_pools(records: Records) -> None:
    private = await add(records, new_account(1, owner="caller"))

    taken = await add(records, new_account(1))

    assert (taken.id, taken.owner) == (private.id, None)


async def test_every_token_that_was_ever_seen_finds_its_account(records: Records) -> None:
    account = await add(records, new_account(0))
    for number in range(1, 4):
        intent = await records.begin_refresh(account, "replica", NOW)
        assert intent is not None
        changed = await records.complete_refresh(intent, fresh(renewable=rotating(number)), NOW)
        assert changed is not None
        account = changed

    found = [await records.find_by_token(rotating(number)) for number in range(4)]

    assert found == [account] * 4
    assert await records.find_by_token(rotating(9)) is None


async def test_a_refresh_commits_an_intent_and_ends_it_with_the_new_pair(records: Records) -> None:
    account = await add(records, new_account(1))

    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None and (await records.doubts()) == (intent,)
    changed = await records.complete_refresh(intent, fresh("access-2", rotating(2), "user-1"), NOW + 1)

    assert changed is not None
    assert (changed.generation, changed.rotates, changed.user_id, changed.expires_at) == (1, True, "user-1", NOW + DAY)
    assert await records.doubts() == ()
    view = await records.refresh_view(account.id)
    assert view is not None
    assert view.secrets == Secrets(access="access-2", renewable=rotating(2), previous=rotating(1))


async def test_an_answer_without_a_new_token_keeps_the_old_one(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None

    changed = await records.complete_refresh(intent, fresh(renewable=None), NOW)

    assert changed is not None and changed.rotates is False
    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets == Secrets(access="access-2", renewable=rotating(1))


async def test_R27_one_intent_stands_at_a_time_and_only_for_the_present_generation(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "one", NOW)
    assert intent is not None
    assert await records.begin_refresh(account, "two", NOW) is None
    await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)

    assert await records.begin_refresh(account, "two", NOW) is None


async def test_R27_a_stale_writer_of_tokens_is_refused(records: Records) -> None:
    account = await add(records, new_account(1))
    slow = await records.begin_refresh(account, "slow", NOW)
    assert slow is not None
    taken = await records.claim_doubt(slow, "quick", NOW + 26)
    assert taken is not None and (taken.replica, taken.retried_at) == ("quick", NOW + 26)
    assert await records.complete_refresh(taken, fresh("quick", rotating(2)), NOW + 27) is not None

    assert await records.complete_refresh(slow, fresh("slow", rotating(3)), NOW + 28) is None
    assert await records.abandon_refresh(slow, NOW + 28, state="needs_sign_in") is None

    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets.renewable == rotating(2) and view.account.state == "ok"


async def test_R26_a_doubt_can_be_claimed_once(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "dead", NOW)
    assert intent is not None
    claimed = await records.claim_doubt(intent, "new", NOW + 1)
    assert claimed is not None

    assert await records.claim_doubt(intent, "third", NOW + 2) is None
    assert await records.claim_doubt(claimed, "third", NOW + 2) is None


async def test_an_abandoned_refresh_leaves_the_token_and_sets_the_state(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None

    changed = await records.abandon_refresh(intent, NOW, state="needs_sign_in", reason="invalid_grant")

    assert changed is not None and (changed.state, changed.reason) == ("needs_sign_in", "invalid_grant")
    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets.renewable == rotating(1) and view.intent is None


async def test_R29_accounts_that_turn_out_to_be_one_are_folded(records: Records) -> None:
    old = await add(records, new_account(1, user="user-1"))
    await records.put_conversation(ConversationOwner("conversation", old.id, "owner", None, NOW))
    await records.put_cooldowns([Cooldown(old.id, "gpt", NOW + 3600, True, "stated_limit")])
    unknown = await add(records, new_account(2))
    intent = await records.begin_refresh(unknown, "replica", NOW)
    assert intent is not None

    changed = await records.complete_refresh(intent, fresh(renewable=rotating(3), user="user-1"), NOW)

    assert changed is not None
    twin = await records.account(old.id)
    assert twin is not None and (twin.deleted_at, twin.reason) == (NOW, "merged")
    assert await records.find_by_token(rotating(1)) == changed
    owner = await records.conversation("conversation")
    assert owner is not None and owner.account_id == changed.id
    waits = {(wait.account_id, wait.until_at) for wait in (await records.changes()).cooldowns}
    assert (changed.id, NOW + 3600) in waits
    assert await records.restore_accounts(NOW + 1) == 0


async def test_R30_deleting_is_a_tombstone_that_can_be_undone_for_a_day(records: Records) -> None:
    first, second = await add(records, new_account(1, user="user-1")), await add(records, new_account(2))
    private = await add(records, new_account(3, owner="caller"))

    assert await records.delete_accounts([second.id], NOW) == 1
    assert await records.delete_accounts(None, NOW + 1) == 1

    assert await records.find_by_token(rotating(1)) is None
    assert await records.find_by_token(rotating(3)) == private
    assert await records.restore_accounts(NOW + DAY - 1) == 2
    back = await records.account(first.id)
    assert back is not None and back.deleted_at is None
    assert await records.delete_accounts([first.id, "acc_unknown"], NOW) == 1


async def test_R30_after_a_day_a_tombstone_is_erased_with_its_tokens(records: Records) -> None:
    account = await add(records, new_account(1))
    await records.delete_accounts(None, NOW)
    await records.sweep(NOW + DAY - 1)
    assert await records.account(account.id) is not None

    await records.sweep(NOW + DAY)

    assert await records.account(account.id) is None
    assert await records.refresh_view(account.id) is None
    assert await records.restore_accounts(NOW + DAY) == 0


async def test_R30_an_import_brings_a_tombstone_back(records: Records) -> None:
    account = await add(records, new_account(1))
    await records.delete_accounts(None, NOW)

    again = await add(records, new_account(1))

    assert (again.id, again.deleted_at) == (account.id, None)


async def test_an_undo_does_not_bring_back_what_came_back_otherwise(records: Records) -> None:
    old = await add(records, new_account(1, user="user-1"))
    await records.delete_accounts(None, NOW)
    new = await add(records, new_account(2, user="user-1"))

    assert new.id != old.id
    assert await records.restore_accounts(NOW + 1) == 0


async def test_R30_chosen_accounts_come_back_with_the_waits_that_were_stated(records: Records) -> None:
    accounts = [await add(records, new_account(number)) for number in range(3)]
    wait = Cooldown(accounts[0].id, "gpt", NOW + 3600, True, "stated_limit")
    await records.put_cooldowns([wait])
    for account in accounts:
        await records.delete_accounts([account.id], NOW + 1)
    assert {one.id for one in await records.deleted_accounts(NOW + 2)} == {account.id for account in accounts}
    seen = await records.revision()

    assert await records.restore_accounts(NOW + 2, [accounts[0].id, "acc_unknown"]) == 1

    news = await records.changes(seen)
    assert [one.id for one in news.accounts] == [accounts[0].id]
    assert news.cooldowns == (wait,)
    assert await records.deleted_accounts(NOW + 1 + DAY) == ()


async def test_R29_two_members_of_one_team_are_two_accounts(records: Records) -> None:
    first = await add(records, new_account(1, user="user-1", workspace="team"))
    second = await add(records, new_account(2, user="user-2", workspace="team"))
    again = (await records.add_accounts([new_account(3, user="user-2", workspace="team")], NOW))[0]

    assert first.id != second.id
    assert (again.outcome, again.account.id) == ("merged", second.id)


async def test_notes_and_groups_are_kept_one_by_one(records: Records) -> None:
    account = await add(records, new_account(1))

    await records.set_details(account.id, note='mine, since "May"')
    changed = await records.set_details(account.id, groups=["family", "work", "family"])

    assert changed is not None and changed == await records.account(account.id)
    assert (changed.note, changed.groups) == ('mine, since "May"', ("family", "work"))
    assert changed.revision == await records.revision() == account.revision + 2
    assert await records.set_details("acc_unknown", note="x") is None
    await records.delete_accounts(None, NOW)
    assert await records.set_details(account.id, note="late") is None


async def test_what_the_backend_tells_is_kept_with_its_age(records: Records) -> None:
    account = await add(records, new_account(1))

    await records.put_facts(account.id, AccountFacts(plan="plus", models=("a", "b")), NOW)
    changed = await records.put_facts(account.id, AccountFacts(capabilities=("image_gen",)), NOW + 1)

    assert changed is not None
    assert (changed.plan, changed.models, changed.capabilities) == ("plus", ("a", "b"), ("image_gen",))
    assert changed.facts_at == NOW + 1
    assert await records.put_facts("acc_unknown", AccountFacts(), NOW) is None


async def test_activity_is_kept_without_telling_everybody(records: Records) -> None:
    account = await add(records, new_account(1))
    before = await records.revision()

    await records.put_activity([Activity(account.id, NOW), Activity("acc_unknown", NOW), Activity(account.id)])
    await records.put_activity([Activity(account.id, None, "token_revoked", NOW + 1)])

    stored = await records.account(account.id)
    assert stored is not None
    assert (stored.last_used_at, stored.last_error, stored.last_error_at) == (NOW, "token_revoked", NOW + 1)
    assert await records.revision() == before


async def test_what_the_operator_disabled_stays_so_until_they_enable_it(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    disabled = await records.set_enabled(account.id, False, NOW)
    assert disabled is not None and (disabled.state, disabled.reason) == ("disabled", "by_operator")

    assert await records.set_state(disabled, "needs_sign_in", "token_revoked", NOW) is None
    renewed = await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)
    assert renewed is not None and (renewed.state, renewed.generation) == ("disabled", 1)
    second = await records.begin_refresh(renewed, "replica", NOW)
    assert second is not None
    rejected = await records.abandon_refresh(second, NOW, state="needs_sign_in", reason="invalid_grant")
    assert rejected is not None and rejected.state == "disabled"

    enabled = await records.set_enabled(account.id, True, NOW + 1)
    assert enabled is not None and (enabled.state, enabled.reason) == ("ok", None)
    assert await records.set_enabled(account.id, True, NOW + 2) == enabled
    assert await records.set_enabled("acc_unknown", True, NOW) is None


async def test_an_enabled_account_whose_token_may_be_used_up_is_in_doubt(records: Records) -> None:
    account = await add(records, new_account(1))
    assert await records.begin_refresh(account, "replica", NOW) is not None
    await records.set_enabled(account.id, False, NOW)

    enabled = await records.set_enabled(account.id, True, NOW)

    assert enabled is not None and (enabled.state, enabled.reason) == ("in_doubt", "unknown_outcome")


async def test_a_previous_token_is_kept_for_a_day(records: Records) -> None:
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW)

    await records.sweep(NOW + DAY - 1)
    before = await records.refresh_view(account.id)
    await records.sweep(NOW + DAY)
    after = await records.refresh_view(account.id)

    assert before is not None and before.secrets.previous == rotating(1)
    assert after is not None and after.secrets == Secrets(access="access-2", renewable=rotating(2))


async def test_cooldowns_replace_each_other_and_end(records: Records) -> None:
    account = await add(records, new_account(1))
    first = Cooldown(account.id, "gpt", NOW + 60, False, "guessed_limit", 1)
    second = replace(first, until_at=NOW + 120, strikes=2)
    await records.put_cooldowns([first, Cooldown("acc_unknown", "gpt", NOW, True, "stated_limit")])
    await records.put_cooldowns([second])
    assert (await records.changes()).cooldowns == (second,)

    await records.sweep(NOW + 120)

    assert (await records.changes()).cooldowns == ()


async def test_conversations_are_found_by_id_and_by_owner(records: Records) -> None:
    account = await add(records, new_account(1))
    mine = [ConversationOwner(f"conversation-{n}", account.id, "me", None, NOW + n) for n in range(3)]
    theirs = ConversationOwner("theirs", account.id, "them", "message", NOW)
    for one in [*mine, theirs, replace(mine[0], last_message_id="m", updated_at=NOW + 9)]:
        await records.put_conversation(one)

    assert [one.conversation_id for one in await records.conversations("me")] == [
        "conversation-0",
        "conversation-2",
        "conversation-1",
    ]
    assert await records.conversation("theirs") == theirs
    await records.forget_conversation("theirs")
    await records.forget_conversation("theirs")
    assert await records.conversation("theirs") is None


async def test_single_values_are_kept(records: Records) -> None:
    assert await records.get_meta("scheduled_refresh_at") is None
    await records.set_meta("scheduled_refresh_at", "1")
    await records.set_meta("scheduled_refresh_at", "2")

    assert await records.get_meta("scheduled_refresh_at") == "2"


async def test_digests_are_keyed_and_differ_by_purpose(records: Records) -> None:
    assert records.digest("token", "x") == records.digest("token", "x")
    assert records.digest("token", "x") != records.digest("label", "x")
    assert len(records.digest("token", "\ud800")) == 64


async def test_a_failed_intention_leaves_nothing(records: Records) -> None:
    account = await add(records, new_account(1))
    broken = ConversationOwner("conversation", "acc_unknown", "me", None, NOW)

    with pytest.raises(StorageError):
        await records.put_conversation(broken)

    assert await records.conversations("me") == ()
    assert await records.account(account.id) == account


async def test_S10_hostile_texts_are_only_texts(records: Records) -> None:
    hostile = ["' OR 1=1 --", '"; DROP TABLE accounts; --', "%", "_", "\x00", "\U0001f4a9" * 50, "?", ":id", "acc_%"]
    account = await add(records, new_account(1))

    assert [await records.find_by_token(text) for text in hostile] == [None] * len(hostile)
    assert [await records.account(text) for text in hostile] == [None] * len(hostile)
    assert await records.account(account.id) == account


async def test_closed_records_say_so(records: Records) -> None:
    await records.aclose()
    await records.aclose()

    with pytest.raises(StorageError, match="closed"):
        await records.revision()


async def test_R30_a_backup_never_overwrites(records: Records, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    await records.backup(target)

    with pytest.raises(StorageError, match="exists"):
        await records.backup(target)

    assert target.stat().st_mode & 0o777 == 0o600


async def test_R29_an_answer_outlives_an_import_of_the_present_token(records: Records) -> None:
    """Whoever pastes a list again while one of its tokens is out must not cost that account its new token."""
    account = await add(records, new_account(1))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    await add(records, new_account(1))
    assert await records.doubts() == ()

    changed = await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW + 1)

    assert changed is not None and changed.state == "ok"
    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets == Secrets(access="access-2", renewable=rotating(2), previous=rotating(1))


async def test_R29_an_answer_outlives_an_import_of_a_newer_access_token(records: Records) -> None:
    account = await add(records, new_account(1, user="user-1"))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    newer = await add(records, replace(new_account(1, access="a-9", user="user-1"), expires_at=NOW + DAY))
    assert newer.id == account.id and newer.generation > account.generation

    changed = await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW + 1)

    assert changed is not None and changed.generation > newer.generation
    view = await records.refresh_view(account.id)
    assert view is not None and (view.secrets.renewable, view.intent) == (rotating(2), None)


async def test_R29_a_refusal_ends_its_intent_although_an_access_token_came_meanwhile(records: Records) -> None:
    account = await add(records, new_account(1, user="user-1"))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    newer = await add(records, replace(new_account(1, access="a-9", user="user-1"), expires_at=NOW + DAY))

    assert await records.abandon_refresh(intent, NOW + 1) == newer

    assert await records.doubts() == ()


async def test_R29_the_answer_of_a_token_that_was_replaced_by_hand_is_refused(records: Records) -> None:
    account = await add(records, new_account(1, user="user-1"))
    intent = await records.begin_refresh(account, "replica", NOW)
    assert intent is not None
    await add(records, new_account(7, user="user-1"))

    assert await records.complete_refresh(intent, fresh(renewable=rotating(2)), NOW + 1) is None

    view = await records.refresh_view(account.id)
    assert view is not None and view.secrets.renewable == rotating(7)


async def test_R29_an_access_token_that_a_caller_used_before_does_not_cost_the_pool_its_refresh_token(
    records: Records,
) -> None:
    private = await add(records, new_account(1, access="a-1", user="user-1", owner="caller"))
    pool = await add(records, new_account(2, user="user-1"))

    taken = await add(records, new_account(1, access="a-1", user="user-1"))

    assert (taken.id, taken.deleted_at) == (pool.id, None)
    view = await records.refresh_view(pool.id)
    assert view is not None and view.secrets == Secrets(access="a-1", renewable=rotating(2))
    left = await records.account(private.id)
    assert left is not None and (left.owner, left.deleted_at) == ("caller", None)


async def test_R29_an_account_folded_by_an_import_is_told_for_a_day(records: Records) -> None:
    """Who follows the changes must hear of the tombstone before it is erased, however old the other account is."""
    old = await add(records, new_account(1), now=NOW - 9 * DAY)
    twin = await add(records, new_account(2, user="user-1"), now=NOW - 9 * DAY)

    taken = await add(records, new_account(1, renewable=rotating(1), access="a-1", user="user-1"))

    assert taken.id == old.id
    await records.sweep(NOW + 60)
    folded = await records.account(twin.id)
    assert folded is not None and folded.deleted_at == NOW


async def test_what_callers_bring_and_never_could_be_renewed_does_not_stay(records: Records) -> None:
    junk = await add(records, new_account(1, owner="stranger"))
    asked = await add(records, new_account(2, owner="stranger"))
    assert await records.begin_refresh(asked, "replica", NOW) is not None
    good = await add(records, new_account(3, owner="caller"))
    intent = await records.begin_refresh(good, "replica", NOW)
    assert intent is not None
    assert await records.complete_refresh(intent, fresh(renewable=rotating(4)), NOW) is not None
    own = await add(records, new_account(5))
    seen = await records.revision()

    await records.sweep(NOW + DAY - 1)
    assert await records.revision() == seen
    await records.sweep(NOW + DAY)

    assert [one.id for one in (await records.changes(seen)).accounts] == [junk.id]
    assert [one.id for one in (await records.changes()).accounts if one.usable] == [asked.id, good.id, own.id]
    await records.sweep(NOW + 2 * DAY)
    assert await records.account(junk.id) is None
