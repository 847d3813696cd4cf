"""Who the client is: the token, fetched when it is first needed and once more after the server has refused it.

Invariant: one fetch runs at a time, and whoever asks meanwhile gets its result.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence

from .base import Broken

__all__ = ["Credentials", "GetToken"]

GetToken = Callable[[], str | Awaitable[str]]


class Credentials:
    """The `Authorization` header (RFC 6750 §2.1). `get_token` returns a token, or a coroutine that does.

    A plain function is called on a thread of its own, so it may block.
    """

    def __init__(self, get_token: GetToken | None) -> None:
        self._get_token = get_token
        self._token: str | None = None
        self._lock = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        """Whether asking for another token could help."""
        return self._get_token is not None

    def expire(self) -> None:
        """Forget the token: the server does not take it."""
        self._token = None

    async def headers(self) -> Sequence[tuple[str, str]]:
        """Return the headers of a request. Raises `Broken` where no token can be had now."""
        if self._get_token is None:
            return ()
        async with self._lock:
            if self._token is None:
                self._token = await self._fetch(self._get_token)
            return (("Authorization", f"Bearer {self._token}"),)

    async def _fetch(self, get_token: GetToken) -> str:
        try:
            called = get_token() if inspect.iscoroutinefunction(get_token) else await asyncio.to_thread(get_token)
            token = await called if inspect.isawaitable(called) else called
        except Exception as error:  # the application's code; a token service may be away
            raise Broken(f"get_token failed: {error!r}") from error
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise Broken("get_token returned what can't be a token")
        return token
