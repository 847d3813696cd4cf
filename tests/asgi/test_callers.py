"""Who asks: what the function of an application sees and grants, and that no failure of it lets anybody in."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest

from oncecast import Caller, Grant, Oncecast, Refused, UsageError
from oncecast.errors import Refusal
from oncecast.policy.limits import Limits
from oncecast.policy.tokens import LAST_SECOND
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from tests.asgi.peers import HandPeer, http_scope, socket_scope

CHANNEL = "/v1/channels/orders"


def casting(authorize: Callable[[Caller], Any], **more: Any) -> Oncecast:
    """Return an `Oncecast` that asks a function."""
    cast = Oncecast(settings=more.pop("settings", Settings()), **more)
    cast.authorize(authorize)
    return cast


async def ask(cast: Oncecast, path: str = CHANNEL, **headers: str) -> httpx.Response:
    """Return the answer to a poll."""
    async with cast, httpx.AsyncClient(transport=httpx.ASGITransport(cast), base_url="http://app.example") as client:
        return await client.get(path, headers=headers)


async def raises(caller: Caller) -> Grant:
    """Fail."""
    raise KeyError("no such user")


async def slow(caller: Caller) -> Grant:
    """Take too long."""
    await asyncio.sleep(3600)
    return Grant("ann", ["*"])


async def refuses(caller: Caller) -> Grant:
    """Refuse, with a reason of one's own."""
    raise Refused("Pay first.")


async def asks_for_more(caller: Caller) -> Grant:
    """Refuse, where another token would help."""
    raise Refused("Log in.", code="unauthorized")


async def limits(caller: Caller) -> Grant:
    """Refuse in the words of the server."""
    raise Refusal("too_many_requests", "Slower.", retry_after=7)


@pytest.mark.parametrize(
    "function, status, part",
    [
        (raises, 500, "its log has the cause"),
        (lambda caller: True, 500, "its log has the cause"),
        (lambda caller: {"sub": "ann"}, 500, "its log has the cause"),
        (slow, 503, "did not decide in time"),
        (refuses, 403, "Pay first."),
        (asks_for_more, 401, "Log in."),
        (limits, 429, "Slower."),
        (lambda caller: Grant(expires=1), 401, "has ended"),
        (lambda caller: None, 401, "Only a token"),
        (lambda caller: Grant("ann"), 403, "none of them"),
        (lambda caller: Grant("ann", "orders"), 200, "messages"),
        (lambda caller: Grant(None, ["ord*"]), 200, "messages"),
        (lambda caller: Grant("ann", None), 200, "messages"),
    ],
)
async def test_what_is_said_is_obeyed(function: Callable[[Caller], Any], status: int, part: str) -> None:
    """A grant allows what it names, a refusal passes its reason on, and every failure refuses."""
    answer = await ask(casting(function, handler_seconds=0.2))
    assert status == answer.status_code
    assert part in answer.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"subscribe": ["no pattern!"]},
        {"subscribe": ["user.{sub}"]},
        {"subject": ""},
        *({"expires": expires} for expires in ("soon", True, -1, math.nan, math.inf, 1e308, LAST_SECOND + 1, 10**5000)),
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_grant_of_nonsense_is_an_error(wrong: dict[str, Any]) -> None:
    """The constructor of `Grant` raises for a pattern or a time that can't hold."""
    with pytest.raises(UsageError):
        Grant(**wrong)


async def test_what_the_function_sees() -> None:
    """The caller has the request's headers, cookies, query and token, and the address behind a trusted proxy."""
    seen: list[Caller] = []
    cast = casting(lambda caller: seen.append(caller), settings=Settings(trusted_proxies=("192.0.2.1",)))
    path = "/rt" + CHANNEL
    headers = (("authorization", "Bearer t0"), ("cookie", "a=1; b=2"), ("x-forwarded-for", "198.51.100.7"))
    scope = http_scope(path, *headers, query="x=1", root_path="/rt", session={"user": "ann"})
    async with cast, HandPeer(cast, scope) as peer:
        await peer.next()
    (caller,) = seen
    assert ("198.51.100.7", "GET", CHANNEL) == (caller.address, caller.method, caller.path)
    assert ("t0", {"a": "1", "b": "2"}, {"x": "1"}) == (caller.token, caller.cookies, caller.query)
    assert {"user": "ann"} == caller.scope["session"]
    assert "app.example" == caller.headers["host"]


