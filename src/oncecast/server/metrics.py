"""The metrics: counters that the node and the connections keep anyway, and where they are read from at a scrape.

Invariant: no label has what a peer has sent. To add a metric, add a line to `METRICS`, `LABELLED` or `DELAYS`.
`measures.py` has what they have measured, and `exposition.py` writes it.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..brokers.meters import Metered, Meters
from ..core.delays import Histogram
from ..http.listening import LONG_POLL, SHORT_POLL, SSE, WEBSOCKET
from ..message import Reason
from ..policy.quotas import LIMITED
from .app import App

__all__ = ["DELAYS", "LABELLED", "METRICS"]

_STATM = Path("/proc/self/statm")  # proc(5): the second number is the resident pages


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    text: str
    read: Callable[[App], float]
    counter: bool = False
    join: Callable[[Iterable[float]], float] = sum


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A metric of a value for each label; those `known` are shown at 0 too. The values of workers are added."""

    name: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[App], Mapping[str, float]]
    counter: bool = True
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Delay:
    name: str
    text: str
    read: Callable[[App], Histogram]


def _counter(name: str, text: str, read: Callable[[App], float]) -> _Metric:
    return _Metric(name, text, read, counter=True)


def _published(app: App) -> float:
    """Return what was published here, without what nodes tell each other."""
    return app.node.publishes - (0 if app.bulletin is None else app.bulletin.written)


def _delivered(app: App) -> float:
    return app.node.hub.counters.deliveries - (0 if app.bulletin is None else app.bulletin.read)


_NO_METERS = Meters()


def _meters(app: App) -> Meters:
    """Return what the broker counts; zeros where it counts nothing."""
    broker = app.node.broker
    return broker.meters if isinstance(broker, Metered) else _NO_METERS


def _behind(app: App) -> float:
    return max(0, _meters(app).head - app.node.log.head)


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


def _resident() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_bytes().split()[1]) * float(resource.getpagesize())
    return 0.0


def _requests(app: App) -> Mapping[str, float]:
    requests = {str(status): count for status, count in app.counters.requests.items()}
    if app.counters.remembered:
        requests["200"] = requests.get("200", 0) + app.counters.remembered
    return requests


def _listens(app: App) -> Mapping[str, float]:
    listens = app.counters.listens
    return {**listens, SHORT_POLL: listens.get(SHORT_POLL, 0) + app.counters.remembered}


def _limited(app: App) -> Mapping[str, float]:
    return {} if app.settings.quotas is None else app.settings.quotas.refused


METRICS = (
    _Metric("ready", "Processes that are ready, as /readyz says.", lambda app: app.unready is None),
    _Metric("connections", "Open connections.", lambda app: len(app.connections)),
    _Metric(
        "connections_limit",
        "Connections that may be open, by limits.connections and the limit of open files.",
        lambda app: app.admission.capacity.ceiling,
    ),
    _Metric(
        "subscriptions",
        "Channel subscriptions, those that catch up or are blocked included.",
        lambda app: app.node.hub.subscriptions,
    ),
    _Metric(
        "subscriptions_catching_up",
        "Subscriptions that read what they have missed.",
        lambda app: app.node.hub.behind().catching_up,
    ),
    _Metric(
        "subscriptions_blocked",
        "Subscriptions whose socket is full.",
        lambda app: app.node.hub.behind().blocked,
    ),
    _Metric(
        "subscription_lag",
        "Numbers of the log from the place of the subscription that is furthest behind to the newest message. Of many "
        "that are behind, the 2000 that have been for longest are looked at.",
        lambda app: app.node.hub.behind().lag,
        join=max,
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
    _counter(
        "publishes", "Messages that this node was asked to publish, without what nodes tell each other.", _published
    ),
    _Metric(
        "publishes_waiting",
        "Messages that wait for the broker to come back: limits.publish_wait_seconds.",
        lambda app: len(app.node.held),
    ),
    _counter(
        "messages",
        "Messages that this node has received from its broker, with what nodes tell each other.",
        lambda app: app.node.hub.counters.messages,
    ),
    _counter("deliveries", "Messages written to subscribers, without what nodes tell each other.", _delivered),
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
        lambda app: _meters(app).seconds(time.monotonic()),
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
        lambda app: _meters(app).refused,
    ),
    _counter(
        "broker_foreign",
        "Times that a record of the broker was left out, as it is damaged or not Oncecast's.",
        lambda app: _meters(app).foreign,
    ),
    _Metric("memory_bytes", "Resident memory of the processes.", lambda app: _resident()),
    _counter("cpu_seconds", "CPU time of the processes.", lambda app: time.process_time()),
    _counter("broker_pages", "Pages of the broker's history that were asked for.", lambda app: app.node.pages),
)


LABELLED = (
    _Labelled(
        "listeners",
        "Streams, sockets and long polls that wait, by transport.",
        ("transport",),
        lambda app: app.listeners,
        counter=False,
        known=(LONG_POLL, SSE, WEBSOCKET),
    ),
    _Labelled(
        "listens",
        "Polls that were allowed, and streams and sockets that were opened, by transport.",
        ("transport",),
        _listens,
        known=(SHORT_POLL, LONG_POLL, SSE, WEBSOCKET),
    ),
    _Labelled(
        "gaps",
        "Gaps reported to subscribers and in the answers to polls, by reason.",
        ("reason",),
        lambda app: {reason.value: count for reason, count in app.node.hub.counters.gaps.items()},
        known=tuple(Reason),
    ),
    _Labelled("requests", "Requests answered, by status.", ("status",), _requests),
    _Labelled(
        "refusals",
        "Requests, frames and lines of a batch answered with an error, and streams and sockets closed with one, by "
        "transport and the error's code; a close by the first error that has its close code, or by the number.",
        ("transport", "code"),
        lambda app: {" ".join(labels): count for labels, count in app.refusals.counts.items()},
    ),
    _Labelled(
        "limited",
        "Connections, subscriptions, messages and reads refused by a limit, and connections closed by one, by the "
        "limit's name.",
        ("limit",),
        _limited,
        known=tuple(LIMITED),
    ),
    _Labelled(
        "unready",
        "Processes that are not ready, by the reason that /readyz gives.",
        ("reason",),
        lambda app: {} if app.unready is None else {app.unready: 1},
        counter=False,
    ),
    _Labelled(
        "info",
        "Processes by their version and their broker's kind.",
        ("version", "broker"),
        lambda app: {f"{__version__} {app.broker}": 1},
        counter=False,
    ),
)

# Of each at most 20 values a second are measured in each process, so `_count` is no number of messages.
DELAYS = (
    _Delay(
        "publish_ack_seconds",
        "From a publish on this node to the broker's acknowledgement: of one publish in 50 ms.",
        lambda app: app.node.delays.acknowledged,
    ),
    _Delay(
        "publish_write_seconds",
        "From a publish on this node to its write to the live subscribers of this node: of one publish in 50 ms.",
        lambda app: app.node.delays.written,
    ),
    _Delay(
        "delivery_age_seconds",
        "How old a message was, by the time that the broker gave it, when it was written to the live subscribers: of "
        "the oldest of one turn in 50 ms. Clocks that differ make it differ.",
        lambda app: app.node.delays.ages,
    ),
    _Delay("loop_late_seconds", "How late the event loop was, 20 times a second.", lambda app: app.stalls),
)
