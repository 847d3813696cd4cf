"""Lines are written whole, off the loop, and without harm where nobody takes them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

import pytest

from oncecast.server.logs.writer import HELD_BYTES, WRITE_BYTES, LineWriter

SECONDS = 60
LINE = b"x" * 99 + b"\n"


def report(count: int) -> bytes:
    """Return the line that says how many were dropped."""
    return b"dropped %d\n" % count


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, which a thread makes so."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the thread has no event to set
            await asyncio.sleep(0.01)


async def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    """Once they are handed over; after the close none is taken."""
    writer = LineWriter(pipe[1], report)
    writer.put(b"a\n")
    writer.put(b"b\n")
    writer.flush()
    writer.put(b"c\n")
    await writer.close(SECONDS)
    assert b"a\nb\nc\n" == os.read(pipe[0], 100)
    writer.put(b"d\n")
    writer.flush()
    assert 1 == writer.dropped


async def test_no_line_no_thread(pipe: tuple[int, int]) -> None:
    """A writer that is never used costs none, and closes at once."""
    before = threading.active_count()
    writer = LineWriter(pipe[1], report)
    writer.flush()
    assert before == threading.active_count()
    await writer.close(0)


async def test_a_write_has_whole_lines(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A write has whole lines, and at most what a pipe takes without mixing it with another process's lines."""
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    writer = LineWriter(pipe[1], report)
    for size in (1, 4096, 100, 4000, 97, 3999, 96, 1):
        writer.put(b"y" * (size - 1) + b"\n")
    await writer.close(SECONDS)
    assert all(len(data) <= WRITE_BYTES and data.endswith(b"\n") for data in written)
    assert 1 + 4096 + 100 + 4000 + 97 + 3999 + 96 + 1 == sum(map(len, written))
    assert len(written) < 8


async def test_nobody_reads(pipe: tuple[int, int]) -> None:
    """The caller never waits. Lines are held up to a bound; those past it are counted, and reported later."""
    writer = LineWriter(pipe[1], report)
    for _ in range(HELD_BYTES // len(LINE) + 1000):
        writer.put(LINE)
        writer.flush()
    dropped = writer.dropped
    assert 200 <= dropped <= 1000  # the pipe itself holds 64 KiB
    got = bytearray()

    def read() -> None:
        while b"last\n" not in got:
            got.extend(os.read(pipe[0], 1 << 16))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    await until(lambda: writer._held == 0)
    writer.put(b"last\n")
    await writer.close(SECONDS)
    reader.join(SECONDS)
    reports = [int(line.split()[1]) for line in got.splitlines() if line.startswith(b"dropped")]
    assert dropped == sum(reports), "each is reported once; where the thread began late, in two lines"


async def test_the_close_does_not_wait_for_ever(pipe: tuple[int, int]) -> None:
    """A pipe that nobody reads costs the stop of a server its deadline, and no more."""
    writer = LineWriter(pipe[1], report)
    for _ in range(2000):
        writer.put(LINE)
    async with asyncio.timeout(SECONDS):
        await writer.close(0.05)
    os.set_blocking(pipe[0], False)
    assert writer._thread is not None
    while writer._thread.is_alive():  # it ends before the pipe does
        with contextlib.suppress(BlockingIOError):
            os.read(pipe[0], 1 << 16)
        writer._thread.join(0.01)


@pytest.mark.parametrize("gone", ["reader", "descriptor", "never"])
async def test_nowhere_to_write(pipe: tuple[int, int], gone: str) -> None:
    """A reader that has gone, a descriptor that is closed, or none at all: the lines are counted, and nothing fails."""
    read, write = os.pipe()
    os.close(read)
    if gone == "descriptor":
        os.close(write)
    writer = LineWriter(-1 if gone == "never" else write if gone == "reader" else 1 << 20, report)
    for _ in range(3):
        writer.put(LINE)
        writer.flush()
    await writer.close(SECONDS)
    assert 3 == writer.dropped
    if gone != "descriptor":
        os.close(write)


async def test_a_full_disk_gets_free(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was written in part is completed. Failed lines are reported once writes succeed again."""
    real, full = os.write, [False]

    def write(descriptor: int, data: bytes) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:3])

    monkeypatch.setattr(os, "write", write)
    writer = LineWriter(pipe[1], report)
    writer.put(b"first\n")
    writer.flush()
    await until(lambda: writer._held == 0)
    full[0] = True
    writer.put(b"lost\n")
    writer.flush()
    await until(lambda: writer.dropped == 1)
    full[0] = False
    writer.put(b"later\n")
    await writer.close(SECONDS)
    assert b"first\ndropped 1\nlater\n" == os.read(pipe[0], 100)


async def test_a_thread_that_dies_is_replaced(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One defect costs its lines, not the log."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    writer = LineWriter(pipe[1], report)
    with monkeypatch.context() as patch:
        patch.setattr(LineWriter, "_write_all", lambda self, lines: 1 / 0)
        writer.put(b"lost\n")
        writer.flush()
        await until(lambda: writer._thread is not None and not writer._thread.is_alive())
    writer.put(b"later\n")
    await writer.close(SECONDS)
    assert b"later\n" == os.read(pipe[0], 100)
