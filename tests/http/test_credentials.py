"""Credentials over HTTP: where they may stand, raw bytes in and the exact answer out."""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from oncecast.errors import Refusal
from oncecast.http import listening, routes
from oncecast.http.bulletin import Bulletin
from oncecast.http.credentials import public_query
from oncecast.http.service import Rules
from oncecast.policy.access import Access
from oncecast.policy.authenticator import Authenticator
from oncecast.policy.identity import Identity
from oncecast.policy.keys import KeySet, parse_pem, parse_secret
from oncecast.policy.origin import Origins
from oncecast.policy.rules import AccessRules
from oncecast.policy.server_keys import ServerKeys, hash_line, make_key
from oncecast.policy.tokens import TokenRules, TokenVerifier
from oncecast.protocol.polls import answer_poll
from tests.token_rig import NOW, SECRET, claims, private_key, public_pem, token

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench

Parse = Callable[..., "Answer"]

KEY = make_key(bytes(32))
ACCESS = AccessRules({"user.{sub}": ("token", "token"), "news": ("public", "server")})
ANN, BOB = token(claims(oncecast={"subscribe": ["user.{sub}"]})), token(claims(sub="bob"))
OLD = token(claims(exp=1_763_000_000, iat=1_762_000_000))
LONGER = token(claims(exp=1_764_000_600, oncecast={"subscribe": ["user.{sub}"]}))
WRONG = token(key="another secret of at least 32 bytes")
PUBLIC = public_pem(private_key("RS256")).decode()
OWN = "Origin: http://localhost\r\n"
NAMED = "Origin: https://app.example\r\n"
ANY = "Origin: https://any.example\r\n"


def knowing() -> Authenticator:
    """Return what knows a secret and a key."""
    verifier = TokenVerifier(KeySet([parse_secret(SECRET, "s")]), TokenRules())
    return Authenticator(verifier, ServerKeys([hash_line("shop", KEY)]))


@pytest.fixture
def guarded(bench: Bench) -> Bench:
    """A server that knows a secret and a key, with a cookie for tokens."""
    authenticator = knowing()
    settings = replace(bench.app.settings, access=ACCESS)
    origins = Origins(frozenset({"https://app.example", "*"}))
    bench.app.adopt(Rules(settings, bench.app.hosts, origins, authenticator, cookie="sid"))
    return bench


def get(headers: str = "", query: str = "", channel: str = "user.ann") -> bytes:
    """Return a poll of ann's channel."""
    return f"GET /v1/channels/{channel}{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


def bearer(text: str) -> str:
    """Return the header."""
    return f"Authorization: Bearer {text}\r\n"


def cookie(text: str) -> str:
    """Return the header."""
    return f"Cookie: a=b; sid={text}\r\n"


def forged(
    head: Mapping[str, Any], secret: str = "", *, signer: Any = None, algorithm: str = "RS256", **more: Any
) -> str:
    """Return a token of ann for `chat`, of kid "a", signed with the key of the server, but for what is given."""
    payload = claims(**{"aud": "chat", "oncecast": {"subscribe": ["user.{sub}"]}, **more})
    whole = {"kid": "a", **head}
    if secret:
        return token(payload, key=secret, head=whole)
    text = token(payload, key=signer or private_key(algorithm), algorithm=algorithm, head=whole)
    return text.rpartition(".")[0] + "." if whole.get("alg") == "none" else text


