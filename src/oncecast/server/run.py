"""`oncecast serve`: one process, its loop, its signals, its log on standard error."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

from .server import Server
from .settings import Settings

GC_OBJECTS = 20_000  # new ones, net of those freed, before the collector looks at them


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status. Raises `OSError` where the address can't be had."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: the same, slower
        return asyncio.run(_serve(settings))
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    server = Server(settings)
    await server.start()
    # What is there now stays; and what comes and goes with each message can't be part of a cycle, so looking for one
    # as often as the defaults do would cost a tenth of a publish, and more the longer the log is.
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 50)
    print(_welcome(settings, server.port), file=sys.stderr, flush=True)  # noqa: T201 - for the person at the terminal
    await stopping.wait()
    stopping.clear()
    # The subscribers get their time to leave; a second signal takes it from them.
    drained = asyncio.create_task(server.stop(settings.limits.drain_seconds))
    again = asyncio.create_task(stopping.wait())
    await asyncio.wait({drained, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not drained.done():
        server.cut_off()
    await drained
    return 0


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
