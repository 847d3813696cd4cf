"""Blocks of bytes, and the calls of sinks.

Invariants
* An exception that a sink or a format raises is reported, and the other subscribers get their messages.
* While a delivery runs, a subscription that has ended is not written to, and one whose sink is full gets its block by
  way of the sink: its socket may hold unsent bytes, and its descriptor may be another connection's by now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

from ..errors import Refusal
from ..message import LogGap, Reason
from .audience import Audiences
from .entry import Entry
from .log import Log
from .subscription import CLOSED, LIVE, Descriptor, Format, Subscription, SubscriptionSink

Write = tuple[Subscription, bytes]  # a block, and the subscription that it goes to
Sending = tuple[Subscription, Descriptor, bytes]  # the same, with the descriptor of its socket
# As `os.write`: how many bytes the descriptor took, or OSError. One that took all and is full now returns more:
# its sink's `write` is then called with no bytes, and may say that it is `blocked`.
Send = Callable[[Descriptor, bytes], int]


@dataclass(slots=True)
class DeliveryCounters:
    """What the hub has done since it began."""

    messages: int = 0
    deliveries: int = 0
    gaps: Counter[Reason] = field(default_factory=Counter)
    blocked: int = 0
    pages: int = 0  # read from the history


class Delivery:
    """Makes blocks and hands them to sinks and sockets.

    `running` is True while the live subscriptions are written to. `full` has the subscriptions whose sink has filled up
    meanwhile, and whether that makes them slow. `disturbed` is set once one of them has ended or has filled up.
    `skipped` has those that were not written to, as the write of another had ended them.
    """

    __slots__ = ("_log", "_on_fault", "_send", "counters", "disturbed", "full", "running", "skipped")

    def __init__(self, log: Log, on_fault: Callable[[Exception], None], send: Send) -> None:
        self.counters = DeliveryCounters()
        self.running = False
        self.disturbed = False
        self.full: dict[Subscription, bool] = {}
        self.skipped: list[Subscription] = []
        self._log = log
        self._on_fault = on_fault
        self._send = send

    def deliver(self, turn: list[Entry], audiences: Audiences) -> dict[Subscription, bool]:
        """Write what a turn brought to the live subscriptions. Returns those whose sink is full after it, as `full`."""
        self.running, self.disturbed = True, False
        try:
            self._deliver(turn, audiences)
        finally:
            self.running = False
            self.skipped.clear()
            full, self.full = self.full, {}
        return full

    def block_of(self, entries: list[Entry], format_: Format) -> bytes:
        """Return the bytes of entries in a format. A message that can't be encoded is left out."""
        encode = self._log.encode
        try:
            return format_.block([encode(entry, format_) for entry in entries])
        except Exception as error:  # noqa: BLE001 - one damaged message must not keep the others from the subscribers
            if len(entries) == 1:
                self._on_fault(error)
                return b""
        return b"".join(self.block_of([entry], format_) for entry in entries)

    def send_all(self, sends: Iterable[Sending]) -> None:
        """Send blocks to the sockets of live subscriptions. Bytes that a socket does not take go to its sink."""
        # This loop is where a fan-out spends its time: a system call for each socket, and as little else as can be.
        # Code of sinks runs in `write` alone, so what it may have changed is looked at only after that.
        send = self._send
        rest = iter(sends)
        while not self.disturbed:
            try:
                for subscription, descriptor, block in rest:
                    sent = send(descriptor, block)
                    if sent != len(block):
                        self.write(subscription, block[sent:])
                        break
                else:
                    return
            except OSError:  # full, or broken: its sink finds out which
                self.write(subscription, block)
        self._send_checked(rest)

    def write_all(self, writes: Iterable[Write]) -> None:
        """Hand blocks to the sinks of live subscriptions."""
        rest = iter(writes)
        while True:
            try:
                for subscription, block in rest:
                    if subscription.state is LIVE:
                        subscription.sink.write(block)
                    else:
                        self.skipped.append(subscription)
                return
            except Exception as error:  # noqa: BLE001 - see the invariant
                self._on_fault(error)

    def write(self, subscription: Subscription, block: bytes) -> None:
        """Hand a block to a sink."""
        try:
            subscription.sink.write(block)
        except Exception as error:  # noqa: BLE001 - see the invariant
            self._on_fault(error)

    def gap(self, subscription: Subscription, gap: LogGap) -> None:
        """Tell a subscription what it has missed, unless it has ended."""
        if subscription.state is CLOSED:
            return
        self.counters.gaps[gap.reason] += 1
        try:
            subscription.sink.gap(gap)
        except Exception as error:  # noqa: BLE001 - see the invariant
            self._on_fault(error)

    def refuse(self, subscription: Subscription, refusal: Refusal) -> None:
        """Tell a subscription why it can't go on, unless it has ended."""
        if subscription.state is CLOSED:
            return
        try:
            subscription.sink.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - see the invariant
            self._on_fault(error)

    def _deliver(self, turn: list[Entry], audiences: Audiences) -> None:
        self.counters.messages += len(turn)
        by_channel: dict[str, list[Entry]] = {}
        for entry in turn:
            entries = by_channel.get(entry.message.channel)
            if entries is None:
                by_channel[entry.message.channel] = [entry]
            else:
                entries.append(entry)
        # First all blocks are made, then all are sent: either is faster by itself than in turns with the other, which
        # would push its code and data out of the processor's caches, once for each channel.
        sends: list[Sending] = []
        groups: list[Iterable[Sending]] = []
        writes: list[Write] = []
        gathered: dict[SubscriptionSink, tuple[Subscription, tuple[str, ...]]] = {}
        deliveries = 0
        for channel, entries in by_channel.items():
            audience = audiences.of.get(channel)
            if audience is None:
                continue
            others: Iterable[Subscription]
            if not isinstance(audience, Subscription):
                for format_, group in audience.alone.items():
                    deliveries += len(group) * len(entries)
                    block = self.block_of(entries, format_)
                    # Lists, as a write may end a subscription.
                    groups.append(zip(list(group.descriptors), list(group.descriptors.values()), repeat(block)))
                    writes.extend(zip(group.sinks, repeat(block)))
                others = audience.gathered
            elif audience.alone:
                deliveries += len(entries)
                block = self.block_of(entries, audience.format)
                if audience.descriptor is not None:
                    sends.append((audience, audience.descriptor, block))
                else:
                    writes.append((audience, block))
                continue
            else:
                others = (audience,)
            only = (channel,)
            for subscription in others:
                sink = subscription.sink
                known = gathered.get(sink)
                gathered[sink] = (subscription, only) if known is None else (known[0], known[1] + only)
        if gathered:
            blocks, messages = self._gathered_blocks(gathered.values(), by_channel)
            deliveries += messages
            sends.extend((s, s.descriptor, block) for s, block in blocks if s.descriptor is not None)
            writes.extend((s, block) for s, block in blocks if s.descriptor is None)
        self.counters.deliveries += deliveries
        for group_sends in (sends, *groups):
            self.send_all(group_sends)
        self.write_all(writes)
        for subscription in self.skipped:
            standing = gathered.get(subscription.sink)
            if standing is not None and standing[0] is subscription:
                self._deliver_rest(subscription.sink, standing[1], by_channel, audiences)

    def _gathered_blocks(
        self, gathered: Iterable[tuple[Subscription, tuple[str, ...]]], by_channel: dict[str, list[Entry]]
    ) -> tuple[list[Write], int]:
        """Return a block for each subscription and its channels of this turn, and how many messages they have."""
        # A subscription of several channels has one cursor, so it gets them in the log's order, not by channel. Those
        # that have the same channels in this turn share the block.
        blocks: dict[tuple[Format, tuple[str, ...]], tuple[bytes, int]] = {}
        writes: list[Write] = []
        messages = 0
        for subscription, channels in gathered:
            key = (subscription.format, channels)
            made = blocks.get(key)
            if made is None:
                made = blocks[key] = self._merge(channels, by_channel, subscription.format)
            messages += made[1]
            writes.append((subscription, made[0]))
        return writes, messages

    def _deliver_rest(
        self, sink: SubscriptionSink, channels: Iterable[str], by_channel: dict[str, list[Entry]], audiences: Audiences
    ) -> None:
        """Deliver to a sink what was skipped as the one subscription that stood for all of the sink's had ended."""
        rest: dict[str, Subscription] = {}
        for channel in channels:
            rest.update((channel, each) for each in audiences.gathered(channel) if each.sink is sink)
        if rest:
            subscription = next(iter(rest.values()))
            block, _ = self._merge(rest, by_channel, subscription.format)
            self.write(subscription, block)

    def _merge(self, channels: Iterable[str], by_channel: dict[str, list[Entry]], format_: Format) -> tuple[bytes, int]:
        """Return the block of several channels' entries, and how many these are."""
        entries = sorted((entry for c in channels for entry in by_channel[c]), key=lambda entry: entry.seq)
        return self.block_of(entries, format_), len(entries)

    def _send_checked(self, sends: Iterator[Sending]) -> None:
        send, full = self._send, self.full
        for subscription, descriptor, block in sends:
            if subscription.state is not LIVE:
                self.skipped.append(subscription)
                continue
            if subscription in full:
                self.write(subscription, block)
                continue
            try:
                sent = send(descriptor, block)
            except OSError:
                sent = 0
            if sent != len(block):
                self.write(subscription, block[sent:])
