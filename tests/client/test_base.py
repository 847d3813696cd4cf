"""The contract's data: backoff, starts, refusals, and the JSON of messages and gaps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.client.base import (
    Backoff,
    Broken,
    ClientMessage,
    Gap,
    Refused,
    Start,
    Unsuited,
    common_start,
    parse_gap,
    parse_message,
    refusal,
)


async def no_sleep(seconds: float) -> None:
    """Wait for nothing."""


def test_backoff_doubles_its_ceiling() -> None:
    """Each failure doubles the ceiling until the cap, and a reset begins again."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep, base=0.5, cap=3.0)
    assert [0.5, 1.0, 2.0, 3.0, 3.0] == [backoff.next_delay() for _ in range(5)]
    backoff.reset()
    assert 0.5 == backoff.next_delay()


def test_backoff_is_full_jitter() -> None:
    """The random number scales the whole delay, so clients that were cut together come back spread out."""
    backoff = Backoff(rng=iter([0.0, 0.25]).__next__, sleep=no_sleep, base=4.0)
    assert [0.0, 2.0] == [backoff.next_delay() for _ in range(2)]


def test_backoff_from_what_is_unreachable() -> None:
    """A delay can have a lower cap of its own; the failures are counted all the same."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep, base=2.0)
    assert [2.0, 4.0, 5.0, 16.0] == [backoff.next_delay(cap=5.0) for _ in range(3)] + [backoff.next_delay()]


@pytest.mark.parametrize("asked, expected", [(7.0, 7.5), (1e9, 3600.5), (-5.0, 0.5)])
def test_backoff_obeys_retry_after(asked: float, expected: float) -> None:
    """The delay is never below Retry-After, within reason."""
    assert expected == Backoff(rng=lambda: 1.0, sleep=no_sleep, base=0.5).next_delay(asked)


def test_backoff_survives_a_long_outage() -> None:
    """Thousands of failures do not overflow."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep)
    assert {30.0} == {backoff.next_delay() for _ in range(3000)} - {0.5, 1.0, 2.0, 4.0, 8.0, 16.0}


@pytest.mark.parametrize(
    "starts, expected",
    [
        ([("last", "5"), ("last", "5")], ("last", "5")),
        ([("after", "e-7"), ("after", "e-3"), ("after", "e-9")], ("after", "e-3")),
        ([("after", "latest"), ("after", "e-3")], ("after", "e-3")),
        ([("after", "e-3"), ("after", "earliest")], ("after", "earliest")),
        ([("after", "e-3"), ("since", "10")], ("since", "10")),
        ([("after", "old-9"), ("after", "new-1"), ("after", "old-8")], ("after", "old-8")),
        ([("after", "?"), ("after", "!")], ("after", "?")),
    ],
)
def test_common_start(starts: list[tuple[str, str]], expected: tuple[str, str]) -> None:
    """Channels at different places start where none of them misses anything."""
    given = {str(n): Start(*start) for n, start in enumerate(starts)}
    assert Start(*expected) == common_start(given)


def error(code: str) -> bytes:
    """Return our server's error body."""
    return json.dumps({"error": {"code": code, "message": "no"}}).encode()


@pytest.mark.parametrize(
    "status, body, opening, expected, text",
    [
        (403, error("forbidden"), False, Refused, "no"),
        (403, error("forbidden"), True, Refused, "no"),
        (403, b"<html>", False, Refused, "the server answers 403"),
        (403, b"<html>", True, Unsuited, "the server answers 403"),
        (301, b"", True, Unsuited, "the server answers 301"),
        (408, error("timeout"), True, Broken, "no"),
        (429, error("too_many_requests"), False, Broken, "no"),
        (503, b"", True, Broken, "the server answers 503"),
    ],
)
def test_refusal(status: int, body: bytes, opening: bool, expected: type[Exception], text: str) -> None:
    """What the sender can't help is tried again; the rest is final, or this transport's own failing."""
    made = refusal(status, body, 9.0, opening=opening)
    assert (expected, text) == (type(made), str(made))
    if isinstance(made, Broken):
        assert 9.0 == made.retry_after


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
    """A gap keeps its reason as a string, so that a new one breaks nobody."""
    text = '{"channel": "c", "reason": "new", "missed_from": "e-1", "missed_to": null, "cursor": "e-4"}'
    assert Gap(channel="c", reason="new", missed_from="e-1", cursor="e-4") == parse_gap(text)
    with pytest.raises(Broken):
        parse_gap('{"channel": "c"}')
