"""The table of fuzzing targets: a name, and the function that takes any bytes and raises where an invariant is broken.

To add one, write its function beside those of its kind, add it here, and give it seeds in `seeds.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from . import http_targets, policy_targets, server_targets, socket_targets, text_targets

__all__ = ["CASES", "TARGETS", "Target"]

Target = Callable[[bytes], None]

TARGETS: Mapping[str, Target] = {
    "requests": http_targets.requests,
    "responses": http_targets.responses,
    "handshake": http_targets.handshake,
    "frames": socket_targets.frames,
    "deflate": socket_targets.deflate,
    "event_streams": text_targets.event_streams,
    "envelopes": text_targets.envelopes,
    "cursors": text_targets.cursors,
    "queries": text_targets.queries,
    "tokens": policy_targets.tokens,
    "jwk_sets": policy_targets.jwk_sets,
    "patterns": policy_targets.patterns,
    "forwarded": policy_targets.forwarded,
    "proxy_protocol": policy_targets.proxy_protocol,
    "settings": server_targets.settings,
    "written_settings": server_targets.written_settings,
    "setting_values": server_targets.setting_values,
    "tls_opening": server_targets.tls_opening,
}

CASES = Path(__file__).parent / "cases"
"""Inputs that have found a fault, a folder for each target: they are run as the seeds are."""
