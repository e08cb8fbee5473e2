"""Members of a JSON object in its bytes: found wherever they may stand, and nothing else touched."""

import json
import random

import pytest

from chat2api.errors import InvalidRequestError
from chat2api.protocol.openai.members import find_members, parse_body, replace_members


def values(data: bytes) -> dict[str, bytes]:
    return {name: data[member.start : member.end] for name, member in find_members(data).items()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{}", {}),
        (b" { } ", {}),
        (b'{"a":1}', {"a": b"1"}),
        (b'{ "a" : 1e400 , "b":\t[1,{"a":2}] }\r\n', {"a": b"1e400", "b": b'[1,{"a":2}]'}),
        (b'{"mod\\u0065l":"x\\"},{","c":null}', {"model": b'"x\\"},{"', "c": b"null"}),
        (b'{"a":{"b":{"c":"}"}},"d":"\\\\"}', {"a": b'{"b":{"c":"}"}}', "d": b'"\\\\"'}),
        (b'{"":-0.0,"\xc3\xa9":true}', {"": b"-0.0", "é": b"true"}),
    ],
)
def test_members_are_found_wherever_they_stand(data: bytes, expected: dict[str, bytes]) -> None:
    assert values(data) == expected


def test_a_member_that_stands_twice_is_refused_however_it_is_spelled() -> None:
    for data in (b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}'):
        with pytest.raises(InvalidRequestError) as caught:
            find_members(data)
        assert caught.value.param == "model"
    find_members(b'{"a":{"model":1},"b":{"model":2},"model":3}')


def test_a_replaced_member_leaves_all_other_bytes_as_they_were() -> None:
    data = b'{ "model" : "openai/gpt-4o" ,\r\n "seed": 12345678901234567890123, "x": "\\ud800\\u00e9" }'
    assert replace_members(data, {"model": "gpt-4o"}) == data.replace(b"openai/", b"")


def test_a_missing_member_is_put_in_front() -> None:
    assert replace_members(b'{"a":1}', {"b": {"c": True}}) == b'{"b":{"c":true},"a":1}'
    assert replace_members(b" {}", {"b": 1}) == b' {"b":1}'
    assert replace_members(b'{"a":1,"z":9}', {"z": 2, "b": "\u2028"}) == b'{"b":"\\u2028","a":1,"z":2}'


def test_random_objects_mean_the_same_but_for_what_is_replaced() -> None:
    rng = random.Random(7)
    for _ in range(300):
        body = {f"k{number}": _value(rng, 3) for number in range(rng.randint(0, 6))}
        blanks = rng.choice([None, 1, "\t"])
        data = json.dumps(body, indent=blanks, ensure_ascii=rng.random() < 0.5).encode()
        new = {f"k{rng.randint(0, 8)}": _value(rng, 1)}
        assert json.loads(replace_members(data, new)) == body | new


def _value(rng: random.Random, depth: int) -> object:
    leaves: list[object] = [None, True, 1.5, -3, 'a"b\\', "{[,:]}", "é\u2028", ""]
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(leaves)
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(['"', "k", "\\", "é,"]) + str(n): _value(rng, depth - 1) for n in range(rng.randint(0, 3))}


@pytest.mark.parametrize("data", [b'{"a":"\\ud800"}', b'{"a":"\\udc00\\ud800"}'])
def test_json_without_an_exact_value_is_known_for_it(data: bytes) -> None:
    assert parse_body(data)[1] == "odd"
    assert parse_body(b'{"a":"\\ud83d\\ude00"}') == ({"a": "😀"}, "exact")


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a":NaN}', b'{"a":1,}', b'{"a":"\xff"}', b"[" * 100_000, b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="line"):
        parse_body(data)
