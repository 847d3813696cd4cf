"""A Kafka cluster: connections to the leader of one topic, which is made if it is not there, and checked.

The library's connections are used as they are: they negotiate versions, TLS and SASL. Its consumer and producer are
not: they hide the leader's epoch of a batch, which says whether records may have been lost, and resend by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka.errors as errors
import msgspec
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from ...errors import ConfigurationError
from ..address import Address, connect_advice
from ..followed.server import Removed
from ..session import Lost

ANSWER_MILLISECONDS = 3_000
MADE_SECONDS = 5.0  # for a new topic to have a leader
CLOSE_SECONDS = 1.0
MESSAGE_BYTES = 8 << 20
TOPIC_RESOURCE = 2
ALREADY_THERE, UNKNOWN_TOPIC, OUT_OF_RANGE = 36, 3, 1
NO_LEADER = (3, 5, 6)
DENIED = (29, 31, 58)
REFUSED = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
)
NO_LOGIN = "takes no login: leave the user out of the URL, or name the port that Kafka has for SASL"
CHECK_PORT = ": check that Kafka listens at this port"

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it logs, it raises too


class Topic(msgspec.Struct, frozen=True):
    """The topic of a log. A new one is made with these settings; of one that is there, some must fit."""

    name: str
    replicas: int
    retention_seconds: int
    key_seconds: int

    def settings(self) -> dict[str, str]:
        """Return the settings of a new topic."""
        return {
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(self.retention_seconds * 1000),
            "retention.bytes": "-1",
            "max.message.bytes": str(MESSAGE_BYTES),
            "min.insync.replicas": str(self.replicas // 2 + 1),
            "unclean.leader.election.enable": "false",
        }

    def misfit(self, found: dict[str, str]) -> str | None:
        """Return the name and value that a setting must have and has not."""
        for name in ("cleanup.policy", "message.timestamp.type", "retention.bytes"):
            if found.get(name) != self.settings()[name]:
                return f"{name}={self.settings()[name]}"
        kept = int(found.get("retention.ms", "-1"))
        return f"retention.ms={self.key_seconds * 1000} or more" if 0 <= kept < self.key_seconds * 1000 else None


class KafkaConnection(AIOKafkaConnection):  # type: ignore[misc]
    """The library's connection, whose close does not wait for the peer: TLS would wait half a minute for its goodbye.

    The library closes by itself too, where a login is refused, and then forgets the socket.
    """

    def close(self, reason: Any = None, exc: Any = None) -> Any:
        """Close at once. What is returned is awaitable, or None."""
        if self._writer is not None:
            self._writer.transport.abort()
        return super().close(reason, exc)


class Cluster:
    """See the module."""

    def __init__(self, address: Address, topic: Topic) -> None:
        self.address = address
        self.topic = topic
        self._connections: list[AIOKafkaConnection] = []

    async def leader(self, begins: Callable[[], object]) -> tuple[str, int, int]:
        """Return the host and port of the topic's leader, and the most bytes of a batch.

        `begins` is called before the topic is made: it raises where no log may begin.
        """
        first = await self._bootstrap()
        try:
            place = await self._find(first)
            if place is None:
                begins()
                await self._make(first)
                end = asyncio.get_running_loop().time() + MADE_SECONDS
                while (place := await self._find(first)) is None:
                    if asyncio.get_running_loop().time() > end:
                        raise Lost(f"the topic {self.topic.name} was made and has no leader")
                    await asyncio.sleep(0.05)
            return *place, await self._check(first)
        finally:
            await self._shut(first)

    async def connect(self, host: str, port: int) -> AIOKafkaConnection:
        """Open a connection. Raises `Lost` or `ConfigurationError`."""
        address = self.address
        context = address.context()
        sasl = address.user is not None
        security = ("SASL_SSL" if sasl else "SSL") if context else ("SASL_PLAINTEXT" if sasl else "PLAINTEXT")
        connection = KafkaConnection(
            host,
            port,
            client_id="oncecast",
            request_timeout_ms=ANSWER_MILLISECONDS,
            ssl_context=context,
            security_protocol=security,
            sasl_mechanism=address.options.get("sasl", "PLAIN") if sasl else None,
            sasl_plain_username=address.user,
            sasl_plain_password=address.password,
        )
        try:
            await connection.connect()
        except (errors.KafkaError, OSError, TimeoutError) as error:
            await asyncio.sleep(0)  # for the transport to let go of its socket
            if isinstance(error, errors.IllegalSaslStateError):
                raise ConfigurationError(f"broker: {address}: {host}:{port} {NO_LOGIN}") from None
            if isinstance(error, REFUSED):
                text = f"{one_line(error) or type(error).__name__}: check its user, password and ?sasl="
                raise ConfigurationError(f"broker: {address}: {text}") from None
            cause = error.__cause__ or error.__context__ or error
            text = one_line(error) or one_line(cause) or "no answer"
            said = connect_advice(cause, text, address)
            raise Lost(f"{host}:{port}: {said}{CHECK_PORT if said == text else ''}") from None
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close all connections. Raises nothing."""
        await asyncio.gather(*(self._shut(each) for each in list(self._connections)))

    # -- helpers

    async def _bootstrap(self) -> AIOKafkaConnection:
        lost = Lost("")
        for host, port in self.address.hosts:
            try:
                return await self.connect(host, port)
            except Lost as error:
                lost = error
        raise lost

    async def _find(self, connection: AIOKafkaConnection) -> tuple[str, int] | None:
        """Return where the leader is; None where there is no topic yet, or no leader of a new one."""
        name = self.topic.name
        found = await answer(connection.send(MetadataRequest([name], allow_auto_topic_creation=False)))
        code, partitions = next((topic[0], topic[3]) for topic in found.topics if topic[1] == name)
        if code == UNKNOWN_TOPIC:
            return None
        if code in DENIED:
            raise ConfigurationError(f"broker: {self.address}: the topic {name}: {why(code)}: allow it for this user")
        if code in NO_LEADER or not partitions:
            return None
        if len(partitions) != 1:
            text = f"the topic {name} has {len(partitions)} partitions: name one with 1 by ?topic=NAME"
            raise ConfigurationError(f"broker: {self.address}: {text}")
        leader = partitions[0][2]
        places = {broker[0]: (broker[1], broker[2]) for broker in found.brokers}
        if leader not in places:
            raise Lost(f"the topic {name} has no leader now")
        return places[leader]

    async def _make(self, connection: AIOKafkaConnection) -> None:
        topic = self.topic
        settings: list[tuple[str, str]] = list(topic.settings().items())
        request = (topic.name, 1, topic.replicas, (), settings)
        made = await answer(connection.send(CreateTopicsRequest([request], ANSWER_MILLISECONDS, False)))
        _, code, *text = made.topic_errors[0]
        if code in (0, ALREADY_THERE):
            return
        said = f"the topic {topic.name} can't be made: {(text and text[0]) or why(code)}"
        if code in (*DENIED, 37, 38, 40, 44):  # partitions, replicas, settings, a policy
            raise ConfigurationError(f"broker: {self.address}: {said}")
        raise Lost(said)

    async def _check(self, connection: AIOKafkaConnection) -> int:
        """Check the topic's settings, and return the most bytes of a batch."""
        topic = self.topic
        names = [*topic.settings()]
        described = await answer(connection.send(DescribeConfigsRequest([(TOPIC_RESOURCE, topic.name, names)])))
        code, text, *_, entries = described.resources[0]
        if code in DENIED:
            said = f"the settings of the topic {topic.name} can't be read: allow DescribeConfigs for this user"
            raise ConfigurationError(f"broker: {self.address}: {said}")
        if code:
            raise Lost(f"the settings of the topic {topic.name} can't be read: {text or why(code)}")
        found = {entry[0]: entry[1] for entry in entries}
        misfit = topic.misfit(found)
        if misfit is not None:
            said = f"the topic {topic.name} must have {misfit}: change it, or name another topic by ?topic=NAME"
            raise ConfigurationError(f"broker: {self.address}: {said}")
        return int(found.get("max.message.bytes", 1_000_000))

    async def _shut(self, connection: AIOKafkaConnection) -> None:
        self._connections.remove(connection)
        closed = connection.close()
        if closed is not None:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await closed


async def answer(asked: Awaitable[Any]) -> Any:
    """Return an answer. Raises `Lost` without one."""
    try:
        return await asked
    except TimeoutError:
        raise Lost(f"it has not answered for {ANSWER_MILLISECONDS / 1000:g} s") from None
    except (errors.KafkaError, OSError) as error:
        raise Lost(one_line(error) or "its connection was closed") from None


def check_code(code: int) -> None:
    """Raise what an error code stands for, unless it is 0."""
    if code == OUT_OF_RANGE:
        raise Removed
    if code:
        raise Lost(why(code))


def why(code: int) -> str:
    """Return what an error code says."""
    kind = errors.for_code(code)
    return str(getattr(kind, "description", None) or kind.__name__)


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of a bounded length."""
    return " ".join(str(error).split())[:200]
