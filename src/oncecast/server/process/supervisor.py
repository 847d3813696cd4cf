"""The parent of several workers: it holds the sockets and the settings, and keeps a worker in each slot.

It serves nobody itself and has no broker, so little can make it fail. A slot has listening sockets of its own, which
stay open here when its worker ends: a connection that was not accepted yet waits for the successor and is not reset.

Invariant: while SERVING, each slot has a worker, or a task that starts one; every child that lives is in `_children`,
and a task of `_tasks` waits for its end. A task that fails leaves workers unwatched, so it fails the supervisor: see
`failed`. A worker that answers no question for `MISSED` checks is killed, and replaced like any other that ends. To
give workers new information, add a message to `control.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import ConfigurationError
from ..listening import set_send_timeout
from ..quota_memory import QuotaMemory
from ..reload import ReadSettings, read_again
from ..settings import Settings
from ..tasks import Tasks
from .child import WORKER, Child, WorkerState
from .control import Change, Pace
from .log import adopt_log
from .totals import Totals

__all__ = ["Supervisor", "SupervisorPhase", "pause_after"]

logger = logging.getLogger("oncecast.server")

YOUNG_SECONDS = 2.0  # a worker that dies younger than that died of what it found at its start
PAUSE_SECONDS, LONGEST_PAUSE = 0.1, 5.0
LONGEST_PAUSE_SERVED = 0.5  # after a worker that served: connections to its slot wait for the successor
KILL_SECONDS = 5.0  # for a worker to end after the order to cut its connections
CHECK_SECONDS = 10.0  # between two checks whether a worker answers
LEAVE_SECONDS = 5.0  # for a worker that was replaced to say that it accepts no more connections
REGIONS_PER_SLOT = 4  # for the counts of a worker, its successor, and older ones that drain
MISSED = 9  # checks in a row without an answer, after which a worker counts as stuck


class SupervisorPhase(enum.Enum):
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
    """Workers on `sockets`, a list of them for each. `read` returns the settings again. `program` is the module of one.

    `failed` is the reason for which the supervisor can't go on, and `on_failure` is called with it. `on_drain` is
    called with the reason where an operator has asked a worker to drain the server.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[Sequence[socket.socket]],
        read: ReadSettings,
        program: str = WORKER,
    ) -> None:
        self.settings = settings
        self._program = program
        self.phase = SupervisorPhase.STARTING
        self.failed: str | None = None
        self.on_failure: Callable[[str], None] = _ignore
        self.on_drain: Callable[[str], None] = _ignore
        self._slots = [_Slot(number, found) for number, found in enumerate(sockets, 1)]
        self._read = read
        self._children: set[Child] = set()
        self._tasks = Tasks(self._fail)
        self._totals = Totals(self._tasks, lambda: self._children)
        self._stopping = asyncio.Event()
        self._begun = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        self._parts = len(sockets)  # into which the rate of draining is divided
        self._quotas = QuotaMemory.create(REGIONS_PER_SLOT * len(sockets))

    async def start(self) -> None:
        """Start every worker, and wait until they serve. Raises `ConfigurationError` where none of them can."""
        for slot in self._slots:
            set_send_timeout(slot.sockets, self.settings.limits.heartbeat_seconds)
        for slot in self._slots:
            try:
                slot.child = await self._start(slot)
            except OSError:
                if self._stopping.is_set():  # `stop` has closed the sockets
                    break
                raise
        first = [slot.child for slot in self._slots if slot.child is not None]
        for child in first:
            await child.decided.wait()
        if self._stopping.is_set():
            return
        if not any(child.served for child in first):
            reasons = [child.failure for child in first if child.failure]
            await self.stop(asyncio.Event())
            raise ConfigurationError([*reasons, "no worker could start; the lines above have the reasons"][0])
        self.phase = SupervisorPhase.SERVING
        self._begun.set()

    async def stop(self, cut_off: asyncio.Event) -> None:
        """Accept no more connections, let every worker drain, and wait for their end. The event cuts that short."""
        self.phase = SupervisorPhase.STOPPING
        self._stopping.set()
        self._begun.set()
        for slot in self._slots:
            for sock in slot.sockets:
                sock.close()
        for child in self._children:
            child.stop()
        self._share_rate()
        cutting = asyncio.create_task(cut_off.wait())
        while running := self._tasks.running:
            await asyncio.wait({*running, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if cutting.done():
                await self._cut_off()
        cutting.cancel()

    def reload(self) -> None:
        """Read the settings again, and hand them to each worker. Where they are in error, the old ones stay."""
        settings = read_again(self.settings, self._read)
        if settings is not None:
            self.settings = settings
            adopt_log(settings)
            for child in self._children:
                child.tell(Change(settings))

    def roll(self) -> None:
        """Replace every worker by a new process, slot by slot."""
        if self.phase is not SupervisorPhase.SERVING or (self._rolling is not None and not self._rolling.done()):
            logger.warning("a rolling restart can't begin now: another one, the start or the end is under way")
            return
        self._rolling = self._tasks.start("the rolling restart", self._roll(), may_end=True)

    # -- the life of a worker

    async def _start(self, slot: _Slot) -> Child:
        region = self._quotas.take()
        quotas = None if region is None else (self._quotas.descriptor, region)
        try:
            child = await Child.start(
                slot.number, len(self._slots), self.settings, slot.sockets, self, quotas, self._program
            )
        except BaseException:
            self._quotas.free(region)
            raise
        self._children.add(child)
        if self._stopping.is_set():
            child.stop()
        self._tasks.start(f"watching process {child.pid}", self._watch(slot, child, region), may_end=True)
        return child

    async def _watch(self, slot: _Slot, child: Child, region: int | None) -> None:
        """Wait for a worker's end, and clear its counts; where it was not asked for, start its successor."""
        checking = self._tasks.start(f"checking process {child.pid}", self._check(child), may_end=True)
        status = await child.run()
        self._quotas.free(region)
        await checking
        self._children.discard(child)
        self._totals.keep(child)
        self._share_rate()
        if not child.served:
            await self._begun.wait()  # where none can serve, `start` gives up
        if slot.child is not child or self.phase is SupervisorPhase.STOPPING:
            return
        slot.child = None
        self._totals.restarts += 1
        reason = f": {child.failure}" if child.failure else ""
        when = self._set_pause(slot, child)
        logger.error(
            "worker %d (process %d) %s%s; its successor starts %s", slot.number, child.pid, _ended(status), reason, when
        )
        await self._refill(slot)

    async def _check(self, child: Child) -> None:
        """Kill a worker that answers nothing for a long time: its loop is stuck, and its connections with it."""
        missed = 0
        while missed < MISSED:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.ended.wait(), CHECK_SECONDS)
            if child.ended.is_set():
                return
            if child.state in (WorkerState.SERVING, WorkerState.LEAVING):  # a start has a deadline of its own
                missed = 0 if await child.measure() is not None else missed + 1
        logger.error("process %d has not answered for %g seconds: it is killed", child.pid, MISSED * CHECK_SECONDS)
        child.kill()

    def _set_pause(self, slot: _Slot, child: Child) -> str:
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
            if slot.child is not None or self.phase is SupervisorPhase.STOPPING:
                return
            try:
                child = await self._start(slot)
            except OSError as error:
                if self._stopping.is_set():
                    return
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
                if not self._stopping.is_set():
                    logger.error("rolling restart given up at worker %d: %s. The old ones serve on", slot.number, error)
                return
            await successor.decided.wait()
            if self._stopping.is_set():
                return
            if successor.state is not WorkerState.SERVING:
                reason = successor.failure or "its successor ended at its start"
                logger.error("rolling restart given up at worker %d: %s. The old ones serve on", slot.number, reason)
                return
            old, slot.child, slot.pause = slot.child, successor, 0.0
            logger.info("worker %d is process %d now", slot.number, successor.pid)
            if old is not None:  # else it had ended or drained, and its successor was on its way
                old.stop()
                self._share_rate()
                await _until_left(old)
        logger.info("rolling restart: every worker is a new one")

    async def _cut_off(self) -> None:
        for child in self._children:
            child.cut_off()
        tasks = [asyncio.create_task(asyncio.sleep(0)), *self._tasks.running]  # `wait` wants at least one
        _, stuck = await asyncio.wait(tasks, timeout=KILL_SECONDS)
        if stuck:
            for child in self._children:
                logger.error("process %d does not end: it is killed", child.pid)
                child.kill()
            await asyncio.wait(stuck)

    def _share_rate(self) -> None:
        """Send the new rate of draining when the number of workers changes that share it."""
        leaving = [child for child in self._children if child.state is WorkerState.LEAVING]
        parts = max(len(self._slots), len(leaving))
        if parts > len(self._slots) or parts != self._parts:
            for child in leaving:
                child.tell(Pace(parts))
        self._parts = parts

    def _fail(self, reason: str) -> None:
        self.failed = reason
        if self.phase is not SupervisorPhase.STOPPING:
            self.on_failure(reason)

    # -- what a child reports

    def on_drain_asked(self, reason: str, /) -> None:
        """Ask whoever started this to stop it."""
        self.on_drain(reason)

    def on_asked(self, child: Child, /, *, views: bool = False, channel: str | None = None) -> None:
        """Answer a worker with what all have measured; with `views` also with their views, and who is on `channel`."""
        self._totals.ask(child, views=views, channel=channel)

    def on_leaving(self, child: Child, /) -> None:
        """Start the successor of a worker that drains of its own accord now, and not at its end."""
        self._share_rate()
        slot = next((slot for slot in self._slots if slot.child is child), None)
        if slot is not None and self.phase is not SupervisorPhase.STOPPING:
            when = self._set_pause(slot, child)
            logger.info("worker %d (process %d) drains; its successor starts %s", slot.number, child.pid, when)
            slot.child = None
            self._tasks.start(f"refilling slot {slot.number}", self._refill(slot), may_end=True)


def pause_after(lived: float, pause: float, *, served: bool) -> float:
    """Return for how many seconds a slot waits for the successor of a worker that `lived` that long.

    `pause` is what it waited the last time; it doubles for workers that die young.
    """
    if lived >= YOUNG_SECONDS:
        return 0.0
    return min(LONGEST_PAUSE_SERVED if served else LONGEST_PAUSE, max(PAUSE_SECONDS, 2 * pause))


async def _until_left(child: Child) -> None:
    """Wait until a worker accepts no connections any more. One that does not read its pipe is not waited for longer."""
    try:
        await asyncio.wait_for(child.left.wait(), LEAVE_SECONDS)
    except TimeoutError:
        logger.warning(
            "process %d was asked to stop %g seconds ago, does not answer, and may still accept connections",
            child.pid,
            LEAVE_SECONDS,
        )


def _ended(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-status}"


def _ignore(reason: str) -> None:
    """Do nothing."""
