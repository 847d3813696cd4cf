"""The transports' contract over ASGI: the same clauses as on the native server, behind uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import uvicorn

from oncecast.asgi.life import AppLife
from oncecast.asgi.oncecast import Oncecast
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.node import Node
from oncecast.server.settings import Settings
from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS, SseEnvelopeSubscriber, SseSubscriber
from oncecast.testing.transport import CHECKS, check_transport


class QuickServer(uvicorn.Server):
    """uvicorn that stops at once. Its own loop checks for a stop ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        """Wait for the end."""
        await self.stopping.wait()


class ServedByUvicorn:
    """An `Oncecast` behind uvicorn, at a free port."""

    def __init__(self, settings: Settings, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("oncecast.asgi.running.build_broker", lambda *_: broker)
        self.cast = Oncecast(settings=settings, subscribe="public", publish="public")
        config = uvicorn.Config(self.cast, log_level="error", ws="websockets-sansio", lifespan="on")
        self._server = QuickServer(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve."""
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        async with asyncio.timeout(30):
            while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)

    @property
    def life(self) -> AppLife:
        """The running part."""
        assert self.cast._life is not None
        return self.cast._life

    @property
    def node(self) -> Node:
        """The node."""
        return self.life.node

    async def stop(self, seconds: float, /) -> None:
        """Stop as at a signal."""
        assert self._task is not None
        self.cast.drain()
        self._server.should_exit = True
        self._server.stopping.set()
        await asyncio.wait({self._task}, timeout=30)
        assert self._task.done()


KINDS = [kind for kind in SUBSCRIBERS if kind is not SseEnvelopeSubscriber]  # it differs from SSE in the encoder alone
LONG = "cut_at_every_byte"  # a minute of bytes that uvicorn frames: of one kind it is enough
CASES = [(kind, name) for kind in KINDS for name in CHECKS if name != LONG or kind is SseSubscriber]


@pytest.mark.parametrize("kind, name", CASES, ids=[f"{kind.name}-{name}" for kind, name in CASES])
async def test_contract(kind: type[Subscriber], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transport keeps each clause of the contract."""

    async def start(settings: Settings, broker: MemoryBroker) -> ServedByUvicorn:
        served = ServedByUvicorn(settings, broker, monkeypatch)
        await served.start()
        return served

    await check_transport(kind, name, start=start)