async def test_a_function_without_async_runs_in_a_thread() -> None:
    """The function may block there. If it returns a coroutine, that is awaited."""
    threads: list[threading.Thread] = []

    def who(caller: Caller) -> Grant:
        threads.append(threading.current_thread())
        return Grant("ann", ["*"])

    assert 200 == (await ask(casting(who))).status_code
    assert [threading.main_thread()] != threads

    async def later(caller: Caller) -> Grant:
        return Grant("ann", ["*"])

    assert 200 == (await ask(casting(lambda caller: later(caller)))).status_code


async def test_cookies_count_for_own_pages_only() -> None:
    """With `origins=["*"]` the function sees neither cookies nor the session of a foreign page."""
    seen: list[Caller] = []
    cast = casting(lambda caller: seen.append(caller), origins=["*"])
    for origin in ("https://evil.example", "http://app.example"):
        headers = (("origin", origin), ("cookie", "session=x"))
        async with cast, HandPeer(cast, socket_scope(CHANNEL, *headers, session={"user": "ann"})) as peer:
            await peer.next()
    foreign, own = seen
    assert ({}, False, False) == (foreign.cookies, "session" in foreign.scope, "cookie" in foreign.headers)
    assert all(name != b"cookie" for name, _ in foreign.scope["headers"])
    assert {"session": "x"} == own.cookies
    assert "session" in own.scope


@pytest.mark.parametrize("scheme, status", [("http", 200), ("https", 403)])
async def test_the_own_origin_has_the_scheme_of_the_scope(scheme: str, status: int) -> None:
    """Where the server is reached by HTTPS, a page that came by HTTP, which anybody on the way may have made, is not
    its own: its cookies are not seen, and it may not read the answer.
    """
    seen: list[Caller] = []

    def authorize(caller: Caller) -> Grant:
        seen.append(caller)
        return Grant("ann", ["*"])

    headers = (("origin", "http://app.example"), ("cookie", "session=x"))
    foreign = casting(authorize)
    async with foreign, HandPeer(foreign, http_scope(CHANNEL, *headers, scheme=scheme)) as peer:
        answer = await peer.next()
        assert (status, status == 403) == (answer["status"], (b"vary", b"Origin") in answer["headers"])
    every = casting(authorize, origins=["*"])
    async with every, HandPeer(every, http_scope(CHANNEL, *headers, scheme=scheme)) as peer:
        assert 200 == (await peer.next())["status"]
    assert ({"session": "x"} if status == 200 else {}) == seen[-1].cookies


async def test_pages_that_may_not_connect_are_not_asked_about() -> None:
    """The function is not called for a foreign page or a preflight."""
    seen: list[Caller] = []
    cast = casting(lambda caller: seen.append(caller))
    assert 403 == (await ask(cast, Origin="https://evil.example")).status_code
    assert 200 == (await ask(cast, "/oncecast.js")).status_code
    scope = http_scope(CHANNEL, server=("127.0.0.1", 80))
    async with cast, HandPeer(cast, scope) as rebound:
        assert 421 == (await rebound.next())["status"]
    async with cast, HandPeer(cast, http_scope(CHANNEL, method="OPTIONS")) as peer:
        assert 204 == (await peer.next())["status"]
    assert [] == seen


@pytest.mark.parametrize("query, status", [("token=t1", 200), ("token=t2", 400), ("token=t1&token=t2", 400)])
async def test_several_tokens_are_refused(query: str, status: int) -> None:
    """The server can't say which of them counts; one that is sent twice is one."""
    seen: list[str | None] = []

    def authorize(caller: Caller) -> Grant:
        seen.append(caller.token)
        return Grant("ann", ["*"])

    answer = await ask(casting(authorize), f"{CHANNEL}?{query}", authorization="Bearer t1")
    assert status == answer.status_code
    assert (["t1"] if status == 200 else []) == seen
    assert status == 200 or "request_invalid" == answer.json()["error"]["code"]


async def test_a_grant_that_lasts_to_the_end_of_time_opens_a_stream() -> None:
    """The last second that a `Grant` takes is one that a stream can wait for."""
    cast = casting(lambda caller: Grant("ann", ["*"], expires=LAST_SECOND))
    async with cast, HandPeer(cast, http_scope(CHANNEL, ("accept", "text/event-stream"))) as peer:
        await peer.until(b"id:")


