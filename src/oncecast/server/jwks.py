"""The keys of a token issuer, fetched from the one URL that the settings name (`auth.jwks_url`).

Invariants: the loop never waits for the issuer; a set that was fetched holds until another one was, however long the
issuer is away; no token makes more than one request in `LEAST_SECONDS`, and none chooses what is asked for. A fetch has
a deadline, a bound for its size, and follows no redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import IO, Any
from urllib.parse import urlsplit

from ..errors import ConfigurationError
from ..policy.authority import is_loopback
from ..policy.keys import VerifyingKey, parse_jwk_set
from .settings import AuthSettings

__all__ = ["LEAST_SECONDS", "RemoteKeys", "check_url", "get_whole"]

logger = logging.getLogger("oncecast.server")

SET_BYTES = 256 * 1024  # a set of 64 keys with certificates
DEADLINE_SECONDS = 10.0
LEAST_SECONDS = 30.0  # between fetches that tokens with an unknown kid cause
RETRY_SECONDS = 5.0  # after the first failure; twice as long after each further one, up to the usual time
PIECE_BYTES = 16384

Get = Callable[[str], Awaitable[bytes]]


def check_url(url: str) -> str:
    """Return a URL that keys may be fetched from, or raise `ConfigurationError`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        known = parts.port is None or parts.port > 0
    except ValueError:
        host, known = "", False
    secure = known and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    if not (secure and host) or "@" in parts.netloc or parts.fragment:
        raise ConfigurationError("auth.jwks_url is not https://HOST/PATH; http is for this machine only")
    return url


class RemoteKeys:
    """The keys of the issuer: `keys`, none until the first fetch. `changed` is called when they are others.

    `changed` may raise `ConfigurationError`: the log then says that the new keys are not taken. `get` returns what a
    URL holds, or raises `OSError`, within `DEADLINE_SECONDS`.
    """

    def __init__(self, changed: Callable[[], None], *, get: Get | None = None) -> None:
        self.keys: tuple[VerifyingKey, ...] = ()
        self.fetched = 0
        self.failed = 0
        self._changed = changed
        self._get = get or get_whole
        self._url: str | None = None
        self._seconds = 0.0
        self._content = b""
        self._failures = 0  # in a row
        self._began = -LEAST_SECONDS
        self._wake = asyncio.Event()

    def use(self, auth: AuthSettings) -> None:
        """Fetch as these settings say from now on. The keys of another URL are forgotten."""
        if auth.jwks_url != self._url:
            self.keys, self._content, self._failures = (), b"", 0
            self._url = auth.jwks_url
            self._wake.set()
        self._seconds = auth.jwks_seconds

    def hurry(self) -> None:
        """Fetch soon: a token names a key that is not known."""
        if asyncio.get_running_loop().time() - self._began >= LEAST_SECONDS:
            self._wake.set()

    async def run(self) -> None:
        """Fetch for as long as the server serves."""
        while True:
            self._wake.clear()
            pause = None
            if self._url is not None:
                self._began = asyncio.get_running_loop().time()
                await self._fetch(self._url)
                pause = self._seconds
                if self._failures:
                    pause = min(pause, RETRY_SECONDS * 2 ** min(self._failures - 1, 10))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _fetch(self, url: str) -> None:
        try:
            content = await self._get(url)
            keys = tuple(parse_jwk_set(content))
        except (OSError, ValueError, HTTPException) as error:  # TimeoutError is an OSError
            if url == self._url:
                self.failed += 1
                self._failures += 1
                held = f"those of before hold: {len(self.keys)}" if self.keys else "no token can be verified by it"
                logger.warning("the issuer's keys could not be fetched (%s): %s", _reason(error), held)
            return
        if url != self._url:  # the settings have changed meanwhile
            return
        self.fetched += 1
        self._failures = 0
        if content != self._content:
            self._content, self.keys = content, keys
            logger.info("the issuer's keys were fetched: %d", len(keys))
            try:
                self._changed()
            except ConfigurationError as error:  # a file of the settings has changed since it was read
                logger.error("the issuer's keys are not taken: %s", error)


