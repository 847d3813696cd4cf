"""The application's `Oncecast` and the server: one node, one set of rules, one life."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from oncecast.asgi.callers import Caller, Grant
from oncecast.asgi.hosting import guest
from oncecast.asgi.hosting.guest import AppGuest
from oncecast.asgi.oncecast import Oncecast
from oncecast.asgi.review import Publication
from oncecast.client.failures import Refused
from oncecast.errors import ConfigurationError
from oncecast.server.reload import read_again
from oncecast.server.settings import DEFAULT_BROKER, ChannelRule, Settings
from tests.asgi.hosting.conftest import SECONDS, Beside, OwnApp, ask
from tests.server.conftest import Open

TEXT = "Content-Type: text/plain"


def guarded() -> Oncecast:
    """Return an `Oncecast` whose functions know one user, by a header or a token, and no spam."""
    cast = Oncecast("memory://")

    @cast.authorize
    async def who(caller: Caller) -> Grant | None:
        await asyncio.sleep(0)
        name = caller.headers.get("x-user") or caller.token
        if name == "nobody":
            raise Refused("You are nobody.")
        return None if name is None else Grant(name, subscribe=[f"user.{name}"], publish=[f"user.{name}"])

    @cast.on_publish("user.*")
    async def check(publication: Publication) -> None:
        if publication.data == "spam":
            raise Refused("No spam, please.")
        publication.data = {"by": publication.subject, "text": publication.data}

    return cast


async def test_both_have_one_node(beside: Beside) -> None:
    """What either publishes, either hears; the application's own calls go on from its start to its end."""
    cast = Oncecast("memory://", subscribe="public", publish="public")
    app = OwnApp(cast)
    site = await beside(app)
    stream = await site.sse("a")
    async with asyncio.timeout(SECONDS), cast.subscribe("a") as messages:
        ack = await cast.publish("a", "from the application")
        assert ack.id.encode() in await stream.until(b"from the application\n\n")
        peer = await site.connect()
        assert 201 == (await ask(peer, "/v1/channels/a", TEXT, method="POST", body=b"from a client")).status
        assert ["from the application", "from a client"] == [(await anext(messages)).data for _ in range(2)]
        sent = await asyncio.to_thread(cast.publish_sync, "a", "from a thread")
        assert sent.id.encode() in await stream.until(b"from a thread\n\n")
        answer = await ask(peer, "/v1/channels/life?after=earliest")
        assert ["lifespan.startup"] == [each["data"] for each in answer.json["messages"]]
        stream.close()
        peer.close()
        await site.server.stop()
    assert ["lifespan.startup", "lifespan.shutdown"] == app.life


async def test_the_function_decides_on_the_servers_routes(beside: Beside) -> None:
    """Each request is asked for by itself, on one connection too, and no answer of one user is given to another."""
    site = await beside(OwnApp(guarded()))
    peer = await site.connect()
    for _ in range(2):
        assert 401 == (await ask(peer, "/v1/channels/user.ann")).status
        assert 200 == (await ask(peer, "/v1/channels/user.ann", "X-User: ann")).status
        assert 403 == (await ask(peer, "/v1/channels/user.ann", "X-User: bob")).status
        refused = await ask(peer, "/v1/channels/user.ann", "X-User: nobody")
        assert (403, "You are nobody.") == (refused.status, refused.json["error"]["message"])
        assert 401 == (await ask(peer, "/v1/channels/user.ann")).status
        assert 204 == (await ask(peer, "/v1/channels/user.ann", method="OPTIONS")).status
        assert 200 == (await ask(peer, "/own", "X-User: nobody")).status
    for headers in (("Accept: text/event-stream",), ("X-User: bob", "Accept: text/event-stream")):
        assert (await ask(peer, "/v1/channels/user.ann", *headers)).status in (401, 403)


