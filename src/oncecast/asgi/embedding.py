"""The lives of an `Oncecast`: when they begin, on which loop, and how they end.

There are at most two: that of the application's event loop, and that of a thread, for a program without a loop. Nothing
is opened before the first of them begins: by the lifespan, or by the first use.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import structs

from ..errors import UsageError
from ..policy.access import Access
from ..policy.rules import Allowed
from ..server.config.sources import load
from ..server.settings import MEMORY, Settings
from .callers import WhoAsks
from .gate import access_of
from .life import AppLife
from .review import Check
from .running import Running
from .surroundings import Surroundings
from .threads import LoopThread

__all__ = ["Embedding", "living_embeddings", "settings_of"]

logger = logging.getLogger("oncecast.asgi")

_all: weakref.WeakSet[Embedding] = weakref.WeakSet()
_inherited: list[object] = []  # of the parent of a fork: see `threads.py`


class Embedding:
    """The lives of one `Oncecast`. `subscribe` and `publish` are for channels without a table of their own."""

    def __init__(
        self, settings: Settings, subscribe: Allowed | None, publish: Allowed | None, handler_seconds: float
    ) -> None:
        self.settings = settings
        self._subscribe_rule = subscribe
        self._publish_rule = publish
        self.handler_seconds = handler_seconds
        self.authorizer: WhoAsks | None = None  # the function of the application
        self.checks: list[tuple[str, Check]] = []
        self.surroundings: Surroundings | None = None  # a test's broker and clocks
        self._life: AppLife | None = None
        self._entered: list[AppLife] = []
        self._starting: asyncio.Future[AppLife] | None = None
        self._host: Callable[[], AppLife | None] | None = None  # gives the life of the server around
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()
        self._warned = False
        _all.add(self)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run for as long as an application does: `FastAPI(lifespan=cast.lifespan)`, or `async with` in one's own."""
        async with self:
            yield

    async def start(self) -> None:
        """Start now, and not at the first use. Raises `ConfigurationError` where the broker can't be opened."""
        await self._living()

    async def stop(self) -> None:
        """End the streams, whose clients connect again, and close the broker. The next use starts it again."""
        life, self._life = self._life, None
        if life is not None and life.usable:
            if life.loop is not asyncio.get_running_loop():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(life.stop(), life.loop))
            else:
                await life.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)

    def embed(self, settings: Settings, host: Callable[[], AppLife | None]) -> None:
        """Take the node of a server around this application, whose settings these are, instead of making one."""
        self.settings = settings
        self._host = host

    def around(self) -> AppLife | None:
        """Return the life of the server around this application, if there is one."""
        return None if self._host is None else self._host()

    def rules_of(self, settings: Settings) -> Access:
        """Return who may do what by these settings and by what this was given itself."""
        authorizes = self.authorizer is not None
        return access_of(settings, self._subscribe_rule, self._publish_rule, authorizes=authorizes)

    def lives(self) -> list[AppLife]:
        """Return the running lives: of the application's loop, of a thread, or of both."""
        thread = None if self._thread is None else self._thread.running
        return [life for life in (self._life, thread) if life is not None and life.usable]

    def abandon(self) -> None:
        """Forget the lives, whose loops go on without them, and end the thread. From any thread."""
        self._life = self._starting = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def drain(self) -> None:
        """Tell the streams that this process is about to stop. From any thread, and from a signal handler.

        It is called at SIGTERM and SIGINT. Call it where a server is stopped otherwise and waits for its connections.
        """
        life = self._life
        if life is not None and life.usable:
            life.loop.call_soon_threadsafe(life.leave)

    async def __aenter__(self) -> Self:
        life = await self._living()
        life.entered += 1
        self._entered.append(life)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        life = self._entered.pop()
        life.entered -= 1
        if not life.entered:  # else it goes on for who has entered before, such as the lifespan around
            await self.stop()

    # -- helpers

    async def _living(self) -> AppLife:
        """Return the life of the running loop, and begin it if there is none."""
        loop = asyncio.get_running_loop()
        life = self._life
        if life is not None and life.usable:
            if life.loop is not loop:
                raise UsageError("This Oncecast runs on another event loop: make one for each, or stop that one first.")
            return life
        starting = self._starting
        if starting is not None and starting.get_loop() is loop:
            return await asyncio.shield(starting)
        starting = self._starting = loop.create_future()
        try:
            made = await self._begin()
        except BaseException as error:
            starting.set_exception(error if isinstance(error, Exception) else RuntimeError("the start was cancelled"))
            starting.exception()  # it is raised here
            raise
        else:
            self._life = made
            starting.set_result(made)
            return made
        finally:
            self._starting = None

    async def _begin(self) -> AppLife:
        """Return the life of the server around, else a new one."""
        return self.around() or await self._make(signals=True)

    async def _make(self, *, signals: bool) -> Running:
        access = self.rules_of(self.settings)
        life = Running(
            self.settings, access, self.checks, self.handler_seconds, signals=signals, surroundings=self.surroundings
        )
        life.names_users = self.authorizer is not None
        await life.start()
        return life

    def _threaded(self) -> LoopThread:
        with self._lock:
            if self._thread is None or not self._thread.usable:
                if self.settings.broker == MEMORY and self.surroundings is None and not self._warned:
                    self._warned = True
                    logger.warning(
                        "publish_sync: the broker is memory:// and no application runs here, so nobody can hear what "
                        "is published: give the URL of a broker that processes share, such as sqlite:///app.db"
                    )
                self._thread = LoopThread(lambda: self._make(signals=False))
                atexit.register(_stop, weakref.ref(self._thread))
            return self._thread

    def forked(self) -> None:
        """Forget what belongs to the parent process, in the child."""
        _inherited.extend((self._life, self._thread, self._starting))
        self._life = self._thread = self._starting = self._host = None
        self._lock = threading.Lock()


def living_embeddings() -> list[Embedding]:
    """Return all that there are in this process."""
    return list(_all)


def settings_of(given: Settings | str | Path | None, flags: dict[str, Any]) -> Settings:
    """Return the settings of a file, the environment and these flags. Raises `ConfigurationError`."""
    if isinstance(given, Settings):
        return structs.replace(given, **{name: value for name, value in flags.items() if value})
    loaded = load(file=None if given is None else Path(given), environ=os.environ, flags=flags, call="Oncecast")
    for warning in loaded.warnings:
        logger.warning("%s", warning)
    if loaded.sources["broker"] == "default":
        return structs.replace(loaded.settings, broker=MEMORY)
    return loaded.settings


def _stop(thread: weakref.ref[LoopThread]) -> None:
    found = thread()
    if found is not None:
        with contextlib.suppress(Exception):
            found.stop()


def _forked() -> None:
    for each in list(_all):
        each.forked()


os.register_at_fork(after_in_child=_forked)
