"""Gives an application's `Oncecast` the log and the clock of a test, until the test is over.

Invariant: what the `Oncecast` had before it has again after `end`.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from functools import partial

from ...asgi.embedding import Embedding
from ...asgi.life import AppLife
from ...asgi.threads import running_loop
from ...brokers.base import Broker
from ...errors import UsageError
from ...message import RetentionPolicy
from ...server.settings import Settings
from .shared_log import Attachment, SharedLog

__all__ = ["AppInTest"]

LOOP_SECONDS = 30.0  # for the application's loop to run a call


class AppInTest:
    """The surroundings of `cast`, from its making until `end`. Raises `UsageError` where it runs already."""

    def __init__(self, log: SharedLog, cast: Embedding) -> None:
        if not isinstance(cast, Embedding):
            raise UsageError(f"use: give the Oncecast of your application, not {type(cast).__name__}")
        if cast.lives():
            raise UsageError(
                "This Oncecast runs already, on a log that is not the test's: start the application in each test, "
                "after the fixture oncecast. A fixture that starts it should ask for oncecast, and not be of a session."
            )
        self.cast = cast
        self._log = log
        self._before = cast.surroundings
        self._attachments: list[Attachment] = []
        cast.abandon()
        cast.surroundings = self

    def build_broker(self, settings: Settings, policy: RetentionPolicy, /) -> Broker:
        """Return a broker on the log of the test."""
        attachment = Attachment(self._log)
        self._attachments.append(attachment)
        return attachment

    def monotonic(self) -> float:
        """Return the seconds of the test's clock."""
        return self._log.clock.monotonic()

    def wall(self) -> float:
        """Return the Unix seconds of the test's clock."""
        return self._log.clock.wall()

    def look(self) -> None:
        """Let the application do what is due at the clock's time."""
        for life in self.cast.lives():
            _on_loop(life, life.look)

    def cut(self) -> None:
        """Cut each stream, socket and waiting poll, as a failing network does."""
        for life in self.cast.lives():
            _on_loop(life, partial(_abort_all, life))

    def end(self) -> None:
        """Give the `Oncecast` back."""
        for attachment in self._attachments:
            attachment.detach()
        self.cast.abandon()
        self.cast.surroundings = self._before


def _abort_all(life: AppLife) -> None:
    for connection in list(life.app.connections):
        connection.abort()


def _on_loop(life: AppLife, call: Callable[[], object]) -> None:
    """Call on the loop of a life, and return when that is done."""
    if running_loop() is life.loop or not life.loop.is_running():
        call()
        return
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it was called
            done.set_exception(error)
        else:
            done.set_result(None)

    life.loop.call_soon_threadsafe(run)
    done.result(LOOP_SECONDS)
