"""The requests that an examination makes. Each returns what it has seen, and raises only what `Examinee` names.

Owns the connections: each probe has its own, so that a proxy may send each to another node, and closes it. Invariant:
every wait has a deadline, and nothing is published but by `publish` and `delays`, to the channel that is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from ..client.dialing import Endpoint
from ..client.failures import Broken, Refused, Unreachable
from ..client.http import HttpConnection
from ..client.timing import Timing
from ..wire import ws_handshake
from ..wire.sse import EventParser, StreamFailed
from ..wire.ws_connection import CloseReceived, DataReceived, ProtocolFailed, Role, WebSocketConnection
from .observations import EventDelays, Handshake, HttpAnswer, Quiet, Reading, Streamed

__all__ = ["Examinee"]

PROTOCOL = "oncecast.v1"
ANSWER_SECONDS = 10.0
BEGIN_SECONDS = 5.0  # for the first event of a stream, which the server sends with its head
EVENT_SECONDS = 3.0  # for an event, from the acknowledgement of its publish
SPREAD_SECONDS = 1.0  # for a message to be at every node
EVENTS = 4
EVENTS_ONLY = ("Accept", "text/event-stream")
STREAM = (EVENTS_ONLY, ("Accept-Encoding", "gzip, br, deflate"))  # as a browser asks
MAX_FRAME_BYTES = 1 << 20
HEARTBEAT = "oncecast-heartbeat"


@dataclass(frozen=True, slots=True)
class Examinee:
    """The server that is examined, at a URL and with the credentials of an endpoint. Its channel is `channel`.

    `spread` is how many seconds a message has to be at every node.
    """

    endpoint: Endpoint
    channel: str
    spread: float = SPREAD_SECONDS
    timing: Timing = field(default_factory=lambda: Timing(connect=ANSWER_SECONDS, answer=ANSWER_SECONDS))

    @property
    def origin(self) -> str:
        """The origin of the server's own pages, as their browser writes it."""
        return f"{self.endpoint.url.scheme}://{self.endpoint.url.authority}"

    @property
    def poll_path(self) -> str:
        """The path of a poll that returns no message."""
        return self._path("limit=1&last=0")

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        wait: float = 0,
    ) -> HttpAnswer:
        """Ask on a connection of its own. Raises `Unreachable`, and `Refused` for a certificate."""
        async with self._connection() as connection:
            return await _asked(connection, method, path, headers, body, wait)

    async def handshake(self) -> Handshake:
        """Try to open a WebSocket, and to have a frame back."""
        async with self._connection() as connection:
            try:
                codec = await self._open(connection)
            except Broken as error:
                failed: Broken | Refused = error
            except Refused as error:
                failed = error
            else:
                return Handshake(True, await _spoken(connection, codec, self.channel))
        if isinstance(failed, Unreachable):
            raise failed
        key = ws_handshake.new_key()
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        headers += [("Sec-WebSocket-Key", key), ("Sec-WebSocket-Protocol", PROTOCOL)]
        answer = await self.ask("GET", "/v1/connect", headers)  # the failure has not all of what was answered
        return Handshake(
            False, answer=answer if answer.status not in (0, 101) else replace(answer, trouble=str(failed))
        )

    async def stream(self) -> Streamed:
        """Open a stream, and wait for its beginning."""
        async with self._connection() as connection:
            return await self._begun(connection, STREAM)

    async def delays(self) -> EventDelays:
        """Publish to the channel while a stream of it is open, and take the time of each event."""
        taken: list[float | None] = []
        async with self._connection() as connection, self._connection() as publisher:
            if (await self._begun(connection, (EVENTS_ONLY,))).began is None:
                return EventDelays((None,))
            events = EventParser(max_event_bytes=MAX_FRAME_BYTES)
            arrivals: dict[str, float] = {}
            arrived = asyncio.Event()

            async def read() -> None:
                with contextlib.suppress(Broken, StreamFailed):
                    async for data in connection.body(BEGIN_SECONDS + EVENTS * EVENT_SECONDS):
                        for event in events.receive(data):
                            arrivals[event.id] = time.monotonic()
                        arrived.set()

            reading = asyncio.create_task(read())
            try:
                for number in range(EVENTS):
                    answer = await self._published(publisher, number)
                    acknowledged, wanted = time.monotonic(), _text_of(answer, 201, "id")
                    if not wanted:
                        return EventDelays(
                            (), answer.message or answer.trouble or f"a publish is answered {answer.status}"
                        )
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(EVENT_SECONDS):
                            while wanted not in arrivals:
                                arrived.clear()
                                await arrived.wait()
                    taken.append(max(0.0, arrivals[wanted] - acknowledged) if wanted in arrivals else None)
            finally:
                reading.cancel()
                await asyncio.wait({reading})
        return EventDelays(tuple(taken))

    async def readings(self, count: int, *, publish: bool) -> list[Reading]:
        """Poll the channel on `count` connections; with `publish`, for a message that is published a second before.

        Each looks once: a second look may be at another node.
        """
        wanted: str | None = None
        path = self.poll_path
        if publish:
            before = _text_of(await self.ask("GET", path), 200, "cursor")
            async with self._connection() as publisher:
                published = _text_of(await self._published(publisher, 0), 201, "id")
            if published and before:
                wanted, path = published, self._path(f"after={before}")
            await asyncio.sleep(self.spread)

        async def read() -> Reading | None:
            try:
                answer = await self.ask("GET", path)
            except Unreachable:  # a proxy whose next server is away
                return None
            cursor = _text_of(answer, 200, "cursor")
            if not cursor:
                return None
            return Reading(cursor, None if wanted is None else wanted in _ids_of(answer))

        return [reading for reading in await asyncio.gather(*(read() for _ in range(count))) if reading is not None]

    async def quiet(self, seconds: float) -> list[Quiet]:
        """Hold a WebSocket, a stream and a long poll for so long, at once; those that can't be opened are left out."""
        quiets = await asyncio.gather(
            self._quiet_socket(seconds), self._quiet_stream(seconds), self._quiet_poll(seconds)
        )
        return [quiet for quiet in quiets if quiet is not None]

    # -- helpers

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[HttpConnection, None]:
        connection = HttpConnection(self.endpoint, timing=self.timing)
        try:
            yield connection
        finally:
            await connection.close()

    def _path(self, query: str) -> str:
        return f"/v1/channels/{self.channel}?{query}"

    async def _published(self, connection: HttpConnection, number: int) -> HttpAnswer:
        headers = (("Content-Type", "application/json"), ("Oncecast-Event", "doctor"))
        return await _asked(connection, "POST", f"/v1/channels/{self.channel}", headers, b'{"doctor":%d}' % number, 0)

    async def _open(self, connection: HttpConnection) -> WebSocketConnection:
        url, key = self.endpoint.url, ws_handshake.new_key()
        head, rest = await connection.upgrade(
            lambda headers: ws_handshake.request_bytes(
                url.authority, f"{url.prefix}/v1/connect", key, protocols=(PROTOCOL,), headers=headers
            )
        )
        try:
            ws_handshake.check_response(head.status, head.headers, key, (PROTOCOL,))
        except ws_handshake.HandshakeFailed as error:
            raise Broken(str(error)) from None
        codec = WebSocketConnection(Role.CLIENT, max_message_bytes=MAX_FRAME_BYTES)
        codec.receive(rest)
        return codec

    async def _begun(self, connection: HttpConnection, headers: Sequence[tuple[str, str]]) -> Streamed:
        began = time.monotonic()
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                head = await connection.stream("GET", self._path("after=latest"), headers)
                if head.status != 200:
                    return Streamed(_answer(head.status, head.headers, await connection.whole_body()))
                async with contextlib.aclosing(connection.body(BEGIN_SECONDS)) as pieces:
                    async for _ in pieces:
                        return Streamed(_answer(200, head.headers, b""), time.monotonic() - began)
            return Streamed(_answer(200, head.headers, b""))
        except Unreachable:
            raise
        except (Broken, TimeoutError) as error:
            return Streamed(HttpAnswer(trouble=str(error) or f"no stream begins within {BEGIN_SECONDS:g} s"))

    async def _quiet_socket(self, seconds: float) -> Quiet | None:
        async with self._connection() as connection:
            try:
                codec = await self._open(connection)
            except (Broken, Refused):
                return None
            began = time.monotonic()
            while (left := began + seconds - time.monotonic()) > 0:
                try:
                    data = await connection.read(left)
                    if data is None:
                        break
                    events = codec.receive(data)
                    if not data or any(isinstance(event, CloseReceived | ProtocolFailed) for event in events):
                        return Quiet("WebSocket", time.monotonic() - began, "closed")
                    await connection.write(codec.data_to_send())
                except Broken as error:
                    return Quiet("WebSocket", time.monotonic() - began, str(error))
            return Quiet("WebSocket", seconds)

    async def _quiet_stream(self, seconds: float) -> Quiet | None:
        async with self._connection() as connection:
            try:
                head = await connection.stream("GET", self._path("after=latest"), STREAM)
            except (Broken, Refused):
                return None
            if head.status != 200:
                return None
            began = time.monotonic()
            try:
                async with asyncio.timeout(seconds):
                    async for _ in connection.body(seconds + ANSWER_SECONDS):
                        pass
            except TimeoutError:
                return Quiet("SSE", seconds)
            except Broken as error:
                return Quiet("SSE", time.monotonic() - began, str(error))
            return Quiet("SSE", time.monotonic() - began, "ended")

    async def _quiet_poll(self, seconds: float) -> Quiet | None:
        if seconds < 1:
            return None
        wait = min(seconds, self.timing.wait)
        began = time.monotonic()
        try:
            answer = await self.ask("GET", self._path(f"after=latest&wait={wait:g}"), wait=wait)
        except (Unreachable, Refused):
            return None
        lasted = time.monotonic() - began
        if answer.status == 200 or answer.code:
            return Quiet("long poll", wait) if answer.status == 200 else None
        return Quiet("long poll", lasted, answer.trouble or f"answered {answer.status}")


