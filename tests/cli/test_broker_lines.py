"""The lines of an export: what is written is read again, and what is not an export is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.cli.broker_lines import (
    LineError,
    end_line,
    head_line,
    message_line,
    read_end,
    read_head,
    read_message,
)
from oncecast.message import Draft, Kind, Message


@given(st.binary(), st.sampled_from(["e", None]))
def test_bytes_are_kept(data: bytes, event: str | None) -> None:
    """Each byte of a binary message is the same after a round."""
    line = message_line(Message(7, "a..b", data, Kind.BINARY, event, 1.5))
    assert b"\n" not in line
    assert Draft("a..b", data, Kind.BINARY, event) == read_message(line)


@given(st.text())
def test_text_is_kept(text: str) -> None:
    """Line ends included, on one line."""
    line = message_line(Message(7, "a", text.encode(), Kind.TEXT, None, 1.5))
    assert b"\n" not in line
    assert Draft("a", text.encode(), Kind.TEXT) == read_message(line)


@pytest.mark.parametrize("data", [b"1.0", b"12345678901234567890123", b'{"a": 1,  "a": 2}', b'"\\u00e9"'])
def test_json_is_kept_digit_for_digit(data: bytes) -> None:
    """The value is not parsed and written again."""
    line = message_line(Message(7, "a", data, Kind.JSON, None, 1.5))
    assert Draft("a", data, Kind.JSON) == read_message(line)


def test_text_that_is_not_utf8() -> None:
    """It is exported as bytes, and so not altered."""
    line = message_line(Message(7, "a", b"\xff", Kind.TEXT, None, 1.5))
    assert Draft("a", b"\xff", Kind.BINARY) == read_message(line)


def test_the_head_and_the_end() -> None:
    """They name the log and the number of messages."""
    head = read_head(head_line("k3f9x2", 17))
    assert ("k3f9x2", 17) == (head.epoch, head.head)
    assert 5 == read_end(end_line(5))
    assert read_end(message_line(Message(7, "end", b"1", Kind.JSON, None, 1.5))) is None
    assert read_end(b'{"end":false}') is None


@pytest.mark.parametrize("line", [b"", b"{}", b"nonsense", b"\xff", b'{"oncecast":"log"}', b'{"seq":1}'])
def test_another_head_is_refused(line: bytes) -> None:
    """The error says what to give."""
    with pytest.raises(LineError, match="oncecast broker export"):
        read_head(line)


def test_a_later_version_is_refused() -> None:
    """A file of a later version is refused, as its fields may mean something else."""
    with pytest.raises(LineError, match="version 2, and this release reads 1"):
        read_head(head_line("e", 1).replace(b'"version":1', b'"version":2'))


@pytest.mark.parametrize(
    "change",
    [
        (b'"a"', b'"-a"'),
        (b'"json"', b'"jsonp"'),
        (b'"[1]"', b'"[1"'),
        (b'"json"', b'"binary"'),
        (b"null", b'"gap"'),
        (b'"seq"', b'"sec"'),
        (b"}", b""),
    ],
)
def test_a_damaged_message_is_refused(change: tuple[bytes, bytes]) -> None:
    """One line says why."""
    line = message_line(Message(7, "a", b"[1]", Kind.JSON, None, 1.5))
    read_message(line)
    with pytest.raises(LineError) as caught:
        read_message(line.replace(*change))
    assert "\n" not in str(caught.value)


def test_the_context_of_a_trace_is_kept() -> None:
    """A message that has one is read back with it, and the line of another has no field for it."""
    trace = bytes(range(1, 25)) + b"\1"
    assert trace == read_message(message_line(Message(7, "a", b"1", Kind.JSON, None, 1.5, trace))).trace
    assert b"trace" not in message_line(Message(7, "a", b"1", Kind.JSON, None, 1.5))
