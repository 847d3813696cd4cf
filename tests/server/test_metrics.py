"""`/metrics`, as a Prometheus would read it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from oncecast.brokers.meters import Meters
from oncecast.http.service import Rules
from oncecast.server.exposition import render
from oncecast.server.measures import Buckets, Crew, Measures, add, lasting, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Answer, Bench

SSE = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42"


OF_THE_PROCESS = ("workers", "ready", "info", "connections_limit", "memory_bytes", "cpu_seconds_total")
SHORT_POLL = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG_POLL = b"GET /v1/channels/a?after=latest&wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOCKET = (
    b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: oncecast.v1\r\n\r\n"
)


def masked(payload: bytes) -> bytes:
    """Return a client's text frame of fewer than 126 bytes."""
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


def server_rules(bench: Bench) -> Rules:
    """Return the rules of the bench, with the hook for refusals that a server gives them."""
    settings = msgspec.structs.replace(bench.app.settings, refused=bench.app.refusals.note)
    return Rules(settings=settings, hosts=bench.app.hosts, origins=bench.app.origins)


def read(bench: Bench) -> dict[tuple[str, str], float]:
    """Return every value by its name and status."""
    families = text_string_to_metric_families(render(measure(bench.app)).decode())
    return {
        (sample.name, sample.labels.get("status", "")): sample.value for family in families for sample in family.samples
    }


def test_a_server_that_has_done_nothing(bench: Bench) -> None:
    """All metrics are there from the start, at zero; but those of the process itself."""
    values = read(bench)
    own = {f"oncecast_{name}": values.pop((f"oncecast_{name}", "")) for name in OF_THE_PROCESS}
    assert (1, 1, 1, 100) == tuple(own[f"oncecast_{name}"] for name in OF_THE_PROCESS[:4])
    assert min(own.values()) > 0
    assert {0} == set(values.values())
    assert ("oncecast_connections", "") in values
    assert ("oncecast_deliveries_total", "") in values


def test_what_was_done_is_counted(bench: Bench) -> None:
    """Connections, requests by status, publishes and deliveries are those that happened."""
    bench.connect()[0].receive(SSE)
    bench.turn()
    bench.ask(POST + POST)
    bench.ask(b"GET /v1/nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    bench.ask(b"nonsense\r\n\r\n")
    values = read(bench)
    counted = {
        "connections": 4,
        "connections_opened_total": 4,
        "connections_turned_away_total": 0,
        "subscriptions": 1,
        "publishes_total": 2,
        "publishes_waiting": 0,
        "messages_total": 2,
        "deliveries_total": 2,
        "gaps_total": 0,
        "blocked_total": 0,
        "log_messages": 2,
        "log_head": 2,
    }
    assert counted == {name: values["oncecast_" + name, ""] for name in counted}
    assert (1, 2, 1, 1) == tuple(values["oncecast_requests_total", status] for status in ("200", "201", "400", "404"))
    assert values["oncecast_log_bytes", ""] > 0


def test_every_metric_says_what_it_is(bench: Bench) -> None:
    """Each family has a type and a help text that is a sentence."""
    for family in text_string_to_metric_families(render(measure(bench.app)).decode()):
        assert family.type in ("counter", "gauge", "histogram")
        assert family.documentation.endswith(".")


def test_what_several_workers_measured_is_one_servers(bench: Bench) -> None:
    """Counters and what is held add up; the newest number is the same in all, so it is the highest."""
    bench.ask(POST)
    one = measure(bench.app)
    bench.ask(POST + POST)
    other = measure(bench.app)
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(render(add([one, other]), Crew(2, 3, 1)).decode())
        for sample in family.samples
    }
    assert (1 + 3, 3) == (values["oncecast_publishes_total"], values["oncecast_log_head"])
    assert 4 == values["oncecast_requests_total"]
    assert (2, 3, 1) == tuple(
        values[f"oncecast_{name}"] for name in ("workers", "worker_restarts_total", "workers_silent")
    )


def test_what_lasts_beyond_a_workers_end(bench: Bench) -> None:
    """The counts of a worker stay in the sums after its end, and its levels do not."""
    bench.ask(POST)
    total = add([lasting(measure(bench.app)), Measures()])
    assert {"201": 1} == total.labelled["requests"]
    assert (1, 0, 0) == tuple(total.values.get(name, 0) for name in ("publishes", "log_head", "log_messages"))
    assert Measures() == add([])