async def _asked(
    connection: HttpConnection,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    body: bytes | None,
    wait: float,
) -> HttpAnswer:
    sent = time.time()
    try:
        response = await connection.request(method, path, headers, body, wait=wait)
    except Unreachable:
        raise
    except Broken as error:
        return HttpAnswer(trouble=str(error), sent=sent, came=time.time())
    return replace(_answer(response.status, response.headers, response.body), sent=sent, came=time.time())


def _answer(status: int, headers: object, body: bytes) -> HttpAnswer:
    code = message = ""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        error = json.loads(body)["error"]
        code, message = str(error["code"]), str(error["message"])
    return HttpAnswer(status=status, headers=dict(headers), body=body, code=code, message=message)  # type: ignore[call-overload]


def _text_of(answer: HttpAnswer, status: int, name: str) -> str:
    """Return a field of the JSON of an answer with this status, "" where there is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        if answer.status == status:
            return str(json.loads(answer.body)[name])
    return ""


def _ids_of(answer: HttpAnswer) -> set[str]:
    """Return the ids of the messages in the answer to a poll."""
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        return {str(message["id"]) for message in json.loads(answer.body)["messages"]}
    return set()


async def _spoken(connection: HttpConnection, codec: WebSocketConnection, channel: str) -> bool:
    """Ask for something that has an answer of any server, and say whether a frame comes back."""
    try:
        await connection.write(codec.text(json.dumps({"type": "unsubscribe", "channel": channel, "ref": 1}).encode()))
        end = time.monotonic() + ANSWER_SECONDS
        while (left := end - time.monotonic()) > 0:
            data = await connection.read(left)
            if not data:
                return False
            if any(isinstance(event, DataReceived) for event in codec.receive(data)):
                return True
    except Broken:
        pass
    return False
