"""Messages that clients publish, in the line of a batch and in a frame: their drafts, and what is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.message import Draft, Kind
from oncecast.wire import draft_fields, v1_frames
from oncecast.wire.v1_frames import Publish
from tests.wire.json_rig import BIG, DEEP, JSON, refused


@pytest.mark.parametrize(
    "text",
    [
        b'{"channel":"a","data":{"channel":1,"channel":2,"data":3}}',
        b'{"channel":"a","data":"\\"channel\\""}',
        b'{"data":1,"event":"channel","channel":"a"}',
        b'{"channel":"a","key":"\\u00e9","data":"' + b"channel" * 60 + b'"}',
        b'{"channel":"a:b","event":null,"key":":","data":{"a":":"}}',
        b'{"channel":"a","data64":{"base64":""}}',
        b'{ "channel" : "a" , "data" : [1:2] }'.replace(b"1:2", b"1"),
    ],
    ids=range(7),
)
def test_names_of_fields_may_stand_in_values(text: bytes) -> None:
    """Only a field that stands twice is refused; what is in the data is the publisher's."""
    assert draft_fields.parse_line(text).channel in ("a", "a:b")
    frame = v1_frames.parse_frame(b'{"type":"publish",' + text[1:])
    assert isinstance(frame, Publish)


@pytest.mark.parametrize(
    "fields, draft",
    [
        (b'"data":{"a": 1}', Draft("news", b'{"a": 1}')),
        (b'"data": ' + BIG, Draft("news", BIG)),
        (b'"data":null', Draft("news", b"null")),
        (b'"data":"a\\n\\u0000\\ud83d\\ude00"', Draft("news", "a\n\0\U0001f600".encode(), Kind.TEXT)),
        (b'"data":""', Draft("news", b"", Kind.TEXT)),
        (b'"data64":"/wA="', Draft("news", b"\xff\x00", Kind.BINARY)),
        (b'"data64":{"base64":"/wA="}', Draft("news", b"\xff\x00", Kind.BINARY)),
        (b'"data64":""', Draft("news", b"", Kind.BINARY)),
        (b'"data":1,"event":"up","key":"k1"', Draft("news", b"1", Kind.JSON, "up", "k1")),
        (b'"data64":"","event":null,"key":null', Draft("news", b"", Kind.BINARY)),
    ],
)
def test_a_line_and_a_frame_make_the_same_draft(fields: bytes, draft: Draft) -> None:
    """JSON verbatim, a JSON string as text, and binary data in both of its forms."""
    assert draft == draft_fields.parse_line(b'{"channel":"news",' + fields + b"}")
    frame = v1_frames.parse_frame(b'{"type":"publish","channel":"news",' + fields + b"}")
    assert isinstance(frame, Publish)
    assert draft == frame.draft()


@pytest.mark.parametrize(
    "fields, code",
    [
        (b'"channel":"a b","data":1', "channel_invalid"),
        (b'"channel":"news"', "data_invalid"),
        (b'"channel":"news","data":1,"data64":""', "data_invalid"),
        (b'"channel":"news","data64":"A"', "data_invalid"),
        (b'"channel":"news","data64":{}', "data_invalid"),
        (b'"channel":"news","data64":{"base46":"AAAA"}', "data_invalid"),
        (b'"channel":"news","data64":{"base64":"AAAA","x":""}', "data_invalid"),
        (b'"channel":"news","data":"\xff"', "data_invalid"),
        (b'"channel":"news","data":1,"event":"a\\nb"', "event_invalid"),
        (b'"channel":"news","data":1,"event":""', "event_invalid"),
        (b'"channel":"news","data":1,"key":""', "key_invalid"),
    ],
)
def test_a_draft_that_breaks_a_rule_is_refused_with_its_code(fields: bytes, code: str) -> None:
    """The same in a line and in a frame."""
    refused(code, draft_fields.parse_line, b"{" + fields + b"}")
    frame = v1_frames.parse_frame(b'{"type":"publish",' + fields + b"}")
    assert isinstance(frame, Publish)
    refused(code, frame.draft)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b"\xff",
        b'{"channel":"news","data":}',
        b'{"channel":1,"data":1}',
        b'{"channel":"news","data":1,"typo":2}',
        b'{"channel":"news","data64":null}',
        b'{"channel":"news","data64":{"base64":1}}',
        b'{"channel":"news","data":"\\ud800"}',
        b'{"channel":"news","data":1,"event":"\\ud800"}',
        b'{"channel":"\xff","data":1}',
        b'{"channel":"news","data":1,"event":"\xff"}',
        b'{"channel":"news","data64":"\xff"}',
        DEEP,
        b'{"channel":"news","channel":"news","data":1}',
        b'{"channel":"news","data":1,"data":1}',
        b'{"channel":"news","data":1,"chann\\u0065l":"other"}',
        b'{"channel":"news","channel" : "other","data":"' + b"x" * 300 + b'"}',
        b'{"data":"' + b"x" * 300 + b'","channel":"news","data":"' + b"x" * 300 + b'"}',
        b'{"channel":"news","data64":{"base64":"AA==","base64":"AQ=="}}',
        b'{"channel":"n:s","channel" :"news","data":1}',
        b'{"data":{"x":1},"channel":"news","data":2}',
        b'{"channel":"news","event":null,"event":"e","data":2}',
        b'{"channel":"news","event":"e","event":null,"data":2}',
        b'{"channel":"news","data":1,"key":"a","event":"b","key":"a"}',
        b'{"data":' + b"1" * 257 + b'5,"channel":"news","data":' + b"1" * 257 + b"}",
    ],
    ids=range(28),
)
def test_what_is_no_line_or_frame_is_refused(text: bytes) -> None:
    """Broken JSON, wrong types, unknown or repeated fields and lone surrogates, with the code of where it came from."""
    refused("data_invalid", draft_fields.parse_line, text)
    refused("frame_invalid", v1_frames.parse_frame, text.replace(b"{", b'{"type":"publish",', 1))


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_a_client_sends_raises_more_than_a_refusal(text: bytes) -> None:
    """Whatever it is, it is read or refused."""
    for parse in (v1_frames.parse_frame, draft_fields.parse_line):
        with contextlib.suppress(Refusal):
            assert isinstance(parse(text), v1_frames.ClientFrame | Draft)
