r"""The seeds of the fuzzing targets: small inputs of which each reaches a place of its own.

Each is the variant, the way of cutting (`pieces.py`) and the content. A fuzzer begins with them, and `test_targets.py`
runs them with small changes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame

from .policy_targets import NOW, PUBLIC_KEY

__all__ = ["DICTIONARY", "SEEDS"]

MASK = b"\x01\x02\x03\x04"
GET = b"GET /v1/channels/a?after=e-1&wait=5 HTTP/1.1\r\nHost: a.example:80\r\n"
POST = b"POST /v1/publish HTTP/1.1\r\nHost: [::1]\r\n"
UPGRADE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """Return a masked frame."""
    return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=MASK)


def claims(**more: object) -> bytes:
    """Return a token's claims."""
    return json.dumps({"sub": "ann", "aud": "here", "iat": int(NOW), "exp": int(NOW) + 60, **more}).encode()


SQUEEZED = compress_message(b"to be, or not to be, or to be " * 3)
STREAM = zlib.compressobj(1, zlib.DEFLATED, -15)
ENDED = STREAM.compress(b"ended") + STREAM.flush()

SETTINGS = (
    b'\0\0port = 80\norigins = ["https://a.example"]\n[limits]\nmessage_bytes = 5\nwait_seconds = 1.5\n',
    b'\0\0dev = true\n[channels."chat.*"]\nlag = "latest"\nmessages = 5\n[retention]\nseconds = 1.0\n',
    b'\0\0[auth]\naudience = ["a"]\nsecret_file = "x"\n',
    b"\1\0ONCECAST_PORT=81\nONCECAST_LIMITS__WAIT_SECONDS=2\nONCECAST_ORIGINS=https://a.example,https://b.example",
    b"\1\0ONCECAST_PORT=tcp://1.2.3.4:80\nONCECAST_LIMITS__MESAGE_BYTES=1\nONCECAST_DEV=true",
)

SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "requests": (
        b"\0\0" + GET + b"\r\n",
        b"\0\xff" + GET + b"Accept: text/event-stream\r\nOrigin: null\r\n\r\n" + GET + b"\r\n",
        b"\0\x20" + POST + b"Content-Length: 5\r\n\r\nhello" + GET + b"Connection: close\r\n\r\n",
        b"\0\0" + POST + b"Transfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        b"\0\x10" + POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        b"\1\0\r\nGET http://b:1/?q HTTP/1.0\r\nConnection: keep-alive\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\0\0GET /%E2%82%AC%2f HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\ncookie: c=d\r\nX: \xe9\t \r\n\r\n",
    ),
    "responses": (
        b"\0\0HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"\0\x25HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nrest",
        b"\2\0HTTP/1.0 200\r\n\r\nuntil the end",
        b"\0\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        b"\1\0HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    ),
    "handshake": (
        b"\0\0" + UPGRADE + b"\r\n",
        b"\1\0" + UPGRADE + b"Sec-WebSocket-Protocol: oncecast.v1, oncecast.token.abc\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=\"10\"\r\n\r\n",
        b"\2\0" + UPGRADE + b"Sec-WebSocket-Extensions: x;y=z, permessage-deflate;client_no_context_takeover\r\n\r\n",
    ),
    "frames": (
        b"\0\0" + frame(Opcode.TEXT, "grüße".encode()) + frame(Opcode.PING, b"?") + frame(Opcode.CLOSE, b"\x03\xe8bye"),
        b"\0\0" + frame(Opcode.TEXT, b"a\xe2\x82", fin=False) + frame(Opcode.PONG, b"") + frame(0, b"\xac", fin=True),
        b"\1\0" + frame(Opcode.TEXT, SQUEEZED, rsv1=True) + frame(Opcode.TEXT, SQUEEZED, rsv1=True),
        b"\2\x35" + frame(Opcode.BINARY, SQUEEZED[:9], fin=False, rsv1=True) + frame(0, SQUEEZED[9:]),
        b"\3\0" + frame(Opcode.BINARY, ENDED + b"\0", rsv1=True),
        b"\4\0" + encode_frame(Opcode.BINARY, b"x" * 200) + encode_frame(Opcode.CLOSE, b""),
        b"\5\x43" + encode_frame(Opcode.TEXT, compress_message(b"x" * 5000), rsv1=True),
        b"\0\0\x81\xff\0\0\0\0\0\x01\0\0abcd",
    ),
    "deflate": (
        b"\0\0" + SQUEEZED,
        b"\1\x23" + compress_message(bytes(range(256)), level=0),
        b"\2\0" + ENDED + SQUEEZED,
        b"\0\x27" + compress_message(b"\0" * 300_000),
        b"\0\0\0",
    ),
    "event_streams": (
        b"\0\0\xef\xbb\xbfid: e-1\nevent: x\ndata: a\ndata: b\n\n: ping\n\n",
        b"\0\x23data\r\rretry: 100\r\n\r\nid\ndata:\xff\n\n",
        b'\0\0id: e-2\ndata: {"id":"e-2","channel":"a","data":{"x":1},"event":null,"time":1.5}\n\n',
        b'\0\0event: gap\ndata: {"channel":"a","reason":"expired","missed_from":"e-1","missed_to":"e-4","cursor":"e-0"}\n\n'
        b'event: gap\ndata: {"channel":"b","reason":"epoch","missed_from":"e-1","missed_to":null,"cursor":"e-5"}\n\n',
        b"\0\0data: " + b"x" * 300 + b"\n\n",
    ),
    "envelopes": (
        b'\0\0{"type":"subscribe","channel":"a","after":"e-1","ref":7}',
        b'\0\0{"type":"subscribe","channel":"a","last":5,"since":null}',
        b'\0\0{"type":"publish","channel":"a","data":{"x":[1,"\\ud83d\\ude00",1e9]},"event":"e","key":"k","ref":"r"}',
        b'\0\0{"type":"publish","channel":"a","data64":{"base64":"AAE="}}',
        b'\0\0{"type":"auth","token":"a.b.c"}',
        b'\0\0{"type":"unsubscribe","channel":"a"}',
        b'\0\0{"channel":"a:b","data":"text","key":":"}',
        b'\0\0{"channel":"a","data64":"AA==","event":"\xc3\xa9"}',
        b'\0\0{"channel":"a","data":1,"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}',
        b'\0\0 [1,\n {"a":"[{\\"]"},\t2] ',
        b"\0\0" + b"[" * 513 + b"]" * 513,
        b'\0\0{"id":"e-7","channel":"a","data":1.10,"event":null,"time":1e3}',
    ),
    "cursors": (b"\0\0e0-9223372036854775807", b"l\0chat.room-1:x@y", b"\0\0order placed \xc3\xa9", b"\0\0e-01", b"\0\0a\tb"),
    "queries": (
        b"\0\0after=e-5&wait=25&limit=10&envelope=1",
        b"\0\0last=5&wait=0.5",
        b"\0\0since=1764000000.25&x=%20+%E2%82%AC",
        b"\0\0after=latest&envelope=false",
        b"\0\0a,b.c,a,D:1",
    ),
    "tokens": (
        b"\2\0" + claims(),
        b"\2\0" + claims(oncecast={"subscribe": ["user.{sub}.*", "*"], "publish": ["a"]}, nbf=NOW, aud=["x", "here"]),
        b'\1\0{"alg":"HS256","kid":"k","typ":"JWT"}\n' + claims(iss="x"),
        b'\1\0{"alg":"EdDSA","kid":"k"}\n' + claims(),
        b'\1\0{"alg":"none","jwk":{}}\n{"exp":1e999}',
        b"\0\0eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.AAAA",
    ),
    "jwk_sets": (
        b"\0\0" + json.dumps({"keys": [PUBLIC_KEY]}).encode(),
        b"\0\0" + json.dumps({"keys": [PUBLIC_KEY | {"alg": "EdDSA", "use": "sig", "key_ops": ["verify"]}, {}]}).encode(),
        b'\0\0{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
        b'"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}',
        b'\0\0{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"AAAA"}]}',
    ),
    "patterns": (b"\0\0user.{sub}.*\nuser.ann.x", b"\0\0*\na", b"\0\0a.b\na.b", b"\0\0{sub}.x\nann.x"),
    "forwarded": (
        b"\0\x001.2.3.4, 10.0.0.2:80, [2001:db8::1]:443",
        b"\1\0for=1.2.3.4;proto=http, for=\"[2001:db8::1]:80\";by=_x, for=unknown",
        b"\1\0for=\"a\\\"b, c",
        b"\1\0a.example; For=192.0.2.8",
    ),
    "proxy_protocol": (
        b"\0\0PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n",
        b"\0\0PROXY TCP6 2001:db8::7 ::1 1 2\r\n",
        b"\0\0PROXY UNKNOWN ignored\r\n",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\0\1\0\2",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x20\0\0\0rest",
        b"\0\0\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x27" + bytes(10) + b"\xff\xff" + bytes(27),
    ),
    "settings": SETTINGS,
    "written_settings": SETTINGS,
    "setting_values": (
        b"\0\x22127.0.0.1", b"\1\x22" + b"80", b"\1\x21" + b"80", b"\2\x22auto", b"\x18\x21true", b"\x0a\x21[1e999, NaN]",
        b'\7\x21["https://a.example", "*"]', b"\x08\x22*.a.example, [::1]", b"\x0f\x22" + b"10.0.0.0/8, ::1",
        b"\x19\x21" + b"9" * 250, b"\x24\x22" + b"1e3", b"\x3d\x21[{}]", b"\4\x22redis://a:b@c:1/2", b"\x04\x22\xff",
    ),
    "tls_opening": (
        b"\0\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\0\0\x16\x03\x01\0\x05\1\0\0\1",
        b"\0\x20\x16\x03\x01\0\x2d\1\0\0\x29\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0\0\0",
        b"\0\0\x17\3\3\0\1\0",
        b"\0\0\x80\x2e\1\3\1" + bytes(44),
    ),
}  # fmt: skip

