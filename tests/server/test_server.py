"""A running server on loopback: it binds, serves each transport, ends, and survives what its tasks meet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from oncecast.errors import ConfigurationError
from oncecast.server import server as module
from oncecast.server.capacity import own_files
from oncecast.server.connection import Connection
from oncecast.server.machine import CHANNEL
from oncecast.server.phases import Phase
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings
from oncecast.wire.ws_connection import CloseReceived

if TYPE_CHECKING:
    from tests.server.conftest import Open, Site

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
SECONDS = 60.0  # what waits longer in these tests has failed


async def smoke(site: Site) -> None:
    """Publish once and receive it by each transport."""
    poll = b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
    long = await site.connect(b"GET /v1/channels/a?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    events = await site.sse("a")
    socket_ = await site.websocket("/v1/channels/a")
    raw = await site.websocket("/v1/channels/a", protocol=None)
    assert "subscribed" == (await socket_.frame())["type"]
    await site.until(lambda: site.server.node.hub.subscriptions == 4)
    publisher = await site.connect(
        b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    )
    answer = await publisher.answer()
    assert 201 == answer.status
    await publisher.send(poll)
    assert ["hello"] == [message["data"] for message in (await publisher.answer()).json["messages"]]
    assert ["hello"] == [message["data"] for message in (await long.answer()).json["messages"]]
    assert b"data: hello\n" in await events.until(b"data: hello\n")
    frame = await socket_.frame()
    assert ("message", "hello", answer.json["id"]) == (frame["type"], frame["data"], frame["id"])
    event: Any = await raw.event()
    assert (b"hello", True) == (event.data, event.is_text)
    await socket_.say(type="publish", channel="a", data=2, ref="r")
    kinds = {(await socket_.frame())["type"] for _ in range(2)}
    assert {"published", "message"} == kinds


def trust(certificate: tuple[str, str]) -> ssl.SSLContext:
    """Return a client's context that trusts this certificate alone."""
    return ssl.create_default_context(cafile=certificate[0])


# -- each transport, on each loop, with and without TLS


async def test_smoke(open_site: Open) -> None:
    """On the plain asyncio loop each transport delivers."""
    await asyncio.wait_for(smoke(await open_site()), SECONDS)


async def test_smoke_over_tls(open_site: Open, certificate: tuple[str, str]) -> None:
    """Over TLS each transport delivers as well."""
    cert, key = certificate
    site = await open_site(Settings(port=0, tls_cert=(cert,), tls_key=(key,)), tls=trust(certificate))
    await asyncio.wait_for(smoke(site), SECONDS)


@pytest.mark.parametrize("with_tls", [False, True])
def test_smoke_on_uvloop(certificate: tuple[str, str], with_tls: bool, make_site: Callable[..., Site]) -> None:
    """On uvloop each transport delivers, with and without TLS, and no callback raises."""
    cert, key = certificate
    faults: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        settings = Settings(port=0, tls_cert=(cert,), tls_key=(key,)) if with_tls else Settings(port=0)
        server = Server(settings)
        await server.start()
        site = make_site(server, trust(certificate) if with_tls else None)
        try:
            await asyncio.wait_for(smoke(site), SECONDS)
            while site.peers:
                site.peers.pop().close()
            await asyncio.wait_for(goodbyes(site), SECONDS)
        finally:
            for peer in site.peers:
                peer.close()
            await server.stop(1.0)

    uvloop.run(main())
    assert [] == faults


