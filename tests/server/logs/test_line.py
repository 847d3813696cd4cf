"""A line of a log is one line, whatever a peer has sent, and short enough for one write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.server.logs.line import LINE_BYTES, Form, Value, begin, render

WALL = 1_764_000_000.1234
BEGUN = "2025-11-24T16:00:00.123Z"


def test_text() -> None:
    """A line begins as the server's other lines do; a value that is no plain word is quoted."""
    fields: dict[str, Value] = {"address": "::1", "path": "/a?last=1", "status": 200, "seconds": 0.5, "empty": ""}
    expected = f'{BEGUN} [2] INFO oncecast.access: address=::1 path="/a?last=1" status=200 seconds=0.5 empty=""\n'
    assert expected.encode() == render("text", begin("text", "access", 2, WALL), fields)
    assert f"{BEGUN} INFO oncecast.audit:" == begin("text", "audit", None, WALL)


def test_json() -> None:
    """The same as an object, with the time, the log and the worker."""
    line = render("json", begin("json", "audit", 2, WALL), {"code": "forbidden", "status": 403})
    expected = {"time": BEGUN, "log": "audit", "worker": 2, "code": "forbidden", "status": 403}
    assert expected == json.loads(line)
    assert "worker" not in json.loads(render("json", begin("json", "audit", None, WALL), {}))


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "value",
    ['a" status=200', "a\r\n2025 INFO oncecast.access: x", "\x1b[2J", "\x7f\x85\u2028", "\xff\xe4", "\\", "\ud800"],
)
def test_no_line_can_be_forged(form: Form, value: str) -> None:
    """Line ends, controls, quotes and bytes that are no ASCII stand escaped, and are what was sent once read back."""
    line = render(form, begin(form, "access", None, WALL), {"subject": value, "status": 403})
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    if form == "json":
        assert value == json.loads(line)["subject"]
    else:
        quoted, end = json.JSONDecoder().raw_decode(line.decode().partition("subject=")[2])
        assert value == quoted
        assert " status=403\n" == line.decode().partition("subject=")[2][end:]


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.one_of(st.text(max_size=3000), st.integers(), st.floats(0, 1))))
def test_a_line_is_bounded(fields: dict[str, Value]) -> None:
    """A line fits one write to a pipe, is ASCII and a JSON object, and says what was cut."""
    for form in ("text", "json"):
        line = render(form, begin(form, "access", 1, WALL), fields)
        assert len(line) <= LINE_BYTES
        assert line.isascii()
        assert 1 == line.count(b"\n")
        assert line.endswith(b"\n")
        if form == "json":
            assert {"time", "log", "worker"} <= set(json.loads(line))


def test_a_long_value_is_cut_and_a_long_line_loses_fields() -> None:
    """The line shows both."""
    assert b"x=" + b"a" * 1024 + b"...\n" in render("text", "", {"x": "a" * 1025}).replace(b'"', b"")
    assert render("text", "", dict.fromkeys("abcde", "a" * 1024)).endswith(b" cut=true\n")
    assert json.loads(render("json", begin("json", "access", None, WALL), dict.fromkeys("abcde", "a" * 1024)))["cut"]
