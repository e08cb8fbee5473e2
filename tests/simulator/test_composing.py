"""What answers are written in: how a message begins, grows and ends, and what stands beside it."""

from collections.abc import Iterator
from itertools import count
from typing import Any, cast

import pytest

from chat2api.simulator.composing import STOP, Composition, TurnContext, text_content
from chat2api.simulator.options import SimulatorOptions
from chat2api.simulator.script import TEXT, Grow, Open, Patch, Side, play


def composition(encoding: str = "v1", **options: Any) -> Composition:
    numbers: Iterator[int] = count(1)
    context = TurnContext(
        conversation_id="c",
        turn_id="t",
        encoding=encoding,
        model="gpt-5",
        requested_model="auto",
        plan="plus",
        parent_id="m0",
        title="Rivers",
        pieces=["Nile", ", ", "Amazon", "."],
        prompt="Name two.",
        now=1.0,
        resume_token="resume",
        first_turn=True,
        echoes=(),
        options=SimulatorOptions(**options),
        new_id=lambda: f"m{next(numbers)}",
        new_image=lambda kind: kind,
        new_file=lambda message, path, content: None,
    )
    return Composition(context)


def test_messages_stand_below_each_other_and_name_their_model() -> None:
    made = composition()
    first = made.message("assistant", text_content("a"))
    second = made.message("user", text_content("b"))
    assert (first["id"], second["id"], made.parent) == ("m1", "m2", "m2")
    metadata = cast("dict[str, object]", first["metadata"])
    assert (metadata["parent_id"], metadata["model_slug"]) == ("m0", "gpt-5")
    assert second["metadata"] == {}


@pytest.mark.parametrize("finish", ["together", "late"])
def test_what_is_said_grows_word_by_word_to_a_good_end(finish: str) -> None:
    made = composition(finish=finish)
    made.say(made.context.pieces)
    (message,) = play(made.turn.steps)
    assert message["content"] == text_content("Nile, Amazon.")
    assert (message["status"], message["end_turn"]) == ("finished_successfully", True)
    assert cast("dict[str, object]", message["metadata"])["finish_details"] == STOP
    assert [step.path for step in made.turn.steps if isinstance(step, Grow)] == [TEXT]


def test_a_message_may_end_without_saying_that_it_does() -> None:
    made = composition(finish="absent")
    made.say(made.context.pieces)
    (message,) = play(made.turn.steps)
    assert (message["status"], message["end_turn"]) == ("finished_successfully", None)


def test_a_message_of_one_piece_does_not_grow() -> None:
    made = composition()
    made.growing(made.final_message(), TEXT, ["Nile."], *made.closing())
    assert [type(step) for step in made.turn.steps] == [Open, Patch]


def test_events_beside_the_messages_are_those_of_the_encoding() -> None:
    kinds = {}
    for encoding in ("v1", "none"):
        made = composition(encoding)
        made.marker("m1", "last_token", "last")
        made.server_metadata("m1", tool=False)
        kinds[encoding] = [step.payload["type"] for step in made.turn.steps if isinstance(step, Side)]
    assert kinds == {"v1": ["message_marker", "server_ste_metadata", "message_marker"], "none": []}


def test_the_epilogue_closes_the_stream() -> None:
    made = composition(title="end")
    made.say(made.context.pieces)
    made.epilogue(0, "text")
    told = [step.payload.get("type") for step in made.turn.steps if isinstance(step, Side)]
    assert told.index("title_generation") < told.index("message_stream_complete")
