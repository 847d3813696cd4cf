"""The JSON of messages and gaps, read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast import Broken, ClientMessage, Gap
from oncecast.client.reading import parse_gap, parse_message


@pytest.mark.parametrize(
    "field, expected",
    [
        ('"data": {"a": [1, null]}', {"a": [1, None]}),
        ('"data": null', None),
        ('"data": "é"', "é"),
        ('"data64": {"base64": "/wA="}', b"\xff\x00"),
        ('"data64": "/wA="', b"\xff\x00"),
        ('"data": 1e999', float("inf")),
        ('"data": 123456789012345678901234567890', 123456789012345678901234567890),
        (f'"data": 1{"0" * 5000}', f"1{'0' * 5000}"),
    ],
)
def test_parse_message(field: str, expected: object) -> None:
    """Data becomes a value, text or bytes, and never fails where its JSON is sound."""
    text = f'{{"id": "e-1", "channel": "c", "event": "x", "time": 2, "new": 1, {field}}}'
    message = ClientMessage(id="e-1", channel="c", data=expected, event="x", time=2.0)
    assert message == parse_message(text)
    raw = b"" if "data64" in field else field.removeprefix('"data": ').encode()
    assert raw == parse_message(text.encode()).raw_data


def test_equal_messages() -> None:
    """Messages are equal where what they say is, however their data was spelt."""
    one, other = (parse_message(f'{{"id": "e-1", "channel": "c", "time": 1, "data": {n}}}') for n in ("1.1", "1.10"))
    assert (one, hash(one)) == (other, hash(other))
    assert one != parse_message('{"id": "e-1", "channel": "c", "time": 1, "data": 1.2}')
    assert one != "e-1"


@pytest.mark.parametrize(
    "change",
    [
        {"id": 1},
        {"data": ..., "data64": 5},
        {"channel": None},
        {"data64": "*"},
        {"data64": {}},
        {"time": "now"},
        {"data": ...},
    ],
)
def test_parse_message_malformed(change: dict[str, Any]) -> None:
    """A message that is none breaks the connection."""
    fields: dict[str, Any] = {"id": "e-1", "channel": "c", "data": 1, "event": None, "time": 2, **change}
    with pytest.raises(Broken):
        parse_message(json.dumps({key: value for key, value in fields.items() if value is not ...}))


def test_parse_message_past_all_depth() -> None:
    """JSON that is deeper than a decoder goes breaks the connection, not the client."""
    with pytest.raises(Broken):
        parse_message(f'{{"id": "e-1", "channel": "c", "time": 2, "data": {"[" * 100_000}{"]" * 100_000}}}')


def test_parse_gap() -> None:
    """A gap keeps its reason as a string, so that a new one breaks no client."""
    text = '{"channel": "c", "reason": "new", "missed_from": "e-1", "missed_to": null, "cursor": "e-4"}'
    assert Gap(channel="c", reason="new", missed_from="e-1", cursor="e-4") == parse_gap(text)
    with pytest.raises(Broken):
        parse_gap('{"channel": "c"}')
