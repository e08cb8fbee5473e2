"""Tests of the kinds of answers: what each shows on the wire, in both encodings, and what is stored."""

import re
from typing import Any, get_args

import pytest

from chat2api.simulator.answers import IMAGE_TOOL
from chat2api.simulator.app import Simulator
from chat2api.simulator.options import AnswerKind
from tests.simulator.web_client import WebClient, read_classic, read_objects, read_v1, visible_text

_ENCODINGS = ("classic", "v1")


async def _answer(web: WebClient, sim: Simulator, kind: str, encoding: str, **settings: Any) -> str:
    sim.control.choose(answer=kind, encoding=encoding, **settings)
    answer = await web.ask(history_and_training_disabled=False)
    assert answer.status_code == 200
    return answer.text


async def _messages(web: WebClient, sim: Simulator, kind: str, encoding: str) -> list[dict[str, Any]]:
    text = await _answer(web, sim, kind, encoding)
    found = read_classic(text) if encoding == "classic" else read_v1(text)
    return [m for m in found.values() if m["author"]["role"] in ("assistant", "tool")]


def _outline(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(m["author"]["role"], m["content"]["content_type"], m["recipient"]) for m in messages]


_FINAL = ("assistant", "text", "all")
_OUTLINES: dict[str, list[tuple[str, str, str]]] = {
    "text": [_FINAL],
    "whole_add": [_FINAL],
    "final_patch": [_FINAL],
    "bare_lists": [_FINAL],
    "code": [("assistant", "code", "python"), ("tool", "execution_output", "all"), _FINAL],
    "thoughts": [("assistant", "thoughts", "all"), ("assistant", "reasoning_recap", "all"), _FINAL],
    "o1": [("tool", "text", "all"), _FINAL],
    "channels": [_FINAL, _FINAL, _FINAL],
    "memory": [
        ("assistant", "text", "bio"),
        ("tool", "text", "all"),
        ("assistant", "model_editable_context", "all"),
        _FINAL,
    ],
    "citations": [("assistant", "code", "web.run"), _FINAL],
    "citations_2024": [_FINAL],
    "image": [("assistant", "code", IMAGE_TOOL), ("tool", "multimodal_text", "all"), _FINAL],
    "image_2024": [("assistant", "code", "dalle.text2im"), ("tool", "multimodal_text", "all"), _FINAL],
    "image_async": [("assistant", "code", IMAGE_TOOL), ("tool", "text", "all")],
    "image_given_up": [("assistant", "code", IMAGE_TOOL), ("tool", "text", "all")],
    "image_refused": [("assistant", "code", IMAGE_TOOL), ("tool", "text", "all"), _FINAL],
    "interpreter_file": [("assistant", "code", "python"), ("tool", "execution_output", "all"), _FINAL],
    "blocked": [_FINAL],
    "system_error": [("tool", "system_error", "all")],
    "interrupted": [_FINAL],
    "max_tokens": [_FINAL],
    "empty": [],
    "error": [],
    "error_midway": [_FINAL],
    "error_late": [_FINAL],
    "handoff": [],
    "handoff_poll": [],
}


def test_every_kind_but_the_json_hand_off_is_outlined_here() -> None:
    assert set(_OUTLINES) == set(get_args(AnswerKind)) - {"websocket_2024"}


@pytest.mark.parametrize("kind", _OUTLINES)
async def test_both_encodings_tell_the_same_messages(web: WebClient, sim: Simulator, kind: str) -> None:
    classic, v1 = [await _messages(web, sim, kind, encoding) for encoding in _ENCODINGS]
    assert _outline(classic) == _outline(v1) == _OUTLINES[kind]
    ids = ("id", "create_time", "metadata", "content")
    for one, other in zip(classic, v1, strict=True):
        assert {k: v for k, v in one.items() if k not in ids} == {k: v for k, v in other.items() if k not in ids}
        assert one["content"].get("parts", [""])[:1] == other["content"].get("parts", [""])[:1] or "image" in kind


@pytest.mark.parametrize("kind", ["text", "whole_add", "final_patch", "bare_lists", "code", "thoughts", "channels"])
async def test_the_answer_is_whole_however_it_is_cut(web: WebClient, sim: Simulator, kind: str) -> None:
    for encoding, read in zip(_ENCODINGS, (read_classic, read_v1), strict=True):
        assert visible_text(read(await _answer(web, sim, kind, encoding))) == "Nile, Amazon, Danube."


async def test_text_can_sit_wholly_in_the_add_or_in_the_final_patch(web: WebClient, sim: Simulator) -> None:
    added = [v for v in read_objects(await _answer(web, sim, "whole_add", "v1")) if "v" in v]
    assert all(value.get("o") in (None, "add") for value in added)
    patched = [v for v in read_objects(await _answer(web, sim, "final_patch", "v1")) if "v" in v]
    assert patched[-1]["v"][0]["v"] == "Nile, Amazon, Danube."
    assert not any(value.get("o") == "append" for value in patched)


