"""The check that no test leaves a transport open, in a run of pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 60.0
TESTS = """
import asyncio, threading

async def leave(close):
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        if close:
            transport.close()
            await asyncio.sleep(0.1)

def test_one(): asyncio.run(leave(True))
def test_two(): asyncio.run(leave(False))
def test_three(): pass
def test_four():
    thread = threading.Thread(target=asyncio.run, args=(leave(False),))
    thread.start()
    thread.join()
"""


def test_a_transport_that_is_left_open(tmp_path: Path) -> None:
    """The test that closed the loop fails with the place where it was opened, also from another thread."""
    (tmp_path / "test_them.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.open_transports", "-p", "no:cacheprovider", "test_them.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert re.findall(r"^ERROR test_them.py::(\w+)", done.stdout, re.M) == ["test_two", "test_four"], done.stdout
    assert "open: Protocol, ('127.0.0.1', " in done.stdout
    assert re.search(r"test_them\.py:\d+ leave$", done.stdout, re.M)
