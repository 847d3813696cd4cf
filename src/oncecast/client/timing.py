"""How long a client waits for what. Invariant: every wait has a finite limit, in seconds on a monotonic clock."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UsageError

__all__ = ["Timing", "heartbeat_of"]

HEARTBEAT = 15.0  # a server's default, for a server that does not announce its own
IDLE_HEARTBEATS = 2.5  # without a byte, until a stream counts as dead: two may be late, and the network takes its time
MOST = 86_400.0  # seconds; a longer wait is a mistake
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Timing:
    """Time limits, in seconds, each from 0 to a day. Raises `UsageError` for any other number."""

    connect: float = 10.0  # for TCP, a proxy's tunnel, and TLS
    answer: float = 15.0  # for the head of an answer beyond what was asked to wait, and for an attachment
    body: float = 120.0  # for the whole body of an answer that is no stream
    idle: float | None = None  # for the next byte of a stream; None: 2.5 heartbeats, as the server announces them
    wait: float = 25.0  # asked for in a long poll: below the 30 s at which some proxies cut
    interval: float = 1.0  # between short polls that found nothing new
    attach: float = 2.5  # for a transport's first sign of life, while there is another to turn to
    proof: float = 10.0  # a connection that is cut sooner was cut early; a probe has to last this long
    probe: float = 40.0  # at most, between two probes of a better transport
    grace: float = 1.0  # for which a full subscription may hold up the others on its connection
    token: float = 10.0  # for get_token to return

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "idle":
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST:
                raise UsageError(f"timing.{field.name}: give seconds from 0 to {MOST:g}, not {value!r}")

    def idle_for(self, heartbeat: float | None) -> float:
        """Return the silence after which a stream is dead, for a server with this heartbeat (None: not announced)."""
        if self.idle is not None:
            return self.idle
        return IDLE_HEARTBEATS * (HEARTBEAT if heartbeat is None else heartbeat)


def heartbeat_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Oncecast-Heartbeat`; None where it is absent or no such number above 0, up to an hour."""
    value = headers.get("oncecast-heartbeat", "").strip()
    if _SECONDS.fullmatch(value) is None:
        return None
    seconds = float(value)
    return seconds if math.isfinite(seconds) and 0 < seconds <= 3600 else None
