"""What every process of a server does alike, on either loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

import pytest

import oncecast
from oncecast.server.process.runtime import keep_alive
from oncecast.server.process.systemd import Notifier

SECONDS = 60
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Serves where files are few, and others than connections have taken most of them.
PROGRAM = """
import asyncio, os, resource, sys, time
if sys.argv[1] == "asyncio":
    sys.modules["uvloop"] = None
from oncecast.server.process.log import begin_log
from oncecast.server.process.runtime import run_loop
from oncecast.server.server import Server
from oncecast.server.settings import Settings

async def main():
    server = Server(Settings(port=0))
    await server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
    taken = []
    while len(taken) < 60 - 10 and max(taken, default=0) < 60 - 10:
        taken.append(os.dup(0))
    print(server.port, flush=True)
    began = time.process_time()
    await asyncio.to_thread(sys.stdin.readline)
    print(time.process_time() - began, flush=True)
    for descriptor in taken:
        os.close(descriptor)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop(0.1)

begin_log()
run_loop(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_a_free_descriptor_open_connections_are_served(loop: str) -> None:
    """No connection more can be accepted: that is one line with its cure, and neither a busy loop nor anybody's end."""
    source = os.path.dirname(os.path.dirname(oncecast.__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
            first.sendall(HEALTH)
            assert first.recv(1000).startswith(b"HTTP/1.1 200 ")
            for _ in range(40):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
            said = process.stderr.readline()
            assert "no connection can be accepted (Too many open files)" in said
            assert "ulimit -n" in said
            first.sendall(HEALTH)
            assert first.recv(1000).startswith(b"HTTP/1.1 200 ")
            process.stdin.write("\n")
            process.stdin.flush()
            assert float(process.stdout.readline()) < 1.0
        with socket.create_connection(("127.0.0.1", port), SECONDS) as later:
            later.sendall(HEALTH)
            assert later.recv(1000).startswith(b"HTTP/1.1 200 ")
        _, rest = process.communicate("\n", SECONDS)
        assert ("", 0) == (rest, process.returncode)
    finally:
        process.kill()
        process.communicate()


async def test_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog hears of us twice as often as it asks for; without one nothing is sent, and the task ends."""
    notifier = Notifier({})
    await keep_alive(notifier)
    signs: list[float] = []
    notifier.watchdog = 20.0
    monkeypatch.setattr(notifier, "alive", lambda: signs.append(0))

    async def sleep(seconds: float) -> None:
        signs.append(seconds)
        if len(signs) == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await keep_alive(notifier)
    assert [0, 10.0] * 3 == signs
