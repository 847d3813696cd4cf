"""The process: it says where it listens, ends at a signal, and leaves nobody without a goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oncecast
from oncecast.errors import ConfigurationError
from oncecast.server import listening
from oncecast.server import run as module
from oncecast.server.process.supervisor import Supervisor
from oncecast.server.run import run
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.wire.ws_connection import CloseReceived, Role, WebSocketConnection

if TYPE_CHECKING:
    from tests.server.conftest import Answer

SECONDS = 60  # a process that takes longer has failed
PROGRAM = (
    "import sys; from oncecast.server.run import run; from oncecast.server.settings import Settings; "
    "sys.exit(run(Settings(port=0)))"
)
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; " + PROGRAM

LOGGED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO oncecast\.server: "

Start = Callable[[str], tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server's process, and end it whatever happens."""
    running: list[subprocess.Popen[str]] = []

    def start(program: str) -> tuple[subprocess.Popen[str], int]:
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error"}
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.fullmatch(rf"{LOGGED}oncecast .* is listening on http://127\.0\.0\.1:(\d+)\n", line)
        if match is None:
            process.kill()
            pytest.fail(line + process.stderr.read())
        return process, int(match[1])

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def connect(port: int, data: bytes, *, until: bytes) -> tuple[socket.socket, bytes]:
    """Send bytes on a new connection and read up to a mark; returns what came after it too."""
    peer = socket.create_connection(("127.0.0.1", port), SECONDS)
    peer.sendall(data)
    got = b""
    while until not in got:
        piece = peer.recv(65536)
        assert piece, got
        got += piece
    return peer, got.partition(until)[2]


