"""The rules that stand before every answer, from memory too: host, origin, access. Raw bytes in, the answer out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from oncecast.errors import Refusal
from oncecast.http.service import Rules
from oncecast.policy.access import Access
from oncecast.policy.hosts import Hosts
from oncecast.policy.identity import Identity
from oncecast.policy.origin import EXPOSE_HEADERS, Origins
from oncecast.server.capacity import Capacity
from oncecast.server.server import Server
from oncecast.server.settings import Settings

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench, Open

Parse = Callable[..., "Answer"]

POLL = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRIEND = "https://friend.example"


class Guarded(Access):
    """Lets `ann` read, and publish to `b` alone; everybody else nothing."""

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        if identity.subject != "ann":
            raise Refusal("forbidden", "Only ann reads.")

    def publish(self, identity: Identity, channel: str, /) -> None:
        if (identity.subject, channel) != ("ann", "b"):
            raise Refusal("forbidden", "Only ann publishes, and to b.")


def request(method: str, target: str, host: str | None, *lines: str, version: str = "1.1", body: str = "") -> bytes:
    """Return the bytes of a request."""
    head = [f"{method} {target} HTTP/{version}", *([] if host is None else [f"Host: {host}"]), *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", body]).encode()


def adopt(bench: Bench, *, hosts: Hosts | None = None, access: Access | None = None) -> None:
    """Put other rules in force."""
    app = bench.app
    settings = app.settings if access is None else replace(app.settings, access=access)
    app.adopt(Rules(settings, app.hosts if hosts is None else hosts, app.origins))


# -- hosts


@pytest.mark.parametrize("path", ["/", "/metrics", "/v1/channels/a", "/v1/publish", "/v1/connect", "/nothing", "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_a_foreign_host_gets_nothing(bench: Bench, parse: Parse, path: str, method: str) -> None:
    """A page that lets its own name resolve to loopback neither reads nor publishes, though its Origin agrees."""
    if path == "*" and method != "OPTIONS":
        return
    adopt(bench, hosts=Hosts((), ("127.0.0.1",), "127.0.0.1"))
    lines = ("Origin: http://evil.example:8000", "Content-Type: text/plain")
    data = request(method, path, "evil.example:8000", *lines, body="1" if method == "POST" else "")
    answer = parse(bench.ask(data), head_only=method == "HEAD")
    assert 421 == answer.status
    if method != "HEAD":
        assert "host_refused" == answer.code
        assert "`hosts`" in answer.json["error"]["message"]
    assert 0 == bench.app.node.log.head


@pytest.mark.parametrize(
    "data, status",
    [
        (request("GET", "/v1/channels/a", "LOCALHOST:8000"), 200),
        (request("GET", "/v1/channels/a", "[::1]:8000"), 200),
        (request("GET", "/v1/channels/a", "localhost."), 200),
        (request("GET", "/v1/channels/a", None, version="1.0"), 200),
        (request("GET", "/v1/channels/a", "evil.example", version="1.0"), 421),
        (request("GET", "http://localhost/v1/channels/a", "evil.example"), 200),
        (request("GET", "http://evil.example/v1/channels/a", "localhost"), 421),
        (request("GET", "/v1/channels/a", "localhost:99999"), 400),
        (request("GET", "/v1/channels/a", "[::g]"), 400),
        (request("GET", "/v1/channels/a", "[1.2.3.4]"), 400),
        (request("GET", "/v1/channels/a", "user@localhost"), 400),
        (request("GET", "/v1/channels/a", "localhost/"), 400),
        (request("GET", "/v1/channels/a", ""), 400),
        (request("GET", "/v1/channels/a", "localhost, evil.example"), 400),
        (request("GET", "/healthz", "evil.example"), 200),
        (request("GET", "/readyz", "evil.example"), 200),
    ],
)
def test_which_host_counts(bench: Bench, parse: Parse, data: bytes, status: int) -> None:
    """The host of the target wins over `Host`; what is no host is malformed; probes ask by any address."""
    adopt(bench, hosts=Hosts((), ("127.0.0.1",), "127.0.0.1"))
    assert status == parse(bench.ask(data)).status


async def test_a_server_on_loopback_serves_loopback_names(open_site: Open) -> None:
    """As it comes, without a setting; the addresses that are bound count."""
    site = await open_site(Settings(port=0))
    for host, status in ((f"localhost:{site.server.port}", 200), (f"evil.example:{site.server.port}", 421)):
        peer = await site.connect(request("GET", "/v1/channels/a", host, f"Origin: http://{host}"))
        assert status == (await peer.answer()).status
    site.server.reload(Settings(port=site.server.port, hosts=("*.example",)))
    peer = await site.connect(request("GET", "/v1/channels/a", "evil.example"))
    assert 200 == (await peer.answer()).status


async def test_a_bound_address_counts_and_not_the_setting(open_site: Open) -> None:
    """Sockets may be handed to the server that are not of the setting `host`."""
    site = await open_site(Settings(port=0, host="localhost"))
    assert isinstance(site.server, Server)
    with pytest.raises(Refusal):
        site.server.app.hosts.check("evil.example")


# -- from memory


def test_a_remembered_answer_is_given_after_the_rules(bench: Bench, parse: Parse) -> None:
    """A remembered answer is given only after access was checked, and not under rules other than its own."""
    connection, transport = bench.connect()
    connection.receive(POLL)
    bench.turn()
    assert 200 == parse(transport.take()).status
    adopt(bench, hosts=Hosts(("other.example",)))
    connection.receive(POLL)
    assert 421 == parse(transport.take()).status
    adopt(bench, hosts=Hosts(), access=Guarded())
    connection.receive(POLL)
    assert 403 == parse(transport.take()).status
    connection.identity = Identity("192.0.2.1", "ann")
    for _ in range(2):
        connection.receive(POLL)
        assert 200 == parse(transport.take()).status
    assert bench.app.memo._polls
    other, others = bench.connect()
    other.receive(POLL)
    assert 403 == parse(others.take()).status


def test_a_refused_host_and_origin_are_not_remembered(bench: Bench, parse: Parse) -> None:
    """The second time they are refused too."""
    adopt(bench, hosts=Hosts((), ("127.0.0.1",), ""))
    for data, status in (
        (request("GET", "/v1/channels/a", "evil.example"), 421),
        (request("GET", "/v1/channels/a", "localhost", "Origin: http://evil.example"), 403),
    ):
        assert [status, status] == [parse(bench.ask(data)).status for _ in range(2)]


# -- access and identity


def test_access_is_asked_before_anything_is_answered(bench: Bench, parse: Parse, upgrade: Callable[..., bytes]) -> None:
    """Each way to listen and to publish; in a batch, each line by itself."""
    adopt(bench, access=Guarded())
    accept = "Accept: text/event-stream"
    lines = '{"channel": "a", "data": 1}\n{"channel": "b", "data": 2}'
    asked = (
        request("GET", "/v1/channels/a", "localhost"),
        request("GET", "/v1/channels/a?wait=5&after=latest", "localhost"),
        request("GET", "/v1/channels/a", "localhost", accept),
        request("POST", "/v1/channels/a", "localhost", body="1"),
        upgrade("/v1/channels/a"),
    )
    for data in asked:
        answer = parse(bench.ask(data))
        assert (403, "forbidden") == (answer.status, answer.code)
    batch = parse(bench.ask(request("POST", "/v1/publish", "localhost", body=lines)))
    assert [b"forbidden", b"forbidden"] == [line.split(b'"')[5] for line in batch.body.splitlines()]
    assert (0, 0) == (bench.app.node.log.head, bench.app.node.hub.subscriptions)
    connection, transport = bench.connect()
    connection.identity = Identity("", "ann")
    connection.receive(request("POST", "/v1/publish", "localhost", body=lines))
    first, second = parse(transport.take()).body.splitlines()
    assert b"forbidden" in first
    assert b'"id":"e0-1"' in second


async def test_a_connection_knows_where_it_comes_from(open_site: Open) -> None:
    """The identity has the peer's address from the start."""
    site = await open_site()
    await site.connect(POLL)
    await site.until(lambda: bool(site.server.app.connections))
    (connection,) = site.server.app.connections
    assert Identity("127.0.0.1") == connection.identity


