"""Nodes that start: with one server of several alive, or else not, with one line that says what to do and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers.servers import Servers
from tests.brokers.starting import publish_once, serve

NOBODY = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("kind", "url", "said"),
    [
        ("nats", f"nats://{NOBODY}", NOBODY),
        ("nats", "nats://ann:s3cret@{place}?replicas=3&stream=r3", "replicas > 1 not supported"),
        ("rabbitmq", f"amqp://{NOBODY}", "rabbitmq-plugins enable rabbitmq_stream"),
        ("rabbitmq", "amqp://guest:s3cret@{place}", "check its user and password"),
        ("kafka", f"kafka://{NOBODY}", NOBODY),
        ("kafka", "kafka://{place}?topic=serve&replicas=3", "can't be made"),
    ],
)
def test_it_does_not_start(servers: Servers, kind: str, url: str, said: str) -> None:
    """A wrong address, a wrong password and what the server can't do, without the password in any line."""
    place = "" if NOBODY in url else f"127.0.0.1:{servers(kind).port}"
    ended = serve(url.format(place=place))
    assert (2, 1) == (ended.status, len(ended.lines)), ended
    assert said in ended.lines[0]
    assert "s3cret" not in ended.lines[0]


def test_with_several_workers(servers: Servers) -> None:
    """The supervisor says it once, and ends as one process does."""
    ended = serve(f"nats://{NOBODY}", options=("--workers", "2"))
    assert 2 == ended.status, ended
    assert 1 == sum(NOBODY in line for line in ended.lines), ended


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("rabbitmq", "amqp://guest:guest@{places}?stream=several"),
        ("kafka", "kafka://{places}?topic=several"),
    ],
)
def test_of_several_servers_one_lives(servers: Servers, kind: str, url: str) -> None:
    """A dead one is passed over, whether it stands first or last."""
    place = f"127.0.0.1:{servers(kind).port}"
    for places in (f"{NOBODY},{place}", f"{place},{NOBODY}"):
        assert b"1" == publish_once(url.format(places=places))


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("nats", "nats://h", "nats"),
        ("redis", "redis://h", "redis"),
        ("rstream", "amqp://h", "rabbitmq"),
        ("aiokafka", "kafka://h", "kafka"),
    ],
)
def test_a_missing_library(tmp_path: Path, module: str, url: str, extra: str) -> None:
    """The line names the extra to install."""
    (tmp_path / module).mkdir()
    (tmp_path / module / "__init__.py").write_text("raise ImportError('it is not installed')\n")
    ended = serve(url, first=(str(tmp_path),))
    assert (2, 1) == (ended.status, len(ended.lines)), ended
    assert f"pip install 'oncecast[{extra}]'" in ended.lines[0]
