"""The fixture and the application's own `Oncecast`: FastAPI in a thread, on the test's loop, and without a loop."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from oncecast import Caller, Grant, Oncecast, UsageError
from oncecast.server.settings import RetentionSettings, Settings
from oncecast.testing.app import OncecastFixture

with warnings.catch_warnings():  # it prefers httpx2
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

cast = Oncecast("sqlite:///never-opened.db", subscribe="public", publish="public")
app = FastAPI(lifespan=cast.lifespan)
app.mount("/rt", cast)


@app.post("/orders")
async def order(order: dict[str, Any]) -> None:
    """Announce an order."""
    await cast.publish("orders", order)


@app.post("/later")
async def later(order: dict[str, Any]) -> None:
    """Announce an order from a thread."""
    threading.Thread(target=cast.publish_sync, args=("orders", order)).start()


@app.get("/events", response_model=None)
async def events(request: Request) -> Any:
    """Stream the orders."""
    return cast.stream("orders", request)


@pytest.fixture
def oncecast_app() -> Oncecast:
    """The application's."""
    return cast


@pytest.fixture
def client(oncecast: OncecastFixture) -> Iterator[TestClient]:
    """A client of the application, which runs in a thread."""
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("again", range(2))
def test_what_the_application_publishes(oncecast: OncecastFixture, client: TestClient, again: int) -> None:
    """The listeners have what the application publishes when its request is answered; the next test has its own log."""
    listener = oncecast.subscribe("orders", after="earliest")
    client.post("/orders", json={"id": again})
    assert [{"id": again}] == listener.data
    oncecast.assert_delivered("orders", {"id": again})


def test_what_a_thread_publishes_later(oncecast: OncecastFixture, client: TestClient) -> None:
    """`wait` returns once the message has arrived."""
    listener = oncecast.subscribe("orders")
    client.post("/later", json={"id": 1})
    assert [{"id": 1}] == [message.data for message in listener.wait(seconds=60)]


def test_what_clients_publish_and_poll(oncecast: OncecastFixture, client: TestClient) -> None:
    """The routes below the mount work, on the same log as the listeners."""
    listener = oncecast.subscribe("news")
    answer = client.post("/rt/v1/channels/news", json={"t": 1})
    assert 201 == answer.status_code
    oncecast.publish("news", {"t": 2})
    assert [{"t": 1}, {"t": 2}] == listener.data
    messages = client.get("/rt/v1/channels/news").json()["messages"]
    assert [{"t": 1}, {"t": 2}] == [message["data"] for message in messages]


@pytest.mark.parametrize("path", ["/events", "/rt/v1/channels/orders"])
def test_an_endless_stream_in_a_plain_test(oncecast: OncecastFixture, client: TestClient, path: str) -> None:
    """A plain test reads an endless stream event by event, resumes by its id, and ends it without hanging."""
    with oncecast.stream(client, path) as stream:
        assert (200, "text/event-stream") == (stream.status_code, stream.headers["content-type"].partition(";")[0])
        client.post("/orders", json={"id": 1})
        oncecast.publish("orders", {"id": 2})
        first, second = stream.next(60), stream.next(60)
        assert ['{"id":1}', '{"id":2}'] == [first.data, second.data]
    oncecast.publish("orders", {"id": 3})
    with oncecast.stream(client, path, headers={"Last-Event-ID": first.id}) as stream:
        assert ['{"id":2}', '{"id":3}'] == [stream.next(60).data, stream.next(60).data]


def test_a_stream_is_dropped(oncecast: OncecastFixture, client: TestClient) -> None:
    """The network fails for the application's clients too."""
    with oncecast.stream(client, "/events") as stream:
        oncecast.drop()
        assert [] == list(stream)
        with pytest.raises(EOFError, match="the stream has ended"):
            stream.next()


def test_time_passes_in_the_application(oncecast: OncecastFixture, client: TestClient) -> None:
    """Heartbeats come as if seconds had passed, and old messages are trimmed there as in the test."""
    with oncecast.stream(client, "/events") as stream:
        assert b"retry: " in stream.read(60)
        oncecast.advance(16)
        assert stream.read(60).startswith(b": keep-alive\n")
    oncecast.publish("orders", 1)
    oncecast.advance(3601)
    assert [] == client.get("/rt/v1/channels/orders").json()["messages"]
    assert [] == oncecast.subscribe("orders", after="earliest").data


