"""The connection to NATS: the library's, with messages handed over in the order in which they came.

The library has a queue and a task for each subscription, which loses the order between subscriptions, and costs a task
for each channel. Here all subscriptions have one handler, which is called as the messages are parsed. Answers come to
one inbox in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from ...errors import ConfigurationError
from ..address import Address, connect_advice
from ..session import Lost
from .login import login

CONNECT_SECONDS = 3
ALL_SECONDS = 4.5  # for all servers of a URL
ASK_SECONDS = 5.0
CLOSE_SECONDS = 1.0
CHECK_PORT = "check that NATS listens at this port"
CHECK_LOGIN = "check the user and password, the token or the key"
TURN = 200  # subscriptions made in one turn of the loop

NatsHeaders = dict[bytes, bytes]
Handler = Callable[[str, bytes, NatsHeaders], None]  # subject, data, headers


class Answer:
    """A message to the inbox: data, headers, the status of an answer without data, its subject and reply subject."""

    __slots__ = ("data", "headers", "reply", "status", "subject")

    def __init__(self, data: bytes, headers: NatsHeaders, status: str, reply: str, subject: str = "") -> None:
        self.data = data
        self.headers = headers
        self.status = status
        self.reply = reply
        self.subject = subject


async def connect(address: Address, handler: Handler) -> OrderedClient:
    """Return a connection to one of the servers, in any order. Raises `Lost` or `ConfigurationError`."""
    seconds = min(CONNECT_SECONDS, ALL_SECONDS / len(address.hosts))
    context, secrets = address.context(), login(address)
    said = []
    for place in random.sample(address.hosts, len(address.hosts)):
        client = OrderedClient(handler)
        try:
            await client.open(address, place, context, secrets, seconds)
        except Lost as lost:
            said.append(f"{_host(place[0])}:{place[1]}: {lost}")
        else:
            return client
        finally:
            if not client.ready:
                await client.shut()
    raise Lost("; ".join(said))


class OrderedClient(Client):
    """See the module. `handler` gets the messages of all subscriptions that were made by `listen`."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self.lost = asyncio.get_running_loop().create_future()
        self._handler = handler
        self._listening: dict[str, int] = {}
        self._ids: set[int] = set()
        self._inbox = f"_INBOX.{os.urandom(11).hex()}"
        self._inbox_id = 0
        self._number = 0
        self._waiting: dict[str, Callable[[Answer], None]] = {}
        self._fetching: dict[int, Callable[[Answer], None]] = {}
        self._tls = False
        self._connected = False
        self._refused: Exception | None = None  # why there is no connection yet

    async def open(
        self,
        address: Address,
        place: tuple[str, int],
        context: ssl.SSLContext | None,
        secrets: dict[str, Any],
        seconds: float,
    ) -> None:
        """Connect to one server. Raises `Lost` or `ConfigurationError`."""
        host, port = place
        self._tls = context is not None
        try:
            async with asyncio.timeout(seconds):
                await self.connect(
                    servers=[f"{'tls' if self._tls else 'nats'}://{_host(host)}:{port}"],
                    tls=context,
                    **secrets,
                    name="oncecast",
                    allow_reconnect=False,
                    connect_timeout=CONNECT_SECONDS,
                    max_reconnect_attempts=1,  # with 0 the library tries for ever
                    reconnect_time_wait=0,
                    ping_interval=10,
                    error_cb=self._failed,
                    closed_cb=self._closed_cb_ours,
                    disconnected_cb=self._closed_cb_ours,
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            cause = self._refused or error
            text = one_line(cause) if str(cause) else f"it did not answer within {seconds:g} s: {CHECK_PORT}"
            if "authorization" in text.lower():
                raise ConfigurationError(f"broker: {address}: {text}: {CHECK_LOGIN}") from None
            ended = EOFError() if isinstance(cause, nats.errors.UnexpectedEOF) else cause
            raise Lost(connect_advice(ended, text, address)) from None
        self._connected = True
        self._inbox_id = await self._listen_to(f"{self._inbox}.*")

    @property
    def ready(self) -> bool:
        """Whether it is connected and logged in."""
        return self._inbox_id > 0

    async def listen(self, subjects: Sequence[str]) -> None:
        """Subscribe. What comes goes to the handler."""
        for number, subject in enumerate(subjects):
            if subject not in self._listening:
                self._listening[subject] = await self._listen_to(subject)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)  # others have their turn

    async def unlisten(self, subjects: Sequence[str]) -> None:
        """Unsubscribe."""
        for subject in subjects:
            number = self._listening.pop(subject, None)
            if number is not None:
                self._ids.discard(number)
                self._subs.pop(number, None)
                await self._guard(self._send_unsubscribe(number))

    async def send(
        self, subject: str, data: bytes, headers: dict[str, str] | None, answered: Callable[[Answer], None]
    ) -> str:
        """Publish with a reply subject, whose answers are handed to `answered` as they come; returns that subject."""
        self._number += 1
        reply = f"{self._inbox}.{self._number}"
        self._waiting[reply] = answered
        await self._guard(self._send_publish(subject, reply, data, len(data), headers))
        return reply

    async def receiver(self, answered: Callable[[Answer], None]) -> tuple[int, str]:
        """Return a subscription, and its subject to name as reply: what a consumer sends keeps its own subject."""
        self._number += 1
        subject = f"{self._inbox}f.{self._number}"
        number = await self._listen_to(subject)
        self._fetching[number] = answered
        return number, subject

    async def end_receiver(self, number: int) -> None:
        """End what `receiver` has made."""
        self._fetching.pop(number, None)
        self._ids.discard(number)
        self._subs.pop(number, None)
        await self._guard(self._send_unsubscribe(number))

    async def tell(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Publish without waiting for an answer."""
        await self._guard(self._send_publish(subject, reply, data, len(data), headers))

    def forget(self, reply: str) -> None:
        """Take no more answers for a reply subject."""
        self._waiting.pop(reply, None)

    async def ask(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Publish, and return the first answer. Raises `Lost` without one."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(came: Answer) -> None:
            if not answer.done():
                answer.set_result(came)

        reply = await self.send(subject, data, headers, answered)
        try:
            waits: set[asyncio.Future[Any]] = {answer, self.lost}
            await asyncio.wait(waits, timeout=ASK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.forget(reply)
        if not answer.done():
            if self.lost.done():
                self.lost.result()
            raise Lost(f"no answer to {subject.rpartition('.')[0]} within {ASK_SECONDS:g} s")
        return answer.result()

    async def ask_json(self, subject: str, question: object = None) -> dict[str, Any]:
        """Ask one of JetStream's API subjects, and return its answer. An error is in its `error`."""
        answer = await self.ask(subject, b"" if question is None else json.dumps(question).encode())
        if answer.status == "503":
            raise Lost("JetStream does not answer: start the server with -js")
        read: dict[str, Any] = json.loads(answer.data)
        return read

    async def shut(self) -> None:
        """Close the connection. Raises nothing."""
        self.end(Lost("its connection was closed"))
        try:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.close()
        finally:
            writer = getattr(self._transport, "_bare_io_writer", None)  # below TLS, where an abort always closes
            if writer is not None:  # the library leaves it open where it was interrupted, or never got as far
                writer.transport.abort()
                await asyncio.sleep(0)  # for the transport to let go of its socket

    # -- inside

    async def _listen_to(self, subject: str) -> int:
        self._sid += 1
        subscription = Subscription(self, self._sid, subject)
        self._subs[self._sid] = subscription
        self._ids.add(self._sid)
        await self._guard(self._send_subscribe(subscription))
        return int(self._sid)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid not in self._ids or self.lost.done():  # what follows a message that failed would overtake it
            return
        try:
            found, status = read_headers(headers) if headers else ({}, "")
            name = subject.decode()
            waiting = self._waiting.get(name) if sid == self._inbox_id else self._fetching.get(sid)
            if waiting is not None:
                waiting(Answer(bytes(data), found, status, reply.decode(), name))
            elif sid != self._inbox_id:
                self._handler(name, bytes(data), found)
        except Exception as error:  # noqa: BLE001 - the library would swallow it: `lost` raises it
            self.end(error)

    async def _guard(self, call: Any) -> None:
        try:
            await call
        except (nats.errors.Error, OSError) as error:
            raise Lost(one_line(error) or "its connection was closed") from None
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the library swallows a cancellation while it flushes
            raise asyncio.CancelledError

    def _connect_command(self) -> bytes:
        """Return what logs in. The library would send a password in the clear where the server asks for no TLS."""
        if self._tls and not self._server_info.get("tls_required"):
            text = "the server does not offer TLS: set its tls block, or write nats:// to go without"
            raise nats.errors.Error(text)
        return super()._connect_command()

    async def _failed(self, error: Exception) -> None:
        if not self._connected:
            self._refused = self._refused or error
        elif not isinstance(error, nats.errors.SlowConsumerError):
            text = one_line(error) or type(error).__name__
            denied = "permissions violation" in text.lower()
            self.end(Lost(f"{text}: allow it for this user" if denied else text))

    async def _closed_cb_ours(self) -> None:
        said = self.last_error  # the server may say why it closes a connection
        self.end(Lost(one_line(said) if self._connected and said else "its connection was closed"))

    def end(self, error: Exception) -> None:
        """Take no more messages. `lost` raises the error."""
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()  # the follower raises it


def read_headers(raw: bytes) -> tuple[NatsHeaders, str]:
    """Read a message's headers, and the status in their first line."""
    lines = bytes(raw).split(b"\r\n")
    status = lines[0].removeprefix(b"NATS/1.0").strip().partition(b" ")[0].decode()
    found: NatsHeaders = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name] = value.strip()
    return found, status


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of a bounded length."""
    return " ".join(str(error).split())[:200]


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
