"""The parent of several workers: it holds the sockets and the settings, and keeps a worker in each slot.

It serves nobody itself, has no broker, and so has little that could make it fail.

A slot has listening sockets of its own, which stay open here whatever becomes of its worker. So who has connected, and
was not accepted yet, waits for the worker's successor and is not reset.

Invariant: while SERVING, each slot has a worker, or a task that starts one; every child that lives is in `_children`,
and has one task, in `_tasks`, that returns when it has ended. To tell workers something new, add a message to
`control.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from ...errors import ConfigurationError
from ..listening import set_send_timeout
from ..metrics import Crew, Measures, add, lasting
from ..reload import Read, read_again
from ..settings import Settings
from .child import Child, State
from .control import Change, Pace, Total

__all__ = ["Phase", "Supervisor", "pause_after"]

logger = logging.getLogger("oncecast.server")

YOUNG_SECONDS = 2.0  # a worker that dies younger than that died of what it found at its start
PAUSE_SECONDS, LONGEST_PAUSE = 0.1, 5.0
LONGEST_PAUSE_SERVED = 0.5  # after one that served: who connects to its slot meanwhile waits for the successor
KILL_SECONDS = 5.0  # for a worker to end that was told to do so at once


class Phase(enum.Enum):
    """What the supervisor is doing."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(slots=True)
class _Slot:
    number: int
    sockets: Sequence[socket.socket]
    child: Child | None = None
    pause: float = 0.0


