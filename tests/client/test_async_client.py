"""`AsyncClient` against a real server: subscriptions on one connection, publishing, tokens, refusals, notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

import oncecast
from oncecast import (
    AsyncClient,
    Broken,
    Gap,
    GapError,
    LinkState,
    Moved,
    Refused,
    StateChanged,
    Timing,
    TransportMemory,
    Unreachable,
    UsageError,
)
from oncecast.client.base import StartQuery
from oncecast.client.starts import start_of
from oncecast.client.transports import TRANSPORTS
from oncecast.server.connection import Connection
from oncecast.server.phases import STREAMING
from oncecast.server.server import Server
from oncecast.server.settings import Settings

from ..proof.obstacles import Kind, Obstacle, Obstacles

if TYPE_CHECKING:
    from tests.client.conftest import Items, Peer, Talk, Until

QUICK = Timing(interval=0.02, wait=0.5, attach=0.3, proof=0.3, probe=0.3, grace=0.05)


def url(server: Server | Obstacles | Peer) -> str:
    """Where a server is."""
    return f"http://127.0.0.1:{server.port}"


each_transport = pytest.mark.parametrize("transport", list(TRANSPORTS))


@each_transport
async def test_publish_and_subscribe(real: Server, items: Items, transport: str) -> None:
    """A message of each kind that is published after a subscription was entered is received once and in order."""
    async with (
        AsyncClient(url(real), transports=(transport,), timing=QUICK) as client,
        client.subscribe("a", "b") as messages,
    ):
        acks = [await client.publish(channel, data) for channel, data in [("a", {"t": 1}), ("b", "x"), ("a", b"\0")]]
        got = [await anext(messages) for _ in range(3)]
        assert [("a", {"t": 1}), ("b", "x"), ("a", b"\0")] == [(m.channel, m.data) for m in got]
        assert [ack.id for ack in acks] == [m.id for m in got]
        assert {"memory"} == {ack.durability for ack in acks}
        assert ("a", "b") == messages.channels
        assert {"a": acks[2].id, "b": acks[1].id}.keys() == messages.cursors.keys()


@each_transport
async def test_where_to_start(real: Server, items: Items, transport: str) -> None:
    """Each start is obeyed, per channel, also beside a subscription that runs."""
    async with AsyncClient(url(real), transports=(transport,), timing=QUICK) as client:
        acks = [await client.publish(channel, n) for n in range(3) for channel in ("a", "b", "c", "d", "e")]
        async with client.subscribe("x"):
            assert [0, 1, 2] == await items(client.subscribe("a", after="earliest"), 3)
            assert [1, 2] == await items(client.subscribe("b", after=acks[1].id), 2)
            assert [2, 2] == await items(client.subscribe("c", "d", last=1), 2)
            assert [0, 1, 2] == await items(client.subscribe("e", since=0), 3)


async def test_one_connection_for_many(real: Server, items: Items) -> None:
    """Subscriptions share one WebSocket, each channel with its place; ones that overlap have another."""
    async with AsyncClient(url(real)) as client, client.subscribe("a", "b") as first, client.subscribe("c") as second:
        assert 1 == len(real.app.connections)
        async with client.subscribe("b", after="earliest") as third:
            assert 2 == len(real.app.connections)
            for channel in ("a", "b", "c"):
                await client.publish(channel, channel)
            assert (["a", "b"], ["c"], ["b"]) == (await items(first, 2), await items(second, 1), await items(third, 1))


async def test_a_subscription_ends(real: Server, items: Items) -> None:
    """After `close` what has arrived is still handed out, then the iteration ends."""
    async with AsyncClient(url(real)) as client:
        states: list[StateChanged] = []
        client.on("state", states.append)
        async with client.subscribe("a") as messages:
            await client.publish("a", 1)
            await messages._feed.wait()
        assert [1] == [message.data async for message in messages]
        assert [] == [item async for item in messages.events()]
        async with client.subscribe("a", last=1) as messages:
            assert [1] == await items(messages, 1)
    with pytest.raises(UsageError, match="closed"):
        client.subscribe("a")
    with pytest.raises(UsageError, match="closed"):
        await client.publish("a", 1)
    await client.close()
    assert (LinkState.CONNECTING, LinkState.LISTENING) == (states[0].after, states[1].after)
    assert LinkState.CLOSED == states[-1].after


@each_transport
async def test_a_gap_is_sent(real: Server, transport: str) -> None:
    """A gap is called back, passed to the client's listeners, and stands among the events; messages go on after it."""
    listened: list[Gap] = []
    heard: list[Gap] = []
    async with AsyncClient(url(real), transports=(transport,), timing=QUICK) as client:
        client.on("gap", listened.append)
        await client.publish("a", 1)
        messages = client.subscribe("a", after="old-7")
        messages.on_gap = heard.append
        gap, message = [item async for item, _ in _take(messages.events(), 2)]
        assert isinstance(gap, Gap)
        assert ("epoch", 1) == (gap.reason, getattr(message, "data", None))
    assert [gap] == listened == heard


