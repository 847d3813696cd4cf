"""The identity of a client: its token, fetched when first needed and once more after the server has refused it.

Invariant: one fetch runs at a time, and every caller meanwhile gets its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence

from .callbacks import check_callback
from .failures import Broken

__all__ = ["Credentials", "GetToken", "check_token"]

logger = logging.getLogger("oncecast.client")

GetToken = Callable[[], str | Awaitable[str]]

TOKEN_CHARS = 8192  # a longer one fits no header that a server takes


def check_token(token: str) -> None:
    """Raise `ValueError` for what no header can carry as a token."""
    if not token.isascii() or not token.isprintable() or not token or " " in token or len(token) > TOKEN_CHARS:
        raise ValueError(f"1 to {TOKEN_CHARS} visible ASCII characters")


class Credentials:
    """The `Authorization` header (RFC 6750 §2.1). `get_token` returns a token, or a coroutine that does.

    A plain function is called on a thread of its own, so it may block. `seconds` is the deadline of a call: past it the
    caller gets `Broken`, and a thread that still runs is waited for by the next call, so there is one at most.
    """

    def __init__(self, get_token: GetToken | None, *, seconds: float = 10.0) -> None:
        if get_token is not None and not inspect.iscoroutinefunction(get_token):
            check_callback("get_token", get_token)
        self._get_token = get_token
        self._seconds = seconds
        self._token: str | None = None
        self._lock = asyncio.Lock()
        self._calling: asyncio.Future[object] | None = None  # a plain function on its thread

    @property
    def renewable(self) -> bool:
        """Whether asking for another token could help."""
        return self._get_token is not None

    def expire(self) -> None:
        """Forget the token: the server does not take it."""
        self._token = None

    async def renew(self) -> bool:
        """Fetch another token before the present one ends. Returns whether there is one; raises nothing."""
        before, self._token = self._token, None
        try:
            await self.headers()
        except Broken:
            self._token = before  # it holds for a while yet
        return self._token != before

    async def headers(self) -> Sequence[tuple[str, str]]:
        """Return the headers of a request. Raises `Broken` where no token can be had now."""
        if self._get_token is None:
            return ()
        async with self._lock:
            if self._token is None:
                try:
                    self._token = await self._fetch(self._get_token)
                except Broken as error:
                    logger.warning("no token: %s; it is asked for again later", error)
                    raise
            return (("Authorization", f"Bearer {self._token}"),)

    async def _fetch(self, get_token: GetToken) -> str:
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                called = get_token() if inspect.iscoroutinefunction(get_token) else await self._on_thread(get_token)
                token = await called if inspect.isawaitable(called) else called
        except TimeoutError as error:
            if deadline.expired():
                raise Broken(f"get_token has not returned within {self._seconds:g} s") from None
            raise Broken(f"get_token failed: {error!r}") from error
        except Exception as error:  # the application's code; a token service may be away
            raise Broken(f"get_token failed: {error!r}") from error
        if not isinstance(token, str):
            raise Broken(f"get_token returned {type(token).__name__}: it has to return a str")
        try:
            check_token(token)
        except ValueError as error:
            raise Broken(f"get_token returned a str that is no token: {error}") from None
        return token

    async def _on_thread(self, get_token: Callable[[], object]) -> object:
        """Call a function that may block on a daemon thread, which no shutdown waits for."""
        if self._calling is None or self._calling.cancelled():
            loop = asyncio.get_running_loop()
            calling: asyncio.Future[object] = loop.create_future()
            calling.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is read, or obsolete

            def work() -> None:
                try:
                    result, error = get_token(), None
                except BaseException as raised:  # noqa: BLE001 - whatever it is, the caller is waiting
                    result, error = None, raised
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits
                    loop.call_soon_threadsafe(_finish, calling, result, error)

            threading.Thread(target=work, name="oncecast-get-token", daemon=True).start()
            self._calling = calling
        await asyncio.wait({self._calling})
        done, self._calling = self._calling, None
        return done.result()


def _finish(future: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, Exception) and not isinstance(error, StopIteration):  # a future can't hold that one
        future.set_exception(error)
    elif error is not None:
        future.set_exception(RuntimeError(f"it ended with {error!r}"))
    else:
        future.set_result(result)
