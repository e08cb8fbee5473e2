"""Whose conversations a caller of the website's calls sees and touches."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from chat2api.errors import Chat2APIError, InvalidAPIKeyError, NotFoundError, UpstreamNotFoundError, UpstreamServerError
from chat2api.gateway.conversations import Conversations
from chat2api.gateway.provider import AnswerFacts, Caller
from chat2api.protocol.chatgpt.website import (
    Page,
    attachment_call,
    feedback_call,
    file_call,
    hide_call,
    read_call,
    sandbox_call,
    title_call,
    update_call,
)
from chat2api.protocol.chatgpt.website_turns import read_turn
from chat2api.protocol.events import FilePointer, Finished
from chat2api.simulator.faults import Fault
from chat2api.simulator.options import SimulatorOptions
from chat2api.storage.values import ConversationOwner
from tests.gateway.bench import ANONYMOUS, ANOTHER, OPERATOR, Gateway, open_gateway, own

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANNA = Caller("issued_key", owner="issued:anna")
BRUNO = Caller("issued_key", owner="issued:bruno")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with open_gateway(tmp_path_factory.mktemp("site"), SimulatorOptions(accounts=0)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def site(gateway: Gateway) -> Conversations:
    """The calls, on a pool of one fresh account, with nobody's conversations."""
    await gateway.fresh()
    for caller in (OPERATOR, ANNA, BRUNO):
        for row in await gateway.source.records.conversations(caller.owner):
            await gateway.source.records.forget_conversation(row.conversation_id)
    return gateway.runtime.conversations


async def say(
    site: Conversations, caller: Caller, content: str = "Name three rivers.", label: str | None = None, **fields: Any
) -> Finished:
    """Make a turn and give its end."""
    body: dict[str, Any] = {"messages": [{"content": {"parts": [content]}}], **fields}
    ends: list[Finished] = []
    answer = site.turn(caller, read_turn(body, site.surroundings()), AnswerFacts(), label)
    async with aclosing(answer) as batches:
        async for pieces in batches:
            ends += [event for piece in pieces for event in piece.events if isinstance(event, Finished)]
    (end,) = ends
    return end


async def listed(site: Conversations, caller: Caller, page: Page | None = None, label: str | None = None) -> list[str]:
    """Give the ids on a page, after a look at the rest of it."""
    page = page or Page()
    answer = json.loads(await site.page(caller, page, label))
    assert (answer["offset"], answer["limit"]) == (page.offset, page.limit)
    return [item["id"] for item in answer["items"]]


async def test_S8_each_key_sees_the_conversations_made_with_it_on_one_shared_account(
    gateway: Gateway, site: Conversations
) -> None:
    made = {caller.owner: [(await say(site, caller)).conversation_id for _ in range(2)] for caller in (ANNA, BRUNO)}
    for caller in (ANNA, BRUNO):
        assert sorted(await listed(site, caller)) == sorted(made[caller.owner])  # type: ignore[type-var]
        assert json.loads(await site.page(caller, Page()))["total"] == 2
    assert await listed(site, OPERATOR) == []
    (account,) = gateway.source.pool.accounts()
    assert len(await listed(site, OPERATOR, label=account.label)) == 4, "an operator may name the account"


@pytest.mark.parametrize("call", ["read", "rename", "hide", "title", "feedback", "turn"])
async def test_S8_nobody_touches_what_another_key_made(gateway: Gateway, site: Conversations, call: str) -> None:
    end = await say(site, ANNA)
    conversation, message = end.conversation_id or "", end.message_id or ""
    calls = {
        "read": lambda: read_call(conversation),
        "rename": lambda: update_call(conversation, {"title": "Mine now"}),
        "hide": lambda: hide_call(conversation),
        "title": lambda: title_call(conversation, {"message_id": message}),
        "feedback": lambda: feedback_call(
            {"conversation_id": conversation, "message_id": message, "rating": "thumbsUp"}
        ),
    }
    gateway.control.reset()
    for stranger in (BRUNO, OPERATOR):
        with pytest.raises(NotFoundError):
            if call == "turn":
                await say(site, stranger, conversation_id=conversation, parent_message_id=message)
            else:
                await site.call(stranger, calls[call]())
    assert gateway.control.requests == [], "not even asked for"
    with pytest.raises(UpstreamNotFoundError):
        await site.call(own(gateway.control.add_account().access_token), read_call(conversation))
    if call == "turn":
        assert (await say(site, ANNA, conversation_id=conversation)).conversation_id == conversation
    else:
        assert json.loads(await site.call(ANNA, calls[call]()))