async def test_a_grant_ends_its_streams() -> None:
    """A stream is refused when its grant expires, so that the client asks again."""
    cast = casting(lambda caller: Grant("ann", ["*"], expires=time.time() + 0.3))
    stream = http_scope(CHANNEL, ("accept", "text/event-stream"))
    async with cast, HandPeer(cast, stream) as peer:
        assert 200 == (await peer.next())["status"]
        assert b"unauthorized" in await peer.until(b"event: error")
        await peer.ended()


async def test_a_user_is_disconnected() -> None:
    """Streams, sockets and polls of the user end; those of another go on."""
    cast = casting(lambda caller: Grant(caller.query["as"], ["*"]))
    kinds = (("accept", "text/event-stream"),), ()
    async with (
        cast,
        HandPeer(cast, http_scope(CHANNEL, *kinds[0], query="as=ann")) as ann,
        HandPeer(cast, http_scope(CHANNEL, *kinds[0], query="as=bob")) as bob,
        HandPeer(cast, http_scope(CHANNEL, query="as=ann&wait=20&after=latest")) as poll,
    ):
        await ann.until(b"id:")
        await bob.until(b"id:")
        await cast.disconnect("ann")
        assert b"unauthorized" in await ann.until(b"event: error")
        assert 401 == (await poll.next())["status"]
        await cast.publish("orders", 1)
        await bob.until(b"data: 1")


@pytest.mark.parametrize("kind", ["stream", "publish", "auth"])
async def test_who_is_disconnected_while_the_function_is_asked_is_refused(kind: str) -> None:
    """What the function knew before the disconnection opens nothing after it; another user's request goes on."""
    answer, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def authorize(caller: Caller) -> Grant | None:
        name = caller.token
        if name is None:
            return None
        if "slow" in name:
            asked.release()
            await answer.wait()
        return Grant(name.removeprefix("slow-"), ["*"], ["*"])

    def asking(name: str) -> HandPeer:
        token = ("authorization", f"Bearer {name}")
        if kind == "stream":
            return HandPeer(cast, http_scope(CHANNEL, ("accept", "text/event-stream"), token))
        if kind == "publish":
            return HandPeer(cast, http_scope(CHANNEL, token, method="POST"))
        return HandPeer(cast, socket_scope("/v1/connect", protocols=("oncecast.v1",)))

    cast = casting(authorize)
    stream = http_scope(CHANNEL, ("accept", "text/event-stream"), ("authorization", "Bearer ann"))
    async with cast, HandPeer(cast, stream) as open_one, asking("slow-ann") as ann, asking("slow-bob") as bob:
        await open_one.until(b"id:")
        for peer, name in ((ann, "slow-ann"), (bob, "slow-bob")):
            if kind == "publish":
                peer.say({"type": "http.request", "body": b"1", "more_body": False})
            elif kind == "auth":
                assert "websocket.accept" == (await peer.next())["type"]
                peer.text(json.dumps(auth(name)))
            await asked.acquire()
        await cast.disconnect("ann")
        await open_one.until(b"event: error")
        answer.set()
        if kind == "auth":
            frames = [json.loads((await peer.next())["text"]) for peer in (ann, bob)]
            assert ["unauthorized", None] == [frame.get("code") for frame in frames]
        else:
            assert [401, 200 if kind == "stream" else 201] == [(await peer.next())["status"] for peer in (ann, bob)]


