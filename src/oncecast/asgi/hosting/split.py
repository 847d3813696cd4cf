"""Whose a request is: the server's, or the application's. Only its path decides.

The server's are the channels and what belongs to them, the client, its modules, the probes, the metrics, the documents
of the wire, and the server's pages with their files in `/web/`. The rest is the application's: `/`, and all other paths
below `/v1/` and `/web/`.
Invariant: what `Split` gives to the server is refused or answered by its routes; what it gives to the application by
mistake (a path that is written in another way, such as `/%761/channels/x`) is found again by its decoded path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...http import operator, publishing, users
from ...http.pages import PROBES
from ...http.routes import CHANNELS, CONNECT
from ...wire.http1 import EMPTY_LINES, METHOD_BYTES

__all__ = ["Split"]

OF_THE_APPLICATION = frozenset({"/", "/admin", "/favicon.ico"})  # of the server's pages
EXACT = (
    CONNECT,
    publishing.PUBLISH,
    users.TICKET,
    users.DISCONNECT,
    operator.OVERVIEW,
    operator.DRAIN,
    *PROBES,
    "/metrics",
)


class Split:
    """`pages` are the paths of the server's pages."""

    def __init__(self, pages: Iterable[str]) -> None:
        self.exact = frozenset({*EXACT, *pages} - OF_THE_APPLICATION)  # paths, beside those of channels
        paths = [path.encode() for path in sorted(self.exact)]
        targets = b"|".join(re.escape(path) for path in paths)
        channels = re.escape(CHANNELS.encode())
        self._native = re.compile(
            rb"(?:\r\n){0,%d}[^\s]{1,%d} (?:%b|(?:%b)[ ?])" % (EMPTY_LINES, METHOD_BYTES, channels, targets)
        )
        self._whole = [CHANNELS.encode(), *(path + b" " for path in paths)]
        self._longest = max(map(len, self._whole))

    def begins_native(self, data: bytes | bytearray) -> bool:
        """Return whether a request that begins like this is the server's."""
        return self._native.match(data) is not None

    def begins_foreign(self, data: bytes | bytearray) -> bool:
        """Return whether a request that begins like this is the application's. Of neither, more has to come."""
        if self._native.match(data) is not None:
            return False
        start = bytes(data[: 2 * EMPTY_LINES + METHOD_BYTES + 1 + self._longest]).lstrip(b"\r\n")
        _, space, target = start.partition(b" ")
        if not space:  # what is no method the server refuses
            return False
        return not any(path.startswith(target) for path in self._whole)
