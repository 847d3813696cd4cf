"""The audit log: a line for each request that access rules, origins, hosts or limits refuse.

It has the errors of `STATUSES`, over HTTP and over WebSocket, and failed TLS handshakes. A line has no credentials: it
shows that a client tried, and not with what.

Invariant: at most `LINES_PER_SECOND` lines a second, in the long run, of each process. The others are counted, and a
line says how many once there is room.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ErrorCode
from ...policy.bucket import Bucket
from ...policy.identity import Identity
from .line import Value

__all__ = ["LINES_PER_SECOND", "STATUSES", "Audit"]

LINES_PER_SECOND = (
    20.0  # a flood writes some 4 KiB a second to the disk, and a client's single mistake still has its line
)
STATUSES = frozenset({401, 403, 421, 429})
BEFORE_IDENTITY = frozenset({"unauthorized", "origin_refused", "host_refused"})  # refused before the identity is known
NAMES = {"anybody": "", "token": "subject", "server": "key"}  # of what names an identity of each kind

WriteFields = Callable[[dict[str, Value]], None]


class Audit:
    """Writes refusals by `write`. `monotonic` returns seconds. `refused` counts all of them."""

    def __init__(self, write: WriteFields, monotonic: Callable[[], float]) -> None:
        self._write = write
        self._monotonic = monotonic
        self._bucket = Bucket.steady(LINES_PER_SECOND, monotonic())
        self._left_out = 0
        self.refused = 0

    def refuse(self, error: ErrorCode, identity: Identity, channel: str | None = None, *, how: str = "http") -> None:
        """Log a refusal, if it is one of `STATUSES`. `how` says what was refused: `http`, `frame`, `close`, `connect`.

        `channel` is what was asked for, as it was sent.
        """
        if error.status in STATUSES:
            if how == "http" and error.code in BEFORE_IDENTITY:
                identity = Identity(identity.address)  # what is known is of the request before
            self.note(error.code, error.close if how == "close" else error.status, identity, channel, how)

    def note(self, code: str, status: int, identity: Identity, channel: str | None, how: str) -> None:
        """Log an event of any code; a `status` of 0 is none."""
        self.refused += 1
        if not self._may_write():
            self._left_out += 1
            return
        fields: dict[str, Value] = {"code": code, "by": how}
        if status:
            fields["status"] = status
        fields["address"] = identity.address or "-"
        name = NAMES[identity.kind]
        if name and identity.subject is not None:
            fields[name] = identity.subject
        if channel is not None:
            fields["channel"] = channel
        self._write(fields)

    def tick(self) -> None:
        """Say how many were left out, once there is room for a line."""
        if self._left_out and self._may_write():
            left_out, self._left_out = self._left_out, 0
            self._write({"code": "left_out", "count": left_out})

    def _may_write(self) -> bool:
        return self._bucket.take(self._monotonic()) == 0