# -- CORS of every answer

ORIGIN = f"Origin: {FRIEND}"
LONG = "x" * 40_000
FAULTS = {
    "bad field": (request("GET", "/v1/channels/a", "localhost", ORIGIN, "a b"), 400),
    "bad length": (request("POST", "/v1/channels/a", "localhost", ORIGIN, "Content-Length: x"), 400),
    "no host": (request("GET", "/v1/channels/a", None, ORIGIN), 400),
    "body": (request("POST", "/v1/channels/a", "localhost", ORIGIN, "Content-Length: 99999999"), 413),
    "chunk": (request("POST", "/v1/publish", "localhost", ORIGIN, "Transfer-Encoding: chunked") + b"ffffff\r\n", 413),
    "URL": (request("GET", "/v1/channels/" + LONG[:17_000], "localhost", ORIGIN), 414),
    "coding": (request("POST", "/v1/channels/a", "localhost", ORIGIN, "Content-Encoding: br", body="1"), 415),
    "head": (request("GET", "/v1/channels/a", "localhost", ORIGIN, f"X: {LONG}"), 431),
    "fields": (request("GET", "/v1/channels/a", "localhost", *(["X: y"] * 100), ORIGIN), 431),
}
ANSWERS = {
    "poll": (request("GET", "/v1/channels/a", "localhost", ORIGIN), 200),
    "known": (request("GET", "/v1/channels/a", "localhost", ORIGIN, 'If-None-Match: "e0-0"'), 304),
    "preflight": (request("OPTIONS", "/v1/publish", "localhost", ORIGIN, "Access-Control-Request-Method: POST"), 204),
    "published": (request("POST", "/v1/channels/a", "localhost", ORIGIN, body="1"), 201),
    "bad channel": (request("GET", "/v1/channels/-", "localhost", ORIGIN), 400),
    "nothing": (request("GET", "/v1/nothing", "localhost", ORIGIN), 404),
    "nothing else": (request("GET", "/nothing", "localhost", ORIGIN), 404),
    "method": (request("PUT", "/v1/channels/a", "localhost", ORIGIN), 405),
    "no upgrade": (request("GET", "/v1/connect", "localhost", ORIGIN), 426),
    "stream": (request("GET", "/v1/channels/a", "localhost", ORIGIN, "Accept: text/event-stream"), 200),
}