DICTIONARY: Mapping[str, tuple[bytes, ...]] = {
    "requests": (
        b"\r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked", b"Host: ", b"Expect: 100-continue", b"0\r\n\r\n",
        b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Connection: ", b"http://", b"%2F",
    ),
    "handshake": (b"permessage-deflate", b"server_max_window_bits=", b"client_no_context_takeover", b"; "),
    "envelopes": (
        b'"type":', b'"publish"', b'"subscribe"', b'"channel":', b'"data":', b'"data64":', b'"base64":', b'"event":',
        b'"key":', b'"ref":', b'"traceparent":', b"\\u003a", b"\\ud800", b"null", b"1e999", b"9223372036854775808",
    ),
    "event_streams": (b"data:", b"event:", b"id:", b"retry:", b"event: gap\n", b"\r\n", b"\xef\xbb\xbf"),
    "queries": (b"after=", b"last=", b"since=", b"wait=", b"limit=", b"envelope=", b"latest", b"earliest", b"%00"),
    "tokens": (b'"alg":', b'"HS256"', b'"exp":', b'"nbf":', b'"oncecast":', b'"subscribe":', b"{sub}", b"1e999", b"NaN"),
    "jwk_sets": (b'"keys":', b'"kty":', b'"RSA"', b'"OKP"', b'"EC"', b'"crv":', b'"x":', b'"n":', b'"e":', b'"d":'),
    "forwarded": (b"for=", b";for=", b'"', b"\\", b"[::1]", b"unknown", b"10.0.0.9", b","),
    "settings": (b"[limits]", b"[channels.", b"[retention]", b"[auth]", b"ONCECAST_", b"__", b'"""', b"1979-05-27"),
    "written_settings": (b"[limits]", b"[channels.", b"[retention]", b"[auth]", b"ONCECAST_", b"__", b'"""', b"1979-05-27"),
    "setting_values": (b"https://", b"*", b"::", b"/64", b"true", b"1e308", b"-1", b'","', b"\\ud800", b"\\u0000", b"xn--"),
    "proxy_protocol": (b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n"),
}  # fmt: skip
