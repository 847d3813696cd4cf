"""`oncecast serve` as a process with workers and a file, which a proof kills, stops, restarts and inspects.

Invariant: what a `Deployment` has started has ended when its `async with` is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.processes import environment, free_port

__all__ = ["Deployment", "Stored"]

START_SECONDS = 30.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 60.0
READY_SECONDS = 2.0
LISTENING = b" is listening on "  # said once every worker serves
LOOK_SECONDS = 0.02  # other processes have no event to wait on


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it stands in the file."""

    id: str
    channel: str
    data: bytes


class Deployment:
    """A server on `folder/log.db`. `settings` are variables without their prefix, as in `limits__drain_seconds`.

    `under` is a command that runs it, as the same process, and `environ` has other variables. `broker` is the URL of
    another log, and `port` one that is free at each start: a free one of this moment may be a connection's by then.
    Where `settings` have a certificate, `tls` is a client's context for it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        settings: Mapping[str, object] | None = None,
        under: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        broker: str | None = None,
        port: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.folder = folder
        self.file = folder / "log.db"
        self.port = port or free_port()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._tls = tls
        self._workers = workers
        self._settings = dict(settings or {})
        self._under = under
        self._environ = dict(environ or {})
        self._broker = broker or f"sqlite:///{self.file}"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Deployment:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill_all()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "server.log").read_text("utf-8", "replace")

    async def says(self, text: str) -> None:
        """Wait until its log has a text: a thread writes it, so an answer may be here first. Raises `TimeoutError`."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while text not in self.log:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(LOOK_SECONDS)

    async def start(self) -> None:
        """Start it and wait until every worker serves. Raises `RuntimeError` with what it said where it does not.

        `/readyz` alone says that one of them does: another may not have opened the file yet.
        """
        environ = environment()
        environ.update(self._environ)
        environ.update({f"ONCECAST_{name.upper()}": str(value) for name, value in self._settings.items()})
        arguments = ["-m", "oncecast", "serve", "--port", str(self.port), "--workers", str(self._workers)]
        with (self.folder / "server.log").open("ab") as log:
            said = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._under,
                sys.executable,
                *arguments,
                "--broker",
                self._broker,
                env=environ,
                stderr=log,
                cwd=self.folder,
            )
        end = time.monotonic() + START_SECONDS
        while LISTENING not in self._said_since(said) or not await asyncio.to_thread(self._is_ready):
            if self._process.returncode is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not start:\n{self.log[-2000:]}")
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def pid(self) -> int:
        """The process that was started: the supervisor, where there are several workers."""
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The processes that serve."""
        return [self.pid] if self._workers == 1 else _children(self.pid)

    def kill_worker(self, rng: random.Random, number: signal.Signals = signal.SIGKILL) -> int | None:
        """Send a random worker a signal, and return which; None where there is none at this moment."""
        workers = self.workers
        if not workers:
            return None
        chosen = rng.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(chosen, number)
        return chosen

    async def kill_all(self) -> None:
        """SIGKILL the supervisor and every worker at once, and wait for their end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        pids = {self.pid, *self.workers}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()
        while any(_is_alive(pid) for pid in pids):  # noqa: ASYNC110 - not our children, so nothing says so
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> int:
        """SIGTERM it, and return its exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), STOP_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    async def roll(self) -> None:
        """Ask for a rolling restart, and wait until every worker is another one and the old ones have ended."""
        before = set(self.workers)
        self.signal(signal.SIGUSR2)
        end = time.monotonic() + START_SECONDS + STOP_SECONDS
        while before & set(self.workers) or len(self.workers) != self._workers:
            if time.monotonic() > end:
                raise RuntimeError(f"the rolling restart does not end:\n{self.log[-2000:]}")
            await asyncio.sleep(LOOK_SECONDS)

    def _said_since(self, position: int) -> bytes:
        with (self.folder / "server.log").open("rb") as log:
            log.seek(position)
            return log.read()

    def _connection(self, seconds: float) -> HTTPConnection:
        if self._tls is not None:
            return HTTPSConnection("127.0.0.1", self.port, timeout=seconds, context=self._tls)
        return HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def _is_ready(self) -> bool:
        connection = self._connection(READY_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def ask(self, method: str, target: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        """Send one request to a channel, and return the status and the JSON of the answer. It blocks."""
        connection = self._connection(ANSWER_SECONDS)
        try:
            connection.request(method, f"/v1/channels/{target}", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or "null")
        finally:
            connection.close()

    def stored(self) -> list[Stored]:
        """Read the whole log out of the file, past the server."""
        with contextlib.closing(sqlite3.connect(self.file)) as db:
            epoch = db.execute("SELECT epoch FROM log").fetchone()[0]
            rows = db.execute(
                "SELECT m.seq, c.name, m.data FROM messages m JOIN channels c ON c.id = m.channel ORDER BY m.seq"
            )
            return [Stored(f"{epoch}-{seq}", channel, data) for seq, channel, data in rows]


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text("ascii").split()]
    return [child for child in found if _is_alive(child)]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
