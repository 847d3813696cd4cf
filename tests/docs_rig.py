"""The pages of the docs as tests read them: their blocks, and a server and a shell as the blocks expect them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from oncecast.message import Draft, Kind
from oncecast.server.server import Server

__all__ = ["ROOT", "SERVER", "Block", "bash", "blocks", "busy", "name", "pages", "type_checker"]

ROOT = Path(__file__).parent.parent
SERVER = "127.0.0.1:8000"  # what the examples call it
CHANNELS = ("news", "sport", "prices", "orders", "chat", "kitchen", "room-7", "chat.7")  # of the examples
EVENTS = (None, "chat", "order", "tick")
BUSY_SECONDS = 0.1  # between two messages of a channel

_SKIPPED = {".venv", "node_modules", ".pytest_cache", ".git", "build", "dist"}
_BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the mark above it, its language, its content, and the first line it stands on."""

    mark: str
    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every page of the tree; installed packages are not looked through, which takes a second."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(found[1] or "", found[2], found[3], text.count("\n", 0, found.start()) + 1)
        for found in _BLOCK.finditer(text)
    ]


def without_blocks(page: Path) -> str:
    """The text of a page."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def name(page: Path) -> str:
    """A page's path in the tree."""
    return page.relative_to(ROOT).as_posix()


def type_checker(file: str) -> list[str]:
    """Return a command that checks a file strictly. It begins with what `make check` has found out of the package."""
    options = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"))
    return [sys.executable, "-m", "mypy", "--strict", *options, file]


@contextlib.asynccontextmanager
async def busy(server: Server) -> AsyncIterator[None]:
    """Publish to the channels of the examples all the time, with and without events."""

    async def publish() -> None:
        for number in itertools.count():
            data = b'{"n":%d,"text":"hi"}' % number
            drafts = [Draft(channel, data, Kind.JSON, event) for channel in CHANNELS for event in EVENTS]
            server.node.publish(drafts, lambda outcomes: None)
            await asyncio.sleep(BUSY_SECONDS)

    publishing = asyncio.create_task(publish())
    try:
        yield
        assert not publishing.done(), publishing.exception()
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])


@contextlib.asynccontextmanager
async def bash(
    line: str, folder: Path, environ: Mapping[str, str], errors: int | None = asyncio.subprocess.STDOUT
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a line of a page in a folder, with an empty input. What it has started is ended with it.

    `errors` is where its standard error goes; None is that of the tests.
    """
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", line),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env=environ,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
