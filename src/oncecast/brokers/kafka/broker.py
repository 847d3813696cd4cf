"""The broker on Kafka 2.1 and later: its URL, and what it can do."""

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

SCHEMES = {"kafka": False, "kafka+ssl": True}
PORT = 9092
OPTIONS = ("topic", "replicas", "retention_seconds", "key_seconds", "sasl")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


def kafka_broker(
    url: str,
    *,
    new_epoch: Callable[[], str],
    policy: Callable[[str], Retention],
    wall: Callable[[], float] = time.time,
) -> Remote:
    """Return the broker at a URL, not started. Raises `ConfigurationError`.

    `new_epoch` names the log if it begins now. `policy` gives a channel's retention by its name, `wall` Unix seconds.
    """
    address = parse_address(url, SCHEMES, PORT, OPTIONS)
    if address.path:
        raise ConfigurationError(f"broker: {address}: a Kafka URL has no path: name the topic by ?topic=NAME")
    topic = address.options.get("topic", "oncecast")
    if TOPIC.fullmatch(topic) is None or topic in (".", ".."):
        raise ConfigurationError(f"broker: {address}: topic is 1 to 249 of A-Z a-z 0-9 . _ -")
    if address.options.get("sasl", MECHANISMS[0]) not in MECHANISMS:
        raise ConfigurationError(f"broker: {address}: sasl is one of {', '.join(MECHANISMS)}")
    if (address.user is None) != (address.password is None):
        raise ConfigurationError(f"broker: {address}: give a user and a password, or neither")
    replicas = whole(address, "replicas", 1, 1, 9)
    key_seconds, retention_seconds = key_window(address), server_retention(address)
    try:
        from .client import Cluster, Topic
        from .log import KafkaLog
    except ImportError:
        raise ConfigurationError("broker: Kafka needs its client: pip install 'oncecast[kafka]'") from None
    settings = Topic(topic, replicas, retention_seconds, key_seconds)
    rules = FollowedRules(new_epoch, policy, wall, key_seconds)
    return followed_broker(address, lambda: KafkaLog(Cluster(address, settings)), rules)
