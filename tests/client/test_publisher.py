"""Publishing: what is sent, and that it is sent again with the same key until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from oncecast import Ack, AsyncClient, Broken, Outgoing, PublishFailed, Refused, Timing, Unreachable
from oncecast.client import publisher as module
from oncecast.client.backoff import Backoff
from oncecast.client.dialing import Endpoint
from oncecast.client.encoding import Content, content_of
from oncecast.client.publisher import Publisher
from oncecast.client.url import ServerUrl
from oncecast.message import Kind
from oncecast.server.server import Server as Node

if TYPE_CHECKING:
    from tests.client.conftest import Peer, Sleep, Talk

BINARY = Content(Kind.BINARY, b"\x00")
EMPTY = Content(Kind.TEXT, b"")
ACK = {"id": "e-1", "durability": "memory"}


@pytest.fixture
def clock() -> Iterator[float]:
    """A clock that is one second later each time it is read."""
    return count(0.0)


@pytest.fixture
async def publisher(peer: Peer, sleep: Sleep, clock: Iterator[float]) -> AsyncIterator[Publisher]:
    """A publisher to the peer whose keys are k0, k1 …, with ten seconds of patience."""
    keys = count()
    made = Publisher(
        peer.endpoint,
        timing=Timing(),
        backoff=Backoff(rng=lambda: 0.0, sleep=sleep),
        patience=10.0,
        clock=clock.__next__,
        new_key=lambda: f"k{next(keys)}",
    )
    yield made
    await made.close()


async def test_publishes(peer: Peer, publisher: Publisher) -> None:
    """Data, type, event and key are sent; messages share a connection and have keys of their own."""
    seen = []

    async def script(talk: Talk) -> None:
        for _ in range(2):
            seen.append(await talk.request())
            await talk.answer(201, ACK)
        await talk.hold()

    peer.scripts = [script]
    assert Ack("e-1", "memory") == await publisher.publish("c", BINARY, event="tick")
    await publisher.publish("c", Content(Kind.JSON, b"{}"))
    first, headers, body = seen[0]
    assert ("POST /v1/channels/c", b"\x00") == (first, body)
    assert ("application/octet-stream", "tick", "k0") == tuple(
        headers[name] for name in ("content-type", "oncecast-event", "idempotency-key")
    )
    assert ("k1", None) == (seen[1][1]["idempotency-key"], seen[1][1].get("oncecast-event"))


async def test_repeats_with_the_same_key(peer: Peer, publisher: Publisher, delays: list[float]) -> None:
    """A lost acknowledgement, a 503 and a 429 are followed by the same message with the same key, when they allow."""
    keys = []

    async def lost(talk: Talk) -> None:
        keys.append((await talk.request())[1]["idempotency-key"])

    async def busy(talk: Talk) -> None:
        for status, wait in ((503, "2"), (429, "3"), (201, "0")):
            keys.append((await talk.request())[1]["idempotency-key"])
            await talk.answer(status, ACK, Retry_After=wait)

    peer.scripts = [lost, busy]
    assert "e-1" == (await publisher.publish("c", EMPTY, key="mine")).id
    assert ["mine"] * 4 == keys
    assert [0.0, 2.0, 3.0] == delays


async def test_patience_ends(peer: Peer, publisher: Publisher) -> None:
    """After ten attempts the failure is raised."""

    async def lost(talk: Talk) -> None:
        await talk.request()

    peer.scripts = [lost] * 20
    with pytest.raises(Broken, match="the server closed the connection"):
        await publisher.publish("c", EMPTY)
    assert 8 == len(peer.scripts)  # ten attempts, a reconnect, and one look whether the server answers anything


@pytest.mark.parametrize("reached", [False, True])
async def test_unreachable(sleep: Sleep, reached: bool) -> None:
    """A server that was never there is not waited for; one that was, is."""
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b'HTTP/1.1 201 X\r\nConnection: close\r\nContent-Length: 34\r\n\r\n{"id":"e-1","durability":"memory"}'
        )
        writer.close()
        await writer.wait_closed()
        answered.set()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    server = Endpoint(ServerUrl("http", "127.0.0.1", listener.sockets[0].getsockname()[1], ""))
    slept = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise Refused("enough")

    publisher = Publisher(server, timing=Timing(), backoff=Backoff(rng=lambda: 0.0, sleep=pause))
    if reached:
        await publisher.publish("c", EMPTY)
        await answered.wait()
    listener.close()
    await listener.wait_closed()
    with pytest.raises(Refused if reached else Unreachable):
        await publisher.publish("c", EMPTY)
    assert (3 if reached else 0) == len(slept)


@pytest.mark.parametrize(
    "status, body, expected",
    [
        (403, {"error": {"code": "forbidden", "message": "not you"}}, "not you"),
        (405, b"<html>", "the server answers 405, but not as Oncecast: it is a proxy or another server"),
        (200, b"<html>", "the answer is not an acknowledgement: is this an Oncecast server?"),
    ],
)
async def test_refused(peer: Peer, publisher: Publisher, status: int, body: object, expected: str) -> None:
    """A refusal is raised and not repeated."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(status, body)

    peer.scripts = [script]
    with pytest.raises(Refused) as caught:
        await publisher.publish("c", EMPTY)
    assert (expected, 0) == (str(caught.value), peer.unexpected)


