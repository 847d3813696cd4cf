"""A connection of RabbitMQ's stream protocol: frames of the library, over a socket of our own.

The library's connection reads 256 bytes at a time, swallows errors of handlers, and does not notice a server that is
silent; its producer and consumer hide the epoch of a chunk. So its frames are used, and its codec.

`lost` is done when the connection ends, with the reason.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from rstream import exceptions, schema
from rstream.constants import Key
from rstream.encoding import decode_frame, encode_frame, encode_publish

from ...errors import ConfigurationError
from ..address import Address, connect_advice
from ..session import Lost

ANSWER_SECONDS = 3.0
MOST_FRAME = 64 << 20  # of what the server sends
FRAME_BYTES = 8 << 20  # of what it is sent, where the server allows it
HEARTBEAT_SECONDS = 10
AMQP = int.from_bytes(b"AMQP", "big")  # what the port of AMQP answers, in place of a length
CONFIRM = Key.PublishConfirm.value.to_bytes(2, "big")
PUBLISHER = 1
CHECK_PORT = "check that RabbitMQ's stream plugin listens at this port"
REFUSED = (
    exceptions.AuthenticationFailure,
    exceptions.SASLError,
    exceptions.SASLAuthenticationFailureLoopback,
    exceptions.SASLMechanismNotSupported,
)

F = TypeVar("F", bound=schema.Frame)


class StreamConnection:
    """See the module. `delivered` is called with each chunk and its subscription."""

    def __init__(self, address: Address, delivered: Callable[[schema.Deliver], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frame_bytes = FRAME_BYTES
        self.name = "RabbitMQ"
        self._address = address
        self._delivered = delivered
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._number = 0
        self._publishing = 0
        self._waiting: dict[tuple[Key, int | None], asyncio.Future[Any]] = {}

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Connect and log in. Raises `Lost` or `ConfigurationError`."""
        address = self._address
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(host, port, ssl=context)
        except TimeoutError:
            raise Lost(f"{host}:{port}: no answer within {ANSWER_SECONDS:g} s: {CHECK_PORT}") from None
        except ConnectionRefusedError:
            text = "nothing listens there: start it, with rabbitmq-plugins enable rabbitmq_stream"
            raise Lost(f"{host}:{port}: {text}") from None
        except OSError as error:
            raise Lost(f"{host}:{port}: {connect_advice(error, one_line(error), address)}") from None
        self._reading = asyncio.create_task(self._read(), name="oncecast-rabbitmq-read")
        properties = [schema.Property("product", "oncecast")]
        hello = schema.PeerProperties(self.number(), properties)
        found = await self.ask(hello, schema.PeerPropertiesResponse, CHECK_PORT)
        version = next((each.value for each in found.properties if each.key == "version"), "")
        self.name = f"RabbitMQ {version}".strip()
        await self.ask(schema.SaslHandshake(self.number()), schema.SaslHandshakeResponse)
        user, password = address.user or "guest", "guest" if address.password is None else address.password
        login = f"\0{user}\0{password}".encode()
        tuned = self._wait(Key.Tune, None)
        try:
            await self.ask(schema.SaslAuthenticate(self.number(), "PLAIN", login), schema.SaslAuthenticateResponse)
            tune = await self._answer(tuned, "its limits")
            self.frame_bytes = min(tune.frame_max, FRAME_BYTES) or FRAME_BYTES
            await self.send(schema.Tune(self.frame_bytes, HEARTBEAT_SECONDS))
            await self.ask(schema.Open(self.number(), address.path or "/"), schema.OpenResponse)
        except REFUSED as error:
            raise ConfigurationError(f"broker: {address}: {why(error)}: check its user and password") from None
        except exceptions.VirtualHostAccessFailure:
            text = f"this user may not use the virtual host {address.path or '/'}, or there is none of this name"
            raise ConfigurationError(f"broker: {address}: {text}") from None

    def number(self) -> int:
        """Return a number for a request."""
        self._number = (self._number + 1) % (1 << 31)
        return self._number

    async def ask(self, frame: schema.Frame, kind: type[F], advice: str = "") -> F:
        """Send a request, and return the answer. Raises `Lost` without one, and a `ServerError` that says no.

        `advice` is what to do where no answer comes.
        """
        waiting = self._wait(kind.key, frame.corr_id)
        await self.send(frame)
        answer: F = await self._answer(waiting, type(frame).__name__, advice)
        code = getattr(answer, "response_code", 1)
        if code > 1:
            raise exceptions.ServerError.from_code(code)
        return answer

    async def send(self, frame: schema.Frame) -> None:
        """Send a frame that has no answer."""
        await self._write(encode_frame(frame))

    async def publish(self, records: list[bytes]) -> None:
        """Send records as one frame, with numbers that this connection alone knows."""
        messages = []
        for record in records:
            self._publishing += 1
            messages.append(schema.Message(self._publishing, None, record))
        await self._write(encode_publish(schema.Publish(PUBLISHER, messages)))

    async def close(self) -> None:
        """Close the connection. Raises nothing."""
        self._end("its connection was closed")
        if self._writer is not None:
            self._writer.transport.abort()
            await asyncio.sleep(0)  # for the transport to let go of its socket
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    # -- helpers

    def _wait(self, key: Key, number: int | None) -> asyncio.Future[Any]:
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[key, number] = waiting
        waiting.add_done_callback(lambda _: self._waiting.pop((key, number), None))
        return waiting

    async def _answer(self, waiting: asyncio.Future[Any], what: str, advice: str = "") -> Any:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wait((waiting, self.lost), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            text = f"no answer to {what} within {ANSWER_SECONDS:g} s"
            raise Lost(f"{text}: {advice}" if advice else text) from None
        finally:
            if not waiting.done():
                waiting.cancel()
        if waiting.cancelled():
            self.lost.result()
        return waiting.result()

    async def _write(self, data: bytes) -> None:
        if self.lost.done():
            self.lost.result()
        assert self._writer is not None
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Lost(one_line(error) or "its connection was closed") from None

    async def _read(self) -> None:
        """Read frames until the connection ends."""
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                if length == AMQP:
                    raise Lost("this is the port of AMQP: name that of the stream plugin, 5552 if it was not changed")
                if length > MOST_FRAME:
                    raise Lost("what it sends is no stream protocol")
                data = await self._reader.readexactly(length)
                if data[:2] != CONFIRM:  # what is written counts when it is read back
                    await self._take(decode_frame(data))
        except (OSError, asyncio.IncompleteReadError) as error:
            self._end(connect_advice(error, "its connection was closed", self._address))
        except Exception as error:  # noqa: BLE001 - a frame that can't be read, or a handler's: the waiting call raises it
            self._end(error)

    async def _take(self, frame: schema.Frame) -> None:
        if isinstance(frame, schema.Deliver):
            self._delivered(frame)
        elif isinstance(frame, schema.Heartbeat):
            await self.send(frame)
        elif isinstance(frame, schema.PublishError):
            raise Lost(f"it refuses records: {why(exceptions.ServerError.from_code(frame.errors[0].response_code))}")
        elif isinstance(frame, schema.MetadataUpdate):
            raise Lost("the stream is not where it was")
        elif isinstance(frame, schema.Close):
            raise Lost(f"it closes the connection: {frame.reason[:200]}")
        else:
            waiting = self._waiting.get((frame.key, frame.corr_id))
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)

    def _end(self, error: str | Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(Lost(error) if isinstance(error, str) else error)
            self.lost.exception()  # the waiting call raises it


def why(error: object) -> str:
    """Return what an error of the server is called, in words."""
    name = error.__name__ if isinstance(error, type) else type(error).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of a bounded length."""
    return " ".join(str(error).split())[:200]
