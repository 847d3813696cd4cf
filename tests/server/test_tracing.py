"""Spans of OpenTelemetry, made by its real SDK: what they say, how they hang together, and what goes wrong.

A `Collector` takes OTLP over HTTP, as a real one does, from servers that run in this process.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

import oncecast
from oncecast import AsyncClient, Oncecast
from oncecast.brokers.base import Outcome
from oncecast.client.values import ClientMessage
from oncecast.errors import ConfigurationError, Refusal
from oncecast.message import INTERNAL, Draft, Kind, Message, Receipt
from oncecast.server import tracing as tracing_module
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.server.tracing import SPANS, ServerTracing, SpanTracing
from oncecast.wire.traceparent import traceparent
from tests.docs_rig import ROOT, blocks

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = bytes.fromhex(TRACE + SPAN + "01")
OTHER = bytes.fromhex(TRACE[::-1] + SPAN + "01")
LINES = f"""{{"channel":"a","data":3}}\n{{"channel":"a","data":4,"traceparent":"00-{TRACE[::-1]}-{SPAN}-01"}}\n"""


# -- spans in memory


class Bench:
    """A `SpanTracing` whose spans are kept, and a publish that is answered when the test says so."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = SpanTracing()
        self.tracing.tracer = self.provider.get_tracer("test")
        self.outcomes: list[Sequence[Outcome]] = []

    def publish(self, *drafts: Draft, refused: Sequence[int] = ()) -> list[Draft]:
        """Publish, answer at once, and return what the broker was given."""
        given, done = self.tracing.publish(drafts, self.outcomes.append)
        refusal = Refusal("unavailable", "It is away.", retry_after=1)
        done([refusal if n in refused else Receipt("e", n + 1, "memory") for n in range(len(drafts))])
        return list(given)

    def receive(self, *messages: Message, live: Callable[[str], int] = lambda channel: 1) -> None:
        """Receive, and end the turn."""
        written = self.tracing.receive(messages, live)
        if written is not None:
            written()

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, and forget them."""
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def span(self) -> ReadableSpan:
        """Return the only one."""
        (span,) = self.spans()
        return span


@pytest.fixture
def bench() -> Iterator[Bench]:
    """One whose sampler takes everything."""
    made = Bench()
    yield made
    made.provider.shutdown()


def message(draft: Draft, seq: int = 1) -> Message:
    """Return the message that a draft becomes."""
    return Message(seq, draft.channel, draft.data, draft.kind, draft.event, 0.0, draft.trace)


def context_of(span: ReadableSpan) -> bytes:
    """Return the context that a message of this span carries."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id.to_bytes(16) + context.span_id.to_bytes(8) + bytes([context.trace_flags])


def parent_of(span: ReadableSpan) -> bytes | None:
    """Return the ids of a span's parent."""
    return None if span.parent is None else span.parent.trace_id.to_bytes(16) + span.parent.span_id.to_bytes(8)


def test_a_publish_begins_a_trace(bench: Bench) -> None:
    """The span of a publish has no parent, and its context is in the message; all else of the draft stays."""
    draft = Draft("news", b"12345", Kind.TEXT, "tick", "k")
    (given,) = bench.publish(draft)
    span = bench.span()
    assert ("publish", api.SpanKind.PRODUCER, None) == (span.name, span.kind, span.parent)
    assert context_of(span) == given.trace
    assert draft == Draft(given.channel, given.data, given.kind, given.event, given.key)
    assert {
        "messaging.system": "oncecast",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "news",
        "messaging.message.body.size": 5,
        "messaging.message.id": "e-1",
    } == span.attributes