def test_why_a_process_is_not_ready(bench: Bench, parse: Callable[..., Answer]) -> None:
    """`/readyz` and the metric give the same reason, and a failure before the stop that it causes."""
    ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert {} == measure(bench.app).labelled["unready"]
    bench.app.ready = False
    reasons = ["the server is stopping"]
    assert {reasons[0]: 1} == measure(bench.app).labelled["unready"]
    assert reasons[0] in parse(bench.ask(ready)).json["error"]["message"]
    bench.app.node.fail('a task of the server has failed: "deadlines"')
    assert "deadlines" in parse(bench.ask(ready)).json["error"]["message"]
    together = add([measure(bench.app), measure(bench.app), Measures({"ready": 1.0})])
    text = render(together).decode()
    assert 'oncecast_unready{reason="a task of the server has failed: \\"deadlines\\""} 2.0' in text
    assert "oncecast_ready 1.0" in text
    assert "unready" not in lasting(together).labelled


def test_unfinished_requests_are_measured(bench: Bench) -> None:
    """The metrics show the bytes of unfinished requests, and how many were refused."""
    bench.connect()[0].receive(POST[:-1])
    values = read(bench)
    assert (len(POST.partition(b"\r\n\r\n")[2]) - 1, 0) == (
        values["oncecast_unfinished_bytes", ""],
        values["oncecast_unfinished_refused_total", ""],
    )


def test_measures_survive_the_pipe_to_the_supervisor(bench: Bench) -> None:
    """The supervisor reads the measures that a worker has sent, in the same kinds of numbers."""
    measured = measure(bench.app)
    assert measured == msgspec.json.decode(msgspec.json.encode(measured), type=Measures)


def test_the_broker_is_measured(bench: Bench) -> None:
    """The metrics show the node's returns, holes and pages, and the broker's lag, silence and refusals."""
    node = bench.app.node
    node.away("it is gone")
    node.back()
    node.back()  # it was not away
    node.hole(3, 9)
    assert (1, 1) == (node.returns, node.holes)
    meters = Meters(refused=4, head=50, heard=time.monotonic() - 100)
    node.broker.meters = meters  # type: ignore[attr-defined]
    values = read(bench)
    named = {name: values[f"oncecast_broker_{name}", ""] for name in ("returns_total", "holes_total", "refused_total")}
    assert {"returns_total": 1, "holes_total": 1, "refused_total": 4} == named
    assert 50 - node.log.head == values["oncecast_broker_lag", ""] > 0
    assert 100 <= values["oncecast_broker_silent_seconds", ""] < 200
    meters.head = 0
    assert 0 == read(bench)["oncecast_broker_lag", ""]


def test_workers_on_one_broker() -> None:
    """A measure that all workers share is shown once, and the counts of each are added."""
    both = [
        Measures({"broker_lag": 3, "broker_silent_seconds": 1, "broker_refused": 2}),
        Measures({"broker_lag": 5, "broker_silent_seconds": 4, "broker_refused": 2}),
    ]
    values = add(both).values
    assert (5, 4, 4) == (values["broker_lag"], values["broker_silent_seconds"], values["broker_refused"])


def labelled(bench: Bench, name: str) -> dict[tuple[str, ...], float]:
    """Return the values above 0 of a metric by its labels, in the order of their names."""
    samples = (
        sample
        for family in text_string_to_metric_families(render(measure(bench.app)).decode())
        for sample in family.samples
        if sample.name == f"oncecast_{name}" and sample.value
    )
    return {tuple(label for _, label in sorted(sample.labels.items())): sample.value for sample in samples}


def test_listeners_by_transport(bench: Bench) -> None:
    """Streams, sockets and long polls count while they are open, and each that has begun; short polls once each."""
    opened = [bench.connect() for _ in range(4)]
    for (connection, _), request in zip(opened, (SSE, SOCKET, LONG_POLL, SHORT_POLL + SHORT_POLL), strict=True):
        connection.receive(request)
    bench.turn()
    begun = {("sse",): 1, ("websocket",): 1, ("long-poll",): 1}
    assert begun == labelled(bench, "listeners")
    assert begun | {("short-poll",): 2} == labelled(bench, "listens_total")
    assert {("200",): 3, ("101",): 1} == labelled(bench, "requests_total")  # the long poll has none yet
    bench.ask(POST)
    assert {("sse",): 1, ("websocket",): 1} == labelled(bench, "listeners")
    for connection, _ in opened:
        connection.connection_lost(None)
    assert {} == labelled(bench, "listeners")


