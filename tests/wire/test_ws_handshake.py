"""The opening handshake of RFC 6455 §4, both ends, and against another implementation of it."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Mapping, Sequence

import pytest
from websockets.client import ClientProtocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from oncecast.errors import Refusal, UsageError
from oncecast.wire import ws_handshake
from oncecast.wire.ws_handshake import (
    Extensions,
    HandshakeFailed,
    Upgrade,
    accept_key,
    accept_response,
    answered_extensions,
    check_response,
    new_key,
    parse_upgrade,
    request_bytes,
    wants_upgrade,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

ASKING = {
    "host": "server.example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}
ANSWER = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}


def changed(headers: Mapping[str, str], **changes: str | None) -> dict[str, str]:
    """Return `headers` with some set, or removed by `None`; `_` stands for `-` in a name."""
    result: dict[str, str | None] = {**headers}
    result.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in result.items() if value is not None}


def split_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Return the first line and the headers of a whole message head."""
    start, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, value = line.split(": ", 1)
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return start, headers


# -- keys


def test_accept_key_of_the_rfc() -> None:
    """The example of RFC 6455 §1.3 comes out."""
    assert ACCEPT == accept_key(KEY)


def test_new_keys_are_fresh() -> None:
    """A key is 16 bytes in base64, and no two are the same."""
    keys = {new_key() for _ in range(100)}
    assert 100 == len(keys)
    assert {16} == {len(base64.b64decode(key, validate=True)) for key in keys}


# -- the server's end


@pytest.mark.parametrize(
    "upgrade, wanted",
    [
        ("websocket", True),
        ("WebSocket", True),
        ("h2c, websocket", True),
        (" , websocket ,", True),
        ("", False),
        ("h2c", False),
        ("websockets", False),
        ("websocket/13", False),
        (None, False),
    ],
)
def test_wants_upgrade(upgrade: str | None, wanted: bool) -> None:
    """A request wants a WebSocket if its Upgrade header lists it, in any case."""
    assert wanted == wants_upgrade(changed(ASKING, upgrade=upgrade))


def test_upgrade_of_the_least_request() -> None:
    """A request with nothing optional is read."""
    assert Upgrade(KEY, (), (), None) == parse_upgrade("GET", (1, 1), ASKING)


def test_upgrade_of_a_full_request() -> None:
    """The subprotocols keep their order and case, the extensions are read, and the origin comes as it was sent."""
    headers = changed(
        ASKING,
        connection="keep-alive, UPGRADE",
        content_length="0",
        sec_websocket_protocol="oncecast.v1,, \tChat ,",
        sec_websocket_extensions="permessage-deflate; client_max_window_bits",
        origin="https://example.com",
    )
    extensions = (("permessage-deflate", (("client_max_window_bits", None),)),)
    upgrade = Upgrade(KEY, ("oncecast.v1", "Chat"), extensions, "https://example.com")
    assert upgrade == parse_upgrade("GET", (1, 1), headers)


@pytest.mark.parametrize(
    "code, status, text, changes",
    [
        ("request_invalid", 400, "Upgrade: websocket", {"upgrade": None}),
        ("request_invalid", 400, "Upgrade: websocket", {"upgrade": "h2c"}),
        ("request_invalid", 400, "Connection: Upgrade", {"connection": None}),
        ("request_invalid", 400, "Connection: Upgrade", {"connection": "keep-alive, upgraded"}),
        ("request_invalid", 400, "no body", {"content_length": "5"}),
        ("request_invalid", 400, "no body", {"content_length": ""}),
        ("request_invalid", 400, "no body", {"transfer_encoding": "chunked"}),
        ("request_invalid", 400, "one Sec-WebSocket-Version", {"sec_websocket_version": "13, 13"}),
        ("request_invalid", 400, "one Sec-WebSocket-Version", {"sec_websocket_version": "13, 8"}),
        ("upgrade_required", 426, "Version: 13", {"sec_websocket_version": None}),
        ("upgrade_required", 426, "Version: 13", {"sec_websocket_version": "8"}),
        ("upgrade_required", 426, "Version: 13", {"sec_websocket_version": "013"}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": None}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": ""}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": f"{KEY}, {KEY}"}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": KEY.strip("=")}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": KEY.replace("G", "-")}),
        ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": KEY + "\n"}),
        *(
            ("request_invalid", 400, "one Sec-WebSocket-Key", {"sec_websocket_key": encoded})
            for encoded in (base64.b64encode(bytes(15)).decode(), base64.b64encode(bytes(17)).decode())
        ),
        ("request_invalid", 400, "subprotocol once", {"sec_websocket_protocol": "a, b, a"}),
        ("request_invalid", 400, "as a token", {"sec_websocket_protocol": "a b"}),
        ("request_invalid", 400, "as a token", {"sec_websocket_protocol": "chat/1"}),
        ("request_invalid", 400, "as a token", {"sec_websocket_protocol": "é"}),
        ("request_invalid", 400, "Sec-WebSocket-Extensions", {"sec_websocket_extensions": "a; b="}),
    ],
)
def test_bad_requests(code: str, status: int, text: str, changes: dict[str, str | None]) -> None:
    """A request that breaks RFC 6455 §4.2.1 is refused with its code and a sentence that says what to change."""
    with pytest.raises(Refusal, match=re.escape(text)) as caught:
        parse_upgrade("GET", (1, 1), changed(ASKING, **changes))
    assert (code, status) == (caught.value.code, caught.value.error.status)


