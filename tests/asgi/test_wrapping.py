"""The lifespan, an application beside the realtime routes, and the signals of the server around."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

import pytest

from oncecast import EventAnswer, Oncecast
from oncecast.asgi.running import Running
from oncecast.asgi.stopping import StopSignals, watch_hypercorn
from tests.asgi.conftest import SECONDS
from tests.asgi.peers import HandPeer, http_scope

LIFESPAN: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}}


def running(cast: Oncecast) -> bool:
    """Return whether it has started."""
    return cast._life is not None


async def test_the_lifespan_of_a_server() -> None:
    """Alone under a server it starts and stops with it, and reports a start that fails."""
    cast = Oncecast("memory://")
    peer = HandPeer(cast, LIFESPAN)
    await peer.__aenter__()
    peer.say({"type": "lifespan.startup"})
    assert "lifespan.startup.complete" == (await peer.next())["type"]
    assert running(cast)
    peer.say({"type": "lifespan.shutdown"})
    assert "lifespan.shutdown.complete" == (await peer.next())["type"]
    await peer.ended()
    assert not running(cast)
    peer = HandPeer(Oncecast("sqlite:////nowhere/at/all.db"), LIFESPAN)
    await peer.__aenter__()
    peer.say({"type": "lifespan.startup"})
    failed = await peer.next()
    assert "lifespan.startup.failed" == failed["type"]
    assert "nowhere" in failed["message"]
    await peer.ended()


async def lives(scope: Any, receive: Any, send: Any) -> None:
    """An application with a lifespan, and one page."""
    if scope["type"] != "lifespan":
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
        return
    for name in ("startup", "shutdown"):
        assert f"lifespan.{name}" == (await receive())["type"]
        await send({"type": f"lifespan.{name}.complete"})


async def lifeless(scope: Any, receive: Any, send: Any) -> None:
    """One without, as Django's."""
    if scope["type"] == "lifespan":
        raise ValueError("only HTTP")
    await lives(scope, receive, send)


@pytest.mark.parametrize("app", [lives, lifeless])
async def test_an_application_beside_it(app: Any) -> None:
    """Each application has its paths, and both run in the lifespan, even if one ignores it."""
    cast = Oncecast("memory://")
    both = cast.beside(app, "/rt")
    life = HandPeer(both, LIFESPAN)
    await life.__aenter__()
    life.say({"type": "lifespan.startup"})
    assert "lifespan.startup.complete" == (await life.next())["type"]
    assert running(cast)
    for path, root, status in (
        ("/rt/healthz", "", 200),
        ("/rt", "", 200),
        ("/api/rt/healthz", "/api", 200),
        ("/rt/healthz", "/api", 200),
        ("/rtx", "", 299),
        ("/", "", 299),
    ):
        async with HandPeer(both, http_scope(path, root_path=root)) as peer:
            assert status == (await peer.next())["status"], path
    life.say({"type": "lifespan.shutdown"})
    assert "lifespan.shutdown.complete" == (await life.next())["type"]
    await life.ended()
    assert not running(cast)


async def test_an_application_that_fails_in_its_lifespan_stops_both() -> None:
    """The server gets the application's error."""

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    cast = Oncecast("memory://")
    life = HandPeer(cast.beside(fails), LIFESPAN)
    await life.__aenter__()
    life.say({"type": "lifespan.startup"})
    with pytest.raises(RuntimeError, match="no database"):
        await life.ended()
    assert not running(cast)


# Signals


def test_a_handler_that_was_there_is_called_as_before() -> None:
    """Ours calls `stop`, then the handler. `ignore` restores it, and leaves a newer handler."""
    called: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append("server"))
    try:
        signals = StopSignals(lambda: called.append("ours"))
        signals.listen()
        signal.raise_signal(signal.SIGTERM)
        assert ["ours", "server"] == called
        signals.ignore()
        signal.raise_signal(signal.SIGTERM)
        assert ["ours", "server", "server"] == called
        signals.listen()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.ignore()
        assert signal.SIG_IGN == signal.getsignal(signal.SIGTERM)
        StopSignals(lambda: called.append("none")).listen()
        assert signal.SIG_IGN == signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_server_that_stops_without_a_signal() -> None:
    """uvicorn has reasons of its own to stop; its server is the owner of the handler that was there."""

    class Server:
        should_exit = False

        def handle_exit(self, number: int, frame: object) -> None:
            """Do nothing."""

    server = Server()
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        cast = Oncecast("memory://", dev=True)
        async with cast, HandPeer(cast, http_scope("/v1/channels/a", ("accept", "text/event-stream"))) as peer:
            await peer.until(b"id:")
            server.should_exit = True
            await peer.until(b"retry: 1000")
            await peer.ended()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_change_no_handlers() -> None:
    """Python sets them in the main thread only."""
    before = signal.getsignal(signal.SIGINT)
    signals = StopSignals(lambda: None)
    for call in (signals.listen, signals.ignore):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(SECONDS)
    assert before is signal.getsignal(signal.SIGINT)


