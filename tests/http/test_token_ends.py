"""A token that ends on a live connection: a warning, time to renew, and an end that says why; nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from oncecast.http.service import Rules
from oncecast.policy.authenticator import Authenticator
from oncecast.policy.keys import KeySet, parse_secret
from oncecast.policy.rules import AccessRules
from oncecast.policy.server_keys import ServerKeys, hash_line, make_key
from oncecast.policy.tokens import TokenRules, TokenVerifier
from oncecast.server.connection import Connection
from oncecast.wire.ws_connection import CloseReceived, DataReceived, Role, WebSocketConnection
from tests.token_rig import NOW, SECRET, claims, token

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Bench, FakeTransport

KEY = make_key(bytes(32))
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
V1 = UPGRADE + "Sec-WebSocket-Protocol: oncecast.v1\r\n"
ENDED = "The token has ended: get a fresh one, connect again, and resume from your cursor."


def lasting(seconds: float, **more: Any) -> str:
    """Return a token that is refused after so many seconds from now: its exp and the leeway."""
    return token(claims(iat=NOW - 1000, exp=NOW + seconds - 30, **more))


class Line:
    """A connection of a client, and the clocks of the server."""

    def __init__(self, bench: Bench, credential: str | None, headers: str = "", path: str = "channels/c") -> None:
        self.bench = bench
        self.headers = headers
        self.connection: Connection
        self.transport: FakeTransport
        self.connection, self.transport = bench.connect()
        self.codec = WebSocketConnection(Role.CLIENT, mask_key=lambda: b"mask")
        bearer = "" if credential is None else f"Authorization: Bearer {credential}\r\n"
        head = f"GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\n{bearer}{headers}\r\n"
        self.connection.receive(head.encode())
        self.answer, _, self.rest = self.transport.take().partition(b"\r\n\r\n")

    def after(self, seconds: float) -> bytes:
        """Return what has come once this much time has passed, with a look of the wheel in each second."""
        for second in range(int(seconds)):
            self.bench.seconds += 1
            if second % 10 == 0 and "websocket" in self.headers:
                self.connection.receive(self.codec.ping())  # a sign of life, as its pongs come late
            self.bench.app.tick()
        self.bench.turn()
        rest, self.rest = self.rest, b""
        return rest + self.transport.take()

    def frames(self, data: bytes) -> list[dict[str, Any] | tuple[int | None, str]]:
        """Read the frames of `oncecast.v1`, without heartbeats; a Close is its code and reason."""
        found: list[dict[str, Any] | tuple[int | None, str]] = []
        for event in self.codec.receive(data):
            if isinstance(event, DataReceived):
                found.append(json.loads(event.data))
            elif isinstance(event, CloseReceived):
                found.append((event.code, event.reason))
        if pongs := self.codec.data_to_send():
            self.connection.receive(pongs)
        return [frame for frame in found if not (isinstance(frame, dict) and frame["type"] == "cursor")]

    def ask(self, **frame: object) -> list[dict[str, Any] | tuple[int | None, str]]:
        """Send a frame, and return what comes back."""
        self.connection.receive(self.codec.text(json.dumps(frame).encode()))
        return self.frames(self.after(0))


@pytest.fixture
def guarded(bench: Bench) -> Bench:
    """A server that knows a secret and a key, whose wall clock goes with the other."""
    verifier = TokenVerifier(KeySet([parse_secret(SECRET, "s")]), TokenRules())
    authenticator = Authenticator(verifier, ServerKeys([hash_line("shop", KEY)]))
    access = AccessRules({"*": ("token", "token"), "open": ("public", "public")})
    settings = replace(bench.app.settings, access=access)
    bench.app.adopt(Rules(settings, bench.app.hosts, bench.app.origins, authenticator))
    began = bench.seconds
    bench.app.wall = lambda: NOW + bench.seconds - began
    return bench


def test_an_event_stream(guarded: Bench) -> None:
    """`expiring` comes half a minute before, and `error` at the end; neither has an id, so the place is kept."""
    line = Line(guarded, lasting(100), "Accept: text/event-stream\r\n")
    assert b"event" not in line.after(69)
    assert b'event: expiring\ndata: {"expires_in_ms":30000}\n\n' in line.after(1)
    assert b"event" not in line.after(29)
    last = line.after(1)
    assert b"event: error\ndata: " in last
    data = last.partition(b"event: error\ndata: ")[2].partition(b"\n")[0]
    assert {"code": "unauthorized", "message": ENDED, "docs": "/docs/errors#unauthorized"} == json.loads(data)["error"]
    assert last.endswith(b"0\r\n\r\n")
    assert b"id:" not in last
    assert 0 == guarded.app.node.hub.subscriptions


def test_a_socket_of_frames(guarded: Bench) -> None:
    """The same as frames, and a Close with 4401."""
    line = Line(guarded, lasting(100), V1)
    assert ["subscribed"] == [frame["type"] for frame in line.frames(line.after(69)) if isinstance(frame, dict)]
    assert [{"type": "expiring", "expires_in_ms": 30000}] == line.frames(line.after(1))
    assert [] == line.frames(line.after(29))
    assert [(4401, ENDED)] == line.frames(line.after(1))


def test_a_raw_socket(guarded: Bench) -> None:
    """A raw socket gets no warning before its token ends, and the reason in its Close."""
    line = Line(guarded, lasting(100), UPGRADE)
    assert [] == line.frames(line.after(99))
    assert [(4401, ENDED)] == line.frames(line.after(1))


def test_a_long_poll_is_answered_at_the_end(guarded: Bench, parse: Callable[..., Answer]) -> None:
    """With what there is, so nothing is lost; the next one needs another token."""
    line = Line(guarded, lasting(20), path="channels/c?after=latest&wait=60")
    assert b"" == line.answer
    assert b"" == line.after(19)
    answer = parse(line.after(2))
    assert (200, []) == (answer.status, answer.json["messages"])
    line.connection.receive(
        f"GET /v1/channels/c HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {lasting(20)}\r\n\r\n".encode()
    )
    assert 401 == parse(line.transport.take()).status


def test_a_renewed_token_keeps_the_socket(guarded: Bench) -> None:
    """A socket with a renewed token gets the warning and the end of that token, and messages pass all the time."""
    line = Line(guarded, lasting(100), V1)
    line.frames(line.after(75))
    (answer,) = line.ask(type="auth", token=lasting(300), ref=1)
    assert {"type": "authenticated", "sub": "ann", "expires": NOW + 300, "ref": 1} == answer
    assert [] == line.frames(line.after(194))
    guarded.publish("c", b"1")
    assert ["message"] == [frame["type"] for frame in line.frames(line.after(0)) if isinstance(frame, dict)]
    assert [{"type": "expiring", "expires_in_ms": 30000}] == line.frames(line.after(1))
    assert [(4401, ENDED)] == line.frames(line.after(30))


def test_anybody_becomes_a_user(guarded: Bench) -> None:
    """A socket may begin without credentials; from its `auth` frame on it is that user's."""
    line = Line(guarded, None, V1, path="connect")
    (refused,) = line.ask(type="subscribe", channel="c", ref="c")
    assert isinstance(refused, dict)
    assert ("error", "unauthorized", "c") == (refused["type"], refused["code"], refused["ref"])
    (answer,) = line.ask(type="auth", token=lasting(100))
    assert {"type": "authenticated", "sub": "ann", "expires": NOW + 100, "ref": None} == answer
    (subscribed,) = line.ask(type="subscribe", channel="c", ref="c")
    assert isinstance(subscribed, dict)
    assert "subscribed" == subscribed["type"]
    assert [(4401, ENDED)] == line.frames(line.after(100))[-1:]


