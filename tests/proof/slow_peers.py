"""Holds a server with slow connections, and measures how late its other listeners get their messages.

`python -m tests.proof.slow_peers --peers 2000`. A third each are heads that dribble in, bodies that never end and
answers that are never read. A connection that the server cuts is replaced by a new one, so their number stays the same.
Meanwhile one publisher sends to honest listeners. The time from a publish to the listener's end of the socket is
measured, from before the first slow peer connects. A process of its own measures, so the load's own delay is not
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from .deployment import Deployment
from .http_ask import ask_http
from .slow_crowd import KINDS

__all__ = ["Report", "run"]

LISTENERS = 100
P99_SECONDS = 0.1
DEADLINE_SECONDS = 60.0
PUBLISH_SECONDS = 0.05
LARGE_BYTES, LARGE = 50_000, 40  # what an unread answer is made of
HOST = b"Host: 127.0.0.1\r\n"
ROOT = Path(__file__).parents[2]


class WrongError(AssertionError):
    """A listener missed a message, or got one too late."""


@dataclass
class Report:
    """What was met. Times are in seconds."""

    peers: int = 0  # slow connections that were open when the measurement began
    left: int = 0  # and when it ended
    opened: int = 0
    cut: int = 0  # by the server
    published: int = 0
    delays: list[float] = field(default_factory=list)

    def late(self, share: float) -> float:
        """Return the delay that this share of the deliveries does not exceed."""
        delays = sorted(self.delays)
        return delays[min(len(delays) - 1, int(len(delays) * share))]

    def __str__(self) -> str:
        return (
            f"{self.peers} slow peers ({self.left} at the end, {self.opened} opened, {self.cut} cut), "
            f"{self.published} published, {len(self.delays)} delivered; delay p50 {self.late(0.5) * 1e3:.1f} ms, "
            f"p99 {self.late(0.99) * 1e3:.1f} ms, most {self.late(1) * 1e3:.1f} ms"
        )


@contextlib.asynccontextmanager
async def crowd(port: int, peers: int, report: Report, kind: str) -> AsyncIterator[None]:
    """Let another process be the slow peers, and note at the end what they met."""
    pipe = asyncio.subprocess.PIPE
    arguments = ("-m", "tests.proof.slow_crowd", str(port), str(peers), kind)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            report.peers = int(await process.stdout.readline() or b"0")
        if report.peers:
            yield
        process.stdin.close()
        async with asyncio.timeout(DEADLINE_SECONDS):
            said = await process.stdout.readline()
            if not said:
                raise WrongError("the slow peers failed")
            report.left, report.opened, report.cut = map(int, said.split())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listen(port: int, ready: asyncio.Semaphore, count: int, report: Report) -> None:
    """Get each message once and in order, and note how late it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /v1/channels/honest HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n")
        if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
            raise WrongError("a listener is refused")
        ready.release()
        for number in range(count):
            while not (line := await reader.readline()).startswith(b"data:"):
                if not line:
                    raise WrongError("a listener was cut off")
            now = time.monotonic_ns()
            got, sent = line.removeprefix(b"data:").strip(b' "\n').split(b" ")
            if int(got) != number:
                raise WrongError(f"a listener got {int(got)} and not {number}")
            report.delays.append((now - int(sent)) / 1e9)
    finally:
        writer.transport.abort()


async def _publish(port: int, count: int, report: Report) -> None:
    """Publish at a steady rate."""
    for number in range(count):
        body = b'"%d %d"' % (number, time.monotonic_ns())
        answer = await ask_http(port, "POST", "/v1/channels/honest", body, seconds=DEADLINE_SECONDS)
        if answer.status != 201:
            raise WrongError(f"a publish is answered with {answer.status}")
        report.published += 1
        await asyncio.sleep(PUBLISH_SECONDS)


async def _measure(port: int, peers: int, count: int, listeners: int, kind: str, report: Report) -> None:
    """Let everybody listen, then begin to publish, and let the slow peers come."""
    ready = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for _ in range(listeners):
            group.create_task(_listen(port, ready, count, report))
        for _ in range(listeners):
            await ready.acquire()
        publishing = group.create_task(_publish(port, count, report))
        async with crowd(port, peers, report, kind):
            await publishing


async def run(peers: int, seconds: float, listeners: int = LISTENERS, kind: str = "all") -> Report:
    """Measure for some seconds, on a server of its own. Raises `WrongError`."""
    report = Report()
    count = max(1, int(seconds / PUBLISH_SECONDS))
    with tempfile.TemporaryDirectory() as folder:
        async with Deployment(Path(folder), workers=1, settings={"dev": "true"}) as server:
            for _ in range(LARGE):
                answer = await ask_http(server.port, "POST", "/v1/channels/large", b'"%b"' % (b"x" * LARGE_BYTES))
                if answer.status != 201:
                    raise WrongError(f"a publish is answered with {answer.status}")
            async with asyncio.timeout(DEADLINE_SECONDS + 10 * seconds):
                await _measure(server.port, peers, count, listeners, kind, report)
            if "Traceback" in server.log:
                raise WrongError(server.log[-4000:])
    return report


def main(arguments: list[str] | None = None) -> int:
    """Run the command. The status is 1 where p99 is not below `P99_SECONDS`."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.slow_peers", description=__doc__)
    parser.add_argument("--peers", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--kind", choices=("all", *KINDS), default="all")
    options = parser.parse_args(arguments)
    report = asyncio.run(run(options.peers, options.seconds, kind=options.kind))
    sys.stdout.write(f"{report}\n")
    return 0 if report.late(0.99) < P99_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
