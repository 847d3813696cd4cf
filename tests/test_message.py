"""The grammar of channels, events, keys and cursors, at its edges, and that shared values do not change."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.message import (
    CHANNEL_PATTERN,
    EVENT_CHARS,
    KEY_CHARS,
    MAX_SEQ,
    Cursor,
    Draft,
    Kind,
    LogGap,
    Message,
    Reason,
    Receipt,
    Start,
    StartKind,
    check_channel,
    check_event,
    check_key,
)

EPOCHS = st.from_regex(r"[A-Za-z0-9_]{1,32}", fullmatch=True)
SEQS = st.integers(0, MAX_SEQ)


@given(EPOCHS, SEQS)
@example("_", 0)
@example("x" * 32, MAX_SEQ)
def test_a_cursor_survives_being_written_and_read(epoch: str, seq: int) -> None:
    """Reading what was written gives the same place."""
    assert Cursor(epoch, seq) == Cursor.parse(str(Cursor(epoch, seq)))


@given(EPOCHS, SEQS)
def test_a_cursor_needs_no_preflight(epoch: str, seq: int) -> None:
    """A written cursor stays within the bytes and the length that a browser sends across origins unasked."""
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", str(Cursor(epoch, seq)))


@given(st.text(max_size=80) | st.from_regex(r"\w{0,34}-?[+-]?[0-9_]{0,20}\n?", fullmatch=True))
@example("k3f9x2-42\n")
@example("k3f9x2-\u0664\u0662")
def test_a_cursor_has_one_spelling(text: str) -> None:
    """Whatever is read as a cursor is written back exactly so; everything else is refused, and never raises more."""
    try:
        written = str(Cursor.parse(text))
    except Refusal:
        return
    assert text == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "k3f9x2",
        "k3f9x2-",
        "-42",
        "k3f9x2--42",
        "k3f9x2-+42",
        "k3f9x2-042",
        "k3f9x2-4_2",
        "k3f9x2-4.2",
        "k3f9x2-0x2a",
        "k3f9x2-42 ",
        " k3f9x2-42",
        "k3f9x2-42\n",
        "k3f9x2-42\0",
        "k3.f9-42",
        "k3f-9x2-42",
        "é-42",
        "k3f9x2-٤٢",
        f"{'x' * 33}-42",
        f"k3f9x2-{MAX_SEQ + 1}",
        "k3f9x2-99999999999999999999",
        "latest",
        "\ud800-1",
    ],
)
def test_what_was_never_handed_out_is_no_cursor(text: str) -> None:
    """A near miss is refused with its code, not read as another place."""
    with pytest.raises(Refusal) as caught:
        Cursor.parse(text)
    assert "cursor_invalid" == caught.value.code


@given(st.text(min_size=1, max_size=100_000))
@example("\ud800" * 70)
@example("\r\nSet-Cookie: a=b")
def test_a_refused_cursor_is_quoted_safely(text: str) -> None:
    """What a peer sent comes back in the message as a short run of printable ASCII, so that it can inject nothing."""
    with pytest.raises(Refusal) as caught:
        Cursor.parse("?" + text)
    assert re.fullmatch(r"[ -~]{1,800}", caught.value.message)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}", fullmatch=True))
@example("a")
@example("0")
@example("x" * 128)
@example("room:42@eu.west_1-b")
def test_a_channel_name_is_returned_as_it_is(name: str) -> None:
    """Every name of the grammar passes unchanged."""
    assert name == check_channel(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 129,
        ".a",
        "_a",
        ":a",
        "@a",
        "-a",
        "a b",
        "a,b",
        "a/b",
        "a\n",
        "a\r\nb",
        "a\0",
        "é",
        "a\u0301",
        "\u0661",
    ],
)
def test_what_is_no_channel_name_is_refused(name: str) -> None:
    """A name outside the grammar is refused, whether by its first character, another, or its length."""
    with pytest.raises(Refusal) as caught:
        check_channel(name)
    assert "channel_invalid" == caught.value.code
    assert re.fullmatch(r"[ -~]+", caught.value.message)


def test_a_pattern_is_told_that_there_are_none() -> None:
    """Those who come from other brokers subscribe to `chat.*` first."""
    with pytest.raises(Refusal, match=r"letter or digit\. Name each channel: there are no patterns\.$"):
        check_channel("chat.*")


@given(st.text(max_size=140))
def test_a_channel_name_is_checked_as_the_pattern_says(name: str) -> None:
    """The check and the pattern that others build on never disagree."""
    accepted = CHANNEL_PATTERN.fullmatch(name) is not None
    try:
        check_channel(name)
    except Refusal:
        assert not accepted
    else:
        assert accepted


@pytest.mark.parametrize(
    "name", ["a", "x" * EVENT_CHARS, "user joined", "été", "\u2028", "\u0085", "a \t b", "\u00a0a\u3000"]
)
def test_an_event_name_is_any_text_on_one_line(name: str) -> None:
    """SSE ends a line at CR and LF only, so other separators are part of a name."""
    assert name == check_event(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * (EVENT_CHARS + 1),
        "a\nb",
        "a\rb",
        "a\r\ndata: b",
        "a\0b",
        "\n",
        "\ud800",
        " a",
        "a ",
        "\ta",
        "a\t",
        " ",
        "\x0b",
        "a\x1f",
        "a\x7f",
    ],
)
def test_an_event_name_can_break_no_stream(name: str) -> None:
    """A name that would end its field, has no UTF-8, or that a header would not carry unaltered, is refused."""
    with pytest.raises(Refusal) as caught:
        check_event(name)
    assert "event_invalid" == caught.value.code


@pytest.mark.parametrize("key", ["k", "x" * KEY_CHARS, "order 7", "\u00e9", '"q"'])
def test_a_key_within_bounds_is_returned_as_it_is(key: str) -> None:
    """The shortest and the longest key pass unchanged."""
    assert key == check_key(key)


@pytest.mark.parametrize("key", ["", "x" * (KEY_CHARS + 1), "k\udfff", " k", "k ", "k\t", "k\n", "k\0"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """An empty key names every message, a long one costs memory, and some no header carries as they are."""
    with pytest.raises(Refusal) as caught:
        check_key(key)
    assert "key_invalid" == caught.value.code


def test_a_draft_is_json_unless_it_says_otherwise() -> None:
    """A channel and data make a draft: JSON, without an event and without a key."""
    assert Draft("news", b"{}", Kind.JSON, None, None) == Draft("news", b"{}")


def test_a_receipt_names_the_message_by_its_cursor() -> None:
    """The id in the answer to a publish is where a reader of that message goes on from."""
    assert str(Cursor("k3f9x2", 42)) == Receipt("k3f9x2", 42, "fsync").id


@pytest.mark.parametrize(
    "value",
    [
        Draft("news", b"1"),
        Message(1, "news", b"1", Kind.JSON, None, 1764000000.123),
        Cursor("k3f9x2", 1),
        LogGap("news", Reason.EXPIRED, Cursor("k3f9x2", 1), None, Cursor("k3f9x2", 9)),
        Receipt("k3f9x2", 1, "memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_shared_can_be_neither_changed_nor_extended(value: object) -> None:
    """Every subscriber holds the same objects, so they are frozen, and slotted to be small."""
    assert not hasattr(value, "__dict__")
    field = msgspec.structs.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="immutable"):
        setattr(value, field, None)


def test_the_kinds_keep_the_numbers_they_are_stored_under() -> None:
    """Brokers store a kind as its number, so a number never changes its meaning."""
    assert {"JSON": 0, "TEXT": 1, "BINARY": 2} == {kind.name: kind.value for kind in Kind}


def test_the_reasons_for_a_gap_are_those_of_the_wire() -> None:
    """Clients tell gaps apart by these words."""
    assert {"expired", "epoch", "slow", "unknown"} == {reason.value for reason in Reason}


@pytest.mark.parametrize("kind", [StartKind.LAST, StartKind.SINCE])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1, -0.5, -(10**26)])
def test_a_start_has_a_number_that_counts(kind: StartKind, number: float) -> None:
    """What is not finite, or below 0, is refused before anything is read."""
    with pytest.raises(Refusal, match="0 or more") as caught:
        Start(kind, number=number)
    assert "request_invalid" == caught.value.code


@pytest.mark.parametrize("number", [MAX_SEQ + 1, 10**26, 1e300])
def test_last_is_at_most_what_a_log_can_number(number: float) -> None:
    """No log has more messages, and a broker can hold that number."""
    assert MAX_SEQ == Start(StartKind.LAST, number=number).number
    assert 5 == Start(StartKind.LAST, number=5).number
    assert 1e300 == Start(StartKind.SINCE, number=1e300).number


@pytest.mark.parametrize("seq", [-1, MAX_SEQ + 1, 10**26])
def test_a_start_has_a_cursor_that_can_be_written(seq: int) -> None:
    """One that `Cursor.parse` would refuse is refused here too, however it was made."""
    with pytest.raises(Refusal, match="2\\^63") as caught:
        Start(StartKind.CURSOR, Cursor("e", seq))
    assert "cursor_invalid" == caught.value.code
    assert MAX_SEQ == Start(StartKind.CURSOR, Cursor("e", MAX_SEQ)).cursor.seq  # type: ignore[union-attr]
