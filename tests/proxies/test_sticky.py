"""What the files of `deploy/proxies` do with a connection, over three servers that say their names.

Which server gets it, by each kind of stickiness that the files offer; and what none of them gets.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.certificates import Pair
from tests.proxies.programs import PROGRAMS, Program, running, site_of

ASKED = 12  # times: without stickiness each of three servers is met
USERS = 30
SECONDS = 60.0


class Named(BaseHTTPRequestHandler):
    """Answers everything with the port of its server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        name = str(self.connection.getsockname()[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of the standard library
        """Say nothing."""


class EndingServer(ThreadingHTTPServer):
    """Ends its connections with itself, also those that a proxy keeps."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Named)
        self.accepted: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        """Note a connection."""
        accepted, address = super().get_request()
        self.accepted.append(accepted)
        return accepted, address

    def server_close(self) -> None:
        """Stop listening, and end what is open."""
        for each in self.accepted:
            with suppress(OSError):  # it has ended
                each.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def serving() -> Iterator[int]:
    """Run a server; yield its port."""
    server = EndingServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(SECONDS)


@pytest.fixture(scope="module")
def named() -> Iterator[list[int]]:
    """The ports of three servers."""
    with ExitStack() as servers:
        yield [servers.enter_context(serving()) for _ in range(3)]


@contextmanager
def started(program: Program, sticky: str | None, named: list[int], pair: Pair, folder: Path) -> Iterator[int]:
    """Run the proxy; yield its port."""
    with ExitStack() as stack:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        site = site_of(folder / f"{program.name}-{sticky}", named, pair)
        stack.enter_context(running(program, program.fitted(site, sticky=sticky), site))
        yield site.plain


def ask(port: int, headers: Mapping[str, str] | None = None, path: str = "/v1/channels/news") -> tuple[str, str]:
    """Ask on a new connection; return which server has answered, and the cookie that was set."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.read().decode(), (answer.getheader("Set-Cookie") or "").partition(";")[0]
    finally:
        connection.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_connections_go_to_each_server_in_turn(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """Without stickiness one client meets every server."""
    with started(PROGRAMS[name], None, named, pair, folder) as port:
        assert {str(each) for each in named} == {ask(port)[0] for _ in range(ASKED)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_metrics_are_passed_on_to_nobody(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """However the path is written, the proxy answers itself; what only begins so is passed on by most."""
    with started(PROGRAMS[name], None, named, pair, folder) as port:
        servers = {str(each) for each in named}
        for path in ("/metrics", "/live/metrics", "/metrics?x=1", "/%6Detrics", "/live/%6detrics", "/l%69ve/metrics"):
            assert ask(port, path=path)[0] not in servers, path
        for path in ("/", "/v1/channels/metrics", "/live/v1/channels/metrics", "/readyz"):
            assert ask(port, path=path)[0] in servers, path


@pytest.mark.parametrize("name", [name for name, each in PROGRAMS.items() if "source" in each.sticky])
def test_sticky_by_source(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """Every connection from one address goes to one server."""
    with started(PROGRAMS[name], "source", named, pair, folder) as port:
        assert 1 == len({ask(port)[0] for _ in range(ASKED)})


@pytest.mark.parametrize("name", [name for name, each in PROGRAMS.items() if "cookie" in each.sticky])
def test_sticky_by_cookie(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """A client that keeps the proxy's cookie stays at its server, and others are spread."""
    with started(PROGRAMS[name], "cookie", named, pair, folder) as port:
        answers = [ask(port) for _ in range(ASKED)]
        assert 1 < len({server for server, _ in answers})
        for server, cookie in answers[:3]:
            assert cookie.startswith("oncecast_node=")
            # nginx knows its cookie only from the second request on
            first = ask(port, {"Cookie": cookie})[0]
            assert {first} == {ask(port, {"Cookie": cookie})[0] for _ in range(4)}, server


@pytest.mark.parametrize("name", [name for name, each in PROGRAMS.items() if "user" in each.sticky])
def test_sticky_by_user(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """Every connection with one session's cookie goes to one server, and the sessions are spread."""
    with started(PROGRAMS[name], "user", named, pair, folder) as port:
        met = [{ask(port, {"Cookie": f"session=user-{user}"})[0] for _ in range(3)} for user in range(USERS)]
        assert {1} == {len(each) for each in met}
        assert 1 < len(set.union(*met))


@pytest.mark.parametrize("name", [name for name, each in PROGRAMS.items() if "user" in each.sticky])
def test_users_stay_where_another_server_ends(name: str, named: list[int], pair: Pair, folder: Path) -> None:
    """The hash is a consistent one: only the users of the server that has ended go elsewhere, and to both others."""

    def place(port: int) -> dict[int, str]:
        return {user: ask(port, {"Cookie": f"session=user-{user}"})[0] for user in range(USERS)}

    with ExitStack() as ending:
        last = ending.enter_context(serving())
        with started(PROGRAMS[name], "user", [*named[:2], last], pair, folder / "ending") as port:
            before = place(port)
            assert {str(each) for each in (*named[:2], last)} == set(before.values())
            ending.close()
            others = {str(each) for each in named[:2]}
            until = time.monotonic() + SECONDS
            while not set((after := place(port)).values()) <= others:  # the proxy has yet to find out
                assert time.monotonic() < until, after
    assert {user: where for user, where in before.items() if where in others}.items() <= after.items()
    assert others == {after[user] for user, where in before.items() if where == str(last)}
