"""Who listens to one channel, as the operator is told: the sessions of this process, and those of all together."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.subscription import SubscriptionSink
from ..http.listening import LONG_POLL, SSE, WEBSOCKET
from ..http.overview import LISTENERS, ChannelListeners, ListedListener
from ..policy.identity import ANYBODY, Identity
from ..protocol.duplex import DuplexSession
from ..protocol.events import EventStream
from ..protocol.polls import WaitingPoll
from .app import App

__all__ = ["listeners_of", "together"]

PROCESS = "process"


def listeners_of(app: App, channel: str) -> ChannelListeners:
    """Return the listeners of a channel in this process."""
    found, total = app.node.census.listening(channel, LISTENERS)
    listed = [_listed(*_peer(subscription.sink), lag) for subscription, lag in found]
    return ChannelListeners(channel, total, listed)


def together(channel: str, found: Iterable[ChannelListeners | None]) -> ChannelListeners:
    """Return the listeners of a channel in several processes."""
    each = [listeners for listeners in found if listeners is not None and listeners.channel == channel]
    listed = [row for listeners in each for row in listeners.listed]
    listed.sort(key=lambda row: (-row.lag, row.kind, row.subject or "", row.transport, row.address))
    return ChannelListeners(channel, sum(listeners.total for listeners in each), listed[:LISTENERS])


def _peer(sink: SubscriptionSink) -> tuple[str, Identity]:
    match sink:
        case EventStream():
            return SSE, sink.identity
        case DuplexSession():
            return WEBSOCKET, sink.identity
        case WaitingPoll():
            return LONG_POLL, sink.identity
        case _:
            return PROCESS, ANYBODY


def _listed(transport: str, identity: Identity, lag: int) -> ListedListener:
    return ListedListener(transport, identity.kind, identity.subject, identity.address, lag)
