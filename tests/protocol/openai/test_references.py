"""What a call refers to, and what an answer tells to have been made."""

import random

import orjson
import pytest

from chat2api.protocol.openai.references import MadeReader, made_by_event, references


def in_content(part: dict[str, object]) -> dict[str, object]:
    return {"input": [{"role": "user", "content": [part]}]}


def with_tool(tool: dict[str, object]) -> dict[str, object]:
    return {"tools": [tool]}


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "x"},
        {"conversation": "x"},
        {"conversation": {"id": "x"}},
        {"messages": [{"role": "assistant", "audio": {"id": "x"}}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
        in_content({"type": "input_image", "file_id": "x"}),
        {"prompt": {"id": "pmpt_of_the_operator", "variables": {"schema": {"type": "input_file", "file_id": "x"}}}},
        with_tool({"type": "image_generation", "input_image_mask": {"file_id": "x"}}),
        with_tool({"type": "file_search", "vector_store_ids": ["x"]}),
        with_tool({"type": "code_interpreter", "container": "x"}),
        with_tool({"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["x"]}}),
        with_tool({"type": "shell", "environment": {"type": "container_reference", "container_id": "x"}}),
        with_tool({"type": "shell", "environment": {"skills": [{"type": "skill_reference", "skill_id": "x"}]}}),
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"id": "x"}]},
        {"input": [{"type": None, "id": "x"}]},
        {"input": [{"type": "item_reference", "id": "x", "content": "y", "encrypted_content": "y"}]},
        {"input": [{"type": "image_generation_call", "id": "x"}]},
        {"input": [{"type": "image_generation_call", "id": "x", "result": "AAAA", "encrypted_content": "y"}]},
        {"input": [{"type": "reasoning", "id": "x", "summary": []}]},
        {"input": [{"type": "reasoning", "id": "x", "summary": [], "encrypted_content": None}]},
        {"input": [{"type": "web_search_call", "id": "x", "status": "completed"}]},
        {"input": [{"type": "mcp_list_tools", "id": "x"}]},
        {"input": [{"type": "a_call_of_tomorrow", "id": "x"}]},
        {"input": [{"type": ["odd"], "id": "x"}]},
        {"input": [{"type": "code_interpreter_call", "container_id": "x"}]},
        {"input": [{"type": "mcp_approval_response", "approval_request_id": "x", "id": "own words"}]},
    ],
)
def test_S8_whatever_the_api_would_look_up_is_a_reference(body: dict[str, object]) -> None:
    assert references(body) == {"x"}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"input": "x"},
        {"input": [1, 2, [3]]},
        {"input": {"id": "x"}},
        {"input": [{"type": "message", "id": "msg_x", "role": "assistant", "content": []}]},
        {"input": [{"id": "msg_x", "role": "user", "content": "hello"}]},
        {"input": [{"type": "function_call", "id": "fc_x", "call_id": "call_x", "name": "f", "arguments": "{}"}]},
        {"input": [{"type": "function_call_output", "id": "fco_x", "call_id": "call_x", "output": "5"}]},
        {"input": [{"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "gAAAA"}]},
        {"input": [{"type": "item_reference", "id": 5}]},
        in_content({"type": "output_text", "text": "y", "annotations": [{"file_id": "cfile_x", "container_id": "x"}]}),
        {"metadata": {"file_id": "x"}},
        {"tools": [{"type": "function", "parameters": {"properties": {"file_id": {}}, "default": {"file_id": "x"}}}]},
        {"prompt": {"id": "pmpt_x"}},
        {"conversation": None, "previous_response_id": None, "container": {"type": "auto"}},
    ],
)
def test_what_says_all_itself_refers_to_nothing(body: object) -> None:
    assert references(body) == set()


@pytest.mark.parametrize(
    ("event", "made"),
    [
        ({"type": "response.output_item.added", "item": {"id": "msg_1", "type": "message"}}, ["msg_1"]),
        ({"item": {"id": "ci_1", "container_id": "cntr_1", "outputs": [{"id": "no"}]}}, ["ci_1", "cntr_1"]),
        ({"response": {"id": "resp_1", "output": [{"id": "rs_1"}, 5, {"id": "msg_1"}]}}, ["rs_1", "msg_1"]),
        (
            {"item": {"type": "mcp_list_tools", "id": "mcpl_1", "tools": [{"id": "no", "item": {"id": "no"}}]}},
            ["mcpl_1"],
        ),
        ({"id": "chatcmpl-1", "choices": [{"delta": {"audio": {"id": "audio_1"}}}, {"delta": {}}]}, ["audio_1"]),
        ({"item": "x", "response": {"output": "x"}, "choices": "x"}, []),
        ({"choices": [None, {"delta": None}, {"delta": {"audio": 5}}]}, []),
        ([], []),
        (None, []),
    ],
)
def test_an_event_tells_what_was_made(event: object, made: list[str]) -> None:
    assert list(made_by_event(event)) == made


ANSWER = {
    "id": "resp_1",
    "object": "response",
    "item": {"id": "no"},
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"text": 'an \\ "id":"no" \\', "id": "no"}]},
        {"type": "image_generation_call", "result": "A" * 5000 + '"\\', "id": "ig_1"},
        {"id": "mcpl_1", "tools": [{"id": "no", "input_schema": {"output": [{"id": "no"}]}}]},
        {"x" * 300: {"id": "no"}, "[]": [{"id": "no"}], "container_id": "cntr_1", "id": "ci_1"},
        {"id": "y" * 300, "empty": [], "none": {}, "number": -1.5e3},
        {"id": "msg_1", "content": [{"text": 'say \'output":[{"id":"no"}]'}]},
    ],
    "choices": [{"message": {"audio": {"id": "audio_1", "data": "B" * 1000}}}],
    "usage": {"id": "no", "output_tokens": 5},
}
MADE = ["rs_1", "ig_1", "mcpl_1", "cntr_1", "ci_1", "msg_1", "audio_1"]


def test_a_whole_answer_tells_what_was_made_however_it_is_cut() -> None:
    data = orjson.dumps(ANSWER, option=orjson.OPT_INDENT_2)
    rng = random.Random(11)
    cuts = [
        [],
        range(1, len(data)),
        *([rng.randrange(len(data)) for _ in range(rng.randrange(1, 40))] for _ in range(300)),
    ]
    for chosen in cuts:
        reader, found, at = MadeReader(), [], 0
        for cut in [*sorted(chosen), len(data)]:
            found += reader.feed(data[at:cut])
            at = cut
            assert len(reader._rest) <= 256
        assert found == MADE


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'"x"', b"]}],:", b'{"output":"', b"\\\\", b'{"output":[{"id":5,"id":"' + b"\xff" * 9]
)
def test_what_is_no_such_answer_tells_nothing(data: bytes) -> None:
    assert MadeReader().feed(data) == []
