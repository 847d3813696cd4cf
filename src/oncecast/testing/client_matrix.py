"""The Python client against each row of obstacles: how soon its first message comes, and how soon it is back up.

`measure` publishes past the proxy all the while and holds what the application saw against what was published: any
message lost, repeated or out of order raises. `python -m oncecast.testing.client_matrix` measures every row with the
times of a client as it is; that takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass, fields, replace

from oncecast.client import AsyncClient, Messages, Moved, Timing
from oncecast.client.transports import TRANSPORTS
from oncecast.message import Draft
from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

from .obstacles import MATRIX, Obstacles, scaled

__all__ = ["Result", "main", "measure"]

BLOCKED_SECONDS = 25.0  # long enough for a transport that is cut again and again to be given up
BACK_SECONDS = 90.0  # until a measurement is given up
INTERVAL = 0.25  # between messages
SCALED = {"answer", "idle", "wait", "attach", "proof", "probe", "grace"}


@dataclass(frozen=True, slots=True)
class Result:
    """What one row was measured with, in seconds: `first`, from the subscription to its first message; `back`, from
    the unblocking to WebSocket. `transports` are those that were used, in order."""

    row: str
    first: float
    back: float
    received: int
    transports: tuple[str, ...]

    @property
    def lowest(self) -> str:
        """The last resort of all that were used."""
        return max(self.transports, key=list(TRANSPORTS).index)


async def measure(
    row: str, *, scale: float = 1.0, interval: float = INTERVAL, blocked: float = BLOCKED_SECONDS
) -> Result:
    """Measure one row that is unblocked after `blocked` seconds, with a message every `interval` seconds.

    These and all other times are multiplied by `scale`.

    Raises `AssertionError` where the stream was broken.
    """
    timing = Timing()
    timing = replace(timing, **{f.name: getattr(timing, f.name) * scale for f in fields(timing) if f.name in SCALED})

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds * scale)

    async with contextlib.AsyncExitStack() as stack:
        server = Server(Settings(port=0, limits=Limits(heartbeat_seconds=max(0.1, 15 * scale))))
        await server.start()
        stack.push_async_callback(server.stop, 0.1)
        proxy = await stack.enter_async_context(Obstacles(("127.0.0.1", server.port), scaled(MATRIX[row], scale)))
        client = await stack.enter_async_context(
            AsyncClient(f"http://127.0.0.1:{proxy.port}", timing=timing, sleep=sleep)
        )
        transports = [client.transport]
        on_top = asyncio.Event()

        def moved(move: Moved) -> None:
            transports.append(move.after)
            if move.after == transports[0]:
                on_top.set()

        client.on("transport", moved)
        published: list[int] = []
        seen: list[int] = []
        publishing = asyncio.create_task(_publish(server, published, interval * scale))
        began = time.monotonic()
        messages = client.subscribe("news", "sport", after="earliest")
        first = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(_listen(messages, seen, first))
        try:
            first_seconds = await asyncio.wait_for(first, BACK_SECONDS) - began
            await asyncio.sleep(blocked * scale)
            unblocked = time.monotonic()
            proxy.unblock()
            on_top.clear()
            if client.transport != transports[0]:
                await asyncio.wait_for(on_top.wait(), BACK_SECONDS)
            back_seconds = time.monotonic() - unblocked
            await asyncio.sleep(2 * scale)
            publishing.cancel()
            async with asyncio.timeout(10):
                while len(seen) < len(published):  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
        finally:
            for task in (publishing, listening):
                task.cancel()
            await asyncio.gather(publishing, listening, return_exceptions=True)
        # The order that is promised is that of each channel.
        if any([n for n in seen if n % 2 == each] != published[each::2] for each in (0, 1)):
            raise AssertionError(f"{row}: {len(seen)} of {len(published)} were seen, or not in their order")
        return Result(row, first_seconds, back_seconds, len(seen), tuple(transports))


async def _publish(server: Server, published: list[int], interval: float) -> None:
    while True:
        number = len(published)
        channel = ("news", "sport")[number % 2]
        server.node.publish((Draft(channel, str(number).encode()),), lambda outcomes: None)
        published.append(number)
        await asyncio.sleep(interval)


async def _listen(messages: Messages, seen: list[int], first: asyncio.Future[float]) -> None:
    async for message in messages:
        seen.append(message.data)
        if not first.done():
            first.set_result(time.monotonic())


async def _measure(rows: list[str], scale: float, blocked: float) -> list[Result]:
    return await asyncio.gather(*[measure(row, scale=scale, blocked=blocked) for row in rows])


def main(arguments: list[str]) -> int:
    """Measure rows at once and print what was found; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m oncecast.testing.client_matrix")
    parser.add_argument("rows", nargs="*", default=list(MATRIX), metavar="ROW")
    parser.add_argument("--scale", type=float, default=1.0, help="all times are multiplied by it")
    parser.add_argument("--blocked", type=float, default=BLOCKED_SECONDS, help="seconds until a row is unblocked")
    options = parser.parse_args(arguments)
    for result in asyncio.run(_measure(options.rows, options.scale, options.blocked)):
        sys.stdout.write(
            f"{result.row:<20} first {result.first:5.2f} s   back {result.back:5.1f} s   {result.received} received   "
            f"{' → '.join(result.transports)}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