def test_a_publish_continues_the_trace_of_its_publisher(bench: Bench) -> None:
    """The span is below that of the publisher, and the message has the span's context. What is current is no parent."""
    with bench.provider.get_tracer("app").start_as_current_span("a request"):
        (given,) = bench.publish(Draft("news", b"1", trace=PARENT))
        span = bench.span()
        bench.publish(Draft("news", b"1"))
        assert bench.span().parent is None
    bench.spans()
    assert PARENT[:24] == parent_of(span)
    assert given.trace == context_of(span)
    assert PARENT[:16] == given.trace[:16]


def test_a_delivery_is_below_its_publish(bench: Bench) -> None:
    """The span of a delivery says how many it went to, and hangs below the publish's."""
    (given,) = bench.publish(Draft("news", b"1"))
    published = bench.span()
    bench.receive(message(given), live=lambda channel: 3)
    span = bench.span()
    assert ("deliver", api.SpanKind.CONSUMER) == (span.name, span.kind)
    assert context_of(published)[:24] == parent_of(span)
    assert span.attributes is not None
    assert (3, "news") == (span.attributes["oncecast.subscriptions"], span.attributes["messaging.destination.name"])


def test_a_delivery_to_nobody_has_no_span(bench: Bench) -> None:
    """So has that of a message without a context."""
    (given,) = bench.publish(Draft("news", b"1"))
    bench.spans()
    bench.receive(message(given), live=lambda channel: 0)
    bench.receive(message(Draft("news", b"1")))
    assert [] == bench.spans()


def test_a_delivery_ends_when_it_is_written(bench: Bench) -> None:
    """The span is open until the end of the turn."""
    (given,) = bench.publish(Draft("news", b"1"))
    bench.spans()
    written = bench.tracing.receive([message(given)], lambda channel: 1)
    assert [] == bench.spans()
    assert written is not None
    written()
    assert "deliver" == bench.span().name


def test_a_batch_has_one_span(bench: Bench) -> None:
    """Messages of one publish share its span, and that of their delivery; those with another parent have another."""
    given = bench.publish(Draft("a", b"1"), Draft("b", b"2"), Draft("a", b"3", trace=PARENT))
    spans = {parent_of(span): span for span in bench.spans()}
    assert {None, PARENT[:24]} == set(spans)
    assert [context_of(spans[None])] * 2 + [context_of(spans[PARENT[:24]])] == [draft.trace for draft in given]
    attributes = spans[None].attributes
    assert attributes is not None
    assert 2 == attributes["messaging.batch.message_count"]
    assert "messaging.destination.name" not in attributes
    bench.receive(*(message(draft, n) for n, draft in enumerate(given)))
    assert 2 == len(bench.spans())


def test_a_refused_publish_is_an_error(bench: Bench) -> None:
    """The span has the code and the text; the outcomes reach the publisher unchanged."""
    bench.publish(Draft("a", b"1"), Draft("a", b"2"), refused=[1])
    span = bench.span()
    assert (api.StatusCode.ERROR, "It is away.") == (span.status.status_code, span.status.description)
    assert span.attributes is not None
    assert "unavailable" == span.attributes["error.type"]
    (outcomes,) = bench.outcomes
    assert [Receipt, Refusal] == [type(outcome) for outcome in outcomes]


def test_spans_are_bounded(bench: Bench) -> None:
    """A batch of many traces makes `SPANS` at most; each message has a context all the same."""
    parents = [PARENT[:16] + (n + 1).to_bytes(8) + b"\1" for n in range(SPANS * 3)]
    given = bench.publish(*(Draft("a", b"1", trace=parent) for parent in parents))
    assert SPANS == len(bench.spans())
    assert parents[SPANS:] == [draft.trace for draft in given[SPANS:]]
    bench.receive(*(message(draft, n) for n, draft in enumerate(given)))
    assert SPANS == len(bench.spans())


def test_what_is_not_sampled_costs_nothing() -> None:
    """No span is made, no message carries what is not sampled, and the publisher's own context goes on."""
    bench = Bench(sampler=ALWAYS_OFF)
    given = bench.publish(Draft("a", b"1"), Draft("a", b"1", trace=PARENT))
    assert [None, PARENT] == [draft.trace for draft in given]
    assert [] == bench.spans()
    bench.provider.shutdown()