PLACES: dict[str, tuple[bytes, int]] = {
    "nothing": (get(), 401),
    "nothing, in public": (get(channel="news"), 200),
    "Authorization": (get(bearer(ANN)), 200),
    "Authorization in capitals": (get(f"AUTHORIZATION: BEARER  {ANN}\r\n"), 200),
    "another scheme is of a proxy": (get("Authorization: Basic YTpi\r\n"), 401),
    "a token without its scheme": (get(f"Authorization: {ANN}\r\n", channel="news"), 401),
    "a key without its scheme": (get(f"Authorization: {KEY}\r\n", channel="news"), 401),
    "a word that is of a proxy": (get("Authorization: ab.c.d\r\n", channel="news"), 200),
    "an empty token": (get("Authorization: Bearer \r\n", channel="news"), 401),
    "another user": (get(bearer(BOB)), 403),
    "a wrong token": (get(bearer(WRONG)), 401),
    "a wrong token, in public": (get(bearer(WRONG), channel="news"), 401),
    "an old token, in public": (get(bearer(OLD), channel="news"), 401),
    "no token at all": (get(bearer("x")), 401),
    "two headers": (get(bearer(ANN) + bearer(ANN)), 400),
    "a key": (get(bearer(KEY)), 200),
    "an unknown key": (get(bearer(make_key(b"n" * 32))), 401),
    "the query": (get(query=f"?token={ANN}"), 200),
    "the query, among others": (get(query=f"?after=latest&token={ANN}&limit=5"), 200),
    "the query, empty": (get(query="?token=", channel="news"), 401),
    "the query, twice the same": (get(query=f"?token={ANN}&token={ANN}"), 200),
    "the query, two": (get(query=f"?token={ANN}&token={BOB}"), 400),
    "a tab after the scheme": (get(f"Authorization:\tBearer\t {ANN}\r\n"), 200),
    "a wrong token after a tab": (get("Authorization: Bearer\tx\r\n", channel="news"), 401),
    "the query, percent-encoded": (get(query=f"?after=latest&%74oken={ANN}"), 200),
    "the query, wrong and percent-encoded": (get(query="?t%6Fken=x", channel="news"), 401),
    "a field whose name has token in it": (get(query="?tokens=%20y&tickets=x", channel="news"), 200),
    "an empty ticket": (get(query="?ticket=", channel="news"), 401),
    "two tickets, one of them percent-encoded": (get(query="?%74icket=x&ticket=y", channel="news"), 400),
    "the query, wrong": (get(query=f"?token={WRONG}", channel="news"), 401),
    "a key in the query": (get(query=f"?token={KEY}"), 401),
    "a cookie": (get(cookie(ANN)), 200),
    "a cookie in quotes": (get(f'Cookie: sid="{ANN}"\r\n'), 200),
    "another cookie": (get(f"Cookie: other={ANN}\r\n"), 401),
    "an empty cookie": (get(cookie(""), channel="news"), 200),
    "a wrong cookie": (get(cookie(WRONG), channel="news"), 401),
    "a key in a cookie": (get(cookie(KEY)), 401),
    "a cookie of the own origin": (get(cookie(ANN) + OWN), 200),
    "a cookie of a named origin": (get(cookie(ANN) + NAMED), 200),
    "a cookie of any origin": (get(cookie(ANN) + ANY), 401),
    "a wrong cookie of any origin": (get(cookie(WRONG) + ANY, channel="news"), 200),
    "a cookie of another site": (get(cookie(ANN) + "Sec-Fetch-Site: cross-site\r\n"), 401),
    "a cookie of another host": (get(cookie(ANN) + "Sec-Fetch-Site: same-site\r\n"), 401),
    "a cookie of the own page": (get(cookie(ANN) + "Sec-Fetch-Site: same-origin\r\n"), 200),
    "a cookie of a person": (get(cookie(ANN) + "Sec-Fetch-Site: none\r\n"), 200),
    "a token of any origin": (get(bearer(ANN) + ANY), 200),
    "two that are the same": (get(bearer(ANN) + cookie(ANN), f"?token={ANN}"), 200),
    "two that agree": (get(bearer(ANN) + cookie(LONGER)), 200),
    "two users": (get(bearer(ANN) + cookie(BOB)), 400),
    "two that grant different channels": (get(bearer(ANN), f"?token={token()}"), 400),
    "one that is wrong": (get(bearer(ANN), f"?token={WRONG}"), 401),
    "one that is old": (get(bearer(ANN) + cookie(OLD)), 401),
    "a user and a server": (get(bearer(KEY) + cookie(ANN)), 400),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_answer_to_credentials(guarded: Bench, parse: Parse, name: str) -> None:
    """Credentials that can't be verified, or two that differ, are refused, and no part of them is in the answer."""
    data, status = PLACES[name]
    raw = guarded.ask(data)
    answer = parse(raw)
    assert status == answer.status
    assert ("Bearer" if status == 401 else None) == answer.headers.get("www-authenticate")
    assert not any(secret.encode() in raw for secret in (ANN, BOB, OLD, WRONG, KEY))
    line = data.partition(b"\r\n")[0]
    secret_url = b"ken=" in line or b"icket=" in line
    assert ("no-referrer" if secret_url else None) == answer.headers.get("referrer-policy")


# What nobody may send, and a part of what the answer says. The server has a public key of kid "a", and is `chat`.
FORGED: dict[str, tuple[str, str]] = {
    "no signature": (forged({"alg": "none"}), "Tokens signed with 'none' are not taken here"),
    "the public key as a secret": (forged({"alg": "HS256"}, PUBLIC), "Tokens signed with 'HS256' are not taken here"),
    "a key of its own": (forged({"jwk": {"kty": "RSA", "n": "AQ", "e": "AQAB"}}), "has jwk, which is not taken"),
    "a key elsewhere": (forged({"jku": "https://evil.example/keys"}), "has jku, which is not taken"),
    "a certificate elsewhere": (forged({"x5u": "https://evil.example/c"}), "has x5u, which is not taken"),
    "a key that is not known": (forged({"kid": "b"}), "not known here"),
    "a key by a path": (forged({"kid": "../../etc/passwd"}), "not known here"),
    "another's signature": (forged({}, signer=private_key("ES256"), algorithm="ES256"), "not taken here"),
    "ended": (forged({}, exp=int(NOW) - 1, iat=int(NOW) - 60), "has expired"),
    "not yet valid": (forged({}, nbf=int(NOW) + 10), "not valid yet"),
    "of another audience": (forged({}, aud="shop"), "aud"),
    "of no audience": (forged({}, aud=None), "aud"),
}


@pytest.mark.parametrize("name", FORGED)
def test_the_answer_to_a_forged_token(bench: Bench, parse: Parse, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with 401 and the reason, wherever it stands, and nothing is asked for over a network."""
    monkeypatch.setattr(socket, "socket", lambda *arguments, **more: pytest.fail("it opens a socket"))
    rules = TokenRules(algorithms=frozenset({"RS256"}), audience=frozenset({"chat"}), leeway=0.0)
    keys = KeySet([dataclasses.replace(key, kid="a") for key in parse_pem(PUBLIC.encode(), "public.pem")])
    settings = replace(bench.app.settings, access=ACCESS)
    bench.app.adopt(
        Rules(
            settings, bench.app.hosts, Origins(), Authenticator(TokenVerifier(keys, rules), ServerKeys()), cookie="sid"
        )
    )
    assert 200 == parse(bench.ask(get(bearer(forged({}))))).status
    text, why = FORGED[name]
    for data in (get(bearer(text)), get(query=f"?token={text}"), get(cookie(text)), get(bearer(text), channel="news")):
        raw = bench.ask(data)
        answer = parse(raw)
        assert (401, "Bearer") == (answer.status, answer.headers.get("www-authenticate"))
        assert "unauthorized" == answer.json["error"]["code"]
        assert why in answer.json["error"]["message"]
        assert text.encode() not in raw


@pytest.mark.parametrize(
    "method, path", [("POST", "/v1/channels/user.ann"), ("POST", "/v1/publish"), ("OPTIONS", "/v1/publish")]
)
def test_every_route_looks_at_them(guarded: Bench, parse: Parse, method: str, path: str) -> None:
    """A request with a wrong token is refused, whatever it asks for."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{bearer(WRONG)}Content-Length: 1\r\n\r\n1"
    assert 401 == parse(guarded.ask(head.encode())).status


def test_each_request_has_its_own(guarded: Bench, parse: Parse) -> None:
    """A connection that a proxy keeps carries users one after the other, and nobody gets what the last one may."""
    connection, transport = guarded.connect()
    statuses = []
    for headers in (bearer(ANN), "", bearer(BOB), cookie(ANN), bearer(KEY), "", bearer(ANN), bearer(ANN), ""):
        connection.receive(get(headers))
        statuses.append(parse(transport.take()).status)
    assert [200, 401, 403, 200, 200, 401, 200, 200, 401] == statuses


def test_a_remembered_poll_is_held_to_the_end_of_its_token(guarded: Bench, parse: Parse) -> None:
    """The answer may be in memory; whether it may be given is asked each time."""
    connection, transport = guarded.connect()
    statuses = []
    for second in (NOW, NOW, NOW + 89, NOW + 90):
        guarded.app.wall = lambda second=second: second  # type: ignore[misc]
        guarded.app.read_clock()
        connection.receive(get(bearer(ANN)))
        statuses.append(parse(transport.take()).status)
    assert [200, 200, 200, 401] == statuses


def test_a_remembered_poll_verifies_no_token_twice_and_still_obeys_a_revocation(
    guarded: Bench, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated poll verifies its token once, and is refused after a revocation or from another address."""
    ignored: list[str] = []
    desk = Bulletin(guarded.app.node, lambda: NOW, lambda: 0.0, bytes, ignored.append, ignored.append)
    guarded.app.bulletin = desk
    guarded.app.wall = lambda: NOW
    guarded.app.read_clock()
    verified: list[str] = []
    identify = Authenticator._identify

    def look(self: Authenticator, credential: str, address: str, now: float) -> Identity:
        verified.append(address)
        return identify(self, credential, address, now)

    monkeypatch.setattr(Authenticator, "_identify", look)
    connection, transport = guarded.connect()
    other, others = guarded.connect()
    other.identity = Identity("192.0.2.7")
    for asks, sent in ((connection, transport), (connection, transport), (connection, transport), (other, others)):
        asks.receive(get(bearer(ANN)))
        assert 200 == parse(sent.take()).status
    assert ["", "192.0.2.7"] == verified[-2:]
    assert len(verified) <= 3  # the first poll of a second is not kept
    assert ("ann", "192.0.2.7") == (other.identity.subject, other.identity.address)
    desk.revoked["ann"] = NOW + 60
    connection.receive(get(bearer(ANN)))
    assert 401 == parse(transport.take()).status


@pytest.mark.parametrize("name", ["ticket", "%74icket"])
def test_a_remembered_poll_with_a_ticket_is_not_given_again(guarded: Bench, parse: Parse, name: str) -> None:
    """The same head comes in the same second and at the same version of the log; the ticket in it was used."""
    app = guarded.app
    app.wall = lambda: NOW
    app.read_clock()
    app.bulletin = Bulletin(app.node, app.wall, lambda: 0.0, bytes, lambda subject: None, lambda text: None)
    app.bulletin.tick()
    tickets: list[object] = []
    app.bulletin.issue(Identity("", "ann", "token", issued=NOW, expires=NOW + 60), tickets.append)
    guarded.turn()
    connection, transport = guarded.connect()
    answers = []
    for _ in range(2):
        connection.receive(get(query=f"?{name}={tickets[0]}"))
        guarded.turn()
        answers.append(parse(transport.take()))
    assert [200, 401] == [answer.status for answer in answers]
    assert {} == app.memo._polls  # which is the cause: nothing has changed, and no second has passed


class Moody(Access):
    """Rules of an application, which may change at any moment."""

    def __init__(self) -> None:
        self.allows = True

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        if not self.allows:
            raise Refusal("forbidden", "Not now.")


def test_rules_that_may_change_are_asked_about_a_remembered_poll(guarded: Bench, parse: Parse) -> None:
    """Only the rules of the settings are the same until other ones are adopted."""
    app, moody = guarded.app, Moody()
    app.adopt(Rules(replace(app.settings, access=moody), app.hosts, app.origins, knowing()))
    connection, transport = guarded.connect()
    for allows, status in ((True, 200), (True, 200), (False, 403)):
        moody.allows = allows
        connection.receive(get(bearer(ANN)))
        assert status == parse(transport.take()).status


def test_an_answer_of_the_rules_before_is_not_remembered(
    guarded: Bench, parse: Parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll waits for the log while other rules are adopted: its answer is given, and not given again."""
    app, held = guarded.app, list[Callable[[], None]]()
    connection, transport = guarded.connect()
    other, others = guarded.connect()
    with monkeypatch.context() as patch:
        patch.setattr(listening, "answer_poll", lambda *given: held.append(partial(answer_poll, *given)))
        connection.receive(get(channel="news"))
    access = AccessRules({"news": ("server", "server")})
    app.adopt(Rules(replace(app.settings, access=access), app.hosts, app.origins, knowing()))
    other.receive(get(channel="news"))
    assert 403 == parse(others.take()).status
    held.pop()()
    assert 200 == parse(transport.take()).status
    other.receive(get(channel="news"))
    assert 403 == parse(others.take()).status


def test_no_credentials_are_logged(
    guarded: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that fails in our code, too, is logged without its query and headers."""

    def fail(*given: object) -> None:
        raise ValueError("a defect")

    guarded.app.node.poll = fail  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.DEBUG):
        answer = guarded.ask(get(bearer(ANN), f"?token={ANN}"))
        monkeypatch.setattr(routes, "parse_channels", fail)
        wrong = guarded.ask(get(bearer(ANN), f"%3Ftoken={ANN}"))
    assert b"500" in answer[:20]
    assert b"500" in wrong[:20]
    assert 'GET "/v1/channels/user.ann..."' in caplog.text
    assert "a request could not be handled" in caplog.text
    assert ANN not in caplog.text
    assert ANN.encode() not in answer


@pytest.mark.parametrize(
    "query, public",
    [
        ("", ""),
        ("after=latest", "after=latest"),
        ("token=a.b.c", ""),
        ("after=latest&token=a&limit=1&ticket=b", "after=latest&limit=1"),
        ("tokens=a", "tokens=a"),
        ("%74oken=a&after=latest&t%69cket=b", "after=latest"),
    ],
)
def test_a_query_without_its_secrets(query: str, public: str) -> None:
    """The part of a URL that is logged has no token."""
    assert public == public_query(query)


def test_an_event_stream_with_a_token(guarded: Bench) -> None:
    """An EventSource can send it in the URL only; the stream tells pages not to pass that on."""
    answer = guarded.ask(get("Accept: text/event-stream\r\n", f"?token={ANN}"))
    assert b"HTTP/1.1 200 " in answer
    assert b"Referrer-Policy: no-referrer\r\n" in answer


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {}\r\n"
)


@pytest.mark.parametrize(
    "protocols, status",
    [
        (f"oncecast.v1, oncecast.token.{ANN}", 101),
        (f"oncecast.token.{ANN},oncecast.v1", 101),
        ("oncecast.v1", 401),
        (f"oncecast.v1, oncecast.token.{BOB}", 403),
        (f"oncecast.v1, oncecast.token.{WRONG}", 401),
        ("oncecast.v1, oncecast.token.", 401),
        (f"oncecast.v1, oncecast.token.{KEY}", 401),
        (f"oncecast.v1, oncecast.token.{ANN}, oncecast.token.{BOB}", 400),
        (f"oncecast.token.{ANN}", 400),
    ],
)
def test_a_token_among_the_subprotocols(guarded: Bench, protocols: str, status: int) -> None:
    """A browser can send no header; only `oncecast.v1` is ever selected, so that no answer repeats a token."""
    answer = guarded.ask(get(UPGRADE.format(protocols)))
    assert f"HTTP/1.1 {status} ".encode() == answer[:13]
    assert (b"Sec-WebSocket-Protocol: oncecast.v1\r\n" in answer) is (status == 101)
    assert b"oncecast.token." not in answer


def test_keys_that_a_reload_has_removed_leave_nobody_behind(guarded: Bench, parse: Parse) -> None:
    """A request without credentials is nobody's, also on a connection that was a server's or a user's before."""
    app = guarded.app
    for known in (KEY, ANN):
        app.adopt(Rules(app.settings, app.hosts, app.origins, knowing()))
        connection, transport = guarded.connect()
        connection.receive(get(bearer(known)))
        assert 200 == parse(transport.take()).status
        app.adopt(Rules(app.settings, app.hosts, app.origins))
        connection.receive(get())
        assert 401 == parse(transport.take()).status


def test_a_server_key_that_a_reload_has_removed_ends_what_it_opened(guarded: Bench) -> None:
    """A key has no end of its own: a stream would go on for good. Another key by the same name is another one."""
    app = guarded.app
    other = Authenticator(None, ServerKeys([hash_line("shop", make_key(b"\1" * 32))]))
    for reloaded in (None, other):
        app.adopt(Rules(app.settings, app.hosts, app.origins, knowing()))
        stream, of_stream = guarded.connect()
        stream.receive(get(f"Accept: text/event-stream\r\n{bearer(KEY)}"))
        socket, of_socket = guarded.connect()
        socket.receive(get(UPGRADE.format("oncecast.v1") + bearer(KEY)))
        poll, of_poll = guarded.connect()
        poll.receive(get(bearer(KEY), "?after=latest&wait=30"))
        guarded.turn()
        kept, of_kept = guarded.connect()
        kept.receive(get(UPGRADE.format("oncecast.v1") + bearer(ANN)))
        assert b" 101 " in of_socket.take() + of_kept.take()
        app.adopt(Rules(app.settings, app.hosts, app.origins, knowing()))
        app.tick()
        assert b"unauthorized" not in of_stream.take() + of_socket.take() + of_poll.take()
        app.adopt(Rules(app.settings, app.hosts, app.origins, reloaded))
        app.tick()
        assert b'event: error\ndata: {"error":{"code":"unauthorized"' in of_stream.take()
        assert (4401).to_bytes(2, "big") + b"This server's key has left" in of_socket.take()
        assert b"HTTP/1.1 401 " in of_poll.take()
        assert b"\x88" not in of_kept.take()  # a token has an end of its own
        for connection in (stream, socket, poll, kept):
            connection.connection_lost(None)
        assert 0 == app.node.hub.subscriptions


def test_a_revoked_token_of_an_issuer_whose_clock_is_ahead(guarded: Bench) -> None:
    """A revocation covers tokens whose iat is later than it by the leeway, as an issuer's clock may be ahead."""
    ignored: list[str] = []
    desk = Bulletin(guarded.app.node, lambda: NOW, lambda: 0.0, bytes, ignored.append, ignored.append)
    guarded.app.bulletin = desk
    desk.revoked["ann"] = NOW
    for ahead, status in ((20, 401), (29, 401), (30, 200)):
        ahead_of_us = token(claims(iat=NOW + ahead, oncecast={"subscribe": ["user.{sub}"]}))
        assert f"HTTP/1.1 {status} ".encode() == guarded.ask(get(bearer(ahead_of_us)))[:13]


def test_a_revoked_token_beside_a_fresh_one(guarded: Bench) -> None:
    """Each of two tokens of one user has to count, whichever ends later and wherever it stands."""
    ignored: list[str] = []
    guarded.app.bulletin = Bulletin(guarded.app.node, lambda: NOW, lambda: 0.0, bytes, ignored.append, ignored.append)
    guarded.app.bulletin.revoked["ann"] = NOW
    grants = {"subscribe": ["user.{sub}"]}
    fresh = token(claims(iat=NOW + 30, exp=NOW + 100, oncecast=grants))
    for end in (NOW + 50, NOW + 200):
        revoked = token(claims(iat=NOW - 5, exp=end, oncecast=grants))
        for one, other in ((fresh, revoked), (revoked, fresh)):
            assert b"HTTP/1.1 401 " == guarded.ask(get(bearer(one), f"?token={other}"))[:13]
    assert b"HTTP/1.1 200 " == guarded.ask(get(bearer(fresh), f"?token={fresh}"))[:13]