def test_refusals_by_transport_and_code(bench: Bench) -> None:
    """Each error that a client gets counts once, whichever way it gets it; what could not be read is `other`."""
    bench.app.adopt(server_rules(bench))
    wrong = b"GET /v1/channels/a?after=nonsense&wait=%d HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    bench.ask(wrong % (0, b"Accept: text/event-stream\r\n"))
    bench.ask(wrong % (9, b""))
    bench.ask(wrong.replace(b"&wait=%d", b"") % b"")
    bench.ask(POST.replace(b"/a ", b"/* "))
    bench.ask(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    bench.ask(b"nonsense\r\n\r\n")
    lines = b'{"channel":"*","data":1}\n{"channel":"a","data":1}\n'
    bench.ask(b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(lines) + lines)
    socket, _ = bench.connect()
    socket.receive(SOCKET)
    socket.receive(masked(b'{"type":"subscribe","channel":"*"}'))
    stream, _ = bench.connect()
    stream.receive(SSE)
    stream.disconnect()
    expected = {
        ("cursor_invalid", "sse"): 1,
        ("cursor_invalid", "long-poll"): 1,
        ("cursor_invalid", "short-poll"): 1,
        ("channel_invalid", "publish"): 2,
        ("not_found", "other"): 1,
        ("request_invalid", "other"): 1,
        ("channel_invalid", "websocket"): 1,
        ("unauthorized", "sse"): 1,
    }
    assert expected == labelled(bench, "refusals_total")


def test_labels_are_of_the_server(bench: Bench) -> None:
    """No channel, address, path or other text of a client becomes a label: its series are bounded."""
    bench.app.adopt(server_rules(bench))
    for path in (b"/secret-path", b"/v1/channels/secret-channel?after=secret", b"/v1/channels/secret,secret*"):
        bench.ask(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    bench.ask(b"SECRET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = render(measure(bench.app))
    assert b"secret" not in text.lower()
    assert 400 > text.count(b"\noncecast_")


def test_gaps_by_reason(bench: Bench) -> None:
    """A gap counts once in each place where a client reads it: the begin of a stream, and the answers to polls."""
    foreign = b"GET /v1/channels/a?after=other-7%b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    connection, transport = bench.connect()
    connection.receive(foreign % (b"", b"Accept: text/event-stream\r\n"))
    bench.ask(foreign % (b"", b""))
    bench.ask(foreign % (b"&wait=5", b""))
    assert b"event: gap" in transport.take()
    assert {("epoch",): 3} == labelled(bench, "gaps_total")


def test_who_is_behind(bench: Bench) -> None:
    """A subscription whose socket is full is blocked, and lags by what has been published since."""
    connection, _ = bench.connect()
    connection.receive(SSE)
    bench.turn()
    connection.pause_writing()
    bench.ask(POST * 3)
    values = read(bench)
    names = ("subscriptions_blocked", "subscriptions_catching_up", "subscription_lag")
    assert (1, 0, 3) == tuple(values[f"oncecast_{name}", ""] for name in names)
    connection.resume_writing()
    assert (0, 1, 3) == tuple(read(bench)[f"oncecast_{name}", ""] for name in names)
    bench.turn()
    assert (0, 0, 0) == tuple(read(bench)[f"oncecast_{name}", ""] for name in names)


def test_histograms_of_several_workers_are_added() -> None:
    """Buckets and sums add up, and those of a worker that has ended stay."""
    one = Measures(delays={"loop_late_seconds": Buckets((1,) * 16, 2.0)})
    other = Measures(delays={"loop_late_seconds": Buckets((0,) * 15 + (4,), 200.0)})
    text = render(add([lasting(one), other])).decode()
    assert 'oncecast_loop_late_seconds_bucket{le="0.0005"} 1.0' in text
    assert 'oncecast_loop_late_seconds_bucket{le="30"} 15.0' in text
    assert "oncecast_loop_late_seconds_count 20.0" in text
    assert "oncecast_loop_late_seconds_sum 202.0" in text
