"""`chat2api/accounts/importing.py`."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.accounts.importing import MAX_PROBLEMS, Import, parse_import, preview_import, save_import
from chat2api.accounts.tokens import Credential
from chat2api.storage.records import Records
from chat2api.storage.sql_records import SqlRecords
from tests.accounts.jwt import SESSION, access_token

NOW = 1_790_000_000.0
OLD_45 = "Abc-_" * 9
NEW = "rt_" + "Z9-_." * 12
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
COOKIE = "__Secure-next-auth.session-token"


@given(st.text(max_size=80))
def test_S10_no_text_breaks_the_search(text: str) -> None:
    parse_import(text)
    parse_import("{" + text)
    parse_import(json.dumps({"access_token": text, "headers": [{"name": "Cookie", "value": text}]}))


def test_lines_are_read_with_comments_quotes_and_workspaces() -> None:
    text = f'\ufeff# my accounts\r\n\n  {NEW} \n"{OLD_45}",\n{access_token()},team-1\n{UUID}\n# end'

    assert parse_import(text) == Import(
        (
            Credential(3, "refresh", renewable=NEW),
            Credential(4, "refresh", renewable=OLD_45),
            Credential(5, "access", access=access_token(), workspace_id="team-1"),
            Credential(6, "device", device_id=UUID),
        ),
        (),
    )


def test_S17_problems_name_the_line_and_never_repeat_it() -> None:
    text = f"{NEW}\nsecret-canary\nsk-canary\nsk-c2a-canary\n{NEW},not an id canary\n" + '{"canary": \n'

    result = parse_import(text)

    assert [problem.line for problem in result.problems] == [2, 3, 4, 5, 6]
    assert "canary" not in repr(result.problems)
    assert len(result.credentials) == 1


def test_the_same_token_twice_counts_once_but_not_for_two_workspaces() -> None:
    assert len(parse_import(f"{NEW}\n{NEW}\n{NEW},w").credentials) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {
                "tokens": {
                    "id_token": access_token(),
                    "access_token": access_token(),
                    "refresh_token": NEW,
                    "account_id": "w",
                }
            },
            [("refresh", access_token(), NEW, "w")],
        ),
        (
            {"user": {"id": "u"}, "accessToken": access_token(), "sessionToken": SESSION, "account": {"id": "w"}},
            [("session", access_token(), SESSION, None)],
        ),
        (
            [{"token": OLD_45}, {"token": access_token()}],
            [("refresh", None, OLD_45, None), ("access", access_token(), None, None)],
        ),
        ({OLD_45: {"token": access_token(), "timestamp": 1}}, [("refresh", None, OLD_45, None)]),
        (
            [NEW, f"{access_token()},w", "nothing", 3, None],
            [("refresh", None, NEW, None), ("access", access_token(), None, "w")],
        ),
        ({"deep": [{"a": {"b": [{"rt": NEW}]}}]}, [("refresh", None, NEW, None)]),
        ({"account_id": "bad id!", "access_token": access_token()}, [("access", access_token(), None, None)]),
        ({"token": "sk-x", "access_token": access_token()}, [("access", access_token(), None, None)]),
    ],
)
def test_json_exports_are_searched(
    value: object, expected: list[tuple[str, str | None, str | None, str | None]]
) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2)):
        result = parse_import(text)
        found = [(one.kind, one.access, one.renewable, one.workspace_id) for one in result.credentials]
        assert found == expected
        assert result.problems == ()


def test_json_lines_are_read_one_by_one() -> None:
    text = json.dumps({"refresh_token": NEW}) + "\n" + json.dumps({"x": 1}) + "\n" + json.dumps({"token": OLD_45})

    result = parse_import(text)

    assert [one.line for one in result.credentials] == [1, 3]
    assert [problem.line for problem in result.problems] == [2]


def test_json_without_tokens_says_so() -> None:
    assert parse_import("{}").problems[0].line == 1
    assert parse_import("[" * 100_000).problems[0].line == 1


def test_values_over_several_lines_follow_each_other() -> None:
    text = "\n".join([json.dumps({"refresh_token": NEW}, indent=1), OLD_45, "{", json.dumps([UUID], indent=2)])

    result = parse_import(text)

    assert [(one.line, one.kind) for one in result.credentials] == [(1, "refresh"), (4, "refresh"), (6, "device")]
    assert [problem.line for problem in result.problems] == [5]


def test_header_and_cookie_lines_are_read() -> None:
    half = len(SESSION) // 2
    text = "\n".join(
        [
            f"Authorization: Bearer {access_token('a')}",
            f"bearer {access_token('b')},team",
            f"Cookie: oai-did=1; {COOKIE}.0={SESSION[:half]}; {COOKIE}.1={SESSION[half:]}; x=y",
            f"{COOKIE}=nothing",
        ]
    )

    result = parse_import(text)

    assert [(one.access, one.renewable, one.workspace_id) for one in result.credentials] == [
        (access_token("a"), None, None),
        (access_token("b"), None, "team"),
        (None, SESSION[:half] + "|||" + SESSION[half:], None),
    ]
    assert [problem.line for problem in result.problems] == [4]


def recording(**content: Any) -> dict[str, Any]:
    """What a browser's network page saves: each request with headers and cookies, the answers as texts."""
    headers = [
        {"name": "authorization", "value": f"Bearer {access_token()}"},
        {"name": "ChatGPT-Account-Id", "value": "w-1"},
        {"name": "x-other", "value": "1"},
    ]
    request = {"method": "GET", "headers": headers, "cookies": [{"name": COOKIE, "value": SESSION}]}
    return {
        "log": {
            "version": "1.2",
            "entries": [{"request": request, "response": {"content": {"text": json.dumps(content)}}}] * 3,
        }
    }


