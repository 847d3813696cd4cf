"""Speaks nonsense of every kind to a running server, and looks whether it still serves: the wire's own fuzzer.

`python -m tests.proof.wire_fuzz --minutes 10 --seed N`. Requests, queries, bodies and frames are made of
right, nearly right and absurd parts. Each connection has to get an answer or a close in `DEADLINE_SECONDS`. None may be
a 500, and the log may have no traceback. A listener that is there all along gets each message once and in order.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame

from .deployment import Deployment
from .http_ask import ask_http

__all__ = ["Report", "run"]

DEADLINE_SECONDS = 60.0
AT_ONCE = 8
RSS_MIB = 400  # of the server, at its end

NUMBERS = ("0", "1", "-1", "9" * 18, "9" * 40, "1e999", "1.5", "NaN", "null", "true", '""', "[]", "{}")
TEXTS = ("a", "a.b", "", "-", "a" * 129, "a\\u0000", "e-1", "e0-99999999999999999999", "latest", "earliest", "\\ud800")
TYPES = ("subscribe", "unsubscribe", "publish", "auth", "dance", "")
FIELDS = ("channel", "after", "last", "since", "ref", "data", "data64", "event", "key", "token", "type", "more")
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "CONNECT", "X" * 40)
PATHS = ("/", "/v1/channels/a", "/v1/channels/a,b", "/v1/channels/%ff", "/v1/publish", "/v1/connect", "/v1/ticket",
         "/v1/disconnect", "/metrics", "/healthz", "/readyz", "/docs/errors", "/nowhere", "*", "http://x/v1/channels/a",
         "/v1/channels/" + "a," * 100)  # fmt: skip
QUERY = ("after", "last", "since", "wait", "limit", "envelope", "token", "x")
HEADERS = ("Host: localhost", "Host: a b", "Content-Length: 3", "Content-Length: -1", "Transfer-Encoding: chunked",
           "Connection: close", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Accept: text/event-stream",
           "Sec-WebSocket-Protocol: oncecast.v1", "Origin: null", "Expect: 100-continue", "Last-Event-ID: e-1",
           "Authorization: Bearer a.b.c", "Idempotency-Key: k", "Content-Type: application/json", "X: " + "y" * 40_000,
           "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")  # fmt: skip
UPGRADE = (
    "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: oncecast.v1\r\n%s\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


class WrongError(AssertionError):
    """The server broke a promise."""


@dataclass
class Report:
    """How many connections were made, how many were answered with bytes, and how many messages the listener got."""

    connections: int = 0
    answered: int = 0
    messages: int = 0


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


def frames(rng: random.Random) -> bytes:
    """Return a handshake and frames of random opcodes, lengths and contents."""
    packed = rng.random() < 0.3
    sent = [(UPGRADE % (DEFLATE if packed else "")).encode()]
    for _ in range(rng.randint(1, 30)):
        data = value(rng).encode()
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


async def attack(port: int, rng: random.Random, report: Report) -> None:
    """Make one connection: send in pieces, close one half, and read until the server closes or its time is over."""
    data = frames(rng) if rng.random() < 0.5 else b"".join(request(rng) for _ in range(rng.randint(1, 3)))
    got = b""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    report.connections += 1
    try:
        at = 0
        while at < len(data):
            size = rng.choice((1, 7, 100, 100_000))
            writer.write(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_SECONDS):
            got = await reader.read()
    except ConnectionError:
        pass
    except TimeoutError:
        raise WrongError(f"neither an answer nor a close: {data!r}") from None
    finally:
        writer.transport.abort()
    report.answered += bool(got)
    if b"HTTP/1.1 500" in got or b'"code":"internal"' in got:
        raise WrongError(f"an internal error: {data!r}")


async def run(seed: int, seconds: float) -> Report:
    """Attack a new server for some seconds. Raises `WrongError`."""
    report, rng = Report(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        async with Deployment(Path(folder), workers=1, settings={"dev": "true"}) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /v1/channels/witness HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.gather(*[attack(server.port, rng, report) for _ in range(AT_ONCE)])
                report.messages += 1
                answer = await ask_http(server.port, "POST", "/v1/channels/witness", b"%d" % report.messages)
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
    options = parser.parse_args(arguments)
    report = asyncio.run(run(options.seed, options.minutes * 60))
    sys.stdout.write(
        f"seed {options.seed}: {report.connections} connections, {report.answered} answered, "
        f"{report.messages} messages heard\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