@pytest.mark.parametrize(
    "options",
    [{"channel": "a b"}, {"event": "a\nb"}, {"key": ""}, {"key": "a" * 256}, {"event": "gap"}, {"event": "\ud800"}],
)
async def test_what_can_not_be_sent(publisher: Publisher, options: dict[str, str]) -> None:
    """A name or key that would not stay in its place is refused before anything is sent."""
    with pytest.raises(Refused):
        await publisher.publish(options.pop("channel", "c"), EMPTY, **options)


# What a header can't carry ---------------------------------------------------------------------------------------

NAMES = ["order 7", "order  7", "✓", "é", "e\u0301", "日本", "a\tb"]


async def test_each_key_is_itself(real: Node) -> None:
    """Keys that differ in spaces or characters are different messages; each is once in the log."""
    publisher = Publisher(Endpoint(ServerUrl("http", "127.0.0.1", real.port, "")), timing=Timing())
    first = [(await publisher.publish("c", content_of(key), key=key)).id for key in NAMES]
    again = [(await publisher.publish("c", content_of("again"), key=key)).id for key in NAMES]
    assert len(NAMES) == len(set(first))
    assert first == again
    await publisher.close()


@pytest.mark.parametrize("many", [False, True])
async def test_each_event_arrives_as_it_was_given(real: Node, many: bool) -> None:
    """With its spaces, its characters, and the kind of its data, on its own and in a batch."""
    contents: list[Any] = [{"n": 1}, "text", b"\0\xff", None, [1.5]]
    async with AsyncClient(f"http://127.0.0.1:{real.port}") as client:
        if many:
            outcomes = await client.publish_many(Outgoing("c", each, event) for event in NAMES for each in contents)
            assert {Ack} == {type(outcome) for outcome in outcomes}
        else:
            for event in NAMES:
                for each in contents:
                    await client.publish("c", each, event=event)
        found = (await client.history("c")).messages
    assert [(event, each) for event in NAMES for each in contents] == [(m.event, m.data) for m in found]


async def test_a_refusal_of_a_line_is_raised(peer: Peer, publisher: Publisher) -> None:
    """A message that travels as a line is refused like any other."""

    async def script(talk: Talk) -> None:
        first, headers, body = await talk.request()
        assert ("POST /v1/publish", "application/x-ndjson") == (first, headers["content-type"])
        assert {"channel": "c", "data": "", "event": "✓", "key": "k0"} == json.loads(body)
        await talk.answer(200, b'{"error":{"code":"forbidden","message":"not you","docs":"/"}}\n')
        await talk.request()
        await talk.answer(200, b"<html>")
        await talk.hold()

    peer.scripts = [script]
    with pytest.raises(Refused, match="not you") as refused:
        await publisher.publish("c", EMPTY, event="✓")
    assert ("forbidden", 403) == (refused.value.code, refused.value.status)
    with pytest.raises(Refused, match="is this an Oncecast server"):
        await publisher.publish("c", EMPTY, event="✓")


