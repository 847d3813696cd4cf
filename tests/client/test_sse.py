"""The SSE transport: what is asked, what each event means, and what ends a stream."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from oncecast import Broken, Gap, Refused, Timing, Unavailable
from oncecast.client import sse, timing
from oncecast.client.base import CursorMoved, Received, RetryHint, StartQuery, TransportEvent
from oncecast.client.failures import Unsuited
from oncecast.client.sse import SseTransport
from oncecast.errors import OncecastError

if TYPE_CHECKING:
    from tests.client.conftest import Drain, Log, Peer, Sleep, Talk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
STARTS = {"d": StartQuery("after", "latest"), "c": StartQuery("after", "latest")}
GAP = 'id: e-9\nevent: gap\ndata: {"channel": "c", "reason": "epoch", "cursor": "e-9"}\n\n'


Play = Callable[..., Awaitable[tuple[list[TransportEvent], OncecastError, str]]]


@pytest.fixture
def play(peer: Peer, sleep: Sleep, drain: Drain) -> Play:
    """Let the peer send pieces; return the events, how it ended, and the request's first line."""

    async def run(*pieces: bytes) -> tuple[list[TransportEvent], OncecastError, str]:
        asked = []

        async def script(talk: Talk) -> None:
            asked.append((await talk.request())[0])
            for piece in pieces:
                await talk.send(piece)

        peer.scripts = [script]
        events, end = await drain(SseTransport(peer.endpoint, timing=Timing(), sleep=sleep), STARTS)
        return events, end, asked[0]

    return run


async def test_events(play: Play, log: Log) -> None:
    """Messages, also of an event that is called gap, cursors and the server's wish for a delay are yielded."""
    events, end, asked = await play(log.stream("latest").replace(b"retry: 0", b"retry: 9"))
    assert "GET /v1/channels/c,d?after=latest&envelope=1" == asked
    assert RetryHint(0.009) == events[0]
    assert ["1é", "2é", "3é"] == [event.message.data for event in events if isinstance(event, Received)]
    assert CursorMoved("e-3") == events[-1]
    assert "the server closed the connection" == str(end)


async def test_gap(play: Play) -> None:
    """A gap comes with its cursor, and the end of a stream that its length tells is an end like any other."""
    events, end, _ = await play(HEAD + GAP.encode())
    assert [Gap(channel="c", reason="epoch", cursor="e-9"), CursorMoved("e-9")] == events
    assert (Broken, "the server ended the stream") == (type(end), str(end))


@pytest.mark.parametrize(
    "held, last",
    [
        (("epoch", "o-5", "o-6", None), ("epoch", "e-9", "o-6", None)),
        (("expired", "e-5", "e-6", "e-7"), ("expired", "e-9", "e-6", "e-12")),
        (("unknown", "e-9", "e-6", "e-9"), ("unknown", "e-5", "e-6", "e-9")),
    ],
)
async def test_gaps_in_a_row(play: Play, held: tuple[str, ...], last: tuple[str, ...]) -> None:
    """Gaps come together, with the cursor that the stream goes on from; cut off before that, none comes."""
    names = ("reason", "cursor", "missed_from", "missed_to")
    first, second = (
        {"channel": channel, **dict(zip(names, values, strict=True))} for channel, values in (("c", held), ("d", last))
    )
    sent = [f"id: {gap['cursor']}\nevent: gap\ndata: {json.dumps(gap)}\n\n".encode() for gap in (first, second)]
    events, _, _ = await play(HEAD + sent[0])
    assert [] == [event for event in events if isinstance(event, Gap)]
    events, _, _ = await play(HEAD + sent[0], sent[1])
    expected = [Gap(**{**first, "cursor": second["cursor"]}), Gap(**second)]
    assert expected == [event for event in events if isinstance(event, Gap)]


