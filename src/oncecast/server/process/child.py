"""A worker as its supervisor sees it: a process, the control socket to it, and how far it has come.

Invariant: whatever a worker does, `run` returns once its process is gone, and `settled` is set at the latest then. One
that does not serve within `READY_SECONDS` is killed. What it has measured last is kept beyond its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..metrics import Measures
from ..settings import Settings
from .control import (
    Asked,
    Begin,
    Change,
    Channel,
    Collect,
    CutOff,
    Failed,
    FromWorker,
    Leaving,
    Measured,
    Pace,
    Ready,
    Stop,
    Total,
)

__all__ = ["MOVES", "READY_SECONDS", "Child", "State"]

READY_SECONDS = 30.0  # in which a worker has to serve, imports and the opening of its broker included
COLLECT_SECONDS = 1.0  # in which it has to say what it has measured: a scrape is not to wait for one that is stuck


class State(enum.Enum):
    """How far a worker has come."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    ENDED = "ended"


MOVES: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.SERVING, State.LEAVING, State.ENDED}),
    State.SERVING: frozenset({State.LEAVING, State.ENDED}),
    State.LEAVING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


class Owner(Protocol):
    """What a child tells its supervisor."""

    def asked(self, child: Child, /) -> None:
        """It wants to know what all workers have measured."""
        ...

    def left(self, child: Child, /) -> None:
        """It drains, and was not told to by its supervisor."""
        ...


class Child:
    """One worker."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel[FromWorker], owner: Owner) -> None:
        self.pid = process.pid
        self.state = State.STARTING
        self.settled = asyncio.Event()  # it serves, or never will
        self.began = asyncio.get_running_loop().time()
        self.served = False
        self.failure: str | None = None
        self.measures = Measures()
        self._process = process
        self._channel = channel
        self._owner = owner
        self._measured: asyncio.Event | None = None
        self._patience = asyncio.get_running_loop().call_later(READY_SECONDS, self._out_of_patience)

    @classmethod
    async def start(
        cls, slot: int, workers: int, settings: Settings, sockets: Sequence[socket.socket], owner: Owner
    ) -> Child:
        """Start the process that serves on these sockets. It is no fork: it runs the code as it is now.

        Raises `OSError` where the system has no room for a process.
        """
        ours, theirs = socket.socketpair()
        channel: Channel[FromWorker] = await Channel.open(ours, FromWorker)
        with theirs:
            descriptors = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "oncecast.server.process.worker", *map(str, descriptors)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=descriptors,
                    env=environment(os.environ, sys.path),
                )
            except OSError:
                await channel.close()
                raise
        channel.send(Begin(slot, workers, settings))
        return cls(process, channel, owner)

    async def run(self) -> int:
        """Listen to the worker until its process has ended. Returns its exit status, negative for a signal's number."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case Ready():
                    if self.state is State.STARTING:
                        self._move(State.SERVING)
                        self.served = True
                    self.settled.set()
                case Failed(reason=reason):
                    self.failure = reason
                case Leaving():
                    if self.state is State.SERVING:
                        self._move(State.LEAVING)
                        self._owner.left(self)
                case Asked():
                    self._owner.asked(self)
                case Measured(measures=measures):
                    self.measures = measures
                    if self._measured is not None:
                        self._measured.set()
        await self._channel.close()  # one that lives on all the same stops at this
        status = await self._process.wait()
        self._patience.cancel()
        self._move(State.ENDED)
        self.settled.set()
        return status

    async def measure(self) -> Measures | None:
        """Return what the worker has measured, or None where it does not say so in time."""
        self._measured = self._measured or asyncio.Event()
        self._channel.send(Collect())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._measured.wait(), COLLECT_SECONDS)
        answered, self._measured = self._measured.is_set(), None
        return self.measures if answered else None

    def tell(self, message: Total | Change | Pace) -> None:
        """Send the worker something to know."""
        self._channel.send(message)

    def stop(self) -> None:
        """Let it drain and end. One that does not serve yet has nobody to say goodbye to."""
        if self.state is State.STARTING:
            self._signal(signal.SIGTERM)
        if self.state in (State.STARTING, State.SERVING):
            self._move(State.LEAVING)
            self._channel.send(Stop())

    def cut_off(self) -> None:
        """End its connections, and itself, at once."""
        self._channel.send(CutOff())

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._signal(signal.SIGKILL)

    def _out_of_patience(self) -> None:
        if self.state is State.STARTING:
            self.failure = f"it did not serve within {READY_SECONDS:g} seconds"
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"a worker can't go from {self.state.value} to {state.value}")
        self.state = state


def environment(environ: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """Return the variables for a worker, which is to find the package where this process did.

    `-P` keeps the working directory out of its path, as it is out of the `oncecast` command's. Where this process has
    the package from there all the same (`python -m oncecast` beside it), the worker is told so.
    """
    root = str(Path(__file__).resolve().parents[3])
    if path and path[0] and Path(path[0]).resolve() == Path(root):
        return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, environ.get("PYTHONPATH"))))}
    return dict(environ)