def rest(peer: socket.socket, got: bytes = b"") -> bytes:
    """Read until the server closes."""
    while piece := peer.recv(65536):
        got += piece
    return got


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [PROGRAM, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
def test_a_signal_ends_the_process_and_every_subscriber_hears_of_it(
    start: Start, parse: Callable[[bytes], Answer], upgrade: Callable[..., bytes], number: signal.Signals, program: str
) -> None:
    """Exit status 0 and the reason in the log; a stream ends whole, a WebSocket and a long poll are answered."""
    process, port = start(program)
    with contextlib.ExitStack() as stack:
        end = b"retry: 1000\n\n\r\n"
        sse, _ = connect(
            port, b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", until=end
        )
        v1, first = connect(port, upgrade("/v1/channels/a"), until=b"\r\n\r\n")
        raw, second = connect(port, upgrade("/v1/channels/a", protocol=None), until=b"\r\n\r\n")
        # The answer before it shows that the long poll behind it has been read.
        poll = b"GET /v1/channels/a?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        long, third = connect(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + poll, until=b"ok\n")
        for peer in (sse, v1, raw, long):
            stack.enter_context(peer)
        process.send_signal(number)
        assert b"d\r\nretry: 1000\n\n\r\n0\r\n\r\n" == rest(sse)
        answer = parse(rest(long, third))
        assert (200, [], "close") == (answer.status, answer.json["messages"], answer.headers["connection"])
        assert "1" == answer.headers["retry-after"]
        for peer, got, types in ((v1, first, ["subscribed", "drain"]), (raw, second, [])):
            codec = WebSocketConnection(Role.CLIENT)
            events: list[Any] = codec.receive(got)
            while not (events and isinstance(events[-1], CloseReceived)):
                events += codec.receive(peer.recv(65536))
            assert types == [re.findall(rb'"type":"(\w+)"', event.data)[0].decode() for event in events[:-1]]
            assert 1012 == events[-1].code
            peer.sendall(codec.data_to_send())
            assert b"" == rest(peer)
    assert 0 == process.wait(SECONDS)
    assert process.stderr is not None
    said = process.stderr.read()
    expected = rf"{LOGGED}stopping: {number.name} was received\n{LOGGED}stopped: pid {process.pid}\n"
    assert re.fullmatch(expected, said), said


@pytest.mark.parametrize("program", [PROGRAM, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
def test_a_second_signal_cuts_open_connections(start: Start, program: str) -> None:
    """Subscribers have their time to leave; an impatient second signal takes it from them, and the end is clean."""
    process, port = start(program)
    healthy = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    stays, _ = connect(
        port, healthy + b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", until=b"ok\n"
    )
    leaves, _ = connect(port, healthy, until=b"ok\n")
    with stays, leaves:
        process.send_signal(signal.SIGINT)
        assert b"" == rest(leaves)  # so the first signal has been heard
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(ConnectionResetError):
            assert b"" == rest(stays)
    assert 0 == process.wait(SECONDS / 2)
    assert process.stderr is not None
    first, second, last = process.stderr.read().splitlines()
    assert ("stopping: SIGINT was received", "stopping now: SIGINT was received") == (
        re.sub(LOGGED, "", first),
        re.sub(LOGGED, "", second),
    )
    assert f"stopped: pid {process.pid}" == re.sub(LOGGED, "", last)


# -- in this process


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)


@pytest.fixture
def stop_at_once(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Signal the process as soon as its server has started; lists the loops that ran."""
    loops: list[Any] = []
    begin = Server.start

    async def start_and_signal(self: Server) -> None:
        await begin(self)
        loops.append(asyncio.get_running_loop())
        loops[-1].call_soon(os.kill, os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Server, "start", start_and_signal)
    return loops


def test_it_runs_on_uvloop(
    stop_at_once: list[Any], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where uvloop is installed it is used; the address goes to the log, and nothing to standard output."""
    caplog.set_level(logging.INFO)
    assert 0 == run(Settings(port=0))
    assert type(stop_at_once[0]).__module__.startswith("uvloop")
    shown = capsys.readouterr()
    assert ("", "") == (shown.out, shown.err)
    assert "listening on http://127.0.0.1:" in caplog.text


def test_two_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that never ends would hold up the end for `drain_seconds`; the second signal cuts it off."""
    begin, end = Server.start, Server.stop
    peer = socket.socket()
    begun: list[Any] = []

    async def start_and_signal(self: Server) -> None:
        await begin(self)
        peer.connect(("127.0.0.1", self.port))
        peer.sendall(b"GET / HTTP/1.1\r\n")
        make = self.app.admit

        def admit(connection: Any) -> Any:
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            return make(connection)

        monkeypatch.setattr(self.app, "admit", admit)

    async def stop_and_signal(self: Server, seconds: float) -> None:
        begun.append(seconds)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await end(self, seconds)

    monkeypatch.setattr(Server, "start", start_and_signal)
    monkeypatch.setattr(Server, "stop", stop_and_signal)
    assert 0 == run(Settings(port=0))
    assert [30.0] == begun
    with peer, contextlib.suppress(ConnectionResetError):
        assert b"" == peer.recv(10)


def test_it_runs_without_uvloop(stop_at_once: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no uvloop, asyncio's own loop does."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert 0 == run(Settings(port=0))
    assert type(stop_at_once[0]).__module__.startswith("asyncio")


def test_development_shows_the_first_steps(stop_at_once: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """With `dev` a person sees what to type next, with the address in it."""
    assert 0 == run(Settings(port=0, dev=True))
    shown = capsys.readouterr().err
    assert 1 == len(stop_at_once)
    assert 4 == len(re.findall(r"http://127\.0\.0\.1:\d+", shown))
    assert "curl -N" in shown
    assert "Ctrl-C" in shown


def test_a_port_in_use_is_the_systems_error() -> None:
    """Where the address can't be had, `run` raises what the system says."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match=r".") as raised:
            run(Settings(port=taken.getsockname()[1]))
    assert errno.EADDRINUSE == raised.value.errno


def test_a_port_in_use_leaves_no_files(tmp_path: Path) -> None:
    """The address is bound before the broker makes its files."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            run(Settings(port=taken.getsockname()[1], broker=f"sqlite:///{tmp_path}/a.db"))
    assert [] == list(tmp_path.iterdir())


def test_a_server_that_can_not_be_built_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sockets that were bound before are closed."""
    bound = listening.bind("127.0.0.1", 0)
    monkeypatch.setattr(module, "bind", lambda host, port: bound)

    def fail(*args: object, **options: object) -> None:
        raise ConfigurationError("no such broker")

    monkeypatch.setattr(module, "Server", fail)
    with pytest.raises(ConfigurationError):
        run(Settings(port=0))
    assert [-1] == [sock.fileno() for sock in bound]


# -- signals about a server that serves


def test_sighup_reads_the_settings_again(tmp_path: Path, start: Start) -> None:
    """New limits hold at once, on a connection that was there; SIGUSR2 says what it would take."""
    file = tmp_path / "o.toml"
    file.write_text("port = 0\ndev = false\nbroker = 'memory://'\n")
    program = (
        "import sys, pathlib; from oncecast.server import config; from oncecast.server.run import run; "
        f"read = lambda: config.load(file=pathlib.Path({str(file)!r}), environ={{}}, flags={{}}).settings; "
        "sys.exit(run(read(), read))"
    )
    process, port = start(program)
    assert process.stderr is not None
    post = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n1234"
    peer, _ = connect(port, post, until=b"201 Created")
    with peer:
        file.write_text("port = 0\nbroker = 'memory://'\n[limits]\nmessage_bytes = 3\n")
        process.send_signal(signal.SIGHUP)
        assert "the settings have been read again" in process.stderr.readline()
        peer.sendall(post)
        got = b""
        while b"413 " not in got:
            got += peer.recv(65536)
        file.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        assert "the settings stay as they were" in process.stderr.readline()
        process.send_signal(signal.SIGUSR2)
        assert "set workers to 2 or more" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest(peer)
    assert 0 == process.wait(SECONDS)


EARLY = """
import os, signal, sys
from oncecast.server import run as module
from oncecast.server.settings import Settings

begin = module.{class_name}.start

async def start(self):
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR2)
    await begin(self)

module.{class_name}.start = start
sys.exit(module.run(Settings(port=0, workers={workers}), lambda: Settings(port=0, workers={workers}, deflate=True)))
"""


@pytest.mark.parametrize(
    "workers, class_name, rolled", [(1, "Server", "set workers to 2"), (2, "Supervisor", "rolling")]
)
def test_a_signal_that_comes_too_early_is_obeyed_later(
    start: Start, workers: int, class_name: str, rolled: str
) -> None:
    """SIGHUP and SIGUSR2 do not end a process that has not begun to serve: it obeys them once it does."""
    process, _ = start(EARLY.format(class_name=class_name, workers=workers))
    assert process.stderr is not None
    assert "the settings have been read again" in process.stderr.readline()
    assert rolled in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(SECONDS)


def test_a_terminal_that_was_closed_ends_it(start: Start) -> None:
    """SIGHUP from a closed terminal ends the server instead of reading its settings again."""
    leader, follower = os.openpty()
    source = os.path.dirname(os.path.dirname(oncecast.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=follower,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    try:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        os.close(leader)
        assert 0 == process.wait(SECONDS)
        assert "stopping: the terminal was closed" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_certificate_is_reported_once(tmp_path: Path, workers: int) -> None:
    """With workers it is found before any of them is started."""
    missing = str(tmp_path / "none.pem")
    with pytest.raises(ConfigurationError, match=r"tls_cert: .*none\.pem: No such file"):
        run(Settings(port=0, workers=workers, tls_cert=(missing,), tls_key=(missing,)))


def test_a_signal_while_the_workers_are_started_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A signal during the start of the workers ends them. The server says that it ends, not that it serves."""
    begin = Supervisor._start

    async def start_and_signal(self: Supervisor, slot: Any) -> Any:
        child = await begin(self, slot)
        os.kill(os.getpid(), signal.SIGTERM)
        return child

    monkeypatch.setattr(Supervisor, "_start", start_and_signal)
    caplog.set_level(logging.INFO, "oncecast")
    assert 0 == run(Settings(port=0, workers=2))
    assert "listening" not in caplog.text
    assert f"stopped: pid {os.getpid()}" == caplog.messages[-1]
