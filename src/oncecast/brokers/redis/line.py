"""One connection to Redis: commands are sent as they come, answers arrive in the same order.

The connection itself is the library's, with its TLS and its authentication. What it lacks is many commands under way
at once from one task: each command here is answered by a future.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection

from ..address import Address
from ..session import Lost, run_together
from .faults import CONNECT_SECONDS, lost, meaning, of_connecting
from .scripts import Script


class _AtOnce(AbstractConnection):
    """A connection of the library whose close does not wait for the peer: TLS would wait half a minute for its goodbye.

    The library closes by itself too, where a login is refused or an answer can't be read, and then forgets the socket.
    """

    async def disconnect(self, *arguments: Any, **named: Any) -> None:
        """Close at once."""
        if self._writer is not None:
            self._writer.transport.abort()
            await asyncio.sleep(0)  # for the transport to let go of its socket
        await super().disconnect(*arguments, **named)


class _Plain(_AtOnce, Connection): ...


class _Secure(_AtOnce, SSLConnection): ...


class RedisLine:
    """A connection that is open. `run` has to run for answers to come. `prefix` begins the keys of the log."""

    def __init__(self, connection: AbstractConnection, prefix: str) -> None:
        self.prefix = prefix
        self._connection = connection
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._some = asyncio.Event()
        self._ended = False

    def ask(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command. The future has its answer, or raises `Lost` or the library's `ResponseError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._ended:
            _fail(future, Lost("its connection was closed"))
            return future
        self._asked.append(future)
        self._out += self._connection.pack_command(*command)
        self._some.set()
        return future

    def ask_script(self, script: Script, *arguments: bytes | str | int) -> asyncio.Future[Any]:
        """Ask for the answer of a script that the server has loaded."""
        return self.ask("EVALSHA", script.sha, 1, f"{self.prefix}:h", self.prefix, *arguments)

    async def command(self, *command: bytes | str | int) -> Any:
        """Send a command, and return its answer. Raises what a refusal means."""
        return await answer_of(self.ask(*command))

    async def script(self, script: Script, *arguments: bytes | str | int) -> Any:
        """Run a script, and return its answer. Raises what a refusal means."""
        return await answer_of(self.ask_script(script, *arguments))

    async def run(self) -> None:
        """Send and receive until the connection is lost."""
        try:
            await run_together(self._write(), self._read())
        finally:
            self._ended = True
            while self._asked:
                _fail(self._asked.popleft(), Lost("its connection was closed"))

    async def _write(self) -> None:
        while True:
            if not self._out:
                self._some.clear()
                await self._some.wait()
            out, self._out = self._out, []
            try:
                await self._connection.send_packed_command(out, check_health=False)
            except (redis.exceptions.RedisError, OSError) as error:
                raise lost(error) from None

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._connection.read_response(disable_decoding=True)
            except redis.exceptions.ResponseError as error:
                answer = error
            except (redis.exceptions.RedisError, OSError) as error:
                raise lost(error) from None
            if not self._asked:
                raise Lost("it sent an answer to no question")
            future = self._asked.popleft()
            if isinstance(answer, Exception):
                _fail(future, answer)
            elif not future.done():
                future.set_result(answer)

    async def close(self) -> None:
        """Close the connection."""
        await close(self._connection)


async def connect(address: Address, host: str, port: int, context: ssl.SSLContext | None) -> AbstractConnection:
    """Open a connection. Raises `Lost`, or `ConfigurationError` for what only another setting mends."""
    arguments: dict[str, Any] = {
        "host": host,
        "port": port,
        "db": int(address.path or "0"),
        "username": address.user,
        "password": address.password,
        "socket_timeout": None,  # a subscription may be silent; deadlines are the session's
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "protocol": 2,
        "client_name": "oncecast",
        "retry": None,
    }
    connection = _Plain(**arguments) if context is None else _Secure(**arguments, **_tls(address))
    try:
        async with asyncio.timeout(CONNECT_SECONDS):  # the library's covers the socket, not the greeting
            await connection.connect()  # type: ignore[no-untyped-call]
    except (redis.exceptions.RedisError, OSError) as error:
        await close(connection)
        raise of_connecting(error, address, host, port) from None
    except BaseException:  # it was cancelled
        await close(connection)
        raise
    return connection


async def close(connection: AbstractConnection) -> None:
    """Close a connection, whatever state it is in."""
    try:
        await connection.disconnect(nowait=True)
    except (redis.exceptions.RedisError, OSError):
        return


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # the task that asked may have ended


def _tls(address: Address) -> dict[str, Any]:
    verify = address.options.get("tls_verify") != "no"
    return {
        "ssl_ca_certs": address.options.get("tls_ca"),
        "ssl_certfile": address.options.get("tls_cert"),
        "ssl_keyfile": address.options.get("tls_key"),
        "ssl_cert_reqs": "required" if verify else "none",
        "ssl_check_hostname": verify,
    }


async def answer_of(
    asked: asyncio.Future[Any], meaning: Callable[[redis.exceptions.ResponseError], Exception] = meaning
) -> Any:
    """Return what a future of a line has. Raises what a refusal means."""
    try:
        return await asked
    except redis.exceptions.ResponseError as error:
        raise meaning(error) from None
