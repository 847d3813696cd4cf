"""Probes: what a session writes to the log to hear it come back, behind everything before it.

A probe that does not come back in time ends the session: a connection that is merely open proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Generic, TypeVar

from .session import Lost

PROBE_SECONDS = 1.0  # between two probes
SILENT_SECONDS = 3.0  # for a probe to come back

Token = TypeVar("Token", bytes, int)


class Probes(Generic[Token]):
    """What is expected to come back, by the token that it carries."""

    def __init__(self) -> None:
        self._expected: dict[Token, asyncio.Future[None]] = {}

    def expect(self, token: Token) -> asyncio.Future[None]:
        """Return a future that is done once the token has come back. Call `drop` in the end."""
        heard = self._expected[token] = asyncio.get_running_loop().create_future()
        return heard

    def came(self, token: Token) -> None:
        """Take a token that has come back; others' are passed over."""
        waiting = self._expected.pop(token, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def drop(self, token: Token) -> None:
        """Expect a token no longer."""
        self._expected.pop(token, None)

    async def send(self, token: Token, sending: Awaitable[object]) -> None:
        """Send what carries the token, and return once it has come back. Raises `Lost`."""
        heard = self.expect(token)
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                await sending
                await heard
        except TimeoutError:
            raise Lost(f"it has not answered for {SILENT_SECONDS:g} s") from None
        finally:
            self.drop(token)
