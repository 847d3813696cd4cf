"""The data of messages: kept to the letter, or refused alike on each carrier."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.message import Cursor, Kind, Message
from oncecast.wire import draft_fields, envelope, payload, v1_frames
from oncecast.wire.v1_frames import Publish
from tests.wire.json_rig import BIG, DEEP, JSON, refused


@pytest.mark.parametrize(
    "data",
    [
        b"1",
        b" {  } ",
        b'{"a":1,"a":2}',
        BIG,
        b"[1.0000000000000000000001,1e999,-0,1E5]",
        b'"\\u0000\\ud83d\\ude00"',
        '"\u2028\u00e9"'.encode(),
        b"null",
        b'\t"a"\t',
    ],
)
def test_json_is_kept_to_the_letter(data: bytes) -> None:
    """Digits, spaces, doubled keys and escapes stay as they were sent."""
    assert data == payload.json_data(data)


@pytest.mark.parametrize(
    "data, line",
    [
        (b"1\n", b"1"),
        (b"[\r\n  " + BIG + b" ,\n1.0000000000000000000001]", b"[" + BIG + b",1.0000000000000000000001]"),
        (b'{\n"a b" : "c\\n d"}', b'{"a b":"c\\n d"}'),
    ],
)
def test_json_of_several_lines_becomes_one(data: bytes, line: bytes) -> None:
    """An envelope is one line, and still no digit or character of a value changes."""
    assert line == payload.json_data(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"nul",
        b"[1,]",
        b"[01]",
        b"[1.]",
        b"[NaN]",
        b"1 2",
        b"\n1 2",
        b"\xef\xbb\xbf1",
        b'"\x00"',
        b'"a\tb"',
        b'"\\x"',
        b"\x00",
        b"\x0b1",
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    """A text that is no JSON by RFC 8259 is refused."""
    assert "not JSON" in refused("data_invalid", payload.json_data, data)


@pytest.mark.parametrize(
    "data",
    [
        b'"\\ud800"',
        b'["\\udc00"]',
        b'[\n"\\ud800"]',
        b'"\\uD834\\udd1e \\\\ \\" \\u0041 \\uDBFF and more"',
        b'"\\ud800\\u0041"',
        b'"\\ud800\\ud834\\udd1e"',
        b'"\\\\\\ud800"',
    ],
)
def test_half_of_a_surrogate_pair_is_refused_by_name(data: bytes) -> None:
    """Half of a surrogate pair is refused with its own words, as it has no UTF-8 and no subscriber could be sent it."""
    assert payload.HALF_PAIR == refused("data_invalid", payload.json_data, data)
    line = b'"channel":"news","data":' + data + b"}"
    assert payload.HALF_PAIR == refused("data_invalid", draft_fields.parse_line, b"{" + line.replace(b"\n", b""))
    assert payload.HALF_PAIR == refused("frame_invalid", v1_frames.parse_frame, b'{"type":"publish",' + line)


@pytest.mark.parametrize("data", [b'"\\ud834\\udd1e', b'"\\\\ud800', b'"\\ud7ff', b'["\\ud834\\udd1e" 1]', b'"\\ud8"'])
def test_another_fault_is_not_taken_for_half_of_a_pair(data: bytes) -> None:
    """Whole pairs and what only looks like a half are not blamed for what is wrong elsewhere."""
    assert "not JSON" in refused("data_invalid", payload.json_data, data)


def test_looking_for_half_of_a_pair_is_quick() -> None:
    """Data of the largest size, made to be hard to look through, holds the loop for no noticeable time."""
    for piece in (b"\\\\", b"\\ud834\\udd1e", b"\\u", b"x"):
        data = b'"' + piece * ((1 << 20) // len(piece))
        begin = time.process_time()
        with contextlib.suppress(Refusal):
            payload.json_data(data)
        assert 0.2 > time.process_time() - begin


@pytest.mark.parametrize("data, byte", [(b"\xff", 0), (b'"ab\xc3"', 3), (b'"\xed\xa0\x80"', 1)])
def test_data_that_is_not_utf8_is_refused_at_its_byte(data: bytes, byte: int) -> None:
    """JSON and text alike, and the message says where."""
    for check in (payload.json_data, payload.text_data):
        assert f"byte {byte}" in refused("data_invalid", check, data)


@pytest.mark.parametrize("data", [DEEP, b"\n" + DEEP, b"[" * 200_000])
def test_json_nested_without_end_is_refused(data: bytes) -> None:
    """JSON that nests without end is refused, and uses up no stack."""
    refused("data_invalid", payload.json_data, data)


@given(JSON)
def test_all_that_json_can_say_is_taken(value: object) -> None:
    """Whatever a JSON writer makes passes, and reads back as the same."""
    assert value == json.loads(payload.json_data(json.dumps(value, indent=1).encode()))


@pytest.mark.parametrize("data", [b"", b"a\r\nb\0", "é\u2028".encode(), b"\xef\xbb\xbfa"])
def test_text_is_kept_as_it_is(data: bytes) -> None:
    """Any UTF-8 is text."""
    assert data == payload.text_data(data)


@given(st.binary(max_size=100))
def test_base64_is_decoded(data: bytes) -> None:
    """Base64 as other programs write it is decoded to the same bytes."""
    assert data == payload.base64_data(base64.b64encode(data).decode())


@pytest.mark.parametrize("text", ["A", "AA", "AAA", "AA==\n", "A A=", "AA-_", "Aé==", "====", "\ud800"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """No padding, other alphabets, white space: each would be a guess."""
    assert "base64" in refused("data_invalid", payload.base64_data, text)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b'{"a":\n1}', (b'{"a":1}', Kind.JSON)),
        (b"hello", (b"hello", Kind.TEXT)),
        (b"", (b"", Kind.TEXT)),
        (b"\xff\x00", (b"\xff\x00", Kind.BINARY)),
        (b"x" + DEEP, (b"x" + DEEP, Kind.TEXT)),
        (b"[" * payload.MAX_DEPTH, (b"[" * payload.MAX_DEPTH, Kind.TEXT)),
        (b"\xff" + DEEP, (b"\xff" + DEEP, Kind.BINARY)),
    ],
    ids=["json", "text", "empty", "binary", "deep text", "brackets", "deep bytes"],
)
def test_data_without_a_type_is_what_it_can_be(data: bytes, expected: tuple[bytes, Kind]) -> None:
    """JSON if it parses, else text if it is UTF-8, else binary."""
    assert expected == payload.sniff(data)


NESTED = [
    (b"[" * payload.MAX_DEPTH + b"]" * payload.MAX_DEPTH, True),
    (b"[" * (payload.MAX_DEPTH + 1) + b"]" * (payload.MAX_DEPTH + 1), False),
    (b'{"a":' * payload.MAX_DEPTH + b"1" + b"}" * payload.MAX_DEPTH, True),
    (b'{"a":' * (payload.MAX_DEPTH + 1) + b"1" + b"}" * (payload.MAX_DEPTH + 1), False),
    (b"[" + b"[]," * 2000 + b"[]]", True),
    (b'["' + b"[" * 2000 + b'"]', True),
    (b'["\\\\","' + b"[" * 2000 + b'","\\"' + b"{" * 2000 + b'"]', True),
    (b"[" * 960 + b"]" * 960, False),
    (b"[" * 100_000 + b"]" * 100_000, False),
    (b" \n" + b"[" * 600 + b"]" * 600, False),
]


@pytest.mark.parametrize("data, taken", NESTED, ids=range(len(NESTED)))
def test_the_depth_of_json_is_bounded_alike_on_each_carrier(data: bytes, taken: bool) -> None:
    """With a type or without, in a line or in a frame: what is too deep is refused, and the rest is JSON."""
    line = b'{"channel":"a","data":' + data + b"}"

    def framed(text: bytes) -> bytes:
        frame = v1_frames.parse_frame(b'{"type":"publish",' + text[1:])
        assert isinstance(frame, Publish)
        return frame.draft().data

    if taken:
        assert (data, Kind.JSON) == payload.sniff(data)
        assert data == payload.json_data(data) == draft_fields.parse_line(line).data == framed(line)
        return
    refused("data_invalid", payload.sniff, data)
    refused("data_invalid", payload.json_data, data)
    refused("data_invalid", draft_fields.parse_line, line)
    refused("data_invalid", framed, line)


def test_what_is_taken_can_be_read_by_a_client() -> None:
    """The deepest data stands inside a poll's answer, which clients decode as a whole."""
    data = b"[" * payload.MAX_DEPTH + b"]" * payload.MAX_DEPTH
    message = envelope.message_json(Message(1, "a", data, Kind.JSON, None, 1.0), "e")
    assert msgspec.json.decode(envelope.poll_json([message], Cursor("e", 1), [], several=False))


