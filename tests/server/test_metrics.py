"""`/metrics`, as a Prometheus would read it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from oncecast.brokers.meters import Meters
from oncecast.server.metrics import Crew, Measures, add, lasting, measure, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Answer, Bench

SSE = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n42"


def read(bench: Bench) -> dict[tuple[str, str], float]:
    """Return every value by its name and status."""
    families = text_string_to_metric_families(render(measure(bench.app)).decode())
    return {
        (sample.name, sample.labels.get("status", "")): sample.value for family in families for sample in family.samples
    }


def test_a_server_that_has_done_nothing(bench: Bench) -> None:
    """All metrics are there from the start, at zero; but the process that tells them serves."""
    values = read(bench)
    assert (1, 1) == (values.pop(("oncecast_workers", "")), values.pop(("oncecast_ready", "")))
    assert {0} == set(values.values())
    assert ("oncecast_connections", "") in values
    assert ("oncecast_deliveries_total", "") in values


def test_what_was_done_is_counted(bench: Bench) -> None:
    """Connections, requests by status, publishes and deliveries are those that happened."""
    bench.connect()[0].data_received(SSE)
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
        assert family.type in ("counter", "gauge")
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
    """What it has counted stays in the sums; what it held is gone with it."""
    bench.ask(POST)
    total = add([lasting(measure(bench.app)), Measures()])
    assert {201: 1} == total.requests
    assert (1, 0, 0) == tuple(total.values.get(name, 0) for name in ("publishes", "log_head", "log_messages"))
    assert Measures() == add([])


def test_why_a_process_is_not_ready(bench: Bench, parse: Callable[..., Answer]) -> None:
    """`/readyz` and the metric give the same reason, and a failure before the stop that it causes."""
    ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert {} == measure(bench.app).unready
    bench.app.ready = False
    reasons = ["the server is stopping"]
    assert {reasons[0]: 1} == measure(bench.app).unready
    assert reasons[0] in parse(bench.ask(ready)).json["error"]["message"]
    bench.app.node.fail('a task of the server has failed: "deadlines"')
    assert "deadlines" in parse(bench.ask(ready)).json["error"]["message"]
    together = add([measure(bench.app), measure(bench.app), Measures({"ready": 1.0})])
    text = render(together).decode()
    assert 'oncecast_unready{reason="a task of the server has failed: \\"deadlines\\""} 2.0' in text
    assert "oncecast_ready 1.0" in text
    assert {} == lasting(together).unready


def test_unfinished_requests_are_measured(bench: Bench) -> None:
    """Their bytes now, and how many were refused."""
    bench.connect()[0].data_received(POST[:-1])
    values = read(bench)
    assert (len(POST.partition(b"\r\n\r\n")[2]) - 1, 0) == (
        values["oncecast_unfinished_bytes", ""],
        values["oncecast_unfinished_refused_total", ""],
    )


def test_measures_survive_the_pipe_to_the_supervisor(bench: Bench) -> None:
    """What a worker sends is what the supervisor reads: the codec is strict about kinds of numbers."""
    measured = measure(bench.app)
    assert measured == msgspec.json.decode(msgspec.json.encode(measured), type=Measures)


def test_the_broker_is_measured(bench: Bench) -> None:
    """Its returns, holes and pages by the node; its lag, its silence and its refusals by its meters."""
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
    """What they all measure is shown once; what each has done is added."""
    both = [
        Measures({"broker_lag": 3, "broker_silent_seconds": 1, "broker_refused": 2}),
        Measures({"broker_lag": 5, "broker_silent_seconds": 4, "broker_refused": 2}),
    ]
    values = add(both).values
    assert (5, 4, 4) == (values["broker_lag"], values["broker_silent_seconds"], values["broker_refused"])
