"""The broker of one machine: the log is an SQLite file, which any number of processes share.

A thread writes: what is published while it commits is committed together next. The same thread hears the datagrams of
the other processes and reads what they have appended, so that all messages go to the sink in one order. A second thread
reads the history, in pages, so that nobody's replay holds up a publish. What the threads have to say runs on the loop's
thread, by `call`.

Invariants
* `_seen` is the number up to which the sink has been handed everything, or been told to skip.
* A draft is answered once: with a receipt after it has been committed and handed to the sink, or with a refusal.
* Nothing but the bounded `_pending` waits for the disk.

To change what a file holds, see `sqlite_store.py`; how processes find one another, `sqlite_peers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import select
import socket
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from ...errors import ConfigurationError, Refusal, UsageError
from ...message import Draft, Message, Page, Start
from ..base import KEY_SECONDS, STARTING, STOPPING, Capabilities, Done, Opening, Sink
from .peers import Peers
from .store import Policy, Store, life_of

logger = logging.getLogger("oncecast.brokers.sqlite.broker")

BATCH_DRAFTS = 2000  # committed together: some 20 ms, and a crash loses no acknowledged one of them
BATCH_BYTES = 8 << 20
PENDING_DRAFTS = 50_000  # that wait for the disk; past either bound publishes are refused until it has caught up
PENDING_BYTES = 64 << 20
COUNT_SECONDS, FOLLOWS = 0.05, 60  # who reads what others append so often in that time
FOLLOW_MILLISECONDS = 1  # waits that long before the next, to read more together
LOOK_SECONDS = 0.25  # how often it looks for what others have appended, should no datagram have come
OUT_STEPS = 64  # that wait for the loop: past it nothing more is read from the file, and what is too much skipped
PENDING_READS = 20_000
SWEEP_SECONDS = 1.0
FORGET_SECONDS = 10.0
REMIND_SECONDS = 60.0  # a disk that stays full is logged this often
COUNT_MESSAGES = 64  # and an eighth of what is kept: so many may be there beyond it, before they are trimmed
COUNTED_CHANNELS = 100_000
CLOSE_SECONDS = 10.0  # for the threads to finish what they are at


class _State(enum.Enum):
    """As the loop's thread sees it. FAILED: the file is lost, and the thread that writes has ended."""

    NEW = "new"
    OPEN = "open"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Drafts that were published together."""

    drafts: Sequence[Draft]
    done: Done
    size: int


_Request = tuple[Sequence[str], Start, int, int, Callable[[Page | Refusal], None]]


class SqliteBroker:
    """One file on one machine. It survives the end of every process, and with `fsync` a power cut too.

    `epoch` names the log if the file is made now. `wall` gives Unix seconds, `call` runs a callable on the loop's
    thread, `policy` gives a channel's retention by its name and is called by a thread.
    `durability` is `process` or `fsync`, `key_seconds` how long an idempotency key is known.
    """

    def __init__(
        self,
        path: Path,
        *,
        epoch: str,
        wall: Callable[[], float],
        policy: Policy,
        durability: str = "process",
        key_seconds: float = KEY_SECONDS,
    ) -> None:
        self.path = path
        self.epoch = epoch
        self.durability = durability
        self.capabilities = Capabilities(durability, history=True, key_seconds=key_seconds)
        self._wall = wall
        self._policy = policy
        self._key_seconds = key_seconds
        self._sink: Sink | None = None
        self._state = _State.NEW
        self._seen = 0
        self._pending: deque[_Batch] = deque()
        self._put = [0, 0]  # drafts and bytes: that have been published, counted by the loop's thread,
        self._taken = [0, 0]  # and those that no longer wait, counted by the other
        self._out: deque[Callable[[], None]] = deque()
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._under_way: list[_Batch] = []  # taken, and not yet answered
        self._due: dict[str, int] = {}  # what is to be trimmed, by channel: up to which number
        self._appended: Counter[str] = Counter()  # by channel, since its messages were last counted
        self._counting = True  # until each channel has been looked at once
        self._rung = False
        self._ending = False
        self._complained = -REMIND_SECONDS
        self._failing = False

    # -- on the loop's thread

    async def start(self, sink: Sink) -> None:
        """Open the file, and begin to hand every new message to `sink`. Raises `ConfigurationError`."""
        if self._state is not _State.NEW:
            raise UsageError("This broker was started already: make one for each node.")
        self._sink = sink
        loop = asyncio.get_running_loop()
        self._call = loop.call_soon_threadsafe
        opening = await loop.run_in_executor(None, self._open)
        self._state = _State.OPEN
        sink.begin(opening)
        for thread in self._threads:
            thread.start()

    def _open(self) -> Opening:
        try:
            peers = Peers(self.path)
        except OSError as error:
            raise ConfigurationError(f"broker: {self.path}: {error.strerror}: it needs a folder to write to") from None
        undo = contextlib.ExitStack()
        undo.callback(peers.close)
        try:
            with undo, peers.lock():
                self.path.touch()
                self._identity = _identity(self.path)
                alone = peers.join(repr(self._identity))
                if alone and peers.note and peers.note != life_of(self.path):
                    self._set_aside()
                store = Store(self.path, durability=self.durability)
                undo.callback(store.close)
                opening = store.begin(self.epoch, round(self._wall(), 3), alone=alone)
                if alone:
                    peers.note = life_of(self.path) or ""
                reader = Store(self.path, durability=self.durability, write=False)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"broker: {self.path}: {error}") from None
        self.epoch = reader.epoch = store.epoch
        self._seen = opening.head
        self._peers, self._store, self._reader = peers, store, reader
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._threads = [
            threading.Thread(target=target, name=f"oncecast-{name}", daemon=True)
            for name, target in (("log", self._run), ("history", self._run_reader))
        ]
        return opening

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts with those that come meanwhile, and answer once they are committed."""
        if self._state is not _State.OPEN:
            done([STARTING if self._state is _State.NEW else STOPPING] * len(drafts))
            return
        if not drafts:
            done([])
            return
        size = sum(len(draft.data) for draft in drafts)
        put, taken = self._put, self._taken
        if put[0] - taken[0] >= PENDING_DRAFTS or put[1] - taken[1] >= PENDING_BYTES:
            done([_OVERRUN] * len(drafts))
            return
        put[0] += len(drafts)
        put[1] += size
        self._pending.append(_Batch(drafts, done, size))
        self._ring()

    def read(
        self,
        channels: Sequence[str],
        start: Start,
        limit: int,
        max_bytes: int,
        done: Callable[[Page | Refusal], None],
    ) -> None:
        """Read a page of what the file holds; the answer comes in a later turn of the loop."""
        if self._state is not _State.OPEN:
            done(_CLOSED)
            return
        if self._requests.qsize() >= PENDING_READS:
            done(Refusal("unavailable", "More is read than the disk gives: try again in a moment.", retry_after=1))
            return
        self._requests.put((channels, start, limit, max_bytes, done))

    async def stop(self) -> None:
        """Commit what waits, and stop. What can't be committed is answered with `unavailable`."""
        opened = self._state in (_State.OPEN, _State.FAILED)
        self._state = _State.CLOSED
        if not opened:
            return
        await asyncio.get_running_loop().run_in_executor(None, self._end)
        self._run_out()
        self._refuse_pending()
        if any(thread.is_alive() for thread in self._threads):
            logger.error("%s did not close in time: its threads end with the process", self.path)
            _refuse(self._under_way, STOPPING)
            return  # they may still use what would be closed here
        self._peers.close()
        self._bell.close()
        self._ear.close()

    def _end(self) -> None:
        writer, reader = self._threads
        self._requests.put(None)
        reader.join(CLOSE_SECONDS)
        self._ending = True  # last: with the last connection SQLite moves all into the file
        with contextlib.suppress(OSError):  # it is full, so the thread has something to hear
            self._bell.send(b"\0")
        writer.join(CLOSE_SECONDS)

    def want(self, channels: Sequence[str]) -> None:
        """Do nothing: every channel is delivered."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Do nothing."""

    def _set_aside(self) -> None:
        """Keep a write-ahead log that another file has left: SQLite would mix the two."""
        beside = Path(f"{self.path}-wal")
        if beside.exists() and beside.stat().st_size:
            aside = Path(f"{self.path}-wal-{int(self._wall())}")
            beside.rename(aside)
            Path(f"{self.path}-shm").unlink(missing_ok=True)
            logger.warning("%s was replaced by a copy: what the other file has left is set aside, %s", self.path, aside)

    def _refuse_pending(self) -> None:
        while self._pending:
            _refuse([self._pending.popleft()], STOPPING)

    def _failed(self, reason: str) -> None:
        if self._state is _State.OPEN:
            self._state = _State.FAILED
            self._refuse_pending()
            assert self._sink is not None
            self._sink.fail(reason)

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            with contextlib.suppress(BlockingIOError):
                self._bell.send(b"\0")

    def _run_out(self) -> None:
        while self._out:
            step = self._out.popleft()
            try:
                step()
            except Exception:
                logger.exception("an answer or a delivery failed; the others go on")

    # -- on the thread that writes

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            logger.exception("the thread of the log has failed")
            self._fail(f"broker: {self.path}: the thread of the log has failed: {error}")
        finally:
            self._store.close()

    def _serve(self) -> None:
        poll, own = select.poll(), select.poll()
        for each in poll, own:
            each.register(self._ear, select.POLLIN)
        poll.register(self._peers.socket, select.POLLIN)
        look = sweep = forget = counted = time.monotonic()
        often, follows = False, 0
        while True:
            wait = 0.0 if self._due else max(0.0, look - time.monotonic())
            poll.poll(wait * 1000)
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(64)
            self._rung = False  # after that, or a byte is taken whose bell then never rings again
            heard = self._peers.hear()
            closing = self._ending
            if self._pending:
                if not self._commit():
                    return
            elif closing:
                return
            now = time.monotonic()
            if now - counted >= COUNT_SECONDS:
                often, follows, counted = follows >= FOLLOWS, 0, now
            if heard and often and not self._pending:
                # Others publish at a high rate: read what they append in a while together, unless there is work here.
                own.poll(FOLLOW_MILLISECONDS)
                if self._pending:
                    continue  # and see to theirs with that
            if heard or now >= look:
                follows += 1
                if not self._follow() or (now >= look and not self._in_place()):
                    return
                look = now + LOOK_SECONDS
            if now >= sweep:
                self._guarded(self._sweep)
                sweep = now + SWEEP_SECONDS
            if now >= forget:
                self._guarded(self._forget)
                forget = now + FORGET_SECONDS
            if self._due and not closing:
                self._guarded(self._trim)
            if self._pending:
                self._ring()

    def _commit(self) -> bool:
        """Commit what waits, and return whether the file is still in its place."""
        batches = self._under_way = self._take()
        drafts = [draft for batch in batches for draft in batch.drafts]
        try:
            with self._peers.lock():
                now = round(self._wall(), 3)
                made = self._store.append(drafts, now, self._key_seconds, self._seen)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
            self._refuse_under_way()
            return True
        if not self._in_place():  # committed to a file that nobody will find: not acknowledged, then
            return False
        self._recover()
        self._hand_over(made.others, made.before)
        if made.messages:
            self._say(partial(self._receive, made.messages))
            self._seen = made.messages[-1].seq
            self._peers.wake(time.monotonic())
            self._guarded(partial(self._count, made.messages))
        at = 0
        for batch in batches:
            self._say(partial(batch.done, made.receipts[at : at + len(batch.drafts)]))
            at += len(batch.drafts)
        self._under_way = []
        self._tell()
        return True

    def _refuse_under_way(self) -> None:
        batches, self._under_way = self._under_way, []
        self._say(partial(_refuse, batches, _UNWRITABLE))
        self._tell()

    def _take(self) -> list[_Batch]:
        """Take what is committed next."""
        batches: list[_Batch] = []
        drafts = size = 0
        while self._pending and drafts < BATCH_DRAFTS and size < BATCH_BYTES:
            batch = self._pending.popleft()
            batches.append(batch)
            drafts += len(batch.drafts)
            size += batch.size
        self._taken[0] += drafts
        self._taken[1] += size
        return batches

    def _follow(self) -> bool:
        """Read what others have appended, and return whether the log has still what it had."""
        if len(self._out) >= OUT_STEPS:  # the loop is busy: what comes meanwhile is in the file
            return True
        try:
            head, messages = self._store.follow(self._seen)
        except sqlite3.Error as error:
            self._complain(error)
            return True
        if head < self._seen:
            self._fail(f"broker: {self.path}: its end is gone while it was open; the server has to start again")
            return False
        if head != self._seen:
            self._hand_over(messages, head)
            self._tell()
        return True

    def _hand_over(self, messages: list[Message] | None, head: int) -> None:
        """Hand on what others have appended, up to `head`."""
        if messages is None:
            self._say(partial(self._skip, head))
        elif messages:
            self._say(partial(self._receive, messages))
        self._seen = head

    def _count(self, messages: list[Message]) -> None:
        """Find the channels that hold well over what is to be kept, without asking at each message."""
        self._appended.update(message.channel for message in messages)
        for name in {message.channel for message in messages}:
            keep = self._policy(name).messages
            if self._appended[name] > keep // 8 + COUNT_MESSAGES:
                del self._appended[name]
                if last := self._store.over(name, keep):
                    self._due[name] = last
        if len(self._appended) > COUNTED_CHANNELS:
            self._appended.clear()
            self._counting = True

    def _sweep(self) -> None:
        self._due.update(self._store.sweep(self._policy, self._wall(), counts=self._counting))
        if self._store.swept:
            self._counting = False

    def _forget(self) -> None:
        now = self._wall()
        if any(found := self._store.find_forgettable(now, self._key_seconds)):  # before the lock: it may take a while
            with self._peers.lock():
                self._store.forget(*found, now, self._key_seconds)

    def _trim(self) -> None:
        name, last = next(iter(self._due.items()))
        with self._peers.lock():
            more = self._store.trim(name, last)
        del self._due[name]
        if more:
            self._due[name] = last  # after the others

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do what can wait: a disk that is full does not keep anybody from the rest."""
        try:
            step()
        except (sqlite3.Error, OSError) as error:
            self._due.clear()
            self._complain(error)

    def _in_place(self) -> bool:
        """Return whether the file is the one that was opened; if not, what is appended would go to nowhere."""
        if _identity(self.path) == self._identity:
            return True
        self._fail(
            f"broker: {self.path}: the file was replaced or removed while it was open; the server has to start again"
        )
        return False

    def _complain(self, error: Exception) -> None:
        self._failing = True
        now = time.monotonic()
        if now - self._complained >= REMIND_SECONDS:
            self._complained = now
            logger.error("%s can't be written to or read: %s; publishes are answered with 503", self.path, error)

    def _recover(self) -> None:
        if self._failing:
            self._failing = False
            self._complained = -REMIND_SECONDS
            logger.warning("%s is written to again", self.path)

    def _fail(self, reason: str) -> None:
        self._refuse_under_way()
        self._say(partial(self._failed, reason))
        self._tell()

    def _say(self, what: Callable[[], None]) -> None:
        """Let the loop's thread run this, after what was said before, once it is told."""
        self._out.append(what)

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: `close` says the rest
            self._call(self._run_out)

    def _receive(self, messages: list[Message]) -> None:
        assert self._sink is not None
        self._sink.receive(messages)

    def _skip(self, seq: int) -> None:
        assert self._sink is not None
        self._sink.skip(seq)

    # -- on the thread that reads

    def _run_reader(self) -> None:
        while (request := self._requests.get()) is not None:
            channels, start, limit, max_bytes, done = request
            answer: Page | Refusal
            try:
                stopping = self._state is _State.CLOSED
                answer = _CLOSED if stopping else self._reader.read(channels, start, limit, max_bytes)
            except sqlite3.Error as error:
                self._complain(error)
                answer = Refusal("unavailable", "The log can't be read now: try again in a moment.", retry_after=5)
            self._say(partial(done, answer))
            self._tell()
        self._reader.close()


# -- helpers

_OVERRUN = Refusal("unavailable", "More is published than the disk takes: publish again in a moment.", retry_after=1)
_UNWRITABLE = Refusal("unavailable", "The log can't be written to now: publish again in a moment.", retry_after=5)
_CLOSED = Refusal("unavailable", "The server is stopping: read on at another.", retry_after=1)


def _refuse(batches: Sequence[_Batch], refusal: Refusal) -> None:
    for batch in batches:
        batch.done([refusal] * len(batch.drafts))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
