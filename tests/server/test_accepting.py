"""Accepting where connections or descriptors run out, with real processes and sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import oncecast
from oncecast.server.capacity import RESERVE, Capacity
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 60.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
READY = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42"
SSE = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
PROXIED = b"PROXY TCP4 192.0.2.1 192.0.2.1 1 2\r\n"
TURNS = 12  # of the loop: from a connect to an open connection there are about six


class Process:
    """`oncecast serve` with a log on disk, in a process of its own that may open `files` files."""

    def __init__(self, folder: Path, files: int, *options: str) -> None:
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        self._process = subprocess.Popen(
            ["prlimit", f"--nofile={files}", sys.executable, "-m", "oncecast", "serve", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": source},
        )
        self.port = 0
        self.log = ""
        assert self._process.stderr is not None
        while self.port == 0 and (line := self._process.stderr.readline()):
            self.log += line
            if found := re.search(r"listening on http://.*:(\d+)$", line):
                self.port = int(found[1])

    def descriptors(self) -> int:
        """Return how many files the process has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def end(self) -> int:
        """Stop it; returns its exit status. `log` is whole then."""
        self._process.terminate()
        self.log += self._process.communicate(timeout=SECONDS)[1]
        return self._process.returncode


def connect(port: int, data: bytes = b"") -> socket.socket:
    """Open a connection and send some bytes."""
    sock = socket.create_connection(("127.0.0.1", port), SECONDS)
    if data:
        sock.sendall(data)
    return sock


def ask(port: int, data: bytes) -> bytes:
    """Send a request on a connection of its own, and return all that comes until the server closes or resets."""
    answer = b""
    with connect(port, data) as sock, contextlib.suppress(ConnectionError):
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(1 << 16):
            answer += piece
    return answer


@contextlib.contextmanager
def crowd(port: int, streams: int, idle: int) -> Iterator[list[socket.socket]]:
    """Hold streams, and then connections that say nothing and do not close."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(streams):
            sock = stack.enter_context(contextlib.closing(connect(port, SSE)))
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
            held.append(sock)
        for _ in range(idle):
            stack.enter_context(contextlib.closing(connect(port)))
        yield held


def test_a_full_server_holds_no_more_than_its_reserve(tmp_path: Path) -> None:
    """600 connections at once on one with `limits.connections = 10`: bounded, and publishes and probes go on."""
    (tmp_path / "oncecast.toml").write_text("[limits]\nconnections = 10\n")
    process = Process(tmp_path, 1024)
    own = process.descriptors()
    try:
        with crowd(process.port, 10, 600) as streams:
            for request in (POST, READY, HEALTH, METRICS):
                assert ask(process.port, request).startswith(b"HTTP/1.1 20"), request
            assert process.descriptors() <= own + 10 + RESERVE + 8
            answer = ask(process.port, SSE)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in answer
            heard = b""
            while b"data: 42\n" not in heard:
                heard += streams[0].recv(1000)
    finally:
        status = process.end()
    assert 0 == status
    assert "Too many open files" not in process.log


@pytest.mark.parametrize("files", [64, 100])
def test_few_descriptors_leave_a_working_server(tmp_path: Path, files: int) -> None:
    """The server says how many connections fit; past these it has descriptors for its log on disk and for probes."""
    process = Process(tmp_path, files)
    try:
        room = re.search(r"room for (\d+) connections, and (\d+) more", process.log)
        assert room is not None, process.log
        with crowd(process.port, int(room[1]), 3 * files):
            for _ in range(5):
                for request in (POST, READY, METRICS):
                    assert ask(process.port, request).startswith(b"HTTP/1.1 20"), request
                assert ask(process.port, SSE).startswith(b"HTTP/1.1 503 ")
            assert process.descriptors() < files
    finally:
        status = process.end()
    assert 0 == status
    assert "Too many open files" not in process.log


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_too_few_descriptors_are_a_clear_error(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The server does not start, and says what to raise."""
    process = Process(tmp_path, 30, *options)
    assert 0 == process.port
    assert process.end() > 0
    assert "ulimit -n" in process.log
    assert "Traceback" not in process.log


