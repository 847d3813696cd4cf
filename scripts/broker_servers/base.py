"""One server: its directory, its start and end, and the faults that a test causes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from .system import Broken, Missing, debian_install, group_runs, group_stands, listens

START_SECONDS = 60.0  # RabbitMQ takes 4 s alone, several times that beside a test suite
STOP_SECONDS = 20.0
PORT_SECONDS = 5.0  # for what ended a moment ago to let go of its ports


class BrokerServer(ABC):
    """One server. `directory` holds all its files; `port` is the one that clients connect to.

    `ports` are its ports, the clients' first. `environment` is added to that of this process.
    """

    name: str
    package: str | None = None  # Debian's
    port_count = 1

    def __init__(self, directory: Path, ports: Sequence[int], *, program: str | None = None) -> None:
        self.directory = directory
        self.ports = tuple(ports)
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None

    # -- what a kind says

    @classmethod
    @abstractmethod
    def require(cls) -> str:
        """Return the path of the program. Raises `Missing`."""

    @classmethod
    def install(cls) -> None:
        """Install the program, if it is not there. Raises `Missing`."""
        try:
            cls.require()
            return
        except Missing:
            if cls.package is None:
                raise
        debian_install(cls.package)
        cls.require()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground; writes its configuration before."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables that the server needs beside this process's."""
        return {}

    def ready(self) -> bool:
        """Return whether the server answers its protocol."""
        return listens(self.port)

    def ended(self) -> None:
        """Stop what the server has left behind."""
        return

    # -- its life

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self.ports[0]

    @property
    def data(self) -> Path:
        """The directory of what must survive a restart."""
        return self.directory / "data"

    @property
    def pid(self) -> int | None:
        """The process that runs, or None."""
        try:
            pid = int((self.directory / "pid").read_text())
            place = os.readlink(f"/proc/{pid}/cwd")  # not the command line, which Redis writes over
        except (OSError, ValueError):
            return None
        return pid if Path(place).is_relative_to(self.directory) else None

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start the server, and return once it answers. Raises `Missing` or `Broken`."""
        if self.pid is not None:
            return
        end = time.monotonic() + PORT_SECONDS
        while taken := [port for port in self.ports if listens(port)]:
            if time.monotonic() > end:
                text = f"{self.name} can't start: another process listens on {taken[0]}, perhaps of another checkout"
                raise Broken(text)
            time.sleep(0.02)
        self.data.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, **self.environment()}
        with (self.directory / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.directory / "pid").write_text(str(process.pid))
        end = time.monotonic() + seconds
        while not self.ready():
            if process.poll() is not None or time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Broken(f"{self.name} did not start; the end of {self.directory / 'log'}:\n{self.tail()}")
            time.sleep(0.02)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server as its operator does. Killed after `seconds`."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """Kill the server, as a crash of the machine's process would."""
        self._end(signal.SIGKILL, STOP_SECONDS)

    def pause(self) -> None:
        """Stop the process from running, and return once it stands; connections stay open."""
        self._signal(signal.SIGSTOP)
        end = time.monotonic() + STOP_SECONDS
        while (pid := self.pid) is not None and not group_stands(pid) and time.monotonic() < end:
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused process run again."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove all data of a server that is stopped."""
        shutil.rmtree(self.data, ignore_errors=True)

    def save(self, name: str) -> None:
        """Copy the data of a server that is stopped, to be put back by `restore`."""
        copy = self.directory / f"copy-{name}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data, copy)

    def copy(self, name: str) -> None:
        """Copy the data of a server that runs, as it is at one moment; see `save`."""
        self.pause()
        try:
            self.save(name)
        finally:
            self.resume()

    def restore(self, name: str) -> None:
        """Put an older copy of the data back. The server is stopped."""
        self.wipe()
        shutil.copytree(self.directory / f"copy-{name}", self.data)

    def tail(self, lines: int = 20) -> str:
        """Return the end of the server's logs."""
        found = [each for each in (self.directory / "log", *sorted(self.directory.glob("logs/*.log"))) if each.exists()]
        texts = [each.read_text(errors="replace").splitlines()[-lines:] for each in found]
        return "\n".join(line for text in texts for line in text) or "(no log)"

    # -- helpers

    def _signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            os.killpg(pid, number)

    def _end(self, number: int, seconds: float) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)
                os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)
            end = time.monotonic() + seconds
            while group_runs(pid):
                if time.monotonic() > end:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    end += seconds
                time.sleep(0.01)
            if self._process is not None:
                self._process.wait()  # otherwise the process stays a zombie
        self.ended()
        (self.directory / "pid").unlink(missing_ok=True)
