"""The broker on Redis 6.2 and later, and on Valkey: its URL, and what it can do."""

from __future__ import annotations

import os
from collections.abc import Callable

from ...errors import ConfigurationError
from ...message import RetentionPolicy
from ..address import parse_address, secret
from ..base import KEY_SECONDS, Capabilities
from ..handover import Handover
from ..remote import Remote
from ..session import GuardedSink

SCHEMES = {"redis": False, "rediss": True, "redis+sentinel": False, "rediss+sentinel": True}
PORT = 6379
SENTINEL_PORT = 26379
OPTIONS = ("prefix", "sentinel_password", "sentinel_password_file", "sentinel_password_env", "sentinel_tls")
BATCH_DRAFTS = 1_000  # sent together, by several scripts


def redis_broker(
    url: str,
    *,
    new_epoch: Callable[[], str],
    policy: RetentionPolicy,
    key_seconds: float = KEY_SECONDS,
) -> Remote:
    """Return the broker at a URL, not started. Raises `ConfigurationError`.

    `new_epoch` names the log if it begins now. `policy` gives a channel's retention by its name.
    """
    sentinel = "+sentinel:" in url
    address = parse_address(url, SCHEMES, SENTINEL_PORT if sentinel else PORT, OPTIONS)
    database = address.path
    if sentinel:
        name, _, database = address.path.partition("/")
        if not name:
            text = "the path names the primary that Sentinel watches, such as /mymaster/0"
            raise ConfigurationError(f"broker: {address}: {text}")
    secret(address, "sentinel_password")
    if database and not (database.isascii() and database.isdigit() and len(database) < 6):
        raise ConfigurationError(f"broker: {address}: the path is the number of a database, such as /0")
    try:
        from .session import RedisSession
    except ImportError:
        raise ConfigurationError("broker: Redis needs its client: pip install 'oncecast[redis]'") from None
    place = Handover()
    node = os.urandom(8).hex()

    def make(sink: GuardedSink) -> RedisSession:
        return RedisSession(
            address,
            sink,
            place,
            node=node,
            new_epoch=new_epoch,
            policy=policy,
            key_seconds=key_seconds,
        )

    return Remote(
        make,
        name=str(address),
        capabilities=Capabilities("broker", history=True, key_seconds=key_seconds, only_wanted=True, lossy_holes=True),
        batch_drafts=BATCH_DRAFTS,
        forget=place.forget,
    )