async def goodbyes(site: Site) -> None:
    """Stop the server under a subscriber of each transport, and read what each receives."""
    streams = await site.sse("b")
    socket_ = await site.websocket("/v1/channels/b")
    raw = await site.websocket("/v1/channels/b", protocol=None)
    await socket_.frame()
    long = await site.connect(b"GET /v1/channels/b?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle = await site.connect(HEALTH)
    await idle.answer()
    await site.until(lambda: any(getattr(c, "phase", None) is Phase.WAITING for c in site.server.app.connections))
    stopping = asyncio.create_task(site.server.stop())
    answer = await long.answer()
    assert (200, [], "close") == (answer.status, answer.json["messages"], answer.headers["connection"])
    assert (await streams.all()).endswith(b"0\r\n\r\n")
    assert "drain" == (await socket_.frame())["type"]
    for peer in (socket_, raw):
        event = await peer.event()
        assert isinstance(event, CloseReceived)
        assert 1012 == event.code
        await peer.send(peer.codec.data_to_send())
        assert b"" == await peer.all()
    assert b"" == await idle.all()
    for peer in site.peers:
        peer.close()
    await stopping


async def test_stopping_says_goodbye_on_each_transport(open_site: Open) -> None:
    """A stream ends whole, a WebSocket gets a Close, a long poll is answered, an idle connection closes."""
    await asyncio.wait_for(goodbyes(await open_site()), SECONDS)


async def test_stopping_says_goodbye_over_tls(open_site: Open, certificate: tuple[str, str]) -> None:
    """The same over TLS."""
    cert, key = certificate
    site = await open_site(Settings(port=0, tls_cert=(cert,), tls_key=(key,)), tls=trust(certificate))
    await asyncio.wait_for(goodbyes(site), SECONDS)


# -- starting and stopping


def _is_used(folder: Path) -> bool:
    """Return whether anything stands in a folder."""
    return any(folder.iterdir())


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Binding fails as the system says; it leaves no socket behind, and the log on disk has not been touched."""
    first = Server(Settings(port=0))
    await first.start()
    second = Server(Settings(port=first.port, broker=f"sqlite:///{tmp_path / 'log.db'}"))
    with pytest.raises(OSError, match="in use"):
        await second.start()
    assert not _is_used(tmp_path)
    await second.stop()
    await first.stop()
    third = Server(Settings(port=first.port))
    await third.start()
    await third.stop()


async def test_a_step_of_the_start_that_fails_undoes_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that can't start leaves the port free, and too few descriptors leave neither port nor broker open."""
    before = own_files()
    (tmp_path / "log.db").write_bytes(b"not a database" * 100)
    for name in ("log.db", "other.db"):
        server = Server(Settings(port=0, broker=f"sqlite:///{tmp_path / name}"))
        with pytest.raises(ConfigurationError):
            await server.start()
        monkeypatch.setattr(module, "own_files", lambda connections: 1 << 40)
        assert before == own_files()


async def test_a_host_that_is_none() -> None:
    """An address that is not this machine's can't be bound."""
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's own, in the system's words
        await Server(Settings(host="192.0.2.1", port=0)).start()


async def test_a_bad_certificate(tmp_path: Path, certificate: tuple[str, str]) -> None:
    """A certificate that can't be read, or is none, is a mistake in the settings, raised before anything is bound."""
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    for cert in (str(tmp_path / "missing.pem"), str(bad)):
        server = Server(Settings(port=0, tls_cert=(cert,), tls_key=(certificate[1],)))
        with pytest.raises(ConfigurationError, match=r"tls_cert: .* PEM"):
            await server.start()
        assert 0 == server.port


async def test_ipv6(open_site: Open) -> None:
    """An IPv6 address is bound as well."""
    site = await open_site(Settings(host="::1", port=0))
    reader, writer = await asyncio.open_connection("::1", site.server.port)
    writer.write(HEALTH)
    assert b"HTTP/1.1 200 OK\r\n" == await asyncio.wait_for(reader.readline(), SECONDS)
    writer.close()
    await writer.wait_closed()


async def test_stopping_cuts_connections_that_stay(open_site: Open) -> None:
    """A connection that is open at the deadline is cut, whatever it does."""
    site = await open_site()
    peer = await site.connect(b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    await site.until(lambda: bool(site.server.app.connections))
    await asyncio.wait_for(site.server.stop(0.05), SECONDS)
    assert b"" == await peer.all()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_was_just_accepted_ends_too(run: Callable[..., Any]) -> None:
    """A connection that is being accepted when the stop begins ends with the others."""

    async def scenario(turns: int) -> None:
        server = Server(Settings(port=0))
        await server.start()
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.create_task(server.stop())
            with contextlib.suppress(ConnectionResetError):
                assert b"" == await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 1), SECONDS)
        await asyncio.wait_for(stopping, SECONDS)
        assert set() == server.app.connections, f"{turns} turns"

    async def scenarios() -> None:  # at the same time, as each stop waits a second for the first request
        await asyncio.gather(*map(scenario, range(6)))

    run(scenarios())


async def test_stopping_takes_as_long_as_the_pace_asks_for(open_site: Open, caplog: pytest.LogCaptureFixture) -> None:
    """More subscribers than may leave in the time leave at the set pace all the same, and the log says what to set."""
    site = await open_site(Settings(port=0, limits=Limits(drain_per_second=4)))
    streams = [await site.sse("a") for _ in range(3)]
    began = asyncio.get_running_loop().time()
    stopping = asyncio.create_task(site.server.stop(0.2))
    ends = []
    for ended in asyncio.as_completed([peer.all() for peer in streams]):
        assert (await ended).endswith(b"0\r\n\r\n")
        ends.append(asyncio.get_running_loop().time() - began)
    assert ends[2] - ends[1] > 0.1
    for peer in site.peers:
        peer.close()
    await asyncio.wait_for(stopping, SECONDS)
    assert 1 == caplog.text.count("limits.drain_per_second = 4")