def depth_of(value: object) -> int:
    """Return how deep a value nests, by walking through it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(map(depth_of, inner), default=0) + isinstance(value, dict | list)


@given(
    st.recursive(
        st.integers() | st.text(st.sampled_from('[]{}"\\:é')),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{}"\\'), inner, max_size=4),
        max_leaves=30,
    )
)
def test_the_depth_is_what_a_walk_finds(value: object) -> None:
    """Brackets and quotes in strings, escaped or not, count for nothing."""
    assert depth_of(value) == payload._depth(json.dumps(value).encode())
    assert depth_of(value) == payload._depth(json.dumps(value, ensure_ascii=False, indent=2).encode())


@given(st.text("[]", max_size=40))
def test_the_depth_of_any_brackets(text: str) -> None:
    """Eight at a time they lead as deep as one by one."""
    heights = accumulate(1 if char == "[" else -1 for char in text)
    assert max([0, *heights]) == payload._depth(text.encode())


def test_the_depth_of_the_largest_body_is_found_quickly() -> None:
    """A body full of brackets holds the loop for no longer than other work on it does."""
    for data in (b"[" + b"[]," * 340_000 + b"[]]", b'["' + b'[\\""]",' * 130_000 + b'"]'):
        begun = time.process_time()
        payload.check_depth(data)
        assert time.process_time() - begun < 0.5


# -- values inside of JSON


@given(
    st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"a", b":", b",", b"1", b".", b"\\", b"\n", b"nul", b"l"]))
)
def test_a_decoder_checks_the_grammar_of_a_value_as_the_check_of_it_alone_does(pieces: list[bytes]) -> None:
    """The decoder of a frame refuses the same values of `data` as the check of a value alone."""
    data = b"".join(pieces)
    try:
        raw = bytes(msgspec.json.decode(b'{"channel":"a","data":%b}' % data, type=draft_fields.BatchLine).data)
    except msgspec.DecodeError:
        return
    assert payload.json_data(raw) == payload.json_value(raw)


@pytest.mark.parametrize("size", [1, payload.CUT_BYTES, payload.CUT_BYTES + 1, 5000])
@pytest.mark.parametrize("before", ["", "x" * payload.FIND_BYTES, "x" * 5000, ":" * 20])
def test_colons_are_counted_around_the_data(before: str, size: int) -> None:
    """Wherever the data stands, and whether or not its beginning stands before it too."""
    raw = b'"%b"' % (b"x:" * size)
    assert 2 + before.count(":") == payload.colons_around(raw, b'{"key":"%b","data":%b}' % (before.encode(), raw))


@pytest.mark.parametrize("twice", ["channel", "data", "event", "key", "ref"])
@pytest.mark.parametrize("data", ["1", '{"a":1,"b":[2,3]}', '"' + "x:" * 4000 + '"'])
@pytest.mark.parametrize("event", ["e", "e:e"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_field_that_stands_twice_is_found_whatever_the_data_is(
    twice: str, data: str, event: str, escaped: bool
) -> None:
    """A repeated field is found whatever `data` holds, also if its second name has an escape."""
    fields = {"channel": '"a"', "data": data, "event": f'"{event}"', "key": '"k"', "ref": '"r"'}
    name = f"\\u{ord(twice[0]):04x}{twice[1:]}" if escaped else twice
    text = ",".join(f'"{field}":{value}' for field, value in fields.items())
    good, bad = f'{{"type":"publish",{text}}}', f'{{"type":"publish",{text},"{name}":{fields[twice]}}}'
    assert "a" == v1_frames.parse_frame(good.encode()).draft().channel  # type: ignore[union-attr]
    assert "twice" in refused("frame_invalid", v1_frames.parse_frame, bad.encode())
