"""`oncecast serve`: a server as one process, or as a supervisor and its workers; its signals, and its log lines.

SIGTERM and SIGINT stop it, and a second one cuts the draining short; SIGHUP reads the settings again; SIGUSR2 replaces
the workers by new processes, one after the other. A signal that comes before it serves is obeyed once it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence

from ..errors import ConfigurationError
from .announcement import first_steps, started
from .config.contradictions import OPEN_CURE
from .cores import worker_count
from .guest import Hosting
from .listening import bind, bind_slots
from .process.child import WORKER
from .process.log import adopt_log, begin_log, end_log, open_logs, say
from .process.runtime import drain, keep_alive, run_loop, tune_interpreter
from .process.supervisor import Supervisor
from .process.systemd import Notifier, take_sockets
from .reload import ReadSettings, read_again
from .server import Server
from .settings import Settings, may_be_reached
from .tasks import Tasks
from .tls import check
from .tls.development import with_certificate

logger = logging.getLogger("oncecast.server")


def run(settings: Settings, read: ReadSettings | None = None, hosting: Hosting | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status: 0, or 1 where it has failed itself.

    `read` returns the settings again at SIGHUP; without it they stay as they are. With `hosting`, the application that
    the settings name is served too. Raises `OSError` where the address can't be bound, `ConfigurationError` where the
    settings can't be served.
    """
    early = _Early()
    begin_log(None, settings)
    again = read or (lambda: settings)

    def whole() -> Settings:
        return with_certificate(again())

    served = with_certificate(settings)
    workers = worker_count(served.workers)
    try:
        if workers == 1:
            status = run_loop(_serve(served, whole, early, hosting))
        else:
            status = asyncio.run(_supervise(served, workers, whole, early, hosting))
    except (ConfigurationError, OSError):  # one line for whoever called, behind the log's
        end_log()
        raise
    logger.info("stopped: pid %d", os.getpid())  # the last line of a server that has begun, however soon it was stopped
    return status


class _Early:
    """SIGHUP and SIGUSR2 until a server serves: without a handler each of them would end the process.

    `terminal` says whether the process began at one: once it is closed it does not look like one any more.
    """

    def __init__(self) -> None:
        self.terminal = sys.stdin is not None and sys.stdin.isatty()
        self._received: set[int] = set()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, lambda received, _frame: self._received.add(received))

    def hand_over(self, number: int, handler: Callable[[], None]) -> None:
        """Let the loop call `handler` at this signal, and call it now if the signal has come already."""
        asyncio.get_running_loop().add_signal_handler(number, handler)
        if number in self._received:
            handler()


class _Stopping:
    """The request to stop, and its first reason. A second request, after `begun`, cuts the draining short."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._draining = False

    def request(self, reason: str) -> None:
        """Ask the server to stop, and log why."""
        logger.info("stopping now: %s" if self._draining else "stopping: %s", reason)
        self.requested.set()

    def request_once(self, reason: str) -> None:
        """Ask the server to stop, unless it does already: whoever asks again may not have seen an answer."""
        if not (self._draining or self.requested.is_set()):
            self.request(reason)

    def listen(self) -> None:
        """Take SIGINT and SIGTERM as requests from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            reason = f"{number.name} was received"
            asyncio.get_running_loop().add_signal_handler(number, self.request, reason)

    def begun(self) -> asyncio.Event:
        """Return the event that a second request sets."""
        self._draining = True
        self.requested.clear()
        return self.requested


async def _serve(settings: Settings, read: ReadSettings, early: _Early, hosting: Hosting | None) -> int:
    stopping, notifier = _Stopping(), Notifier()
    sockets = _from_systemd(settings) or bind(settings.host, settings.port)  # before the broker makes its files
    try:
        return await _serve_on(sockets, settings, read, early, stopping, notifier, hosting)
    finally:
        for sock in sockets:  # those of a server that could not start
            sock.close()


