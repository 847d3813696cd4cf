"""The JSON of the wire: messages out to the letter, frames both ways, and everything that is refused on the way."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncecast.errors import ERRORS, Refusal
from oncecast.message import Cursor, Draft, Kind, LogGap, Message, Reason, Receipt
from oncecast.wire import envelope
from oncecast.wire.envelope import Auth, Publish, Subscribe, Unsubscribe

BIG = b"123456789012345678901234567890"
DEEP = b"[" * 200_000 + b"]" * 200_000
GAP = LogGap("news", Reason.EXPIRED, Cursor("e", 1), Cursor("e", 4), Cursor("e", 5))
GAP_FIELDS = {"channel": "news", "reason": "expired", "missed_from": "e-1", "missed_to": "e-4", "cursor": "e-5"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def refused(code: str, call: Any, *args: Any) -> str:
    """The message of the refusal that a call has to end in."""
    with pytest.raises(Refusal) as caught:
        call(*args)
    assert code == caught.value.code
    return caught.value.message


def message(data: bytes, kind: Kind = Kind.JSON, event: str | None = None) -> Message:
    """A message with number 7 on `news`."""
    return Message(7, "news", data, kind, event, 1764000000.123)


# -- frames and lines, in


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
    assert envelope.parse_line(text).channel in ("a", "a:b")
    frame = envelope.parse_frame(b'{"type":"publish",' + text[1:])
    assert isinstance(frame, Publish)


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_an_error_does_not_repeat_what_is_long(size: int) -> None:
    """A type, or the name of a field, is as long as a frame may be: the answer to a megabyte is a line."""
    long = b"x" * size
    type_, field = b'{"type":"%s"}' % long, b'{"type":"auth","token":"t","%s":1}' % long
    frames = [refused("frame_invalid", envelope.parse_frame, frame) for frame in (type_, field)]
    line = refused("data_invalid", envelope.parse_line, b'{"channel":"c","data":1,"%s":1}' % long)
    assert all(each.startswith("This frame is not of oncecast.v1: ") for each in frames)
    assert [size == 1000] * 2 == ["xxx" in each for each in frames]  # a longer frame is refused by its shape
    assert "xxx" in line
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

    assert isinstance(envelope.parse_frame(frame(16384 - beside)), Publish)
    said = refused("frame_invalid", envelope.parse_frame, frame(16385 - beside))
    assert said.endswith("leave out unknown fields and white space.")


@pytest.mark.parametrize("ref", [b"9223372036854775807", b"-9223372036854775808", b'"9223372036854775808"'])
def test_a_ref_of_64_bits_comes_back(ref: bytes) -> None:
    """A number within 64 bits, or any text."""
    assert ref == msgspec.json.encode(envelope.parse_frame(b'{"type":"auth","token":"t","ref":' + ref + b"}").ref)


@pytest.mark.parametrize("ref", [b"9223372036854775808", b"-9223372036854775809", b"1" + b"0" * 5000, b"1.5", b"1e3"])
def test_a_larger_ref_is_refused(ref: bytes) -> None:
    """Readers differ in what they make of it, and it is not echoed in the error either."""
    frame = b'{"type":"auth","token":"t","ref":' + ref + b"}"
    refused("frame_invalid", envelope.parse_frame, frame)
    assert envelope.ref_of(frame) is None


# -- messages, out


@pytest.mark.parametrize(
    "sent, expected",
    [
        (message(b'{"t": ' + BIG + b"}"), b'"data":{"t": ' + BIG + b'},"event":null'),
        (message('a"\r\n\0é'.encode(), Kind.TEXT, "x"), '"data":"a\\"\\r\\n\\u0000é","event":"x"'.encode()),
        (message(b"\xff\x00", Kind.BINARY, 'é"'), '"data64":{"base64":"/wA="},"event":"é\\""'.encode()),
        (message(b"", Kind.TEXT), b'"data":"","event":null'),
        (message(b"", Kind.BINARY), b'"data64":{"base64":""},"event":null'),
    ],
)
def test_a_message_is_written_whole(sent: Message, expected: bytes) -> None:
    """An envelope has id, channel, data, event and time on one line, and in a frame its type before them."""
    written = b'"id":"e-7","channel":"news",' + expected + b',"time":1764000000.123}'
    assert b"{" + written == envelope.message_json(sent, "e")
    assert b'{"type":"message",' + written == envelope.message_frame(sent, "e")


@given(TEXTS)
@example('\u2028\u2029\x7f\x00\r\n"\\\U0001f600')
def test_every_text_comes_out_as_it_went_in(text: str) -> None:
    """A text's JSON is one line that reads back as the same text."""
    written = envelope.message_json(message(text.encode(), Kind.TEXT), "e")
    assert text == json.loads(written)["data"]
    assert b"\n" not in written


