"""An epoch may end without a gap, as when a durable log is reopened: from `E1-50` ids go on to `E2-51`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from oncecast import AsyncClient, Gap, Timing
from oncecast.client.transports import TRANSPORTS

if TYPE_CHECKING:
    from tests.client.conftest import Log, Peer, Talk

SECONDS = 5.0
IDS = ("E1-50", "E2-51", "E2-52", "E3-53")


@dataclass
class Reopened:
    """What `log` becomes: one that was reopened between its messages, in which older cursors are still good."""

    log: Log
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (template, *_) = self.log.messages
        self.messages = [{**template, "id": name} for name in IDS]

    def after(self, start: str) -> list[dict[str, Any]]:
        """Return the messages after a cursor of any epoch."""
        self.asked.append(start)
        return [message for message in self.log.messages if seq(str(message["id"])) > seq(start)]

    async def play(self, transport: str, talk: Talk, count: int) -> None:
        """Answer with the first `count` messages."""
        self.log.messages = self.messages[:count]
        await self.log.play(transport, talk, None)


@pytest.fixture
def reopened(log: Log, monkeypatch: pytest.MonkeyPatch) -> Reopened:
    """Such a log."""
    made = Reopened(log)
    monkeypatch.setattr(log, "after", made.after)
    return made


def seq(cursor: str) -> int:
    """The number in a cursor."""
    return int(cursor.rpartition("-")[2])


async def sleep(seconds: float) -> None:
    """Wait for no longer than a turn of the loop."""
    await asyncio.sleep(0)


def client(peer: Peer, *transports: str) -> AsyncClient:
    """A client that waits for nothing."""
    timing = Timing(interval=0, wait=1)
    return AsyncClient(f"http://127.0.0.1:{peer.port}", transports=transports, timing=timing, sleep=sleep)


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_a_new_epoch_without_a_gap(peer: Peer, reopened: Reopened, transport: str) -> None:
    """Messages of a new epoch are given out as they come, and each connection goes on from the last id."""

    async def first(talk: Talk) -> None:
        await reopened.play(transport, talk, 1)

    async def second(talk: Talk) -> None:
        await reopened.play(transport, talk, 3)

    async def third(talk: Talk) -> None:
        await reopened.play(transport, talk, 4)
        await talk.hold()

    peer.scripts = [first, second, third]
    async with asyncio.timeout(SECONDS), client(peer, transport) as listening:
        messages = listening.subscribe("c", after="E1-49")
        items = messages.events()
        items_seen = [await anext(items) for _ in IDS]
        assert list(IDS) == [item.cursor if isinstance(item, Gap) else item.id for item in items_seen]
        assert {"c": IDS[-1]} == messages.cursors
    await peer.finish()
    assert ["E1-49", "E1-50", "E2-52"] == reopened.asked


async def test_channels_in_two_epochs_meet(peer: Peer) -> None:
    """A quiet channel whose place is in an older epoch is read on first, so that one request repeats nothing."""
    asked = []

    async def page(talk: Talk) -> None:
        asked.append((await talk.request())[0])
        await talk.answer(200, {"messages": [], "cursor": "E2-60", "gap": None})

    async def stream(talk: Talk) -> None:
        asked.append((await talk.request())[0])
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: E2-60\n\n")
        message = {"id": "E2-61", "channel": "quiet", "data": 1, "event": None, "time": 1.0}
        await talk.send(f"id: E2-61\ndata: {json.dumps(message)}\n\n".encode())
        await talk.hold()

    peer.scripts = [page, page, stream]
    async with asyncio.timeout(SECONDS), client(peer, "sse") as listening:
        quiet = listening.subscribe("quiet", after="E1-30")
        busy = listening.subscribe("busy", after="E2-60")
        assert "E2-61" == (await anext(quiet)).id
        assert {"quiet": "E2-61"} == quiet.cursors
        assert {"busy": "E2-61"} == busy.cursors
    assert [
        "GET /v1/channels/quiet?after=E1-30&limit=100",
        "GET /v1/channels/busy?after=E2-60&limit=100",
        "GET /v1/channels/busy,quiet?after=E2-60&envelope=1",
    ] == asked
