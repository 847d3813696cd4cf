"""The server's own log is written by a thread: nobody who logs waits for who reads."""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import oncecast
from oncecast.server.logs import writer
from oncecast.server.logs.handler import LineHandler

SECONDS = 60
SERVE = [sys.executable, "-m", "oncecast", "serve", "--broker", "sqlite:///log.db", "--port"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(oncecast.__file__))}


@pytest.fixture
def full_pipe(pipe: tuple[int, int]) -> tuple[int, int]:
    """A pipe that takes no byte more."""
    os.set_blocking(pipe[1], False)
    for piece in (b"." * 4096, b"."):
        try:
            while True:
                os.write(pipe[1], piece)
        except BlockingIOError:
            pass
    os.set_blocking(pipe[1], True)
    return pipe


def warn(handler: LineHandler, text: str, *arguments: object) -> None:
    """Log a warning."""
    handler.handle(logging.LogRecord("n", logging.WARNING, "", 0, text, arguments, None))


def take(descriptor: int, mark: bytes) -> bytes:
    """Read up to a mark."""
    got = b""
    while mark not in got:
        assert select.select([descriptor], [], [], SECONDS)[0], got[-2000:]
        got += os.read(descriptor, 1 << 16)
    return got


def test_lines_in_order(pipe: tuple[int, int]) -> None:
    """Of any characters and arguments; what can't be formatted is said, and raises nothing."""
    handler = LineHandler(pipe[1])
    warn(handler, "one")
    handler.say("two\nthree")
    warn(handler, "f\udc80 %s", "ü")
    warn(handler, "five %d", "x")
    handler.close()
    said = os.read(pipe[0], 1 << 16).decode()
    assert "one\ntwo\nthree\nf\\udc80 ü\na line of n could not be formatted: 'five %d'\n" == said


def test_nobody_reads(full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines past the bound are counted, and said once there is room; the end has a deadline."""
    monkeypatch.setattr(writer, "HELD_BYTES", 1000)
    handler = LineHandler(full_pipe[1])
    for _ in range(30):
        warn(handler, "x" * 99)
    assert 20 == handler.dropped
    handler._writer.end(0)
    said = take(full_pipe[0], (b"x" * 99 + b"\n") * 9)  # the first stands before what tells of the others
    assert 10 == said.count(b"x" * 99)
    assert 1 == said.count(b"20 lines of this log were dropped, as nobody took them")


def test_the_end_does_not_wait_for_ever(full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process ends although nobody reads its last lines."""
    joined: list[float | None] = []
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: joined.append(timeout))
    handler = LineHandler(full_pipe[1])
    warn(handler, "x")
    handler.close()
    assert [writer.CLOSE_SECONDS] == joined
    monkeypatch.undo()
    take(full_pipe[0], b"x\n")


def test_a_crash_is_printed(pipe: tuple[int, int]) -> None:
    """The exception that ends a process in development is on standard error, whole and behind the earlier lines."""
    program = (
        "import logging; from oncecast.server.process.log import begin_log;"
        "from oncecast.server.settings import Settings; begin_log(None, Settings(dev=True));"
        "logging.getLogger('n').warning('logged'); raise OSError('it has crashed')"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=SECONDS)
    assert 1 == done.returncode
    logged, _, crash = done.stderr.partition(b"WARNING n: logged\n")
    assert b"\n" not in logged
    assert crash.startswith(b"Traceback")
    assert crash.endswith(b"\nOSError: it has crashed\n")


def ask(port: int, data: bytes) -> bytes:
    """Return what a server answers, once it listens; it closes."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), SECONDS) as peer:
                peer.sendall(data)
                got = b""
                while piece := peer.recv(1 << 16):
                    got += piece
                return got
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers, read", [("1", False), ("2", True)], ids=["one, never read", "two, read later"])
def test_a_server_whose_standard_error_is_full(
    full_pipe: tuple[int, int], tmp_path: Path, workers: str, read: bool
) -> None:
    """A server whose standard error is full serves and stops, and all its lines come once somebody reads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = subprocess.Popen(
        [*SERVE, str(port), "--workers", workers], stderr=full_pipe[1], env=ENVIRONMENT, cwd=tmp_path
    )
    try:
        head = b" /v1/channels/a HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
        for _ in range(3):
            assert ask(port, b"POST" + head).startswith(b"HTTP/1.1 201 ")
        serving.terminate()
        if read:
            take(full_pipe[0], b"stopped: pid %d\n" % serving.pid)
        assert 0 == serving.wait(SECONDS)
    finally:
        serving.kill()
        serving.wait(SECONDS)
