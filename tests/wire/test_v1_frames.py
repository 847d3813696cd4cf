"""The frames of `oncecast.v1`: what is read and refused of a client's, and the server's to the letter."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from oncecast.errors import Refusal
from oncecast.message import Receipt
from oncecast.wire import draft_fields, v1_frames
from oncecast.wire.v1_frames import Auth, Publish, Subscribe, Unsubscribe


def refused(code: str, call: Any, *args: Any) -> str:
    """The message of the refusal that a call has to end in."""
    with pytest.raises(Refusal) as caught:
        call(*args)
    assert code == caught.value.code
    return caught.value.message


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_an_error_does_not_repeat_what_is_long(size: int) -> None:
    """A type, or the name of a field, is as long as a frame may be: the answer to a megabyte is a line."""
    long = b"x" * size
    type_, field = b'{"type":"%s"}' % long, b'{"type":"auth","token":"t","%s":1}' % long
    frames = [refused("frame_invalid", v1_frames.parse_frame, frame) for frame in (type_, field)]
    line = refused("data_invalid", draft_fields.parse_line, b'{"channel":"c","data":1,"%s":1}' % long)
    assert all(each.startswith("This frame is not of oncecast.v1: ") for each in frames)
    assert [size == 1000] * 2 == ["xxx" in each for each in frames]  # a longer frame is refused by its shape
    assert (size == 1000) is ("xxx" in line)
    assert all(len(each) < 300 for each in (*frames, line))


@pytest.mark.parametrize(
    "where", [b'{%b"type":"publish","channel":"c","data":%b}', b'{"type":"publish","channel":"c","data":%b}%b']
)
def test_white_space_beside_the_fields_has_a_bound(where: bytes) -> None:
    """A long frame may have 16 KiB beside its values, of which its data is one however much space that has."""
    data = b"[%b]" % (b" " * 100_000)
    first = where.startswith(b"{%b")
    beside = len(where) - 4 - len(b'"publish""c"')

    def frame(space: int) -> bytes:
        return where % ((b" " * space, data) if first else (data, b" " * space))

    assert isinstance(v1_frames.parse_frame(frame(16384 - beside)), Publish)
    said = refused("frame_invalid", v1_frames.parse_frame, frame(16385 - beside))
    assert said.endswith("leave out unknown fields and white space.")


@pytest.mark.parametrize("ref", [b"9223372036854775807", b"-9223372036854775808", b'"9223372036854775808"'])
def test_a_ref_of_64_bits_comes_back(ref: bytes) -> None:
    """A number within 64 bits, or any text."""
    assert ref == msgspec.json.encode(v1_frames.parse_frame(b'{"type":"auth","token":"t","ref":' + ref + b"}").ref)


@pytest.mark.parametrize("ref", [b"9223372036854775808", b"-9223372036854775809", b"1" + b"0" * 5000, b"1.5", b"1e3"])
def test_a_larger_ref_is_refused(ref: bytes) -> None:
    """Readers differ in what they make of it, and it is not echoed in the error either."""
    frame = b'{"type":"auth","token":"t","ref":' + ref + b"}"
    refused("frame_invalid", v1_frames.parse_frame, frame)
    assert v1_frames.ref_of(frame) is None


@pytest.mark.parametrize(
    "text, frame",
    [
        (b'{"type":"subscribe","channel":"news"}', Subscribe("news")),
        (b'{"type":"subscribe","channel":"news","after":"e-1","ref":1}', Subscribe("news", after="e-1", ref=1)),
        (b'{"type":"subscribe","channel":"news","last":3,"ref":"r"}', Subscribe("news", last=3, ref="r")),
        (b'{"channel":"news","since":1.5,"type":"subscribe"}', Subscribe("news", since=1.5)),
        (b' {"type" : "unsubscribe", "channel":"news"}\n', Unsubscribe("news")),
        (b'{"type":"auth","token":"t","ref":null}', Auth("t")),
        (b'{"type":"unsubscribe","channel":"news","ref":"' + b"x" * 128 + b'"}', Unsubscribe("news", "x" * 128)),
    ],
)
def test_a_frame_is_read(text: bytes, frame: v1_frames.ClientFrame) -> None:
    """Each type, with and without its optional fields."""
    assert frame == v1_frames.parse_frame(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"channel":"news"}',
        b'{"type":"message","channel":"news"}',
        b'{"type":"subscribe"}',
        b'{"type":"subscribe","channel":"news","last":1.5}',
        b'{"type":"subscribe","channel":"news","since":1e999}',
        b'{"type":"subscribe","channel":"news","since":"now"}',
        b'{"type":"subscribe","channel":"news","channels":[]}',
        b'{"type":"subscribe","channel":"news","ref":true}',
        b'{"type":"subscribe","channel":"news","ref":[]}',
        b'{"type":"subscribe","channel":"news","ref":' + b"9" * 5000 + b"}",
        b'{"type":"subscribe","channel":"news","ref":"' + b"x" * 129 + b'"}',
        b'{"type":"auth"}',
        b'{"type":"auth","token":"\xff"}',
    ],
    ids=range(13),
)
def test_what_is_no_frame_is_refused(text: bytes) -> None:
    """Unknown types and fields, missing and mistyped ones, and refs that are no label."""
    refused("frame_invalid", v1_frames.parse_frame, text)


@pytest.mark.parametrize("ref", [None, 7, 10**22, "r", 'é"'])
def test_an_answer_gives_the_ref_back(ref: str | int | None) -> None:
    """An acknowledgement and an error both say which frame they answer."""
    published = json.loads(v1_frames.published_frame(Receipt("e", 7, "memory"), ref))
    assert {"type": "published", "id": "e-7", "durability": "memory", "ref": ref} == published
    error = json.loads(v1_frames.error_frame(Refusal("forbidden", "Ask."), ref))
    assert {"type": "error", "code": "forbidden", "message": "Ask.", "ref": ref} == error


def test_a_frame_of_the_server_has_its_type_first() -> None:
    """A frame of the server has its type first, and then its fields in the given order."""
    assert b'{"type":"drain","retry_after_ms":5}' == v1_frames.server_frame("drain", retry_after_ms=5)
