"""The servers that a comparison runs on: servers of its own, or the one at a URL.

Of its own there is a process for each transport, and one more to which nobody listens. All have the same publishes, so
the difference of two processes' CPU time is what the listeners cost. Invariant: no process outlives the comparison,
nor the process that runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ..client.credentials import Credentials
from ..client.dialing import Endpoint
from ..client.failures import Broken, Refused
from ..client.http import HttpConnection
from ..client.timing import Timing
from ..client.url import ProxyUrl, ServerUrl

__all__ = ["NOBODY", "CompareGround", "ForeignServer", "OwnServers"]

NOBODY = "nobody"  # the name of the server without listeners
ALL = "all"  # the name of the CPU time of a server that serves all transports

START_SECONDS = 60.0
STOP_SECONDS = 3.0
LOG_BYTES = 4096  # of what a server has said last, for the error of one that ends

# The server ends with this process, also where that is killed: PR_SET_PDEATHSIG is 1 (prctl(2)), of Linux alone.
_PROGRAM = """
import contextlib, ctypes, os, runpy, signal
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == {parent}:
    runpy.run_module("oncecast", run_name="__main__", alter_sys=True)
"""
_LISTENING = re.compile(rb"is listening on (http://\S+)")
_CPU = re.compile(rb"^(?:oncecast|process)_cpu_seconds_total\s+([0-9.eE+-]+)\s*$", re.MULTILINE)


class CompareGround(Protocol):
    """Servers to publish to and to listen to. `ours` says whether they are processes of the comparison."""

    name: str
    ours: bool

    def server_of(self, transport: str) -> str:
        """Return the name of the server that a transport's listeners use."""
        ...

    @property
    def servers(self) -> Mapping[str, ServerUrl]:
        """All servers by name; each is published to."""
        ...

    async def cpu(self) -> Mapping[str, float]:
        """Return the seconds of CPU time of each server so far, by name; of those that are known."""
        ...

    async def ended(self) -> str:
        """Wait until one of the servers has ended, and return which and how. It may wait for ever."""
        ...


class ForeignServer:
    """The server at a URL. Its CPU time is that of its `/metrics`, of all its workers, where they have it."""

    def __init__(self, url: ServerUrl, *, credentials: Credentials, proxy: ProxyUrl | None = None) -> None:
        self.name = str(url)
        self.ours = False
        self.servers: Mapping[str, ServerUrl] = {ALL: url}
        self._endpoint = Endpoint(url, proxy=proxy)
        self._credentials = credentials

    def server_of(self, transport: str) -> str:
        """Return the one server."""
        return ALL

    async def cpu(self) -> Mapping[str, float]:
        """Return what the metrics say, if they say it."""
        connection = HttpConnection(
            self._endpoint, timing=Timing(answer=5, body=5), authorize=self._credentials.headers
        )
        try:
            answer = await connection.request("GET", "/metrics")
        except (Broken, Refused):
            return {}
        finally:
            await connection.close()
        found = _CPU.search(answer.body) if answer.status == 200 else None
        return {} if found is None else {ALL: float(found[1])}

    async def ended(self) -> str:
        """Wait for ever: what becomes of a foreign server is seen by publishing to it."""
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets")


class OwnServers:
    """A server process for each of `transports`, and one for nobody. A context manager: it starts and ends them."""

    def __init__(self, transports: Sequence[str]) -> None:
        self.name = "servers of its own on this machine"
        self.ours = True
        self._names = [*transports, NOBODY]
        self._processes: dict[str, _ServerProcess] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="oncecast-compare-")
        self.servers: Mapping[str, ServerUrl] = {}

    async def __aenter__(self) -> OwnServers:
        self._processes = {name: _ServerProcess(Path(self._folder.name)) for name in self._names}
        starts = [asyncio.create_task(process.start()) for process in self._processes.values()]
        try:
            urls = await asyncio.gather(*starts)
        except BaseException:
            for start in starts:  # one that is just making its process would make it after the stop
                start.cancel()
            await asyncio.wait(starts)
            await self._stop()
            raise
        self.servers = dict(zip(self._names, urls, strict=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self._processes.values()))
        self._folder.cleanup()

    def server_of(self, transport: str) -> str:
        """Return the transport's own server."""
        return transport

    async def cpu(self) -> Mapping[str, float]:
        """Return the kernel's count for each process."""
        found = {name: process.cpu() for name, process in self._processes.items()}
        return {name: seconds for name, seconds in found.items() if seconds is not None}

    async def ended(self) -> str:
        """Wait until a process has ended."""
        waits = {asyncio.create_task(process.ended(), name=name) for name, process in self._processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)
        first = next(iter(done))
        return f"the server of {first.get_name()} has ended: {first.result()}"


class _ServerProcess:
    """One `oncecast serve` with the memory broker, in an empty folder and without settings of the environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._log = b""
        self._reading: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ServerUrl] = asyncio.get_running_loop().create_future()

    async def start(self) -> ServerUrl:
        """Return where it listens. Raises `Broken` where it does not start."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ONCECAST_")}
        program = _PROGRAM.format(parent=os.getpid())
        serve = ("serve", "--host", "127.0.0.1", "--port", "0", "--broker", "memory://")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, *serve),
            cwd=self._folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the comparison, which then ends its servers
        )
        self._reading = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._ready
        except TimeoutError:
            raise Broken(f"a server of our own has not started within {START_SECONDS:g} s") from None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Read what it says, to its end: else it would wait for a reader."""
        assert process.stderr is not None
        while data := await process.stderr.read(LOG_BYTES):
            self._log = (self._log + data)[-LOG_BYTES:]
            found = _LISTENING.search(self._log)
            if found is not None and not self._ready.done():
                self._ready.set_result(ServerUrl.parse(found[1].decode()))
        if not self._ready.done():
            self._ready.set_exception(Broken(f"a server of our own does not start: {self._last_line()}"))

    def cpu(self) -> float | None:
        """Return its seconds of CPU time, all threads together; None where the system does not say."""
        assert self._process is not None
        try:  # the clock of another process: clock_getcpuclockid(3), as Linux numbers it
            return time.clock_gettime((~self._process.pid << 3) | 2)
        except OSError:
            return None

    async def ended(self) -> str:
        """Wait for its end; return how it ended."""
        assert self._process is not None
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def stop(self) -> None:
        """End it, if need be by force."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=STOP_SECONDS)  # what it has started may hold the pipe open
            self._reading.cancel()

    def _last_line(self) -> str:
        lines = self._log.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"
