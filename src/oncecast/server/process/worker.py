"""The process of one worker: `python -m oncecast.server.process.worker CONTROL LISTENING…`, started by a supervisor.

The arguments are descriptors that it inherits: the control socket, by which everything else comes, and the listening
sockets of its slot.

Invariant: it serves only while its supervisor lives. Signals that a terminal sends to all its processes are the
supervisor's business; SIGTERM lets this one worker drain and end, and its supervisor replaces it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable

from ...errors import ConfigurationError
from ..metrics import Crew, measure, render
from ..server import Server
from .control import (
    Asked,
    Begin,
    Change,
    Channel,
    Collect,
    CutOff,
    Failed,
    Leaving,
    Measured,
    Pace,
    Ready,
    Stop,
    Total,
    ToWorker,
)
from .log import begin_log
from .runtime import drain, run_loop, settle

__all__ = ["main"]

logger = logging.getLogger("oncecast.server")

TOTAL_SECONDS = 3.0  # for the supervisor to answer; it waits for the others for a second
SUPERVISORS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(arguments: list[str]) -> int:
    """Serve until the supervisor says otherwise; returns the exit status."""
    for number in SUPERVISORS:
        signal.signal(number, signal.SIG_IGN)
    control, *listening = (_adopt(int(argument)) for argument in arguments)
    return run_loop(_work(control, listening))


def _adopt(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


async def _work(control: socket.socket, listening: list[socket.socket]) -> int:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    channel: Channel[ToWorker] = await Channel.open(control, ToWorker)
    begin = await channel.receive()
    if not isinstance(begin, Begin):  # the supervisor has gone
        await channel.close()
        return 0
    begin_log(begin.slot)
    try:
        server = Server(begin.settings, sockets=listening, share=1 / begin.workers, demo=begin.slot == 1)
        server.node.on_failure = lambda reason: stopping.set()
        await server.start()
    except (ConfigurationError, OSError) as error:
        channel.send(Failed(str(error)))
        await channel.close()
        return 1
    worker = _Worker(server, channel, stopping, begin.workers)
    server.app.collect = worker.collect
    settle()
    channel.send(Ready())
    heard = asyncio.create_task(worker.listen())
    await stopping.wait()
    channel.send(Leaving())
    status = await drain(server, worker.cut_off)
    channel.send(Measured(measure(server.app)))
    heard.cancel()
    await asyncio.wait({heard})
    await channel.close()
    return status


class _Worker:
    """What the supervisor's messages do. One question for the total is out at a time, for all who ask meanwhile."""

    def __init__(self, server: Server, channel: Channel[ToWorker], stopping: asyncio.Event, workers: int) -> None:
        self.cut_off = asyncio.Event()
        self._server = server
        self._channel = channel
        self._stopping = stopping
        self._workers = workers
        self._asking: list[Callable[[bytes], None]] = []
        self._patience: asyncio.TimerHandle | None = None

    async def listen(self) -> None:
        """Do what the supervisor says until it is gone, and then stop."""
        try:
            while (message := await self._channel.receive()) is not None:
                self._obey(message)
        finally:
            self._stopping.set()

    def _obey(self, message: ToWorker) -> None:
        match message:
            case Collect():
                self._channel.send(Measured(measure(self._server.app)))
            case Total(measures=measures, crew=crew):
                self._answer(render(measures, crew))
            case Change(settings=settings):
                try:
                    self._server.reload(settings)
                except ConfigurationError as error:  # the files have changed since the supervisor read them
                    logger.error("the settings stay as they were: %s", error)
            case Pace(workers=workers):
                self._server.pace(1 / workers)
            case Stop():
                self._stopping.set()
            case CutOff():
                self._stopping.set()
                self.cut_off.set()
            case Begin():
                pass

    def collect(self, done: Callable[[bytes], None]) -> None:
        """Call back with the metrics of all workers, or with this one's where the supervisor does not answer."""
        self._asking.append(done)
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(TOTAL_SECONDS, self._answer_alone)
            self._channel.send(Asked())

    def _answer_alone(self) -> None:
        self._answer(render(measure(self._server.app), Crew(1, 0, self._workers - 1)))

    def _answer(self, text: bytes) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        asking, self._asking = self._asking, []
        for done in asking:
            done(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