async def _take(events: Any, count: int) -> Any:
    async for item in events:
        yield item, count
        count -= 1
        if not count:
            return


@each_transport
async def test_a_slow_subscription_stops_no_other(real: Server, items: Items, until: Until, transport: str) -> None:
    """Past its buffer it leaves the connection, the others go on, and it misses nothing once it reads again."""
    async with (
        AsyncClient(url(real), transports=(transport,), timing=QUICK, buffer=4) as client,
        client.subscribe("slow") as slow,
        client.subscribe("quick") as quick,
    ):
        for n in range(30):
            await client.publish("slow", n)
        await client.publish("quick", "!")
        assert ["!"] == await items(quick, 1)
        assert list(range(30)) == await items(slow, 30)
        await client.publish("slow", "last")
        assert ["last"] == await items(slow, 1)


async def test_a_slow_subscription_alone_holds_the_server(real: Server, items: Items) -> None:
    """With no other subscription behind it, nothing is read until there is room."""
    async with (
        AsyncClient(url(real), timing=QUICK, buffer=2) as client,
        client.subscribe("slow") as slow,
    ):
        for n in range(20):
            await client.publish("slow", n)
        await asyncio.sleep(QUICK.grace * 2)
        assert list(range(20)) == await items(slow, 20)
        # The publisher's may have ended meanwhile, as it is kept for a time only.
        phases = [connection.phase for connection in real.app.connections if isinstance(connection, Connection)]
        assert 1 == phases.count(STREAMING)


async def test_no_server(real: Server) -> None:
    """A publish to where nothing listens raises at once; a subscription waits and says so."""
    await real.stop(0.1)
    async with AsyncClient(url(real)) as client:
        with pytest.raises(Unreachable):
            await client.publish("a", 1)
        waiting = asyncio.Event()
        client.on("state", lambda change: waiting.set() if change.after is LinkState.WAITING else None)
        client.subscribe("a")
        await waiting.wait()
        assert "websocket" == client.transport


async def test_a_server_that_comes_back(items: Items) -> None:
    """A restart on the same port is survived; the new life of the log is a gap."""
    first = Server(Settings(port=0))
    await first.start()
    async with AsyncClient(url(first), rng=lambda: 0.01) as client, client.subscribe("a") as messages:
        gaps: list[Gap] = []
        messages.on_gap = gaps.append
        await client.publish("a", 1)
        assert [1] == await items(messages, 1)
        await first.stop(0.1)
        second = Server(Settings(port=first.port))
        await second.start()
        await client.publish("a", 2)
        assert [2] == await items(messages, 1)
        assert ["epoch"] == [gap.reason for gap in gaps]
        await second.stop(0.1)


class Gate:
    """A peer's script that wants a token: it answers 401 without it."""

    def __init__(self, good: str) -> None:
        self.good = good
        self.seen: list[str] = []

    async def __call__(self, talk: Talk) -> None:
        """Answer one request after another."""
        while True:
            try:
                first, headers, _ = await talk.request()
            except asyncio.IncompleteReadError:
                return
            self.seen.append(headers.get("authorization", ""))
            if headers.get("authorization") != f"Bearer {self.good}":
                await talk.answer(401, {"error": {"code": "unauthorized", "message": "no"}})
            elif first.startswith("POST"):
                await talk.answer(201, {"id": "e-1", "durability": "memory"})
            else:
                message = {"id": "e-1", "channel": "a", "data": 1, "event": None, "time": 1.0}
                await talk.answer(200, {"messages": [message], "cursor": "e-1", "gap": None})


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_the_token_is_renewed_once(peer: Peer, transport: str, is_async: bool) -> None:
    """A 401 is answered with a fresh token; the second in a row is final and reported once."""
    tokens = ["old", "older", "oldest"]
    gate = Gate("new")
    peer.scripts = [gate] * 9

    async def coroutine() -> str:
        return tokens.pop(0)

    get_token: Callable[[], str | Awaitable[str]] = coroutine if is_async else lambda: tokens.pop(0)
    async with AsyncClient(url(peer), transports=(transport,), get_token=get_token) as client:
        with pytest.raises(Refused, match="no") as refused:
            await anext(client.subscribe("a"))
        assert "unauthorized" == refused.value.code
        assert ["Bearer old", "Bearer older"] == gate.seen
        with pytest.raises(Refused):
            await client.publish("a", 1)
        assert ["Bearer older", "Bearer oldest"] == gate.seen[2:]