async def test_one_who_gives_up_on_a_disconnection_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The record that waits for the broker gets its answer, which nobody takes."""
    async with casting(lambda caller: None, settings=Settings(limits=Limits(publish_wait_seconds=60.0))) as cast:
        assert cast._life is not None
        node = cast._life.node
        node.away("gone")
        giving_up = asyncio.create_task(cast.disconnect("ann"))
        await asyncio.sleep(0)  # its first step is to publish the record
        assert 1 == len(node.held)
        giving_up.cancel()
        await asyncio.wait({giving_up})
        node.held.expire(math.inf)
        assert (0, None, False) == (len(node.held), node.failed, "InvalidStateError" in caplog.text)


async def test_tokens_of_the_settings_are_verified_first() -> None:
    """The function gets the identity of a verified token, and may return None to keep it."""
    secret = "s" * 32
    settings = Settings(auth=AuthSettings(secret=secret), channels={"orders": ChannelRule(subscribe="token")})
    seen: list[Caller] = []
    cast = casting(lambda caller: seen.append(caller), settings=settings)
    now = int(time.time())
    token = jwt.encode({"sub": "ann", "iat": now, "exp": now + 60}, secret, "HS256")
    assert 200 == (await ask(cast, Authorization=f"Bearer {token}")).status_code
    assert "ann" == seen[0].identity.subject
    assert 401 == (await ask(cast, Authorization="Bearer nonsense")).status_code
    assert 401 == (await ask(cast)).status_code


SECRET = "s" * 32


def token_of(subject: str) -> str:
    """Return a token that may listen and publish everywhere."""
    now = int(time.time())
    return jwt.encode({"sub": subject, "iat": now, "exp": now + 600}, SECRET, "HS256")


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", CHANNEL + "?xticket=1"),
        ("POST", CHANNEL + "?ticket=1"),
        ("POST", "/v1/publish?ticket=1"),
        ("POST", "/v1/ticket?ticket=1"),
    ],
)
async def test_a_ticket_that_nobody_redeems_hides_no_request(method: str, path: str) -> None:
    """Only a request whose ticket says who asks is not shown to the function: it was shown when that was issued."""

    def refuse(caller: Caller) -> None:
        raise Refused("You are banned.")

    cast = casting(refuse, settings=Settings(auth=AuthSettings(secret=SECRET)), subscribe="token", publish="token")
    headers = {"authorization": f"Bearer {token_of('ann')}"}
    async with cast, httpx.AsyncClient(transport=httpx.ASGITransport(cast), base_url="http://app.example") as client:
        answer = await client.request(method, path, headers=headers, content=b'{"channel":"orders","data":1}')
    assert (403, True) == (answer.status_code, "banned" in answer.text)


async def said(peer: HandPeer, *frames: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Send frames at once, and return the types and codes of as many answers."""
    for frame in frames:
        peer.text(json.dumps(frame))
    answers = [json.loads((await peer.next())["text"]) for _ in frames]
    return [(answer["type"], answer.get("code")) for answer in answers]


def auth(token: str) -> dict[str, str]:
    """Return an `auth` frame."""
    return {"type": "auth", "token": token}


def joining(channel: str) -> dict[str, str]:
    """Return a `subscribe` frame."""
    return {"type": "subscribe", "channel": channel}


@pytest.mark.parametrize("by_ticket", [False, True])
async def test_a_token_takes_no_grant_further(by_ticket: bool) -> None:
    """A token that may do all gives a socket no more than the function grants, whatever the settings' keys say."""
    seen: list[Caller] = []

    def authorize(caller: Caller) -> Grant:
        seen.append(caller)
        return Grant("ann", ["news"])

    cast = casting(authorize, settings=Settings(auth=AuthSettings(secret=SECRET)))
    async with cast, httpx.AsyncClient(transport=httpx.ASGITransport(cast), base_url="http://app.example") as client:
        query = f"ticket={(await client.post('/v1/ticket')).json()['ticket']}" if by_ticket else ""
        scope = socket_scope("/v1/connect", protocols=("oncecast.v1",), query_string=query.encode())
        async with HandPeer(cast, scope) as peer:
            assert "websocket.accept" == (await peer.next())["type"]
            answers = await said(peer, auth(token_of("ann")), joining("secret"), joining("news"), auth(token_of("zoe")))
    assert [("authenticated", None), ("error", "forbidden"), ("subscribed", None), ("authenticated", None)] == answers
    assert "zoe" == seen[-1].identity.subject  # the settings' keys come first, as in a handshake


