"""Messages and gaps as lines."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import (
    Fake,
    event,
    listen,
)

SAME = ["1e999", "-0.0", "1.10", '{"k":1,"k":2}', "123456789012345678901234567890.5", f"1{'0' * 5000}"]


def test_sub_prints_data(fake: Fake) -> None:
    """A line is the data: text without what a terminal would obey, JSON on one line, binary in base64."""
    fake.streams = [
        b"id: e-0\n\n"
        + event(1, data="hé\tllo")
        + event(2, data="a\nb\x1b[31m\u0085\u2028")
        + event(3, data={"a": [1, None]})
        + event(4, data64={"base64": "/wA="})
    ]
    result = listen(fake, "c", "--count", "4")
    assert ["hé\tllo", r"a\nb\x1b[31m\x85\u2028", '{"a": [1, null]}', "/wA=", ""] == result.stdout.split("\n")
    assert ("listening to c over sse\n", 0) == (result.stderr, result.exit_code)
    assert ["/v1/channels/c?after=latest&envelope=1"] == fake.asked


def test_sub_names_the_channel_among_several(fake: Fake) -> None:
    """With several channels each line begins with its channel."""
    fake.streams = [event(1, data="x") + event(2, data="y", channel="d")]
    assert "c: x\nd: y\n" == listen(fake, "c", "d", "--count", "2").stdout


def test_sub_json(fake: Fake) -> None:
    """With --json a line is the whole message."""
    fake.streams = [event(1, data="x", event="tick") + event(2, data64={"base64": "/wA="})]
    assert [
        {"id": "e-1", "channel": "c", "data": "x", "event": "tick", "time": 1.5},
        {"id": "e-2", "channel": "c", "data64": {"base64": "/wA="}, "event": None, "time": 1.5},
    ] == [json.loads(line) for line in listen(fake, "c", "--json", "--count", "2").stdout.splitlines()]


@pytest.mark.parametrize("data", SAME, ids=range(len(SAME)))
def test_sub_keeps_every_digit(fake: Fake, data: str) -> None:
    """JSON is printed as it was published, also where no value of Python's can hold it."""
    start = '{"id":"e-1","channel":"c","data":'
    fake.streams = [f'data: {start}{data},"event":null,"time":1.5}}\n\n'.encode()] * 2
    assert f'{start}{data},"event":null,"time":1.5}}\n' == listen(fake, "c", "--json", "--count", "1").stdout
    assert f"{data}\n" == listen(fake, "c", "--count", "1").stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_sub_prints_json_on_one_line(fake: Fake, flags: list[str]) -> None:
    """Line ends between tokens become spaces, and what a terminal obeys in a string is escaped: the same value."""
    value = {"a": "\x7f\x9b31m\u2028\u2029\x85", "é": [1, "\x1b"]}
    data = json.dumps(value, ensure_ascii=False, indent=1)
    head, tail = b'{"id": "e-1", "channel": "c", "time": 1, "data": ', b"}"
    lines = (head + data.encode() + tail).split(b"\n")
    fake.streams = [b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"]
    (line,) = listen(fake, "c", "--count", "1", *flags).stdout.splitlines()
    assert None is re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)
    assert value == (json.loads(line)["data"] if flags else json.loads(line))
