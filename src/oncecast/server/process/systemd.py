"""systemd's protocol for services: sockets that are handed over at the start, and notifications of the state.

sd_listen_fds(3) and sd_notify(3): a few environment variables and a datagram. Without systemd there are no sockets, and
notifications are dropped.

Invariant: the variables are removed from the environment as they are read, as they do not mean the processes that this
one starts. Nothing here can fail the service: a notification that can't be sent is dropped.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier", "take_sockets"]

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class Notifier:
    """Notifies systemd. `watchdog` is how many seconds may pass between two calls of `alive`, 0 for any number."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # unix(7): an abstract one
        microseconds = environ.pop("WATCHDOG_USEC", "")
        ours = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if ours and address and _is_count(microseconds) else 0.0

    def ready(self, status: str) -> None:
        """Notify that the service serves: at its start, and again after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Notify that the settings are being read again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Notify that the service has begun to stop."""
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Notify that the service is not stuck."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # systemd is gone, or its socket is full
            return


def take_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the sockets that systemd opened for this process, or none. Raises `OSError` for too high a number."""
    meant = environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not meant or not _is_count(count):
        return []
    sockets = [socket.socket(fileno=FIRST_DESCRIPTOR + number) for number in range(int(count))]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def _is_count(text: str) -> bool:
    """Return whether a variable has a number of a sane size; what has none is ignored."""
    return text.isascii() and text.isdigit() and len(text) <= 15
