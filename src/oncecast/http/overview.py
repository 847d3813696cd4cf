"""What `GET /v1/overview` answers: the figures of one node, all its workers together, and its channels.

Invariant: its size is bounded, whatever the clients do: it has at most `CHANNELS` channels, `LISTENERS` listeners of
one channel, and the nodes of at most `roll.MOST` other processes. Of what peers have sent it has only channels' names,
the users that tokens name, and what nodes say of themselves. To add a figure, add a field here, and fill it in
`server.overview`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from ..core.census import MOST, ORDERS, ListedChannel
from ..message import CHANNEL_SCHEMA

__all__ = [
    "CHANNELS",
    "LISTED",
    "LISTENERS",
    "ChannelListeners",
    "ConnectionCounts",
    "ListedChannels",
    "ListedListener",
    "MessageCounts",
    "NodeState",
    "Overview",
    "OverviewRequest",
    "PresentNode",
    "RefusalCount",
    "SubscriptionCounts",
    "WorkerFigures",
]

CHANNELS = MOST  # listed at most
LISTED = 50  # without a limit in the query
LISTENERS = 100  # of the channel that is asked for, listed at most

Number = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class NodeState(msgspec.Struct, frozen=True):
    """The node: all processes that serve one address together."""

    version: str
    broker: str
    """The kind of broker, as the scheme of its URL."""
    epoch: str
    """Names the log; a cursor begins with it."""
    head: Number
    """Number of the newest message."""
    ready: bool
    """Whether all its processes are ready."""
    reasons: list[str]
    """Why they are not."""
    workers: Number
    silent: Number
    """Workers that did not answer in time and are missing here."""
    restarts: Number
    broker_lag: Number
    broker_silent_seconds: Amount
    memory_bytes: Number
    cpu_seconds: Amount
    log_messages: Number
    """Held in memory, by all processes together."""
    log_bytes: Number


class PresentNode(msgspec.Struct, frozen=True):
    """A node that shares the log, as it said of itself in the last seconds."""

    name: str
    """Its host and port."""
    this: bool
    """Whether it is the node that answers."""
    processes: Number
    connections: Number
    head: Number
    """Number of the newest message that one of its processes has."""
    unready: list[str]
    """Why processes of it are not ready."""
    versions: list[str]


class WorkerFigures(msgspec.Struct, frozen=True):
    """One process."""

    pid: Number
    unready: str | None
    """Why it is not ready, or null."""
    connections: Number
    memory_bytes: Number
    cpu_seconds: Amount


class ConnectionCounts(msgspec.Struct, frozen=True):
    """Connections, and those that listen by transport."""

    open: Number
    limit: Number
    opened: Number
    turned_away: Number
    listeners: dict[str, Number]
    """Streams, sockets and long polls that wait."""
    listens: dict[str, Number]
    """How many have begun since the start; every short poll is one."""


class SubscriptionCounts(msgspec.Struct, frozen=True):
    """Who listens, and how many of them are behind."""

    open: Number
    catching_up: Number
    blocked: Number
    lag: Number
    """Numbers of the log by which the one that is furthest behind is behind."""


class MessageCounts(msgspec.Struct, frozen=True):
    """Counts since the start. The difference of two answers is a rate."""

    published: Number
    """That this node was asked to publish."""
    received: Number
    """From the broker, by all processes together: each of them gets every message."""
    delivered: Number
    gaps: dict[str, Number]


class RefusalCount(msgspec.Struct, frozen=True):
    """How often something was refused since the start."""

    transport: str
    code: str
    count: Number


class ListedChannels(msgspec.Struct, frozen=True):
    """The first channels by the order. Only what this node holds or serves is known here."""

    order: str
    total: Number
    """How many there are; with several workers that have more than they list, at least."""
    complete: bool
    """False where listeners may be missing, as there are too many channels, or too many that are behind."""
    listed: list[ListedChannel]


class ListedListener(msgspec.Struct, frozen=True):
    """One that listens to the channel."""

    transport: str
    """`sse`, `websocket`, `long-poll`, or `process` for an application that hosts the server."""
    kind: str
    """`token` or `server`, by what it has shown, else `anybody`."""
    subject: str | None
    """The user of its token, or the name of its key."""
    address: str
    """Its IP address; empty where it has none."""
    lag: Number
    """Numbers of the log from its place to the newest message."""


class ChannelListeners(msgspec.Struct, frozen=True):
    """Who listens to one channel at this node, the furthest behind first."""

    channel: str
    total: Number
    listed: list[ListedListener]


class Overview(msgspec.Struct, frozen=True):
    """What goes on at one node."""

    time: Amount
    """When it was made, in Unix seconds."""
    node: NodeState
    workers: list[WorkerFigures]
    connections: ConnectionCounts
    subscriptions: SubscriptionCounts
    messages: MessageCounts
    refusals: list[RefusalCount]
    """The most frequent first."""
    limited: dict[str, Number]
    """What a limit of the settings has refused, by its name."""
    nodes: list[PresentNode]
    """This one, and those that share its log: others are here a second or two after the first look."""
    channels: ListedChannels
    listeners: ChannelListeners | None = None
    """Of the channel of the query, if it has one."""


FIELDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "order": ("The order of the channels.", {"enum": list(ORDERS), "default": "rate"}),
    "limit": ("The most channels to list.", {"type": "integer", "minimum": 0, "maximum": CHANNELS, "default": LISTED}),
    "channel": ("A channel whose listeners to list.", {"type": "string", **CHANNEL_SCHEMA}),
}
"""The fields of the query, with the text and the schema of each."""


class OverviewRequest(NamedTuple):
    """What the query asks for: channels by an order, at most so many; and the listeners of one channel."""

    order: str = "rate"
    limit: int = LISTED
    channel: str | None = None