def test_the_publisher_decides_what_is_sampled() -> None:
    """By a sampler that follows the parent, as the SDK's own does."""
    bench = Bench(sampler=ParentBased(ALWAYS_OFF))
    bench.publish(Draft("a", b"1"), Draft("a", b"1", trace=PARENT), Draft("a", b"1", trace=PARENT[:24] + b"\0"))
    assert PARENT[:24] == parent_of(bench.span())
    bench.provider.shutdown()


def test_what_nodes_tell_each_other_is_not_traced(bench: Bench) -> None:
    """Records of revocations and tickets have no span."""
    for channel in INTERNAL:
        assert [None] == [draft.trace for draft in bench.publish(Draft(channel, b"1"))]
    assert [] == bench.spans()


def test_an_empty_publish_has_no_span(bench: Bench) -> None:
    """It is answered as ever."""
    assert [] == bench.publish()
    assert [] == bench.spans()
    assert [[]] == bench.outcomes


class Broken(SpanProcessor):
    """A processor that an application has added, and that fails."""

    def __init__(self, at: str) -> None:
        self.at = at

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.at == "start":
            raise RuntimeError("no place")

    def on_end(self, span: ReadableSpan) -> None:
        if self.at == "end":
            raise RuntimeError("no place")


@pytest.mark.parametrize("at", ["start", "end"])
def test_a_fault_of_the_sdk_harms_no_message(bench: Bench, caplog: pytest.LogCaptureFixture, at: str) -> None:
    """Publishes and deliveries go on, and the log says once what is missing."""
    (traced,) = bench.publish(Draft("a", b"1"))
    bench.provider.add_span_processor(Broken(at))
    for _ in range(3):
        (given,) = bench.publish(Draft("a", b"1", trace=PARENT))
        bench.receive(message(traced))
        assert given.trace is not None
    bench.publish(Draft("a", b"1"), Draft("a", b"1", trace=PARENT))
    assert 5 == len(bench.outcomes)
    if at == "end":  # each was ended all the same
        assert 1 + 3 + 3 + 2 == len(bench.spans())
    assert ["tracing: a span is missing: RuntimeError('no place')"] == [r.getMessage() for r in caplog.records]


# -- servers and a collector


