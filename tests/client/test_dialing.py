"""Opening connections: through proxies, over TLS, with headers; and why it fails, in words."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from oncecast import AsyncClient, Refused, Timing, Unreachable, UsageError
from oncecast.client.dialing import Endpoint, checked_headers, open_streams
from oncecast.client.http import HttpConnection
from oncecast.client.transports import TRANSPORTS
from oncecast.client.url import ProxyUrl, ServerUrl
from oncecast.server.server import Server as Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client.conftest import Certificate, Items, Peer, Talk, Until

QUICK = Timing(connect=5, answer=5, idle=5)


class Proxy:
    """An HTTP proxy that opens tunnels."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Open one tunnel, and carry it until one end is gone."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        host, _, port = head.split(" ")[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        # A length that means nothing after CONNECT (RFC 9110 §9.3.6), as some proxies send it.
        writer.write(b"HTTP/1.1 200 Connection established\r\nContent-Length: 99\r\n\r\n")
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, far_writer))
                group.create_task(self._carry(far_reader, writer))
        finally:
            self._tasks.discard(task)
            far_writer.close()
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            writer.close()

    async def close(self) -> None:
        """Cut all tunnels."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy on loopback."""
    made = Proxy()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await made.close()


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_everything_goes_through_a_proxy(real: Node, proxy: Proxy, items: Items, transport: str) -> None:
    """Each transport and a publish are tunnelled, with the proxy's user."""
    async with (
        AsyncClient(
            f"http://127.0.0.1:{real.port}",
            transports=(transport,),
            proxy=f"http://u:p@127.0.0.1:{proxy.port}",
            timing=Timing(interval=0.02, wait=0.5),
        ) as client,
        client.subscribe("a") as messages,
    ):
        await client.publish("a", 1)
        assert [1] == await items(messages, 1)
    wanted = f"CONNECT 127.0.0.1:{real.port} HTTP/1.1\r\nHost: 127.0.0.1:{real.port}\r\n"
    assert len(proxy.heads) >= 2
    assert {f"{wanted}Proxy-Authorization: Basic dTpw\r\n\r\n"} == set(proxy.heads)


@pytest.mark.parametrize("through_proxy", [False, True])
async def test_tls_with_a_context(peer: Peer, proxy: Proxy, certificate: Certificate, through_proxy: bool) -> None:
    """A context of the application's own decides whom to trust; a proxy sees a tunnel only."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"safe")
        await talk.hold()

    cert, key = certificate()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    peer.scripts = [script]
    server = await asyncio.start_server(peer.talk, "127.0.0.1", 0, ssl=context)
    url = ServerUrl("https", "127.0.0.1", server.sockets[0].getsockname()[1], "")
    way = ProxyUrl("127.0.0.1", proxy.port, "") if through_proxy else None
    untrusting = HttpConnection(Endpoint(url, proxy=way), timing=QUICK)
    with pytest.raises(Refused, match="is not trusted: self-signed"):
        await untrusting.request("GET", "/")
    trusting = Endpoint(url, (), ssl.create_default_context(cafile=str(cert)), way)
    connection = HttpConnection(trusting, timing=QUICK)
    assert b"safe" == (await connection.request("GET", "/")).body
    await connection.close()
    server.close()


@pytest.mark.parametrize(
    "answer, expected, words",
    [
        (b"HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n", Refused, "refuses the connection: it answers 407"),
        (b"HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\nno", Refused, "refuses the connection: it answers 403"),
        (b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n", Unreachable, "answers 502"),
        (b"HTTP/1.1 200 X\r\n\r\nearly", Unreachable, "sent bytes before the server could"),
        (b"SSH-2.0\r\n\r\n", Unreachable, "gives no answer of HTTP"),
        (b"HTTP/1.1 200 X", Unreachable, "gives no answer of HTTP"),
        (b"", Unreachable, "gives no answer of HTTP"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(peer: Peer, answer: bytes, expected: type[Exception], words: str) -> None:
    """The status of its answer decides whether another attempt can help."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(answer)

    peer.scripts = [script]
    endpoint = Endpoint(ServerUrl("http", "a.example", 80, ""), proxy=ProxyUrl("127.0.0.1", peer.port, ""))
    with pytest.raises(expected, match=words):
        await open_streams(endpoint, QUICK)


async def test_a_proxy_that_never_answers(peer: Peer) -> None:
    """The attempt ends at the deadline of a connection."""

    async def script(talk: Talk) -> None:
        await talk.hold()

    peer.scripts = [script]
    endpoint = Endpoint(ServerUrl("http", "a.example", 80, ""), proxy=ProxyUrl("127.0.0.1", peer.port, ""))
    with pytest.raises(Unreachable, match=r"no server answers at http://a\.example through the proxy .*: it took too"):
        await open_streams(endpoint, Timing(connect=0.05))


async def test_a_host_that_is_none() -> None:
    """A label that is too long for IDNA is no bare UnicodeError."""
    url = ServerUrl("http", f"{'a' * 64}.example", 80, "")
    with pytest.raises(Unreachable, match=r"the host is no host name|no address"):
        await open_streams(Endpoint(url), QUICK)


async def test_tls_where_there_is_none(peer: Peer) -> None:
    """The cause is named."""

    async def script(talk: Talk) -> None:
        await talk.reader.read(10)
        await talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    peer.scripts = [script]
    with pytest.raises(Unreachable, match="does not speak TLS: try http://"):
        await open_streams(Endpoint(ServerUrl("https", "127.0.0.1", peer.port, "")), QUICK)


async def test_headers_go_with_each_request(peer: Peer, until: Until) -> None:
    """Each request has the application's headers beside the client's own."""
    seen = []

    async def script(talk: Talk) -> None:
        seen.append((await talk.request())[1]["x-tenant"])
        await talk.answer(201, {"id": "e-1", "durability": "memory"})
        await talk.hold()

    async def socket(talk: Talk) -> None:
        seen.append((await talk.request())[1]["x-tenant"])

    peer.scripts = [script, socket]
    async with AsyncClient(f"http://127.0.0.1:{peer.port}", headers={"X-Tenant": "é"}) as client:
        await client.publish("c", 1)
        client.subscribe("c")
        await until(lambda: not peer.scripts)
    assert ["é", "é"] == seen


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"content-length": "1"},
        {"Sec-WebSocket-Key": "x"},
        {"Accept": "x"},
        {"X": "a\r\nb"},
        {"X Y": "a"},
        {"X": "日"},
        {"X": 1},
        {1: "x"},
    ],
)
def test_headers_that_can_not_be_sent(headers: Any) -> None:
    """Headers that can't be sent are refused when the client is made."""
    with pytest.raises(UsageError, match="header"):
        checked_headers(headers)
    assert (("X", "y"),) == checked_headers([("X", "y")])
    assert () == checked_headers(None)
