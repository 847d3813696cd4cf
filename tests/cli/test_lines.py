"""Standard input and files, as lines or whole."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import click
import pytest

from oncecast.cli import lines as module
from oncecast.cli.lines import Line, read_lines, read_whole


async def read_all() -> list[list[Line]]:
    """Return what is read, burst by burst."""
    return [burst async for burst in read_lines()]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_descriptors(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is ready is one burst, from a pipe and from a file, with and without a last line end; numbers count all."""
    text = b"a\nb\r\n\nc"
    if kind == "pipe":
        fd, write = os.pipe()
        os.write(write, text)
        os.close(write)
    else:
        (tmp_path / "lines").write_bytes(text)
        fd = os.open(tmp_path / "lines", os.O_RDONLY)
    with open(fd) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [(1, b"a"), (2, b"b"), (4, b"c")] == [line for burst in asyncio.run(read_all()) for line in burst]


def test_input_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program has replaced standard input, it is read whole."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\r\n\nb")))
    assert [[(1, b"a"), (3, b"b")]] == asyncio.run(read_all())


async def test_nothing_waits_for_a_burst_to_be_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is handed over while the pipe is still open and empty; what has no end yet waits for it."""
    fd, write = os.pipe()
    with os.fdopen(fd) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        bursts = read_lines()
        os.write(write, b"a\nb")
        assert [(1, b"a")] == await asyncio.wait_for(anext(bursts), 10)
        os.write(write, b"c\n\n")
        assert [(2, b"bc")] == await asyncio.wait_for(anext(bursts), 10)
        os.write(write, b"d")
        os.close(write)
        assert [(4, b"d")] == await asyncio.wait_for(anext(bursts), 10)
        with pytest.raises(StopAsyncIteration):
            await anext(bursts)


def test_bursts_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a long input no more is held than a burst; nothing is lost at its edges."""
    monkeypatch.setattr(module, "BURST_BYTES", 40)
    monkeypatch.setattr(module, "READ_BYTES", 16)
    expected = [(number, b"%d" % number) for number in range(1, 100)]
    (tmp_path / "lines").write_bytes(b"".join(line + b"\n" for _, line in expected))
    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        bursts = asyncio.run(read_all())
    assert expected == [line for burst in bursts for line in burst]
    assert 5 < len(bursts)
    assert all(sum(len(line) for _, line in burst) <= 40 + 16 for burst in bursts)


def test_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line that no server would take is not kept in memory."""
    monkeypatch.setattr(module, "DATA_BYTES", 10)
    (tmp_path / "lines").write_bytes(bytes(11))
    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(click.ClickException, match="line 1 of standard input is longer than 10 bytes"):
            asyncio.run(read_all())


def test_a_whole_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every byte of a file, or of standard input, is data; too many, and a file that is not there, are one line."""
    data = b"\x00a\r\n\n\xff\n"
    (tmp_path / "f").write_bytes(data)
    assert data == read_whole(tmp_path / "f")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert data == read_whole(Path("-"))
    monkeypatch.setattr(module, "DATA_BYTES", 6)
    with pytest.raises(click.ClickException, match="is larger than 6 bytes, more than a server takes"):
        read_whole(tmp_path / "f")
    with pytest.raises(click.ClickException, match="none can't be read: No such file or directory"):
        read_whole(tmp_path / "none")
