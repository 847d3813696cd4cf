"""Every error once: its code, HTTP status, WebSocket close code, and whether trying again can help.

`ERRORS` is the one table that the HTTP answers, the WebSocket frames, the close codes and the documentation are
made from. To add an error, add a row; `tests/test_errors.py` holds the rows to the rules below.

Two kinds of fault are kept apart:

* `Refusal`: a peer asked for something it may not have or sent something malformed. It is answered with the coded
  error and affects no other peer.
* `ConfigurationError`, `UsageError`: the server was set up, or the package called, wrongly. Raised to the operator or
  the embedding code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the table.

    `status` is the HTTP status (RFC 9110 §15). `close` is the WebSocket close code: RFC 6455 §7.4.1's own, or one in
    4400-4599 whose last three digits follow the HTTP status; but `slow` has 4409, to differ from `timeout`, with
    which it shares 408. `retry` says whether the same request can succeed later with nothing changed by the sender.
    `advice` is what a client should do.
    """

    code: str
    status: int
    close: int
    retry: bool
    advice: str


_ROWS = (
    ErrorCode("request_invalid", 400, 4400, False, "Correct the request; the message says which part."),
    ErrorCode("channel_invalid", 400, 4400, False, "Use a channel name that the grammar allows."),
    ErrorCode("cursor_invalid", 400, 4400, False, "Send back a cursor exactly as it was received."),
    ErrorCode("data_invalid", 400, 4400, False, "Make the data match its declared type."),
    ErrorCode(
        "event_invalid",
        400,
        4400,
        False,
        "Use an event name that the grammar allows, and not `gap`.",
    ),
    ErrorCode("key_invalid", 400, 4400, False, "Use an idempotency key that the grammar allows."),
    ErrorCode("frame_invalid", 400, 4400, False, "Send JSON text frames of the types of oncecast.v1."),
    ErrorCode("unauthorized", 401, 4401, False, "Get a fresh token, then connect again."),
    ErrorCode("forbidden", 403, 4403, False, "Do not retry: this identity may not do this."),
    ErrorCode("origin_refused", 403, 4403, False, "Do not retry: allow this exact origin in the settings first."),
    ErrorCode("not_found", 404, 4404, False, "Correct the path."),
    ErrorCode("method_not_allowed", 405, 4405, False, "Use one of the methods in the Allow header."),
    ErrorCode("timeout", 408, 4408, True, "Send the whole request, or read the answer, before its deadline."),
    ErrorCode("slow", 408, 4409, True, "Read faster or ask for fewer channels, then resume from your cursor."),
    ErrorCode("gap", 410, 4410, False, "Reload what was missed, then connect again without the old cursor."),
    ErrorCode("body_too_large", 413, 1009, False, "Send less in one request or message."),
    ErrorCode("url_too_long", 414, 4414, False, "Shorten the URL."),
    ErrorCode("type_unsupported", 415, 4415, False, "Send the body in a supported type and without an encoding."),
    ErrorCode("host_refused", 421, 4421, False, "Use a host that the server answers for, or add it to `hosts` there."),
    ErrorCode("upgrade_required", 426, 4426, False, "Connect with a WebSocket, version 13."),
    ErrorCode("too_many_requests", 429, 4429, True, "Wait as long as Retry-After says, then go on more slowly."),
    ErrorCode("headers_too_large", 431, 4431, False, "Send fewer or smaller headers."),
    ErrorCode("internal", 500, 1011, True, "Try again; if it persists, the server's log has the cause."),
    ErrorCode("unavailable", 503, 1013, True, "Wait as long as Retry-After says, then try again."),
)

ERRORS = {row.code: row for row in _ROWS}


class OncecastError(Exception):
    """What every exception of this package derives from."""


class UsageError(OncecastError):
    """The package was called wrongly by the code that embeds it."""


class ConfigurationError(OncecastError):
    """A setting is unknown, malformed or contradicts another. The text is one line that says what to change."""


class Refusal(OncecastError):
    """A peer's request is refused, with a coded error from `ERRORS`.

    `message` is one sentence for the peer's developer: what is wrong and what to do. `retry_after` is in seconds and
    becomes `Retry-After`. `allow` lists methods and becomes `Allow`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.error = ERRORS[code]
        self.message = message
        self.retry_after = retry_after
        self.allow = allow

    @property
    def code(self) -> str:
        """The error's name, as it stands on the wire."""
        return self.error.code

    def as_value(self) -> Refusal:
        """Return the refusal itself without the frames that it came through, to be kept and handed on.

        A frame that keeps a refusal which keeps the frame stays in memory, with all its values, until garbage is
        collected.
        """
        self.__context__ = None
        return self.with_traceback(None)

    def copy(self) -> Refusal:
        """Return an equal refusal, to be raised where the calling frames keep this one: see `as_value`."""
        return Refusal(self.code, self.message, retry_after=self.retry_after, allow=self.allow)
