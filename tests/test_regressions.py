"""Mistakes that servers of this kind have made, each with the tests that keep this one from making it (T9).

The table names tests of the whole suite; what no other file shows is tested below. A test that gets another name gets
it here, too.
"""

import ast
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from chat2api.simulator.app import Simulator
from chat2api.simulator.faults import Fault
from tests.e2e.harness import ANSWER, OPERATOR_KEY, Bench, open_bench, open_house

TESTS = Path(__file__).parent

DEFECTS: dict[str, tuple[str, ...]] = {
    # Who may do what
    "the pool is open while no key is set": (
        "test_S1_no_keyless_call_reaches_the_pool",
        "test_S1_without_a_writable_folder_everything_stays_shut",
        "test_T9_without_a_key_of_ones_own_the_server_is_shut_and_not_open",
    ),
    "pages outside of the prefix stay open": (
        "test_S3_with_a_prefix_bare_paths_are_closed_and_health_answers_both_ways",
    ),
    "unknown paths are passed on to the backend": ("test_S4_random_paths_and_methods_never_reach_upstream",),
    "an operator's key is taken for a token and sent to the backend": (
        "test_S5_our_keys_never_travel_upstream",
        "test_S5_no_key_of_ours_travels_upstream",
        "test_the_demo_key_works_while_there_is_no_account_and_never_leaves",
        "test_T9_a_mistyped_key_of_ours_is_refused_here_and_not_tried_as_a_token",
    ),
    "the key of a document works": (
        "test_S2_samples_and_short_keys_are_refused_where_others_can_reach_the_server",
        "test_S2_no_document_prints_a_key_that_would_be_taken",
    ),
    "a key in the query is taken, and logged": ("test_S7_a_key_in_the_query_is_no_key",),
    "a forged forwarding header changes who one is": ("test_S14_forwarding_headers_of_strangers_are_not_believed",),
    "every web page may call with credentials": (
        "test_S25_credentials_are_never_allowed",
        "test_S25_a_keyless_call_from_a_foreign_page_is_refused",
    ),
    "one caller goes on with another's conversation": (
        "test_S8_a_conversation_belongs_to_the_key_that_began_it",
        "test_S8_an_own_token_cannot_reach_a_conversation_of_the_pool",
    ),
    "an id in a body changes the path that is called": (
        "test_S6_ids_that_could_change_a_path_or_host_are_refused",
        "test_S6_a_pointer_cannot_leave_the_files",
    ),
    "gopher and file addresses are fetched": ("test_F7_S6_what_could_go_elsewhere_than_meant_is_refused",),
    "static files lead to any file": ("test_S38_static_files_are_files_of_ours_only",),
    # What is told
    "a traceback or the backend's page is told to the caller": (
        "test_T1_what_is_not_for_callers_tells_nothing",
        "test_T1_quoted_words_hold_no_markup_address_or_token",
    ),
    "prompts and tokens stand in the log": (
        "test_G6_S18_the_log_holds_none_of_them",
        "test_S18_every_kind_of_secret_is_taken_out_of_messages_and_arguments",
    ),
    "the caller's address and agent are sent on": ("test_G6_nothing_of_the_caller_travels_upstream",),
    "failures are 200 with null or nothing in them": (
        "test_R14_nothing_at_all_is_no_answer",
        "test_T9_a_failure_is_never_an_empty_answer",
    ),
    "every failure is a 500": ("test_T1_each_class_has_its_status_type_and_code",),
    "clients repeat what cannot succeed": (
        "test_R3a_clients_do_not_multiply_what_lasts",
        "test_R3a_final_errors_say_so",
    ),
    # Streams
    "a stream ends without a reason, or with two": (
        "test_a_stream_is_chunks_with_one_finish_reason_and_done",
        "test_no_good_end_before_every_choice_has_ended",
    ),
    "an answer that was cut looks finished": (
        "test_R14_a_stream_that_ends_early_is_an_error",
        "test_R14_an_answer_without_an_end_was_cut",
        "test_a_stream_that_fails_does_not_look_finished",
    ),
    "an error comes after [DONE], or [DONE] after an error": (
        "test_T1_an_error_in_the_stream_is_one_event_and_no_done",
        "test_nothing_may_follow_the_end",
        "test_T1_R2_a_fault_after_content_ends_the_answer_and_is_never_repeated",
    ),
    "text is said twice after a break": (
        "test_T1_R2_a_fault_after_content_ends_the_answer_and_is_never_repeated",
        "test_a_continued_answer_has_no_seam",
        "test_R2_cuts_in_mid_answer_cause_no_second_call_and_repeat_no_character",
    ),
    "characters break where reads are cut": (
        "test_T3_every_split_of_the_same_bytes_gives_the_same_events",
        "test_half_surrogates_of_two_deltas_are_one_character",
    ),
    "the last operation's path is lost, and patches land elsewhere": (
        "test_path_and_operation_stick_and_a_patch_does_not_change_them",
        "test_side_events_leave_the_sticky_path_alone",
    ),
    "the caller's own earlier message comes back as the answer": (
        "test_an_echo_of_an_assistants_message_that_we_sent_is_not_the_answer",
    ),
    "markup of the private use area reaches the reader": (
        "test_no_private_use_character_reaches_the_caller",
        "test_private_use_markup_becomes_markdown",
    ),
    "a block by moderation is an empty answer": ("test_a_block_by_moderation_ends_even_a_cut_answer",),
    "a failing tool ends an answer that said everything": (
        "test_a_tool_error_counts_only_when_nothing_was_said_after_it",
        "test_an_error_after_a_finished_answer_spoils_nothing",
    ),
    "a web page with status 200 is read as a stream": ("test_R14_a_web_page_is_told_at_its_first_byte",),
    "a long answer costs the square of its length": (
        "test_T3_a_long_answer_costs_no_more_than_its_length",
        "test_many_small_reads_of_one_long_line_take_linear_time",
    ),
    "answers are cut after a minute": ("test_F5_no_answer_is_cut_by_the_frameworks_own_limit",),
    "the backend goes on for a caller who left": (
        "test_R10_what_a_client_that_left_had_asked_for_is_aborted",
        "test_F1_R10_cancelling_a_stalled_stream_stops_upstream",
    ),
    "a caller who does not read fills the memory": (
        "test_R12_a_client_that_does_not_read_slows_the_backend_and_is_sent_away",
    ),
    # Requests
    "null in a body is taken for a value": ("test_nulls_mean_not_set",),
    "the text false asks for a stream": ("test_T9_a_stream_that_is_a_text_is_refused",),
    "the model of the reply is made up": ("test_the_reply_names_the_model_that_served",),
    "usage depends on whether it was streamed": ("test_usage_is_the_same_either_way_and_only_where_asked_for",),
    # Towards the backend
    "a header says None or null": (
        "test_what_is_not_there_has_no_header",
        "test_headers_leave_out_what_has_no_value",
        "test_T9_no_header_or_query_says_none_or_null",
    ),
    "an empty proof is sent where none was asked for": (
        "test_without_a_challenge_there_is_no_proof_header_and_no_empty_one",
    ),
    "the hardest proof allowed is refused, or a harder one taken": (
        "test_only_a_difficulty_below_the_setting_is_refused",
        "test_the_comparison_is_not_strict_at_any_count_of_digits",
    ),
    "a search gives up after so many tries and a made-up proof is sent": (
        "test_a_miss_goes_on_with_a_fresh_config",
        "test_R1_searching_ends_at_its_limit_and_says_so",
    ),
    "the search stops the whole server": ("test_F9_R9_the_loop_goes_on_while_all_workers_search",),
    "an account is another browser with every request": (
        "test_an_account_is_one_browser_with_its_own_connections",
        "test_the_agent_inside_token_and_proof_is_the_one_in_the_header",
    ),
    "cookies of one account go with another's request": ("test_cookies_come_back_on_their_channel_and_on_no_other",),
    "a check is gone round by the next account": ("test_G3_a_check_is_never_gone_round",),
    # Accounts
    "picking never ends when a token is there twice or all have failed": (
        "test_R29_the_picker_ends_on_any_list",
        "test_R29_a_lease_ends_for_any_list_of_accounts",
    ),
    "a limited account is asked again before its time": (
        "test_R7_a_stated_wait_is_kept_for_its_account_and_model_to_the_second",
        "test_R7_a_stated_limit_is_kept_over_restarts",
    ),
    "a limit of one model closes the account": ("test_R7_a_stated_limit_holds_for_its_model_alone",),
    "the queue grows without end": ("test_R8_the_queue_is_bounded_in_length_and_time",),
    "a failing sign-in server makes good tokens bad": (
        "test_R29_any_other_answer_leaves_the_token_as_it_is",
        "test_R29_a_hundred_answers_that_say_nothing_kill_no_account",
    ),
    "a token is exchanged twice at once": (
        "test_one_flight_serves_all_who_ask",
        "test_R27_two_replicas_at_once_send_one_token",
    ),
    "a new token is used before it is stored": ("test_the_new_pair_is_on_disk_before_anybody_has_it",),
    "the file of tokens is cut short by a crash, and replaced by an empty one at the next start": (
        "test_F10_R25_killed_at_every_point_no_token_is_lost",
        "test_R17_a_damaged_store_is_refused_and_left_as_it_is",
        "test_R17_a_missing_database_beside_its_mark_is_not_replaced",
    ),
    "the same token is listed twice": ("test_R29_a_token_that_is_known_merges",),
    "two who add at once lose each other's tokens": ("test_R29_two_that_add_at_once_lose_nothing",),
    "clearing the pool cannot be undone": ("test_R30_what_was_removed_can_be_brought_back",),
    "every four days begins anew each month": ("test_R22_the_next_run_is_on_the_fourth_day_at_15_00",),
    # Running it
    "a wrong setting is a traceback": ("test_R23_a_bad_setting_stops_the_server_without_a_traceback",),
    "a stop cuts all answers": ("test_F6_R24_a_running_stream_is_finished_before_the_server_stops",),
    "the environment's proxy takes the tokens along": ("test_the_environments_proxies_are_ignored",),
}
"""What went wrong elsewhere, and the tests that would tell."""