@pytest.mark.parametrize(
    "header, extensions",
    [
        ("", ()),
        (" ,\t, ", ()),
        ("a", (("a", ()),)),
        ("a, b,,c ,", (("a", ()), ("b", ()), ("c", ()))),
        ("a, a", (("a", ()), ("a", ()))),
        ("a;b", (("a", (("b", None),)),)),
        ("A;B=C", (("A", (("B", "C"),)),)),
        ("a ; b = c\t;d, e; f", (("a", (("b", "c"), ("d", None))), ("e", (("f", None),)))),
        ('a; b="c"; d', (("a", (("b", "c"), ("d", None))),)),
        ('a; b="\\1\\5"', (("a", (("b", "15"),)),)),
        ("a; b; b=1", (("a", (("b", None), ("b", "1"))),)),
        ("x-webkit.deflate!", (("x-webkit.deflate!", ()),)),
        ("a b", None),
        ("a;", None),
        ("a; b=", None),
        ("a; =b", None),
        ("a=b", None),
        (";a", None),
        ("a;;b", None),
        ("a; b=c=d", None),
        ("a; b c", None),
        ('"a"', None),
        ('a; b=""', None),
        ('a; b="c', None),
        ('a; b="c d"', None),
        ('a; b="c,d"', None),
        ('a; b="c\\', None),
        ('a; b="\\\\"', None),
        ('a; b="c"d', None),
        ("a; b=é", None),
        ("a/b", None),
        ("a, b; c=, d", None),
    ],
)
def test_extensions(header: str, extensions: Extensions | None) -> None:
    """Offers and answers follow RFC 6455 §9.1; a header that does not is refused by the server and by the client."""
    if extensions is None:
        with pytest.raises(Refusal, match="Sec-WebSocket-Extensions"):
            parse_upgrade("GET", (1, 1), changed(ASKING, sec_websocket_extensions=header))
        with pytest.raises(HandshakeFailed, match="malformed"):
            answered_extensions({"sec-websocket-extensions": header})
    else:
        upgrade = parse_upgrade("GET", (1, 1), changed(ASKING, sec_websocket_extensions=header))
        assert extensions == upgrade.extensions == answered_extensions({"sec-websocket-extensions": header})


def test_reading_extensions_is_linear() -> None:
    """A long header that ends wrong is refused at once."""
    started = time.process_time()
    for unit in ("a;b,", "a; b=1; ", "a \t", "; a =  ", 'a;b="\\a', ", ", " "):
        with contextlib.suppress(HandshakeFailed):
            answered_extensions({"sec-websocket-extensions": unit * 16_384 + "("})
    assert time.process_time() - started < 1  # some 0.1 s


@pytest.mark.parametrize(
    "method, version, text",
    [("POST", (1, 1), "GET"), ("get", (1, 1), "GET"), ("GET", (1, 0), "HTTP/1.1"), ("GET", (0, 9), "HTTP/1.1")],
)
def test_bad_request_lines(method: str, version: tuple[int, int], text: str) -> None:
    """Another method than GET, and HTTP/1.0, are refused."""
    with pytest.raises(Refusal, match=text) as caught:
        parse_upgrade(method, version, ASKING)
    assert "request_invalid" == caught.value.code


