"""What the client commands report of a server that does not answer: the cause, and what to do about it.

Invariant: a reason is reported once, however many attempts fail alike.
"""

from __future__ import annotations

from ..client.dialing import Endpoint, speaks_tls
from ..client.failures import Broken, Unavailable, Unreachable
from ..client.url import ServerUrl
from .base import FAILED, START_ONE, Failure, escaped, say

__all__ = ["PATIENCE", "RetryNotice", "check_scheme", "unreachable"]

PATIENCE = 60.0  # seconds for which a request is tried again: longer than a restart takes
TOO_MANY = 429  # the status of a pace that is too fast


class RetryNotice:
    """Reports on standard error what a request waits for, once for each reason, and when the server answers again."""

    def __init__(self, server: ServerUrl) -> None:
        self.has_answered = False
        self._server = server
        self._reported = ""
        self._slowed = False

    async def retry(self, error: Broken) -> None:
        """Report a failure that is followed by another attempt. Raises `Failure` where another can't help."""
        if isinstance(error, Unavailable) and error.status == TOO_MANY:  # a pace to keep, not an outage
            if not self._slowed:
                self._slowed = True
                say(f"{escaped(str(error).rstrip('.'))}: going on at that pace")
            return
        if not (self.has_answered or isinstance(error, Unreachable | Unavailable)):
            await check_scheme(self._server)
        if str(error) != self._reported:
            self._reported = str(error)
            say(f"{escaped(self._reported.rstrip('.'))}; trying again for up to {PATIENCE:g} s")

    def answered(self) -> None:
        """Note that the server has answered as it should."""
        self.has_answered = True
        if self._reported:
            say(f"{self._server} answers again")
            self._reported = ""


async def check_scheme(server: ServerUrl) -> None:
    """Raise `Failure` where a URL says http and what listens there speaks TLS. Call it where a connection failed."""
    if await speaks_tls(Endpoint(server)):
        right = f"https{str(server).removeprefix('http')}"
        raise Failure(f"{server} speaks TLS: give --server {right}", FAILED)


def unreachable(server: ServerUrl, error: Unreachable) -> Failure:
    """Return the failure for a server that was never reached: the cause, and what to do about it."""
    if str(error).endswith("connection refused"):
        return Failure(f"{error}: {START_ONE}, or give --server", FAILED)
    if "http://" in str(error).removeprefix(f"no server answers at {server}"):  # the cure is in it
        return Failure(str(error), FAILED)
    return Failure(f"{error}: give another --server, or set ONCECAST_URL", FAILED)