async def test_a_renewed_token_works(peer: Peer, items: Items) -> None:
    """Listening and publishing go on with the new token."""
    tokens = ["old", "new"]
    gate = Gate("new")
    peer.scripts = [gate] * 9
    async with AsyncClient(url(peer), transports=("short-poll",), get_token=lambda: tokens.pop(0)) as client:
        assert [1] == await items(client.subscribe("a"), 1)
        assert "e-1" == (await client.publish("a", 1)).id
    assert [] == tokens


@pytest.mark.parametrize("token", ["", "a b", "é", RuntimeError("away")])
async def test_no_token_to_be_had(peer: Peer, token: str | Exception) -> None:
    """A token service that is away, or talks nonsense, is asked again later."""
    waiting = asyncio.Event()
    reasons = []

    def get_token() -> str:
        if isinstance(token, Exception):
            raise token
        return token

    def heard(change: StateChanged) -> None:
        if change.after is LinkState.WAITING:
            reasons.append(change.reason)
            waiting.set()

    async with AsyncClient(url(peer), get_token=get_token) as client:
        client.on("state", heard)
        client.subscribe("a")
        await waiting.wait()
    assert reasons[0].startswith("get_token ")


async def test_one_refused_among_several(items: Items) -> None:
    """A channel that is refused ends its own subscription; the others on the connection go on."""
    for transport in TRANSPORTS:
        server = Server(Settings(port=0))
        await server.start()
        async with AsyncClient(url(server), transports=(transport,), timing=QUICK) as client:
            async with client.subscribe("good") as good:
                refused = client.subscribe("bad", after="malformed")
                with pytest.raises(Refused):
                    await anext(refused)
                await client.publish("good", 1)
                assert [1] == await items(good, 1)
            with pytest.raises(Refused):
                async with client.subscribe("bad", after="malformed"):
                    raise AssertionError("it was entered")
        await server.stop(0.1)


async def test_falls_back_and_comes_back(real: Server, items: Items, until: Until) -> None:
    """Where WebSocket is refused it listens otherwise; once the way is open it goes up again, mid-stream."""
    rules = {Kind.WEBSOCKET: Obstacle(status=403), Kind.SSE: Obstacle(silent=True)}
    moves: list[Moved] = []
    memory = TransportMemory(asyncio.get_running_loop().time)
    async with (
        Obstacles(("127.0.0.1", real.port), rules) as proxy,
        AsyncClient(url(proxy), timing=QUICK, memory=memory) as client,
    ):
        client.on("transport", moves.append)
        client.on("transport", lambda move: 1 / 0)  # it is logged, and nothing else suffers
        async with client.subscribe("a", "b") as messages, client.subscribe("c") as other:
            assert "long-poll" == client.transport
            assert "long-poll" == memory.get(url(proxy))
            async with AsyncClient(url(proxy), memory=memory) as second:
                assert "long-poll" == second.transport
            await client.publish("a", 1)
            await client.publish("c", 1)
            proxy.unblock()
            await until(lambda: client.transport == "websocket")
            await client.publish("b", 2)
            assert ([1, 2], [1]) == (await items(messages, 2), await items(other, 1))
    assert [("websocket", "sse"), ("sse", "long-poll")] == [(move.before, move.after) for move in moves[:2]]
    assert "websocket" == moves[-1].after


async def test_the_last_transport_is_final(real: Server) -> None:
    """Where no transport gets through, the subscription ends with the reason."""
    rules = {kind: Obstacle(status=403) for kind in Kind}
    async with Obstacles(("127.0.0.1", real.port), rules) as proxy, AsyncClient(url(proxy)) as client:
        with pytest.raises(Refused, match="the server answers 403"):
            await anext(client.subscribe("a"))