def test_T9_at_least_forty_defects_have_tests_that_exist() -> None:
    names = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert len(DEFECTS) >= 40
    assert all(DEFECTS.values())
    assert {test: defect for defect, tests in DEFECTS.items() for test in tests if test not in names} == {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("regressions")) as opened:
        yield opened


@pytest.mark.asyncio(loop_scope="module")
async def test_T9_without_a_key_of_ones_own_the_server_is_shut_and_not_open(tmp_path: Path) -> None:
    async with (
        Simulator() as sim,
        open_house(
            tmp_path, sim, tokens=[sim.control.accounts[0].access_token], AUTHORIZATION="", ANONYMOUS="off"
        ) as house,
        httpx.AsyncClient(base_url=house.base, trust_env=False) as http,
    ):
        for bearer in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer None"}):
            answer = await http.get("/v1/models", headers=bearer)
            assert answer.status_code == 401
        assert sim.control.requests == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("key", [OPERATOR_KEY[:-1], OPERATOR_KEY + "x", OPERATOR_KEY.upper(), "sk-c2a-" + "x" * 43])
async def test_T9_a_mistyped_key_of_ours_is_refused_here_and_not_tried_as_a_token(bench: Bench, key: str) -> None:
    async with bench.case():
        told = await bench.ask(key=key)
        assert bench.control.requests == []
    assert (told.status, told.error["code"]) == (401, "invalid_api_key")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", ["", "null", "{}", "[]", "data: null\n\n", "data: [DONE]\n\n", '{"detail": null}'])
