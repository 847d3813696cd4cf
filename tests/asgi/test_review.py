"""What the application says to what clients publish: accept, change, refuse, in order, and never by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest

from oncecast import Oncecast, Publication, Refused
from oncecast.asgi import review
from oncecast.message import Kind
from tests.asgi.conftest import SECONDS
from tests.asgi.peers import HandPeer, http_scope, socket_scope

CHANNEL = "/v1/channels/chat.a"


def casting(check: Any, pattern: str = "chat.*", **more: Any) -> Oncecast:
    """Return an `Oncecast` that asks a function about messages."""
    cast = Oncecast("memory://", dev=True, **more)
    cast.on_publish(pattern)(check)
    return cast


def http(cast: Oncecast) -> httpx.AsyncClient:
    """Return a client of the application, without a server."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(cast), base_url="http://app.example")


def from_address(cast: Oncecast, address: str) -> httpx.AsyncClient:
    """Return a client of the application that has this address."""
    transport = httpx.ASGITransport(cast, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://app.example")


async def changes(publication: Publication) -> None:
    """Change the data and the event."""
    publication.data = {"was": publication.data}
    publication.event = "changed"


async def fails(publication: Publication) -> None:
    """Fail."""
    raise KeyError("x")


async def is_slow(publication: Publication) -> None:
    """Take too long."""
    await asyncio.sleep(3600)


async def is_cancelled(publication: Publication) -> None:
    """Await something that was cancelled."""
    raise asyncio.CancelledError


async def sets_no_data(publication: Publication) -> None:
    """Change it to what JSON has not."""
    publication.data = {1}


async def sets_no_event(publication: Publication) -> None:
    """Change it to what no event can be."""
    publication.event = "two\nlines"


async def refuses(publication: Publication) -> None:
    """Refuse."""
    raise Refused("Not here.", code="forbidden")


async def grows(publication: Publication) -> None:
    """Make it larger than a message may be."""
    publication.data = "x" * 2_000_000


@pytest.mark.parametrize(
    "check, status, part",
    [
        (changes, 201, "id"),
        (lambda publication: None, 201, "id"),
        (lambda publication: True, 201, "id"),
        (lambda publication: False, 403, "does not take"),
        (lambda publication: "changed?", 500, "its log"),
        (fails, 500, "its log"),
        (is_slow, 503, "in time"),
        (is_cancelled, 500, "its log"),
        (sets_no_data, 500, "its log"),
        (sets_no_event, 500, "its log"),
        (refuses, 403, "Not here."),
        (grows, 413, "at most"),
    ],
)
async def test_what_is_said_is_done(check: Any, status: int, part: str) -> None:
    """A message is published only after its function has returned."""
    cast = casting(check, handler_seconds=0.2)
    async with cast, http(cast) as client:
        answer = await client.post(CHANNEL, json=1)
        assert status == answer.status_code
        assert part in answer.text
        messages = (await client.get(CHANNEL)).json()["messages"]
        assert (1 if status == 201 else 0) == len(messages)
        if check is changes:
            assert ({"was": 1}, "changed") == (messages[0]["data"], messages[0]["event"])


async def test_what_is_accepted_is_unchanged() -> None:
    """Without a change the data is what came, digit for digit; the function sees all of it."""
    seen: list[Publication] = []
    cast = casting(lambda publication: seen.append(publication))
    async with cast, http(cast) as client:
        headers = {"content-type": "application/json", "oncecast-event": "e", "idempotency-key": "k"}
        await client.post(CHANNEL, content=b'{"a": 1.10}', headers=headers)
        await client.post(CHANNEL, content=b"\xff", headers={"content-type": "application/octet-stream"})
        await client.post(CHANNEL, content=b"hi", headers={"content-type": "text/plain"})
        assert '"data":{"a": 1.10}' in (await client.get(CHANNEL)).text
    first, binary, text = seen
    assert ("chat.a", {"a": 1.1}, "e", "k", None) == (first.channel, first.data, first.event, first.key, first.subject)
    assert (Kind.JSON, b'{"a": 1.10}') == (first.kind, first.raw_data)
    assert (b"\xff", "hi") == (binary.data, text.data)


async def test_only_what_fits_is_asked_about() -> None:
    """The function is called for its channels only, and only for publishes of clients that may publish."""
    seen: list[str] = []
    cast = Oncecast("memory://", publish="public")
    cast.on_publish("chat.*")(lambda publication: seen.append(publication.channel))
    cast.on_publish("chat.b")(lambda publication: seen.append("second"))
    async with cast, http(cast) as client:
        assert 201 == (await client.post("/v1/channels/other", json=1)).status_code
        await cast.publish("chat.a", 1)
        lines = "\n".join(json.dumps({"channel": name, "data": 1}) for name in ("chat.a", "other", "chat.b"))
        answers = (await client.post("/v1/publish", content=lines)).text.splitlines()
        assert 3 == len([line for line in answers if '"id"' in line])
    assert ["chat.a", "chat.b", "second"] == seen


async def test_a_batch_is_answered_line_by_line() -> None:
    """Each line has its own verdict, in the order of the lines."""

    def check(publication: Publication) -> None:
        if publication.data == "bad":
            raise Refused("No.")

    cast = casting(check)
    async with cast, http(cast) as client:
        for given, expected in ((["a", "bad", "b"], ["id", "error", "id"]), (["bad"], ["error"])):
            lines = "\n".join(json.dumps({"channel": "chat.a", "data": each}) for each in given)
            answers = (await client.post("/v1/publish", content=lines)).text.splitlines()
            assert expected == [next(iter(json.loads(line))) for line in answers]


async def test_messages_of_a_socket_stay_in_order() -> None:
    """A message without a function does not overtake one whose function still runs."""
    go = asyncio.Event()

    async def check(publication: Publication) -> None:
        await go.wait()

    cast = casting(check)
    scope = socket_scope("/v1/connect", protocols=("oncecast.v1",))
    async with cast, HandPeer(cast, scope) as peer, cast.subscribe("chat.a", "other") as messages:
        assert "websocket.accept" == (await peer.next())["type"]
        for number, channel in enumerate(("chat.a", "other", "chat.a")):
            peer.text(json.dumps({"type": "publish", "channel": channel, "data": number, "ref": number}))
        await asyncio.sleep(0)
        go.set()
        refs = [json.loads((await peer.next())["text"])["ref"] for _ in range(3)]
        assert [0, 1, 2] == refs
        async with asyncio.timeout(SECONDS):
            assert [0, 1, 2] == [(await anext(messages)).data for _ in range(3)]


@pytest.mark.slow
async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a message is refused with `unavailable`. So are the messages that wait at the end."""
    monkeypatch.setattr(review, "WAITING", 1)
    started = asyncio.Event()

    async def check(publication: Publication) -> None:
        started.set()
        await asyncio.sleep(3600)

    cast = casting(check, handler_seconds=3600)
    async with cast, http(cast) as client:
        first = asyncio.create_task(client.post(CHANNEL, json=1))
        await started.wait()
        busy = await client.post(CHANNEL, json=2)
        assert (503, "1") == (busy.status_code, busy.headers["retry-after"])
        await cast.stop()
        assert 503 == (await first).status_code


@pytest.mark.parametrize("bound", ["SHARE", "SHARE_BYTES"])
async def test_what_waits_of_one_publisher_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """A second publish of one address is refused while its share is used, whatever the connection; another's is not."""
    monkeypatch.setattr(review, bound, 1)
    go, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def check(publication: Publication) -> None:
        asked.release()
        await go.wait()

    cast = casting(check, handler_seconds=3600)
    lines = b'{"channel": "chat.a", "data": 1}\n' * 2
    async with cast, from_address(cast, "192.0.2.1") as one, from_address(cast, "198.51.100.1") as other:
        first = asyncio.create_task(one.post("/v1/publish", content=lines))  # more than the share, and the only one
        await asked.acquire()
        assert 503 == (await one.post(CHANNEL, json=1)).status_code
        second = asyncio.create_task(other.post(CHANNEL, json=1))
        await asked.acquire()
        go.set()
        assert (2, 201) == ((await first).text.count('"id"'), (await second).status_code)
        assert 201 == (await one.post(CHANNEL, json=1)).status_code


async def test_what_a_client_that_has_left_gave_is_dropped() -> None:
    """The function that runs ends, and what it accepts is published; no other is called."""
    go, asked = asyncio.Event(), asyncio.Event()
    seen: list[Any] = []

    async def check(publication: Publication) -> None:
        seen.append(publication.data)
        asked.set()
        await go.wait()

    cast = casting(check)
    scope = socket_scope("/v1/connect", protocols=("oncecast.v1",))
    async with cast, cast.subscribe("chat.a", "other") as messages:
        async with HandPeer(cast, scope) as peer:
            assert "websocket.accept" == (await peer.next())["type"]
            for number, channel in enumerate(("chat.a", "chat.a", "other")):
                peer.text(json.dumps({"type": "publish", "channel": channel, "data": number}))
                await asyncio.sleep(0)
            await asked.wait()
            peer.leave()
            await peer.ended()
        batch = b"".join(b'{"channel": "chat.a", "data": %d}\n' % number for number in (3, 4))
        asked.clear()
        posted = http_scope("/v1/publish", ("content-length", str(len(batch))), method="POST")
        async with HandPeer(cast, posted) as peer:
            peer.say({"type": "http.request", "body": batch, "more_body": False})
            async with asyncio.timeout(SECONDS):
                await asked.wait()
            peer.leave()
            await peer.ended()
        go.set()
        async with asyncio.timeout(SECONDS):
            assert {0, 3} == {(await anext(messages)).data for _ in range(2)}
        await cast.publish("other", 5)
        assert ([0, 3], 5) == (seen, (await anext(messages)).data)


@pytest.mark.parametrize("number", [b"1e999", b"1" * 5000])
async def test_a_number_that_python_can_not_hold_is_refused(number: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is the client's mistake, so nothing is logged."""
    cast = casting(lambda publication: publication.data and None)
    async with cast, http(cast) as client:
        answer = await client.post(CHANNEL, content=number, headers={"content-type": "application/json"})
    assert (400, "data_invalid") == (answer.status_code, answer.json()["error"]["code"])
    assert "" == caplog.text


@pytest.mark.slow
async def test_a_function_that_does_not_end_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is cancelled and goes on is left behind, which the log says."""
    monkeypatch.setattr(review, "STOP_SECONDS", 0.1)
    started, go = asyncio.Event(), asyncio.Event()

    async def goes_on(publication: Publication) -> None:
        started.set()
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    cast = casting(goes_on)
    async with cast, http(cast) as client:
        publishing = asyncio.create_task(client.post(CHANNEL, json=1))
        async with asyncio.timeout(SECONDS):
            await started.wait()
            await cast.stop()
        go.set()
        await asyncio.wait({publishing})
