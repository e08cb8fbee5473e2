"""Forms with files: their fields are read however they are cut, and what could be read in two ways is refused."""

import random

import pytest

from chat2api.errors import InvalidRequestError, UnsupportedMediaTypeError
from chat2api.protocol.openai.forms import VALUE_LIMIT, FormReader, read_boundary, write_type


def part(name: str, value: bytes, *, file: str | None = None, more: str = "") -> bytes:
    told = f'; filename="{file}"' if file is not None else ""
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{told}\r\n{more}\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XX--\r\n"


def read(data: bytes, seed: int | None = None) -> FormReader:
    reader, at, rng = FormReader(b"XX"), 0, random.Random(seed)
    while at < len(data):
        size = len(data) if seed is None else rng.randint(1, 30)
        reader.feed(data[at : at + size])
        at += size
    return reader


TRICKY = b'--X\r\n\r\n--XY\r\nname="model"\r\n--\r\n\0\xff' * 50


@pytest.mark.parametrize("first", [True, False])
def test_fields_are_read_however_the_form_is_cut_and_wherever_its_file_stands(first: bool) -> None:
    parts = [
        part("file", TRICKY, file='a";b.mp3', more="Content-Type: audio/mpeg\r\n"),
        part("model", "whisper-é".encode()),
    ]
    data = form(*(parts if first else reversed(parts)), part("empty", b""))
    for seed in (None, *range(60)):
        reader = read(data, seed)
        assert reader.fields == {"model": "whisper-é", "empty": ""}
        assert data[reader.places["model"] :].startswith("whisper-é".encode())
        assert reader.ended


def test_a_preamble_and_what_follows_the_end_are_passed_over() -> None:
    for seed in (None, 1, 2, 3):
        assert read(b"hello\r\n" + form(part("a", b"1")) + part("b", b"2"), seed).fields == {"a": "1"}


def test_a_field_may_repeat_only_where_its_name_says_so() -> None:
    assert read(form(part("include[]", b"a"), part("include[]", b"b"))).fields == {"include[]": "b"}
    with pytest.raises(InvalidRequestError) as caught:
        read(form(part("model", b"a"), part("model", b"b")))
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    "data",
    [
        b"--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XX--\r\n",
        b'--XX\r\nContent-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\nx\r\n--XX--\r\n',
        b"--XX\r\n" + b"A: " + b"a" * 20_000,
        form(part("a", b"1" * (VALUE_LIMIT + 1))),
        form(*(part(f"a{number}", b"") for number in range(300))),
        form(*(part(f"a{number}", b"", file="") for number in range(300))),
        # What others may read in another way.
        form(part("a", b"1\r\n--XX \r\nhidden")),
        form(part("a", b"1\n--XX\r\nhidden")),
        form(part("a", b"1\r\n--XX\nhidden")),
        form(part("a", b"1")).replace(b"--XX--", b"--XX--x"),
        form(part('a"; name="model', b"1")),
        form(part("a", b"1", more="X: y\r\n folded\r\n")),
        form(part("a", b"1", more="X: y\nZ: z\r\n")),
        form(part("a\\", b"1")),
        form(part("a", b"1", file='"; name="model')),
        form(part("a", b"1").replace(b'name="a"', b"name=\"a\"; name*=utf-8''model")),
    ],
)
def test_what_is_no_clear_form_is_refused(data: bytes) -> None:
    for seed in (None, 4):
        with pytest.raises(InvalidRequestError):
            read(data, seed)


def test_files_are_known_by_name() -> None:
    assert read(form(part("file", b"x", file="a"), part("model", b"m", file=""))).files == {"file", "model"}


@pytest.mark.parametrize("boundary", [b"XX", b"a b:c", b"----WebKitFormBoundary7MA4"])
def test_S39_the_type_is_written_anew(boundary: bytes) -> None:
    written = write_type(boundary)
    assert read_boundary(written) == boundary
    assert read_boundary(f"{written}; charset=utf-8") == boundary


def test_S37_a_long_file_is_not_kept() -> None:
    reader = FormReader(b"XX")
    reader.feed(part("file", b"", file="x")[:-2])
    for _ in range(200):
        reader.feed(b"\r\n--X" * 10_000)
        assert len(reader._buffer) < 64 * 1024
        assert reader._value == b""
    reader.feed(b"\r\n" + form(part("model", b"m")))
    assert reader.fields == {"model": "m"}


def test_a_form_that_is_cut_off_is_not_over() -> None:
    data = form(part("a", b"1"))
    for end in range(len(data) - 4):
        assert not read(data[:end]).ended


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/form-data; boundary=XX", b"XX"),
        ('multipart/form-data; boundary="a b"', b"a b"),
        ("Multipart/Form-Data;boundary=----WebKitFormBoundary7MA4YWxk", b"----WebKitFormBoundary7MA4YWxk"),
        ("multipart/form-data; charset=utf-8; boundary=XX; x=y", b"XX"),
    ],
)
def test_the_boundary_is_read(kind: str, boundary: bytes) -> None:
    assert read_boundary(kind) == boundary


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=XX",
        'multipart/form-data; boundary="' + "x" * 71 + '"',
    ],
)
def test_S25_another_type_is_refused(kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        read_boundary(kind)
