"""`/metrics`, in Prometheus's text format: counters that the node and the connections keep anyway, read at the scrape.

Invariant: the measures of several workers are shown as one server's: as sums, or as the maximum where all measure the
same thing. To add a metric, add a line to `METRICS`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ..brokers.meters import Metered
from ..policy.quotas import LIMITED
from .app import App

__all__ = ["ALONE", "CONTENT_TYPE", "Crew", "Measures", "add", "lasting", "measure", "render"]

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Measures(msgspec.Struct, frozen=True):
    """What one process has measured, or several together: values by their metric's name, and requests by status.

    `unready` counts the processes that are not ready, by the reason. `limited` counts refusals, by the limit.
    """

    values: dict[str, float] = {}
    requests: dict[int, int] = {}
    unready: dict[str, int] = {}
    limited: dict[str, int] = {}


class Crew(msgspec.Struct, frozen=True):
    """How many workers serve, how many were restarted, and how many did not answer in time."""

    workers: int = 1
    restarts: int = 0
    silent: int = 0


ALONE = Crew()


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    text: str
    read: Callable[[App], float]
    counter: bool = False
    join: Callable[[Iterable[float]], float] = sum


def _counter(name: str, text: str, read: Callable[[App], float]) -> _Metric:
    return _Metric(name, text, read, counter=True)


def _refused(app: App) -> float:
    broker = app.node.broker
    return broker.meters.refused if isinstance(broker, Metered) else 0


def _behind(app: App) -> float:
    broker = app.node.broker
    return max(0, broker.meters.head - app.node.log.head) if isinstance(broker, Metered) else 0


def _silent(app: App) -> float:
    broker = app.node.broker
    return broker.meters.seconds(time.monotonic()) if isinstance(broker, Metered) else 0


def _remembered(app: App) -> float:
    return app.authentications.remembered


def _revocations(app: App) -> float:
    return 0 if app.bulletin is None else len(app.bulletin.revoked)


def _forgotten(app: App) -> float:
    return 0 if app.bulletin is None else app.bulletin.forgotten


def _dropped(app: App) -> float:
    return 0 if app.logs is None else app.logs.dropped


def _audited(app: App) -> float:
    return 0 if app.logs is None else app.logs.refused


def _fetches(app: App, name: str) -> float:
    return 0 if app.issuer is None else float(getattr(app.issuer, name))


METRICS = (
    _Metric("ready", "Processes that are ready, as /readyz says.", lambda app: app.unready is None),
    _Metric("connections", "Open connections.", lambda app: len(app.connections)),
    _Metric(
        "subscriptions",
        "Channel subscriptions, those that catch up or are blocked included.",
        lambda app: app.node.hub.subscriptions,
    ),
    _Metric("log_messages", "Messages held in memory.", lambda app: app.node.log.count),
    _Metric("log_bytes", "Bytes that these messages take, their encodings included.", lambda app: app.node.log.bytes),
    _Metric("log_head", "Sequence number of the newest message.", lambda app: app.node.log.head, join=max),
    _counter("connections_opened", "Connections taken since the start.", lambda app: app.admission.opened),
    _counter(
        "connections_turned_away",
        "Connections answered with 503, as the server was full.",
        lambda app: app.admission.turned_away,
    ),
    _counter(
        "connections_unnamed",
        "Connections closed, as they had no header of the PROXY protocol, a malformed one, or came from no proxy.",
        lambda app: app.admission.unnamed,
    ),
    _Metric(
        "unfinished_bytes", "Bytes of requests and messages that are not whole yet.", lambda app: app.unfinished.total
    ),
    _counter(
        "unfinished_refused",
        "Unfinished requests and messages refused, as all together took too much.",
        lambda app: app.unfinished.refused,
    ),
    _counter("tokens_verified", "Tokens whose signature was verified.", lambda app: app.authentications.verified),
    _counter("tokens_remembered", "Requests with a token that was verified before.", _remembered),
    _counter("credentials_refused", "Tokens and keys that were refused.", lambda app: app.authentications.refused),
    _Metric("revocations", "Users whose older tokens are refused, of 100000 at most.", _revocations, join=max),
    _counter("revocations_forgotten", "Revocations that were given up for newer ones, past that.", _forgotten),
    _counter("issuer_fetches", "Fetches of the issuer's keys that brought them.", lambda app: _fetches(app, "fetched")),
    _counter("issuer_failures", "Fetches of the issuer's keys that failed.", lambda app: _fetches(app, "failed")),
    _counter("audited", "Refusals that the audit log has had, those past 20 lines a second included.", _audited),
    _counter("log_lines_dropped", "Lines of a process's three logs that nobody took in time.", _dropped),
    _Metric("tls_handshakes", "TLS handshakes under way.", lambda app: app.tls.handshakes),
    _counter(
        "tls_handshakes_failed", "TLS handshakes that were refused, broken off or late.", lambda app: app.tls.failed
    ),
    _counter(
        "tls_handshakes_cut",
        "TLS handshakes cut for newer ones, past limits.handshakes or in a full server.",
        lambda app: app.tls.cut,
    ),
    _counter("tls_plain_requests", "Requests without TLS to a port with TLS, answered 400.", lambda app: app.tls.plain),
    _Metric(
        "tls_certificate_expires_seconds",
        "Unix time at which the first of the certificates that are served ends; 0 without TLS.",
        lambda app: app.tls.expires,
        join=min,
    ),
    _counter(
        "tls_renewals_refused",
        "Renewed certificates that can't serve, so that the old ones are served on.",
        lambda app: app.tls.renewals_refused,
    ),
    _counter("publishes", "Messages published over HTTP.", lambda app: app.counters.publishes),
    _counter(
        "messages", "Messages that this node has received from its broker.", lambda app: app.node.hub.counters.messages
    ),
    _counter("deliveries", "Messages written to subscribers.", lambda app: app.node.hub.counters.deliveries),
    _counter(
        "gaps", "Gaps reported to streaming subscribers that had fallen behind.", lambda app: app.node.hub.counters.gaps
    ),
    _counter("blocked", "Times that a subscriber's socket was full.", lambda app: app.node.hub.counters.blocked),
    _Metric(
        "broker_lag",
        "Numbers of the log between this node's head and the newest acknowledgement that it has received.",
        _behind,
        join=max,
    ),
    _Metric(
        "broker_silent_seconds",
        "Seconds since the broker's last probe came back: above 3 it is away. 0 on a file and in memory.",
        _silent,
        join=max,
    ),
    _counter("broker_returns", "Times that the broker was away and came back.", lambda app: app.node.returns),
    _counter(
        "broker_holes",
        "Ranges of the log in which acknowledged messages may be lost, reported while this node ran.",
        lambda app: app.node.holes,
    ),
    _counter(
        "broker_refused",
        "Messages that a broker on another machine refused, or did not acknowledge before its connection was lost.",
        _refused,
    ),
    _counter("broker_pages", "Pages of the broker's history that were asked for.", lambda app: app.node.pages),
)


def measure(app: App) -> Measures:
    """Return what this process has measured up to now."""
    values = {metric.name: float(metric.read(app)) for metric in METRICS}
    reason = app.unready
    quotas = app.settings.quotas
    limited = {} if quotas is None else dict(quotas.refused)
    return Measures(values, dict(app.counters.requests), {} if reason is None else {reason: 1}, limited)


def add(measured: Iterable[Measures]) -> Measures:
    """Return what several processes have measured together."""
    found = list(measured)
    if not found:
        return Measures()
    requests: Counter[int] = Counter()
    unready: Counter[str] = Counter()
    limited: Counter[str] = Counter()
    for each in found:
        requests.update(each.requests)
        unready.update(each.unready)
        limited.update(each.limited)
    values = {metric.name: metric.join([each.values.get(metric.name, 0) for each in found]) for metric in METRICS}
    return Measures(values, dict(requests), dict(unready), dict(limited))


def lasting(measures: Measures) -> Measures:
    """Return the counters of a process that has ended, without which the sum would go backwards."""
    values = {m.name: measures.values.get(m.name, 0) for m in METRICS if m.counter}
    return Measures(values, measures.requests, limited=measures.limited)


def render(measures: Measures, crew: Crew = ALONE) -> bytes:
    """Return measures in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Families(measures, crew))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, measures: Measures, crew: Crew) -> None:
        self._measures = measures
        self._crew = crew

    def collect(self) -> Iterable[Metric]:
        for metric in METRICS:
            family = CounterMetricFamily if metric.counter else GaugeMetricFamily
            yield family(f"oncecast_{metric.name}", metric.text, value=self._measures.values.get(metric.name, 0))
        requests = CounterMetricFamily("oncecast_requests", "Requests answered, by status.", labels=["status"])
        for status, count in sorted(self._measures.requests.items()):
            requests.add_metric([str(status)], count)
        yield requests
        limited = CounterMetricFamily(
            "oncecast_limited",
            "Connections, messages and reads refused by a limit, and connections closed by one, by the limit's name.",
            labels=["limit"],
        )
        for name in LIMITED:
            limited.add_metric([name], self._measures.limited.get(name, 0))
        yield limited
        unready = GaugeMetricFamily(
            "oncecast_unready", "Processes that are not ready, by the reason that /readyz gives.", labels=["reason"]
        )
        for reason, count in sorted(self._measures.unready.items()):
            unready.add_metric([reason], count)
        yield unready
        crew = self._crew
        yield GaugeMetricFamily("oncecast_workers", "Processes that serve.", value=crew.workers)
        yield CounterMetricFamily(
            "oncecast_worker_restarts", "Workers that ended unasked and were replaced.", value=crew.restarts
        )
        yield GaugeMetricFamily(
            "oncecast_workers_silent", "Workers that did not answer and are missing here.", value=crew.silent
        )