async def test_a_conversation_is_renamed_rated_and_hidden(gateway: Gateway, site: Conversations) -> None:
    end = await say(site, ANNA)
    conversation = end.conversation_id or ""
    await site.call(ANNA, update_call(conversation, {"title": "Rivers"}))
    whole = json.loads(await site.call(ANNA, read_call(conversation)))
    assert whole["title"] == "Rivers"
    assert whole["current_node"] == end.message_id
    (item,) = json.loads(await site.page(ANNA, Page()))["items"]
    assert item["title"] == "Rivers"
    await site.call(ANNA, hide_call(conversation))
    assert await listed(site, ANNA) == []
    assert await gateway.source.records.conversation(conversation) is None
    with pytest.raises(NotFoundError):
        await site.call(ANNA, read_call(conversation))


async def test_archived_conversations_have_a_list_of_their_own(site: Conversations) -> None:
    first, second = [(await say(site, ANNA)).conversation_id or "" for _ in range(2)]
    await site.call(ANNA, update_call(first, {"is_archived": True}))
    assert await listed(site, ANNA) == [second]
    assert await listed(site, ANNA, Page(archived=True)) == [first]


async def test_the_list_is_cut_into_pages_the_last_used_first(gateway: Gateway, site: Conversations) -> None:
    made = []
    for _ in range(5):
        made.append((await say(site, ANNA)).conversation_id)
        gateway.clock.advance(10.0)
    newest_first = made[::-1]
    assert await listed(site, ANNA, Page(0, 2)) == newest_first[:2]
    assert await listed(site, ANNA, Page(2, 2)) == newest_first[2:4]
    assert await listed(site, ANNA, Page(4, 2)) == newest_first[4:]
    assert await listed(site, ANNA, Page(6, 2)) == []
    await say(site, ANNA, conversation_id=made[0])
    assert (await listed(site, ANNA))[0] == made[0]
    assert (await listed(site, ANNA, Page(order="created")))[0] == made[-1]


async def test_conversations_on_several_accounts_are_one_list(gateway: Gateway, site: Conversations) -> None:
    await gateway.fresh(3)
    labels = [account.label for account in gateway.source.pool.accounts()]
    made = [(await say(site, OPERATOR, label=label)).conversation_id for label in labels]
    assert sorted(await listed(site, OPERATOR)) == sorted(made)  # type: ignore[type-var]
    held = Caller("operator", OPERATOR.owner, allowed=frozenset({gateway.source.pool.accounts()[0].id}))
    assert await listed(site, held) == made[:1]


