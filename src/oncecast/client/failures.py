"""How a request or a connection ends where it does not succeed, and what an application sees of that.

A request that is `Broken` can succeed later, one that is `Refused` can't; both have kinds. A wrong call is a
`UsageError`, as everywhere. To add a failure, derive it from one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from ..errors import ERRORS, OncecastError

__all__ = [
    "MALFORMED",
    "Broken",
    "ClientFailed",
    "Drained",
    "NotSent",
    "PublishFailed",
    "Refused",
    "SubscriptionEnded",
    "Unavailable",
    "Unreachable",
    "Unsuited",
    "failure_of_answer",
    "refused_here",
    "retry_after",
]

# What reading a server's JSON may raise: msgspec's errors are ValueErrors; JSON that is nested too deeply overflows.
MALFORMED = (ValueError, RecursionError)
CLOSED = "the client was closed"
NOTE_BYTES = 1024  # of an answer that is not ours, in which its cause is looked for


class Broken(OncecastError):
    """The connection ended or failed: the same request can succeed later, not before `retry_after` seconds if given."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unreachable(Broken):
    """No connection can be opened: nothing listens there, the name has no address, or TLS fails."""


class Unavailable(Broken):
    """An answer with a status that passes: 408, 425, 429 or 5xx, of the server or of a proxy in front of it."""

    def __init__(self, reason: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.status = status


class Drained(Broken):
    """The server ends the connection in words: it stops, restarts or is overloaded. The transport itself works."""


class PublishFailed(Broken):
    """A publish failed in the same way again and again, while the server answers other requests. It is given up."""


class Refused(OncecastError):
    """The server refuses, and will again; or the client knows that it would.

    `code` is one of `errors.ERRORS`, `""` where an answer had none. `message` says what is wrong. `status` is the HTTP
    status, None where there was none, as with a close code. `retry_after` is in seconds, None if unknown.
    """

    def __init__(
        self, message: str, *, code: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after


class NotSent(Refused):
    """The client refuses a request itself, with the code that the server would answer; nothing was sent."""


class Unsuited(Refused):
    """This transport can't work here, as a proxy or the server does not let it through; another one may."""


class SubscriptionEnded(OncecastError):
    """`receive` was called on a subscription that is closed, and all that had arrived was handed out."""


class ClientFailed(OncecastError):
    """The client itself has failed: a defect, or a task or thread of it was ended from outside. Subscribe again."""


class _ErrorBody(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    error: _ErrorBody


def failure_of_answer(status: int, body: bytes, seconds: float | None, *, opening: bool = False) -> Broken | Refused:
    """Return what an HTTP answer other than success means; `seconds` is its Retry-After.

    `opening` is for transports that others can stand in for: what did not come from our server is then `Unsuited`.
    """
    try:
        error = msgspec.json.decode(body, type=_Answer).error
        code, message = error.code, error.message
    except MALFORMED:
        code, message = "", f"the server answers {status}, but not as Oncecast: {_who_answers(status, body)}"
    if status in (408, 425, 429) or status >= 500:
        return Unavailable(message, status=status, retry_after=seconds)
    kind = Unsuited if opening and code not in ERRORS else Refused
    return kind(message, code=code, status=status, retry_after=seconds)


def _who_answers(status: int, body: bytes) -> str:
    if status == 400 and b"HTTPS" in body[:NOTE_BYTES]:  # ours says so at a port of TLS; nginx and Go do too
        return "this port speaks HTTPS, so the URL begins with https://"
    if status == 404:
        return "it is a proxy or another server, or Oncecast is below a path of it, which the URL lacks"
    return "it is a proxy or another server"


def failure_of_event(body: bytes) -> Broken | Refused:
    """Return what an error at the end of an event stream means; it has the status that its code has."""
    try:
        error = msgspec.json.decode(body, type=_Answer).error
    except MALFORMED:
        return Broken("the server ended the stream with an error that is malformed")
    row = ERRORS.get(error.code)
    if row is not None and row.retry:
        return Drained(error.message)
    return Refused(error.message, code=error.code, status=None if row is None else row.status)


def refused_here(code: str, message: str) -> NotSent:
    """Return the refusal of a request that is not sent; it has the status that the server would answer."""
    return NotSent(message, code=code, status=ERRORS[code].status)


def retry_after(headers: Mapping[str, str], wall_clock: float) -> float | None:
    """Return the seconds of a Retry-After, a number or a date (RFC 9110 §10.2.3); None if there is none.

    A date is compared with the answer's own `Date`, so that a clock that is wrong here does not matter; with
    `wall_clock`, Unix seconds, where the answer has none.
    """
    value = headers.get("retry-after", "").strip()
    try:
        if value.isdecimal():
            return float(value)
        return max(0.0, _unix(value) - (_unix(headers["date"]) if "date" in headers else wall_clock))
    except (ValueError, OverflowError):
        return None


def _unix(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()
