"""What an examination says: a finding for each check.

Invariant: a check has one name for ever, as deployments look for it in the JSON.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CHECKS", "Finding", "Judgement", "unknown", "well", "wrong"]

CHECKS: Mapping[str, str] = {
    "server": "Oncecast answers at this URL, and not a proxy's own page",
    "host": "the host of the request reaches the server, which serves it",
    "http-version": "the proxy speaks HTTP/1.1 to the server, and not 1.0",
    "ready": "every node that is met is ready: none is stopping or has lost its broker",
    "clock": "the server's clock and this one agree within 5 s",
    "token": "the token or key fits, and may read the channel",
    "origin": "pages of `--origin` may connect",
    "cors": "their answers have the headers without which a browser keeps them from the page",
    "upgrade": "a WebSocket opens, and a frame comes back",
    "buffering": "a stream begins at once, and an event is not held back",
    "compression": "a stream is not compressed on its way",
    "quiet": "a connection on which nothing is said is not cut",
    "one-log": "every node that is met has the same log",
}
"""Each check by name, and what is well."""


class Judgement(enum.Enum):
    """What a check has found."""

    WELL = "well"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # it could not be looked at; the text says why


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `cure` says what to do, "" where nothing is to be done."""

    check: str
    verdict: Judgement
    text: str
    cure: str = ""


def well(check: str, text: str) -> Finding:
    """Return that a check is passed."""
    return Finding(check, Judgement.WELL, text)


def wrong(check: str, text: str, cure: str) -> Finding:
    """Return that a check has found something."""
    return Finding(check, Judgement.WRONG, text, cure)


def unknown(check: str, text: str) -> Finding:
    """Return that a check could not be made."""
    return Finding(check, Judgement.UNKNOWN, text)
