"""The broker on RabbitMQ 3.9 and later, with its stream plugin: its URL, and what it can do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from ...errors import ConfigurationError
from ...message import Retention
from ..address import parse_address, whole
from ..followed.broker import followed_broker, key_window, server_retention
from ..followed.session import FollowedRules
from ..remote import Remote

SCHEMES = {"amqp": False, "amqps": True}
PORT, TLS_PORT = 5552, 5551  # of the stream protocol
OPTIONS = ("stream", "replicas", "retention_seconds", "key_seconds")
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
    key_seconds, retention_seconds = key_window(address), server_retention(address)
    try:
        from .log import RabbitLog, RabbitStream
    except ImportError:
        raise ConfigurationError("broker: RabbitMQ needs its client: pip install 'oncecast[rabbitmq]'") from None
    settings = RabbitStream(stream, replicas, retention_seconds)
    rules = FollowedRules(new_epoch, policy, wall, key_seconds)
    return followed_broker(address, lambda: RabbitLog(address, settings), rules)