async def test_bare_lists_have_neither_path_nor_operation(web: WebClient, sim: Simulator) -> None:
    values = [v for v in read_objects(await _answer(web, sim, "bare_lists", "v1")) if isinstance(v.get("v"), list)]
    assert values[0]["o"] == "patch"
    assert set(values[1]) == {"v"}


async def test_reasoning_has_its_texts_and_its_end(web: WebClient, sim: Simulator) -> None:
    for encoding in _ENCODINGS:
        thoughts, recap, _ = await _messages(web, sim, "thoughts", encoding)
        summaries = [thought["summary"] for thought in thoughts["content"]["thoughts"]]
        assert summaries == ["Reading the question", "Choosing the words"]
        assert all(thought["content"] and thought["finished"] for thought in thoughts["content"]["thoughts"])
        assert recap["metadata"]["reasoning_status"] == "reasoning_ended"


async def test_offsets_of_references_count_code_points_with_the_marks(web: WebClient, sim: Simulator) -> None:
    for encoding in _ENCODINGS:
        final = (await _messages(web, sim, "citations", encoding))[-1]
        text, references = final["content"]["parts"][0], final["metadata"]["content_references"]
        assert len(references) == 2
        for reference in references:
            assert text[reference["start_idx"] : reference["end_idx"]] == reference["matched_text"]
        old = (await _messages(web, sim, "citations_2024", encoding))[-1]
        marks = [old["content"]["parts"][0][c["start_ix"] : c["end_ix"]] for c in old["metadata"]["citations"]]
        assert marks == ["【0†source】", "【1†source】"]


async def test_marks_are_cut_across_deltas(web: WebClient, sim: Simulator) -> None:
    values = [v["v"] for v in read_objects(await _answer(web, sim, "citations", "v1")) if isinstance(v.get("v"), str)]
    assert any(value.endswith("\ue200") for value in values)


@pytest.mark.parametrize(("kind", "scheme"), [("image", "sediment"), ("image_2024", "file-service")])
async def test_a_picture_can_be_downloaded(web: WebClient, sim: Simulator, kind: str, scheme: str) -> None:
    text = await _answer(web, sim, kind, "v1", pending_downloads=0)
    conversation_id = list(read_objects(text))[-1]["conversation_id"]
    tool = next(m for m in read_v1(text).values() if m["content"]["content_type"] == "multimodal_text")
    pointer = tool["content"]["parts"][0]["asset_pointer"]
    assert pointer.startswith(scheme + "://")
    file_id = pointer.partition("://")[2]
    path = f"/backend-api/files/{file_id}/download"
    if scheme == "sediment":
        path = f"/backend-api/conversation/{conversation_id}/attachment/{file_id}/download"
    sim.control.choose("file_download", pending_downloads=1)
    assert (await web.get(path)).json() == {"status": "retry"}
    link = (await web.get(path)).json()["download_url"]
    picture = await web.http.get(link)
    assert picture.content.startswith(b"\x89PNG")
    assert (await web.http.get(link, headers=web.headers())).status_code == 403


async def test_an_asynchronous_picture_appears_after_some_polls(web: WebClient, sim: Simulator) -> None:
    text = await _answer(web, sim, "image_async", "v1", pending_polls=2)
    conversation_id = list(read_objects(text))[-1]["conversation_id"]
    kinds = []
    for _ in range(4):
        tree = (await web.get(f"/backend-api/conversation/{conversation_id}")).json()
        kinds.append(tree["mapping"][tree["current_node"]]["message"]["content"]["content_type"])
    assert kinds == ["text", "text", "multimodal_text", "multimodal_text"]


async def test_a_file_of_the_interpreter_is_there_with_history_only(web: WebClient, sim: Simulator) -> None:
    path = "/backend-api/conversation/{}/interpreter/download?message_id={}&sandbox_path=/mnt/data/rivers.csv"
    for temporary, status in ((False, 200), (True, 404)):
        sim.control.choose(answer="interpreter_file")
        text = (await web.ask(history_and_training_disabled=temporary)).text
        final = list(read_classic(text).values())[-1]
        conversation_id = next(read_objects(text))["conversation_id"]
        answer = await web.get(path.format(conversation_id, final["id"]))
        assert answer.status_code == status
        if status == 200:
            assert (await web.http.get(answer.json()["download_url"])).content == b"name\nNile\n"


