"""The topic of a log, at brokers that answer what real ones rarely do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as errors
import pytest
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from oncecast.brokers.address import parse_address
from oncecast.brokers.followed.server import Removed
from oncecast.brokers.kafka import client
from oncecast.brokers.kafka.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.kafka.client import Cluster, Topic
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError

DENIED, NO_LEADER, UNKNOWN, BAD_REPLICAS, NOT_CONTROLLER = 29, 5, 3, 38, 41
TOPIC = Topic("t", 1, 3600, 600)


class Connection:
    """Answers each request by its kind, from a list whose last answer is repeated."""

    def __init__(self) -> None:
        self.answers: dict[type[Any], list[Any]] = {
            MetadataRequest: [metadata()],
            CreateTopicsRequest: [SimpleNamespace(topic_errors=[("t", 0, None)])],
            DescribeConfigsRequest: [settings(0, "", {**TOPIC.settings(), "max.message.bytes": "5000"})],
        }

    def send(self, request: Any) -> Awaitable[Any]:
        """Return an answer."""
        waiting = self.answers[type(request)]

        async def answer() -> Any:
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

        return answer()

    def close(self) -> None:
        """Close nothing."""


def metadata(code: int = 0, partitions: tuple[int, ...] = (1,), brokers: tuple[int, ...] = (1,)) -> Any:
    """Return what is said of the topic: the leader of each partition, and the brokers that are known."""
    found = [(0, number, leader, (), ()) for number, leader in enumerate(partitions)]
    return SimpleNamespace(topics=[(code, "t", False, found)], brokers=[(each, "h", 9092, None) for each in brokers])


def settings(code: int, text: str, found: dict[str, str]) -> Any:
    """Return the settings of the topic."""
    entries = list(found.items())
    return SimpleNamespace(resources=[(code, text, 2, "t", entries)])


@pytest.fixture
def connection() -> Connection:
    """A connection to a broker."""
    return Connection()


async def leader(connection: Connection) -> tuple[str, int, int]:
    """Ask a cluster of this connection for the leader."""
    cluster = Cluster(parse_address("kafka://h", SCHEMES, PORT, OPTIONS), TOPIC)

    async def connect(host: str, port: int) -> Any:
        cluster._connections.append(connection)
        return connection

    cluster.connect = connect  # type: ignore[method-assign]
    return await cluster.leader(lambda: None)


async def test_a_topic_that_is_made(connection: Connection) -> None:
    """A new one may have no leader at once, and another node may have made it."""
    connection.answers[MetadataRequest] = [metadata(UNKNOWN, ()), metadata(NO_LEADER, ()), metadata()]
    connection.answers[CreateTopicsRequest] = [SimpleNamespace(topic_errors=[("t", 36, "exists")])]
    assert ("h", 9092, 5000) == await leader(connection)


async def test_a_topic_that_gets_no_leader(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for longer than the deadline."""
    monkeypatch.setattr(client, "MADE_SECONDS", 0.0)
    connection.answers[MetadataRequest] = [metadata(UNKNOWN, ())]
    with pytest.raises(Lost, match="the topic t was made and has no leader"):
        await leader(connection)


Change = Callable[[Connection], None]


def answering(kind: type[Any], answer: Any, *, made: bool = False) -> Change:
    """Return what lets a connection answer so; where the topic is `made`, it is not there at first."""

    def change(connection: Connection) -> None:
        if made:
            connection.answers[MetadataRequest] = [metadata(UNKNOWN, ()), metadata()]
        connection.answers[kind] = [answer]

    return change


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (answering(MetadataRequest, metadata(DENIED)), ConfigurationError, "allow it for this user"),
        (answering(MetadataRequest, metadata(brokers=(2,))), Lost, "has no leader now"),
        (
            answering(CreateTopicsRequest, SimpleNamespace(topic_errors=[("t", DENIED, None)]), made=True),
            ConfigurationError,
            "can't be made",
        ),
        (
            answering(CreateTopicsRequest, SimpleNamespace(topic_errors=[("t", BAD_REPLICAS, "too many")]), made=True),
            ConfigurationError,
            "can't be made: too many",
        ),
        (
            answering(CreateTopicsRequest, SimpleNamespace(topic_errors=[("t", NOT_CONTROLLER, None)]), made=True),
            Lost,
            "can't be made",
        ),
        (answering(DescribeConfigsRequest, settings(DENIED, "", {})), ConfigurationError, "allow DescribeConfigs"),
        (answering(DescribeConfigsRequest, settings(7, "slow", {})), Lost, "can't be read: slow"),
    ],
)
async def test_what_ends_the_start(connection: Connection, change: Change, error: type[Exception], said: str) -> None:
    """A fault that only an operator mends and one that may pass are different errors of one line."""
    change(connection)
    with pytest.raises(error, match=said) as raised:
        await leader(connection)
    assert "\n" not in str(raised.value)


async def test_an_answer_that_does_not_come() -> None:
    """A request that times out, or whose connection ends, loses the session."""

    async def silent() -> Any:
        raise TimeoutError

    async def reset() -> Any:
        raise ConnectionResetError

    for asked, said in ((silent(), "it has not answered for 3 s"), (reset(), "its connection was closed")):
        with pytest.raises(Lost, match=said):
            await client.answer(asked)


def test_codes_of_errors() -> None:
    """An offset that is gone has an error of its own."""
    client.check_code(0)
    with pytest.raises(Removed):
        client.check_code(client.OUT_OF_RANGE)
    with pytest.raises(Lost):
        client.check_code(NO_LEADER)


@pytest.mark.parametrize(
    ("raised", "error", "said"),
    [
        (ConnectionRefusedError(111, "refused"), Lost, "h:1: nothing listens there: start the server, or correct"),
        (TimeoutError(), Lost, "h:1: no answer: check that Kafka listens at this port"),
        (errors.KafkaConnectionError("closed"), Lost, "closed: check that Kafka listens at this port"),
        (errors.IllegalSaslStateError(), ConfigurationError, "h:1 takes no login: leave the user out of the URL"),
        (errors.SaslAuthenticationFailed("bad"), ConfigurationError, "bad: check its user, password and"),
    ],
)
async def test_why_no_connection_could_be_opened(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception], said: str
) -> None:
    """The line says what to do."""

    async def connect(connection: object) -> None:
        raise raised

    monkeypatch.setattr(client.KafkaConnection, "connect", connect)
    cluster = Cluster(parse_address("kafka://h:1", SCHEMES, PORT, OPTIONS), TOPIC)
    with pytest.raises(error, match=said):
        await cluster.connect("h", 1)
