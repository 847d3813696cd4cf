"""The commands as processes, with signals, pipes and full disks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.conftest import (
    SECONDS,
    Fake,
    event,
    pipe_of,
    start,
)


@pytest.mark.parametrize("module", ["oncecast", "oncecast.cli"])
def test_pub_process_publishes_each_line_as_it_comes(fake: Fake, module: str) -> None:
    """A line is acknowledged while standard input is still open."""
    with start(fake, "pub", "c", module=module) as process:
        for n in (1, 2):
            pipe_of(process.stdin).write(b"line\n")
            pipe_of(process.stdin).flush()
            assert f"e-{n}\n".encode() == pipe_of(process.stdout).readline()
        out, err = process.communicate(timeout=SECONDS)
    assert (b"", b"", 0) == (out, err, process.returncode)


def test_pub_process_is_interrupted(fake: Fake) -> None:
    """Ctrl-C while it waits for a line ends it at once, with the shell's code for it and no traceback."""
    with start(fake, "pub", "c") as process:
        pipe_of(process.stdin).write(b"line\n")
        pipe_of(process.stdin).flush()
        pipe_of(process.stdout).readline()
        process.send_signal(signal.SIGINT)
        assert 130 == process.wait(SECONDS)
        assert b"" == pipe_of(process.stderr).read()


def test_sub_process_is_interrupted(fake: Fake) -> None:
    """A message is printed at once, and Ctrl-C ends it cleanly."""
    fake.streams = [event(1, data="x")]
    with start(fake, "sub", "c", "--transport", "sse") as process:
        assert b"x\n" == pipe_of(process.stdout).readline()
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(SECONDS)
        assert b"listening to c over sse\n" == pipe_of(process.stderr).read()


def test_sub_process_is_left_by_its_reader(fake: Fake) -> None:
    """Standard output that is closed, as by head, ends it cleanly."""
    fake.streams = [event(1, data="x"), b"".join(event(n, data="y") for n in range(2, 200))]
    with start(fake, "sub", "c", "--transport", "sse") as process:
        assert b"x\n" == pipe_of(process.stdout).readline()
        pipe_of(process.stdout).close()
        assert 0 == process.wait(SECONDS)
        assert b"Error" not in pipe_of(process.stderr).read()


@pytest.mark.parametrize("arguments", [["sub", "c", "--transport", "sse"], ["pub", "c", "x"], ["config", "show"]])
def test_process_on_a_full_disk(fake: Fake, arguments: list[str]) -> None:
    """Where standard output can't be written, that is one line and exit code 1."""
    fake.streams = [event(1, data="x")]
    with open("/dev/full", "wb") as full, start(fake, *arguments, stdout=full) as process:
        _, err = process.communicate(timeout=SECONDS)
    said = b"Error: standard output can't be written: No space left on device\n"
    assert (1, said) == (process.returncode, err.removeprefix(b"listening to c over sse\n"))


def test_pub_process_is_left_by_its_reader(fake: Fake) -> None:
    """An acknowledgement that can't be printed as the pipe is closed is no failure."""
    with start(fake, "pub", "c") as process:
        pipe_of(process.stdout).close()
        _, err = process.communicate(b"x\n", timeout=SECONDS)
    assert (0, b"", 1) == (process.returncode, err, len(fake.posted))


@pytest.mark.parametrize(
    "module, arguments",
    [("click", ["sub", "c"]), ("msgspec", ["pub", "c", "x"]), ("prometheus_client", ["serve", "--port", "0"])],
)
def test_process_is_interrupted_while_it_starts(fake: Fake, tmp_path: Path, module: str, arguments: list[str]) -> None:
    """Ctrl-C while modules are still being imported ends it with nothing said."""
    (tmp_path / f"{module}.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nraise SystemExit(99)\n")
    with start(fake, *arguments, first=tmp_path) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert (130, b"", b"") == (process.returncode, out, err)
