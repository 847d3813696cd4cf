"""The thread that writes: it commits what waits, follows what other processes append, and trims.

What is published while it commits is committed together next. It hears the datagrams of the other processes and reads
what they have appended, so all messages go to the sink in one order.

Invariants
* A publish is answered after it has been committed and handed to the sink, or refused.
* A batch that was refused while this thread waited for the lock is not committed.
* `under_way` are the batches that were taken and not answered yet.
"""

from __future__ import annotations

import select
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...errors import Refusal
from ...message import Message, RetentionPolicy
from ..bell import Bell
from ..complaints import Complaints
from ..follow import Follower
from ..intake import Batch, Intake, refuse
from ..outbox import Outbox
from ..surplus import Surplus
from .file import identity
from .peers import Peers
from .store import Store

COUNT_SECONDS, FOLLOWS = 0.05, 60  # after more than FOLLOWS reads of what others append in COUNT_SECONDS,
FOLLOW_MILLISECONDS = 1  # wait this long before each further read, to batch them
LOOK_SECONDS = 0.25  # between two looks for what others have appended, should no datagram come
OUT_STEPS = 64  # that wait for the loop: past it nothing more is read from the file
SWEEP_SECONDS = 1.0
FORGET_SECONDS = 10.0

UNWRITABLE = Refusal("unavailable", "The log can't be written to now: publish again in a moment.", retry_after=5)


class Writer:
    """What the thread runs: `run`. `failed` is put into the outbox with the reason when the file is lost."""

    def __init__(
        self,
        path: Path,
        store: Store,
        peers: Peers,
        *,
        intake: Intake,
        outbox: Outbox,
        follower: Follower,
        complaints: Complaints,
        policy: RetentionPolicy,
        wall: Callable[[], float],
        key_seconds: float,
        failed: Callable[[str], None],
    ) -> None:
        self.bell = Bell()
        self.under_way: list[Batch] = []
        self.ending = False  # set by the loop's thread: commit what waits, and end
        self.busy_since: float | None = None  # since when it has been at one thing, and None while it waits for one
        self._path = path
        self._identity = identity(path)
        self._store = store
        self._peers = peers
        self._intake = intake
        self._outbox = outbox
        self._follower = follower
        self._complaints = complaints
        self._policy = policy
        self._surplus = Surplus(policy)
        self._wall = wall
        self._key_seconds = key_seconds
        self._failed = failed
        self._due: dict[str, int] = {}  # what is to be trimmed, by channel: up to which number

    def run(self) -> None:
        """Write until `ending`, or until the file is lost. Closes the store, and leaves the other processes."""
        try:
            self._serve()
        finally:
            self._store.close()
            self._peers.close()

    def _serve(self) -> None:
        poll, own = select.poll(), select.poll()
        for each in poll, own:
            each.register(self.bell.ear, select.POLLIN)
        poll.register(self._peers.socket, select.POLLIN)
        look = sweep = forget = counted = time.monotonic()
        often, follows = False, 0
        while True:
            wait = 0.0 if self._due else max(0.0, look - time.monotonic())
            self.busy_since = None
            poll.poll(wait * 1000)
            self.busy_since = time.monotonic()
            self.bell.clear()
            heard = self._peers.hear()
            closing = self.ending
            if self._intake:
                if not self._commit():
                    return
            elif closing:
                return
            now = time.monotonic()
            if now - counted >= COUNT_SECONDS:
                often, follows, counted = follows >= FOLLOWS, 0, now
            if heard and often and not self._intake:
                # Others publish at a high rate: read what they append in a while together, unless there is work here.
                own.poll(FOLLOW_MILLISECONDS)
                if self._intake:
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
            if self._intake:
                self.bell.ring()

    def _commit(self) -> bool:
        """Commit what waits, and return whether the file is still in its place."""
        batches = self.under_way = self._intake.take()
        try:
            with self._peers.lock():
                self.busy_since = time.monotonic()
                batches = self.under_way = [batch for batch in batches if not batch.answered]
                drafts = [draft for batch in batches for draft in batch.drafts]
                now = round(self._wall(), 3)
                made = self._store.append(drafts, now, self._key_seconds, self._follower.seen)
        except (sqlite3.Error, OSError) as error:
            self._complain(error)
            self._refuse_under_way()
            return True
        if not self._in_place():  # committed to a file that no later process opens: not acknowledged
            return False
        self._complaints.recover("is written to again")
        self._follower.follow(made.others, made.before)
        if made.messages:
            self._follower.receive(made.messages)
            self._peers.wake(time.monotonic())
            self._guarded(partial(self._count, made.messages))
        at = 0
        for batch in batches:
            receipts = made.receipts[at : at + len(batch.drafts)]
            self._outbox.answer(partial(batch.answer, receipts), partial(batch.refuse, UNWRITABLE))
            at += len(batch.drafts)
        self.under_way = []
        self._outbox.wake()
        return True

    def _refuse_under_way(self) -> None:
        batches, self.under_way = self.under_way, []
        step = partial(refuse, batches, UNWRITABLE)
        self._outbox.answer(step, step)
        self._outbox.wake()

    def _follow(self) -> bool:
        """Read what others have appended, and return whether the log has still what it had."""
        if len(self._outbox) >= OUT_STEPS:  # the loop is busy: what comes meanwhile is in the file
            return True
        seen = self._follower.seen
        try:
            head, messages = self._store.follow(seen)
        except sqlite3.Error as error:
            self._complain(error)
            return True
        if head < seen:
            self._fail(f"broker: {self._path}: its end is gone while it was open; the server has to start again")
            return False
        if head != seen:
            self._follower.follow(messages, head)
            self._outbox.wake()
        return True

    def _count(self, messages: list[Message]) -> None:
        for name, keep in self._surplus.count(messages):
            if last := self._store.trims.over(name, keep):
                self._due[name] = last

    def _sweep(self) -> None:
        trims = self._store.trims
        self._due.update(trims.sweep(self._policy, self._wall(), counts=self._surplus.dropped))
        if trims.swept:
            self._surplus.dropped = False

    def _forget(self) -> None:
        now = self._wall()
        trims = self._store.trims
        if any(found := trims.find_forgettable(now, self._key_seconds)):  # before the lock: it may take a while
            with self._peers.lock():
                trims.forget(*found, now, self._key_seconds)

    def _trim(self) -> None:
        name, last = next(iter(self._due.items()))
        with self._peers.lock():
            more = self._store.trims.trim(name, last)
        del self._due[name]
        if more:
            self._due[name] = last  # after the others

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do what can wait. If the disk is full, complain, and go on with the rest."""
        try:
            step()
        except (sqlite3.Error, OSError) as error:
            self._due.clear()
            self._complain(error)

    def _in_place(self) -> bool:
        """Return whether the file is the one that was opened; if not, what is appended would go to nowhere."""
        if identity(self._path) == self._identity:
            return True
        self._fail(
            f"broker: {self._path}: the file was replaced or removed while it was open; the server has to start again"
        )
        return False

    def _complain(self, error: Exception) -> None:
        self._complaints.complain(f"can't be written to or read: {error}; publishes are answered with 503")

    def _fail(self, reason: str) -> None:
        self._refuse_under_way()
        self._outbox.deliver(partial(self._failed, reason))
        self._outbox.wake()
