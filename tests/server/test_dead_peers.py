"""Peers that die without a word: their line goes down, and nothing they could send arrives any more.

In network namespaces, as on loopback no peer can vanish: the kernel always answers for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import oncecast

SECONDS = 60

# Runs in a network of its own. Its peers stand in another one, at the end of a cable that is then pulled.
PROGRAM = """
import asyncio, json, subprocess, sys
from oncecast.message import Draft, Kind
from oncecast.server.process.runtime import run_loop
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

HEARTBEAT = 0.5
REQUESTS = {
    "sse": "GET /v1/channels/a HTTP/1.1\\r\\nHost: localhost\\r\\nAccept: text/event-stream\\r\\n\\r\\n",
    "websocket": "GET /v1/channels/a HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\n"
    "Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n",
}
PEER = '''
import socket, sys
peer = socket.create_connection(("10.11.12.1", int(sys.argv[1])))
peer.sendall(sys.argv[2].encode())
print(peer.recv(16).decode(), flush=True)
while sys.argv[3] == "reads" and (data := peer.recv(65536)):
    if b"\\\\x89" in data:  # the ping of a heartbeat
        peer.sendall(b"\\\\x8a\\\\x80mask")
sys.stdin.read()
'''

def call(*command):
    subprocess.run(command, check=True, timeout=20)

async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)

async def main():
    transport, habit, port_of_nobody = sys.argv[1], sys.argv[2], 0
    call("ip", "link", "set", "lo", "up")
    there = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    there.stdout.readline()  # it is in its own network now
    within = ["nsenter", f"--net=/proc/{there.pid}/ns/net"]
    call("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(there.pid))
    call("ip", "address", "add", "10.11.12.1/24", "dev", "here")
    call("ip", "link", "set", "here", "up")
    call(*within, "ip", "address", "add", "10.11.12.2/24", "dev", "there")
    call(*within, "ip", "link", "set", "there", "up")
    limits = Limits(heartbeat_seconds=HEARTBEAT)
    server = Server(Settings(host="10.11.12.1", port=0, public=True, limits=limits))
    await server.start()
    peer = subprocess.Popen(
        [*within, sys.executable, "-c", PEER, str(server.port), REQUESTS[transport], habit],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    print(await asyncio.to_thread(peer.stdout.readline), file=sys.stderr)
    loop = asyncio.get_running_loop()
    hub = server.node.hub
    if habit == "reads":
        await asyncio.sleep(4 * HEARTBEAT)  # one that lives is not taken for dead
    else:
        while not hub.counters.blocked:
            server.node.publish([Draft("a", b"x" * 100_000, Kind.TEXT)], lambda outcomes: None)
            await asyncio.sleep(0)
    lived = len(server.app.connections)
    call(*within, "ip", "link", "set", "there", "down")
    pulled = loop.time()
    await asyncio.wait_for(until(lambda: not server.app.connections), 20)
    print(json.dumps({"lived": lived, "heartbeats": (loop.time() - pulled) / HEARTBEAT, "left": hub.subscriptions}))
    peer.kill()
    there.kill()
    await server.stop(0.1)

run_loop(main())
"""


def run(transport: str, habit: str) -> dict[str, Any]:
    """Run the program in namespaces that this user may have, and return what it found."""
    rights = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    source = os.path.dirname(os.path.dirname(oncecast.__file__))
    done = subprocess.run(
        ["unshare", *rights, "--net", sys.executable, "-c", PROGRAM, transport, habit],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize("habit", ["reads", "stalls"])
def test_a_dead_peer_is_found_by_what_it_does_not_take(transport: str, habit: str) -> None:
    """Two heartbeats after it was last heard of it is gone, also where its socket is full; it is not taken for slow.

    Between two heartbeats nothing is sent that could be missed, so from the cable's end it can be three.
    """
    found = run(transport, habit)
    assert (1, 0) == (found["lived"], found["left"])
    assert found["heartbeats"] < 6  # the kernel's own patience is 15 minutes; the machine's load is not ours
