"""The process of one worker: `python -m oncecast.server.process.worker CONTROL LISTENING…`, started by a supervisor.

The arguments are descriptors that it inherits: the pipe to its supervisor, which brings everything else, and the
listening sockets of its slot.

Invariant: it serves only while its supervisor lives. It ignores the signals that a terminal sends to all its processes,
as the supervisor obeys them; at SIGTERM this one worker drains and ends, and its supervisor replaces it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from ...errors import ConfigurationError
from ...http.overview import Overview, OverviewRequest
from ...policy.quotas import Quotas
from ..build import build_quotas
from ..exposition import render
from ..guest import Hosting
from ..listeners import listeners_of
from ..measures import Crew, measure
from ..overview import View, compose, look, others
from ..quota_memory import QuotaMemory
from ..server import Server
from ..tasks import Tasks
from .control import (
    Asked,
    Begin,
    Change,
    Collect,
    CutOff,
    DrainAsked,
    Failed,
    Leaving,
    Measured,
    Pace,
    Pipe,
    Ready,
    Stop,
    Total,
    ToWorker,
)
from .log import adopt_log, begin_log, open_logs
from .runtime import drain, run_loop, tune_interpreter

__all__ = ["main"]

logger = logging.getLogger("oncecast.server")

TOTAL_SECONDS = 3.0  # for the supervisor to answer; it waits a second for the other workers
SUPERVISORS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(arguments: list[str], hosting: Hosting | None = None) -> int:
    """Serve until the supervisor says otherwise; returns the exit status."""
    for number in SUPERVISORS:
        signal.signal(number, signal.SIG_IGN)
    control, *listening = (_adopt(int(argument)) for argument in arguments)
    return run_loop(_work(control, listening, hosting))


def _adopt(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


async def _work(control: socket.socket, listening: list[socket.socket], hosting: Hosting | None) -> int:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    pipe: Pipe[ToWorker] = await Pipe.open(control, ToWorker)
    begin = await pipe.receive()
    if not isinstance(begin, Begin):  # the supervisor has gone
        await pipe.close()
        return 0
    begin_log(begin.slot, begin.settings)
    try:
        app = begin.settings.app
        server = Server(
            begin.settings,
            sockets=listening,
            share=1 / begin.workers,
            demo=begin.slot == 1,
            quotas=_quotas(begin),
            logs=open_logs(begin.slot),
            guest=None if hosting is None or app is None else hosting.load(app),
        )
        server.node.on_failure = lambda reason: stopping.set()
        await server.start()
    except (ConfigurationError, OSError) as error:
        pipe.send(Failed(str(error)))
        await pipe.close()
        return 1
    worker = _Worker(server, pipe, stopping, begin.workers)
    server.app.collect = worker.collect
    server.app.overview = worker.overview
    server.app.drain = lambda reason: pipe.send(DrainAsked(reason))
    tune_interpreter()
    pipe.send(Ready())
    tasks = Tasks(server.node.fail)  # a worker that can't be reached is replaced
    tasks.start("the pipe to the supervisor", worker.listen(), may_end=True)
    await stopping.wait()
    status = await drain(server, worker.cut_off, lambda: pipe.send(Leaving()))
    pipe.send(Measured(measure(server.app)))
    await tasks.stop()
    await pipe.close()
    return status


def _quotas(begin: Begin) -> Quotas | None:
    """Return the quotas that count together with those of the other workers."""
    if begin.quotas is None:
        return None
    descriptor, region = begin.quotas
    os.set_inheritable(descriptor, False)
    return build_quotas(begin.settings, QuotaMemory(descriptor), region)


class _Worker:
    """Obeys the supervisor's messages, and asks it for the total: once at a time, for all requests that wait for it.

    The overview's total has views of the workers, and is asked for beside that of the metrics.
    """

    def __init__(self, server: Server, pipe: Pipe[ToWorker], stopping: asyncio.Event, workers: int) -> None:
        self.cut_off = asyncio.Event()
        self._server = server
        self._pipe = pipe
        self._stopping = stopping
        self._workers = workers
        self._asking: list[Callable[[bytes], None]] = []
        self._total_timer: asyncio.TimerHandle | None = None
        # By the channel whose listeners are asked for: the callbacks, and the timer that ends their wait.
        self._viewing: dict[str | None, tuple[list[Callable[[Total], None]], asyncio.TimerHandle]] = {}

    async def listen(self) -> None:
        """Obey the supervisor until it is gone, and then stop."""
        try:
            while (message := await self._pipe.receive()) is not None:
                self._obey(message)
        finally:
            self._stopping.set()

    def _obey(self, message: ToWorker) -> None:
        match message:
            case Collect(view=False):
                self._pipe.send(Measured(measure(self._server.app)))
            case Collect(channel=channel):
                look(self._server.app, channel, lambda view: self._pipe.send(Measured(view.measures, view)))
            case Total(measures=measures, crew=crew, views=()):
                self._answer(render(measures, crew))
            case Total():
                self._show(message)
            case Change(settings=settings):
                try:
                    self._server.reload(settings)
                    adopt_log(self._server.settings)
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
        if self._total_timer is None:
            self._total_timer = asyncio.get_running_loop().call_later(TOTAL_SECONDS, self._answer_alone)
            self._pipe.send(Asked())

    def _answer_alone(self) -> None:
        self._answer(render(measure(self._server.app), Crew(1, 0, self._workers - 1)))

    def _answer(self, text: bytes) -> None:
        if self._total_timer is not None:
            self._total_timer.cancel()
            self._total_timer = None
        asking, self._asking = self._asking, []
        for done in asking:
            done(text)

    def overview(self, asked: OverviewRequest, done: Callable[[Overview], None]) -> None:
        """Call back with the overview of all workers, or with this one's where the supervisor does not answer."""

        def show(total: Total) -> None:
            app = self._server.app
            done(
                compose(
                    total.measures,
                    total.crew,
                    total.views,
                    asked,
                    now=app.wall(),
                    name=app.name,
                    present=others(app),
                )
            )

        if asked.channel in self._viewing:
            self._viewing[asked.channel][0].append(show)
            return
        timer = asyncio.get_running_loop().call_later(TOTAL_SECONDS, self._show_alone, asked.channel)
        self._viewing[asked.channel] = [show], timer
        self._pipe.send(Asked(views=True, channel=asked.channel))

    def _show_alone(self, channel: str | None) -> None:
        silent = Crew(1, 0, self._workers - 1)
        look(self._server.app, channel, lambda view: self._show(Total(view.measures, silent, (view,), channel)))

    def _show(self, total: Total) -> None:
        if total.channel is None and None not in self._viewing:
            # Of an older supervisor, which knows of no channel: this worker says who listens here.
            for channel in list(self._viewing):
                self._show(msgspec.structs.replace(total, channel=channel, views=self._with_listeners(total, channel)))
            return
        viewing, timer = self._viewing.pop(total.channel, ([], None))
        if timer is not None:
            timer.cancel()
        for show in viewing:
            show(total)

    def _with_listeners(self, total: Total, channel: str | None) -> tuple[View, ...]:
        assert channel is not None
        own = listeners_of(self._server.app, channel)
        return tuple(
            msgspec.structs.replace(view, listeners=own) if view.pid == os.getpid() else view for view in total.views
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