class Supervisor:
    """Workers on `sockets`, a list of them for each. `read` gives the settings anew."""

    def __init__(self, settings: Settings, sockets: Sequence[Sequence[socket.socket]], read: Read) -> None:
        self.settings = settings
        self.phase = Phase.STARTING
        self._slots = [_Slot(number, found) for number, found in enumerate(sockets, 1)]
        self._read = read
        self._children: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._begun = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._askers: list[Child] = []
        self._past = Measures()  # of workers that have ended
        self._parts = len(sockets)  # into which the rate is divided at which connections are let go
        self._restarts = 0

    async def start(self) -> None:
        """Start every worker, and wait until they serve. Raises `ConfigurationError` where none of them can."""
        for slot in self._slots:
            set_send_timeout(slot.sockets, self.settings.limits.heartbeat_seconds)
            slot.child = await self._start(slot)
        first = [slot.child for slot in self._slots if slot.child is not None]
        for child in first:
            await child.settled.wait()
        if self._stopping.is_set():
            return
        if not any(child.served for child in first):
            reasons = [child.failure for child in first if child.failure]
            await self.stop(asyncio.Event())
            raise ConfigurationError([*reasons, "no worker could begin; what they said stands above"][0])
        self.phase = Phase.SERVING
        self._begun.set()

    async def stop(self, cut_off: asyncio.Event) -> None:
        """Take no more connections, let every worker drain, and wait for their end. The event makes it quick."""
        self.phase = Phase.STOPPING
        self._stopping.set()
        self._begun.set()
        for slot in self._slots:
            for sock in slot.sockets:
                sock.close()
        for child in self._children:
            child.stop()
        self._divide()
        impatient = asyncio.create_task(cut_off.wait())
        while self._tasks:
            await asyncio.wait({*self._tasks, impatient}, return_when=asyncio.FIRST_COMPLETED)
            if impatient.done():
                await self._cut_off()
        impatient.cancel()
        for task in (self._rolling, self._collecting):
            if task is not None:
                await task

    def reload(self) -> None:
        """Read the settings again, and hand them to each worker. Where they are in error, the old ones stay."""
        settings = read_again(self.settings, self._read)
        if settings is not None:
            self.settings = settings
            for child in self._children:
                child.tell(Change(settings))

    def roll(self) -> None:
        """Replace every worker by a new process, slot by slot."""
        if self.phase is not Phase.SERVING or (self._rolling is not None and not self._rolling.done()):
            logger.warning("a rolling restart can't begin now: another one, the start or the end is under way")
            return
        self._rolling = asyncio.create_task(self._roll())

    # -- the life of a worker

    async def _start(self, slot: _Slot) -> Child:
        child = await Child.start(slot.number, len(self._slots), self.settings, slot.sockets, self)
        self._children.add(child)
        if self._stopping.is_set():
            child.stop()
        self._own(self._watch(slot, child))
        return child

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, slot: _Slot, child: Child) -> None:
        """Wait for a worker's end; where it was not asked for, start its successor."""
        status = await child.run()
        self._children.discard(child)
        self._past = add([self._past, lasting(child.measures)])
        self._divide()
        if not child.served:
            await self._begun.wait()  # where none can serve, `start` gives up
        if slot.child is not child or self.phase is Phase.STOPPING:
            return
        slot.child = None
        self._restarts += 1
        reason = f": {child.failure}" if child.failure else ""
        when = self._pause(slot, child)
        logger.error(
            "worker %d (process %d) %s%s; its successor starts %s", slot.number, child.pid, _ended(status), reason, when
        )
        await self._refill(slot)

    def _pause(self, slot: _Slot, child: Child) -> str:
        """Set how long a slot waits for its child's successor, and say it."""
        lived = asyncio.get_running_loop().time() - child.began
        slot.pause = pause_after(lived, slot.pause, served=child.served)
        return f"in {slot.pause:g} s" if slot.pause else "now"

    async def _refill(self, slot: _Slot) -> None:
        """Start a worker in a slot that has lost its own, unless a rolling restart is faster."""
        while True:
            if slot.pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), slot.pause)
            if slot.child is not None or self.phase is Phase.STOPPING:
                return
            try:
                child = await self._start(slot)
            except OSError as error:
                slot.pause = pause_after(0, slot.pause, served=False)
                logger.error("worker %d can't be started: %s", slot.number, error)
                continue
            self._place(slot, child)
            return

    def _place(self, slot: _Slot, child: Child) -> None:
        if slot.child is None:
            slot.child = child
        else:  # a rolling restart was faster
            child.stop()

    async def _roll(self) -> None:
        logger.info("rolling restart: %d workers", len(self._slots))
        for slot in self._slots:
            if self._stopping.is_set():
                return
            try:
                successor = await self._start(slot)
            except OSError as error:
                logger.error("rolling restart given up at worker %d: %s. The old ones serve on", slot.number, error)
                return
            await successor.settled.wait()
            if self._stopping.is_set():
                return
            if successor.state is not State.SERVING:
                reason = successor.failure or "its successor ended at its start"
                logger.error("rolling restart given up at worker %d: %s. The old ones serve on", slot.number, reason)
                return
            old, slot.child, slot.pause = slot.child, successor, 0.0
            logger.info("worker %d is process %d now", slot.number, successor.pid)
            if old is not None:  # else it had died, or left, and its successor was on its way
                old.stop()
                self._divide()
        logger.info("rolling restart: every worker is a new one")

    async def _cut_off(self) -> None:
        for child in self._children:
            child.cut_off()
        tasks = [asyncio.create_task(asyncio.sleep(0)), *self._tasks]  # `wait` wants at least one
        _, stuck = await asyncio.wait(tasks, timeout=KILL_SECONDS)
        if stuck:
            for child in self._children:
                logger.error("process %d does not end: it is killed", child.pid)
                child.kill()
            await asyncio.wait(stuck)

    def left(self, child: Child) -> None:
        """Give a slot whose worker drains, and was not told to from here, its successor now and not at its end."""
        self._divide()
        slot = next((slot for slot in self._slots if slot.child is child), None)
        if slot is not None and self.phase is not Phase.STOPPING:
            when = self._pause(slot, child)
            logger.info("worker %d (process %d) drains; its successor starts %s", slot.number, child.pid, when)
            slot.child = None
            self._own(self._refill(slot))

    def _divide(self) -> None:
        """Tell those who let go of their connections if they are more than there are slots, or no longer so many."""
        leaving = [child for child in self._children if child.state is State.LEAVING]
        parts = max(len(self._slots), len(leaving))
        if parts > len(self._slots) or parts != self._parts:
            for child in leaving:
                child.tell(Pace(parts))
        self._parts = parts

    # -- metrics

    def asked(self, child: Child) -> None:
        """Answer a worker with what all have measured; those that ask meanwhile get the same answer."""
        self._askers.append(child)
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        begun = [child for child in self._children if child.state in (State.SERVING, State.LEAVING)]
        found = await asyncio.gather(*(child.measure() for child in begun))
        answered = [measures for measures in found if measures is not None]
        serving = sum(slot.child is not None and slot.child.state is State.SERVING for slot in self._slots)
        total = Total(add([self._past, *answered]), Crew(serving, self._restarts, len(found) - len(answered)))
        askers, self._askers = self._askers, []
        for child in askers:
            child.tell(total)


def pause_after(lived: float, pause: float, *, served: bool) -> float:
    """Return how long the successor waits of a worker that lived so many seconds, after a pause of that many."""
    if lived >= YOUNG_SECONDS:
        return 0.0
    return min(LONGEST_PAUSE_SERVED if served else LONGEST_PAUSE, max(PAUSE_SECONDS, 2 * pause))


def _ended(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-status}"