# -- in this process


async def test_a_full_server_says_so_over_tls(open_site: Open, certificate: tuple[str, str]) -> None:
    """There is no answer without a handshake, so a full server makes a few: `tls/test_farewells.py` has the others."""
    cert, key = certificate
    site = await open_site(
        Settings(port=0, tls_cert=(cert,), tls_key=(key,)), tls=ssl.create_default_context(cafile=cert)
    )
    site.server.app.admission.capacity = Capacity(0, 0)
    peer = await site.connect(HEALTH)
    assert (await peer.until(b"}")).startswith(b"HTTP/1.1 503 ")


async def test_a_handshake_that_fails_gives_its_place_back(open_site: Open, certificate: tuple[str, str]) -> None:
    """A connection that does not speak TLS frees its place as soon as that is seen."""
    cert, key = certificate
    site = await open_site(
        Settings(port=0, tls_cert=(cert,), tls_key=(key,)), tls=ssl.create_default_context(cafile=cert)
    )
    site.server.app.admission.capacity = Capacity(1, 0)
    for _ in range(3):
        with connect(site.server.port, HEALTH) as sock:
            sock.setblocking(False)
            with contextlib.suppress(ConnectionError):
                while await asyncio.get_running_loop().sock_recv(sock, 1000):
                    pass
    peer = await site.connect(HEALTH)
    assert 200 == (await asyncio.wait_for(peer.answer(), SECONDS)).status


async def test_a_silent_handshake_gives_way(open_site: Open, certificate: tuple[str, str]) -> None:
    """On a full server a new connection has the place of the oldest handshake that is under way."""
    cert, key = certificate
    site = await open_site(
        Settings(port=0, tls_cert=(cert,), tls_key=(key,)), tls=ssl.create_default_context(cafile=cert)
    )
    site.server.app.admission.capacity = Capacity(0, 1)
    with connect(site.server.port) as silent:
        silent.setblocking(False)
        peer = await asyncio.wait_for(site.connect(HEALTH), SECONDS)
        assert 200 == (await asyncio.wait_for(peer.answer(), SECONDS)).status
        with contextlib.suppress(ConnectionError):
            assert b"" == await asyncio.wait_for(asyncio.get_running_loop().sock_recv(silent, 1), SECONDS)


async def test_a_handshake_that_does_not_end_does_not_hold_up_the_stop(
    open_site: Open, certificate: tuple[str, str]
) -> None:
    """A connection that is still being opened when the server stops is cut."""
    cert, key = certificate
    site = await open_site(Settings(port=0, tls_cert=(cert,), tls_key=(key,), limits=Limits(head_seconds=600)))
    with connect(site.server.port) as sock:
        sock.setblocking(False)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(site.server.stop(0.1), SECONDS)
        with contextlib.suppress(ConnectionError):
            assert b"" == await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), SECONDS)