async def test_T9_a_failure_is_never_an_empty_answer(bench: Bench, body: str, stream: bool) -> None:
    async with bench.case():
        bench.control.fail("conversation", Fault("answer", status=200, body=body), times=None)
        told = await bench.ask(stream)
    assert told.status == 502
    assert told.error["code"] == "upstream_protocol"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("value", ["false", "true", 0, 1, [], {}])
async def test_T9_a_stream_that_is_a_text_is_refused(bench: Bench, value: object) -> None:
    async with bench.case():
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": value}
        answer = await bench.http.post(
            "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {OPERATOR_KEY}"}
        )
        assert bench.control.requests == []
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("options", [{}, {"conduit": "null"}, {"proof_required": False}, {"turnstile": "absent"}])
async def test_T9_no_header_or_query_says_none_or_null(bench: Bench, options: dict[str, object]) -> None:
    async with bench.case():
        bench.control.set_options(endpoints="f", **options)  # type: ignore[arg-type]  # options are JSON values
        assert (await bench.ask(model="auto")).text() == ANSWER
        for record in bench.control.requests:
            for name, value in record.request.headers:
                if name == "sec-fetch-site":  # none is a word of that header
                    continue
                assert value.strip().lower() not in ("none", "null", "undefined", "bearer none"), (
                    f"{record.route}: {name}"
                )
            assert "None" not in record.request.target
            if record.request.body.startswith(b"{"):
                assert "None" not in json.loads(record.request.body).values()