async def test_the_signal_ends_streams() -> None:
    """At SIGTERM they end, and the server's own handler is called."""
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        cast = Oncecast("memory://", dev=True)
        async with cast, HandPeer(cast, http_scope("/v1/channels/a", ("accept", "text/event-stream"))) as peer:
            await peer.until(b"id:")
            signal.raise_signal(signal.SIGTERM)
            await peer.until(b"retry: 1000")
            await peer.ended()
        assert [signal.SIGTERM] == called
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_hypercorn_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` is called when the task that waits for hypercorn's shutdown ends."""
    stopped = asyncio.Event()
    go = asyncio.Event()

    async def raise_shutdown() -> None:
        await go.wait()

    raise_shutdown.__qualname__ = "raise_shutdown"
    task = asyncio.create_task(raise_shutdown())
    monkeypatch.setitem(sys.modules, "hypercorn", sys)
    await asyncio.sleep(0)
    watch_hypercorn(stopped.set)
    assert not stopped.is_set()
    go.set()
    async with asyncio.timeout(SECONDS):
        await stopped.wait()
    await task


# Streams in a route


async def test_a_stream_without_starlette(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Starlette is not loaded the answer is an ASGI application all the same, with its headers as a mapping."""
    monkeypatch.delitem(sys.modules, "starlette.responses", raising=False)
    async with Oncecast("memory://") as cast:
        answer = cast.stream("a", http_scope("/"), envelope=True)
        assert type(answer) is EventAnswer
        assert "text/event-stream" == answer.headers["Content-Type"]
        async with HandPeer(answer, http_scope("/")) as peer:
            assert 200 == (await peer.next())["status"]
            await peer.until(b"id:")
            await cast.publish("a", 1)
            assert b'"channel":"a"' in await peer.until(b"data:")


async def test_a_stream_refuses_what_can_not_be() -> None:
    """An invalid cursor is answered with an error or an `error` event, and nothing is left in the hub."""
    async with Oncecast("memory://") as cast:
        request = http_scope("/", ("last-event-id", "nonsense"))
        async with HandPeer(cast.stream("a", request), request) as peer:
            assert 400 == (await peer.next())["status"]
        pieces = [piece async for piece in cast.stream("a", request).blocks()]
        assert 1 == len(pieces)
        assert b"cursor_invalid" in pieces[0]


async def test_blocks_resume_and_end() -> None:
    """The pieces begin after Last-Event-ID; closing them leaves the hub; a stop ends them."""
    async with Oncecast("memory://") as cast:
        assert cast._life is not None
        ids = [(await cast.publish("a", number)).id for number in range(3)]
        blocks = cast.stream("a", http_scope("/", ("last-event-id", ids[0])), after="earliest").blocks()
        text = b""
        while b"data: 2" not in text:
            text += await anext(blocks)
        assert b"data: 0" not in text
        await blocks.aclose()  # type: ignore[attr-defined]
        assert 0 == cast._life.node.hub.subscriptions
        rest = cast.stream(["a", "b"], http_scope("/"), last=1).blocks()
        await anext(rest)
        cast.drain()
        assert b"retry: 1000" in b"".join([piece async for piece in rest])


async def test_new_keys_leave_the_streams_of_routes_open() -> None:
    """The route has decided who may listen, so the settings' rules end neither kind of answer."""
    async with Oncecast("memory://", subscribe="token") as cast:
        life = cast._life
        assert isinstance(life, Running)
        blocks = cast.stream("a", http_scope("/")).blocks()
        async with HandPeer(cast.stream("a", http_scope("/")), http_scope("/")) as peer:
            await peer.until(b"id:")
            assert b"id:" in await anext(blocks)
            life._adopt()  # as when the issuer of tokens has other keys
            life.look()
            await cast.publish("a", 1)
            await peer.until(b"data: 1")
            assert b"data: 1" in await anext(blocks)
        await blocks.aclose()  # type: ignore[attr-defined]


async def test_head_of_a_stream_ends() -> None:
    """Frameworks ask a route for GET when HEAD is meant: its answer has the stream's headers and no body."""
    async with Oncecast("memory://") as cast:
        scope = http_scope("/", method="HEAD")
        async with HandPeer(cast.stream("a", scope), scope) as peer:
            assert 200 == (await peer.next())["status"]
            assert (b"", False) == ((last := await peer.next())["body"], last["more_body"])
            await peer.ended()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_several_any_may_stop_first(order: tuple[int, ...]) -> None:
    """The server's handler is called whichever of two has ended, and when both have."""
    called: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append("server"))
    try:
        both = [StopSignals(lambda: None), StopSignals(lambda: None)]
        for signals in both:
            signals.listen()
        for count, number in enumerate(order, 1):
            both[number].ignore()
            signal.raise_signal(signal.SIGTERM)
            assert count == len(called)
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_start_that_fails_beside_an_application_is_said() -> None:
    """The start fails, and does not wait for an application that has not got its event."""
    life = HandPeer(Oncecast("sqlite:////nowhere/at/all.db").beside(lives), LIFESPAN)
    await life.__aenter__()
    life.say({"type": "lifespan.startup"})
    failed = await life.next()
    assert ("lifespan.startup.failed", True) == (failed["type"], "nowhere" in failed["message"])
    await life.ended()
    assert 0 == life.waiting
