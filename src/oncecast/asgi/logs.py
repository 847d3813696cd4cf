"""The access log and the audit log of an application: records of Python's `logging`, with the server's fields.

The application's own configuration of `logging` says where they go: `oncecast.access` has a record of level INFO for
each request, stream and socket at its end, and `oncecast.audit` one for what access rules and limits refuse. Invariant:
as in the server's logs, no record has a token, a cookie, a value of an unknown field of a query, or a message's data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ..errors import ErrorCode
from ..policy.identity import Identity
from ..server.logs import Logs
from ..server.logs.line import Value, render
from ..server.settings import Settings

__all__ = ["AppLogs"]

NOWHERE = -1  # a descriptor that nothing is written to
_access = logging.getLogger("oncecast.access")
_audit = logging.getLogger("oncecast.audit")


class AppLogs(Logs):
    """`Logs` that write by `logging`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__(NOWHERE, None, monotonic)
        self._audit = "text"

    def adopt(self, settings: Settings) -> None:
        """Do nothing: `logging` decides what is written."""

    @property
    def accesses(self) -> bool:
        """Whether somebody takes records of requests."""
        return _access.isEnabledFor(logging.INFO)

    def access(self, fields: Mapping[str, Value]) -> None:
        """Log a request, a stream or a socket that has ended."""
        _access.info("%s", _text(fields))

    def refuse(self, error: ErrorCode, identity: Identity, channel: str | None = None, *, how: str = "http") -> None:
        """Log a refusal: see `Audit.refuse`."""
        if _audit.isEnabledFor(logging.INFO):
            super().refuse(error, identity, channel, how=how)

    def _write_audit(self, fields: Mapping[str, Value]) -> None:
        _audit.info("%s", _text(fields))


def _text(fields: Mapping[str, Value]) -> str:
    return render("text", "", fields).decode("ascii").strip()
