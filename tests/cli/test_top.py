"""`oncecast top`: its lines, its screen on a real terminal, and what it says where it can't show anything."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from oncecast.cli.top_lines import lines_of
from oncecast.core.census import Census, ListedChannel
from oncecast.http.overview import Overview, OverviewRequest
from oncecast.http.roll import PresentProcess
from oncecast.policy.server_keys import make_key
from oncecast.server.measures import ALONE, Measures
from oncecast.server.overview import View, compose
from tests.cli.conftest import SECONDS, call, complaint, free_port

KEY = make_key(bytes(32))


def overview(time: float = 100.0, *, published: int = 0, channels: int = 2, reason: str = "") -> Overview:
    """Return an overview of one process."""
    listed = tuple(ListedChannel(f"room{n}", 9.5 - n, 10, 3, int(n == 1), 4 * int(n == 1)) for n in range(channels))
    values = {"connections": 1200.0, "connections_limit": 10_000.0, "publishes": published, "log_head": 7}
    labelled = {
        "listeners": {"sse": 800.0, "websocket": 400.0},
        "refusals": {"sse unauthorized": 3.0, "publish forbidden": 9.0},
        "unready": {reason: 1.0} if reason else {},
    }
    measures = Measures(values, labelled)
    other = PresentProcess("b.example:8000", "m", 9, "0.1", 300, unready="the broker is away")
    view = View(1, "e0", "memory", Census(listed, channels), measures)
    return compose(
        measures, ALONE, [view], OverviewRequest("rate", 300), now=time, name="a.example:8000", present=[other]
    )


def texts(now: Overview, before: Overview | None = None, width: int = 100, height: int = 30) -> list[str]:
    """Return the lines' texts."""
    return [line.text for line in lines_of("http://x", now, before, width, height)]


def test_the_lines() -> None:
    """They have the state, the connections by transport, the refusals, and a row for each channel."""
    shown = "\n".join(texts(overview()))
    for part in (
        "http://x  ready  1 worker",
        "memory, e0-7",
        "1,200 of 10,000  sse 800  websocket 400",
        "0 published",
        "forbidden (publish) 9  unauthorized (sse) 3",
        "nodes        b.example:8000 NOT READY  a.example:8000 (this) 1,200",
    ):
        assert part in shown
    assert ["room0", "9.5", "3", "0", "0", "10"] == texts(overview())[-2].split()


def test_the_rates_are_of_two_looks() -> None:
    """A count that has grown is shown as so many a second; one that began again at 0 is no negative rate."""
    assert "messages     20.0/s published  0.0/s delivered" in texts(
        overview(102, published=50), overview(published=10)
    )
    assert "messages     0.0/s published  0.0/s delivered" in texts(overview(102), overview(published=10))


@pytest.mark.parametrize(("width", "height"), [(20, 3), (60, 12), (80, 24), (200, 60), (1, 1)])
def test_the_lines_fit(width: int, height: int) -> None:
    """However small the terminal is, no line is longer than it is wide, and there are no more than it is high."""
    found = texts(overview(channels=200, reason="the broker\x1b[2J is away"), None, width, height)
    assert len(found) <= height
    assert max(map(len, found)) <= width
    assert "\x1b" not in "".join(found)
    if height >= 24:
        assert re.fullmatch(r"and \d+ more", found[-1])


def test_a_node_that_is_not_ready() -> None:
    """It is said in red, with the reason."""
    lines = lines_of("http://x", overview(reason="the broker is away"), None, 100, 30)
    assert ("red", True) == (lines[0].style, "NOT READY" in lines[0].text)
    assert "not ready    the broker is away" == lines[1].text


class Figures(ThreadingHTTPServer):
    """A server that gives overviews to whoever has the key; `status` other than 200 is an error."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), FiguresHandler)
        self.status = 200
        self.body = b""
        self.published = 0
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def end(self) -> None:
        """Stop, and close the socket."""
        self.shutdown()
        self.thread.join()
        self.server_close()


class FiguresHandler(BaseHTTPRequestHandler):
    server: Figures

    def do_GET(self) -> None:
        """Answer with an overview."""
        server = self.server
        server.asked.append(f"{self.path} {self.headers['Authorization']}")
        server.published += 10
        error = json.dumps({"error": {"code": "unauthorized", "message": "Only a server's key may."}}).encode()
        body = server.body or msgspec.json.encode(overview(time.time(), published=server.published))
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(body if server.status == 200 else error)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def figures() -> Iterator[Figures]:
    """A server that gives overviews."""
    server = Figures()
    yield server
    server.end()


def test_once(figures: Figures, tmp_path: Path) -> None:
    """It prints the figures once, with the key of the file, by the order."""
    (tmp_path / "key").write_text(KEY + "\n")
    result = call("top", figures.url, "--once", "--key", str(tmp_path / "key"), "--order", "lag")
    assert 0 == result.exit_code, result.output
    assert "1,200 of 10,000" in result.stdout
    assert "\x1b" not in result.stdout
    assert [f"/v1/overview?order=lag&limit=300 Bearer {KEY}"] == figures.asked


def test_json(figures: Figures) -> None:
    """It prints what the server has answered; the key may be in the environment."""
    result = call("top", figures.url, "--once", "--json", ONCECAST_TOKEN=KEY)
    assert 1200 == json.loads(result.stdout)["connections"]["open"]
    assert figures.asked[0].endswith(KEY)


def test_nothing_to_show(figures: Figures, tmp_path: Path) -> None:
    """A server that refuses, is away, or is no Oncecast ends it with one line, and so does a wrong call."""
    figures.status = 401
    assert "Only a server's key may" in complaint(call("top", figures.url), 1)
    figures.status, figures.body = 200, b"<html>"
    assert "gives no overview" in complaint(call("top", figures.url), 1)
    assert "connection refused" in complaint(call("top", f"http://127.0.0.1:{free_port()}"), 1)
    assert "No such file" in complaint(call("top", figures.url, "--key", str(tmp_path / "none")), 2)
    (tmp_path / "two").write_text("a b")
    assert "holds no key" in complaint(call("top", figures.url, "--key", str(tmp_path / "two")), 2)
    complaint(call("top", "ftp://x"), 2)


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 100)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
        environ.pop("COLUMNS", None)
        environ.pop("LINES", None)
        command = [sys.executable, "-m", "oncecast", "top", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        self.text = ""

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, pattern: str) -> str:
        """Read until the pattern has come, and return what has, from the last call on."""
        due = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert select.select([self.master], [], [], max(0.0, due - time.monotonic()))[0], self.text
            self.text += os.read(self.master, 65536).decode()
        come, self.text = self.text[: found.end()], self.text[found.end() :]
        return come

    def end(self) -> None:
        """End the process if it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self.master)


def test_a_terminal() -> None:
    """The screen goes on, fits another size, says that the server is lost and back, and is given back at Ctrl-C."""
    server = Figures()
    terminal = Terminal(server.url, "--interval", "0.2")
    try:
        assert "\x1b[?1049h" in terminal.until("CHANNEL")
        terminal.until(r"[1-9][\d,.]*/s published")
        terminal.resize(24, 60)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.until(r"\x1b\[7mCHANNEL {10} {4}MSG/S")
        port = server.server_port
        server.end()
        terminal.until("asking again: no server answers")
        server = Figures(port)
        terminal.until(r"\x1b\[H\x1b\[1mhttp://\S+  ready")
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.until(re.escape("\x1b[?25h\x1b[?1049l"))
        assert 0 == terminal.process.wait(SECONDS)
    finally:
        server.end()
        terminal.end()