async def test_a_share_that_becomes_smaller_while_it_stops(open_site: Open) -> None:
    """A stop whose share becomes smaller takes longer, and says goodbye on each connection."""
    site = await open_site(Settings(port=0, limits=Limits(drain_per_second=100)))
    streams = [await site.sse("a") for _ in range(20)]
    began = asyncio.get_running_loop().time()
    stopping = asyncio.create_task(site.server.stop(0.1))
    await asyncio.sleep(0)
    site.server.pace(1 / 10)
    for ended in asyncio.as_completed([peer.all() for peer in streams]):
        assert (await ended).endswith(b"0\r\n\r\n")
    assert asyncio.get_running_loop().time() - began > 0.7
    for peer in site.peers:
        peer.close()
    await asyncio.wait_for(stopping, SECONDS)


async def test_stopping_a_server_that_nobody_asks(open_site: Open) -> None:
    """Without connections there is nothing to wait for; stopping twice is fine."""
    site = await open_site()
    await asyncio.wait_for(site.server.stop(), 1.0)
    await asyncio.wait_for(site.server.stop(), 1.0)


async def test_stopping_one_that_never_started() -> None:
    """A server that was only made can be stopped."""
    await Server(Settings(port=0)).stop()


async def test_a_tls_handshake_that_never_comes(open_site: Open, certificate: tuple[str, str]) -> None:
    """A client that connects to TLS and says nothing is cut off in the time of a head, and does not hold up the end."""
    cert, key = certificate
    site = await open_site(Settings(port=0, tls_cert=(cert,), tls_key=(key,), limits=Limits(head_seconds=0.3)))
    peer = await site.connect()
    assert b"" == await asyncio.wait_for(peer.all(), SECONDS)


