import gc
from collections.abc import Callable

import pytest
from curl_cffi import ffi

from chat2api.upstream.easy import EasyHandle, LineLists, Shape, shape_of
from chat2api.upstream.exchange import Channel, Request
from chat2api.upstream.headers import Lines, Plan
from chat2api.upstream.profiles import PROFILES
from chat2api.upstream.uploads import Upload


class Company:
    """A multi handle's part, without libcurl."""

    def __init__(self) -> None:
        self.channel = Channel("a", None, PROFILES[0])
        self.ca_file = ""
        self.room = 1
        self.lists: dict[Plan, LineLists] = {}

    def add(self, easy: EasyHandle) -> None: ...

    def remove(self, easy: EasyHandle) -> None: ...

    def resume(self, easy: EasyHandle) -> int:
        return 0

    def settle(self, easy: EasyHandle, *, shared: bool) -> None: ...

    def afterwards(self, callback: Callable[[], None]) -> None: ...

    def grant(self) -> None: ...

    def give_back(self, easy: EasyHandle) -> bool:
        self.room -= 1
        return self.room >= 0

    def line_lists(self, plan: Plan) -> LineLists:
        return self.lists.setdefault(plan, LineLists(plan))


def _walk(node: object) -> list[bytes]:
    """Give the lines of curl's list."""
    node = ffi.cast("struct curl_slist *", node)
    lines = []
    while node != ffi.NULL:
        lines.append(ffi.string(node.data))  # type: ignore[attr-defined]  # cffi's structures have no types
        node = node.next  # type: ignore[attr-defined]
    return lines


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        (Request("GET", "http://a.test/"), ("GET", "none")),
        (Request("HEAD", "http://a.test/"), ("HEAD", "none")),
        (Request("POST", "http://a.test/"), ("POST", "empty")),
        (Request("DELETE", "http://a.test/", body=b""), ("DELETE", "empty")),
        (Request("PATCH", "http://a.test/", body=b"{}"), ("PATCH", "some")),
        (Request("POST", "http://a.test/", upload=Upload()), ("POST", "upload")),
        (Request("GET", "http://a.test/", upgrade=True), ("GET", "socket")),
    ],
)
async def test_the_shape_tells_method_and_kind_of_body(asked: Request, shape: Shape) -> None:
    assert shape_of(asked) == shape


def test_lists_are_used_again_and_never_by_two_requests_at_once() -> None:
    lists = LineLists(Plan((b"", b"B: 2", b""), (2, 0)))
    end = [b"Expect:", b"Content-Type:"]
    one, _one_texts = lists.take([b"C: 1", b"A: 1"])
    two, _two_texts = lists.take([b"C: 2", b"A: 2"])
    assert _walk(one) == [b"A: 1", b"B: 2", b"C: 1", *end]
    assert _walk(two) == [b"A: 2", b"B: 2", b"C: 2", *end]
    lists.give_back(one)
    again, _texts = lists.take([b"C: 3", b"A: 3"])
    assert again is one
    assert (_walk(again)[:3], _walk(two)[:3]) == ([b"A: 3", b"B: 2", b"C: 3"], [b"A: 2", b"B: 2", b"C: 2"])


def test_a_list_stays_as_long_as_a_request_uses_it() -> None:
    company = Company()
    easy = EasyHandle(company, ("GET", "none"))
    easy.prepare(Request("GET", "http://a.test/"), Lines(Plan((b"", b"C: 3"), (0,)), [b"A: 1"]), None)
    company.lists.clear()
    gc.collect()
    assert _walk(easy._lines)[:2] == [b"A: 1", b"C: 3"]
    easy.close()
    easy.close()


def test_a_handle_that_is_kept_holds_nothing_of_its_request() -> None:
    company = Company()
    easy = EasyHandle(company, ("POST", "some"))
    easy.prepare(
        Request("POST", "http://a.test/", body=b"secret"), Lines(Plan((b"",), (0,)), [b"Authorization: secret"]), None
    )
    easy.release(keep=True)
    assert (easy.receiver, easy._lists, easy._lines, easy._own_texts) == (None, None, None, [])
    assert easy._body.read(100) == b""
    assert easy.pointer is not None
    easy.release(keep=True)  # there is no room for it now
    assert easy.pointer is None


def test_a_handle_with_a_pinned_address_is_never_kept() -> None:
    company = Company()
    easy = EasyHandle(company, ("GET", "none"))
    easy.prepare(Request("GET", "http://a.test/"), Lines(Plan((), ()), []), b"+a.test:80:127.0.0.1")
    easy.release(keep=True)
    assert (easy.pointer, company.room) == (None, 1)


def test_R3_a_body_that_was_read_to_its_end_cannot_be_rewound() -> None:
    easy = EasyHandle(Company(), ("POST", "some"))
    body = easy._body
    body.load(b"abcd")
    assert body.read(3) == b"abc"
    body.seek(0, 0)
    assert body.read(100) == b"abcd"
    with pytest.raises(OSError, match="may have acted"):
        body.seek(0, 0)
    easy.close()
