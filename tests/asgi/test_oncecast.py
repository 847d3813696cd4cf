"""`Oncecast` as an application uses it: publish, listen, and what clients may do where something was said, or not."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pydantic
import pytest

from oncecast import Caller, ClientMessage, Gap, GapError, Grant, Oncecast, Refused, Unavailable, UsageError
from oncecast.errors import ConfigurationError
from oncecast.policy.limits import Limits
from oncecast.server.settings import ChannelRule, RetentionSettings, Settings
from tests.asgi.conftest import SECONDS
from tests.asgi.peers import HandPeer, http_scope

CHANNEL = "/v1/channels/orders"
LOGS = ("oncecast.access", "oncecast.audit")


def http(cast: Oncecast, base: str = "http://app.example") -> httpx.AsyncClient:
    """Return a client of the application, without a server."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(cast), base_url=base)


async def collect(messages: Any, count: int) -> list[Any]:
    """Return the data of the next messages."""
    async with asyncio.timeout(SECONDS):
        return [(await anext(messages)).data for _ in range(count)]


# What clients may do


async def test_where_nothing_was_said_only_the_application_may() -> None:
    """A client is refused with what to write. The application publishes and listens."""
    async with Oncecast("memory://") as cast, http(cast) as client:
        for answer in (await client.get(CHANNEL), await client.post(CHANNEL, json=1)):
            assert 403 == answer.status_code
            assert "@cast.authorize" in answer.json()["error"]["message"]
        async with cast.subscribe("orders") as messages:
            await cast.publish("orders", 1)
            assert [1] == await collect(messages, 1)


async def test_what_was_said_holds() -> None:
    """`subscribe` and `publish` apply to every channel without a table; `dev` allows everything."""
    tables = {"secret": ChannelRule(subscribe="server"), "kept": ChannelRule(messages=5)}
    async with Oncecast(settings=Settings(channels=tables), subscribe="public") as cast, http(cast) as client:
        found = [(await client.get(f"/v1/channels/{name}")).status_code for name in ("orders", "kept", "secret")]
        assert [200, 200, 403] == found
        assert 403 == (await client.post(CHANNEL, json=1)).status_code
    async with Oncecast("memory://", dev=True) as cast, http(cast) as client:
        assert 201 == (await client.post(CHANNEL, json=1)).status_code
    async with Oncecast(settings=Settings(channels=tables)) as cast, http(cast) as client:
        assert 403 == (await client.get("/v1/channels/orders")).status_code  # no table names it


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (
            {"broker": "memory"},
            r"^Oncecast\(broker=…\): not a broker's URL: memory is one with its slashes, memory://$",
        ),
        ({"broker": ""}, r"^Oncecast\(broker=…\) must be a string that is not empty"),
        ({"broker": Path("app.db")}, r"^Oncecast\(broker=…\) must be a string"),
        ({"origins": ["a.example/"]}, r'^Oncecast\(origins=…\): "a.example/" is not an origin'),
    ],
)
def test_a_wrong_argument_is_named_as_it_was_written(arguments: dict[str, Any], expected: str) -> None:
    """The settings behind are those of the command, whose flags nobody has typed here."""
    with pytest.raises(ConfigurationError, match=expected):
        Oncecast(**arguments)


def test_a_text_is_no_list() -> None:
    """Its letters would be origins and hosts."""
    with pytest.raises(UsageError, match=r"^origins: give a list, \['https://a.example'\]$"):
        Oncecast("memory://", origins="https://a.example")
    with pytest.raises(UsageError, match=r"^hosts: give a list, \['a.example'\]$"):
        Oncecast("memory://", hosts="a.example")


@pytest.mark.parametrize("given", [None, 3, "who"])
def test_what_is_no_function_is_refused_at_once(given: Any) -> None:
    """And not with the first request."""
    with pytest.raises(UsageError, match=f"^authorize: give a function, not {given!r}$"):
        Oncecast("memory://").authorize(given)
    with pytest.raises(UsageError, match=f"^on_publish: give a function, not {given!r}$"):
        Oncecast("memory://").on_publish("chat.*")(given)


@pytest.mark.parametrize("given", [0, -1.0, True, "4", None, float("nan"), float("inf"), 10**400])
def test_what_are_no_seconds_is_refused(given: Any) -> None:
    """And not where a timer would fail later."""
    with pytest.raises(UsageError, match=r"^handler_seconds: give seconds, above 0"):
        Oncecast("memory://", handler_seconds=given)
    with pytest.raises(UsageError, match=r"^timeout: give seconds, above 0"):
        Oncecast("memory://").publish_sync("a", 1, timeout=given)


