"""The brokers by the scheme of their URL: the only place that knows the concrete ones.

To add one, write `build_NAME` here and name its schemes in `BUILDERS`. A broker's module is imported when its URL is
first used, as its client library may not be installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..brokers.base import Broker
from ..brokers.memory import MemoryBroker, new_epoch
from ..errors import ConfigurationError
from ..message import RetentionPolicy
from .settings import SQLITE, Settings

Epoch = Callable[[], str]


def build_broker(settings: Settings, policy: RetentionPolicy, epoch: Epoch | None = None) -> Broker:
    """Return the broker that the settings name, not started. `policy` gives a channel's retention by its name.

    `epoch` names a log on another machine that begins now; it may raise where none is to begin. Without it the name is
    random.

    Raises `ConfigurationError` for a URL that can't be one, or a client library that is missing.
    """
    scheme = settings.broker.partition("://")[0]
    build = BUILDERS.get(scheme)
    if build is None:
        known = ", ".join(f"{name}://" for name in BUILDERS)
        raise ConfigurationError(f"broker: {scheme[:40]}:// is not a broker's URL: use one of {known}")
    return build(settings, policy, epoch or random_epoch)


def build_memory(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker of one process."""
    return MemoryBroker(random_epoch(), time.time, key_seconds=settings.retention.key_seconds)


def build_sqlite(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker on a file."""
    from ..brokers.sqlite.broker import SqliteBroker

    return SqliteBroker(
        Path(settings.broker.removeprefix(SQLITE)),
        epoch=random_epoch(),
        wall=time.time,
        policy=policy,
        durability=settings.durability,
        key_seconds=settings.retention.key_seconds,
    )


def build_redis(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker on Redis."""
    from ..brokers.redis.broker import redis_broker

    return redis_broker(settings.broker, new_epoch=epoch, policy=policy, key_seconds=settings.retention.key_seconds)


def build_nats(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker on NATS."""
    from ..brokers.nats.broker import nats_broker

    return nats_broker(settings.broker, new_epoch=epoch, policy=policy)


def build_kafka(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker on Kafka."""
    from ..brokers.kafka.broker import kafka_broker

    return kafka_broker(settings.broker, new_epoch=epoch, policy=policy)


def build_rabbitmq(settings: Settings, policy: RetentionPolicy, epoch: Epoch) -> Broker:
    """Return the broker on RabbitMQ."""
    from ..brokers.rabbitmq.broker import rabbitmq_broker

    return rabbitmq_broker(settings.broker, new_epoch=epoch, policy=policy)


BUILDERS: Mapping[str, Callable[[Settings, RetentionPolicy, Epoch], Broker]] = {
    "memory": build_memory,
    "sqlite": build_sqlite,
    **dict.fromkeys(("redis", "rediss", "redis+sentinel", "rediss+sentinel"), build_redis),
    **dict.fromkeys(("nats", "natss"), build_nats),
    **dict.fromkeys(("kafka", "kafka+ssl"), build_kafka),
    **dict.fromkeys(("amqp", "amqps"), build_rabbitmq),
}


def random_epoch() -> str:
    """Return a name for a log."""
    return new_epoch(os.urandom(8))
