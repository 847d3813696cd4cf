"""The broker of one machine: the log is an SQLite file, which any number of processes share.

This file is its face on the loop's thread. `writer.py` is the thread that writes and follows, `reader.py` the one that
reads the history; what they have to say runs on the loop's thread, by way of an `Outbox`. `store.py` says what a file
holds, `peers.py` how processes find one another.

Invariants
* The loop is never blocked: opening, closing and waiting for a lock happen on threads, with deadlines.
* A thread that ends is noticed: what it held is refused, and the broker fails.
* A writer that has been at one thing for `STUCK_SECONDS` makes the broker away; what waits for it is refused.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ...errors import ConfigurationError, Refusal, UsageError
from ...message import Draft, Retention, RetentionPolicy, Start
from ..base import KEY_SECONDS, STARTING, STOP_SECONDS, STOPPING, Capabilities, Done, Read, Sink
from ..complaints import Complaints
from ..follow import Follower
from ..intake import Intake, refuse
from ..meters import Meters
from ..operable import ChannelState, LogState
from ..outbox import Outbox
from ..reads import UNREADABLE, ReadQueue, ReadRequest, refuse_read
from ..worker import Worker, run_in_thread
from . import operate
from .opening import Opened, open_log
from .reader import CLOSED, HistoryReader
from .writer import UNWRITABLE, Writer

logger = logging.getLogger("oncecast.brokers.sqlite.broker")

OPEN_SECONDS = 30.0  # for the lock, which another process holds while it opens or commits
WATCH_SECONDS = 1.0
STUCK_SECONDS = 3.0


class BrokerState(enum.Enum):
    """Where the broker stands. `start`, `stop` and a lost file move it."""

    NEW = "new"
    STARTING = "starting"
    OPEN = "open"
    STUCK = "stuck"  # the writer does not come back from the disk, or from waiting for the lock
    FAILED = "failed"
    CLOSED = "closed"


_REFUSALS = {
    BrokerState.NEW: STARTING,
    BrokerState.STARTING: STARTING,
    BrokerState.STUCK: UNWRITABLE,
    BrokerState.FAILED: UNWRITABLE,
    BrokerState.CLOSED: STOPPING,
}


class SqliteBroker:
    """One file on one machine. It survives the end of every process, and with `fsync` a power cut too.

    `epoch` names the log if the file is made now. `wall` gives Unix seconds, `policy` gives a channel's retention by
    its name and is called by a thread. `durability` is `process` or `fsync`, `key_seconds` how long an idempotency key
    is known.
    """

    def __init__(
        self,
        path: Path,
        *,
        epoch: str,
        wall: Callable[[], float],
        policy: RetentionPolicy,
        durability: str = "process",
        key_seconds: float = KEY_SECONDS,
    ) -> None:
        self.path = path
        self.capabilities = Capabilities(durability, history=True, key_seconds=key_seconds)
        self.state = BrokerState.NEW
        self._epoch = epoch
        self._wall = wall
        self._policy = policy
        self._intake = Intake()
        self._queue = ReadQueue()
        self.meters = Meters()
        self._complaints = Complaints(str(path), time.monotonic)
        self._watch: asyncio.TimerHandle | None = None
        self._sink: Sink
        self._outbox: Outbox
        self._writer: Writer
        self._reader: HistoryReader
        self._writing: Worker
        self._reading: Worker

    async def start(self, sink: Sink) -> None:
        """Open the file, and begin to hand every new message to `sink`. Raises `ConfigurationError`."""
        if self.state is not BrokerState.NEW:
            raise UsageError("This broker was started already: make one for each node.")
        self.state = BrokerState.STARTING
        try:
            opened = await run_in_thread("open", self._open, OPEN_SECONDS, Opened.close)
        except TimeoutError:
            text = f"broker: {self.path}: another process has held its lock for {OPEN_SECONDS:g} s: end it, or wait"
            raise ConfigurationError(text) from None
        finally:
            if self.state is BrokerState.STARTING:
                self.state = BrokerState.NEW
        try:
            self._begin(sink, opened)
        except BaseException:
            await run_in_thread("close", opened.close, STOP_SECONDS, lambda result: None)
            raise

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts with those that come meanwhile, and answer once they are committed."""
        if self.state is not BrokerState.OPEN:
            done([_REFUSALS[self.state]] * len(drafts))
        elif self._intake.put(drafts, done):
            self._writer.bell.ring()

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Read a page of what the file holds; the answer comes in a later turn of the loop."""
        if self.state in (BrokerState.OPEN, BrokerState.STUCK):
            self._queue.put(ReadRequest(channels, start, limit, max_bytes, done, time.monotonic()))
        else:
            done(CLOSED if self.state is BrokerState.CLOSED else UNREADABLE)

    def want(self, channels: Sequence[str]) -> None:
        """Do nothing: every channel is delivered."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Do nothing."""

    async def inspect(self) -> LogState:
        """Return the state of the log in the file."""
        return await operate.in_thread(self.path, operate.state)

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await operate.in_thread(self.path, operate.channels)

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        return await operate.in_thread(self.path, partial(operate.trim, channel, retention, self._wall()))

    async def stop(self) -> None:
        """Commit what waits, and stop. What can't be committed in time is answered with `unavailable`."""
        before, self.state = self.state, BrokerState.CLOSED
        if before in (BrokerState.NEW, BrokerState.STARTING, BrokerState.CLOSED):
            return
        if self._watch is not None:
            self._watch.cancel()
        end = time.monotonic() + STOP_SECONDS
        self._reader.ending = True
        self._queue.close()
        read = await self._reading.wait(end - time.monotonic())
        self._writer.ending = True  # last: with the last connection SQLite moves all into the file
        self._writer.bell.ring()
        written = await self._writing.wait(end - time.monotonic())
        self._outbox.run()
        self._refuse(STOPPING)
        if read and written:
            self._writer.bell.close()
        else:
            logger.error("%s did not close in time: its threads end with the process", self.path)

    # -- helpers

    def _open(self) -> Opened:
        return open_log(self.path, epoch=self._epoch, durability=self.capabilities.durability, wall=self._wall)

    def _begin(self, sink: Sink, opened: Opened) -> None:
        if self.state is BrokerState.CLOSED:
            raise UsageError("This broker was stopped while it started.")
        loop = asyncio.get_running_loop()
        self._sink = sink
        self._outbox = Outbox(loop.call_soon_threadsafe, self._fail)
        opened.store.file.meters = opened.reader.file.meters = self.meters
        follower = Follower(sink, self._outbox.deliver)
        follower.seen = opened.opening.head
        self._writer = Writer(
            self.path,
            opened.store,
            opened.peers,
            intake=self._intake,
            outbox=self._outbox,
            follower=follower,
            complaints=self._complaints,
            policy=self._policy,
            wall=self._wall,
            key_seconds=self.capabilities.key_seconds,
            failed=self._fail,
        )
        self._reader = HistoryReader(opened.reader, self._queue, self._outbox, self._complaints)
        try:
            sink.begin(opened.opening)
        except BaseException:
            self._writer.bell.close()
            raise
        self.state = BrokerState.OPEN
        self._writing = Worker("log", self._writer.run, lambda error: self._ended("log", error))
        self._reading = Worker("history", self._reader.run, lambda error: self._ended("history", error))
        self._writing.start()
        self._reading.start()
        self._watch = loop.call_later(WATCH_SECONDS, self._look)

    def _ended(self, name: str, error: BaseException | None) -> None:
        """A thread has ended: after `stop`, after the file was lost, or by a defect."""
        if error is not None:
            self._outbox.run()
            self._fail(f"broker: {self.path}: the thread of the {name} has failed: {error}")
            self._refuse(UNWRITABLE)

    def _fail(self, reason: str) -> None:
        if self.state in (BrokerState.OPEN, BrokerState.STUCK):
            self.state = BrokerState.FAILED
            self._refuse(UNWRITABLE)
            self._sink.fail(reason)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what waits, and what the threads hold: whatever they say about it later is dropped."""
        self._intake.refuse(refusal)
        refuse(list(self._writer.under_way), refusal)
        self._queue.refuse(UNREADABLE)
        if self._reader.under_way is not None:
            refuse_read(self._reader.under_way, UNREADABLE)

    def _look(self) -> None:
        """See whether the writer still comes to its next thing."""
        self._watch = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)
        since = self._writer.busy_since
        stuck = since is not None and time.monotonic() - since >= STUCK_SECONDS
        if self.state is BrokerState.OPEN and stuck:
            self.state = BrokerState.STUCK
            self._intake.refuse(UNWRITABLE)
            refuse(list(self._writer.under_way), UNWRITABLE)
            self._sink.away(f"broker: {self.path}: another process holds its lock, or the disk does not answer")
        elif self.state is BrokerState.STUCK and not stuck:
            self.state = BrokerState.OPEN
            self._sink.back()
