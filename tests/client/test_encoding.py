"""Data as bytes: what is sent is read back equal, or nothing is sent."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any

import msgspec
import pytest

from oncecast import Refused
from oncecast.client.encoding import Content, batch_line, check_names, content_of, fits_header
from oncecast.message import Kind


class Colour(enum.Enum):
    """A plain enumeration."""

    RED = 1


class Word(enum.StrEnum):
    """One whose members are texts."""

    A = "a"


class Number(enum.IntEnum):
    """One whose members are numbers."""

    ONE = 1


class Text(str):
    """A subclass of a text."""


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: float
    y: Any


class Struct(msgspec.Struct, rename="camel", tag="person"):
    """A struct with names of its own on the wire, a tag, and a field that may be left out."""

    first_name: str
    last_name: str | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True, tag=3):
    """A struct that is a list on the wire."""

    x: int


class Cell(msgspec.Struct, array_like=True):
    """One without a tag."""

    x: int


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "data, expected",
    [
        ("é✓", Content(Kind.TEXT, "é✓".encode())),
        (Text("x"), Content(Kind.TEXT, b"x")),
        (Word.A, Content(Kind.TEXT, b"a")),
        (b"\0", Content(Kind.BINARY, b"\0")),
        (bytearray(b"\1"), Content(Kind.BINARY, b"\1")),
        (memoryview(b"\2"), Content(Kind.BINARY, b"\2")),
        (None, Content(Kind.JSON, b"null")),
        (True, Content(Kind.JSON, b"true")),
        (Number.ONE, Content(Kind.JSON, b"1")),
        (2**53 + 1, Content(Kind.JSON, b"9007199254740993")),
        (-(2**70), Content(Kind.JSON, b"-1180591620717411303424")),
        (1.5, Content(Kind.JSON, b"1.5")),
        ([1, (2, Text("x"))], Content(Kind.JSON, b'[1,[2,"x"]]')),
        ({"a": {Word.A: Number.ONE}}, Content(Kind.JSON, b'{"a":{"a":1}}')),
        (collections.OrderedDict(a=collections.Counter("x")), Content(Kind.JSON, b'{"a":{"x":1}}')),
        (Point(1.0, [Point(2.0, None)]), Content(Kind.JSON, b'{"x":1.0,"y":[{"x":2.0,"y":null}]}')),
        (Struct("x"), Content(Kind.JSON, msgspec.json.encode(Struct("x")))),
        ([Row(1), Cell(2)], Content(Kind.JSON, msgspec.json.encode([Row(1), Cell(2)]))),
        (Pair(1, 2), Content(Kind.JSON, b"[1,2]")),
    ],
)
def test_content(data: object, expected: Content) -> None:
    """A str is text, bytes are binary, anything else that JSON says exactly is JSON."""
    assert expected == content_of(data)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "data, where",
    [
        (math.nan, r"at \$, JSON has no nan"),
        ({"a": [1, math.inf]}, r"at \$\.a\[1\], JSON has no inf"),
        (Point(-math.inf, 1), r"at \$\.x, JSON has no -inf"),
        ("\ud800", "surrogates not allowed"),
        (["\udfff"], r"at \$\[0\], the text can't be written as UTF-8"),
        ({"\ud800": 1}, r"at \$, the text can't be written as UTF-8"),
        ({1: 2}, r"at \$, a key of a JSON object is a str, not int"),
        ({"a": {None: 2}}, r"at \$\.a, a key"),
        (datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), "JSON has no datetime"),
        ([datetime.date(2020, 1, 1)], "JSON has no date"),
        (decimal.Decimal("1.10"), "JSON has no Decimal"),
        (uuid.UUID(int=1), "JSON has no UUID"),
        ({1, 2}, "JSON has no set"),
        ({"a": b"x"}, r"at \$\.a, JSON has no bytes"),
        ([bytearray(b"x")], "JSON has no bytearray"),
        (Colour.RED, "JSON has no Colour"),
        (msgspec.Raw(b"1"), "JSON has no Raw"),
        (object(), "JSON has no object"),
        (Point, "JSON has no type"),
        (iter([1]), "JSON has no list_iterator"),
        (CYCLE, "nested too deeply, or contains itself"),
        ({"k" * 500: math.nan}, r"at \$\.k{78}, JSON"),
    ],
)
def test_what_json_can_not_say(data: object, where: str) -> None:
    """A typed error with the server's code and the place, instead of something else that is sent."""
    with pytest.raises(Refused, match=where) as refused:
        content_of(data)
    assert ("data_invalid", 400) == (refused.value.code, refused.value.status)


def test_a_number_with_too_many_digits() -> None:
    """Python writes no int beyond a limit of its own: that is no bare ValueError."""
    with pytest.raises(Refused, match="the data can't be written as JSON: "):
        content_of([10**5000])


KEYS = ["order 7", "order  7", "✓", "é", "a\tb", "x" * 255]


@pytest.mark.parametrize("key", KEYS)
def test_a_line_carries_any_key(key: str) -> None:
    """A line of a batch carries each key of the grammar unchanged."""
    line = batch_line("c", Content(Kind.TEXT, b"t"), None, key)
    assert {"channel": "c", "data": "t", "key": key} == json.loads(line)
    assert (1, b"\n") == (line.count(b"\n"), line[-1:])


def test_lines() -> None:
    """Data of each kind, with an event, makes the line that the server reads."""
    assert {"channel": "c", "data": {"n": 1.10}, "event": "é", "key": "k"} == json.loads(
        batch_line("c", Content(Kind.JSON, b'{"n":1.10}'), "é", "k")
    )
    binary = json.loads(batch_line("c", Content(Kind.BINARY, b"\0\xff"), None, "k"))
    assert b"\0\xff" == base64.b64decode(binary["data64"])
    with pytest.raises(Refused, match="a JSON string can't be sent in a batch"):
        batch_line("c", Content(Kind.JSON, b'"x"'), None, "k")  # it would become a text


@pytest.mark.parametrize("value", [None, "k", "order 7", "a-1:~!"])
def test_fits_header(value: str | None) -> None:
    """ASCII without white space around it arrives as it is."""
    assert fits_header(value)


@pytest.mark.parametrize("value", ["", " ", "order 7 ", " order 7", "é", "✓", "a\tb", "a\nb", "\x7f", "a\0"])
def test_fits_no_header(value: str) -> None:
    """A key that a header would lose or a proxy could read otherwise is not sent in a header."""
    assert not fits_header(value)


@pytest.mark.parametrize(
    "names, code",
    [
        (("a b", None, None), "channel_invalid"),
        ((1, None, None), "request_invalid"),
        ((None, None, None), "request_invalid"),
        (("c", "gap", None), "event_invalid"),
        (("c", "a\nb", None), "event_invalid"),
        (("c", "\ud800", None), "event_invalid"),
        (("c", 1, None), "request_invalid"),
        (("c", " lead", None), "event_invalid"),
        (("c", None, ""), "key_invalid"),
        (("c", None, "x" * 256), "key_invalid"),
        (("c", None, "order 7 "), "key_invalid"),
        (("c", None, b"k"), "request_invalid"),
    ],
)
def test_names(names: tuple[Any, Any, Any], code: str) -> None:
    """An invalid channel, event or key is refused with the code that the server would answer."""
    with pytest.raises(Refused) as refused:
        check_names(*names)
    assert (code, 400) == (refused.value.code, refused.value.status)
    check_names("c", "é", "k  k")