def test_what_is_wrong_is_said_at_once() -> None:
    """Options, channels and starts that are none are refused before anything is connected."""
    for names in ((), ("pigeon",), ("sse", "sse")):
        with pytest.raises(UsageError, match="transports"):
            AsyncClient("http://h", transports=names)
    with pytest.raises(UsageError, match="buffer"):
        AsyncClient("http://h", buffer=0)
    with pytest.raises(UsageError, match="is not a server's URL"):
        AsyncClient("h")
    client = AsyncClient("http://h")
    with pytest.raises(UsageError, match="no kind of notice"):
        client.on("weather", print)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a channel"):
        client.subscribe()
    with pytest.raises(Refused, match="not a channel name"):
        client.subscribe("a b")
    with pytest.raises(UsageError, match="one of"):
        client.subscribe("a", last=1, since=2)
    with pytest.raises(UsageError, match="below 0"):
        client.subscribe("a", last=-1)
    with pytest.raises(UsageError, match="Unix seconds"):
        client.subscribe("a", since=float("nan"))
    with pytest.raises(UsageError, match="not a cursor"):
        client.subscribe("a", after="a b")
    assert [StartQuery("since", "1.500"), StartQuery("last", "2"), StartQuery("after", "latest")] == [
        start_of(None, None, 1.5),
        start_of(None, 2, None),
        start_of(None, None, None),
    ]


async def test_what_is_not_json() -> None:
    """Data that JSON can't say is refused."""
    with pytest.raises(Refused, match=r"at \$, JSON has no object") as refused:
        await AsyncClient("http://h").publish("a", object())
    assert ("data_invalid", 400) == (refused.value.code, refused.value.status)


