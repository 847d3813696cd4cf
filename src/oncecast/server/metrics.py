"""`/metrics`, in Prometheus's text format: counters that the node and the connections keep anyway, read when asked."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from .app import App

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _AppCollector(Collector):
    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterable[Metric]:
        app = self._app
        hub, log = app.node.hub, app.node.log
        done, counted = hub.counters, app.counters
        yield _gauge("connections", "Open connections.", len(app.connections))
        yield _gauge(
            "subscriptions", "Channel subscriptions, those that catch up or are blocked included.", hub.subscriptions
        )
        yield _gauge("log_messages", "Messages held in memory.", log.count)
        yield _gauge("log_bytes", "Bytes that these messages take, their encodings included.", log.bytes)
        yield _gauge("log_head", "Sequence number of the newest message.", log.head)
        yield _counter("connections_opened", "Connections taken since the start.", counted.connections)
        yield _counter("connections_turned_away", "Connections answered with 503 at the ceiling.", counted.turned_away)
        yield _counter("publishes", "Messages published over HTTP.", counted.publishes)
        yield _counter("messages", "Messages that this node has received from its broker.", done.messages)
        yield _counter("deliveries", "Messages written to subscribers.", done.deliveries)
        yield _counter("gaps", "Gaps told to streaming subscribers that had fallen behind.", done.gaps)
        yield _counter("blocked", "Times that a subscriber's socket was full.", done.blocked)
        requests = CounterMetricFamily("oncecast_requests", "Requests answered, by status.", labels=["status"])
        for status, count in sorted(counted.requests.items()):
            requests.add_metric([str(status)], count)
        yield requests


def render(app: App) -> bytes:
    """Return the metrics as they are now."""
    registry = CollectorRegistry()
    registry.register(_AppCollector(app))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"oncecast_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"oncecast_{name}", text, value=value)
