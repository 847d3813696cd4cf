"""One HTTP request on a connection of its own, for the runs: its status, its head and its body."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a server answered."""

    status: int
    head: bytes
    body: bytes


async def ask_http(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: str = "",
    seconds: float = ANSWER_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> HttpAnswer:
    """Ask a server on loopback; `headers` are whole lines. With `tls`, over TLS.

    Raises `OSError`, or `TimeoutError` without an answer in so many seconds.
    """
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    return HttpAnswer(int(first[9:12] or 0), first, rest)
