"""What an answer other than success means, and when to come back."""

from __future__ import annotations

import json

import pytest

from oncecast import Broken, Refused, Unavailable
from oncecast.client.failures import Unsuited, failure_of_answer, retry_after

NOT_OURS = ", but not as Oncecast: it is a proxy or another server"
SPEAKS_TLS = "this port speaks HTTPS, so the URL begins with https://"


def error(code: str) -> bytes:
    """Return our server's error body."""
    return json.dumps({"error": {"code": code, "message": "no"}}).encode()


@pytest.mark.parametrize(
    "status, body, opening, expected, text",
    [
        (403, error("forbidden"), False, Refused, "no"),
        (403, error("forbidden"), True, Refused, "no"),
        (403, b"<html>", False, Refused, "the server answers 403" + NOT_OURS),
        (403, b"<html>", True, Unsuited, "the server answers 403" + NOT_OURS),
        (301, b"", True, Unsuited, "the server answers 301" + NOT_OURS),
        (
            404,
            b"",
            False,
            Refused,
            f"the server answers 404{NOT_OURS}, or Oncecast is below a path of it, which the URL lacks",
        ),
        (400, b"Sent to HTTPS port", False, Refused, "the server answers 400, but not as Oncecast: " + SPEAKS_TLS),
        (400, b"<html>", False, Refused, "the server answers 400" + NOT_OURS),
        (408, error("timeout"), True, Unavailable, "no"),
        (429, error("too_many_requests"), False, Unavailable, "no"),
        (503, b"", True, Unavailable, "the server answers 503" + NOT_OURS),
    ],
)
def test_refusal(status: int, body: bytes, opening: bool, expected: type[Exception], text: str) -> None:
    """A refusal for a passing reason is tried again; each other is final, or a failing of this transport."""
    made = failure_of_answer(status, body, 9.0, opening=opening)
    assert (expected, text) == (type(made), str(made))
    if isinstance(made, Broken):
        assert 9.0 == made.retry_after


@pytest.mark.parametrize(
    "value, expected",
    [
        ("5", 5.0),
        ("Thu, 01 Jan 1970 00:00:20 GMT", 8.0),
        ("Thu, 01 Jan 1970 00:00:02 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Retry-After is a number of seconds or a date; what is neither asks for nothing."""
    assert expected == retry_after({"retry-after": value}, 12.0)


def test_retry_after_is_counted_from_the_answers_own_date() -> None:
    """A clock that is wrong here does not make a date of the server's a pause of hours, or of none."""
    headers = {"retry-after": "Thu, 01 Jan 1970 00:00:20 GMT", "date": "Thu, 01 Jan 1970 00:00:12 GMT"}
    assert 8.0 == retry_after(headers, 9e9)
    assert None is retry_after({**headers, "date": "today"}, 12.0)