async def get_whole(url: str) -> bytes:
    """Return what a URL holds, by a thread that no shutdown waits for. Raises `OSError` or `ValueError`.

    It has `DEADLINE_SECONDS`. Then its connection is cut, so that the thread ends too.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    line = _IssuerLine()

    def finish(content: bytes, error: Exception | None) -> None:
        if answer.done():  # its deadline has passed
            return
        if error is None:
            answer.set_result(content)
        else:
            answer.set_exception(error)

    def work() -> None:
        content, failure = b"", None
        try:
            content = _read(url, line)
        except Exception as error:  # noqa: BLE001 - a thread's edge: whatever it is, the loop is waiting
            failure = error if isinstance(error, OSError | ValueError | HTTPException) else OSError(repr(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing waits
            loop.call_soon_threadsafe(finish, content, failure)

    threading.Thread(target=work, name="oncecast-issuer-keys", daemon=True).start()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await answer
    except TimeoutError:
        raise TimeoutError(f"no answer within {DEADLINE_SECONDS:g} s") from None
    finally:
        line.cut()


class _IssuerLine:
    """The connection of one fetch. It can be cut from outside of its thread, in the handshake, the head or the body.

    The timeout of a socket is that of each `recv`, so an issuer that sends a byte a second would keep the thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: list[socket.socket] = []
        self._is_cut = False

    def connect(self, *place: Any) -> socket.socket:
        """Do as `socket.create_connection`."""
        made = socket.create_connection(*place)
        with self._lock:
            if self._is_cut:
                made.close()
                raise TimeoutError
            self._copies.append(made.dup())  # TLS takes the descriptor away from `made`
        return made

    def cut(self) -> None:
        """End what is connected, and connect nothing more."""
        with self._lock:
            self._is_cut = True
        for copy in self._copies:
            with contextlib.suppress(OSError):  # the issuer has closed it
                copy.shutdown(socket.SHUT_RDWR)
            copy.close()


class _ByLine(urllib.request.AbstractHTTPHandler):
    """Connects by a line."""

    def __init__(self, line: _IssuerLine) -> None:
        super().__init__()
        self._line = line

    def do_open(self, http_class: Any, req: urllib.request.Request, **more: Any) -> HTTPResponse:
        """Send the request."""

        def make(host: str, **given: Any) -> HTTPConnection:
            connection: HTTPConnection = http_class(host, **given)
            connection._create_connection = self._line.connect  # type: ignore[attr-defined]
            return connection

        return super().do_open(make, req, **more)


class _Http(_ByLine, urllib.request.HTTPHandler):
    """Of http."""


class _Https(_ByLine, urllib.request.HTTPSHandler):
    """Of https."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to another host, or to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse: the answer is then an error."""
        return None


def _read(url: str, line: _IssuerLine) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - see `check_url`
    content = b""
    try:
        opener = urllib.request.build_opener(_NoRedirect, _Http(line), _Https(line))
        opened = opener.open(request, timeout=DEADLINE_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        led = ": a redirect is not followed, so set jwks_url to where it leads" if 300 <= error.code < 400 else ""
        raise OSError(f"the answer is {error.code}{led}") from None
    with opened as answer:
        while piece := answer.read1(PIECE_BYTES):
            content += piece
            if len(content) > SET_BYTES:
                raise ValueError(f"it has over {SET_BYTES} bytes")
    return content


def cause_of(error: Exception) -> Exception:
    """Return what has happened: a `URLError` wraps it."""
    if not isinstance(error, urllib.error.URLError):
        return error
    return error.reason if isinstance(error.reason, Exception) else OSError(error.reason)


def _reason(error: Exception) -> str:
    """Return what went wrong, without the words of Python's own modules around it."""
    cause = cause_of(error)
    text = (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(cause).__name__
    return " ".join(text.split())[:200]