def test_accept_response_is_whole() -> None:
    """The answer is a whole head: the status line, the key's answer, and an empty line."""
    expected = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
    assert expected.encode() == accept_response(Upgrade(KEY, ("chat",), (), None), None)


def test_accept_response_with_everything() -> None:
    """A subprotocol and extra headers follow, in order."""
    upgrade = Upgrade(KEY, ("chat", "oncecast.v1"), (), None)
    head = accept_response(upgrade, "oncecast.v1", [("Server", "é"), ("X-A", "")])
    assert head.endswith(b"Sec-WebSocket-Protocol: oncecast.v1\r\nServer: \xe9\r\nX-A: \r\n\r\n")


def test_accept_response_takes_an_offered_protocol() -> None:
    """A subprotocol that was not offered is our misuse, its case counts."""
    with pytest.raises(UsageError, match="did not offer the subprotocol 'Chat'"):
        accept_response(Upgrade(KEY, ("chat",), (), None), "Chat")


BAD_HEADERS = [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\0"), ("X", "€"), ("X: Y", "a"), ("", "a"), ("X\r\n", "a")]


@pytest.mark.parametrize("header", BAD_HEADERS)
def test_headers_cannot_inject_lines(header: tuple[str, str]) -> None:
    """A header that could begin another line is our misuse, at both ends."""
    with pytest.raises(UsageError, match="malformed"):
        accept_response(Upgrade(KEY, (), (), None), None, [header])
    with pytest.raises(UsageError, match="malformed"):
        request_bytes("a", "/", KEY, headers=[header])


# -- the client's end


def test_request_bytes_are_whole() -> None:
    """The least request is a whole head."""
    expected = (
        "GET /chat?x=1 HTTP/1.1\r\nHost: server.example.com:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert expected.encode() == request_bytes("server.example.com:8080", "/chat?x=1", KEY)


def test_request_bytes_with_everything() -> None:
    """Subprotocols are listed in order, and more headers follow."""
    head = request_bytes("a", "/", KEY, protocols=["b", "a"], headers=[("Authorization", "Bearer x")])
    assert head.endswith(b"Sec-WebSocket-Protocol: b, a\r\nAuthorization: Bearer x\r\n\r\n")


@pytest.mark.parametrize(
    "host, target, key, protocols, text",
    [
        ("", "/", KEY, (), "host"),
        ("a b", "/", KEY, (), "host"),
        ("a\r\nX: y", "/", KEY, (), "host"),
        ("a\n", "/", KEY, (), "host"),
        ("a", "", KEY, (), "path"),
        ("a", "chat", KEY, (), "path"),
        ("a", "/a b", KEY, (), "path"),
        ("a", "/é", KEY, (), "path"),
        ("a", "/", "short", (), "key"),
        ("a", "/", KEY, ("a", "a"), "once"),
        ("a", "/", KEY, ("a,b",), "token"),
        ("a", "/", KEY, ("",), "token"),
    ],
)
def test_bad_request_arguments(host: str, target: str, key: str, protocols: Sequence[str], text: str) -> None:
    """Arguments that can't stand in a request raise a `UsageError`."""
    with pytest.raises(UsageError, match=text):
        request_bytes(host, target, key, protocols=protocols)


@pytest.mark.parametrize(
    "changes, protocols, protocol",
    [
        ({}, (), None),
        ({}, ("chat",), None),
        ({"sec_websocket_protocol": "chat"}, ("v1", "chat"), "chat"),
        ({"upgrade": "WebSocket", "connection": "keep-alive, upgrade"}, (), None),
        ({"sec_websocket_accept": f"{ACCEPT} "}, (), None),
        ({"sec_websocket_extensions": ""}, (), None),
    ],
)
def test_good_answers(changes: dict[str, str], protocols: Sequence[str], protocol: str | None) -> None:
    """A good answer gives the subprotocol that the server chose."""
    assert protocol == check_response(101, changed(ANSWER, **changes), KEY, protocols)


@pytest.mark.parametrize(
    "status, changes, protocols, text",
    [
        (200, {}, (), "answered 200"),
        (426, {}, (), "answered 426"),
        (101, {"upgrade": None}, (), "Upgrade: websocket"),
        (101, {"upgrade": "h2c"}, (), "Upgrade: websocket"),
        (101, {"connection": None}, (), "Connection: Upgrade"),
        (101, {"connection": "close"}, (), "Connection: Upgrade"),
        (101, {"sec_websocket_accept": None}, (), "Accept"),
        (101, {"sec_websocket_accept": ACCEPT.lower()}, (), "Accept"),
        (101, {"sec_websocket_extensions": "permessage-deflate"}, (), "extension"),
        (101, {"sec_websocket_extensions": "x; y=z, permessage-deflate"}, (), "extension"),
        (101, {"sec_websocket_extensions": "x;"}, (), "malformed"),
        (101, {"sec_websocket_protocol": "chat"}, (), "'chat'"),
        (101, {"sec_websocket_protocol": "Chat"}, ("chat",), "'Chat'"),
        (101, {"sec_websocket_protocol": "a, b"}, ("a", "b"), "'a, b'"),
        (101, {"sec_websocket_protocol": ""}, ("a",), "''"),
    ],
)
def test_bad_answers(status: int, changes: dict[str, str | None], protocols: Sequence[str], text: str) -> None:
    """An answer that breaks RFC 6455 §4.1 fails the handshake and says why."""
    with pytest.raises(HandshakeFailed, match=re.escape(text)) as caught:
        check_response(status, changed(ANSWER, **changes), KEY, protocols)
    assert status == caught.value.status


def test_an_extension_that_was_offered() -> None:
    """An answer may use the extensions that were offered, and no others beside them."""
    answer = changed(ANSWER, sec_websocket_extensions="b; c=1")
    assert None is check_response(101, answer, KEY, (), extensions=("a", "b"))
    with pytest.raises(HandshakeFailed, match="not offered"):
        check_response(101, changed(ANSWER, sec_websocket_extensions="b, c"), KEY, (), extensions=("a", "b"))


# -- against ourselves and another implementation


def test_our_client_and_our_server_agree() -> None:
    """Our server reads our client's request as it was made, and our client the answer."""
    key = new_key()
    line, headers = split_head(request_bytes("a", "/x", key, protocols=["v1", "v2"], headers=[("Origin", "http://a")]))
    upgrade = parse_upgrade(line.split()[0], (1, 1), headers)
    assert ("GET /x HTTP/1.1", Upgrade(key, ("v1", "v2"), (), "http://a")) == (line, upgrade)
    line, headers = split_head(accept_response(upgrade, "v2"))
    assert "v2" == check_response(int(line.split()[1]), headers, key, ["v1", "v2"])


@pytest.mark.parametrize("protocol", ["v2", None])
def test_their_client_opens_ours(protocol: str | None) -> None:
    """The client of the package websockets accepts our server's answer."""
    client = ClientProtocol(parse_uri("ws://example.com/x"), subprotocols=[Subprotocol("v1"), Subprotocol("v2")])
    client.send_request(client.connect())
    line, headers = split_head(b"".join(client.data_to_send()))
    upgrade = parse_upgrade(line.split()[0], (1, 1), headers)
    assert ("v1", "v2") == upgrade.protocols
    client.receive_data(accept_response(upgrade, protocol))
    assert isinstance(client.events_received()[0], Response)
    assert (None, protocol) == (client.handshake_exc, client.subprotocol)


@pytest.mark.parametrize("protocol", ["v2", None])
def test_our_client_opens_theirs(protocol: str | None) -> None:
    """The server of the package websockets accepts our client's request, and its answer is good."""
    server = ServerProtocol(subprotocols=[Subprotocol(protocol)] if protocol else None)
    key = new_key()
    server.receive_data(request_bytes("example.com", "/x", key, protocols=["v1", "v2"]))
    request = server.events_received()[0]
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    line, headers = split_head(b"".join(server.data_to_send()))
    assert None is server.handshake_exc
    assert protocol == check_response(int(line.split()[1]), headers, key, ["v1", "v2"])


def test_both_servers_refuse_a_bad_key() -> None:
    """A malformed key is refused here and by the package websockets, with the same status."""
    head = request_bytes("a", "/", KEY).replace(b"==", b"=")
    server = ServerProtocol()
    server.receive_data(head)
    request = server.events_received()[0]
    assert isinstance(request, Request)
    with pytest.raises(Refusal) as caught:
        parse_upgrade("GET", (1, 1), split_head(head)[1])
    assert server.accept(request).status_code == caught.value.error.status


def test_everything_public_is_there() -> None:
    """Each name in `__all__` exists."""
    assert [] == [name for name in ws_handshake.__all__ if not hasattr(ws_handshake, name)]
