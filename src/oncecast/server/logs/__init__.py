"""The access log and the audit log of one process: which are on, and in which form. `handler.py` is the server's own.

`line.py` renders a line, `writer.py` writes it, `requests.py` says what of a request may stand in it, `audit.py` bounds
the refusals. To add a field, add it where the line is made: `server/logged.py` or `audit.py`.

Invariant: no line has a token, a key, a ticket, a cookie, a value of an unknown field of a query, or a message's data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ...errors import ErrorCode
from ...policy.identity import Identity
from ..settings import LogForm, Settings
from .audit import Audit
from .line import Value, begin, render
from .writer import LineWriter

__all__ = ["Logs"]


class Logs:
    """Writes to `descriptor`; `worker` is the number of this process's slot, None where it is not a worker.

    Both logs are off until `adopt` is called. `wall` returns Unix seconds. `besides` returns how many lines the
    server's own log has lost.
    """

    def __init__(
        self,
        descriptor: int,
        worker: int | None,
        monotonic: Callable[[], float],
        wall: Callable[[], float] = time.time,
        besides: Callable[[], int] = int,
    ) -> None:
        self._access: LogForm = "off"
        self._audit: LogForm = "off"
        self._worker = worker
        self._wall = wall
        self._besides = besides
        self._writer = LineWriter(descriptor, self._dropped)
        self._refusals = Audit(self._write_audit, monotonic)

    def adopt(self, settings: Settings) -> None:
        """Log by these settings from now on; a connection that is open keeps its access log, or has none."""
        self._access, self._audit = settings.access_log, settings.audit_log

    @property
    def accesses(self) -> bool:
        """Whether requests are logged."""
        return self._access != "off"

    @property
    def dropped(self) -> int:
        """How many lines could not be written, those of the server's own log included."""
        return self._writer.dropped + self._besides()

    @property
    def refused(self) -> int:
        """How many refusals the audit log has had, those that it left out included."""
        return self._refusals.refused

    def access(self, fields: Mapping[str, Value]) -> None:
        """Log a request, a stream or a socket that has ended."""
        if self._access != "off":
            self._writer.put(render(self._access, begin(self._access, "access", self._worker, self._wall()), fields))

    def refuse(self, error: ErrorCode, identity: Identity, channel: str | None = None, *, how: str = "http") -> None:
        """Log a refusal: see `Audit.refuse`."""
        if self._audit != "off":
            self._refusals.refuse(error, identity, channel, how=how)

    def note(self, code: str, identity: Identity) -> None:
        """Log a connection that was refused before it could ask."""
        if self._audit != "off":
            self._refusals.note(code, 0, identity, None, "connect")

    def tick(self) -> None:
        """Hand the lines of this turn over. Call it several times a second."""
        if self._audit != "off":
            self._refusals.tick()
        self._writer.flush()

    async def close(self) -> None:
        """Write what is left, for a second or two."""
        self.tick()
        await self._writer.close()

    # -- helpers

    def _write_audit(self, fields: Mapping[str, Value]) -> None:
        if self._audit != "off":
            self._writer.put(render(self._audit, begin(self._audit, "audit", self._worker, self._wall()), fields))

    def _dropped(self, count: int) -> bytes:
        form = self._access if self._access != "off" else self._audit if self._audit != "off" else "text"
        return render(form, begin(form, "access", self._worker, self._wall()), {"dropped": count})