@pytest.mark.parametrize("given", [7, None, b"ann", "", "a\nb", "x" * 256])
async def test_what_is_no_user_can_not_be_disconnected(given: Any) -> None:
    """No connection has it as its subject, so nothing would end."""
    async with Oncecast("memory://") as cast:
        with pytest.raises(UsageError, match=r"^disconnect: give the subject of a Grant, a str of 1 to 255 characters"):
            await cast.disconnect(given)


def test_wrong_arguments_are_errors() -> None:
    """The constructor raises for an unknown word and for an unknown broker."""
    with pytest.raises(UsageError, match="subscribe: give public"):
        Oncecast(subscribe="everybody")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="broker"):
        Oncecast("mysql://x")
    with pytest.raises(UsageError, match="begins with /"):
        Oncecast("memory://").beside(Oncecast("memory://"), "rt")
    with pytest.raises(UsageError, match="begins with /"):
        Oncecast("memory://").beside(Oncecast("memory://"), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="beside: give a function"):
        Oncecast("memory://").beside("app:app")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a channel is a str, not int"):
        Oncecast("memory://").stream(7, http_scope("/"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no channel or pattern"):
        Oncecast("memory://").on_publish("not a pattern!")


def test_the_broker_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a URL the broker is that of the variable or the file, else in memory. An argument wins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONCECAST_BROKER", raising=False)
    assert "memory://" == Oncecast().settings.broker
    (tmp_path / "oncecast.toml").write_text('broker = "sqlite:///file.db"\n')
    assert "sqlite:///file.db" == Oncecast().settings.broker
    monkeypatch.setenv("ONCECAST_BROKER", "sqlite:///variable.db")
    assert "sqlite:///variable.db" == Oncecast().settings.broker
    assert "sqlite:///code.db" == Oncecast("sqlite:///code.db").settings.broker


def test_how_a_server_listens_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application listens by its own server: variables for `oncecast serve` in its environment are none of its."""
    for name, value in (("HOST", "0.0.0.0"), ("TLS", "true"), ("TLS_CERT", "a.pem"), ("PROXY_PROTOCOL", "true")):
        monkeypatch.setenv(f"ONCECAST_{name}", value)
    assert "memory://" == Oncecast("memory://").settings.broker


async def test_hosts_and_origins_are_checked() -> None:
    """A socket at loopback answers to loopback names, unless others are named; pages of other origins are refused."""
    at_loopback: dict[str, Any] = {"server": ("127.0.0.1", 80)}
    for hosts, host, expected in (
        ((), "evil.example", 421),
        ((), "localhost:80", 200),
        (("app.example",), "app.example", 200),
        (("app.example",), "evil.example", 421),
    ):
        async with Oncecast("memory://", subscribe="public", hosts=hosts) as cast:
            scope = http_scope(CHANNEL, **at_loopback)
            scope["headers"] = [(b"host", host.encode())]
            async with HandPeer(cast, scope) as peer:
                assert expected == (await peer.next())["status"], host
    async with (
        Oncecast("memory://", subscribe="public", origins=["https://front.example"]) as cast,
        http(cast) as client,
    ):
        foreign = await client.get(CHANNEL, headers={"Origin": "https://evil.example"})
        assert "origin_refused" == foreign.json()["error"]["code"]
        named = await client.options(
            CHANNEL, headers={"Origin": "https://front.example", "Access-Control-Request-Method": "POST"}
        )
        assert (204, "https://front.example") == (named.status_code, named.headers["access-control-allow-origin"])


# Publish


class Struct(msgspec.Struct):
    a: int


@dataclasses.dataclass
class Data:
    a: int


class Model(pydantic.BaseModel):
    a: float
    named: int = pydantic.Field(default=2, serialization_alias="theName")


@pytest.mark.parametrize(
    "data, expected",
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        ([1, 2], [1, 2]),
        ("text", "text"),
        (b"\x00\xff", b"\x00\xff"),
        (Struct(1), {"a": 1}),
        (Data(1), {"a": 1}),
        (Model(a=1.5), {"a": 1.5, "theName": 2}),
    ],
)
async def test_what_is_published_is_heard(data: object, expected: object) -> None:
    """Data of every type arrives as its JSON value, with its event, and its receipt has its id."""
    async with Oncecast("memory://") as cast, cast.subscribe("orders") as messages:
        ack = await cast.publish("orders", data, event="new", key="k")
        assert ack == await cast.publish("orders", data, event="new", key="k")
        message = await anext(messages)
        assert (expected, "new", ack.id) == (message.data, message.event, message.id)
        assert "memory" == ack.durability


async def test_what_can_not_be_published_is_refused() -> None:
    """The error has the code that a client would get."""
    async with Oncecast("memory://") as cast:
        for channel, data, code in (
            ("no channel", 1, "channel_invalid"),
            ("a", Model(a=float("nan")), "data_invalid"),
            ("a", b"x" * (cast.settings.limits.message_bytes + 1), "body_too_large"),
        ):
            with pytest.raises(Refused) as refused:
                await cast.publish(channel, data)
            assert code == refused.value.code
        assert cast._life is not None
        cast._life.node.away("the broker is away")
        with pytest.raises(Unavailable) as away:
            await cast.publish("a", 1)
        assert (503, 5.0) == (away.value.status, away.value.retry_after)


# Listen


async def test_a_slow_listener_gets_everything() -> None:
    """Messages that do not fit its buffer are read again from the log, in order and once."""
    async with Oncecast("memory://") as cast, cast.subscribe("a", "b", buffer=2) as messages:
        for number in range(20):
            await cast.publish("ab"[number % 2], number)
        await asyncio.sleep(0)
        assert [*range(20)] == await collect(messages, 20)
        await cast.publish("a", 20)
        assert [20] == await collect(messages, 1)


@pytest.mark.parametrize(
    "start, expected", [({"after": "earliest"}, [0, 1, 2]), ({"last": 1}, [2]), ({"since": 0}, [0, 1, 2])]
)
async def test_where_a_subscription_begins(start: dict[str, Any], expected: list[int]) -> None:
    """The starts are those of the client; after a cursor comes the next message."""
    async with Oncecast("memory://") as cast:
        acks = [await cast.publish("a", number) for number in range(3)]
        messages = cast.subscribe("a", **start)
        assert expected == await collect(messages, len(expected))
        assert {"a": acks[-1].id} == messages.cursors
        async with cast.subscribe("a", after=acks[0].id) as later:
            assert [1, 2] == await collect(later, 2)


async def test_gaps_are_not_missed() -> None:
    """A gap is an item of `events()`, an exception with `on_gap="raise"`, or else a warning in the log."""
    settings = Settings(retention=RetentionSettings(messages=1))
    async with Oncecast(settings=settings) as cast:
        first, *_ = [await cast.publish("a", number) for number in range(4)]
        events = cast.subscribe("a", after=first.id).events()
        gap, message = await anext(events), await anext(events)
        assert isinstance(gap, Gap)
        assert isinstance(message, ClientMessage)
        assert ("expired", 3) == (gap.reason, message.data)
        with pytest.raises(GapError):
            await anext(cast.subscribe("a", after=first.id, on_gap="raise"))


async def test_a_subscription_ends() -> None:
    """A closed subscription leaves the hub. When the node stops, or can't read, the iteration raises."""
    cast = Oncecast("memory://")
    async with cast:
        assert cast._life is not None
        hub = cast._life.node.hub
        async with cast.subscribe("a"):
            assert 1 == hub.subscriptions
        assert 0 == hub.subscriptions
        with pytest.raises(Refused) as refused:
            await anext(cast.subscribe("a", after="e-99999999999999999999"))
        assert "cursor_invalid" == refused.value.code
        for buffer in (0, -1, 1.5, True, 10**9):
            with pytest.raises(UsageError, match="buffer"):
                cast.subscribe("a", buffer=buffer)  # type: ignore[arg-type]
        messages = cast.subscribe("a")
        await messages.__aenter__()
    with pytest.raises(Unavailable):
        await anext(messages)


async def test_a_subscription_comes_back_after_a_refusal_that_passes() -> None:
    """A listener that the hub refuses for a while attaches again at its place."""
    from oncecast.errors import Refusal

    async with Oncecast("memory://") as cast, cast.subscribe("a") as messages:
        assert cast._life is not None
        (listener,) = cast._life.listeners
        await cast.publish("a", 1)
        listener.refuse(Refusal("unavailable", "later"))
        await cast.publish("a", 2)
        assert [1, 2] == await collect(messages, 2)


# Its life


async def test_it_starts_at_the_first_use_and_can_start_again() -> None:
    """Without a lifespan the first request starts it, once for many; after a stop the next one does."""
    cast = Oncecast("memory://", dev=True)
    async with http(cast) as client:
        answers = await asyncio.gather(*(client.get(CHANNEL) for _ in range(5)))
        assert {200} == {answer.status_code for answer in answers}
        first = cast._life
        assert 1 == len({answer.json()["cursor"].partition("-")[0] for answer in answers})
        await cast.stop()
        await cast.stop()
        assert 200 == (await client.get(CHANNEL)).status_code
        assert cast._life is not first
    await cast.stop()


def test_each_event_loop_has_a_life_of_its_own() -> None:
    """When a loop ends, its life ends in order. A test client makes a loop for each request."""
    cast = Oncecast("memory://", dev=True)

    async def once() -> str:
        async with http(cast) as client:
            return str((await client.get(CHANNEL)).json()["cursor"])

    assert asyncio.run(once()) != asyncio.run(once())


async def test_another_running_loop_publishes_through_the_first() -> None:
    """Code on a loop of another thread publishes to the application's log, and can't serve from it."""
    async with Oncecast("memory://") as cast, cast.subscribe("a") as messages:
        await asyncio.to_thread(asyncio.run, cast.publish("a", 1))
        assert [1] == await collect(messages, 1)
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, cast.start())


async def test_a_broker_that_can_not_be_opened(tmp_path: Path) -> None:
    """The start fails with the reason, each time; a subscription fails with it too."""
    cast = Oncecast(f"sqlite:///{tmp_path}/missing/app.db")
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            await cast.start()
    with pytest.raises(ConfigurationError):
        await anext(cast.subscribe("a"))


async def test_what_is_registered_late_is_an_error() -> None:
    """`authorize` and `on_publish` raise after the start, as the function would not be called."""
    async with Oncecast("memory://") as cast:
        with pytest.raises(UsageError, match="before the application starts"):
            cast.authorize(lambda caller: None)
        with pytest.raises(UsageError, match="before the application starts"):
            cast.on_publish("a")
    cast.authorize(lambda caller: None)
    with pytest.raises(UsageError, match="already"):
        cast.authorize(lambda caller: None)


async def test_a_failed_broker_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the broker, requests are refused, and `/readyz` is 503."""
    async with Oncecast("memory://", dev=True) as cast, http(cast) as client:
        assert cast._life is not None
        with caplog.at_level(logging.CRITICAL, "oncecast.asgi"):
            cast._life.node.fail("the disk is gone")
        assert "restart it" in caplog.text
        assert [503, 503] == [(await client.get(path)).status_code for path in (CHANNEL, "/readyz")]


async def test_every_link_of_the_start_page_leads_somewhere() -> None:
    """What the page links to below the mount is there, the metrics too, which count what the application serves."""
    async with Oncecast("memory://", dev=True) as cast, http(cast) as client:
        page = (await client.get("/")).text
        links = set(re.findall(r'(?:href|src)="\./([^"#]*)"', page)) | {"oncecast.js", "healthz"}
        assert "metrics" in links
        assert [] == [link for link in links if (await client.get(f"/{link}")).status_code != 200]
        await client.post(CHANNEL, json=1)
        assert "oncecast_publishes_total 1.0" in (await client.get("/metrics")).text


async def test_the_limits_of_connections_hold() -> None:
    """Past the limit in all, publishes and probes are answered; past a user's, a stream and a waiting poll get 429."""
    limits = Limits(connections=2, connections_per_user=1)
    cast = Oncecast(settings=Settings(limits=limits))

    @cast.authorize
    def who(caller: Caller) -> Grant:
        return Grant(caller.headers["x-user"], subscribe=["*"], publish=["*"])

    events = ("accept", "text/event-stream")
    async with cast, HandPeer(cast, http_scope(CHANNEL, ("x-user", "ann"), events)) as first:
        assert b"retry" in await first.until(b"retry")
        for more, status in ((("x-user", "ann"), 429), (("x-user", "bob"), 200)):
            async with HandPeer(cast, http_scope(CHANNEL, more, events)) as second:
                assert status == (await second.next())["status"]
                if status == 200:
                    async with HandPeer(cast, http_scope(CHANNEL, ("x-user", "eve"))) as third:
                        assert 503 == (await third.next())["status"]
                    async with HandPeer(cast, http_scope("/healthz")) as probe:
                        assert 200 == (await probe.next())["status"]
        async with HandPeer(cast, http_scope(CHANNEL, ("x-user", "ann"), query="wait=20&after=latest")) as poll:
            assert 429 == (await poll.next())["status"]


async def test_logging_has_a_record_of_each_request_and_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """Requests and streams are records at their end, refusals too; a secret of a query stands in none of them."""
    async with Oncecast("memory://", subscribe="public") as cast, http(cast) as client:
        with caplog.at_level(logging.INFO, "oncecast"):
            await client.get(f"{CHANNEL}?after=earliest&token=secret")
            await client.post(CHANNEL, json=1)
            async with HandPeer(cast, http_scope(CHANNEL, ("accept", "text/event-stream"))) as peer:
                await peer.until(b"retry")
        said = {name: [each.message for each in caplog.records if each.name == name] for name in LOGS}
        access, audit = said["oncecast.access"], said["oncecast.audit"]
        for line, part in zip(access, (" status=200 ", " status=403 ", " as=events "), strict=True):
            assert part in line
        assert "secret" not in caplog.text
        assert 1 == len(audit)
        assert audit[0].startswith("code=forbidden by=http status=403 ")


async def test_a_body_is_bounded() -> None:
    """A body over the limit is refused by its length or as it arrives. One that does not arrive is refused too."""
    from oncecast.policy.limits import Limits

    limits = Limits(body_bytes=1024, message_bytes=1024, body_seconds=1)
    async with Oncecast(settings=Settings(limits=limits), dev=True) as cast:
        scope = http_scope(CHANNEL, ("content-length", "5000"), method="POST")
        async with HandPeer(cast, scope) as peer:
            assert 413 == (await peer.next())["status"]
        async with HandPeer(cast, http_scope(CHANNEL, method="POST")) as peer:
            for _ in range(9):
                peer.say({"type": "http.request", "body": b"x" * 500, "more_body": True})
            assert 413 == (await peer.next())["status"]
        scope = http_scope(CHANNEL, ("content-length", "2000"), method="POST")
        for whole in (True, False):
            async with HandPeer(cast, scope) as peer:
                for more in (True, not whole):
                    peer.say({"type": "http.request", "body": b"x" * 1000, "more_body": more})
                assert 413 == (await peer.next())["status"]
                assert 0 == peer.unheard  # else some servers reset the connection, and its answer with it
        async with HandPeer(cast, http_scope(CHANNEL, method="POST")) as peer:
            peer.say({"type": "http.request", "body": b"1", "more_body": True})
            assert 408 == (await peer.next())["status"]
        async with HandPeer(cast, http_scope(CHANNEL, method="POST")) as peer:
            peer.say({"type": "http.request", "body": b"1", "more_body": True})
            peer.say({"type": "http.request", "body": b"2", "more_body": False})
            assert 201 == (await peer.next())["status"]
            receipt = json.loads((await peer.next())["body"])
            assert receipt["id"].endswith("-1")
        async with HandPeer(cast, http_scope(CHANNEL, method="POST")) as peer:
            peer.say({"type": "http.request", "body": b"1", "more_body": True})
        assert 0 == peer.waiting  # it has gone before its body was whole


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """The broker is closed again, and the next use starts it."""
    cast = Oncecast(f"sqlite:///{tmp_path}/app.db")
    for _ in range(3):
        starting = asyncio.create_task(cast.start())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})
    assert [asyncio.current_task()] == [*asyncio.all_tasks()]
    async with cast:
        await cast.publish("a", 1)


async def test_a_subscription_that_is_left_open_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Once nobody can iterate over it, it leaves the hub, and the log says what to do."""
    async with Oncecast("memory://") as cast:
        assert cast._life is not None
        await cast.publish("a", 1)
        async for message in cast.subscribe("a", after="earliest"):
            assert 1 == message.data
            break
        gc.collect()
        await asyncio.sleep(0)
        assert (0, set()) == (cast._life.node.hub.subscriptions, cast._life.listeners)
        assert "left open" in caplog.text
        caplog.clear()
        async with cast.subscribe("a"):
            pass
        gc.collect()
        assert "" == caplog.text


async def test_one_that_is_entered_twice_goes_on_until_both_have_left() -> None:
    """An `async with` inside of the lifespan, or a second lifespan, does not end the streams of the first."""
    cast = Oncecast("memory://")
    async with cast, cast.subscribe("a") as messages:
        async with cast.lifespan(), cast:
            await cast.publish("a", 1)
        await cast.publish("a", 2)
        assert [1, 2] == [(await anext(messages)).data for _ in range(2)]
    assert [] == cast.lives()
