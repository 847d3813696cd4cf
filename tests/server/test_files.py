"""Files that are read on the event loop's thread: whatever stands at the path, the read ends."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from oncecast.server import files
from oncecast.server.files import read_whole


def test_a_file(tmp_path: Path) -> None:
    """A file is read whole, up to a number of bytes, and an empty one is empty."""
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert (b"abc", b"ab") == (read_whole(path, 9), read_whole(path, 2))
    path.write_bytes(b"")
    assert b"" == read_whole(path, 9)


def test_a_pipe_that_is_written_to(tmp_path: Path) -> None:
    """A pipe is read whole, also if its writer takes some time and several writes."""
    path = tmp_path / "f"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)

    def write() -> None:
        os.write(held, b"abc")
        os.write(held, b"def")

    writer = threading.Thread(target=write)
    writer.start()
    assert b"abcdef" == read_whole(path, 6)
    writer.join()
    os.close(held)


def test_a_pipe_that_was_read_before() -> None:
    """A pipe that was read before is refused, as it would look like an empty file."""
    out, into = os.pipe()
    os.write(into, b"port = 1")
    os.close(into)
    path = Path(f"/dev/fd/{out}")
    assert b"port = 1" == read_whole(path, 9)
    with pytest.raises(OSError, match="was read before"):
        read_whole(path, 9)
    os.close(out)


@pytest.mark.parametrize("opened", [True, False])
def test_a_pipe_that_nobody_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: bool) -> None:
    """A pipe without a writer is given up at the deadline, so that a reload does not stop the server."""
    monkeypatch.setattr(files, "PIPE_SECONDS", 0.05)
    path = tmp_path / "f"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR) if opened else None
    with pytest.raises(TimeoutError, match="has not ended"):
        read_whole(path, 9)
    if held is not None:
        os.close(held)
