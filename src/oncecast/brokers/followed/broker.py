"""The broker of a followed log: a `Remote` whose sessions share what the node knows of the log."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..address import Address, whole
from ..base import Capabilities
from ..remote import Remote
from ..session import GuardedSink
from .server import LogServer
from .session import OPEN_SECONDS, FollowedPlace, FollowedRules, FollowedSession

BATCH_DRAFTS = 500
KEY_SECONDS = 600  # each node keeps 150 bytes for each key of its window
RETENTION_SECONDS = 7 * 24 * 3600


def key_window(address: Address) -> int:
    """Return for how many seconds a key is known. Raises `ConfigurationError`."""
    return whole(address, "key_seconds", KEY_SECONDS, 1, 3600)


def server_retention(address: Address) -> int:
    """Return for how many seconds the server of a new log keeps its records. Raises `ConfigurationError`."""
    return whole(address, "retention_seconds", RETENTION_SECONDS, 3600, 10**9)


def followed_broker(address: Address, make_server: Callable[[], LogServer], rules: FollowedRules) -> Remote:
    """Return the broker of the log that the servers of `make_server` reach, one for each session. It is not started."""
    place = FollowedPlace(os.urandom(8))

    def make(sink: GuardedSink) -> FollowedSession:
        return FollowedSession(make_server(), sink, place, rules)

    return Remote(
        make,
        name=str(address),
        capabilities=Capabilities(
            "broker", history=True, key_seconds=rules.key_seconds, only_wanted=True, lossy_holes=True
        ),
        batch_drafts=BATCH_DRAFTS,
        open_seconds=OPEN_SECONDS,
    )