# Many messages ---------------------------------------------------------------------------------------------------


def lines(body: bytes) -> list[dict[str, Any]]:
    """The lines of a batch."""
    return [json.loads(line) for line in body.splitlines()]


def acks(count: int, first: int = 1) -> bytes:
    """An answer that acknowledges each line."""
    return b"".join(b'{"id":"e-%d","durability":"memory"}\n' % n for n in range(first, first + count))


async def test_many(real: Node) -> None:
    """Ten thousand messages are published in order, each with an outcome; what is wrong leaves the others alone."""
    messages = [Outgoing("c", n) for n in range(5000)]
    wrong = [Outgoing("a b", 1), Outgoing("c", float("nan")), Outgoing("c", 1, "gap"), Outgoing("c", 1, None, "")]
    async with AsyncClient(f"http://127.0.0.1:{real.port}") as client:
        outcomes = await client.publish_many([*messages[:2500], *wrong, *messages[2500:], "x"])  # type: ignore[list-item]
        found = await client.history("c", limit=10_000)
        assert [] == await client.publish_many([])
    good = [outcome for outcome in outcomes if isinstance(outcome, Ack)]
    codes = [outcome.code for outcome in outcomes if isinstance(outcome, Refused)]
    assert ["channel_invalid", "data_invalid", "event_invalid", "key_invalid", "request_invalid"] == codes
    assert [True] * 2500 + [False] * 4 + [True] * 2500 + [False] == [isinstance(each, Ack) for each in outcomes]
    assert [(ack.id, n) for n, ack in enumerate(good)] == [(m.id, m.data) for m in found.messages]