async def test_what_lies_far_back_in_a_full_list_is_found_all_the_same(
    gateway: Gateway, site: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat2api.gateway.conversations.MAX_LIMIT", 2)
    monkeypatch.setattr("chat2api.gateway.conversations.MAX_PAGES", 2)
    old = [(await say(site, ANNA)).conversation_id or "" for _ in range(2)]
    await site.call(ANNA, update_call(old[0], {"is_archived": True}))
    gateway.clock.advance(10.0)
    for _ in range(5):
        await say(site, BRUNO)
    gateway.control.reset()
    assert await listed(site, ANNA) == [old[1]]
    assert len(gateway.control.requests_to("history_list")) == 2
    assert len(gateway.control.requests_to("history_get")) == 2
    assert (await listed(site, BRUNO, Page(0, 3))) != []


async def test_S8_hiding_all_hides_ones_own_and_leaves_those_of_others(gateway: Gateway, site: Conversations) -> None:
    for _ in range(6):
        await say(site, ANNA)
    kept = (await say(site, BRUNO)).conversation_id
    gateway.control.reset()
    assert json.loads(await site.hide_all(ANNA)) == {"success": True}
    assert gateway.control.requests_to("history_hide_all") == []
    assert await listed(site, ANNA) == []
    assert await listed(site, BRUNO) == [kept]
    assert await gateway.source.records.conversations(ANNA.owner) == ()


async def test_hiding_all_goes_on_over_what_is_gone_and_tells_what_failed(
    gateway: Gateway, site: Conversations
) -> None:
    ends = [await say(site, ANNA) for _ in range(3)]
    gateway.control.fail("history_patch", Fault("answer", named="conversation_not_found"))
    await site.hide_all(ANNA)
    assert await gateway.source.records.conversations(ANNA.owner) == ()
    assert len(ends) == 3
    await say(site, ANNA)
    gateway.control.fail("history_patch", Fault("answer", status=500), times=None)
    with pytest.raises(UpstreamServerError):
        await site.hide_all(ANNA)
    assert len(await gateway.source.records.conversations(ANNA.owner)) == 1


async def test_a_token_of_ones_own_sees_and_hides_all_of_its_account(gateway: Gateway, site: Conversations) -> None:
    visitor = own(gateway.control.add_account().access_token)
    made = {(await say(site, visitor)).conversation_id for _ in range(3)}
    assert set(await listed(site, visitor)) == made
    await site.hide_all(visitor)
    assert await listed(site, visitor) == []
    assert len(gateway.control.requests_to("history_hide_all")) == 1


async def test_nothing_is_kept_of_who_brings_a_token(gateway: Gateway, site: Conversations) -> None:
    visitor = own(gateway.control.add_account().access_token)
    end = await say(site, visitor)
    visitors = gateway.runtime.sources.visitors.records
    assert await visitors.conversations(visitor.owner) == ()
    assert (await say(site, visitor, conversation_id=end.conversation_id)).conversation_id == end.conversation_id


async def test_S8_a_workspace_of_others_shows_nothing_and_harms_no_account(
    gateway: Gateway, site: Conversations
) -> None:
    end = await say(site, ANNA)
    elsewhere = replace(ANNA, workspace="99999999-0000-4000-8000-000000000000")
    assert await listed(site, elsewhere) == []
    for ask in (site.call(elsewhere, read_call(end.conversation_id or "")), site.hide_all(elsewhere)):
        with suppress(NotFoundError):
            await ask
    (account,) = gateway.source.pool.accounts()
    assert account.state == "ok"
    assert await listed(site, ANNA) == [end.conversation_id]


async def test_a_temporary_chat_goes_on_and_is_in_no_list_and_in_no_records(
    gateway: Gateway, site: Conversations
) -> None:
    end = await say(site, ANNA, history_and_training_disabled=True)
    again = await say(
        site,
        ANNA,
        history_and_training_disabled=True,
        conversation_id=end.conversation_id,
        parent_message_id=end.message_id,
    )
    assert again.conversation_id == end.conversation_id
    assert await listed(site, ANNA) == []
    assert await gateway.source.records.conversations(ANNA.owner) == ()
    with pytest.raises(NotFoundError):
        await say(site, BRUNO, conversation_id=end.conversation_id)


async def test_S8_only_an_operator_names_an_account(gateway: Gateway, site: Conversations) -> None:
    (account,) = gateway.source.pool.accounts()
    visitor = own(gateway.control.add_account().access_token)
    for caller, label in ((ANNA, account.label), (visitor, account.label), (OPERATOR, "nobody")):
        with pytest.raises(NotFoundError):
            await site.page(caller, Page(), label)


async def test_without_a_sign_in_there_are_turns_and_models_only(site: Conversations) -> None:
    assert (await say(site, ANONYMOUS, history_and_training_disabled=True)).conversation_id is not None
    assert json.loads(await site.models(ANONYMOUS, lambda slug: True))["models"]
    for ask in (site.page(ANONYMOUS, Page()), site.hide_all(ANONYMOUS), site.accounts(ANONYMOUS)):
        with pytest.raises(InvalidAPIKeyError):
            await ask
    with pytest.raises(InvalidAPIKeyError):
        await site.call(ANONYMOUS, read_call("c-1"))


async def test_models_and_accounts_of_a_pool_tell_what_all_may_know(gateway: Gateway, site: Conversations) -> None:
    told = json.loads(await site.models(ANNA, lambda slug: slug == "gpt-4o"))
    assert [model["slug"] for model in told["models"]] == ["gpt-4o"]
    (account,) = gateway.source.pool.accounts()
    shared = await site.accounts(ANNA)
    assert json.loads(shared)["accounts"]["default"]["account"]["plan_type"] == "plus"
    assert account.user_id is not None
    assert account.user_id.encode() not in shared
    assert account.user_id.encode() in await site.accounts(OPERATOR, account.label)


async def test_a_call_is_tried_again_where_that_may_help(gateway: Gateway, site: Conversations) -> None:
    end = await say(site, ANNA)
    gateway.control.fail("history_get", Fault("answer", status=502))
    assert json.loads(await site.call(ANNA, read_call(end.conversation_id or "")))["conversation_id"]
    gateway.control.fail("history_get", Fault("answer", status=502), times=None)
    with pytest.raises(Chat2APIError):
        await site.call(ANNA, read_call(end.conversation_id or ""))
    await gateway.settled()


# Files and projects


def naming(pointer: str, **fields: Any) -> dict[str, Any]:
    """Give the fields of a turn that shows a file."""
    parts = [{"content_type": "image_asset_pointer", "asset_pointer": pointer}, "What is it?"]
    return {"messages": [{"content": {"content_type": "multimodal_text", "parts": parts}}], **fields}


def attaching(file: str, **fields: Any) -> dict[str, Any]:
    """Give the fields of a turn that attaches a file."""
    metadata = {"attachments": [{"id": file, "name": "a.png"}]}
    return {"messages": [{"content": {"parts": ["What is it?"]}, "metadata": metadata}], **fields}


async def draw(
    gateway: Gateway, site: Conversations, caller: Caller, *, answer: str = "image", **fields: Any
) -> tuple[str, str]:
    """Have a picture drawn; give its conversation and the pointer to it."""
    gateway.control.choose("conversation", answer=answer)
    pointers: list[str] = []
    turn = read_turn({"messages": [{"content": {"parts": ["Draw a boat."]}}], **fields}, site.surroundings())
    conversation = ""
    async with aclosing(site.turn(caller, turn, AnswerFacts())) as batches:
        async for pieces in batches:
            for event in [event for piece in pieces for event in piece.events]:
                conversation = getattr(event, "conversation_id", None) or conversation
                pointers += [event.pointer] if isinstance(event, FilePointer) else []
    return conversation, pointers[0]


@pytest.mark.parametrize("answer", ["image", "image_2024"])
async def test_S8_a_picture_is_used_by_whom_it_was_drawn_for_and_by_nobody_else(
    gateway: Gateway, site: Conversations, answer: str
) -> None:
    conversation, pointer = await draw(gateway, site, ANNA, answer=answer)
    file = pointer.partition("://")[2]
    theirs = (await say(site, BRUNO)).conversation_id
    gateway.control.reset()
    for fields in (
        naming(pointer),
        naming(f"sediment://{file}"),
        naming(f"file-service://{file}"),
        attaching(file),
        attaching(file, conversation_id=theirs),
        attaching(file, history_and_training_disabled=True),
        naming("sediment://file_nobodys"),
        naming(pointer, conversation_id=conversation),
    ):
        with pytest.raises(NotFoundError):
            await say(site, BRUNO, **fields)
    assert gateway.control.requests == [], "not even asked for"
    for fields in (naming(pointer), attaching(file), attaching(file, conversation_id=conversation)):
        assert (await say(site, ANNA, **fields)).conversation_id


async def test_S8_the_link_to_a_file_is_given_to_whose_it_is(gateway: Gateway, site: Conversations) -> None:
    conversation, pointer = await draw(gateway, site, ANNA)
    file = pointer.partition("://")[2]
    theirs = (await say(site, BRUNO)).conversation_id or ""
    for call in (file_call(file), attachment_call(conversation, file)):
        assert json.loads(await site.call(ANNA, call))["download_url"]
    gateway.control.reset()
    for call in (file_call(file), attachment_call(conversation, file), attachment_call(theirs, file)):
        with pytest.raises(NotFoundError):
            await site.call(BRUNO, call)
    assert gateway.control.requests == [], "not even asked for"
    visitor = own(gateway.control.add_account().access_token)
    of_visitor, drawn = await draw(gateway, site, visitor)
    assert await site.call(visitor, attachment_call(of_visitor, drawn.partition("://")[2]))


async def test_S8_what_the_interpreter_wrote_is_read_by_whose_conversation_it_is(
    gateway: Gateway, site: Conversations
) -> None:
    conversation, pointer = await draw(gateway, site, ANNA, answer="interpreter_file")
    whole = json.loads(await site.call(ANNA, read_call(conversation)))
    asked = {"message_id": whole["current_node"], "sandbox_path": pointer.removeprefix("sandbox:")}
    call = sandbox_call(conversation, asked)
    assert json.loads(await site.call(ANNA, call))["download_url"]
    with pytest.raises(NotFoundError):
        await site.call(BRUNO, call)


async def test_S8_an_unknown_file_and_that_of_another_are_told_in_the_same_words(
    gateway: Gateway, site: Conversations
) -> None:
    _, pointer = await draw(gateway, site, ANNA)
    told = []
    for named in (pointer, "sediment://file_nobodys", "https://files.example.test/x"):
        with pytest.raises(NotFoundError) as refused:
            await say(site, BRUNO, **naming(named))
        told.append((refused.value.message, refused.value.code, refused.value.param))
    assert len(set(told)) == 1


async def test_a_file_leads_to_the_account_that_it_lies_on(gateway: Gateway, site: Conversations) -> None:
    await gateway.fresh(3)
    accounts = [account.id for account in gateway.source.pool.accounts()]
    held = [replace(ANNA, allowed=frozenset({account})) for account in accounts]
    pointers = [(await draw(gateway, site, caller))[1] for caller in held]
    for account, pointer in zip(accounts, pointers, strict=True):
        end = await say(site, ANNA, **naming(pointer))
        row = await gateway.source.records.conversation(end.conversation_id or "")
        assert row is not None
        assert row.account_id == account
    gateway.control.reset()
    both = naming(pointers[0])
    both["messages"] += naming(pointers[1])["messages"]
    for caller, fields in (
        (ANNA, both),
        (held[1], naming(pointers[0])),
        (ANNA, naming(pointers[0], conversation_id=end.conversation_id)),
    ):
        with pytest.raises(NotFoundError):
            await say(site, caller, **fields)
    assert gateway.control.requests == []


async def test_files_that_a_conversation_is_seen_to_hold_are_its_owners(gateway: Gateway, site: Conversations) -> None:
    conversation, pointer = await draw(gateway, site, ANNA)
    await gateway.source.records.forget_conversation(conversation)
    row = ConversationOwner(conversation, gateway.source.pool.accounts()[0].id, ANNA.owner, None, gateway.clock.now())
    await gateway.source.records.put_conversation(row)
    with pytest.raises(NotFoundError):
        await say(site, ANNA, **naming(pointer))
    assert pointer.encode() in await site.call(ANNA, read_call(conversation))
    assert (await say(site, ANNA, **naming(pointer))).conversation_id
    await site.call(ANNA, read_call(conversation))


async def test_a_file_of_a_temporary_chat_is_known_without_records(gateway: Gateway, site: Conversations) -> None:
    conversation, pointer = await draw(gateway, site, ANNA, history_and_training_disabled=True)
    assert await gateway.source.records.files.of(conversation) == frozenset()
    assert (await say(site, ANNA, **naming(pointer, history_and_training_disabled=True))).conversation_id
    with pytest.raises(NotFoundError):
        await say(site, BRUNO, **naming(pointer, history_and_training_disabled=True))


async def test_a_file_that_was_attached_stays_usable_when_its_first_conversation_is_hidden(
    gateway: Gateway, site: Conversations
) -> None:
    conversation, pointer = await draw(gateway, site, ANNA)
    await say(site, ANNA, **naming(pointer))
    await site.call(ANNA, hide_call(conversation))
    assert (await say(site, ANNA, **naming(pointer))).conversation_id


async def test_operators_and_bringers_of_tokens_name_any_file_of_theirs(gateway: Gateway, site: Conversations) -> None:
    _, pointer = await draw(gateway, site, ANNA)
    assert (await say(site, OPERATOR, **naming(pointer))).conversation_id
    visitor = own(gateway.control.add_account().access_token)
    _, of_visitor = await draw(gateway, site, visitor)
    assert (await say(site, visitor, **naming(of_visitor))).conversation_id
    with pytest.raises(Chat2APIError):
        await say(site, visitor, **naming(pointer))  # the backend's own answer
    await gateway.settled()


async def test_S8_operators_keys_are_held_like_others_where_they_are_for_friends(
    gateway: Gateway, site: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pointer = await draw(gateway, site, OPERATOR)
    monkeypatch.setattr(site, "_config", replace(site._config, admin_password="a long word for the pages"))
    assert (await say(site, OPERATOR, **naming(pointer))).conversation_id
    for fields in (naming(pointer), {"model": "g-p-0123456789abcdef"}):
        with pytest.raises(NotFoundError):
            await say(site, ANOTHER, **fields)


async def test_S8_projects_of_a_shared_account_are_open_to_its_operator_alone(
    gateway: Gateway, site: Conversations
) -> None:
    project: dict[str, Any] = {"conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-p-0123456789abcdef"}}
    gateway.control.reset()
    for fields in (project, {"model": "g-p-0123456789abcdef"}, {"model": "gpt-4-gizmo-g-p-0123456789abcdef"}):
        with pytest.raises(NotFoundError) as refused:
            await say(site, ANNA, **fields)
        assert refused.value.code == "model_not_found"
    assert gateway.control.requests == []
    visitor = own(gateway.control.add_account().access_token)
    for caller in (OPERATOR, visitor):
        assert (await say(site, caller, **project)).conversation_id
    public: dict[str, Any] = {"conversation_mode": {"kind": "gizmo_interaction", "gizmo_id": "g-0123456789"}}
    assert (await say(site, ANNA, **public)).conversation_id


@pytest.mark.parametrize("call", ["title", "feedback", "turn"])
async def test_S8_a_message_of_others_is_none_of_ones_own_conversation(
    gateway: Gateway, site: Conversations, call: str
) -> None:
    theirs, mine = await say(site, BRUNO), await say(site, ANNA)
    conversation, message = mine.conversation_id or "", theirs.message_id or ""
    with pytest.raises(Chat2APIError) as refused:
        if call == "turn":
            await say(site, ANNA, conversation_id=conversation, parent_message_id=message)
        elif call == "title":
            await site.call(ANNA, title_call(conversation, {"message_id": message}))
        else:
            said = {"conversation_id": conversation, "message_id": message, "rating": "thumbsUp"}
            await site.call(ANNA, feedback_call(said))
    assert 400 <= refused.value.status < 500
    await gateway.settled()
