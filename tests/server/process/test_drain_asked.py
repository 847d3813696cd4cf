"""`POST /v1/drain` at a real server: one process, or several, of which each may be asked."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from oncecast import AsyncClient
from oncecast.policy.server_keys import hash_line, make_key

KEY = make_key(bytes(32))
SECONDS = 60.0


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_the_server_ends_in_order(workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its processes drain, listeners are told to go, and the log has who asked. To ask twice is to ask once."""
    monkeypatch.setenv("ONCECAST_AUTH__SERVER_KEYS", hash_line("ops", KEY))
    command = [sys.executable, "-m", "oncecast", "serve", "--workers", workers, "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--broker", f"sqlite:///{tmp_path}/log.db", cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            found = re.search(rb"http://[\d.]+:(\d+)", await process.stderr.readline())
            assert found is not None
            listeners = [Listener() for _ in range(3)]
            listening = [asyncio.create_task(each.listen(int(found[1]))) for each in listeners]
            async with AsyncClient(found[0].decode(), get_token=lambda: KEY) as client:
                await client.publish("a", "before")
            # What one worker has stored reaches the listeners of another a moment later: one that drains first leaves
            # it to a resume.
            await asyncio.gather(*(each.has_it.wait() for each in listeners))
            reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
            request = (
                f"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
                "Content-Length: 0\r\n\r\n"
            )
            writer.write(request.encode() * 2)
            assert b" 202 " in await reader.readline()
            writer.close()
            said = (await process.stderr.read()).decode()
            assert 0 == await process.wait()
            for stream in await asyncio.gather(*listening):
                assert stream.endswith(b"0\r\n\r\n")  # it was ended, not cut
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 1 == said.count("stopping: /v1/drain was asked for by the key ops")
    assert "stopping now" not in said
    assert KEY not in said
    assert "ERROR" not in said


class Listener:
    """One stream. `has_it` is set once the message is in it."""

    def __init__(self) -> None:
        self.has_it = asyncio.Event()

    async def listen(self, port: int) -> bytes:
        """Return all of the stream, as soon as it has ended."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            + f"Authorization: Bearer {KEY}\r\n\r\n".encode()
        )
        stream = b""
        while part := await reader.read(65536):
            stream += part
            if b"data: before\n" in stream:
                self.has_it.set()
        writer.close()
        return stream