async def test_batches_are_bounded(peer: Peer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """In lines and in bytes; a message that is larger than a batch goes alone."""
    monkeypatch.setattr(module, "BATCH_LINES", 3)
    monkeypatch.setattr(module, "BATCH_BYTES", 300)
    sizes = []

    async def script(talk: Talk) -> None:
        for _ in range(4):
            body = (await talk.request())[2]
            sizes.append(len(lines(body)))
            await talk.answer(200, acks(sizes[-1]))
        await talk.hold()

    peer.scripts = [script]
    small, large = Outgoing("c", "x"), Outgoing("c", "x" * 400)
    outcomes = await publisher.publish_many([small, small, small, small, large, small])
    assert ([3, 1, 1, 1], {Ack}) == (sizes, {type(each) for each in outcomes})


async def test_keys_are_kept_over_retries(peer: Peer, publisher: Publisher) -> None:
    """A lost answer repeats the whole batch with its keys; a line that may pass later is repeated alone."""
    seen = []

    async def lost(talk: Talk) -> None:
        seen.append([line["key"] for line in lines((await talk.request())[2])])

    async def script(talk: Talk) -> None:
        seen.append([line["key"] for line in lines((await talk.request())[2])])
        busy = b'{"error":{"code":"unavailable","message":"later"}}\n'
        gone = b'{"error":{"code":"novelty","message":"what"}}\n'
        await talk.answer(200, acks(1) + busy + gone)
        seen.append([line["key"] for line in lines((await talk.request())[2])])
        await talk.answer(200, acks(1, 2))
        await talk.hold()

    peer.scripts = [lost, script]
    outcomes = await publisher.publish_many([Outgoing("c", 1, key="mine"), Outgoing("c", 2), Outgoing("d", 3)])
    assert [["mine", "k0", "k1"], ["mine", "k0", "k1"], ["k0"]] == seen
    assert [Ack("e-1", "memory"), Ack("e-2", "memory")] == outcomes[:2]
    assert isinstance(outcomes[2], Refused)
    assert ("what", "novelty", None) == (str(outcomes[2]), outcomes[2].code, outcomes[2].status)


async def test_one_message_that_fails_does_not_block_the_others(peer: Peer, sleep: Sleep) -> None:
    """A line at which the connection breaks each time is found by halving, and given up; the others are published."""

    async def script(talk: Talk) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                first, _, body = await talk.request()
                if first.startswith("GET"):
                    await talk.answer(200, {"messages": [], "cursor": "e-1", "gap": None})
                elif b"poison" in body:
                    talk.writer.transport.abort()
                    return
                else:
                    await talk.answer(200, acks(len(lines(body))))

    peer.scripts = [script] * 200
    publisher = Publisher(peer.endpoint, timing=Timing(), backoff=Backoff(rng=lambda: 0.0, sleep=sleep), patience=None)
    data = ["a", "b", "poison", "c", "d"]
    outcomes = await publisher.publish_many([Outgoing("c", each) for each in data])
    assert [Ack, Ack, PublishFailed, Ack, Ack] == [type(each) for each in outcomes]
    await publisher.close()


async def test_a_batch_that_is_too_large_is_halved(peer: Peer, publisher: Publisher) -> None:
    """A server with smaller limits gets less at once; a message too large for it is refused alone."""

    async def script(talk: Talk) -> None:
        for _ in range(5):
            body = (await talk.request())[2]
            if len(body) > 150:
                await talk.answer(413, {"error": {"code": "body_too_large", "message": "too large"}})
            else:
                await talk.answer(200, acks(len(lines(body))))
        await talk.hold()

    peer.scripts = [script]
    data = ["a", "b", "x" * 200, "d"]
    outcomes = await publisher.publish_many([Outgoing("c", each) for each in data])
    assert [Ack, Ack, Refused, Ack] == [type(each) for each in outcomes]


async def test_a_refusal_of_all(peer: Peer, publisher: Publisher) -> None:
    """A refusal of a whole request is the outcome of each of its messages."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(403, {"error": {"code": "forbidden", "message": "not you"}})
        await talk.hold()

    peer.scripts = [script]
    outcomes = await publisher.publish_many([Outgoing("c", 1), Outgoing("c", 2)])
    assert ["not you", "not you"] == [str(each) for each in outcomes]


async def test_a_server_that_is_away_is_waited_for_once(
    peer: Peer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a batch that outlasted the patience each further one is tried once, until one gets through."""
    monkeypatch.setattr(module, "BATCH_LINES", 1)
    seen = []

    async def lost(talk: Talk) -> None:
        first, _, body = await talk.request()
        if first.startswith("POST"):
            seen.append(lines(body)[0]["data"])

    async def back(talk: Talk) -> None:
        for n in range(2):
            seen.append(lines((await talk.request())[2])[0]["data"])
            await talk.answer(200, acks(1, n + 1))
        await talk.hold()

    peer.scripts = [*[lost] * 13, back]
    outcomes = await publisher.publish_many([Outgoing("c", n) for n in range(4)])
    assert [Broken, Broken, Ack, Ack] == [type(each) for each in outcomes]
    assert [0] * 11 + [1, 2, 3] == seen


@pytest.mark.parametrize("answer", [b"", acks(1), acks(3), b'{"id":""}\n{"id":""}\n', b"{}\n{}\n", b"[1]\n[2]\n"])
async def test_what_acknowledges_no_batch(peer: Peer, publisher: Publisher, answer: bytes) -> None:
    """An answer has a line for each line, and says what became of it."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, answer)

    peer.scripts = [script]
    outcomes = await publisher.publish_many([Outgoing("c", 1), Outgoing("c", 2)])
    assert [Refused, Refused] == [type(each) for each in outcomes]


@pytest.mark.parametrize("end", ["serves", "refuses", "is another", "is away"])
async def test_whether_the_server_serves(peer: Peer, publisher: Publisher, end: str) -> None:
    """A page or a refusal of ours is an answer; a proxy's page, or nothing, is none."""
    answers: dict[str, tuple[int, object]] = {
        "serves": (200, {"messages": [], "cursor": "e-1"}),
        "refuses": (403, {"error": {"code": "forbidden", "message": "no"}}),
        "is another": (404, b"<html>"),
    }

    async def script(talk: Talk) -> None:
        assert "GET /v1/channels/c?after=latest&limit=1" == (await talk.request())[0]
        if end in answers:
            await talk.answer(*answers[end])

    peer.scripts = [script]
    publisher._channel = "c"
    assert (end in ("serves", "refuses")) is await publisher._serves()