async def test_accepting_pauses_where_no_descriptor_is_left(open_site: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Connections that wait for a descriptor are accepted later, with one line in the log and an idle loop."""
    site = await open_site()
    early = await site.connect(HEALTH)
    assert 200 == (await early.answer()).status
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        late = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(sock.fileno() for sock in late) + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):  # noqa: PT012 - until none is left
            while True:
                stack.callback(os.close, os.dup(0))
        for sock in late:
            sock.connect(("127.0.0.1", site.server.port))
            sock.setblocking(False)
            sock.sendall(HEALTH)
        began = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - began < 0.25
        await early.send(HEALTH)
        assert 200 == (await early.answer()).status
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in late:
            received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1000), SECONDS)
            assert received.startswith(b"HTTP/1.1 200 ")
    assert 1 == caplog.text.count("no connection can be accepted (Too many open files)")


async def test_a_stop_while_accepting_is_paused(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause ends with the server, and nothing is accepted after it."""
    site = await open_site()
    acceptor = site.server._acceptor
    assert acceptor is not None
    acceptor._pause_accepting(OSError(24, "Too many open files"))
    await asyncio.wait_for(site.server.stop(0.1), SECONDS)
    await asyncio.sleep(0.3)
    with pytest.raises(ConnectionRefusedError):
        connect(site.server.port)


async def test_a_defect_while_a_connection_opens_costs_that_connection_alone(
    open_site: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect while a connection opens is logged, frees the place, and leaves the next connection alone."""
    site = await open_site()
    site.server.app.admission.capacity = Capacity(1, 0)
    loop = asyncio.get_running_loop()

    async def fail(*args: object, **options: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "connect_accepted_socket", fail)
        assert b"" == await asyncio.wait_for((await site.connect()).all(), SECONDS)
    peer = await site.connect(HEALTH)
    assert 200 == (await asyncio.wait_for(peer.answer(), SECONDS)).status
    assert "a defect" in caplog.text


@contextlib.asynccontextmanager
async def one_place() -> AsyncIterator[Server]:
    """Run a server behind a proxy that has a place for one connection, and takes one from each address."""
    limits = Limits(connections_per_address=1, head_seconds=600)
    server = Server(Settings(port=0, proxy_protocol=True, trusted_proxies=("127.0.0.1",), limits=limits))
    await server.start()
    server.app.admission.capacity = Capacity(1, 0)
    try:
        yield server
    finally:
        await server.stop(0.1)


async def pass_turns(turns: int) -> None:
    """Let the loop take as many turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def has_place(server: Server) -> None:
    """Wait until the next connection may have a place."""
    while server.app.admission.full:  # noqa: ASYNC110 - no event is set for that
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_is_cut_while_it_opens_gives_its_place_back(run: Callable[..., Any]) -> None:
    """A place, and the count of an address, are free again whenever another connection comes to a full server."""

    async def scenarios() -> None:
        loop = asyncio.get_running_loop()
        async with one_place() as server:
            for turns in range(TURNS):
                with connect(server.port, PROXIED):
                    await pass_turns(turns)
                    with connect(server.port, PROXIED):
                        await pass_turns(TURNS)
                await asyncio.wait_for(has_place(server), SECONDS)
                with connect(server.port, PROXIED + HEALTH) as peer:
                    peer.setblocking(False)
                    answer = await asyncio.wait_for(loop.sock_recv(peer, 1000), SECONDS)
                    assert answer.startswith(b"HTTP/1.1 200 "), f"{turns} turns: {answer!r}"
                await asyncio.wait_for(has_place(server), SECONDS)

    run(scenarios())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_opens_when_the_others_are_cut_ends_too(run: Callable[..., Any]) -> None:
    """A connection is given up or opens when the acceptor gives up, and a stop leaves neither behind."""

    async def scenario(turns: int) -> None:
        async with one_place() as server:
            with connect(server.port, PROXIED) as peer:
                peer.setblocking(False)
                await pass_turns(turns)
                assert server._acceptor is not None
                await server._acceptor.cancel()
                await asyncio.wait_for(server.stop(0.0), SECONDS)
                assert set() == server.app.connections, f"{turns} turns"
                assert not server.app.admission.full, f"{turns} turns"

    async def scenarios() -> None:
        await asyncio.gather(*map(scenario, range(TURNS)))

    run(scenarios())


def test_the_metric_counts_those_turned_away(tmp_path: Path) -> None:
    """`connections_turned_away` has each connection that was answered 503 as the server was full."""
    (tmp_path / "oncecast.toml").write_text("[limits]\nconnections = 1\n")
    process = Process(tmp_path, 1024)
    try:
        with crowd(process.port, 1, 0):
            refused = [ask(process.port, SSE) for _ in range(3)]
            assert {"unavailable"} == {
                json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] for answer in refused
            }
            assert b"oncecast_connections_turned_away_total 3.0\n" in ask(process.port, METRICS)
    finally:
        process.end()
