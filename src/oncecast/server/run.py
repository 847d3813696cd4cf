"""`oncecast serve`: a server as one process, or as a supervisor and its workers; its signals, and what it says.

SIGTERM and SIGINT stop it, and a second one cuts it short; SIGHUP reads the settings again; SIGUSR2 replaces the
workers by new processes, one after the other.
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
from collections.abc import AsyncIterator, Callable

from ..errors import ConfigurationError
from .cores import worker_count
from .listening import bind_slots
from .process.runtime import begin_log, drain, keep_alive, run_loop, settle
from .process.supervisor import Supervisor
from .process.systemd import Notifier, take_sockets
from .reload import Read, read_again
from .server import Server
from .settings import Settings
from .tls import Tls

logger = logging.getLogger("oncecast.server")


def run(settings: Settings, read: Read | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status.

    `read` gives the settings anew at SIGHUP; without it they stay as they are. Raises `OSError` where the address can't
    be had, `ConfigurationError` where what is set can't serve.
    """
    begin_log()
    read = read or (lambda: settings)
    workers = worker_count(settings.workers)
    if workers == 1:
        return run_loop(_serve(settings, read))
    return asyncio.run(_supervise(settings, workers, read))


async def _serve(settings: Settings, read: Read) -> int:
    stopping, notifier = asyncio.Event(), Notifier()
    sockets = _from_systemd(settings)
    server = Server(settings, sockets=sockets)
    loop = asyncio.get_running_loop()

    def reload() -> None:
        changed = read_again(server.settings, read)
        if changed is not None:
            server.reload(changed)

    def roll() -> None:
        logger.warning("one process can't be replaced without a restart: set workers to 2 or more")

    # From here on, so that none of them ends a server that is about to begin; they are obeyed once it has.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    server.node.on_failure = lambda reason: stopping.set()
    await server.start()
    settle()
    async with _signals(settings, server.port, notifier, stopping, reload, roll):
        await stopping.wait()
        stopping.clear()
        notifier.stopping("draining")
        return await drain(server, stopping)


async def _supervise(settings: Settings, workers: int, read: Read) -> int:
    stopping, notifier = asyncio.Event(), Notifier()
    loop = asyncio.get_running_loop()
    if settings.tls_cert is not None:
        Tls(settings)  # a bad certificate is told once, and before anything is bound
    inherited = _from_systemd(settings)
    sockets = [inherited] * workers if inherited else bind_slots(settings.host, settings.port, workers)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    supervisor = Supervisor(settings, sockets, read)
    port = sockets[0][0].getsockname()[1]
    starting = asyncio.create_task(supervisor.start())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        stopped.cancel()
        await starting
        async with _signals(settings, port, notifier, stopping, supervisor.reload, supervisor.roll):
            await stopping.wait()
            stopping.clear()
            notifier.stopping("draining")
            await supervisor.stop(stopping)
    else:
        stopping.clear()
        await supervisor.stop(stopping)
        await starting
    return 0


@contextlib.asynccontextmanager
async def _signals(
    settings: Settings,
    port: int,
    notifier: Notifier,
    stopping: asyncio.Event,
    reload: Callable[[], None],
    roll: Callable[[], None],
) -> AsyncIterator[None]:
    """Say that the server serves, and obey the signals about it for as long as it does."""
    loop = asyncio.get_running_loop()
    terminal = sys.stdin is not None and sys.stdin.isatty()
    status = f"listening on port {port}"

    def hang_up() -> None:
        if terminal and not os.isatty(0):  # its window was closed, and nobody wants new settings
            stopping.set()
            return
        notifier.reloading()
        reload()
        notifier.ready(status)

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    loop.add_signal_handler(signal.SIGUSR2, roll)
    print(_welcome(settings, port), file=sys.stderr, flush=True)  # noqa: T201 - for the person at the terminal
    notifier.ready(status)
    watched = asyncio.create_task(keep_alive(notifier))
    try:
        yield
    finally:
        watched.cancel()
        await asyncio.wait({watched})


def _from_systemd(settings: Settings) -> list[socket.socket]:
    """Return the sockets that systemd has opened for us, if any. Raises `ConfigurationError` for what can't be served.

    Who may reach them was not our choice, so what holds for `host` holds for them.
    """
    sockets = take_sockets()
    for sock in sockets:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise ConfigurationError("LISTEN_FDS: a socket of systemd is not of TCP: give ListenStream= a port")
        address = ipaddress.ip_address(sock.getsockname()[0])
        if not (address.is_loopback or settings.public or settings.dev):
            raise ConfigurationError(
                f"LISTEN_FDS: systemd listens on {address}, which lets anyone publish who can reach it; give --public "
                "if that is meant"
            )
    return sockets


def _welcome(settings: Settings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'https' if settings.tls_cert else 'http'}://{host}:{port}"
    lines = [f"Oncecast is listening on {url}"]
    if settings.dev:
        lines += [
            f"  start page   {url}/",
            f"  publish      curl -d '{{\"t\":1}}' {url}/v1/channels/news",
            f"  listen       curl -N -H 'Accept: text/event-stream' {url}/v1/channels/news",
            "  stop         Ctrl-C",
        ]
    return "\n".join(lines)
