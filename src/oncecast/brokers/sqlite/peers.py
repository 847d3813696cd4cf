"""The other processes that have the same file open: the locks between them, and the datagrams that wake them.

Beside `log.db` there are `log.db-lock`, locked by the process that writes; `log.db-open`, locked in common by all that
have the file open; and the folder `log.db-wake` with a socket of each. The locks are the kernel's (flock(2)), so those
of a process that dies are free. `log.db-lock` holds a note, which outlives the processes.

SQLite has locks of its own, but it waits for one by sleeping and trying again: with several writers that costs half of
the messages a second and most of the latency.

Invariant: a datagram is only a hint. A process that misses one reads on when it next looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

LIST_SECONDS = 5.0  # a folder is listed again after this, even if its time stamp has not moved


class Peers:
    """This process among those that have the file open. Raises `OSError` where the folder can't be written to."""

    def __init__(self, path: Path) -> None:
        with contextlib.ExitStack() as undo:
            self._lock = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            undo.callback(os.close, self._lock)
            self._open = os.open(f"{path}-open", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            undo.callback(os.close, self._open)
            folder = Path(f"{path}-wake")
            folder.mkdir(exist_ok=True)
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, self._folder)
            self.socket = _open_socket()
            undo.pop_all()
        # By way of the descriptor: the name of a socket is at most 108 bytes long (unix(7)), and a path may be longer.
        self._root = f"/proc/self/fd/{self._folder}"
        if not os.path.isdir(self._root):
            self._root = str(folder)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        # By name, with a socket for each: what a peer has not taken yet counts against its sender's buffer, so one that
        # takes nothing would fill a shared one for all.
        self._others: dict[str, socket.socket] = {}
        self._listed = (0, -LIST_SECONDS)

    def join(self, file: str) -> bool:
        """Count this process in, and return whether it is the only one that has this very file open.

        `file` names the file as the system knows it: others may still have one open that was replaced. Call it inside
        `lock`.
        """
        try:
            fcntl.flock(self._open, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = first = True
        except BlockingIOError:
            first = False
            alone = os.pread(self._open, 200, 0) != file.encode()
        os.ftruncate(self._open, 0)
        os.pwrite(self._open, file.encode(), 0)
        # No process can join between the two: it would have to hold the lock.
        fcntl.flock(self._open, fcntl.LOCK_SH)
        if first:
            for name in os.listdir(self._folder):
                self._forget(name)
        with contextlib.suppress(OSError):  # a name too long: it looks by itself, later
            self.socket.bind(f"{self._root}/{self._name}")
        return alone

    @property
    def note(self) -> str:
        """What the last process that was alone has noted."""
        return os.pread(self._lock, 256, 0).decode("ascii", "replace")

    @note.setter
    def note(self, text: str) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, text.encode(), 0)
        os.fsync(self._lock)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock for writing."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def wake(self, now: float) -> None:
        """Tell the others that there is something new. `now` is in seconds of a monotonic clock."""
        changed = os.fstat(self._folder).st_mtime_ns
        if changed != self._listed[0] or now - self._listed[1] >= LIST_SECONDS:
            with contextlib.suppress(OSError):  # no descriptor is left to list it with: it tells those it knows
                self._meet({name for name in os.listdir(self._folder) if name != self._name})
                self._listed = (changed, now)
        for name, other in list(self._others.items()):
            try:
                other.send(b"\0")
            except BlockingIOError:  # it has some that it has not taken yet
                continue
            except ConnectionRefusedError:  # it is dead
                self._forget(name)
            except OSError:  # it was never connected
                continue

    def hear(self) -> bool:
        """Take what has come, and return whether anything had."""
        heard = False
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(16)
                heard = True
        return heard

    def close(self) -> None:
        """Leave."""
        self._meet(set())
        self._forget(self._name)
        self.socket.close()
        for descriptor in (self._folder, self._open, self._lock):
            os.close(descriptor)

    def _meet(self, names: set[str]) -> None:
        """Connect to these, and to no others. Raises `OSError` where a descriptor is missing."""
        for name in self._others.keys() - names:
            self._others.pop(name).close()
        for name in names - self._others.keys():
            other = self._others[name] = _open_socket()
            try:
                other.connect(f"{self._root}/{name}")
            except ConnectionRefusedError:  # it is dead
                self._forget(name)
            except OSError:  # it has just gone, or its name is too long
                continue

    def _forget(self, name: str) -> None:
        if name in self._others:
            self._others.pop(name).close()
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)


def _open_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    return made
