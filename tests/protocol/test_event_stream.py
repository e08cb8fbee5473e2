"""Framing of event streams: every cut gives the same events, limits hold, odd input is read as the standard says."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat2api.errors import UpstreamProtocolError
from chat2api.protocol.event_stream import (
    EventStreamDecoder,
    ServerSentEvent,
    encode_comment,
    encode_event,
)


def decode(*pieces: bytes, **options: int | bool | None) -> list[ServerSentEvent]:
    decoder = EventStreamDecoder(**options)  # type: ignore[arg-type]  # each test names real options
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def datas(*pieces: bytes) -> list[str]:
    return [event.data for event in decode(*pieces)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("", "a")]),
        (b"data:a\ndata\ndata:  b\n\n", [("", "a\n\n b")]),
        (b"event: ping\n\ndata: a\n\n", [("", "a")]),
        (b"event: delta\ndata: a\n\ndata: b\n\n", [("delta", "a"), ("", "b")]),
        (b": a comment\n:\n\ndata: a\n\n", [("", "a")]),
        (b"data:\n\n", [("", "")]),
        (b"unknown: x\ndata: a\nnonsense\n\n", [("", "a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
        (b"data: \xef\xbb\xbfa\n\n", [("", "\ufeffa")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", [("", "a"), ("", "b"), ("", "c")]),
        (b"data: \xff\xc3(\n\n", [("", "\ufffd\ufffd(")]),
        (b"data: left open", [("", "left open")]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_a_stream_gives_its_events(stream: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(event.event, event.data) for event in decode(stream)] == expected


def test_id_and_retry_are_read() -> None:
    first, second = decode(b"id: 7\nretry: 1500\ndata: a\n\nid: \0\nretry: soon\ndata: b\n\n")

    assert (first.id, first.retry) == ("7", 1500)
    assert (second.id, second.retry) == ("7", None)


@pytest.mark.parametrize("cut", range(40))
def test_a_crlf_cut_between_two_reads_ends_one_line(cut: int) -> None:
    stream = "data: é1\r\ndata: 2\r\n\r\ndata: 3\r\n\r\n".encode()

    assert datas(stream[:cut], b"", stream[cut:]) == ["é1\n2", "3"]


@given(
    st.lists(
        st.sampled_from([b"data: ", b"data", b":", b"\n", b"\r", b"\r\n", b"event: x", b"\xc3\xa9", b"a", b"id: 1"])
    ),
    st.lists(st.integers(0, 80)),
    st.booleans(),
)
def test_T3_every_split_of_the_same_bytes_gives_the_same_events(
    parts: list[bytes], cuts: list[int], split_documents: bool
) -> None:
    stream = b"".join(parts)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[begin:end] for begin, end in itertools.pairwise(places)]

    assert decode(*pieces, split_documents=split_documents) == decode(stream, split_documents=split_documents)


def test_R14_a_line_without_end_aborts_at_the_cap() -> None:
    decoder = EventStreamDecoder(max_event=1000)
    decoder.feed(b"data: " + b"x" * 900)

    with pytest.raises(UpstreamProtocolError):
        decoder.feed(b"x" * 100)


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 1001 + b"\n\n", b"data: x\n" * 1001, b": " + b"x" * 1001 + b"\n"]
)
def test_R14_a_long_event_or_line_aborts(stream: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(stream, max_event=1000)


def test_R14_an_event_of_exactly_the_limit_passes() -> None:
    assert datas(b"data: " + b"x" * 994 + b"\n\n") == ["x" * 994]
    assert len(decode(b"data: " + b"x" * 994 + b"\n\n", max_event=1000)) == 1


def test_R14_a_long_stream_aborts() -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(*[b"data: x\n\n"] * 200, max_stream=1000)


def test_documents_without_a_blank_line_between_them_are_told_apart_when_asked() -> None:
    stream = b'event: delta\ndata: {"a":1} \nevent: delta\ndata: "v1"\ndata: [DONE]\n'

    assert [event.data for event in decode(stream, split_documents=True)] == ['{"a":1} ', '"v1"', "[DONE]"]


def test_one_document_over_several_data_lines_stays_one() -> None:
    stream = b'data: {\ndata: "a": [\ndata: {"b": 1},\ndata: {"c": 2}\ndata: ]}\n\n'

    (event,) = decode(stream, split_documents=True)

    assert event.data.count("\n") == 4


def test_many_small_reads_of_one_long_line_take_linear_time() -> None:
    decoder = EventStreamDecoder()
    begun = time.process_time()
    for _ in range(1_000):
        decoder.feed(b"data: " if _ == 0 else b"x" * 1_000)
    events = decoder.feed(b"\n\n")

    assert len(events[0].data) == 999_000
    assert time.process_time() - begun < 0.5


@given(st.text(), st.sampled_from([None, "delta"]))
def test_what_was_encoded_is_decoded(text: str, name: str | None) -> None:
    (event,) = decode(encode_event(text, name))

    assert event.event == (name or "")
    assert event.data == text.replace("\r\n", "\n").replace("\r", "\n")


def test_a_comment_is_no_event() -> None:
    assert encode_comment("keep-alive") == b": keep-alive\n\n"
    assert decode(encode_comment(), encode_comment("two\nlines\r\ndata: x")) == []


def test_an_event_name_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_event("x", "a\nb")
