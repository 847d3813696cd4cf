"""Spans of OpenTelemetry: one for each publish, and one on each node that delivers what was published.

The span of a publish continues the trace that its publisher gave, or begins one. Its context goes into the messages, so
that the spans of all nodes, and of listeners that read it, are of one trace. How much is sampled and where the spans
go is the SDK's to know, by the variables that its specification names.

Invariants: one call makes at most `SPANS`, and each span that was begun is ended; a fault in the SDK, or in what the
application has added to it, is logged and changes nothing for a message.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from .. import __version__
from ..brokers.base import Done, Outcome
from ..brokers.complaints import REMIND_SECONDS, Complaints
from ..brokers.worker import run_in_thread
from ..errors import ConfigurationError, Refusal
from ..message import INTERNAL, Draft, Message
from ..wire.traceparent import sampled_trace, unpack_trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

__all__ = ["CLOSE_SECONDS", "SPANS", "ServerTracing", "SpanTracing"]

logger = logging.getLogger("oncecast.server.tracing")

SPANS = 100  # of one publish, or of what the broker delivers at once: each takes some 40 µs
CLOSE_SECONDS = 2.0  # for the last spans to reach the collector
PROTOCOL = "http/protobuf"  # the one that the extra has
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")  # the first one counts
UNNAMED = "unknown_service"  # what the SDK calls a service that no variable names
SDK_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class SpanTracing:
    """A `core.tracing.Tracing` that makes the spans by a tracer; without one it makes none.

    By default the tracer is that of the provider which the application has set, now or later. Raises
    `ConfigurationError` where OpenTelemetry is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError:
            raise _missing() from None
        self._api = trace
        self._nothing = context.Context()  # what is current where a publish arrives is no parent of it
        self.tracer: Tracer | None = trace.get_tracer("oncecast", __version__)
        self._complaints = Complaints("tracing:", time.monotonic, logger)

    def publish(self, drafts: Sequence[Draft], done: Done) -> tuple[Sequence[Draft], Done]:
        """See `core.tracing.Tracing`."""
        tracer = self.tracer
        if tracer is None or not drafts or drafts[0].channel in INTERNAL:
            return drafts, done
        groups: dict[bytes | None, list[Draft]] = {}
        for draft in drafts:
            if draft.trace in groups or len(groups) < SPANS:
                groups.setdefault(draft.trace, []).append(draft)
        begun: dict[bytes | None, Span] = {}
        contexts: dict[bytes | None, bytes | None] = {}
        try:
            for trace, group in groups.items():
                begun[trace] = span = self._begin_publish(tracer, trace, group)
                contexts[trace] = _context_of(span, trace)
        except Exception as error:  # noqa: BLE001 - what the application has added to the SDK may raise anything
            self._complain(error)
        traced = [_with_trace(draft, contexts.get(draft.trace, draft.trace)) for draft in drafts]
        return traced, partial(self._published, begun, [draft.trace for draft in drafts], done)

    def receive(self, messages: Sequence[Message], live: Callable[[str], int]) -> Callable[[], None] | None:
        """See `core.tracing.Tracing`."""
        tracer = self.tracer
        if tracer is None:
            return None
        groups: dict[bytes, list[Message]] = {}
        for message in messages:
            trace = message.trace
            if trace is not None and (trace in groups or len(groups) < SPANS) and live(message.channel):
                groups.setdefault(trace, []).append(message)
        if not groups:
            return None
        spans: list[Span] = []
        try:
            for trace, group in groups.items():
                spans.append(self._begin_delivery(tracer, trace, group, live))
        except Exception as error:  # noqa: BLE001 - as above
            self._complain(error)
        return partial(self._end, spans)

    # -- helpers

    def _begin_publish(self, tracer: Tracer, trace: bytes | None, drafts: list[Draft]) -> Span:
        size = sum(len(draft.data) for draft in drafts)
        attributes: dict[str, str | int] = {"messaging.operation.type": "send", "messaging.message.body.size": size}
        channels = [draft.channel for draft in drafts]
        return self._begin(tracer, "publish", self._api.SpanKind.PRODUCER, trace, channels, attributes)

    def _begin_delivery(
        self, tracer: Tracer, trace: bytes, messages: list[Message], live: Callable[[str], int]
    ) -> Span:
        channels = [message.channel for message in messages]
        subscriptions = sum(live(channel) for channel in set(channels))
        attributes: dict[str, str | int] = {
            "messaging.operation.type": "process",
            "oncecast.subscriptions": subscriptions,
        }
        return self._begin(tracer, "deliver", self._api.SpanKind.CONSUMER, trace, channels, attributes)

    def _begin(
        self,
        tracer: Tracer,
        name: str,
        kind: SpanKind,
        trace: bytes | None,
        channels: list[str],
        attributes: dict[str, str | int],
    ) -> Span:
        """Begin a span below that of a context. Its attributes are those of the messaging conventions."""
        api = self._api
        attributes |= {"messaging.system": "oncecast", "messaging.operation.name": name}
        if len(set(channels)) == 1:
            attributes["messaging.destination.name"] = channels[0]
        if len(channels) > 1:
            attributes["messaging.batch.message_count"] = len(channels)
        context = self._nothing
        if trace is not None:
            trace_id, span_id, flags = unpack_trace(trace)
            parent = api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=api.TraceFlags(flags))
            context = api.set_span_in_context(api.NonRecordingSpan(parent), context)
        return tracer.start_span(name, context, kind, attributes)

    def _published(
        self, spans: dict[bytes | None, Span], traces: list[bytes | None], done: Done, outcomes: Sequence[Outcome]
    ) -> None:
        counts = Counter(traces)
        try:
            for trace, outcome in zip(traces, outcomes, strict=True):
                span = spans.get(trace)
                if span is None:
                    continue
                if isinstance(outcome, Refusal):
                    span.set_attribute("error.type", outcome.code)
                    span.set_status(self._api.StatusCode.ERROR, outcome.message)
                elif counts[trace] == 1:  # the conventions have no place for several
                    span.set_attribute("messaging.message.id", outcome.id)
        except Exception as error:  # noqa: BLE001 - as above
            self._complain(error)
        self._end(spans.values())
        done(outcomes)

    def _end(self, spans: Iterable[Span]) -> None:
        for span in spans:
            try:
                span.end()
            except Exception as error:  # noqa: BLE001 - as above
                self._complain(error)

    def _complain(self, error: Exception) -> None:
        self._complaints.complain(f"a span is missing: {error!r}")