@pytest.mark.parametrize("encoding", _ENCODINGS)
async def test_a_block_is_said_by_moderation(web: WebClient, sim: Simulator, encoding: str) -> None:
    values = list(read_objects(await _answer(web, sim, "blocked", encoding)))
    assert any(value.get("moderation_response", {}).get("blocked") for value in values)
    assert not any(value.get("type") == "message_stream_complete" for value in values)


@pytest.mark.parametrize(("kind", "begun"), [("error", False), ("error_midway", True), ("error_late", True)])
async def test_an_error_inside_the_stream_has_no_message(
    web: WebClient, sim: Simulator, kind: str, begun: bool
) -> None:
    for encoding in _ENCODINGS:
        text = await _answer(web, sim, kind, encoding)
        errors = [value for value in read_objects(text) if value.get("error")]
        assert len(errors) == 1
        assert errors[0]["message"] is None
        assert ("Nile" in text) is begun


async def test_an_empty_stream_is_the_end_alone(web: WebClient, sim: Simulator) -> None:
    assert await _answer(web, sim, "empty", "classic") == "data: [DONE]\n\n"


async def test_a_stopped_turn_closes_without_end(web: WebClient, sim: Simulator) -> None:
    for encoding in _ENCODINGS:
        final = (await _messages(web, sim, "interrupted", encoding))[-1]
        assert (final["end_turn"], final["metadata"]["finish_details"]["type"]) == (None, "interrupted")


async def test_a_tool_call_is_finished_but_does_not_end_the_turn(web: WebClient, sim: Simulator) -> None:
    call = (await _messages(web, sim, "code", "v1"))[0]
    assert (call["status"], call["end_turn"]) == ("finished_successfully", False)
    assert call["metadata"]["finish_details"]["stop_tokens"] == [200012]


def _types(text: str) -> list[str]:
    return [str(value.get("type", "delta")) for value in read_objects(text)]


@pytest.mark.parametrize(
    ("title", "places"), [("end", [False]), ("middle", [True]), ("twice", [True, False]), ("absent", [])]
)
async def test_the_title_may_come_in_mid_text(web: WebClient, sim: Simulator, title: str, places: list[bool]) -> None:
    for encoding, read in zip(_ENCODINGS, (read_classic, read_v1), strict=True):
        text = await _answer(web, sim, "text", encoding, title=title, text="one two three four five")
        assert visible_text(read(text)) == "one two three four five"
        before_the_end = [" five" in text[: place.start()] for place in re.finditer("title_generation", text)]
        assert [not ended for ended in before_the_end] == places


@pytest.mark.parametrize(
    ("finish", "count", "end_turn"), [("together", 1, True), ("late", 2, True), ("absent", 1, None)]
)
async def test_the_finish_may_be_late_or_missing(
    web: WebClient, sim: Simulator, finish: str, count: int, end_turn: bool | None
) -> None:
    text = await _answer(web, sim, "text", "v1", finish=finish)
    assert sum(value.get("o") == "patch" for value in read_objects(text)) == count
    final = list(read_v1(text).values())[-1]
    assert (final["status"], final["end_turn"]) == ("finished_successfully", end_turn)
    assert ("finish_details" in final["metadata"]) is (finish != "absent")


async def test_side_events_can_be_early_late_or_missing(web: WebClient, sim: Simulator) -> None:
    usual = _types(await _answer(web, sim, "text", "v1"))
    assert "message_stream_complete" in usual
    assert usual[-1] == "conversation_detail_metadata"
    assert "message_stream_complete" not in _types(await _answer(web, sim, "text", "v1", complete=False))
    late = _types(await _answer(web, sim, "text", "v1", late_events=True))
    assert late.index("message_stream_complete") < late.index("beacon_ui_response") == len(late) - 1
    early = _types(await _answer(web, sim, "text", "v1", early_markers=True, echoes=False))
    assert early.index("message_marker") < early.index("delta")
    bare = _types(await _answer(web, sim, "text", "v1", side_events=False, title="absent", complete=False))
    assert set(bare) == {"delta"}


@pytest.mark.parametrize(("shape", "kind"), [("list", list), ("object", dict), ("absent", type(None))])
async def test_a_hand_off_has_options_of_several_shapes(
    web: WebClient, sim: Simulator, shape: str, kind: type[object]
) -> None:
    text = await _answer(web, sim, "handoff", "v1", handoff_options=shape)
    offer = next(value for value in read_objects(text) if value.get("type") == "stream_handoff")
    assert isinstance(offer.get("options"), kind)


async def test_load_of_any_size_is_served(web: WebClient, sim: Simulator) -> None:
    for count in (0, 1, 2, 50):
        for kind in ("text", "blocked"):
            for encoding in _ENCODINGS:
                text = await _answer(web, sim, kind, encoding, events=count)
                assert (f"word{count} " in text) is (count > 0 and (kind == "text" or count <= 2))