async def test_the_check_sees_what_clients_publish(beside: Beside) -> None:
    """A POST to the server's route is changed or refused by the application's function."""
    site = await beside(OwnApp(guarded()))
    peer = await site.connect()
    path, user = "/v1/channels/user.ann", "X-User: ann"
    assert 201 == (await ask(peer, path, user, TEXT, method="POST", body=b"tea")).status
    assert 403 == (await ask(peer, path, user, TEXT, method="POST", body=b"spam")).status
    messages = (await ask(peer, f"{path}?after=earliest", user)).json["messages"]
    assert [{"by": "ann", "text": "tea"}] == [each["data"] for each in messages]


async def test_a_token_on_an_open_socket_is_judged_by_the_function(beside: Beside) -> None:
    """What a page says behind its token counts once the function has judged that, in the order of its frames."""
    site = await beside(OwnApp(guarded()))
    peer = await site.websocket("/v1/connect")
    async with asyncio.timeout(SECONDS):
        await peer.say(type="subscribe", channel="user.ann", ref=1)
        assert "unauthorized" == (await peer.frame())["code"]
        await peer.say(type="auth", token="nobody", ref=2)
        await peer.say(type="subscribe", channel="user.ann", ref=3)
        assert ["forbidden", "unauthorized"] == [(await peer.frame())["code"] for _ in range(2)]
        await peer.say(type="auth", token="ann", ref=4)
        await peer.say(type="subscribe", channel="user.ann", ref=5)
        await peer.say(type="publish", channel="user.ann", data="tea", ref=6)
        frames = {frame["type"]: frame for frame in [await peer.frame() for _ in range(4)]}
        assert {"authenticated", "subscribed", "published", "message"} == set(frames)
        assert {"by": "ann", "text": "tea"} == frames["message"]["data"]
        await peer.say(type="auth", token="bob", ref=7)
        assert "forbidden" == (await peer.frame())["code"]


async def test_a_user_is_disconnected_wherever_connected(beside: Beside) -> None:
    """`disconnect` ends the streams of a user on the server's routes, and those over ASGI."""
    cast = guarded()
    site = await beside(OwnApp(cast))
    lines = b"Host: localhost\r\nX-User: ann\r\nAccept: text/event-stream\r\n\r\n"
    native = await site.connect(b"GET /v1/channels/user.ann HTTP/1.1\r\n" + lines)
    over_asgi = await site.connect(b"GET /%761/channels/user.ann HTTP/1.1\r\n" + lines)
    async with asyncio.timeout(SECONDS):
        for peer in (native, over_asgi):
            assert (await peer.until(b"retry: ")).startswith(b"HTTP/1.1 200 ")
        await cast.disconnect("ann")
        for peer in (native, over_asgi):
            await peer.until(b"event: error")


@pytest.mark.parametrize("path", ["/v1/channels/user.ann", "/%761/channels/user.ann"])
async def test_who_is_disconnected_while_the_function_is_asked_is_refused(beside: Beside, path: str) -> None:
    """On the server's routes, and over ASGI."""
    cast = Oncecast("memory://")
    answer, asked = asyncio.Event(), asyncio.Event()

    @cast.authorize
    async def who(caller: Caller) -> Grant:
        if "x-slow" in caller.headers:
            asked.set()
            await answer.wait()
        return Grant("ann", ["*"])

    site = await beside(OwnApp(cast))
    lines = "Host: localhost\r\nAccept: text/event-stream\r\n"
    open_one = await site.connect(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    async with asyncio.timeout(SECONDS):
        await open_one.until(b"retry: ")
        late = await site.connect(f"GET {path} HTTP/1.1\r\n{lines}X-Slow: 1\r\n\r\n".encode())
        await asked.wait()
        await cast.disconnect("ann")
        await open_one.until(b"event: error")
        answer.set()
        assert 401 == (await late.answer()).status


async def test_an_oncecast_without_rules_opens_nothing(beside: Beside) -> None:
    """The server's routes are as closed as the application's, whatever --dev opens for a server alone."""
    site = await beside(OwnApp(Oncecast("memory://")), Settings(port=0, app="own:app", dev=True))
    peer = await site.connect()
    assert 403 == (await ask(peer, "/v1/channels/a")).status
    assert 403 == (await ask(peer, "/v1/channels/a", TEXT, method="POST", body=b"x")).status
    assert 403 == (await ask(peer, "/v1/channels/a", "Origin: http://localhost:5173")).status
    assert "You" not in (await ask(peer, "/%761/channels/a")).body.decode()
    assert 403 == (await ask(peer, "/%761/channels/a")).status


@pytest.mark.parametrize(
    "name, own, server",
    [
        ("broker", "memory://", DEFAULT_BROKER),
        ("origins", ("https://app.example",), ()),
        ("channels", {"a": ChannelRule(subscribe="public")}, {}),
    ],
)
def test_what_the_application_says_holds_where_the_server_says_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, own: Any, server: Any
) -> None:
    """Of the broker, origins, hosts, keys and channels each may be given in one place."""
    cast = Oncecast(settings=Settings(**{name: own}))
    made = _guest_of(cast, monkeypatch)
    adapted = made.adapt(Settings(app="own:app", **{name: server}))
    assert (server if name == "broker" else own) == getattr(adapted, name)
    assert adapted is cast.settings


