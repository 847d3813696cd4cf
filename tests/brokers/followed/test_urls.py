"""URLs of Kafka and RabbitMQ, and their missing libraries: one line before anything is opened."""

from __future__ import annotations

import re
import sys

import pytest

from oncecast.errors import ConfigurationError
from tests.brokers.starting import broker_at


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://localhost/oncecast", "no path"),
        ("kafka://localhost?topic=a*b", "topic is 1 to 249"),
        ("kafka://localhost?topic=..", "topic is 1 to 249"),
        ("kafka://u:secret@localhost?sasl=KERBEROS", "sasl is one of PLAIN"),
        ("kafka://user@localhost", "a user and a password, or neither"),
        ("kafka://localhost?replicas=0", "replicas is a whole number"),
        ("kafka://localhost?retention_seconds=60", "retention_seconds is a whole number"),
        ("kafka://u:secret@localhost?partitions=3", "no option partitions"),
        ("amqp://localhost?stream=a*b", "stream is 1 to 200"),
        ("amqp://localhost?replicas=0", "replicas is a whole number"),
        ("amqp://localhost?key_seconds=0", "key_seconds is a whole number"),
        ("amqp://u:secret@localhost?queue=3", "no option queue"),
    ],
)
def test_a_wrong_url_is_one_line(url: str, said: str) -> None:
    """What can't be meant is refused in a line that says what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        broker_at(url)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("library", "url", "extra"),
    [("aiokafka", "kafka://localhost", "kafka"), ("rstream", "amqp://localhost", "rabbitmq")],
)
def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch, library: str, url: str, extra: str) -> None:
    """Without the library the error says what to install."""
    for name in [name for name in sys.modules if name.startswith(f"oncecast.brokers.{extra}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=re.escape(f"pip install 'oncecast[{extra}]'")):
        broker_at(url)
