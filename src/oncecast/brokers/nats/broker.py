"""The broker on NATS 2.9 and later, with JetStream: its URL, and what it can do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from ...errors import ConfigurationError
from ...message import RetentionPolicy
from ..address import parse_address, whole
from ..base import Capabilities
from ..handover import Handover
from ..remote import Remote
from ..session import GuardedSink

SCHEMES = {"nats": False, "natss": True}
PORT = 4222
OPTIONS = ("stream", "replicas", "key_seconds", "credentials", "credentials_env", "nkey_file", "nkey_env")
BATCH_DRAFTS = 500
KEY_SECONDS = 120  # the server keeps 200 bytes in memory for each key of its window
STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def nats_broker(
    url: str,
    *,
    new_epoch: Callable[[], str],
    policy: RetentionPolicy,
    wall: Callable[[], float] = time.time,
) -> Remote:
    """Return the broker at a URL, not started. Raises `ConfigurationError`.

    `new_epoch` names the log if it begins now. `policy` gives a channel's retention by its name, `wall` Unix seconds.
    """
    address = parse_address(url, SCHEMES, PORT, OPTIONS)
    if address.path:
        raise ConfigurationError(f"broker: {address}: a NATS URL has no path: name the stream by ?stream=NAME")
    if STREAM.fullmatch(address.options.get("stream", "oncecast")) is None:
        raise ConfigurationError(f"broker: {address}: stream is 1 to 64 of A-Z a-z 0-9 _ -")
    replicas = whole(address, "replicas", 1, 1, 5) if "replicas" in address.options else None
    key_seconds = whole(address, "key_seconds", KEY_SECONDS, 1, 3600)
    try:
        from .login import login
        from .session import NatsSession
    except ImportError:
        raise ConfigurationError("broker: NATS needs its client: pip install 'oncecast[nats]'") from None
    login(address)  # what can't be used is said at once
    place = Handover()
    node = os.urandom(8).hex()

    def make(sink: GuardedSink) -> NatsSession:
        return NatsSession(
            address,
            sink,
            place,
            node=node,
            new_epoch=new_epoch,
            policy=policy,
            wall=wall,
            key_seconds=key_seconds,
            replicas=replicas,
        )

    return Remote(
        make,
        name=str(address),
        capabilities=Capabilities("broker", history=True, key_seconds=key_seconds, only_wanted=True, lossy_holes=True),
        batch_drafts=BATCH_DRAFTS,
        forget=place.forget,
    )