async def test_the_function_is_asked_about_a_token_on_an_open_socket() -> None:
    """It sees the handshake as if it had come with that token, and frames behind the token count with its grant."""
    grants = {
        "t1": Grant("ann", ["news"], expires=time.time() + 600),
        "t2": Grant("ann", ["secret"], ["secret"]),
        "z": Grant("zoe", ["*"]),
    }
    seen: list[Caller] = []

    async def authorize(caller: Caller) -> Grant | None:
        seen.append(caller)
        await asyncio.sleep(0)
        if caller.token == "stale":
            raise Refused("That token has ended.", code="unauthorized")
        return grants.get(caller.token or "")

    cast = casting(authorize)
    protocols = ("oncecast.v1", "oncecast.token.nobody")
    scope = socket_scope("/v1/connect", ("cookie", "a=1"), protocols=protocols, query_string=b"x=1&token=nobody")
    async with cast, HandPeer(cast, scope) as peer:
        assert "websocket.accept" == (await peer.next())["type"]
        assert [("error", "unauthorized")] == await said(peer, joining("news"))
        assert [("error", "request_invalid")] == await said(peer, auth("of another application"))
        assert [("authenticated", None), ("subscribed", None)] == await said(peer, auth("t1"), joining("news"))
        assert [("error", "unauthorized"), ("error", "forbidden")] == await said(peer, auth("stale"), auth("z"))
        assert [("error", "unauthorized")] * 3 == await said(peer, auth(""), auth("a\r\nb"), auth("t" * 8193))
        peer.text(json.dumps(auth("t2")))  # grants what is subscribed no more
        assert "authenticated" == json.loads((await peer.next())["text"])["type"]
        assert 4403 == (await peer.next())["code"]
    assert ["nobody", "of another application", "t1", "stale", "z", "t2"] == [caller.token for caller in seen]
    last = seen[-1]
    assert ({"a": "1"}, {"x": "1"}, "/v1/connect") == (last.cookies, last.query, last.path)
    assert ("Bearer t2", "oncecast.v1") == (last.headers["authorization"], last.headers["sec-websocket-protocol"])
    assert "nobody" not in repr(last.scope)


async def test_a_socket_that_ends_while_the_function_is_asked_gets_nothing() -> None:
    """The grant of a socket that was disconnected meanwhile opens nothing, and no error is logged."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def authorize(caller: Caller) -> Grant:
        if caller.token == "t2":
            asked.set()
            await answer.wait()
        return Grant("ann", ["news"])

    cast = casting(authorize)
    async with cast, HandPeer(cast, socket_scope("/v1/connect", protocols=("oncecast.v1",))) as peer:
        await peer.next()
        assert [("subscribed", None)] == await said(peer, joining("news"))
        peer.text(json.dumps(auth("t2")))
        async with asyncio.timeout(30):
            await asked.wait()
            await cast.disconnect("ann")
            assert 4401 == (await peer.next())["code"]
        answer.set()


async def test_a_grant_that_ends_is_announced_and_renewed() -> None:
    """A socket is warned before its grant ends, and goes on with the grant of a fresh token."""
    now = time.time()
    grants = {None: Grant("ann", ["news"], expires=now + 2), "fresh": Grant("ann", ["news"], expires=now + 600)}
    cast = casting(lambda caller: grants[caller.token])
    async with cast, HandPeer(cast, socket_scope("/v1/connect", protocols=("oncecast.v1",))) as peer:
        await peer.next()
        assert "expiring" == json.loads((await peer.next())["text"])["type"]
        peer.text(json.dumps(auth("fresh")))
        assert now + 600 == json.loads((await peer.next())["text"])["expires"]


async def test_what_middleware_made_of_a_cookie_is_not_seen() -> None:
    """Whatever its name: `request.state` of Starlette is the commonest place."""
    seen: list[Caller] = []
    cast = casting(lambda caller: seen.append(caller), origins=["*"])
    scope = socket_scope(CHANNEL, ("origin", "https://evil.example"), state={"user": "zoe"}, our_user="zoe", app="app")
    async with cast, HandPeer(cast, scope) as peer:
        await peer.next()
    assert "zoe" not in repr(seen[0].scope)
    assert ("app", CHANNEL) == (seen[0].scope["app"], seen[0].scope["path"])


async def test_a_timeout_of_the_function_itself_is_an_error_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """A database that does not answer it is in the log with its cause, not as a function that was late."""

    async def times_out(caller: Caller) -> None:
        raise TimeoutError("the database")

    with caplog.at_level(logging.ERROR, "oncecast.asgi"):
        assert 500 == (await ask(casting(times_out))).status_code
    assert "the database" in caplog.text


@pytest.mark.parametrize("found", [False, True, {"subscribe": ["*"]}, "ann", Refused("no")])
async def test_what_is_no_grant_is_named_in_the_log(found: object, caplog: pytest.LogCaptureFixture) -> None:
    """The line has the function's name, what it returned, and what to return instead."""

    def who(caller: Caller) -> object:
        return found

    with caplog.at_level(logging.ERROR, "oncecast.asgi"):
        assert 500 == (await ask(casting(who))).status_code
    (line,) = caplog.messages
    assert f".who returned {type(found).__name__}: the request is refused; return a Grant, or None" in line
    assert " at 0x" not in line