class ServerTracing(SpanTracing):
    """Tracing of a server: by the provider that its application has set, or by one of its own that sends by OTLP."""

    def __init__(self) -> None:
        super().__init__()
        self.tracer = None  # until the start
        self._provider: TracerProvider | None = None
        self._filters = [(logging.getLogger(name), _Reminders()) for name in SDK_LOGGERS]

    def start(self) -> None:
        """Make spans from now on. Without a provider of the application a thread is started that sends them.

        Raises `ConfigurationError` where the extra is not installed, or the variables can't be obeyed.
        """
        if isinstance(self._api.get_tracer_provider(), self._api.ProxyTracerProvider):
            try:
                self._provider = _own_provider()
            except ValueError as error:
                raise ConfigurationError(f"tracing: a variable of OpenTelemetry is wrong: {error}") from None
            for sdk_logger, reminders in self._filters:
                sdk_logger.addFilter(reminders)
            self.tracer = self._provider.get_tracer("oncecast", __version__)
        else:
            self.tracer = self._api.get_tracer("oncecast", __version__)

    async def close(self) -> None:
        """Make no more spans, and send those that wait, for `CLOSE_SECONDS` at most."""
        self.tracer = None
        provider, self._provider = self._provider, None
        if provider is not None:
            for sdk_logger, reminders in self._filters:
                sdk_logger.removeFilter(reminders)
            try:
                await run_in_thread("tracing", provider.shutdown, CLOSE_SECONDS, lambda _: None)
            except TimeoutError:
                logger.warning("the collector did not take the last spans within %g s: they are lost", CLOSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever the exporter raises, the server stops
                self._complain(error)


class _Reminders(logging.Filter):
    """Lets each line pass once in `REMIND_SECONDS`: without a collector the SDK logs one a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, float] = {}  # by the line of the SDK

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether it is time for a line."""
        now = time.monotonic()
        if now - self._said.get(record.lineno, -REMIND_SECONDS) < REMIND_SECONDS:
            return False
        self._said[record.lineno] = now
        return True


def _own_provider() -> TracerProvider:
    """Return a provider that sends by OTLP as the variables say. Raises `ConfigurationError` and `ValueError`."""
    protocol = next(filter(None, map(os.environ.get, PROTOCOL_VARIABLES)), PROTOCOL)
    if protocol != PROTOCOL:
        text = f"the protocol {protocol!r} is not there: set {PROTOCOL_VARIABLES[1]} to {PROTOCOL!r}"
        raise ConfigurationError(f"tracing: {text}, and the endpoint to that port of the collector, usually 4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise _missing() from None
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        resource = resource.merge(Resource({SERVICE_NAME: "oncecast"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _missing() -> ConfigurationError:
    return ConfigurationError("tracing needs OpenTelemetry: pip install 'oncecast[otel]'")


def _context_of(span: Span, given: bytes | None) -> bytes | None:
    """Return the context of a span that is sampled; else what was given, which says so itself."""
    trace = sampled_trace(span.get_span_context())
    return given if trace is None else trace


def _with_trace(draft: Draft, trace: bytes | None) -> Draft:
    return draft if trace == draft.trace else structs.replace(draft, trace=trace)
