"""Processes that are pinned to cores, and their CPU time, memory and end.

CPU time is the scheduler's count of nanoseconds, user and system, over every thread of a process. The server under test
has a core to itself and the load has another, so that neither waits for the other's core.

Invariant: a `Bench` ends every process that it has started, also after an exception.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import TracebackType

import msgspec

from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate

from .base import BenchError

__all__ = ["Bench", "Process", "Program", "ServerProcess", "environment", "free_port"]

START_SECONDS = 20.0
STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL
ANSWER_SECONDS = 1800.0  # for one command of a program; the program's own deadlines are far shorter


class Process:
    """A child process, pinned to `core` or to none. `log` is the file of its standard error.

    It is in `started` as soon as it runs: whoever has the list ends it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        core: int | None,
        directory: Path,
        started: list[Process],
        env: Mapping[str, str] | None = None,
    ) -> None:
        handle, log_name = tempfile.mkstemp(suffix=".log", dir=directory)
        os.close(handle)
        self.log = Path(log_name)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, before if core is None else {core})  # a child process inherits it
        try:
            with self.log.open("wb") as log, signals_held():
                self.child = subprocess.Popen(  # noqa: S603 - our own programs, and no shell
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=directory, env=env
                )
                started.append(self)
        finally:
            os.sched_setaffinity(0, before)

    def cpu_ns(self) -> int:
        """Return the nanoseconds of CPU time of its threads, user and system."""
        total = 0
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has just ended
                total += int((task / "schedstat").read_text("ascii").split()[0])
        return total

    def resident(self) -> int:
        """Return the bytes of its resident memory."""
        for line in Path(f"/proc/{self.child.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"process {self.child.pid} has no resident memory")

    def stop(self) -> None:
        """End it. A second call does nothing."""
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.child.terminate()
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Program(Process):
    """One of the C programs: a command is a line, its answer is a line of JSON."""

    def command(self, line: str) -> dict[str, object]:
        """Send a command and return its answer. Raises `BenchError`."""
        self.begin(line)
        return self.answer()

    def begin(self, line: str) -> None:
        """Send a command. `answer` reads its answer."""
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` raises with the program's log
            self.child.stdin.write(f"{line}\n".encode())
            self.child.stdin.flush()

    def answer(self) -> dict[str, object]:
        """Read the answer to a command. Raises `BenchError`."""
        stdout = self.child.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], ANSWER_SECONDS)[0]:
            raise BenchError(f"{self.child.args!s} did not answer in {ANSWER_SECONDS:.0f} seconds")
        line = stdout.readline()
        if not line:
            raise BenchError(f"the program ended: {self.log.read_text('utf-8', 'replace')[-300:]}")
        answer: dict[str, object] = msgspec.json.decode(line)
        if "error" in answer:
            raise BenchError(str(answer["error"]))
        return answer


class ServerProcess(Process):
    """A server that listens on `port`."""

    def __init__(
        self,
        argv: Sequence[str],
        port: int,
        *,
        path: str,
        core: int | None,
        directory: Path,
        started: list[Process],
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(argv, core=core, directory=directory, started=started, env=env)
        self.port = port
        self._until_it_answers(path)

    def body(self, request: bytes) -> bytes:
        """Send the bytes of a request, and return the body of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), START_SECONDS) as connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            return response.read()

    def request(self, method: str, target: str, body: bytes | None = None) -> dict[str, object]:
        """Send one request and return the JSON of the answer. Raises `BenchError`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            with connection.getresponse() as response:
                text = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise BenchError(f"{method} {target}: {response.status} {text[:200]!r}")
        answer: dict[str, object] = msgspec.json.decode(text)
        return answer

    def _until_it_answers(self, path: str) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
                return
            except OSError:
                if self.child.poll() is not None or time.monotonic() > end:
                    said = self.log.read_text("utf-8", "replace").strip()[-300:]
                    raise BenchError(f"the server on port {self.port} does not start: {said}") from None
                time.sleep(0.02)  # another process's socket has no event to wait on
            finally:
                connection.close()


# -- the run


@dataclass(slots=True)
class Bench:
    """The processes of a run, and the folder for their files. A context manager: it ends them all."""

    programs: Path
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="oncecast-bench-")))
    _started: list[Process] = field(default_factory=list)
    _files: int = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop_all(self) -> None:
        """End all processes, the load first, so that a server has no connections to drain."""
        while self._started:
            self._started[-1].stop()
            self._started.pop()  # after the stop: an interrupt during it calls this again

    @property
    def cores(self) -> tuple[int, int]:
        """The core of the server under test, and the core of the load."""
        allowed = sorted(os.sched_getaffinity(0))
        return allowed[0], allowed[-1]

    def file(self, data: bytes) -> Path:
        """Write bytes to a file that lasts as long as the run."""
        self._files += 1
        path = self.directory / f"{self._files}.bin"
        path.write_bytes(data)
        return path

    def certificate(self) -> tuple[str, str]:
        """Return the files of a certificate for localhost and of its key (ECDSA, P-256)."""
        made = with_certificate(Settings(dev=True, tls=True), {"XDG_STATE_HOME": str(self.directory)})
        return made.tls_cert[0], made.tls_key[0]

    def server(self, *, pinned: bool = True, tls: bool = False, rules: str = "", **settings: object) -> ServerProcess:
        """Start `oncecast serve` with `settings`, with `rules` as its file, and with limits that no benchmark reaches.

        If `pinned`, it has a core to itself; otherwise it shares all cores with the load.
        """
        if tls:
            settings["tls_cert"], settings["tls_key"] = self.certificate()
        environ = environment()
        raised = {
            "limits__publishes_per_second": 10_000_000,
            "limits__frames_per_second": 1_000_000,
            "limits__heartbeat_seconds": 3600,
            "broker": "memory://",
        }
        for name, value in {**raised, **settings}.items():
            environ[f"ONCECAST_{name.upper()}"] = str(value)
        port = free_port()
        argv = [sys.executable, "-m", "oncecast", "serve", "--port", str(port)]
        argv += ["--config", str(self.file(rules.encode()))] if rules else []
        return ServerProcess(
            argv,
            port,
            path="/healthz",
            core=self.cores[0] if pinned else None,
            directory=self.directory,
            started=self._started,
            env=environ,
        )

    def other_server(self, argv: Sequence[str], port: int, environ: Mapping[str, str] | None = None) -> ServerProcess:
        """Start another program's server, on the core of the server under test."""
        return ServerProcess(
            argv,
            port,
            path="/",
            core=self.cores[0],
            directory=self.directory,
            started=self._started,
            env={**environment(), **(environ or {})},
        )

    def sink(self, port: int, mode: str, *, tls: bool = False) -> Program:
        """Start `sink`: subscribers and a publisher."""
        return self._program("sink-tls" if tls else "sink", str(port), mode)

    def load(self, port: int, connections: int, request: bytes, *, spin: bool = True) -> Program:
        """Start `load`: requests on persistent connections. It must not `spin` on a core that the server uses too."""
        wait = "spin" if spin else "sleep"
        return self._program("load", str(port), str(connections), str(self.file(request)), wait)

    def floor(self, subscribers: int, *, tls: bool = False) -> Program:
        """Start `floor`, on the core of the server under test; with `tls`, a loop over Python's own `ssl`."""
        if tls:
            argv = [sys.executable, "-m", "benchmarks.tls_floor", str(subscribers), *self.certificate()]
            return self._run(argv, self.cores[0], environment())
        return self._program("floor", str(subscribers), core=self.cores[0])

    def module(self, name: str, *arguments: str) -> Program:
        """Start a Python module that answers commands as the C programs do, on any core."""
        argv = [sys.executable, "-m", name, *arguments]
        return self._run(argv, None, environment())

    def _program(self, name: str, *arguments: str, core: int | None = None) -> Program:
        argv = [str(self.programs / name), *arguments]
        return self._run(argv, self.cores[1] if core is None else core)

    def _run(self, argv: Sequence[str], core: int | None, env: Mapping[str, str] | None = None) -> Program:
        return Program(argv, core=core, directory=self.directory, started=self._started, env=env)


# -- helpers


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Handle SIGINT and SIGTERM after the block: their exception would lose a process that it has just started."""
    held: list[int] = []
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number)) and threading.current_thread() is threading.main_thread()
    }
    for number in before:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in held:
            signal.raise_signal(late)


def environment() -> dict[str, str]:
    """Return the environment without `ONCECAST_*`, and with this package and `oncecast` on PYTHONPATH."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONCECAST_")}
    root = Path(__file__).parents[1]
    ways = [str(root), str(root / "src"), environ.get("PYTHONPATH")]
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, ways))}


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