class Collector:
    """Takes traces by OTLP over HTTP. `spans` has them as (service, span); `status` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.status = 200
        self.hang = threading.Event()
        self.hang.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.hang.wait(60)
                assert "/v1/traces" == self.path
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    outer.spans += [(names["service.name"], s) for scope in resource.scope_spans for s in scope.spans]
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def named(self, name: str) -> list[Any]:
        """Return the spans of a name."""
        return [span for _, span in self.spans if span.name == name]

    def close(self) -> None:
        """End it."""
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    for name in [name for name in os.environ if name.startswith("OTEL_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.close()


@asynccontextmanager
async def serving(broker: str = "memory://") -> AsyncIterator[Server]:
    """Run a server that traces."""
    server = Server(Settings(port=0, broker=broker, tracing=True))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def all_live(*servers: Server) -> None:
    """Wait until each has a live subscription."""
    for _ in range(2000):
        if all(server.node.hub.live("news") for server in servers):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("they never came to be live")


async def test_one_trace_over_two_nodes(collector: Collector, tmp_path: Path) -> None:
    """A publisher's span, the publish on one node and the deliveries of both are one trace, which a listener is told.

    The publisher is the Python client inside a span of an application.
    """
    provider = TracerProvider(shutdown_on_exit=False)
    log = f"sqlite:///{tmp_path}/log.db"
    async with serving(log) as first, serving(log) as second:
        urls = [f"http://127.0.0.1:{server.port}" for server in (first, second)]
        async with (
            AsyncClient(urls[0]) as here,
            AsyncClient(urls[1]) as there,
            here.subscribe("news") as near,
            there.subscribe("news") as far,
        ):
            await all_live(first, second)
            with provider.get_tracer("app").start_as_current_span("order") as order:
                await here.publish("news", {"n": 1})
                await here.publish_many([oncecast.Outgoing("news", {"n": 2}), oncecast.Outgoing("news", "three")])
            await here.publish("news", "untraced by its publisher")
            got = [[await anext(aiter(each)) for _ in range(4)] for each in (near, far)]
    provider.shutdown()
    trace_id = format(order.get_span_context().trace_id, "032x")
    assert got[0] == got[1]
    assert [each.traceparent for each in got[0]] == [each.traceparent for each in got[1]]
    traces = [(each.traceparent or "").split("-")[1] for each in got[0]]
    assert [trace_id] * 3 == traces[:3]
    assert trace_id != traces[3]
    published = {span.span_id: span for span in collector.named("publish")}
    assert 3 == len(published)  # the batch has one
    own = order.get_span_context().span_id.to_bytes(8)
    assert [b"", own, own] == sorted(span.parent_span_id for span in published.values())
    delivered = collector.named("deliver")
    # Each node delivers what was published on either.
    assert sorted([*published] * 2) == sorted(span.parent_span_id for span in delivered)
    assert {"oncecast"} == {service for service, _ in collector.spans}
    for span in delivered:
        assert published[span.parent_span_id].trace_id == span.trace_id


async def test_a_server_without_tracing_passes_the_context_on() -> None:
    """What the publisher gave reaches the listener as it was: a header, also that of a batch, and a line's own."""
    server = Server(Settings(port=0))
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            f"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\ntraceparent: {traceparent(PARENT)}\r\n"
            "Content-Length: 1\r\n\r\n1"
            f"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\ntraceparent: {traceparent(PARENT)}\r\n"
            f"traceparent: {traceparent(PARENT)}\r\nContent-Length: 1\r\n\r\n2"
            f"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\ntraceparent: {traceparent(PARENT)}\r\n"
            f"Content-Length: {len(LINES)}\r\n\r\n{LINES}".encode()
        )
        for _ in range(4):
            await reader.readuntil(b"}\n")
        writer.close()
        async with AsyncClient(f"http://127.0.0.1:{server.port}") as client:
            page = await client.history("a")
    finally:
        await server.stop(0)
    given, other = traceparent(PARENT), traceparent(OTHER)
    assert [given, None, given, other] == [each.traceparent for each in page.messages]  # two are none


async def test_spans_in_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish inside of a span of the application is below it, by the provider that the application has set."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(api, "_TRACER_PROVIDER", provider)
    cast = Oncecast("memory://", settings=Settings(tracing=True))
    async with cast, cast.subscribe("news") as listener:
        with provider.get_tracer("app").start_as_current_span("order") as order:
            await cast.publish("news", 1)
        got = await anext(aiter(listener))
    provider.shutdown()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"order", "publish", "deliver"} == set(spans)
    assert order.get_span_context().span_id.to_bytes(8) == (parent_of(spans["publish"]) or b"")[16:]
    assert context_of(spans["publish"])[:24] == parent_of(spans["deliver"])
    assert traceparent(context_of(spans["publish"])) == got.traceparent


