"""What answers hold, streamed and whole: code, reasoning, sources, pictures, files, limits, and where the rest is got."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from chat2api.simulator.faults import Fault, Rule
from tests.e2e.harness import ANSWER, Bench, Told, open_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

REASONING = "The user wants a short answer. I look for what is asked."
SOURCES = ("[The Nile](https://rivers.example.test/nile)", "[The Amazon](https://atlas.example.test/amazon)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path_factory.mktemp("answers")) as bench:
        yield bench


@dataclass(frozen=True)
class Kind:
    """A kind of answer, and what the caller must read in it."""

    name: str
    holds: tuple[str, ...] = (ANSWER,)
    lacks: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    history: bool = False
    finish: str = "stop"
    calls: int = 1
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)


KINDS = [
    Kind("code", holds=("```Output\n45\n```", ANSWER)),
    Kind("thoughts", reasoning=("Reading the question", REASONING)),
    Kind("o1", reasoning=(REASONING,)),
    Kind("channels", lacks=("This is commentary", "This is analysis"), reasoning=("This is analysis",)),
    Kind("memory", lacks=("Likes rivers", "Model set context")),
    Kind("citations", holds=SOURCES, lacks=("\ue200", "utm_source", "turn0search0")),
    Kind("citations_2024", holds=SOURCES, lacks=("【", "†")),
    Kind("image", holds=("![A boat](http", "Here is the picture."), history=True),
    Kind("image_2024", holds=("![", "Here is the picture."), history=True),
    Kind("image_async", holds=("![A boat](http",), history=True),
    Kind("image_refused", holds=("I cannot make that picture.",)),
    Kind("interpreter_file", holds=("[Download rivers.csv](http",), lacks=("sandbox:",), history=True),
    Kind("blocked", holds=("Nile, Amazon,",), lacks=("Danube",), finish="content_filter"),
    Kind("interrupted"),
    Kind("max_tokens", calls=2),
    Kind("handoff", options={"encoding": "v1"}),
    Kind("handoff_poll", history=True),
]


@streamed
@pytest.mark.parametrize("encoding", ["classic", "v1"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_each_kind_of_answer_reaches_the_caller(bench: Bench, kind: Kind, encoding: str, stream: bool) -> None:
    async with bench.case():
        settings = {"answer": kind.name, "encoding": encoding, **kind.options}
        bench.control.add_rule(Rule("conversation", times=kind.times, settings=settings))
        for route in ("resume", "celsius"):
            bench.control.add_rule(Rule(route, times=None, settings={"answer": kind.name}))
        told = await bench.ask(stream, history_disabled=not kind.history)
        assert bench.calls == kind.calls
    assert told.status == 200, told.body
    text, reasoning = told.text(), told.text(kind="reasoning_content")
    for part in kind.holds:
        assert part in text
    for part in kind.lacks:
        assert part not in text
    for part in kind.reasoning:
        assert part in reasoning
    assert bool(reasoning) is bool(kind.reasoning)
    assert told.finish_reasons() == [kind.finish]
    check_end(told)


def check_end(told: Told) -> None:
    """Check that a stream ends well: one end mark, no error."""
    if told.headers["content-type"].startswith("text/event-stream"):
        assert told.data.count("[DONE]") == 1
        assert told.data[-1] == "[DONE]"
        assert not told.stream_errors


async def test_pictures_and_files_can_be_fetched_where_their_links_point(bench: Bench) -> None:
    for kind in ("image", "interpreter_file"):
        async with bench.case():
            bench.control.choose(answer=kind)
            text = (await bench.ask(history_disabled=False)).text()
            link = text.partition("](")[2].partition(")")[0]
            assert (await bench.http.get(link)).status_code == 200


@streamed
async def test_a_file_that_cannot_be_had_is_told_and_harms_nothing_else(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(answer="image")
        bench.control.fail("file_download", Fault("answer", named="server_error"), times=None)
        told = await bench.ask(stream)
    assert "](http" not in told.text()
    assert told.text().endswith("Here is the picture.")
    check_end(told)


@streamed
async def test_an_answer_cut_again_and_again_is_continued_only_so_often(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(times=None, answer="max_tokens", events=64)
        told = await bench.ask(stream)
        assert bench.calls == 4
    assert told.finish_reasons() == ["length"]
    words = told.text().split()
    assert words == [f"word{number}" for number in range(1, len(words) + 1)], "nothing is repeated or left out"
    check_end(told)


@streamed
@pytest.mark.parametrize("continuation", ["rest", "whole"])
async def test_a_continued_answer_has_no_seam(bench: Bench, continuation: str, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(answer="max_tokens", events=40)
        bench.control.choose(times=None, continuation=continuation)
        told = await bench.ask(stream)
        assert bench.calls == 2
    assert told.text().split() == [f"word{number}" for number in range(1, 41)]
    assert told.finish_reasons() == ["stop"]


@streamed
async def test_a_rest_that_is_not_to_be_had_leaves_the_answer_as_cut(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(answer="max_tokens")
        bench.control.refuse("conversation", "server_error", skip=1, times=None)
        told = await bench.ask(stream)
    assert told.text() == "Nile,"
    assert told.finish_reasons() == ["length"]
    check_end(told)


@streamed
@pytest.mark.parametrize("stages", ["single", "both"])
async def test_the_single_stage_of_the_requirements_is_enough(bench: Bench, stages: str, stream: bool) -> None:
    async with bench.case():
        bench.control.set_options(stages=stages)
        assert (await bench.ask(stream)).text() == ANSWER
        assert not bench.control.refusals


@pytest.mark.parametrize("gone", ["404", "405", "410", "prepare_token"])
async def test_where_only_two_stages_exist_they_are_found_once(
    tmp_path_factory: pytest.TempPathFactory, gone: str
) -> None:
    async with open_bench(tmp_path_factory.mktemp("stages")) as bench, bench.case():
        bench.control.set_options(stages="two", single_stage_gone=gone)
        for stream in (False, True):
            assert (await bench.ask(stream)).text() == ANSWER
        assert not bench.control.refusals
        assert len(bench.control.requests_to("requirements")) == 1
        assert len(bench.control.requests_to("requirements_finalize")) == 2


async def test_the_reply_names_the_model_that_served(bench: Bench) -> None:
    async with bench.case():
        assert (await bench.ask(model="gpt-5-6")).json["model"] == "gpt-5-6"
        bench.control.choose(times=2, served_model="gpt-5-5-instant")
        whole, stream = await bench.ask(model="gpt-5-6"), await bench.ask(True, model="gpt-5-6")
    assert whole.json["model"] == "gpt-5-5-instant"
    assert stream.chunks[-1]["model"] == "gpt-5-5-instant"


async def test_a_model_that_nobody_knows_falls_back_and_says_so(bench: Bench) -> None:
    async with bench.case():
        for stream in (False, True):
            told = await bench.ask(stream, model="some-model-9")
            assert told.headers["x-chat2api-model-fallback"] == "some-model-9"
            assert told.text() == ANSWER
            assert "x-chat2api-model-fallback" not in (await bench.ask(stream)).headers


async def test_parameters_that_the_backend_has_not_are_named(bench: Bench) -> None:
    async with bench.case():
        for stream in (False, True):
            told = await bench.ask(stream, temperature=0.2, seed=7, top_p=1)
            assert told.headers["x-chat2api-ignored"] == "seed, temperature"
            assert "x-chat2api-ignored" not in (await bench.ask(stream, temperature=1)).headers


@streamed
async def test_several_choices_are_several_turns(bench: Bench, stream: bool) -> None:
    async with bench.case(2):
        told = await bench.ask(stream, n=3)
        assert bench.calls == 3
    for index in range(3):
        assert told.text(index) == ANSWER
        assert told.finish_reasons(index) == ["stop"]
    check_end(told)


@streamed
async def test_one_failing_choice_ends_the_answer_and_aborts_the_others(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(times=3, events=1000, delay=0.05)
        bench.control.fail("conversation", Fault("close", at="mid_stream", after=4))
        told = await bench.ask(stream, n=3)
        await bench.settled()
        assert sorted(reply.outcome for reply in bench.control.streams) == ["aborted", "aborted", "faulted"]
    if stream:
        (error,) = told.stream_errors
        assert error["code"] == "stream_interrupted"
        assert "[DONE]" not in told.data
    else:
        assert (told.status, told.error["code"]) == (502, "stream_interrupted")


@streamed
async def test_a_stop_sequence_ends_the_answer_and_the_turn(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(events=10_000, delay=0.01)
        told = await bench.ask(stream, stop=["word4"])
        await bench.settled()
        assert [reply.outcome for reply in bench.control.streams] == ["aborted"]
    assert told.text() == "word1 word2 word3 "
    assert told.finish_reasons() == ["stop"]
    check_end(told)


@streamed
async def test_max_tokens_ends_the_answer_and_the_turn(bench: Bench, stream: bool) -> None:
    async with bench.case():
        bench.control.choose(events=10_000, delay=0.01)
        told = await bench.ask(stream, max_tokens=6, stream_options={"include_usage": True} if stream else None)
        await bench.settled()
        assert [reply.outcome for reply in bench.control.streams] == ["aborted"]
    assert told.finish_reasons() == ["length"]
    usage = told.chunks[-1]["usage"] if stream else told.json["usage"]
    assert usage["completion_tokens"] == 6
    assert told.text().startswith("word1 ")
    check_end(told)


async def test_usage_is_told_in_a_chunk_of_its_own_where_it_was_asked_for(bench: Bench) -> None:
    async with bench.case():
        plain = await bench.ask(True)
        asked = await bench.ask(True, stream_options={"include_usage": True})
        whole = await bench.ask()
    assert all("usage" not in chunk for chunk in plain.chunks)
    *others, last = asked.chunks
    assert all(chunk["usage"] is None for chunk in others)
    assert last["choices"] == []
    assert last["usage"] == whole.json["usage"]
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]


async def test_chunks_of_one_answer_share_their_id_and_begin_with_the_role(bench: Bench) -> None:
    async with bench.case():
        told = await bench.ask(True)
    assert len({chunk["id"] for chunk in told.chunks}) == 1
    assert told.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {chunk["object"] for chunk in told.chunks} == {"chat.completion.chunk"}
    assert told.chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}


@pytest.mark.parametrize("gone", [404, 405, 410])
async def test_where_the_classic_call_is_gone_the_newer_one_takes_its_place(
    tmp_path_factory: pytest.TempPathFactory, gone: int
) -> None:
    async with open_bench(tmp_path_factory.mktemp("forms")) as bench, bench.case():
        bench.control.set_options(endpoints="f", endpoint_gone=gone)
        for stream in (False, True):
            assert (await bench.ask(stream)).text() == ANSWER
        paths = [record.request.path for record in bench.control.requests_to("conversation")]
        assert paths == ["/backend-api/conversation", *["/backend-api/f/conversation"] * 2]
        bench.control.choose(answer="max_tokens")
        told = await bench.ask()
        assert told.text() == ANSWER
        assert told.finish_reasons() == ["stop"]
        assert not bench.control.refusals
        assert not bench.control.violations


async def test_one_refusal_of_the_classic_call_does_not_change_the_form_for_good(bench: Bench) -> None:
    async with bench.case(2) as (account, _):
        bench.control.refuse("conversation", "not_found", account=account.user_id, times=2)
        await bench.ask()
        bench.control.reset()
        await bench.ask()
        paths = [record.request.path for record in bench.control.requests_to("conversation")]
    assert paths == ["/backend-api/conversation"]


@streamed
async def test_a_conversation_goes_on_where_it_was(bench: Bench, stream: bool) -> None:
    async with bench.case(2):
        first = await bench.ask(stream, history_disabled=False)
        told = first.chunks[-1] if stream else first.json
        conversation_id, message_id = told["conversation_id"], told["message_id"]
        follow = {"conversation_id": conversation_id, "content": "What did I say?"}
        second = await bench.ask(stream, **follow)
        third = await bench.ask(stream, parent_message_id=message_id, **follow)
        calls = bench.control.requests_to("conversation")
        assert len({call.account for call in calls}) == 1, "the account that has it serves it"
        assert calls[2].request.json()["parent_message_id"] == message_id  # type: ignore[call-overload, index]
    for answer in (second, third):
        assert "Name three rivers." in answer.text()
    assert (second.chunks[-1] if stream else second.json)["conversation_id"] == conversation_id


async def test_temporary_chats_tell_no_conversation(bench: Bench) -> None:
    async with bench.case():
        assert "conversation_id" not in (await bench.ask()).json
        assert all("conversation_id" not in chunk for chunk in (await bench.ask(True)).chunks)


@streamed
async def test_an_unknown_conversation_is_a_404_without_a_call(bench: Bench, stream: bool) -> None:
    async with bench.case():
        told = await bench.ask(stream, conversation_id="00000000-0000-4000-8000-000000000000")
        assert not bench.control.requests
    assert (told.status, told.error["code"], told.error["param"]) == (404, "conversation_not_found", "conversation_id")


async def test_the_whole_history_of_a_stateless_client_reaches_the_backend(bench: Bench) -> None:
    async with bench.case():
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "First question."},
            {"role": "assistant", "content": "First answer."},
            {"role": "user", "content": "What did I say?"},
        ]
        told = await bench.ask(messages=messages)
        (call,) = bench.control.requests_to("conversation")
        for message in messages:
            assert message["content"].encode() in call.request.body
    assert "First question." in told.text()