def test_different_settings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both name a broker, and not the same one, the server does not start."""
    made = _guest_of(Oncecast("sqlite:///app.db"), monkeypatch)
    assert "sqlite:///app.db" == made.adapt(Settings(app="own:app", broker=DEFAULT_BROKER)).broker
    with pytest.raises(ConfigurationError, match=r"different settings \(broker\)"):
        made.adapt(Settings(app="own:app", broker="redis://localhost"))


def test_a_reload_compares_what_was_given(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Another application needs a restart, and the log says so."""
    with caplog.at_level(logging.INFO):
        changed = read_again(Settings(app="own:app"), lambda: Settings(app="other:app"))
    assert changed is not None
    assert "own:app" == changed.app
    assert "these settings apply after a restart only: app" in caplog.text


async def test_a_start_that_fails_leaves_nothing(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the application, and the port is free again."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback: no database"})

    monkeypatch.setattr(guest, "load_application", lambda target: failing)
    monkeypatch.setattr(guest, "find_cast", lambda: None)
    with pytest.raises(ConfigurationError, match="own:app: the application's start has failed"):
        await open_site(Settings(port=0, app="own:app"), guest=AppGuest("own:app"))


async def test_an_oncecast_that_is_made_late_is_refused(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's routes can't be held to rules that come after they are open, so the server does not start."""
    app = OwnApp()
    monkeypatch.setattr(guest, "load_application", lambda target: app)
    monkeypatch.setattr(guest, "find_cast", lambda: None if not app.life else Oncecast("memory://"))
    with pytest.raises(ConfigurationError, match="make it where the module is imported"):
        await open_site(Settings(port=0, app="own:app"), guest=AppGuest("own:app"))
    assert ["lifespan.startup", "lifespan.shutdown"] == app.life


async def test_an_open_server_needs_rules_or_public(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application without an `Oncecast` does not open the server's routes to other machines by itself."""
    for public in (False, True):
        monkeypatch.setattr(guest, "load_application", lambda target: OwnApp())
        monkeypatch.setattr(guest, "find_cast", lambda: None)
        settings = Settings(port=0, app="own:app", host="0.0.0.0", public=public)
        if public:
            await open_site(settings, guest=AppGuest("own:app"))
        else:
            with pytest.raises(ConfigurationError, match="no access rules and the application has no Oncecast"):
                await open_site(settings, guest=AppGuest("own:app"))


def _guest_of(cast: Oncecast, monkeypatch: pytest.MonkeyPatch) -> AppGuest:
    monkeypatch.setattr(guest, "load_application", lambda target: OwnApp())
    monkeypatch.setattr(guest, "find_cast", lambda: cast)
    return AppGuest("own:app")
