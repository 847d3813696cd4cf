"""A worker as its supervisor sees it: a process, the pipe to it, and its state.

Invariant: whatever a worker does, `run` returns once its process is gone, and `decided` and `left` are set at the
latest then. A worker that does not serve within `READY_SECONDS` is killed. What it has measured last is kept beyond its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from ..measures import Measures
from ..overview import View
from ..settings import Settings
from .control import (
    Asked,
    Begin,
    Change,
    Collect,
    CutOff,
    DrainAsked,
    Failed,
    FromWorker,
    Leaving,
    Measured,
    Pace,
    Pipe,
    Ready,
    Stop,
    Total,
)

__all__ = ["MOVES", "READY_SECONDS", "WORKER", "Child", "WorkerEvent", "WorkerState"]

logger = logging.getLogger("oncecast.server")

WORKER = "oncecast.server.process.worker"  # the module that runs as one
READY_SECONDS = 30.0  # in which a worker has to serve, imports and the opening of its broker included
COLLECT_SECONDS = 1.0  # in which it has to answer `Collect`: a scrape does not wait for a worker that is stuck


class WorkerState(enum.Enum):
    """How far a worker has come."""

    STARTING = "starting"  # has a process and no more
    SERVING = "serving"  # accepts connections
    LEAVING = "leaving"  # drains; its slot has a successor, or needs none
    ENDED = "ended"


WorkerEvent: TypeAlias = Literal[
    "ready",  # it said that it serves
    "left",  # it drains, by an order of its supervisor or of another process
    "exited",  # its process has ended
]


MOVES: Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]] = {
    WorkerState.STARTING: {
        "ready": WorkerState.SERVING,
        "left": WorkerState.LEAVING,
        "exited": WorkerState.ENDED,
    },
    WorkerState.SERVING: {"left": WorkerState.LEAVING, "exited": WorkerState.ENDED},
    WorkerState.LEAVING: {"exited": WorkerState.ENDED},
    WorkerState.ENDED: {},
}


class ChildOwner(Protocol):
    """What a child reports to its supervisor."""

    def on_asked(self, child: Child, /, *, views: bool, channel: str | None) -> None:
        """The worker needs what all have measured; with `views` also their views, and in these who is on `channel`."""
        ...

    def on_drain_asked(self, reason: str, /) -> None:
        """An operator has asked the worker to drain the whole server."""
        ...

    def on_leaving(self, child: Child, /) -> None:
        """The worker drains without an order of its supervisor."""
        ...


class Child:
    """One worker. `decided` is set once it serves, or never will; `failure` says why it can't, if it said so.

    `left` is set once it accepts no connections any more.
    """

    def __init__(self, process: asyncio.subprocess.Process, pipe: Pipe[FromWorker], owner: ChildOwner) -> None:
        self.pid = process.pid
        self.state = WorkerState.STARTING
        self.decided = asyncio.Event()
        self.left = asyncio.Event()
        self.ended = asyncio.Event()
        self.began = asyncio.get_running_loop().time()
        self.served = False
        self.failure: str | None = None
        self.measures = Measures()
        self._process = process
        self._pipe = pipe
        self._owner = owner
        self._measured: asyncio.Event | None = None
        self._viewed: dict[str | None, asyncio.Future[View]] = {}  # by the channel whose listeners are asked for
        self._deadline = asyncio.get_running_loop().call_later(READY_SECONDS, self._fail_to_start)

    @classmethod
    async def start(
        cls,
        slot: int,
        workers: int,
        settings: Settings,
        sockets: Sequence[socket.socket],
        owner: ChildOwner,
        quotas: tuple[int, int] | None = None,
        program: str = WORKER,
    ) -> Child:
        """Start the process that serves on these sockets. It is no fork: it runs the code as it is now.

        `quotas` is the descriptor of their memory, and the region in which the process counts.

        Raises `OSError` where the system has no room for a process, and `ENOTSOCK` where the sockets were closed, as
        the server stops.
        """
        ours, theirs = socket.socketpair()
        pipe: Pipe[FromWorker] = await Pipe.open(ours, FromWorker)
        with theirs:
            descriptors = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
            try:
                if min(descriptors) < 0:
                    raise OSError(errno.ENOTSOCK, "the listening sockets were closed")
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", program, *map(str, descriptors)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=descriptors if quotas is None else [*descriptors, quotas[0]],
                    env=environment(os.environ, sys.path),
                )
            except OSError:
                await pipe.close()
                raise
        pipe.send(Begin(slot, workers, settings, quotas))
        return cls(process, pipe, owner)

    async def run(self) -> int:
        """Listen to the worker until its process has ended. Returns its exit status, negative for a signal's number."""
        try:
            while (message := await self._pipe.receive()) is not None:
                self._obey(message)
        except Exception:  # a defect of ours: the worker can't be heard any more, so it is replaced
            logger.exception("a message of process %d could not be handled: it is killed", self.pid)
            self.kill()
        await self._pipe.close()  # a worker that lives on stops at this
        status = await self._process.wait()
        self._deadline.cancel()
        self._move("exited")
        self.decided.set()
        self.left.set()
        self.ended.set()
        return status

    def _obey(self, message: FromWorker) -> None:
        match message:
            case Ready():
                if self.state is WorkerState.STARTING:
                    self._move("ready")
                    self.served = True
                self.decided.set()
            case Failed(reason=reason):
                self.failure = reason
            case Leaving():
                self.left.set()
                if self.state is WorkerState.SERVING:
                    self._move("left")
                    self._owner.on_leaving(self)
            case Asked(views=views, channel=channel):
                self._owner.on_asked(self, views=views, channel=channel)
            case DrainAsked(reason=reason):
                self._owner.on_drain_asked(reason)
            case Measured(measures=measures, view=view):
                self.measures = measures
                if self._measured is not None:
                    self._measured.set()
                if view is not None:
                    channel = None if view.listeners is None else view.listeners.channel
                    viewed = self._viewed.pop(channel, None)
                    if viewed is not None:
                        viewed.set_result(view)

    async def measure(self) -> Measures | None:
        """Return what the worker has measured, or None where it does not answer in `COLLECT_SECONDS`."""
        measured = self._measured
        if measured is None or measured.is_set():
            measured = self._measured = asyncio.Event()
        self._pipe.send(Collect())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(measured.wait(), COLLECT_SECONDS)
        return self.measures if measured.is_set() else None

    async def look(self, channel: str | None) -> View | None:
        """Return the view of the worker, or None where it does not answer in `COLLECT_SECONDS`."""
        viewed = self._viewed.get(channel)
        if viewed is None:
            viewed = self._viewed[channel] = asyncio.get_running_loop().create_future()
        self._pipe.send(Collect(view=True, channel=channel))
        done, _ = await asyncio.wait([viewed], timeout=COLLECT_SECONDS)
        if not done and self._viewed.get(channel) is viewed:
            del self._viewed[channel]
        return viewed.result() if done else None

    def tell(self, message: Total | Change | Pace) -> None:
        """Send the worker a message."""
        self._pipe.send(message)

    def stop(self) -> None:
        """Let the worker drain and end. While it starts it does not read the pipe, so it gets a signal as well."""
        if self.state is WorkerState.STARTING:
            self._signal(signal.SIGTERM)
        if self.state in (WorkerState.STARTING, WorkerState.SERVING):
            self._move("left")
            self._pipe.send(Stop())

    def cut_off(self) -> None:
        """Let the worker cut its connections, and end."""
        self._pipe.send(CutOff())

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._signal(signal.SIGKILL)

    def _fail_to_start(self) -> None:
        if self.state is WorkerState.STARTING:
            self.failure = f"it did not serve within {READY_SECONDS:g} seconds"
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _move(self, event: WorkerEvent) -> None:
        try:
            self.state = MOVES[self.state][event]
        except KeyError:
            raise AssertionError(f"a worker that is {self.state.value} can't have {event}") from None


def environment(environ: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Return the environment of a worker, which has to find the package where this process did.

    `-P` keeps the working directory out of its path, as it is out of the `oncecast` command's. Where this process found
    the package there (`python -m oncecast` beside it), the worker's `PYTHONPATH` names it.
    """
    root = str(Path(__file__).resolve().parents[3])
    if path and path[0] and Path(path[0]).resolve() == Path(root):
        return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH"))))}
    return dict(environ)