def test_frames_of_one_read_are_held_to_the_identity_of_their_moment(guarded: Bench) -> None:
    """A frame before the `auth` frame of the same read is judged without the identity that it brings."""
    line = Line(guarded, None, V1, path="connect")
    frames = [
        {"type": "publish", "channel": "c", "data": 1, "ref": 1},
        {"type": "auth", "token": lasting(100), "ref": 2},
        {"type": "publish", "channel": "c", "data": 2, "ref": 3},
    ]
    line.connection.receive(b"".join(line.codec.text(json.dumps(frame).encode()) for frame in frames))
    answers = line.frames(line.after(0))
    assert [("error", 1), ("authenticated", 2), ("published", 3)] == [
        (answer["type"], answer["ref"]) for answer in answers if isinstance(answer, dict)
    ]


@pytest.mark.parametrize(
    "credential, code",
    [
        ("x", "unauthorized"),
        (token(key="another secret of at least 32 bytes"), "unauthorized"),
        (lasting(-1), "unauthorized"),
        (lasting(100, sub="bob"), "forbidden"),
        (lasting(100, sub=None), "forbidden"),
        (KEY, "unauthorized"),
    ],
)
def test_a_wrong_token_changes_nothing(guarded: Bench, credential: str, code: str) -> None:
    """Nor one of another user: the connection stays what it was, for as long as it was."""
    line = Line(guarded, lasting(100), V1)
    line.frames(line.after(0))
    (answer,) = line.ask(type="auth", token=credential, ref="a")
    assert isinstance(answer, dict)
    assert ("error", code, "a") == (answer["type"], answer["code"], answer["ref"])
    assert credential not in answer["message"]
    assert ["message"] == [frame["type"] for frame in self_publish(line) if isinstance(frame, dict)]
    assert [(4401, ENDED)] == line.frames(line.after(100))[-1:]