def test_a_recording_of_the_browser_gives_one_account() -> None:
    (one,) = parse_import(json.dumps(recording(account_ordering=[UUID], access_token="not told"))).credentials

    assert one == Credential(1, "session", access=access_token(), renewable=SESSION, workspace_id="w-1")


def test_a_recorded_session_answer_is_searched() -> None:
    text = json.dumps({"response": {"content": {"text": json.dumps({"accessToken": access_token("z")})}}})

    assert [one.access for one in parse_import(text).credentials] == [access_token("z")]


def test_exported_cookies_give_the_session() -> None:
    cookies = [{"name": "other", "value": "x"}, {"name": COOKIE, "value": SESSION, "domain": ".chatgpt.com"}]

    assert [one.renewable for one in parse_import(json.dumps(cookies)).credentials] == [SESSION]


def test_S17_a_field_with_something_else_is_told_by_name() -> None:
    text = json.dumps([{"access_token": "canary", "token": "canary"}, {"refresh_token": NEW}])

    result = parse_import(text)

    assert len(result.credentials) == 1
    assert [problem.message for problem in result.problems] == ["A field access_token holds no token of a known form."]


def test_ids_in_the_depth_of_an_export_are_no_devices() -> None:
    assert parse_import(json.dumps({"account_ordering": [UUID]})).credentials == ()
    assert parse_import(json.dumps([UUID])).credentials == (Credential(1, "device", device_id=UUID),)


def test_depth_is_bounded() -> None:
    text = '{"a":' * 500 + json.dumps({"rt": NEW}) + "}" * 500

    assert parse_import(text).credentials == ()


@pytest.mark.parametrize("line", ["nonsense", '{"a": [', '{"a": 1}', '{"token": '])
def test_R9_the_wrong_file_is_left_after_a_thousand_lines(line: str) -> None:
    problems = parse_import(f"{line}\n" * 200_000).problems

    assert [problem.line for problem in problems] == list(range(1, MAX_PROBLEMS + 2))
    assert "not looked at" in problems[-1].message


# Preview and saving


@pytest.fixture
async def store() -> AsyncIterator[Records]:
    records = await SqlRecords.in_memory()
    yield records
    await records.aclose()


async def test_R29_a_preview_says_what_saving_then_does(store: Records) -> None:
    await save_import(f"{NEW}\n{access_token('known')}", store, NOW)
    known = {account.kind: account.label for account in (await store.changes()).accounts}
    text = "\n".join(
        [
            NEW,
            access_token("known", serial=2),
            access_token("fresh"),
            access_token("fresh", serial=2),
            access_token("late", expires_at=NOW - 1),
            "garbage-canary",
        ]
    )

    before = await store.changes()
    entries = await preview_import(text, store, NOW)

    assert await store.changes() == before, "a preview changes nothing"
    assert [entry.verdict for entry in entries] == ["known", "known", "new", "known", "expired", "unreadable"]
    assert [entry.line for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert (entries[0].label, entries[1].label) == (known["refresh"], known["access"])
    assert entries[3].text == "The same account as on line 3."
    assert entries[2].email == "s•••@e•••.test"
    assert "canary" not in repr(entries)
    assert not [secret for secret in text.split() if secret in repr(entries)]

    progress: list[tuple[int, int]] = []
    saved = await save_import(text, store, NOW, on_progress=lambda done, total: progress.append((done, total)))

    assert progress == [(4, 4)]
    assert (saved.expired, [problem.line for problem in saved.problems]) == (1, [6])
    assert [one.outcome for one in saved.added] == ["unchanged", "merged", "added", "merged"]
    assert saved.added[2].account.label == entries[2].label, "the label was foretold"
    assert len((await store.changes()).accounts) == 3


async def test_R30_a_preview_knows_what_was_removed(store: Records) -> None:
    await save_import(NEW, store, NOW)
    await store.delete_accounts(None, NOW)

    (entry,) = await preview_import(NEW, store, NOW)

    assert entry.verdict == "known"
    assert "removed" in entry.text


async def test_a_thousand_lines_tell_their_progress(store: Records) -> None:
    text = "\n".join(access_token(f"user-{number}") for number in range(1000))
    progress: list[int] = []

    assert {entry.verdict for entry in await preview_import(text, store, NOW)} == {"new"}
    saved = await save_import(text, store, NOW, on_progress=lambda done, total: progress.append(done))

    assert len(saved.added) == 1000
    assert progress == list(range(50, 1001, 50))