async def test_debug_says_what_happens(
    real: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In debug mode the log tells each step in plain words, on a handler of its own where logging is not set up."""
    logger = logging.getLogger("oncecast.client")
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    async with AsyncClient(url(real), debug=True) as client, client.subscribe("a"):
        pass
    assert f"{url(real)}: listening over websocket" in caplog.messages
    assert [] == logger.handlers
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    AsyncClient(url(real), debug=True)
    assert 1 == len(logger.handlers)


@each_transport
async def test_a_gap_beside_others(real: Server, items: Items, transport: str) -> None:
    """A subscription that joins others with a place of another life gets its gap, and reads on; so do they."""
    async with (
        AsyncClient(url(real), transports=(transport,), timing=QUICK) as client,
        client.subscribe("x") as other,
    ):
        await client.publish("a", 1)
        async with client.subscribe("a", "b", after="old-7") as messages:
            found = [item async for item, _ in _take(messages.events(), 3)]
            kinds = sorted(item.reason if isinstance(item, Gap) else str(item.data) for item in found)
            assert ["1", "epoch", "epoch"] == kinds
            await client.publish("b", 2)
            await client.publish("x", 3)
            assert ([2], [3]) == (await items(messages, 1), await items(other, 1))


async def test_a_renewed_token_beside_others(peer: Peer, items: Items) -> None:
    """Another subscription, on another connection, renews the token like the first."""
    tokens = ["new", "old", "new"]
    peer.scripts = [Gate("new")] * 99
    async with AsyncClient(url(peer), transports=("short-poll",), get_token=lambda: tokens.pop(0)) as client:
        assert [1] == await items(client.subscribe("a"), 1)
        client._credentials.expire()
        assert [1] == await items(client.subscribe("a", "b"), 1)


@pytest.mark.parametrize("bad", [lambda: None, lambda: 5, lambda: 1 / 0])
async def test_a_token_function_that_fails_once_hangs_nothing(
    real: Server, items: Items, until: Until, bad: Callable[[], Any]
) -> None:
    """Once it returns a token, the subscription that waited and the next one are served."""
    functions = [bad]
    waiting: list[StateChanged] = []

    def get_token() -> str:
        return functions.pop()() if functions else "good"

    async with AsyncClient(url(real), get_token=get_token, rng=lambda: 0.01) as client:
        client.on("state", lambda change: waiting.append(change) if change.after is LinkState.WAITING else None)
        first = client.subscribe("a", after="earliest")
        await until(lambda: bool(waiting))
        await client.publish("a", 1)
        assert [1] == await items(first, 1)
        assert [1] == await items(client.subscribe("a", last=1), 1)
    assert waiting[0].reason.startswith("get_token ")


async def test_the_gap_of_the_package_is_the_gap_that_comes(real: Server, caplog: pytest.LogCaptureFixture) -> None:
    """`isinstance(item, oncecast.Gap)` is true of a gap; and without anything asked for it is a warning."""
    async with AsyncClient(url(real)) as client:
        await client.publish("a", 1)
        messages = client.subscribe("a", after="old-7")
        assert 1 == (await anext(messages)).data
        assert ["WARNING"] == [record.levelname for record in caplog.records]
        assert 1 == messages.gap_count
        assert isinstance(messages.last_gap, oncecast.Gap)
        item = await anext(client.subscribe("a", after="old-7").events())
        assert isinstance(item, oncecast.Gap)
        strict = client.subscribe("a", after="old-7", on_gap="raise")
        with pytest.raises(GapError):
            await anext(strict)
        client.on("gap", lambda gap: None)
        assert 1 == (await anext(client.subscribe("a", after="old-7"))).data
    assert 1 == len(caplog.records)


async def test_off(real: Server) -> None:
    """`on` returns what takes the callback off again, once."""
    states: list[StateChanged] = []
    async with AsyncClient(url(real)) as client:
        offs = [client.on("state", states.append) for _ in range(2)]
        for off in offs:
            off()
        async with client.subscribe("a"):
            pass
    assert [] == states
    with pytest.raises(UsageError, match="called and not awaited"):
        client.on("state", asyncio.sleep)
    with pytest.raises(UsageError, match="callback: give a function"):
        client.on("state", None)  # type: ignore[arg-type]


async def test_one_channel_or_several(real: Server) -> None:
    """Names and lists of names."""
    async with AsyncClient(f"{url(real)}/v1") as client:
        assert url(real) == client.url
        assert ("a", "b", "c") == client.subscribe(["a", "b"], "c").channels


@pytest.mark.parametrize("start", [{"last": 2}, {"after": "earliest"}])
@each_transport
async def test_last_is_of_each_channel(real: Server, items: Items, transport: str, start: dict[str, Any]) -> None:
    """`last=2` over two channels is two messages of each, on every transport."""
    async with AsyncClient(url(real), transports=(transport,), timing=QUICK) as client:
        for number in range(2 if "after" in start else 5):
            for channel in ("a", "b"):
                await client.publish(channel, f"{channel}{number}")
        messages = client.subscribe("a", "b", **start)
        found = await items(messages, 4)
        await client.publish("a", "end")
        assert ["end"] == await items(messages, 1)
    wanted = ["a0", "a1", "b0", "b1"] if "after" in start else ["a3", "a4", "b3", "b4"]
    assert wanted == sorted(found)


async def test_closing_ends_requests_under_way(peer: Peer, until: Until) -> None:
    """A publish that waits says that the client was closed, and nothing is left of it."""
    asked = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        asked.set()
        await talk.hold()

    peer.scripts = [script]
    before = len(asyncio.all_tasks())
    client = AsyncClient(url(peer))
    publishing = asyncio.create_task(client.publish("a", 1))
    await asked.wait()
    await client.close()
    with pytest.raises(Broken, match="the client was closed"):
        await publishing
    await peer.finish()
    await until(lambda: len(asyncio.all_tasks()) == before)


async def test_a_publish_that_is_cancelled(peer: Peer) -> None:
    """The caller's own cancellation stays one."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.hold()

    peer.scripts = [script]
    async with AsyncClient(url(peer)) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.publish("a", 1)


def test_the_wrong_loop() -> None:
    """A client belongs to the loop that it was first used on; without any it says what is missing."""
    client = AsyncClient("http://127.0.0.1:1")
    with pytest.raises(UsageError, match="call it from a coroutine"):
        client.subscribe("a")

    async def publish() -> None:
        with contextlib.suppress(Unreachable):
            await client.publish("a", 1)

    asyncio.run(publish())
    with pytest.raises(UsageError, match="belongs to one event loop"):
        asyncio.run(publish())


async def test_many_long_names_are_not_on_one_connection(real: Server) -> None:
    """The names of a connection fit the URL of a poll, so that a fallback ends nothing."""
    names = [str(n).ljust(128, "x") for n in range(64)]
    async with AsyncClient(url(real), transports=("short-poll",), timing=QUICK) as client:
        for name in names:
            async with asyncio.timeout(10):
                await client.subscribe(name).__aenter__()
        assert [46, 18] == [len(link.channels) for link in client._links]


@pytest.mark.parametrize(
    "options",
    [
        {"buffer": 0},
        {"buffer": 10**9},
        {"buffer": True},
        {"buffer": 1.5},
        {"patience": -1},
        {"patience": float("nan")},
        {"patience": float("inf")},
        {"patience": True},
        {"proxy": "p:1"},
        {"headers": {"Host": "x"}},
        {"get_token": "t"},
    ],
)
def test_absurd_options(options: dict[str, Any]) -> None:
    """An absurd option is refused by name when the client is made."""
    with pytest.raises(UsageError, match=next(iter(options))):
        AsyncClient("http://h", **options)
