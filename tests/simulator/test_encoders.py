"""Tests of the two encodings and of the oddities of framing."""

import json
from typing import Any

import pytest

from chat2api.simulator.encoders import encode
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.replies import NumberedWords
from chat2api.simulator.script import TEXT, Change, Grow, Open, Patch, Side, Step, play
from chat2api.simulator.wire import Object
from tests.simulator.web_client import read_classic, read_events, read_v1


def _message(message_id: str) -> Object:
    return {
        "id": message_id,
        "author": {"role": "assistant"},
        "content": {"content_type": "text", "parts": [""]},
        "status": "in_progress",
        "metadata": {"list": []},
        "channel": "final",
    }


_PIECES = ["", "Caf\u00e9 ", '"quoted" \\ ', "\U0001f30a\n", "\u2028\ue200"]
_STEPS: list[Step] = [
    Open(_message("m-1")),
    Grow(TEXT, _PIECES),
    Side({"type": "title_generation", "title": "T"}),
    Grow(TEXT, ["more"]),
    Patch(
        (Change("/message/status", "replace", "finished_successfully"), Change("/message/metadata/list", "append", [1]))
    ),
    Grow(TEXT, [" after a patch"]),
    Open(_message("m-2")),
    Grow(TEXT, ["a", "b"], as_lists=True),
    Grow(TEXT, ["c"]),
]


def _text(encoding: str, steps: list[Step] = _STEPS, **options: Any) -> str:
    frames = encode(steps, encoding, "c-1", SimulatorOptions(**options))
    return b"".join(frame.data for frame in frames).decode()


def test_both_encodings_and_the_script_itself_lead_to_the_same_messages() -> None:
    expected = {str(message["id"]): message for message in play(_STEPS)}
    assert read_classic(_text("classic")) == read_v1(_text("v1")) == expected
    assert "".join(_PIECES) + "more after a patch" == expected["m-1"]["content"]["parts"][0]  # type: ignore[index,call-overload]


def test_path_and_operation_stand_only_where_they_change() -> None:
    deltas = [json.loads(data) for name, data in read_events(_text("v1")) if name == "delta"]
    outline = [(value.get("p"), value.get("o")) for value in deltas]
    assert outline == [
        ("", "add"),
        (TEXT, "append"),
        *[(None, None)] * 4,
        (None, None),  # across the title
        ("", "patch"),
        (TEXT, "append"),
        (None, None),  # a new message: only c
        ("", "patch"),
        (None, None),
        (TEXT, "append"),
    ]
    assert [value["c"] for value in deltas if "c" in value] == [0, 1]


def test_a_classic_event_holds_the_whole_text_so_far() -> None:
    texts = [json.loads(data)["message"]["content"]["parts"][0] for _, data in read_events(_text("classic"))[1:6]]
    assert texts == ["".join(_PIECES[: count + 1]) for count in range(5)]


def test_deltas_are_marked_as_such() -> None:
    frames = list(encode(_STEPS, "v1", "c-1", SimulatorOptions()))
    assert sum(frame.delta for frame in frames) == 10


_ODDITIES: list[dict[str, Any]] = [
    {"newline": "\r\n"},
    {"pad": 32},
    {"comments": True},
    {"timestamps": True},
    {"empty_data": True},
    {"trailing_blanks": True},
    {"glued": True},
    {"newline": "\r\n", "comments": True, "timestamps": True, "empty_data": True, "glued": True, "pad": 1},
]


@pytest.mark.parametrize("oddity", _ODDITIES)
@pytest.mark.parametrize("encoding", ["classic", "v1"])
def test_oddities_change_the_bytes_but_not_the_messages(oddity: dict[str, Any], encoding: str) -> None:
    read = read_classic if encoding == "classic" else read_v1
    plain, odd = _text(encoding), _text(encoding, **oddity)
    assert read(odd) == read(plain)
    unseen = (encoding == "classic" and set(oddity) == {"pad"}) or (encoding == "v1" and set(oddity) == {"glued"})
    assert (odd == plain) is unseen


def test_each_oddity_looks_as_described() -> None:
    assert '"pad":"pppp"}' in _text("v1", pad=4)
    assert ": ping\n\n" in _text("v1", comments=True)
    assert "data: 2024-05-01 10:00:00.000000\n\n" in _text("classic", timestamps=True)
    assert "}data: {" in _text("classic", glued=True)
    assert "\n" not in _text("v1", newline="\r\n").replace("\r\n", "")


@pytest.mark.parametrize("options", [{}, {"pad": 3}, {"newline": "\r\n"}, {"comments": True}])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_prepared_bytes_of_load_are_those_of_any_text(options: dict[str, Any], count: int) -> None:
    words = NumberedWords(1, count)
    load: list[Step] = [Open(_message("m-1")), Grow(TEXT, words), Grow(TEXT, words)]
    plain: list[Step] = [Open(_message("m-1")), Grow(TEXT, list(words)), Grow(TEXT, list(words))]
    assert _text("v1", load, **options) == _text("v1", plain, **options)


@pytest.mark.parametrize(("done", "count"), [("once", 1), ("twice", 2), ("absent", 0)])
def test_the_end_mark_can_be_missing_or_doubled(done: str, count: int) -> None:
    assert _text("v1", done=done).count("data: [DONE]") == count