def self_publish(line: Line) -> list[dict[str, Any] | tuple[int | None, str]]:
    """Publish behind the server's back, and return what the client gets."""
    line.bench.publish("c", b"1")
    return line.frames(line.after(0))


def test_a_token_that_grants_less(guarded: Bench) -> None:
    """A channel that it does not grant would go on: the connection ends, and says which."""
    line = Line(guarded, lasting(100), V1)
    line.frames(line.after(0))
    answers = line.ask(type="auth", token=lasting(100, oncecast={"subscribe": ["d"]}))
    assert (4403, "This token names the channels to which it may subscribe: c is none of them.") == answers[-1]
    assert 0 == guarded.app.node.hub.subscriptions


def test_a_servers_key_in_a_frame(guarded: Bench) -> None:
    """A server's key is accepted in the header only, and refused in a frame, which a page could send."""
    line = Line(guarded, None, V1, path="connect")
    (refused,) = line.ask(type="auth", token=KEY, ref=1)
    assert isinstance(refused, dict)
    assert ("error", "unauthorized", 1) == (refused["type"], refused["code"], refused["ref"])
    assert "in the header Authorization: Bearer, and nowhere else" in refused["message"]
    assert KEY not in refused["message"]
    (still,) = line.ask(type="subscribe", channel="c", ref=2)
    assert isinstance(still, dict)
    assert ("error", "unauthorized", 2) == (still["type"], still["code"], still["ref"])


def test_a_server_has_no_end(guarded: Bench) -> None:
    """A key is for good; and a connection that is gone is not looked at again."""
    line = Line(guarded, KEY, V1)
    assert 0 == len(guarded.app.expiries)
    line.connection.connection_lost(None)
    gone = Line(guarded, lasting(100), V1)
    assert 1 == len(guarded.app.expiries)
    gone.connection.connection_lost(None)
    assert 0 == len(guarded.app.expiries)


def test_a_clock_that_jumps(guarded: Bench) -> None:
    """Back: the token lasts longer, by that clock. Forth: it ends."""
    wall = guarded.app.wall
    line = Line(guarded, lasting(100), V1)
    line.frames(line.after(0))
    guarded.app.wall = lambda: wall() - 3600
    assert [] == line.frames(line.after(100))
    guarded.app.wall = wall
    assert [(4401, ENDED)] == line.frames(line.after(2))[-1:]


def test_a_server_without_keys(bench: Bench) -> None:
    """A server without keys answers an `auth` frame with an error."""
    line = Line(bench, None, V1)
    line.frames(line.after(0))
    (answer,) = line.ask(type="auth", token="x", ref=1)
    assert isinstance(answer, dict)
    assert ("error", "request_invalid", 1) == (answer["type"], answer["code"], answer["ref"])
