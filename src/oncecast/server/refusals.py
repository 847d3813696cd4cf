"""What is refused, counted by transport and by code for `/metrics`; and handed on to the audit log.

Invariant: a label is one of `TRANSPORTS` and a code of `errors.ERRORS`, or a close code of RFC 6455: nothing of a peer.
"""

from __future__ import annotations

from collections import Counter

from ..errors import ERRORS, ErrorCode, Refusal
from ..http.listening import LONG_POLL, SHORT_POLL, SSE, WEBSOCKET, transport_of
from ..http.publishing import PUBLISH
from ..http.routes import CHANNELS
from ..policy.identity import Identity
from ..wire import http1
from .logs import Logs
from .logs.requests import channels_of

__all__ = ["OTHER", "PUBLISHES", "TRANSPORTS", "Refusals"]

PUBLISHES, OTHER = "publish", "other"  # a POST of a message or a batch; what is no channel, or could not be read
TRANSPORTS = (SHORT_POLL, LONG_POLL, SSE, WEBSOCKET, PUBLISHES, OTHER)
ORDERLY = frozenset({1000, 1001, 1012})  # closes that refuse nothing: RFC 6455 §7.4.1, and a restart
_HOW = {"line": PUBLISHES, "frame": WEBSOCKET}
# Several errors share 4400 and 4403: a close says only the first of them.
_CLOSES = {error.close: error.code for error in reversed(ERRORS.values())}


class Refusals:
    """The refusals of one process, by transport and code. `logs` has the audit log; None where nothing is logged."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.logs: Logs | None = None

    def note(self, error: ErrorCode, identity: Identity, channel: str | None = None, /, *, how: str) -> None:
        """Note what is refused as a line of a batch, or as a frame: `protocol.base.NoteRefusal`."""
        self.counts[_HOW[how], error.code] += 1
        if self.logs is not None:
            self.logs.refuse(error, identity, channel, how=how)

    def request(self, refusal: Refusal, identity: Identity, request: http1.Request) -> None:
        """Note a request that is answered with an error."""
        self.counts[_transport_of(request), refusal.code] += 1
        if self.logs is not None:
            self.logs.refuse(refusal.error, identity, channels_of(request))

    def unread(self, refusal: Refusal) -> None:
        """Note a request that could not be read."""
        self.counts[OTHER, refusal.code] += 1

    def close(self, code: int, transport: str) -> None:
        """Note a stream or a socket that the server closes with this code."""
        if code not in ORDERLY:
            self.counts[transport, _CLOSES.get(code, str(code))] += 1


def _transport_of(request: http1.Request) -> str:
    if request.path.startswith(CHANNELS):
        return PUBLISHES if request.method == "POST" else transport_of(request)
    return PUBLISHES if request.path == PUBLISH else OTHER
