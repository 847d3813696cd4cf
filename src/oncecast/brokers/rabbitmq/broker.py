"""The broker on RabbitMQ 3.9 and later, with its stream plugin: its URL, and what it can do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from ...errors import ConfigurationError
from ...message import Retention
from ..address import parse_address, whole
from ..base import Capabilities
from ..followed.session import OPEN_SECONDS, FollowedPlace, FollowedRules, FollowedSession
from ..remote import Remote
from ..session import GuardedSink

SCHEMES = {"amqp": False, "amqps": True}
PORT, TLS_PORT = 5552, 5551  # of the stream protocol
OPTIONS = ("stream", "replicas", "retention_seconds", "key_seconds")
BATCH_DRAFTS = 500
KEY_SECONDS = 600  # each node keeps 150 bytes for each key of its window
RETENTION_SECONDS = 7 * 24 * 3600
STREAM = re.compile(r"[A-Za-z0-9._-]{1,200}", re.ASCII)


def rabbitmq_broker(
    url: str,
    *,
    new_epoch: Callable[[], str],
    policy: Callable[[str], Retention],
    wall: Callable[[], float] = time.time,
) -> Remote:
    """Return the broker at a URL, not started. Raises `ConfigurationError`.

    The path is the virtual host, `/` without one. `new_epoch` names the log if it begins now. `policy` gives a
    channel's retention by its name, `wall` Unix seconds.
    """
    address = parse_address(url, SCHEMES, TLS_PORT if url.startswith("amqps:") else PORT, OPTIONS)
    stream = address.options.get("stream", "oncecast")
    if STREAM.fullmatch(stream) is None:
        raise ConfigurationError(f"broker: {address}: stream is 1 to 200 of A-Z a-z 0-9 . _ -")
    replicas = whole(address, "replicas", 1, 1, 9)
    key_seconds = whole(address, "key_seconds", KEY_SECONDS, 1, 3600)
    retention_seconds = whole(address, "retention_seconds", RETENTION_SECONDS, 3600, 10**9)
    try:
        from .log import RabbitLog, RabbitStream
    except ImportError:
        raise ConfigurationError("broker: RabbitMQ needs its client: pip install 'oncecast[rabbitmq]'") from None
    place = FollowedPlace(os.urandom(8))
    rules = FollowedRules(new_epoch, policy, wall, key_seconds)

    def make(sink: GuardedSink) -> FollowedSession:
        log = RabbitLog(address, RabbitStream(stream, replicas, retention_seconds))
        return FollowedSession(log, sink, place, rules)

    return Remote(
        make,
        name=str(address),
        capabilities=Capabilities("broker", history=True, key_seconds=key_seconds, only_wanted=True, lossy_holes=True),
        batch_drafts=BATCH_DRAFTS,
        open_seconds=OPEN_SECONDS,
    )