def test_an_application_that_starts_late_has_what_was_published(oncecast: OncecastFixture) -> None:
    """Each application of a test has the test's log, whenever it starts and on whichever loop."""
    other = Oncecast(subscribe="public")
    oncecast.use(other)
    oncecast.publish("orders", 1)
    with TestClient(app) as one, TestClient(other) as two:
        one.post("/orders", json=2)
        one.post("/orders", json={"id": 2})
        for client, path in ((one, "/rt/v1/channels/orders"), (two, "/v1/channels/orders")):
            with oncecast.stream(client, f"{path}?after=earliest") as stream:
                assert ["1", '{"id":2}'] == [stream.next(60).data, stream.next(60).data]


async def test_on_the_loop_of_the_test(oncecast: OncecastFixture) -> None:
    """httpx streams from the application, whose loop is the test's."""
    async with httpx.AsyncClient(transport=oncecast.transport(app), base_url="http://app.example") as client:
        listener = oncecast.subscribe("orders")
        async with client.stream("GET", "/events") as answer:
            lines = answer.aiter_lines()
            await client.post("/orders", json={"id": 1})
            while (await anext(lines)) != 'data: {"id":1}':
                pass
            oncecast.advance(16)
            assert ["", ": keep-alive"] == [await anext(lines) for _ in range(2)]
    assert [{"id": 1}] == listener.data
    async with cast.subscribe("orders", after="earliest") as messages:
        assert {"id": 1} == (await anext(messages)).data


def test_without_a_loop(oncecast: OncecastFixture, caplog: pytest.LogCaptureFixture) -> None:
    """`publish_sync` of a Flask or Django application: a thread of its own, which ends with the test."""
    listener = oncecast.subscribe("orders")
    oncecast.use(in_memory := Oncecast())
    cast.publish_sync("orders", 1)
    oncecast.advance(2)
    in_memory.publish_sync("orders", 2)
    assert [1, 2] == listener.data
    assert [] == caplog.messages


def test_a_grant_ends(oncecast: OncecastFixture) -> None:
    """A grant of `authorize` for a minute ends a minute later."""
    guarded = Oncecast()

    @guarded.authorize
    def who(caller: Caller) -> Grant:
        return Grant("mia", subscribe="orders", expires=oncecast.clock.wall() + 60)

    oncecast.use(guarded)
    with TestClient(guarded) as client, oncecast.stream(client, "/v1/channels/orders") as stream:
        oncecast.publish("orders", 1)
        assert "1" == stream.next(60).data
        oncecast.advance(61)
        found = list(stream)
    assert "error" == found[-1].event


def test_the_retention_is_that_of_the_application() -> None:
    """A later listener gets a gap, and the messages that the application's settings keep."""
    fixture = OncecastFixture()
    fixture.use(Oncecast(settings=Settings(retention=RetentionSettings(messages=2))))
    listener = fixture.subscribe("orders")
    listener.drop()
    for number in range(4):
        fixture.publish("orders", number)
    listener.resume()
    assert ([2, 3], 1) == (listener.data, len(listener.gaps))
    fixture.close()


def test_what_is_in_the_way(oncecast: OncecastFixture) -> None:
    """An Oncecast that runs already is refused, as is what is none, and a client that has no loop."""
    with TestClient(other := Oncecast()), pytest.raises(UsageError, match="runs already"):
        oncecast.use(other)
    with pytest.raises(UsageError, match="not FastAPI"):
        oncecast.use(app)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="with TestClient"):
        oncecast.stream(TestClient(app), "/events")


def test_it_is_given_back() -> None:
    """After the test the application has its own broker again, and runs nothing."""
    fixture = OncecastFixture()
    fixture.use(cast)
    cast.publish_sync("orders", 1)
    assert 1 == len(cast.lives())
    fixture.close()
    assert ([], None, []) == (cast.lives(), cast.surroundings, fixture.log.attached)
    assert "oncecast" not in {thread.name for thread in threading.enumerate()}
