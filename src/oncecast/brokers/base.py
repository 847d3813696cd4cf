"""The contract of a broker: the only source of order.

A broker appends drafts to one log, numbers them, acknowledges them, and hands every message of the log to a `Sink`, in
order, its own publishes included. A subscriber is sent nothing that has not come from the broker by way of the sink.

The order of calls
------------------
A constructor opens nothing. `start(sink)` is awaited once. It connects, calls `sink.begin(opening)`, and returns; if it
raises, it has closed every thread, socket and file that it opened. From `begin` on, until `stop` has returned:

* `sink.receive(messages)` has the next messages, with numbers above every number handed over before.
* `sink.advance(seq)` says that the log has come to `seq` without a message for this node. A broker calls it for what
  is not wanted here, and for its own probes. Readers with a cursor ahead of this node wait for it.
* `sink.skip(seq)` says that some messages up to `seq` are not handed over: too many, or trimmed. The node reads them
  from the history.
* `sink.hole(before, after)` says that acknowledged messages between these numbers may be lost: after a failover to a
  replica that lacked them, for instance. Each subscriber of the node gets a gap and goes on; so does each cursor from
  inside.
* `sink.begin(opening)` once more says that the log is another one: it was emptied, or an older copy was put in its
  place under another epoch. Each older cursor is answered with a gap; each subscriber of the node gets one and goes on.
* `sink.away(reason)` says that the broker cannot be reached, `sink.back()` that it can. In between the node is not
  ready, serves what it has in memory, and publishes nothing. Before `back`, the broker hands over what it has missed,
  or skips it.
* `sink.fail(reason)` says that this broker is at its end and only another process can go on. It is the last call.

`publish` and `read` take a callback instead of returning a coroutine, so that a broker that can answer at once costs no
task. The callback is called exactly once, on the loop's thread, within `ANSWER_SECONDS`. A broker that has lost its
connection answers what it holds with `unavailable`. The messages of a publish reach the sink before its callback is
called; a sink that raises has not got them, so the publish is then answered with a refusal and the broker fails.

A broker with `capabilities.only_wanted` delivers only the channels that were asked for by `want`. Once the subscription
stands, it calls `sink.wanted(channels, seq)`: each message of these channels above `seq` will be handed over. The node
reads what is below from the history. After a `begin` it confirms each wanted channel again. Other brokers deliver
everything, and their `want` and `unwant` do nothing.

`await stop()` answers what is not acknowledged with `unavailable`, ends every thread and task, and closes what is open.
It never blocks the loop, returns within `STOP_SECONDS`, and may be called again, or without a start.

An example, which `tests/brokers/test_base.py` runs:

>>> from oncecast.brokers.memory import MemoryBroker
>>> from oncecast.message import Draft
>>> from oncecast.testing.driver import run_now
>>> class Printed:
...     def begin(self, opening): print("begin", opening.epoch, opening.head)
...     def receive(self, messages): print("receive", [(message.seq, message.data) for message in messages])
>>> broker = MemoryBroker("life1", wall=lambda: 0.0)
>>> broker.publish([Draft("news", b"early")], lambda outcomes: print("done", outcomes[0].code))
done unavailable
>>> run_now(broker.start(Printed()))
begin life1 0
>>> broker.publish([Draft("news", b"1"), Draft("news", b"2")], lambda outcomes: print("done", outcomes[1].id))
receive [(1, b'1'), (2, b'2')]
done life1-2
>>> run_now(broker.stop())
>>> broker.publish([Draft("news", b"late")], lambda outcomes: print("done", outcomes[0].code))
done unavailable

A broker that a person can look into has three coroutines beside this contract, `inspect`, `channels` and `trim`
(`operable.py`): the commands of `oncecast broker` use them, and the contract for the rest.

`oncecast.testing.check_broker` holds an implementation to this contract. To add a broker, write a file or a folder
beside this one that passes it, and name its URL scheme in `server/brokers.py`. Pieces that brokers share stand beside
this file: `intake.py` (the publishes that wait), `outbox.py` (from other threads to the loop), `follow.py` (what was
handed over), `reads.py` (the reads that wait), `complaints.py` (faults in the log of the operator), `meters.py` (what
`/metrics` shows of a broker).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from ..errors import ConfigurationError, Refusal
from ..message import Draft, Mark, Message, Page, Receipt, Start

Outcome = Receipt | Refusal
Done = Callable[[Sequence[Outcome]], None]
Read = Callable[[Page | Refusal], None]

NUMBERS_A_SECOND = 1 << 17  # more than is ever published; a life of a log begins above them
KEY_SECONDS = 24 * 3600.0  # an idempotency key is known for this long, where the broker can
ANSWER_SECONDS = 30.0  # after this a publish or a read is answered with `unavailable`
STOP_SECONDS = 10.0

STARTING = Refusal("unavailable", "The server is starting: try again in a moment.", retry_after=1)
STOPPING = Refusal("unavailable", "The server is stopping: try again in a moment.", retry_after=1)
AWAY = Refusal("unavailable", "The broker cannot be reached now: try again in a moment.", retry_after=1)


class BrokerUnreachable(ConfigurationError):
    """A broker can't be started, as its server does not answer or has closed the connection."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a broker can do. Known before it is started, and the same for its whole life.

    `durability` is one of those that `Receipt` names. With `history`, `Broker.read` answers from what is kept; without,
    the window of a node is all there is. `key_seconds` is how long an idempotency key is known, at least.
    `only_wanted` says that a channel is delivered only while it is wanted. `shared` says that other nodes may publish
    to the same log. With `lossy_holes`, a hole may have held acknowledged messages, also where none is known to be
    missing: after a failover of the server, for instance. A reader that passes such a hole gets a gap.
    """

    durability: str
    history: bool
    key_seconds: float = KEY_SECONDS
    only_wanted: bool = False
    shared: bool = True
    lossy_holes: bool = False


class Opening(msgspec.Struct, frozen=True):
    """Where a log stands when it begins for a node.

    `epoch` names the log: 1 to 32 of `[A-Za-z0-9_]`. `head` is the last number given. `recent` are its newest messages,
    all of them above `floor` that are not trimmed; `marks` has the trimmed mark of each channel where that is above the
    floor. `holes` are ranges of numbers, as (the last before it, the number above which the log goes on): a cursor from
    inside is of an end of the log that is lost. With `only_wanted`, `recent` is empty and `floor` is the head.
    """

    epoch: str
    head: int = 0
    floor: Mark = Mark()
    recent: tuple[Message, ...] = ()
    marks: Mapping[str, Mark] = {}
    holes: tuple[tuple[int, int], ...] = ()


class Sink(Protocol):
    """What a broker delivers to, on the loop's thread. The module says in which order."""

    def begin(self, opening: Opening, /) -> None:
        """Serve this log from here on."""
        ...

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take the next messages of the log, in order."""
        ...

    def advance(self, seq: int, /) -> None:
        """Take the log's head to be `seq`. A number at or below the head changes nothing."""
        ...

    def skip(self, seq: int, /) -> None:
        """Go on after `seq`: some of what is before it is not handed over. Read the history."""
        ...

    def hole(self, before: int, after: int, /) -> None:
        """Go on above `after`: acknowledged messages above `before` and below `after` may be lost."""
        ...

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Rely on being handed each message of these channels above `seq`."""
        ...

    def away(self, reason: str, /) -> None:
        """Be not ready: the broker cannot be reached. `reason` is one line for the operator."""
        ...

    def back(self) -> None:
        """Be ready again."""
        ...

    def fail(self, reason: str, /) -> None:
        """End: the broker cannot go on in this process. `reason` is one line for the operator."""
        ...


class Broker(Protocol):
    """One log of messages, totally ordered. The module says in which order it is called."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    async def start(self, sink: Sink) -> None:
        """Connect, and call `sink.begin`. Raises `ConfigurationError` with one line that says what to change."""
        ...

    async def stop(self) -> None:
        """Disconnect, and answer what is held with `unavailable`."""
        ...

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts in order, then call `done` once with an outcome for each.

        A draft with a `key` that its channel has seen is not appended again: its outcome is the receipt of the first
        time.
        """
        ...

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Read on from a start, and call `done` once. Called only with `capabilities.history`.

        The page has at most `limit` messages, which may be 0, and only as many as fit in `max_bytes` of data, but then
        at least one. A cursor's epoch has been checked: only its `seq` counts. `last=N` means the N newest messages of
        each channel, and the page has no older ones. With `start.floors`, the page has of each channel only messages
        above its floor.
        """
        ...

    def want(self, channels: Sequence[str]) -> None:
        """Deliver these channels from now on."""
        ...

    def unwant(self, channels: Sequence[str]) -> None:
        """Deliver these channels no longer."""
        ...