@pytest.mark.parametrize("task", ["deadlines", "trimming the log"])
async def test_a_task_that_fails_fails_the_node(
    open_site: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """The process learns why, `/readyz` says it, and the stop does not wait for what the task would have done."""
    monkeypatch.setattr(module, "TRIM_SECONDS", 0.0)
    site = await open_site(Settings(port=0, limits=Limits(drain_per_second=1)))
    streams = [await site.sse("a") for _ in range(20)]
    probe = await site.connect()
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    site.server.node.on_failure = failed.set_result

    def fail() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(site.server.app if task == "deadlines" else site.server.node, "tick", fail)
    reason = await asyncio.wait_for(failed, SECONDS)
    assert f"a task of the server has failed (ZeroDivisionError: a defect): {task}" == reason
    assert "Traceback" in caplog.text
    await probe.send(HEALTH.replace(b"healthz", b"readyz"))
    assert reason in (await asyncio.wait_for(probe.answer(), SECONDS)).json["error"]["message"]
    if task == "deadlines":
        await asyncio.wait_for(site.server.stop(60), SECONDS)
        for stream in streams:
            await asyncio.wait_for(stream.all(), SECONDS)


async def test_a_reload_under_a_limit_that_is_too_low_changes_nothing(
    open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on as it was."""
    site = await open_site()
    before = site.server.app.admission.capacity
    monkeypatch.setattr(site.server, "_own_files", 1 << 40)
    with pytest.raises(ConfigurationError, match="ulimit -n"):
        site.server.reload(Settings(port=0, origins=("https://new.example",)))
    assert (before, ()) == (site.server.app.admission.capacity, site.server.settings.origins)


async def test_a_reload_with_a_certificate_that_is_refused_changes_nothing(
    open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of connections is that of the settings that hold, too."""

    class Refusing:
        def renew(self, settings: Settings) -> None:
            raise ConfigurationError("tls_cert: it is gone")

    site = await open_site()
    before = site.server.app.admission.capacity
    monkeypatch.setattr(site.server, "_tls", Refusing())
    with pytest.raises(ConfigurationError, match="tls_cert"):
        site.server.reload(Settings(port=0, limits=Limits(connections=7)))
    assert before == site.server.app.admission.capacity


async def test_the_log_is_trimmed(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server trims by age from time to time."""
    monkeypatch.setattr(module, "TRIM_SECONDS", 0.0)
    site = await open_site()
    trimmed = asyncio.Event()
    monkeypatch.setattr(site.server.node, "tick", trimmed.set)
    await asyncio.wait_for(trimmed.wait(), SECONDS)


# -- the demonstration


async def test_development_publishes_this_machines_load(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `dev` the start page has something to show: numbered samples, one after another."""
    monkeypatch.setattr(module, "SECONDS", 0.01)
    site = await open_site(Settings(port=0, dev=True))
    events = await site.sse(CHANNEL + "?after=earliest")
    for number in (1, 2, 3):
        await asyncio.wait_for(events.until(b'data: {"n":%d,' % number), SECONDS)


async def test_development_where_there_is_no_proc(
    open_site: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `/proc` the demonstration ends with one line in the log, and the server goes on."""

    class Nothing:
        def sample(self, monotonic: float, wall: float) -> None:
            raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(module, "Machine", Nothing)
    site = await open_site(Settings(port=0, dev=True))
    peer = await site.connect(HEALTH)
    assert 200 == (await asyncio.wait_for(peer.answer(), SECONDS)).status
    assert 1 == caplog.text.count("no machine load")


# -- real sockets that misbehave


async def test_streams_that_are_refused_keep_the_descriptor_whole(open_site: Open) -> None:
    """A stream that could not begin leaves the socket to the connection: others may not get its descriptor."""
    site = await open_site()
    peer = await site.connect()
    bad = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: x\r\n\r\n"
    for _ in range(3):
        await peer.send(bad)
        assert 400 == (await asyncio.wait_for(peer.answer(), SECONDS)).status
    others = [await site.connect(HEALTH) for _ in range(5)]
    assert [200] * 5 == [(await asyncio.wait_for(other.answer(), SECONDS)).status for other in others]
    await peer.send(b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    await asyncio.wait_for(peer.until(b"retry: 1000\n\n"), SECONDS)
    site.publish("a", b"here")
    await asyncio.wait_for(peer.until(b"data: here\n"), SECONDS)


async def test_a_slow_reader_gets_everything_in_order(open_site: Open) -> None:
    """A slow reader gets each message once and in order, when its socket has room."""
    site = await open_site()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", site.server.port))
    slow.sendall(b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    await site.until(lambda: site.server.node.hub.subscriptions == 1)
    count, size = 300, 20_000
    for number in range(count):
        site.publish("a", b"%06d" % number + b"x" * size)
        await asyncio.sleep(0)
    assert site.server.node.hub.counters.blocked >= 1
    reader, writer = await asyncio.open_connection(sock=slow)
    data = b""
    while data.count(b"\ndata: ") < count or not data.endswith(b"x\n\n\r\n"):
        data += await asyncio.wait_for(reader.read(1 << 20), SECONDS)
    writer.transport.abort()
    numbers = [int(piece[:6]) for piece in data.split(b"\ndata: ")[1:]]
    assert list(range(count)) == numbers


async def test_resets_of_every_kind(open_site: Open) -> None:
    """Peers that reset, whatever they were doing, leave nothing and raise nothing."""
    site = await open_site()
    requests = (
        b"",
        HEALTH,
        b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        b"GET /v1/channels/a?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1",
        b"nonsense\r\n\r\n",
    )
    for data in requests * 3:
        with contextlib.closing(socket.create_connection(("127.0.0.1", site.server.port))) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sendall(data)
            await asyncio.sleep(0.01)
        site.publish("a", b"x")
        await asyncio.sleep(0)
    await site.until(lambda: not site.server.app.connections)
    assert 0 == site.server.node.hub.subscriptions


async def test_a_reset_as_the_socket_takes_bytes_again(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that resets just before the answer behind a large one is written is lost once, and no callback raises.

    asyncio reports it twice where a protocol closes its transport in `resume_writing`.
    """
    site = await open_site(Settings(port=0, limits=Limits(message_bytes=1 << 20)))
    for _ in range(4):
        site.publish("a", b"x" * (1 << 20))  # more than the kernel's buffers take
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", site.server.port))
    await loop.sock_sendall(client, b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH)
    await site.until(lambda: any(c._full for c in site.server.app.connections))  # type: ignore[attr-defined]
    read = Connection._read

    def read_after_a_reset(connection: Connection) -> None:
        client.close()  # by `SO_LINGER` it is a reset
        read(connection)

    monkeypatch.setattr(Connection, "_read", read_after_a_reset)

    def read_on() -> bool:
        """Read what has come, and return whether the server has lost the connection."""
        with contextlib.suppress(OSError):  # it is closed
            while client.recv(1 << 16):
                pass
        return not site.server.app.connections

    await site.until(read_on)
    await asyncio.sleep(0)  # what is due now raises nothing: see `open_site`


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_small_writes_are_not_held_back(run: Callable[..., Any]) -> None:
    """TCP_NODELAY is set on what is accepted, on either loop: Nagle's algorithm would add a round trip to a message."""

    async def scenario() -> None:
        server = Server(Settings(port=0))
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"ok\n")
        (connection,) = server.app.connections
        transport = connection._transport  # type: ignore[attr-defined]
        option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert 0 != option
        writer.close()
        await server.stop()

    run(scenario())
