"""The clients against each row of obstacles: the time to the first message, and to the return to the best transport.

`measure` publishes past the proxy and compares the application's messages with the published ones: it raises at a lost,
repeated or misplaced one. `python -m tests.proof.client_matrix` measures every row with the clients' real times, and
fails if one takes longer than the promise. It takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from oncecast.client.transports import TRANSPORTS
from oncecast.message import Draft
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Limits, Settings

from ..token_rig import SECRET
from .matrix_listeners import CHANNELS, CLIENTS, Heard, Listen
from .obstacles import MATRIX, Obstacles, scaled

__all__ = ["Result", "broken_promises", "main", "measure", "measure_all"]

BLOCKED_SECONDS = 25.0  # long enough for a client to leave a transport that is cut repeatedly
LAST_CUT_SECONDS = 5.0  # for the row's obstacle to cut the connections from before the unblocking
GIVEN_UP_SECONDS = 90.0  # the deadline of a wait, on a loaded machine too
INTERVAL = 0.25  # between messages
BEST = next(iter(TRANSPORTS))
# The promises in seconds: the first message, also in the worst row; the best transport once the network is open.
FIRST_SECONDS = 5.0
WORST_FIRST_SECONDS = 10.0
BACK_SECONDS = 60.0


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
    row: str,
    listen: Listen,
    *,
    scale: float = 1.0,
    interval: float = INTERVAL,
    blocked: float = BLOCKED_SECONDS,
    life: float = 0.0,
) -> Result:
    """Measure one row that is unblocked after `blocked` seconds, with a message every `interval` seconds.

    These and all other times are multiplied by `scale`, but not `life`: where it is not 0, the server asks for tokens,
    and each of them ends after so many seconds. Raises `AssertionError` where the stream was broken, and
    `TimeoutError` where it stopped.
    """
    async with contextlib.AsyncExitStack() as stack:
        auth = AuthSettings(secret=SECRET, leeway_seconds=0) if life else AuthSettings()
        rules = {name: ChannelRule(subscribe="token") for name in CHANNELS} if life else {}
        limits = Limits(heartbeat_seconds=max(0.1, 15 * scale))
        server = Server(Settings(port=0, limits=limits, auth=auth, channels=rules))
        await server.start()
        stack.push_async_callback(server.stop, 0.1)
        proxy = await stack.enter_async_context(Obstacles(("127.0.0.1", server.port), scaled(MATRIX[row], scale)))
        published: list[int] = []
        publishing = asyncio.create_task(_publish(server, published, interval * scale))
        stack.push_async_callback(_end, publishing)
        heard = await stack.enter_async_context(listen(f"http://127.0.0.1:{proxy.port}", scale, life))
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            await heard.until(lambda: bool(heard.seen))
        await asyncio.sleep(blocked * scale)
        unblocked = time.monotonic()
        proxy.unblock()
        await asyncio.sleep(LAST_CUT_SECONDS * scale)
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            await _until_best(heard, 2 * scale)
        back = max(0.0, heard.moved - unblocked)
        await _end(publishing)
        try:
            async with asyncio.timeout(GIVEN_UP_SECONDS):
                await heard.until(lambda: len(heard.seen) >= len(published))
        except TimeoutError:
            pass  # the messages are counted below
        # The promise is the order within each channel.
        halves = [[number for number in heard.seen if number % 2 == each] for each in (0, 1)]
        if heard.gaps or halves != [published[0::2], published[1::2]]:
            raise AssertionError(
                f"{row}: {len(heard.seen)} of {len(published)} were seen, or not in their order; gaps: {heard.gaps}"
            )
        return Result(row, heard.first - heard.began, back, len(heard.seen), tuple(heard.transports))


async def measure_all(
    rows: Iterable[str], measure_row: Callable[[str], Awaitable[Result]], judge: Callable[[Result], Iterable[str]]
) -> list[str]:
    """Measure all rows at once, then those that `judge` finds fault with alone, twice; return what is still wrong.

    Scaled times are short, and rows and tests that run at once may be late by as much. A broken stream is an exception
    at once, whatever the machine does.
    """
    results = await asyncio.gather(*map(measure_row, rows))
    for _ in range(2):
        results = [await measure_row(each.row) for each in results if any(judge(each))]
    return [f"{fault}: {each}" for each in results for fault in judge(each)]


async def _until_best(heard: Heard, seconds: float) -> None:
    """Wait until the best transport is in use, and has been for a while.

    On a loaded machine a page hears late that a connection from before the unblocking was cut.
    """
    moved = -1.0
    while moved != heard.moved:
        await heard.until(lambda: heard.transports[-1:] == [BEST])
        moved = heard.moved
        await asyncio.sleep(seconds)


def broken_promises(results: Sequence[Result]) -> list[str]:
    """Say which results are later than is promised: in one row, the worst, the first message may be a little later."""
    broken = [f"{each.row}: back after {each.back:.1f} s" for each in results if each.back > BACK_SECONDS]
    worst = max(results, key=lambda each: each.first)
    late = [each for each in results if each.first > (WORST_FIRST_SECONDS if each is worst else FIRST_SECONDS)]
    return broken + [f"{each.row}: the first message after {each.first:.1f} s" for each in late]


async def _publish(server: Server, published: list[int], interval: float) -> None:
    while True:
        number = len(published)
        channel = CHANNELS[number % len(CHANNELS)]
        server.node.publish((Draft(channel, str(number).encode()),), lambda outcomes: None)
        published.append(number)
        await asyncio.sleep(interval)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _measure(client: str, rows: list[str], scale: float, blocked: float, life: float) -> list[Result]:
    async with CLIENTS[client]() as listen:
        return await asyncio.gather(*[measure(row, listen, scale=scale, blocked=blocked, life=life) for row in rows])


def main(arguments: list[str]) -> int:
    """Measure rows at once, one client after another, and print what was found; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.client_matrix")
    parser.add_argument("rows", nargs="*", default=list(MATRIX), metavar="ROW")
    parser.add_argument("--client", action="append", choices=CLIENTS, help="one of these only; repeatable")
    parser.add_argument("--scale", type=float, default=1.0, help="all times are multiplied by it, and none is judged")
    parser.add_argument("--blocked", type=float, default=BLOCKED_SECONDS, help="seconds until a row is unblocked")
    parser.add_argument("--life", type=float, default=0.0, help="seconds after which each token ends; 0 for no tokens")
    options = parser.parse_args(arguments)
    broken = []
    for client in options.client or CLIENTS:
        results = asyncio.run(_measure(client, options.rows, options.scale, options.blocked, options.life))
        for result in results:
            sys.stdout.write(
                f"{client:<9} {result.row:<20} first {result.first:5.2f} s   back {result.back:5.1f} s   "
                f"{result.received} received   {' → '.join(result.transports)}\n"
            )
            sys.stdout.flush()
        if options.scale >= 1:
            broken += [f"{client} {line}" for line in broken_promises(results)]
    for line in broken:
        sys.stderr.write(f"later than promised: {line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
