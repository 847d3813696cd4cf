"""The notifications to systemd, and the sockets that it hands over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import oncecast
from oncecast.errors import ConfigurationError
from oncecast.server import run as run_module
from oncecast.server.process.systemd import Notifier, take_sockets
from oncecast.server.settings import Settings


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket that systemd listens on, and its address as it is put into the environment."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(name if request.param == "path" else f"\0{name}")
        yield sock, name if request.param == "path" else f"@{name}"


def test_the_notes(manager: tuple[socket.socket, str]) -> None:
    """Each note is one datagram of assignments; the environment is left without the address."""
    sock, address = manager
    environ = {"NOTIFY_SOCKET": address, "HOME": "/"}
    notifier = Notifier(environ)
    assert {"HOME": "/"} == environ
    notifier.ready("listening")
    assert b"READY=1\nSTATUS=listening" == sock.recv(1000)
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, _, microseconds = sock.recv(1000).partition(b"\nMONOTONIC_USEC=")
    assert b"RELOADING=1" == first
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    notifier.stopping("draining")
    assert b"STOPPING=1\nSTATUS=draining" == sock.recv(1000)
    notifier.alive()
    assert b"WATCHDOG=1" == sock.recv(1000)


@pytest.mark.parametrize(
    "environ, expected",
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 400}, 0.0),
        ({"WATCHDOG_USEC": "٣"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog(environ: dict[str, str], expected: float) -> None:
    """The watchdog's time is in seconds, and 0 where there is none or it watches another process."""
    assert expected == Notifier({"NOTIFY_SOCKET": "@x", **environ}).watchdog


def test_nobody_listens() -> None:
    """Without systemd, or with one that has gone, notes go nowhere and raise nothing."""
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready("x")
    assert 0.0 == Notifier({"WATCHDOG_USEC": "1000000"}).watchdog


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": "us"},
        {"LISTEN_FDS": "9" * 400, "LISTEN_PID": "us"},
    ],
)
def test_sockets_that_are_not_meant_for_us(environ: dict[str, str]) -> None:
    """Without both variables, or for another process, there are none; the variables are gone after."""
    if environ.get("LISTEN_PID") == "us":
        environ["LISTEN_PID"] = str(os.getpid())
    given = {**environ, "LISTEN_FDNAMES": "web"}
    assert [] == take_sockets(given)
    assert {} == given


# A process that stands where systemd would: it puts the sockets where they are looked for, and becomes the server.
STARTER = """
import os, socket, sys
host = sys.argv[1]
listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
print(listening.getsockname()[1], flush=True)
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)  # it may have been that one all along
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""
SERVER = """
import sys
from oncecast.server.run import run
from oncecast.server.settings import Settings
sys.exit(run(Settings(port=1, workers={workers})))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_socket_of_systemds_is_served(workers: int, tmp_path: Path) -> None:
    """The server listens where systemd does, whatever its own port is, and says when it is ready and when it stops."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(str(tmp_path / "notify"))
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, "127.0.0.1", SERVER.format(workers=workers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": source,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "60000000",
            },
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), 30) as early:  # before there is a server
                early.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert f"READY=1\nSTATUS=listening on port {port}".encode() == manager.recv(1000)
                assert b"WATCHDOG=1" == manager.recv(1000)
                assert early.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            process.terminate()
            assert b"STOPPING=1\nSTATUS=draining" == manager.recv(1000)
            assert 0 == process.wait(30)
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    "family, kind, address, message",
    [
        (socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 0), "systemd listens on 0.0.0.0, .* give --public"),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), "not of TCP"),
        (socket.AF_UNIX, socket.SOCK_STREAM, None, "not of TCP"),
    ],
)
def test_sockets_that_cant_be_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: int, kind: int, address: object, message: str
) -> None:
    """One that is not of TCP is refused, and one that others can reach where that was not asked for."""
    with socket.socket(family, kind) as sock:
        sock.bind(str(tmp_path / "s") if address is None else address)  # type: ignore[arg-type]
        monkeypatch.setattr(run_module, "take_sockets", lambda: [sock])
        with pytest.raises(ConfigurationError, match=message):
            run_module._from_systemd(Settings())
        if kind == socket.SOCK_STREAM and family == socket.AF_INET:
            assert [sock] == run_module._from_systemd(Settings(public=True))
