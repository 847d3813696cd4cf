"""The JSON that goes out, to the letter: messages, gaps, errors, receipts and a poll's answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncecast.errors import ERRORS, Refusal
from oncecast.message import Cursor, Kind, LogGap, Message, Reason, Receipt
from oncecast.wire import envelope, v1_frames

BIG = b"123456789012345678901234567890"
GAP = LogGap("news", Reason.EXPIRED, Cursor("e", 1), Cursor("e", 4), Cursor("e", 5))
GAP_FIELDS = {"channel": "news", "reason": "expired", "missed_from": "e-1", "missed_to": "e-4", "cursor": "e-5"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def message(data: bytes, kind: Kind = Kind.JSON, event: str | None = None) -> Message:
    """A message with number 7 on `news`."""
    return Message(7, "news", data, kind, event, 1764000000.123)


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
    assert b'{"type":"message",' + written == v1_frames.message_frame(sent, "e")


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
    assert {"type": "gap", **GAP_FIELDS} == json.loads(v1_frames.gap_frame(GAP))
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