def check_cors(answer: Answer) -> None:
    """A page of the friend may read the answer."""
    assert {
        "access-control-allow-origin": FRIEND,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": EXPOSE_HEADERS,
        "vary": "Origin",
    }.items() <= answer.headers.items()


@pytest.mark.parametrize("data, status", FAULTS.values(), ids=FAULTS)
def test_a_page_may_read_what_is_wrong_with_its_request(bench: Bench, parse: Parse, data: bytes, status: int) -> None:
    """Faults that are found while a request is read have the CORS headers of its origin, and close the connection."""
    answer = parse(bench.ask(data))
    assert (status, "close") == (answer.status, answer.headers["connection"])
    check_cors(answer)
    foreign = parse(bench.ask(data.replace(FRIEND.encode(), b"https://fiend.example")))
    assert (status, "Origin") == (foreign.status, foreign.headers["vary"])
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("data, status", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("ready", [True, False])
def test_a_page_may_read_every_answer(bench: Bench, parse: Parse, data: bytes, status: int, ready: bool) -> None:
    """Whatever the status, and also while the server stops."""
    bench.app.ready = ready
    answer = parse(bench.ask(data))
    assert status == answer.status
    check_cors(answer)


def test_a_page_may_read_that_it_is_too_slow_or_too_fast(bench: Bench, parse: Parse) -> None:
    """408 comes from the clock, 429 from the flood guard, 421 from the hosts."""
    connection, transport = bench.connect()
    connection.receive(request("POST", "/v1/channels/a", "localhost", ORIGIN, "Content-Length: 9"))
    bench.pass_time(31)
    answer = parse(transport.take())
    assert 408 == answer.status
    check_cors(answer)
    connection, transport = bench.connect()
    connection.receive(request("GET", "/v1/channels/a", "localhost", ORIGIN)[:-2])
    bench.pass_time(11)
    answer = parse(transport.take())
    assert 408 == answer.status
    check_cors(answer)
    bench.app.settings = replace(bench.app.settings, publishes_per_second=1)
    connection, transport = bench.connect()
    statuses = []
    for _ in range(5):
        connection.receive(request("POST", "/v1/channels/a", "localhost", ORIGIN, body="1"))
        answer = parse(transport.take())
        statuses.append(answer.status)
        check_cors(answer)
    assert 429 in statuses
    adopt(bench, hosts=Hosts(("other.example",)))
    check_cors(parse(bench.ask(request("GET", "/", "localhost", ORIGIN))))


async def test_a_page_may_read_that_the_server_is_full(open_site: Open, parse: Parse) -> None:
    """A connection without a place is answered with what of its request has come."""
    site = await open_site(Settings(port=0, origins=(FRIEND,)))
    site.server.app.admission.capacity = Capacity(0, 0)
    with socket.create_connection(("127.0.0.1", site.server.port)) as sock:
        sock.sendall(request("POST", "/v1/channels/a", "localhost", ORIGIN, body="1"))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        data = b""
        while piece := await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), 10):
            data += piece
    answer = parse(data)
    assert (503, "unavailable") == (answer.status, answer.code)
    check_cors(answer)


def test_a_star_lets_any_page_read_the_fault(bench: Bench, parse: Parse) -> None:
    """The answer has `Access-Control-Allow-Origin: *`, and no credentials."""
    bench.app.origins = Origins(frozenset({"*"}))
    answer = parse(bench.ask(FAULTS["body"][0]))
    assert (413, "*") == (answer.status, answer.headers["access-control-allow-origin"])