async def _serve_on(
    sockets: Sequence[socket.socket],
    settings: Settings,
    read: ReadSettings,
    early: _Early,
    stopping: _Stopping,
    notifier: Notifier,
    hosting: Hosting | None,
) -> int:
    guest = None if hosting is None or settings.app is None else hosting.load(settings.app)
    server = Server(settings, sockets=sockets, logs=open_logs(), guest=guest)

    def reload() -> None:
        changed = read_again(server.given, read)
        if changed is not None:
            try:
                server.reload(changed)
                adopt_log(changed)
            except ConfigurationError as error:  # the files have changed since they were read
                logger.error("the settings stay as they were: %s", error)

    def roll() -> None:
        logger.warning("one process can't be replaced without a restart: set workers to 2 or more")

    # Before the start, so that a signal does not end a server that is about to begin; it is obeyed once it has.
    stopping.listen()
    server.node.on_failure = lambda reason: stopping.request(f"the server has failed: {reason}")
    server.app.drain = stopping.request_once
    await server.start()
    tune_interpreter()
    async with _signals(settings, sockets, notifier, early, stopping, reload, roll):
        await stopping.requested.wait()
        notifier.stopping("draining")
        return await drain(server, stopping.begun())


async def _supervise(
    settings: Settings, workers: int, read: ReadSettings, early: _Early, hosting: Hosting | None
) -> int:
    stopping, notifier = _Stopping(), Notifier()
    if settings.tls_cert:
        check(settings)  # a bad certificate is one error, before anything is bound
    inherited = _from_systemd(settings)
    sockets = [inherited] * workers if inherited else bind_slots(settings.host, settings.port, workers)
    stopping.listen()
    program = WORKER if hosting is None or settings.app is None else hosting.worker
    supervisor = Supervisor(settings, sockets, read, program)
    supervisor.on_failure = lambda reason: stopping.request(f"the supervisor has failed: {reason}")
    supervisor.on_drain = stopping.request_once
    starting = asyncio.create_task(supervisor.start())
    stopped = asyncio.create_task(stopping.requested.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        stopped.cancel()
        await starting
        async with _signals(settings, sockets[0], notifier, early, stopping, supervisor.reload, supervisor.roll):
            await stopping.requested.wait()
            notifier.stopping("draining")
            await supervisor.stop(stopping.begun())
    else:
        await supervisor.stop(stopping.begun())
        await starting
    return 1 if supervisor.failed else 0


@contextlib.asynccontextmanager
async def _signals(
    settings: Settings,
    sockets: Sequence[socket.socket],
    notifier: Notifier,
    early: _Early,
    stopping: _Stopping,
    reload: Callable[[], None],
    roll: Callable[[], None],
) -> AsyncIterator[None]:
    """Report that the server serves, and obey the signals about it for as long as it does."""
    port = sockets[0].getsockname()[1]
    status = f"listening on port {port}"

    def hang_up() -> None:
        if early.terminal and not os.isatty(0):  # so SIGHUP does not ask for new settings
            stopping.request("the terminal was closed")
            return
        notifier.reloading()
        reload()
        notifier.ready(status)

    logger.info("%s", started(settings, sockets, worker_count(settings.workers)))
    if settings.dev:
        say(first_steps(settings, port))
    notifier.ready(status)
    early.hand_over(signal.SIGHUP, hang_up)
    early.hand_over(signal.SIGUSR2, roll)
    tasks = Tasks(lambda reason: stopping.request(f"the server has failed: {reason}"))
    tasks.start("the notifications to systemd", keep_alive(notifier), may_end=True)
    try:
        yield
    finally:
        await tasks.stop()


def _from_systemd(settings: Settings) -> list[socket.socket]:
    """Return the sockets that systemd has opened, if any. Raises `ConfigurationError` for one that can't be served.

    An address that other machines reach needs access rules or `public`, as one of `host` does.
    """
    sockets = take_sockets()
    for sock in sockets:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise ConfigurationError("LISTEN_FDS: a socket of systemd is not of TCP: give ListenStream= a port")
        address = ipaddress.ip_address(sock.getsockname()[0])
        if not (address.is_loopback or may_be_reached(settings)):
            raise ConfigurationError(
                f"LISTEN_FDS: systemd listens on {address}, which lets anyone publish who can reach it, as there are "
                f"no access rules: {OPEN_CURE}"
            )
    return sockets
