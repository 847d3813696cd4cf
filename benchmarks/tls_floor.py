"""The floor of a fan-out over TLS: a bare loop over `ssl.SSLSocket.send`, with as many bytes and peers as a server.

Run as `python -m benchmarks.tls_floor SUBSCRIBERS CERT KEY`. It does what `floor.c` does, with the same commands: it
accepts the subscribers and then a publisher, each of whose bytes starts a round.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import time
from pathlib import Path

import msgspec

__all__ = ["serve"]

REQUEST_BYTES = 64 << 10


class _Floor:
    def __init__(self, count: int, cert: str, key: str) -> None:
        self._count = count
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._greeting = self._block = b""
        self._peers: list[ssl.SSLSocket] = []
        self._sends = self._loop_ns = 0

    def run(self) -> None:
        """Serve until standard input or the publisher ends."""
        self._say({"port": self._listener.getsockname()[1]})
        while len(self._peers) <= self._count:
            if self._listener in select.select([sys.stdin, self._listener], [], [])[0]:
                self._welcome()
            elif not self._command():
                return
        publisher = self._peers.pop()
        while True:
            ready = select.select([sys.stdin, publisher], [], [])[0]
            if sys.stdin in ready and not self._command():
                return
            if publisher in ready:
                rounds = publisher.recv(64)
                if not rounds:
                    return
                for _ in rounds:
                    self._everybody()

    def _everybody(self) -> None:
        began = time.process_time_ns()
        block = self._block
        for peer in self._peers:
            while True:
                try:
                    peer.send(block)
                except ssl.SSLWantWriteError:
                    select.select([], [peer], [], 1.0)
                else:
                    break
        self._sends += len(self._peers)
        self._loop_ns += time.process_time_ns() - began

    def _welcome(self) -> None:
        accepted, _ = self._listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = self._context.wrap_socket(accepted, server_side=True)
        peer.recv(REQUEST_BYTES)
        peer.send(self._greeting)
        self._peers.append(peer)
        if len(self._peers) <= self._count:  # the publisher's socket waits for its bytes
            peer.setblocking(False)

    def _command(self) -> bool:
        line = sys.stdin.readline()
        name, _, path = line.strip().partition(" ")
        if name == "greeting":
            self._greeting = Path(path).read_bytes()
        elif name == "block":
            self._block = Path(path).read_bytes()
        if line:
            self._say({"sends": self._sends, "loop_ns": self._loop_ns})
        return bool(line)

    def _say(self, answer: object) -> None:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        sys.stdout.flush()


def serve(count: int, cert: str, key: str) -> None:
    """Serve `count` subscribers and a publisher."""
    _Floor(count, cert, key).run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
