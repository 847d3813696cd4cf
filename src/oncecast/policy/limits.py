"""What one peer may cost: every limit once, with its name, default, range, unit and one-line explanation.

All rooms read the limits from this one struct. The settings file, its checks, the reference page and the example file
are made from it. To add a limit, add a field with its `Meta`, and use it where the cost arises.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ..message import CHANNEL_CHARS

MIB = 1024 * 1024
QUERY_BYTES = 512  # room in a URL for the path's prefix and every field of a query, percent-encoded

# Ranges that several limits have.
Deadline = Annotated[float, Meta(ge=0.1, le=3600)]  # seconds
Duration = Annotated[float, Meta(ge=0, le=3600)]  # seconds
Rate = Annotated[float, Meta(ge=1, le=1_000_000)]  # a second
MessageRate = Annotated[float, Meta(ge=1, le=10_000_000)]  # messages a second
ByteRate = Annotated[float, Meta(ge=1024, le=2**40)]  # bytes a second
CountLimit = Annotated[int, Meta(ge=1, le=10_000_000)]
OptionalCountLimit = Annotated[int, Meta(ge=0, le=10_000_000)]  # 0 means that there is no limit of this kind


class Limits(Struct, frozen=True, kw_only=True):
    """What one peer may cost. Bytes, seconds and counts; each past its limit is refused with a coded error."""

    header_bytes: Annotated[
        int, Meta(ge=1024, le=4 * MIB, description="Bytes of a request's head; past that, 431.")
    ] = 32768
    header_count: Annotated[int, Meta(ge=8, le=10_000, description="Header fields in a request; past that, 431.")] = 100
    url_bytes: Annotated[int, Meta(ge=128, le=2 * MIB, description="Bytes of a request's target; past that, 414.")] = (
        16384
    )
    body_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=1024 * MIB,
            description="Bytes of a request's body, and never less than message_bytes; past that, 413.",
        ),
    ] = MIB
    message_bytes: Annotated[
        int, Meta(ge=1, le=64 * MIB, description="Bytes of one message's data; past that, 413 or close 1009.")
    ] = MIB
    unfinished_bytes: Annotated[
        int,
        Meta(
            ge=MIB,
            le=2**40,
            description="Bytes of unfinished requests and messages per worker; past that the oldest is refused, 503.",
        ),
    ] = 64 * MIB
    unsent_bytes: Annotated[
        int,
        Meta(
            ge=16 << 10,
            le=1024 * MIB,
            description="Bytes that the kernel holds unsent for a connection; past that its client is behind.",
        ),
    ] = 256 << 10
    channels_per_subscription: Annotated[
        int, Meta(ge=1, le=10_000, description="Channels that one connection may listen to.")
    ] = 64
    handshakes: Annotated[
        int, Meta(ge=8, le=1_000_000, description="TLS handshakes under way per worker; past that the oldest is cut.")
    ] = 512
    head_seconds: Annotated[
        float, Meta(ge=0.1, le=600, description="Seconds for a request's head to arrive; past that, 408.")
    ] = 10.0
    body_seconds: Annotated[Deadline, Meta(description="Seconds for a request's body to arrive; past that, 408.")] = (
        30.0
    )
    answer_seconds: Annotated[
        Deadline, Meta(description="Seconds in which a client must take some of its answer, or is cut off.")
    ] = 30.0
    keep_alive_seconds: Annotated[
        Duration, Meta(description="Seconds that an idle connection is kept for its next request.")
    ] = 75.0
    wait_seconds: Annotated[Duration, Meta(description="Longest wait, in seconds, that a long poll may ask for.")] = (
        60.0
    )
    heartbeat_seconds: Annotated[
        Deadline, Meta(description="Seconds between heartbeats; stay below your proxy's timeout.")
    ] = 15.0
    drain_seconds: Annotated[
        Duration, Meta(description="Seconds that subscribers get to move on when a server stops.")
    ] = 30.0
    drain_per_second: Annotated[
        Rate, Meta(description="Subscribers a second that a stopping server ends, all workers together.")
    ] = 1000.0
    publish_wait_seconds: Annotated[
        float, Meta(ge=0, le=60, description="Longest wait of a publish for a broker that is away; past that, 503.")
    ] = 0.0
    poll_messages: Annotated[int, Meta(ge=1, le=100_000, description="Most messages in the answer to one poll.")] = 1000
    connections: Annotated[
        OptionalCountLimit,
        Meta(description="Open connections per worker, and 32 more for publishes and probes; 0: as open files allow."),
    ] = 0
    frames_per_second: Annotated[
        Rate, Meta(description="Frames a second, publishes apart, that one WebSocket may go on sending.")
    ] = 200.0
    publishes_per_second: Annotated[
        MessageRate, Meta(description="Messages a second that one connection may go on publishing.")
    ] = 5000.0
    bytes_per_second: Annotated[
        ByteRate, Meta(description="Bytes of messages a second that one connection may go on publishing.")
    ] = float(16 * MIB)
    history_pages_per_second: Annotated[
        Rate,
        Meta(description="Polls and begins of a replay a second, of one connection, that read the broker's history."),
    ] = 200.0
    connections_in_all: Annotated[
        OptionalCountLimit,
        Meta(description="Open connections of all workers together; past that, as past connections; 0: no limit."),
    ] = 0
    connections_per_address: Annotated[
        CountLimit, Meta(description="Open connections of one address, all workers together; past that, 429.")
    ] = 1000
    connections_per_user: Annotated[
        CountLimit,
        Meta(
            description="Streams, sockets and waiting polls of one token's user, all workers together; past that, 429."
        ),
    ] = 100
    connects_per_second: Annotated[
        Rate, Meta(description="New connections a second of one address; past that, 429.")
    ] = 200.0
    handshakes_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Connections of one address that have asked for nothing yet, all workers together; then 429.",
        ),
    ] = 200
    user_publishes_per_second: Annotated[
        MessageRate,
        Meta(description="Messages a second that one user may go on publishing, on all connections; past that, 429."),
    ] = 5000.0
    user_bytes_per_second: Annotated[
        ByteRate, Meta(description="Bytes of messages a second of one user, on all connections; then 429.")
    ] = float(16 * MIB)
    user_tickets_per_second: Annotated[
        Rate, Meta(description="Tickets a second that one user may go on asking for, on all connections; then 429.")
    ] = 20.0
    user_history_pages_per_second: Annotated[
        Rate, Meta(description="As history_pages_per_second, of one user, on all connections; past that, 429.")
    ] = 1000.0


def longest_url(channels: int) -> int:
    """Return the bytes of the longest target with this number of channels: a poll can name as many as a WebSocket."""
    return QUERY_BYTES + channels * (CHANNEL_CHARS + len(","))
