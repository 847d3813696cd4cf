"""Speaks nonsense of every kind to a running server, and looks whether it still serves: the wire's own fuzzer.

`python -m tests.proof.wire_fuzz --minutes 10 --seed N`. Requests, queries, bodies and frames are made of
right, nearly right and absurd parts. With `--guarded` the server has access rules, keys and low limits, and the parts
hold tokens, a key, and addresses as a proxy would name them. With `--tls` all of it is encrypted, and some of that is
damaged on its way. Each connection has to get an answer or a close in
`DEADLINE_SECONDS`. None may be a 500, and the log may have no traceback. A listener that is there all along gets each
message once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt

from oncecast.policy.server_keys import hash_line, make_key
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate
from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame

from .deployment import Deployment
from .http_ask import ask_http
from .tls_exchange import exchange, trusting

__all__ = ["Report", "run"]

DEADLINE_SECONDS = 60.0
AT_ONCE = 8
DAMAGED = 0.05  # of the connections over TLS
RSS_MIB = 400  # of the server, at its end

NUMBERS = ("0", "1", "-1", "9" * 18, "9" * 40, "1e999", "1.5", "NaN", "null", "true", '""', "[]", "{}")
TEXTS = ("a", "a.b", "", "-", "a" * 129, "a\\u0000", "e-1", "e0-99999999999999999999", "latest", "earliest", "\\ud800")
TYPES = ("subscribe", "unsubscribe", "publish", "auth", "dance", "")
FIELDS = ("channel", "after", "last", "since", "ref", "data", "data64", "event", "key", "traceparent", "token", "type",
          "more")  # fmt: skip
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "CONNECT", "X" * 40)
# Every route but `/v1/drain`, which would end the server.
PATHS = ("/", "/v1/channels/a", "/v1/channels/a,b", "/v1/channels/%ff", "/v1/publish", "/v1/connect", "/v1/ticket",
         "/v1/disconnect", "/v1/overview", "/v1/openapi.json", "/v1/asyncapi.json", "/admin", "/compare",
         "/oncecast.js", "/metrics", "/healthz", "/readyz", "/docs/errors", "/nowhere", "*", "http://x/v1/channels/a",
         "/v1/channels/" + "a," * 100)  # fmt: skip
QUERY = ("after", "last", "since", "wait", "limit", "envelope", "order", "token", "ticket", "x")
HEADERS = ("Host: localhost", "Host: a b", "Content-Length: 3", "Content-Length: -1", "Transfer-Encoding: chunked",
           "Connection: close", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Accept: text/event-stream",
           "Sec-WebSocket-Protocol: oncecast.v1", "Origin: null", "Expect: 100-continue", "Last-Event-ID: e-1",
           "Authorization: Bearer a.b.c", "Idempotency-Key: k", "traceparent: 00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",
           "Content-Type: application/json", "X: " + "y" * 40_000,
           "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")  # fmt: skip
HANDSHAKE = (
    "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)
PROTOCOL = "Sec-WebSocket-Protocol: oncecast.v1\r\n"
SOCKETS = ("/v1/connect", "/v1/channels/a", "/v1/channels/a?last=5")
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


# A server that refuses: rules, keys, and limits that a few connections reach.
KEY = make_key(bytes(32))
SECRET = "a secret of 32 bytes, or of more."
GUARDED = f"""
trusted_proxies = ["127.0.0.1"]
[auth]
cookie = "sid"
server_keys = ["{hash_line("shop", KEY)}"]
[limits]
frames_per_second = 5
user_publishes_per_second = 1
publishes_per_second = 1
bytes_per_second = 2048
connections_per_address = 4
connections_per_user = 2
connects_per_second = 20
history_pages_per_second = 2
unfinished_bytes = 2000000
[channels."a"]
subscribe = "public"
publish = "token"
user_publishes_per_second = 1
[channels."user.{{sub}}"]
subscribe = "token"
publish = "token"
"""
ADDRESSES = ("192.0.2.1", "2001:db8::1", "192.0.2.2, 127.0.0.1", "x" * 300, "", "256.1.1.1", '"[::1]:70000"')
OWN_PATHS = (*PATHS, "/v1/channels/user.ann", "/v1/channels/user.eve", "/v1/ticket", "/v1/disconnect")
ASKED = ('{"sub":"eve"}', '{"sub":"eve","revoke":true}', '{"sub":""}', '{"sub":"e\\u0000"}', '{"sub":["eve"]}',
         '{"sub":"eve","subscribe":["*"],"publish":["a*b"]}', "{}", "[" * 2000)  # fmt: skip


class WrongError(AssertionError):
    """The server broke a promise."""


@dataclass
class Report:
    """How many connections were made, how many were answered with bytes, and how many messages the listener got."""

    connections: int = 0
    answered: int = 0
    messages: int = 0


def credentials() -> tuple[str, ...]:
    """Return what a request to a guarded server may be sent with: some of it counts."""
    now = int(time.time())

    def token(**more: object) -> str:
        return jwt.encode({"sub": "ann", "iat": now, "exp": now + 3600, **more}, SECRET, "HS256")

    grants = {"subscribe": ["user.{sub}"], "publish": []}
    return (token(), token(oncecast=grants), token(sub="eve"), token(exp=now - 60), token(sub="a\0b"),
            token(iat=now + 20), token()[:-2], KEY, KEY[:-1] + "_", "a.b.c", "", "x" * 9000)  # fmt: skip


def guarded_request(rng: random.Random, held: Sequence[str]) -> bytes:
    """Return a request with credentials, and with an address, where they may stand or may not."""
    credential, place = rng.choice(held), rng.randrange(6)
    query = (
        rng.choice(("", f"token={credential}", f"ticket={credential}")) if place == 0 else rng.choice(("", "wait=0"))
    )
    lines = [f"{rng.choice(('GET', 'POST'))} {rng.choice(OWN_PATHS)}?{query} HTTP/1.1", "Host: localhost"]
    lines += [f"Authorization: Bearer {credential}"] if place in (1, 2, 3) else []
    lines += [f"Cookie: sid={credential}"] if place in (3, 4) else []
    lines += [f"X-Forwarded-For: {rng.choice(ADDRESSES)}"] if rng.random() < 0.5 else []
    lines += [rng.choice(HEADERS)] if rng.random() < 0.3 else []
    body = rng.choice((*ASKED, "3", value(rng)))
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def flood(rng: random.Random, held: Sequence[str]) -> bytes:
    """Return more of what is right than a limit of `GUARDED` lets pass: requests, or frames."""
    token = rng.choice(held[:3])
    if rng.random() < 0.5:
        head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n\r\n42"
        return f"POST {rng.choice(('/v1/channels/user.ann', '/v1/channels/a'))} HTTP/1.1\r\n{head}".encode() * 6
    frame = rng.choice((
        b'{"type":"publish","channel":"user.ann","data":1,"ref":1}',
        b'{"type":"subscribe","channel":"a","after":"earliest"}',
        b'{"type":"auth","token":"%s"}' % token.encode(),
    ))  # fmt: skip
    opening = (HANDSHAKE % ("/v1/connect", f"{PROTOCOL}Authorization: Bearer {token}\r\n")).encode()
    return opening + encode_frame(Opcode.TEXT, frame, mask=b"mask") * 30


def request(rng: random.Random) -> bytes:
    """Return a request of random parts, perhaps with more behind it."""
    query = "&".join(f"{rng.choice(QUERY)}={rng.choice((*NUMBERS[:7], *TEXTS[:9]))}" for _ in range(rng.randint(0, 3)))
    chosen = {"Host: localhost", *rng.sample(HEADERS, rng.randint(0, 4))} if rng.random() < 0.8 else {""}
    first = f"{rng.choice(METHODS)} {rng.choice(PATHS)}{'?' + query if query else ''} HTTP/1.{rng.choice('0111')}"
    head = "\r\n".join([first, *sorted(chosen), "", ""])
    body = rng.choice((b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"z\r\n", b"[" * 5000, value(rng).encode()))
    return head.encode() + body


def value(rng: random.Random) -> str:
    """Return an object of JSON as a frame or a line of a batch has it, or nearly."""
    parts = [f'"type":"{rng.choice(TYPES)}"'] if rng.random() < 0.9 else []
    for _ in range(rng.randint(0, 4)):
        filled = rng.choice(NUMBERS) if rng.random() < 0.4 else f'"{rng.choice(TEXTS)}"'
        parts.append(f'"{rng.choice(FIELDS)}":{filled}')
    return "{" + ",".join(parts) + "}"


def frames(rng: random.Random, held: Sequence[str] = ()) -> bytes:
    """Return a handshake and frames of random opcodes, lengths and contents, and perhaps of credentials.

    Some sockets are raw ones, without a protocol, where each frame is a message to the channel of the path.
    """
    packed, raw = rng.random() < 0.3, rng.random() < 0.3
    target = rng.choice(("/v1/channels/a", "/v1/channels/a,b", "/v1/channels/user.ann") if raw else SOCKETS)
    bearer = f"Authorization: Bearer {rng.choice(held[:3])}\r\n" if held and rng.random() < 0.5 else ""
    fields = ("" if raw else PROTOCOL) + (DEFLATE if packed else "") + bearer
    sent = [(HANDSHAKE % (target, fields)).encode()]
    for _ in range(rng.randint(1, 30)):
        data = value(rng).encode()
        if held and rng.random() < 0.3:
            data = b'{"type":"auth","token":"%s"}' % rng.choice(held).encode()
        match rng.randrange(6):
            case 0:
                sent.append(rng.randbytes(rng.randint(1, 20)))
            case 1:
                sent.append(encode_frame(rng.choice((Opcode.PING, Opcode.CLOSE)), b"\x03\xe8", mask=b"mask"))
            case 2:
                sent.append(encode_frame(Opcode.TEXT, data, fin=False, mask=b"mask") + bytes((0, 0x80)) + b"mask")
            case 3 if packed:
                sent.append(encode_frame(Opcode.TEXT, compress_message(data), rsv1=True, mask=b"mask"))
            case _:
                sent.append(encode_frame(Opcode.TEXT, data, mask=b"mask"))
    return b"".join(sent)


async def attack(
    port: int, rng: random.Random, report: Report, held: Sequence[str] = (), tls: ssl.SSLContext | None = None
) -> None:
    """Make one connection: send in pieces, close one half, and read until the server closes or its time is over."""
    if held and rng.random() < 0.2:
        data = flood(rng, held)
    elif rng.random() < 0.5:
        data = frames(rng, held)
    elif held and rng.random() < 0.7:
        data = b"".join(guarded_request(rng, held) for _ in range(rng.randint(1, 3)))
    else:
        data = b"".join(request(rng) for _ in range(rng.randint(1, 3)))
    got = b""
    report.connections += 1
    pieces = list(_cut(data, rng))
    damaged = rng.randrange(len(pieces)) if tls is not None and pieces and rng.random() < DAMAGED else None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            got = await (_exchange(port, pieces) if tls is None else exchange(port, tls, pieces, damaged))
    except TimeoutError:
        raise WrongError(f"neither an answer nor a close: {data!r}") from None
    except (ConnectionError, ssl.SSLError):  # a reset, or an alert
        pass
    report.answered += bool(got)
    if b"HTTP/1.1 500" in got or b'"code":"internal"' in got:
        raise WrongError(f"an internal error: {data!r}")


def _cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = rng.choice((1, 7, 100, 100_000))
        yield data[at : at + size]
        at += size


async def _exchange(port: int, pieces: Sequence[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            if writer.is_closing():
                raise ConnectionResetError("the server has closed")
            writer.write(piece)
            await asyncio.sleep(0)
        with contextlib.suppress(OSError):  # it has reset the connection: the reader says so
            writer.write_eof()
        return await reader.read()
    finally:
        writer.transport.abort()


async def run(seed: int, seconds: float, *, guarded: bool = False, sealed: bool = False) -> Report:
    """Attack a new server for some seconds. Raises `WrongError`."""
    report, rng = Report(), random.Random(seed)
    held = credentials() if guarded else ()
    mine = f"Authorization: Bearer {KEY}\r\n" if guarded else ""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "oncecast.toml").write_text(GUARDED if guarded else "", "utf-8")
        settings = {"auth__secret": SECRET} if guarded else {"dev": "true"}
        tls = trusting() if sealed else None
        if sealed:
            made = with_certificate(Settings(tls=True), {"XDG_STATE_HOME": folder})
            settings |= {"tls_cert": made.tls_cert[0], "tls_key": made.tls_key[0]}
        async with Deployment(Path(folder), workers=1, settings=settings, tls=tls) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
            asked = f"GET /v1/channels/witness HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{mine}\r\n"
            writer.write(asked.encode())
            await reader.readuntil(b"\r\n\r\n")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.gather(*[attack(server.port, rng, report, held, tls) for _ in range(AT_ONCE)])
                report.messages += 1
                answer = await ask_http(
                    server.port, "POST", "/v1/channels/witness", b"%d" % report.messages, headers=mine, tls=tls
                )
                if answer.status != 201:
                    raise WrongError(f"a publish is answered with {answer.status}")
                await _heard(reader, report.messages)
            writer.transport.abort()
            if "Traceback" in server.log:
                raise WrongError(server.log[-4000:])
            rss = _mebibytes(server.pid)
            if rss > RSS_MIB:
                raise WrongError(f"the server has {rss} MiB")
    return report


def _mebibytes(pid: int) -> int:
    """Return the memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


async def _heard(reader: asyncio.StreamReader, number: int) -> None:
    """Read the next message of the stream, which has to be this one."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not (line := await reader.readline()).startswith(b"data:"):
            if not line:
                raise WrongError("the listener was cut off")
    if line.removeprefix(b"data:").strip() != b"%d" % number:
        raise WrongError(f"the listener got {line!r} and not {number}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.wire_fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guarded", action="store_true", help="attack a server with rules, keys and limits")
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    options = parser.parse_args(arguments)
    report = asyncio.run(run(options.seed, options.minutes * 60, guarded=options.guarded, sealed=options.tls))
    sys.stdout.write(
        f"seed {options.seed}: {report.connections} connections, {report.answered} answered, "
        f"{report.messages} messages heard\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
