"""`OncecastFixture`: what the fixture `oncecast` gives to a test of an application.

It owns the log of the test and its listeners, and the applications that use it; `close` leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...client.encoding import check_names, content_of
from ...client.reading import parse_message
from ...client.starts import channels_of, start_of
from ...client.values import Ack, ClientMessage
from ...errors import Refusal, UsageError
from ...message import LATEST, Cursor, Draft
from ...protocol.query import parse_start
from ...server.build import build_policy
from ...wire import envelope
from .borrowed import AppInTest
from .listening import FixtureListener, shown
from .shared_log import MovedClock, SharedLog

if TYPE_CHECKING:
    from ...asgi.oncecast import Oncecast
    from .call import AsgiApplication
    from .portal_stream import PortalClient, PortalStream
    from .socket import AsgiSocket, PortalSocket

__all__ = ["OncecastFixture"]

STEP_SECONDS = 1.0  # of passing time: a server looks at its log as often
MAX_STEPS = 600  # past ten minutes the steps are longer, as single heartbeats do not matter then


class OncecastFixture:
    """A log in memory for one test, with listeners and a clock that the test moves. No socket, no sleep."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        self.log = SharedLog(self.clock)
        self.listeners: list[FixtureListener] = []
        self._apps: list[AppInTest] = []

    # -- listen and publish

    def subscribe(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
    ) -> FixtureListener:
        """Listen to channels, past the rules of access, from `latest` on unless a start is given.

        The arguments are those of `AsyncClient.subscribe`. Raises `UsageError` and `Refused`.
        """
        names = channels_of(channels)
        start_of(after, last, since)  # says what is wrong in the words of Python
        listener = FixtureListener(self.log, names, parse_start(after, last, since) or LATEST)
        self.listeners.append(listener)
        return listener

    def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish a message as another process would, past the rules of access. It is delivered when this returns."""
        check_names(channel, event, key)
        content = content_of(data)
        outcome = self.log.publish([Draft(channel, content.data, content.kind, event, key)])[0]
        if isinstance(outcome, Refusal):
            raise UsageError(f"the log of the test has failed: {outcome.message}")
        return Ack(outcome.id, outcome.durability)

    # -- the world around the application

    def drop(self) -> None:
        """Break the network: every listener loses its connection, until `resume`.

        The streams and sockets of the application are cut, without a goodbye. Their clients may connect again at once.
        """
        for listener in self.listeners:
            listener.drop()
        for app in self._apps:
            app.cut()

    def resume(self) -> None:
        """Repair the network: every listener that was dropped resumes at its cursor."""
        for listener in self.listeners:
            listener.resume()

    def advance(self, seconds: float) -> None:
        """Let time pass: messages grow old and are trimmed, heartbeats are sent, tokens end.

        Raises `ValueError` for a time that is negative.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError("Time goes on only: give seconds, 0 or more.")
        self._look()  # what was published before ages by all of this time
        steps = max(1, min(MAX_STEPS, int(seconds / STEP_SECONDS)))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self._look()

    def _look(self) -> None:
        self.log.tick()
        for app in self._apps:
            app.look()

    # -- what was published

    def published(self, channel: str | None = None) -> list[ClientMessage]:
        """Return what was published in this test, to one channel or to all, in order."""
        with self.log.lock:
            found = [each for each in self.log.messages if channel is None or each.channel == channel]
        return [parse_message(envelope.message_json(each, self.log.epoch)) for each in found]

    def assert_delivered(
        self, channel: str, data: Any, *, event: str | None = None, times: int | None = 1
    ) -> ClientMessage:
        """Assert that this was published to the channel, `times` times, and that every listener has it once.

        A listener that began after it is not asked. With `event` the event's name counts too; with `times=None` once or
        more often will do. Returns the last of the messages.
        """
        published = self.published(channel)
        found = [each for each in published if each.data == data and event in (None, each.event)]
        if not found or times not in (None, len(found)):
            often = "" if times is None or not found else f" {times} times, not {len(found)} times"
            label = "" if event is None else f" (event {event})"
            text = f"{channel}: {data!r}{label} was expected to be published{often}, and {shown(published)}"
            elsewhere = sorted({each.channel for each in self.published()} - {channel})
            raise AssertionError(f"{text}; other channels with messages: {', '.join(elsewhere) or 'none'}")
        for number, listener in enumerate(self.listeners, 1):
            if channel in listener.channels:
                for message in found:
                    _check_received(number, listener, message)
        return found[-1]

    # -- applications

    def use(self, cast: Oncecast) -> None:
        """Let the `Oncecast` of an application use the log of this test, until the test is over.

        Call it before the application starts. The fixture does so for what `oncecast_app` returns. The retention of the
        first one's settings is the log's. Raises `UsageError` where it runs already.
        """
        app = AppInTest(self.log, cast)
        if not self._apps:
            self.log.policy = build_policy(lambda: cast.settings)
        self._apps.append(app)

    def stream(self, client: PortalClient, url: str, *, headers: dict[str, str] | None = None) -> PortalStream:
        """Open an event stream of the application of a `TestClient`: `with oncecast.stream(client, "/rt/…") as stream`.

        `stream.next()` returns the next event. The client is one in its own `with`, so that its loop lasts.
        """
        from .portal_stream import PortalStream

        return PortalStream(client, url, headers)

    def websocket(
        self, client: PortalClient, url: str, *, protocols: Sequence[str] = (), headers: dict[str, str] | None = None
    ) -> PortalSocket:
        """Open a WebSocket of the application of a `TestClient`: `with oncecast.websocket(client, "/rt/…") as socket`.

        The client is one in its own `with`. `protocols` are the subprotocols that are offered, such as `oncecast.v1`.
        Raises `HandshakeRefused` and `TimeoutError`.
        """
        from .conversation import scope_of_request
        from .portal_stream import portal_of
        from .socket import PortalSocket, socket_scope

        scope = scope_of_request(client.build_request("GET", url, headers=headers))
        return PortalSocket(portal_of(client), client.app, socket_scope(scope, protocols))

    def async_websocket(
        self,
        app: AsgiApplication,
        url: str,
        *,
        protocols: Sequence[str] = (),
        headers: dict[str, str] | None = None,
        root_path: str = "",
    ) -> AsgiSocket:
        """Return a WebSocket of an ASGI application, on the loop of the test: `async with oncecast.async_websocket(…)`.

        `url` is a path, or a whole URL for another host than `test`. The lifespan is not run.
        """
        from .socket import AsgiSocket, scope_of_socket

        return AsgiSocket(app, scope_of_socket(url, headers or {}, protocols, root_path))

    def transport(self, app: AsgiApplication, *, root_path: str = "") -> Any:
        """Return a transport for the `AsyncClient` of httpx or httpx2 that streams what an ASGI application answers."""
        from .httpx_transport import StreamingTransport

        return StreamingTransport(app, root_path=root_path)

    def close(self) -> None:
        """End the listeners, and give each `Oncecast` back as it was."""
        for listener in self.listeners:
            listener.drop()
        for app in reversed(self._apps):
            app.end()


def _check_received(number: int, listener: FixtureListener, message: ClientMessage) -> None:
    times = listener.received[message.id]
    if times == 1 or Cursor.parse(message.id).seq <= listener.began:
        return
    name = f"listener {number}, of {', '.join(listener.channels)},"
    if times:
        raise AssertionError(f"{name} has received {message.data!r} {times} times")
    if not listener.connected:
        raise AssertionError(f"{name} is dropped, and has not received {message.data!r}: call resume() first")
    gaps = "".join(f"; it has a gap ({gap.reason})" for gap in listener.gaps)
    raise AssertionError(f"{name} has not received {message.data!r}; {shown(listener.messages)}{gaps}")
