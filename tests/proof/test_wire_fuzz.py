"""The fuzzer of a running server: a few seconds of it, and what it notices."""

from __future__ import annotations

import asyncio
import random

import pytest

from . import wire_fuzz
from .wire_fuzz import Report, WrongError, attack, run

SECONDS = 5.0


@pytest.mark.parametrize("guarded, sealed", [(False, False), (True, False), (False, True), (True, True)])
async def test_a_server_under_nonsense(*, guarded: bool, sealed: bool) -> None:
    """Each connection is answered or closed, nothing fails inside, and the listener gets each message once."""
    report = await run(seed=1, seconds=SECONDS, guarded=guarded, sealed=sealed)
    assert report.connections >= report.answered > 0
    assert report.messages > 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 500 Internal Server Error\r\n\r\n", None])
async def test_it_notices(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> None:
    """An internal error is noticed, and a connection that gets neither an answer nor a close."""
    monkeypatch.setattr(wire_fuzz, "DEADLINE_SECONDS", 0.5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if answer is not None:
                writer.write(answer)
                await reader.read()
            else:
                await asyncio.sleep(10)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(WrongError):
            await attack(server.sockets[0].getsockname()[1], random.Random(1), Report())