async def test_the_gap_of_a_hole_is_not_held(play: Play) -> None:
    """The gaps of a hole come out at once: the cursor that ends above the hole moves no place past one of them."""
    first = {"reason": "unknown", "missed_from": "e-6", "missed_to": "e-98"}
    gaps = [{"channel": "c", **first, "cursor": "e-5"}, {"channel": "d", **first, "cursor": "e-99"}]
    sent = [f"id: {gap['cursor']}\nevent: gap\ndata: {json.dumps(gap)}\n\n".encode() for gap in gaps]
    events, _, _ = await play(HEAD + sent[0], sent[1])
    assert [Gap(**gaps[0]), Gap(**gaps[1]), CursorMoved("e-99")] == [e for e in events if e != CursorMoved("e-5")]
    events, _, _ = await play(HEAD + sent[1])
    assert [Gap(**gaps[1]), CursorMoved("e-99")] == events


async def test_no_place_moves_past_a_gap_that_is_held(play: Play) -> None:
    """While a gap waits for the last of its row, its id moves nothing."""
    held = {"channel": "c", "reason": "unknown", "cursor": "e-9", "missed_from": "e-6", "missed_to": "e-9"}
    events, _, _ = await play(HEAD + f"id: e-9\nevent: gap\ndata: {json.dumps(held)}\n\n".encode())
    assert [] == events


async def test_a_cut_id_does_not_move_the_cursor(play: Play) -> None:
    """An id whose event was cut off is not a place that was reached."""
    events, _, _ = await play(HEAD + b"id: e-1\n\nid: e-2\ndata: {}\n")
    assert [CursorMoved("e-1")] == events


@pytest.mark.parametrize(
    "piece, expected",
    [
        (b"data: x\n\n", "the server sent a message that is malformed"),
        (b"event: gap\ndata: x\n\n", "the server sent a gap that is malformed"),
        (b"data: " + bytes(200), "an event of the stream is over 100 bytes"),
    ],
)
async def test_malformed(play: Play, monkeypatch: pytest.MonkeyPatch, piece: bytes, expected: str) -> None:
    """An event that is none of ours breaks the stream."""
    monkeypatch.setattr(sse, "MESSAGE_BYTES", 100)
    _, end, _ = await play(HEAD + piece)
    assert (Broken, expected) == (type(end), str(end))


@pytest.mark.parametrize(
    "answer, expected",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", Unsuited),
        (b"HTTP/1.1 406 X\r\nContent-Length: 0\r\n\r\n", Unsuited),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: 4\r\n\r\n", Unavailable),
        (b'HTTP/1.1 401 X\r\nContent-Length: 48\r\n\r\n{"error":{"code":"unauthorized","message":"no"}}', Refused),
    ],
)
async def test_another_answer(play: Play, answer: bytes, expected: type[Exception]) -> None:
    """An answer without an event stream is a refusal of the server's, or a failing of this transport."""
    _, end, _ = await play(answer)
    assert expected is type(end)
    assert (4.0 if expected is Unavailable else None) == getattr(end, "retry_after", None)


async def test_gaps_in_a_row_without_an_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server can't make the client hold gaps for ever."""
    monkeypatch.setattr(sse, "HELD_GAPS", 3)
    gap = {"channel": "c", "reason": "expired", "missed_from": "e-5", "missed_to": "e-6", "cursor": "e-1"}
    _, end, _ = await play(HEAD + b"".join(b"event: gap\ndata: %b\n\n" % json.dumps(gap).encode() for _ in range(4)))
    assert (Broken, "the server sent more gaps in a row than it has channels") == (type(end), str(end))


@pytest.mark.parametrize("announced, expected", [(b"0.1", "0.25"), (b"never", "0.4")])
async def test_the_silence_that_is_borne_follows_the_heartbeat(
    peer: Peer, sleep: Sleep, drain: Drain, monkeypatch: pytest.MonkeyPatch, announced: bytes, expected: str
) -> None:
    """Two and a half of the server's heartbeats; of the default where it announces none."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(HEAD.replace(b"\r\n\r\n", b"\r\nOncecast-Heartbeat: %b\r\n\r\n" % announced))
        await talk.hold()

    monkeypatch.setattr(timing, "HEARTBEAT", 0.16)
    peer.scripts = [script]
    _, end = await drain(SseTransport(peer.endpoint, timing=Timing(), sleep=sleep), STARTS)
    assert f"the server sent nothing for {expected} s" == str(end)
