"""What the tests of the commands share: a fake server, and a call of a command in this process or in its own."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result

from oncecast.cli.commands import commands

SECONDS = 60  # for a process to do what it is about to do anyway


CODES = {403: "forbidden", 429: "too_many_requests", 503: "overloaded"}


class Fake(ThreadingHTTPServer):
    """A server that acknowledges what is posted, and answers each GET with the next of `streams`, then holds it.

    `statuses` are for the next posts, before `status`; `refused` has the codes of batch lines by their data's JSON;
    `answer` replaces the body of the answer to a post. A GET for JSON is answered with the next of `polls`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        self.streams: list[bytes] = []
        self.asked: list[str] = []
        self.polls: list[dict[str, object]] = []
        self.status = 201
        self.statuses: list[int] = []
        self.refused: dict[str, str] = {}
        self.acked = 0
        self.answer = ""
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_POST(self) -> None:
        """Acknowledge with ids e-1, e-2 …, or refuse with the status."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.posted.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status = server.statuses.pop(0) if server.statuses else server.status
        if server.answer:
            answer = server.answer
        elif status != 201:
            answer = json.dumps({"error": {"code": CODES.get(status, ""), "message": "not\x1b you"}})
        elif self.path == "/v1/publish":
            status = 200
            answer = "\n".join(self._acknowledge(json.loads(line).get("data")) for line in body.splitlines())
        else:
            answer = self._acknowledge(None)
        self._answer(status, answer)

    def _acknowledge(self, data: object) -> str:
        if code := self.server.refused.get(json.dumps(data)):
            return json.dumps({"error": {"code": code, "message": f"no {data}"}})
        self.server.acked += 1
        return json.dumps({"id": f"e-{self.server.acked}", "durability": "memory"})

    def _answer(self, status: int, text: str) -> None:
        answer = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        """Send a stream and hold it until the test is over, unless another is to follow."""
        self.server.asked.append(self.path)
        if self.server.polls and self.headers["Accept"] == "application/json":
            self._answer(200, json.dumps(self.server.polls.pop(0)))
            return
        self.close_connection = True
        if not self.server.streams:
            self.send_error(403)
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + self.server.streams.pop(0))
        if not self.server.streams:
            self.server.over.wait(SECONDS)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A fake server that runs."""
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    """A fake server that speaks TLS; its `url` says http."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(folder / "k.pem"), "-out", str(folder / "c.pem")]
    subprocess.run([*made, *files], check=True, capture_output=True, timeout=SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    with Fake() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("ONCECAST_"):
            monkeypatch.delenv(name)


def call(*arguments: str, stdin: bytes | None = None, **environ: str) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(commands, arguments, input=stdin, env=environ, prog_name="oncecast")


def complaint(result: Result, code: int) -> str:
    """Return the one line of standard error of a command that failed with `code`."""
    assert (code, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines())), result.stderr
    return result.stderr.removeprefix("Error: ").rstrip("\n")


def event(seq: int, **fields: object) -> bytes:
    """Return a message as an event of a stream."""
    message = {"id": f"e-{seq}", "channel": "c", "event": None, "time": 1.5, **fields}
    return f"id: e-{seq}\ndata: {json.dumps(message)}\n\n".encode()


def free_port() -> int:
    """Return a port that no server listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listen(fake: Fake, *arguments: str) -> Result:
    """Call `sub` on the fake server over SSE."""
    return call("sub", "--transport", "sse", "--server", fake.url, *arguments)


def start(
    fake: Fake, *arguments: str, module: str = "oncecast", stdout: IO[bytes] | None = None, first: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the command as a process with pipes, or its results to `stdout`; modules in `first` hide others."""
    pipe = subprocess.PIPE
    path = os.pathsep.join([*([str(first)] if first else []), *sys.path])
    environ = {**os.environ, "ONCECAST_URL": fake.url, "PYTHONPATH": path}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdin=pipe, stdout=stdout or pipe, stderr=pipe, env=environ)


def pipe_of(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe of a process, which `start` has always given it."""
    assert stream is not None
    return stream