async def test_the_workers_of_a_server_trace(collector: Collector, tmp_path: Path) -> None:
    """Each process of `oncecast serve --tracing` sends its spans, and ends with them sent."""
    command = [sys.executable, "-m", "oncecast", "serve", "--tracing", "--workers", "2", "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--broker", f"sqlite:///{tmp_path}/log.db", cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            found = re.search(rb"http://[\d.]+:\d+", await process.stderr.readline())
            assert found is not None
            for _ in range(10):  # some on each worker
                async with AsyncClient(found[0].decode()) as client:
                    await client.publish("a", 1)
            process.terminate()
            said = (await process.stderr.read()).decode()
            assert 0 == await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "ERROR" not in said
    assert 10 == len(collector.named("publish"))


def test_the_listener_of_the_page_goes_on_with_the_trace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its span is below the one that the message carries."""
    monkeypatch.setattr(api, "get_tracer", bench.provider.get_tracer)
    (text,) = (block.text for block in blocks(ROOT / "docs" / "how-to" / "trace.md") if block.language == "python")
    scope: dict[str, Any] = {}
    exec(compile(text, "listener.py", "exec"), scope)
    scope["handle"](ClientMessage(id="e-1", channel="a", data=1, time=0.0, traceparent=traceparent(PARENT)))
    assert PARENT[:24] == parent_of(bench.span())


async def test_a_collector_that_hangs_does_not_hold_the_stop(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server serves, and stops in time; the log says what is lost."""
    monkeypatch.setattr(tracing_module, "CLOSE_SECONDS", 0.5)
    collector.hang.clear()
    loop = asyncio.get_running_loop()
    async with serving() as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        await client.publish("a", 1)
        began = loop.time()
    assert loop.time() - began < 5
    assert ["the collector did not take the last spans within 0.5 s: they are lost"] == [
        r.getMessage() for r in caplog.records if r.name == "oncecast.server.tracing"
    ]


async def test_a_collector_that_is_away_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, collector: Collector
) -> None:
    """A minute has one line about it, however often the SDK tries; messages are published all the same."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr(tracing_module, "CLOSE_SECONDS", 0.1)
    collector.status = 400
    async with serving() as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        for number in range(20):
            await client.publish("a", number)
            await asyncio.sleep(0.05)
        lines = [r.getMessage() for r in caplog.records if r.name.startswith("opentelemetry")]
    assert 1 < len({id(span) for _, span in collector.spans})
    assert 1 == len(lines), lines


async def test_a_start_that_fails_leaves_no_thread(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that sends spans ends with the server that could not begin."""
    before = set(threading.enumerate())
    seen: list[str] = []

    def senders() -> list[str]:
        return [each.name for each in set(threading.enumerate()) - before if "Otel" in each.name]

    def fail(self: Server, settings: Settings) -> None:
        seen.extend(senders())
        raise ConfigurationError("no")

    monkeypatch.setattr(Server, "_planned", fail)
    with pytest.raises(ConfigurationError, match="no"):
        await Server(Settings(port=0, tracing=True)).start()
    assert 1 == len(seen)
    assert [] == senders()


@pytest.mark.parametrize(
    "variables, error",
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, r"'grpc' is not there: set .* to 'http/protobuf'.*4318"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, r"'http/json' is not there"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "256"}, r"a variable of OpenTelemetry is wrong: max_export_batch_size"),
    ],
)
def test_variables_that_can_not_be_obeyed(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], error: str
) -> None:
    """They are an error of the settings, before anything is sent to the wrong port."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=error):
        ServerTracing().start()


@pytest.mark.parametrize(
    "variables, name",
    [
        ({}, "oncecast"),
        ({"OTEL_SERVICE_NAME": ""}, "oncecast"),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"}, "shop"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": ""}, "oncecast"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, "oncecast"),
    ],
)
async def test_the_variables_are_obeyed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    """The service has the name that they give, and an empty one counts as none."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    async with serving() as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        await client.publish("a", 1)
    assert [name] == [service for service, _ in collector.spans]


async def test_a_server_uses_the_provider_of_its_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its spans go where the application's go, whatever the variables say, and it starts no thread."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(api, "_TRACER_PROVIDER", provider)
    async with serving() as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        await client.publish("a", 1)
    assert ["publish"] == [span.name for span in exporter.get_finished_spans()]
    provider.shutdown()


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'oncecast\[otel\]'"):
        SpanTracing()
