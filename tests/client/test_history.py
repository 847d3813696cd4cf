"""`history`: what channels hold, in pages, up to a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oncecast import AsyncClient, History, Refused, Unreachable, UsageError
from oncecast.client import history as module
from oncecast.client.history import HISTORY_LIMIT, HISTORY_MOST, check_limit
from oncecast.server.server import Server as Node

if TYPE_CHECKING:
    from tests.client.conftest import Peer, Talk


@pytest.fixture
async def client(real: Node) -> AsyncClient:
    """A client of a real server with messages on two channels."""
    made = AsyncClient(f"http://127.0.0.1:{real.port}/v1")
    for number in range(250):
        await made.publish("ab"[number % 2], number)
    return made


def data(history: History) -> list[Any]:
    """What the messages say."""
    return [message.data for message in history.messages]


async def test_all(client: AsyncClient) -> None:
    """From the oldest on, over several pages, of one channel or of several; the cursor goes on behind it."""
    async with client:
        found = await client.history("a", "b")
        assert list(range(250)) == data(found)
        assert ([], None) == (found.gaps, found.gap)
        assert list(range(0, 250, 2)) == data(await client.history(["a"]))
        assert History([], [], found.cursor) == await client.history("a", after=found.cursor)
        await client.publish("a", "new")
        assert ["new"] == data(await client.history("a", after=found.cursor))


async def test_a_part(client: AsyncClient) -> None:
    """The last N, a number of messages, or none."""
    async with client:
        assert [246, 248] == data(await client.history("a", last=2))
        assert 120 == len((await client.history("a", last=120)).messages)
        first = await client.history("a", limit=101)
        assert list(range(0, 202, 2)) == data(first)
        assert [202, 204] == data(await client.history("a", after=first.cursor, limit=2))
        assert [] == data(await client.history("a", after="latest"))
        assert 125 == len((await client.history("a", since=0)).messages)


async def test_gaps(client: AsyncClient) -> None:
    """A history with trimmed messages has a gap for them."""
    async with client:
        found = await client.history("a", after="old-7")
        assert found.gap is not None
        assert ("epoch", 1, 125) == (found.gap.reason, len(found.gaps), len(found.messages))


async def test_bytes_are_bounded(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so much data no further page is read; the cursor goes on."""
    monkeypatch.setattr(module, "HISTORY_BYTES", 10)
    async with client:
        first = await client.history("a")
        assert 100 == len(first.messages)
        assert 200 == data(await client.history("a", after=first.cursor))[0]


async def test_it_is_retried(peer: Peer) -> None:
    """A broken connection and a 503 are no reason to fail; a refusal is one, with all that the server said."""
    page: dict[str, object] = {"messages": [], "cursor": "e-7", "gap": None}

    async def cut(talk: Talk) -> None:
        await talk.request()

    async def busy(talk: Talk) -> None:
        await talk.request()
        await talk.answer(503, None, Retry_After="0")
        await talk.request()
        await talk.answer(200, page)
        await talk.hold()

    async def refuse(talk: Talk) -> None:
        await talk.request()
        await talk.answer(403, {"error": {"code": "forbidden", "message": "not you"}}, Retry_After="9")

    peer.scripts = [cut, busy, refuse]
    async with AsyncClient(f"http://127.0.0.1:{peer.port}", rng=lambda: 0.0) as client:
        assert "e-7" == (await client.history("c")).cursor
        with pytest.raises(Refused) as refused:
            await client.history("c")
    error = refused.value
    assert ("forbidden", "not you", 403, 9.0) == (error.code, error.message, error.status, error.retry_after)


async def test_no_server() -> None:
    """The call raises at once if no server has answered yet."""
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable):
            await client.history("c")


def test_limit() -> None:
    """A number of messages; `last` if it is not given."""
    assert [HISTORY_LIMIT, 5, 1, HISTORY_MOST, 7] == [
        check_limit(None, None),
        check_limit(None, 5),
        check_limit(None, 0),
        check_limit(None, 10**12),
        check_limit(7, 5),
    ]
    for bad in (0, -1, HISTORY_MOST + 1, 1.5, True, "1"):
        with pytest.raises(UsageError, match="limit"):
            check_limit(bad, None)  # type: ignore[arg-type]