def test_a_gap_is_written_whole() -> None:
    """Alone, in a frame, and with an end that is not known."""
    assert GAP_FIELDS == json.loads(envelope.gap_json(GAP))
    assert {"type": "gap", **GAP_FIELDS} == json.loads(envelope.gap_frame(GAP))
    lost = LogGap("news", Reason.EPOCH, Cursor("old", 1), None, Cursor("e", 5))
    assert {
        "channel": "news",
        "reason": "epoch",
        "missed_from": "old-1",
        "missed_to": None,
        "cursor": "e-5",
    } == envelope.gap_fields(lost)


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_names_its_page(code: str) -> None:
    """Every code is written with its message and where it is explained."""
    refusal = Refusal(code, 'What to "do".')
    assert {
        "error": {"code": code, "message": 'What to "do".', "docs": f"/docs/errors#{code}"},
    } == json.loads(envelope.error_json(refusal))


def test_a_receipt_is_written_whole() -> None:
    """The id and how durable it is."""
    assert b'{"id":"e-7","durability":"fsync"}' == envelope.receipt_json(Receipt("e", 7, "fsync"))


def test_a_poll_holds_messages_cursor_and_gaps() -> None:
    """One gap with one channel; with several, all of them beside the first."""
    assert b'{"messages":[],"cursor":"e-5","gap":null}' == envelope.poll_json([], Cursor("e", 5), [], several=False)
    other = LogGap("b", Reason.EXPIRED, Cursor("e", 2), Cursor("e", 3), Cursor("e", 5))
    poll = json.loads(envelope.poll_json([b'{"a":1}', b"2"], Cursor("e", 9), [GAP, other], several=True))
    assert {
        "messages": [{"a": 1}, 2],
        "cursor": "e-9",
        "gap": GAP_FIELDS,
        "gaps": [GAP_FIELDS, envelope.gap_fields(other)],
    } == poll
    assert b',"gap":null,"gaps":[]}' in envelope.poll_json([], Cursor("e", 5), [], several=True)
    assert "gaps" not in json.loads(envelope.poll_json([], Cursor("e", 5), [GAP], several=False))


# -- publishing


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
    assert draft == envelope.parse_line(b'{"channel":"news",' + fields + b"}")
    frame = envelope.parse_frame(b'{"type":"publish","channel":"news",' + fields + b"}")
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
    refused(code, envelope.parse_line, b"{" + fields + b"}")
    frame = envelope.parse_frame(b'{"type":"publish",' + fields + b"}")
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
    refused("data_invalid", envelope.parse_line, text)
    refused("frame_invalid", envelope.parse_frame, text.replace(b"{", b'{"type":"publish",', 1))


# -- frames, in


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
def test_a_frame_is_read(text: bytes, frame: envelope.ClientFrame) -> None:
    """Each type, with and without its optional fields."""
    assert frame == envelope.parse_frame(text)


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
    refused("frame_invalid", envelope.parse_frame, text)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_a_client_sends_raises_more_than_a_refusal(text: bytes) -> None:
    """Whatever it is, it is read or refused."""
    for parse in (envelope.parse_frame, envelope.parse_line):
        with contextlib.suppress(Refusal):
            assert isinstance(parse(text), envelope.ClientFrame | Draft)


# -- frames, out


@pytest.mark.parametrize("ref", [None, 7, 10**22, "r", 'é"'])
def test_an_answer_gives_the_ref_back(ref: str | int | None) -> None:
    """An acknowledgement and an error both say which frame they answer."""
    published = json.loads(envelope.published_frame(Receipt("e", 7, "memory"), ref))
    assert {"type": "published", "id": "e-7", "durability": "memory", "ref": ref} == published
    error = json.loads(envelope.error_frame(Refusal("forbidden", "Ask."), ref))
    assert {"type": "error", "code": "forbidden", "message": "Ask.", "ref": ref} == error


def test_a_frame_of_the_server_has_its_type_first() -> None:
    """A frame of the server has its type first, and then its fields in the given order."""
    assert b'{"type":"drain","retry_after_ms":5}' == envelope.server_frame("drain", retry_after_ms=5)
