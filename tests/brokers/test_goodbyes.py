"""Closing a connection of TLS whose server never says goodbye: the socket is closed all the same, and at once.

A TLS close waits for the peer's `close_notify` (RFC 8446 §6.1). A server that hangs, or that is slow to close a
connection whose login it has refused, would keep the socket open for half a minute.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from oncecast.brokers.address import Address, parse_address
from oncecast.brokers.kafka import broker as kafka
from oncecast.brokers.kafka.client import Cluster, Topic
from oncecast.brokers.nats import broker as nats
from oncecast.brokers.nats import client as nats_client
from oncecast.brokers.redis import broker as redis
from oncecast.brokers.redis import line
from oncecast.errors import ConfigurationError
from tests.brokers.certificates import Authority
from tests.open_transports import open_now

HOST = "127.0.0.1"
SECONDS = 60.0
INFO = b"INFO %b\r\n" % json.dumps({"tls_required": True, "max_payload": 1 << 20, "version": "2.12.0"}).encode()
REFUSED = 58  # SASL_AUTHENTICATION_FAILED
API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36

Talk = Callable[[ssl.SSLSocket], None]
Close = Callable[[Address], Coroutine[Any, Any, None]]


def redis_talk(tls: ssl.SSLSocket) -> None:
    """Answer each command: the password "wrong" is refused."""
    while data := tls.recv(1 << 16):
        tls.sendall(b"-WRONGPASS no such pair\r\n" if b"wrong" in data else b"+OK\r\n" * data.count(b"*"))


def nats_talk(tls: ssl.SSLSocket) -> None:
    """Answer each PING, unless the password is wrong."""
    refused = False
    while data := tls.recv(1 << 16):
        refused = refused or b"wrong" in data
        if b"PING" in data:
            tls.sendall(b"-ERR 'Authorization Violation'\r\n" if refused else b"PONG\r\n")


def kafka_talk(tls: ssl.SSLSocket) -> None:
    """Answer what a login asks; the password "wrong" is refused."""
    with tls.makefile("rb") as stream:
        while head := stream.read(4):
            frame = stream.read(int.from_bytes(head, "big"))
            kind, _, number = struct.unpack_from(">hhi", frame)
            if kind == API_VERSIONS:
                versions = ((SASL_HANDSHAKE, 0, 1), (SASL_AUTHENTICATE, 0, 0), (API_VERSIONS, 0, 0))
                answer = struct.pack(">hi", 0, len(versions)) + b"".join(
                    struct.pack(">hhh", *each) for each in versions
                )
            elif kind == SASL_HANDSHAKE:
                answer = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
            else:
                answer = struct.pack(">hhi", REFUSED if b"wrong" in frame else 0, -1, 0)
            tls.sendall(struct.pack(">ii", 4 + len(answer), number) + answer)


async def close_redis(address: Address) -> None:
    """Connect, and close."""
    await line.close(await line.connect(address, *address.hosts[0], address.context()))


async def close_nats(address: Address) -> None:
    """Connect, and close."""
    client = await nats_client.connect(address, lambda *_: None)
    await client.shut()


async def close_kafka(address: Address) -> None:
    """Connect, and close."""
    cluster = Cluster(address, Topic("t", 1, 3600, 600))
    try:
        await cluster.connect(*address.hosts[0])
    finally:
        await cluster.close()


class Kind(NamedTuple):
    """A kind of broker: what its server says before TLS and after, and how a connection is opened and closed."""

    scheme: str
    module: Any
    talk: Talk
    close: Close
    greeting: bytes = b""


KINDS = {
    "redis": Kind("rediss", redis, redis_talk, close_redis),
    "nats": Kind("natss", nats, nats_talk, close_nats, INFO),
    "kafka": Kind("kafka+ssl", kafka, kafka_talk, close_kafka),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority."""
    return Authority(tmp_path_factory.mktemp("goodbyes"), "authority")


@contextlib.contextmanager
def silent(kind: Kind, authority: Authority) -> Iterator[int]:
    """A server that says no goodbye, and keeps the connection that it has accepted open to the end; its port."""
    pair = authority.issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def serve(listening: socket.socket, kept: contextlib.ExitStack) -> None:
        raw, _ = listening.accept()
        raw.settimeout(SECONDS)
        raw.sendall(kind.greeting)
        tls = kept.enter_context(context.wrap_socket(raw, server_side=True))
        with contextlib.suppress(ConnectionError):  # the client has gone
            kind.talk(tls)

    with contextlib.ExitStack() as kept, ThreadPoolExecutor(1) as pool, socket.create_server((HOST, 0)) as listening:
        listening.settimeout(SECONDS)
        served = pool.submit(serve, listening, kept)
        yield listening.getsockname()[1]
        served.result(SECONDS)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_no_goodbye(name: str, password: str, authority: Authority) -> None:
    """The socket is closed, also if the library closes after a refused login."""
    kind = KINDS[name]
    with silent(kind, authority) as port:
        url = f"{kind.scheme}://ann:{password}@{HOST}:{port}?tls_ca={authority.ca}"
        address = parse_address(url, kind.module.SCHEMES, kind.module.PORT, kind.module.OPTIONS)
        if password == "wrong":
            with pytest.raises(ConfigurationError, match="password"):
                await kind.close(address)
        else:
            await kind.close(address)
        assert open_now() == []
