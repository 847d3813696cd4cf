"""ASGI servers for the tests of this folder: each a process of its own, with one of the applications of `apps.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
SECONDS = 60.0  # for a server to start, and for anything to come

COMMANDS = {
    "uvicorn": ["uvicorn", "--factory", "tests.asgi.apps:{app}", "--host", "127.0.0.1", "--port", "{port}"],
    "hypercorn": ["hypercorn", "tests.asgi.apps:{app}()", "--bind", "127.0.0.1:{port}"],
    "granian": [
        *("granian", "--interface", "asgi", "--factory", "tests.asgi.apps:{app}"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ],
}


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ServerProcess:
    """A server that runs. `url` is where the application is, `realtime` where the realtime part is in it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.realtime = f"{self.url}/rt"

    async def answers(self) -> None:
        """Wait until it does."""
        async with httpx.AsyncClient() as http, asyncio.timeout(SECONDS):
            while True:
                assert self.process.returncode is None, "the server has ended"
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"{self.realtime}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def terminate(self) -> None:
        """Send SIGTERM, and wait for its end."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await self.process.wait()


@contextlib.asynccontextmanager
async def serving(
    server: str, app: str, broker: str, *options: str, port: int | None = None, environ: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[ServerProcess]:
    """Run an application in a process of a server."""
    port = port or free_port()
    command = [word.format(app=app, port=port) for word in COMMANDS[server]]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        *options,
        cwd=ROOT,
        env={**os.environ, "ONCECAST_BROKER": broker, **dict(environ)},
        start_new_session=True,
    )
    served = ServerProcess(process, port)
    try:
        await served.answers()
        yield served
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
