"""`Oncecast`: publish and listen inside an ASGI application, and its ASGI application.

It owns at most two lives: that of the event loop of the application, and that of a thread, for a program without a
loop. Nothing is opened before the first of them begins: by the lifespan, or by the first use.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..client.async_client import BUFFER, BUFFER_MOST
from ..client.encoding import check_names
from ..client.feed import Feed
from ..client.gaps import GapWatch, OnGap
from ..client.messages import Messages
from ..client.starts import channels_of, start_of
from ..client.trace import current_trace
from ..client.values import Ack, Gap
from ..core.answers import settle
from ..errors import Refusal, UsageError
from ..message import Draft, Receipt
from ..policy.rules import Allowed
from ..policy.tokens import is_subject
from ..protocol.query import Query, parse_start
from ..server.settings import Settings
from .callers import SUBJECT_RULE
from .embedding import Embedding, settings_of
from .life import AppLife
from .listener import as_failure
from .review import check_content, check_pattern_of
from .scopes import AsgiSend, Receive, Scope
from .serving import serve_scope
from .streams import EventAnswer, answer_of
from .threads import run_on, running_loop
from .wrapping import AsgiApp, Beside, live

__all__ = ["Oncecast"]

logger = logging.getLogger("oncecast.asgi")

HANDLER_SECONDS = 4.0  # for a function of the application: less than the 5 s that an ending socket waits for answers
PUBLISH_SECONDS = 15.0  # for a publish from a thread: longer than a broker may take to answer

A = TypeVar("A", bound=Callable[..., Any])


class Oncecast(Embedding):
    """Realtime inside an application: an ASGI application, and calls to publish and to listen.

    `broker` is the URL of the broker; without one it comes from ONCECAST_BROKER or the file of settings, else it is in
    memory. `settings` is a file (`oncecast.toml` by default, if there is one), or `Settings`. `subscribe` and `publish`
    say who may do that in channels without a table of their own: `public`, `token` or `server`; without them, rules or
    a function by `authorize`, clients may do neither, and the application may do both. `dev` opens everything, to
    pages on other ports of this machine too. A function has `handler_seconds` to answer.
    Raises `ConfigurationError` and `UsageError`.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        settings: Settings | str | Path | None = None,
        subscribe: Allowed | None = None,
        publish: Allowed | None = None,
        dev: bool = False,
        origins: Sequence[str] = (),
        hosts: Sequence[str] = (),
        handler_seconds: float = HANDLER_SECONDS,
    ) -> None:
        for name, given in (("subscribe", subscribe), ("publish", publish)):
            if given not in (None, "public", "token", "server"):
                raise UsageError(f"{name}: give public, token or server, not {given!r}")
        for name, list_of in (("origins", origins), ("hosts", hosts)):
            if isinstance(list_of, str):  # its letters would be taken
                raise UsageError(f"{name}: give a list, [{list_of!r}]")
        _check_seconds("handler_seconds", handler_seconds)
        flags = {"broker": broker, "dev": dev or None, "origins": tuple(origins), "hosts": tuple(hosts)}
        super().__init__(settings_of(settings, flags), subscribe, publish, handler_seconds)
        self._attaching: set[asyncio.Task[None]] = set()

    # -- what clients may do

    def authorize(self, function: A) -> A:
        """Register the function that identifies clients: it takes a `Caller`, and returns a `Grant`, or None.

        It is asked for each request and each handshake. To refuse one, it raises `Refused` with a reason, and
        `code="unauthorized"` where another token would help.
        """
        if self.authorizer is not None:
            raise UsageError("authorize: there is a function already")
        _check_function("authorize", function)
        self._may_change("authorize")
        self.authorizer = function
        return function

    def on_publish(self, pattern: str) -> Callable[[A], A]:
        """Register a function for each message that clients publish to the channels of a pattern, such as `chat.*`.

        It is given a `Publication`. It may set its `data` or `event`. It refuses a message by raising `Refused`.
        """
        checked = check_pattern_of(pattern)
        self._may_change("on_publish")

        def register(function: A) -> A:
            _check_function("on_publish", function)
            self.checks.append((checked, function))
            return function

        return register

    async def disconnect(self, subject: str) -> None:
        """End the streams and sockets of a user, in every process. Raises `UsageError`, `Refused` and `Unavailable`.

        What `authorize` is still asked about the user when this is called is refused.
        """
        if not isinstance(subject, str) or not is_subject(subject):
            raise UsageError(f"disconnect: give the subject of a Grant, {SUBJECT_RULE}, not {subject!r}")
        life = await self._living()
        bulletin = life.app.bulletin
        assert bulletin is not None
        found: asyncio.Future[Receipt | Refusal] = life.loop.create_future()
        bulletin.end(subject, partial(settle, found), revoke=False)
        if isinstance(outcome := await found, Refusal):
            raise as_failure(outcome)

    # -- publish

    async def publish(self, channel: str, data: Any, *, event: str | None = None, key: str | None = None) -> Ack:
        """Publish one message, and return once the broker has it.

        `data` is a `str`, bytes, or what JSON can say: dicts, lists, dataclasses, models of pydantic and msgspec. With
        a `key` it is published once, however often this is called. Raises `Refused` and `Unavailable`.
        """
        draft = self._draft(channel, data, event, key)
        life = self._life
        if life is None or not life.usable or life.loop is not asyncio.get_running_loop():
            if life is not None and life.usable:  # of another thread's loop
                return _ack(
                    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_published(life, draft), life.loop))
                )
            life = await self._living()
        return _ack(await life.publish(draft))

    def publish_sync(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        key: str | None = None,
        timeout: float = PUBLISH_SECONDS,
    ) -> Ack:
        """Publish one message from a thread: in WSGI applications, workers and scripts, after a fork too.

        It uses the loop of the application, or starts one in a thread. Raises what `publish` raises, and `UsageError`
        on the application's own loop, which would wait for itself.
        """
        _check_seconds("timeout", timeout)
        draft = self._draft(channel, data, event, key)
        life = self._life
        if life is None or not life.usable:
            life = self.around() or self._threaded().life(timeout)
        elif running_loop() is life.loop:
            raise UsageError("publish_sync would block the event loop that is to publish: use await cast.publish")
        return _ack(run_on(life.loop, _published(life, draft), timeout))

    # -- listen

    def subscribe(
        self,
        *channels: str | Sequence[str],
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        on_gap: OnGap = None,
        buffer: int = BUFFER,
    ) -> Messages:
        """Listen to channels in the application itself: see `AsyncClient.subscribe`, whose arguments these are."""
        if not isinstance(buffer, int) or isinstance(buffer, bool) or not 1 <= buffer <= BUFFER_MOST:
            raise UsageError(f"buffer: give a number of messages from 1 to {BUFFER_MOST}, not {buffer!r}")
        feed = Feed(channels_of(channels), start_of(after, last, since), limit=buffer)
        messages = Messages(feed, GapWatch(_tell_nobody, _is_unheard, on_gap))
        task = asyncio.get_running_loop().create_task(self._attach(feed), name="oncecast: subscribe")
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)
        weakref.finalize(messages, _forsaken, asyncio.get_running_loop(), feed).atexit = False
        return messages

    def stream(
        self,
        channel: str | Sequence[str],
        request: Any,
        *,
        after: str | None = None,
        last: int | None = None,
        since: float | None = None,
        envelope: bool = False,
    ) -> EventAnswer:
        """Return the answer of a route: an event stream, which resumes where the browser's Last-Event-ID says.

        The route has decided who may read. `request` is the framework's. See `EventAnswer` for what to return where.
        """
        names = channels_of((channel,))
        start_of(after, last, since)  # raises Python's own TypeError
        query = Query(parse_start(after, last, since), None, None, envelope)
        return answer_of(self._living, request, names, query, self.settings.limits.heartbeat_seconds)

    # -- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Answer below the path at which this is mounted."""
        if scope["type"] == "lifespan":
            await live(receive, send, self.start, self.stop)
        else:
            await serve_scope(await self._living(), scope, receive, send, self.authorizer, self.handler_seconds)

    def beside(self, app: AsgiApp, path: str = "/rt") -> AsgiApp:
        """Return an ASGI application that is this one below `path`, and `app` elsewhere: for Django and Quart."""
        _check_function("beside", app)
        if not isinstance(path, str) or not path.startswith("/") or path.endswith("/"):
            raise UsageError(f"path: give one that begins with / and does not end with it, not {path!r}")
        return Beside(app, self, path, self.start, self.stop)

    # -- helpers

    async def _attach(self, feed: Feed) -> None:
        try:
            life = await self._living()
        except Exception as error:  # noqa: BLE001 - the application gets it where it iterates
            feed.fail(error)
            return
        life.listen(feed)

    def _draft(self, channel: str, data: Any, event: str | None, key: str | None) -> Draft:
        check_names(channel, event, key)
        content = check_content(data, self.settings.limits.message_bytes)
        trace = current_trace() if self.settings.tracing else None
        return Draft(channel, content.data, content.kind, event, key, trace)

    def _may_change(self, name: str) -> None:
        if self._life is not None and self._life.usable:
            raise UsageError(f"{name}: register it before the application starts")


async def _published(life: AppLife, draft: Draft) -> Receipt | Refusal:
    return await life.publish(draft)


def _ack(outcome: Receipt | Refusal) -> Ack:
    if isinstance(outcome, Refusal):
        raise as_failure(outcome)
    return Ack(outcome.id, outcome.durability)


def _forsaken(loop: asyncio.AbstractEventLoop, feed: Feed) -> None:
    """End a subscription that nobody can iterate over any more; it would be filled for as long as the process lives."""
    if not feed.ended and not loop.is_closed():
        logger.warning("a subscription to %s was left open: close it, or use async with", ", ".join(feed.channels))
        loop.call_soon_threadsafe(feed.end)


def _tell_nobody(gap: Gap) -> None:
    """There are no listeners for gaps but those of the subscription."""


def _is_unheard() -> bool:
    return False


def _check_seconds(name: str, given: object) -> None:
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given <= threading.TIMEOUT_MAX:
        raise UsageError(f"{name}: give seconds, above 0, not {given!r}")


def _check_function(name: str, function: object) -> None:
    if not callable(function):
        raise UsageError(f"{name}: give a function, not {function!r}")
