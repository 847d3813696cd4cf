"""The counters of TLS in one process, for `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TlsMeters"]


@dataclass(slots=True)
class TlsMeters:
    """`handshakes` is those under way; `expires` is Unix seconds, and 0 without TLS. The others are since the start."""

    handshakes: int = 0
    failed: int = 0
    plain: int = 0
    cut: int = 0
    renewals_refused: int = 0
    expires: float = 0.0
