"""The time that all connections together may read in one turn of the loop."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest

from oncecast.server.read_budget import SHORT_BYTES, TURN_SECONDS, ReadBudget
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Open

SOCKETS, FRAMES, REQUESTS = 40, 5_000, 1_500  # frames or requests of each socket, if its buffers take them
STALL_SECONDS = 0.15  # of this thread's own time, the test's work included; without the budget it is a second
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
SSE = b"GET /v1/channels/b HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class Reader:
    """Takes `seconds` when it goes on."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock = clock
        self.seconds = seconds
        self.turns = 0

    def go_on(self) -> None:
        self.turns += 1
        self.clock[0] += self.seconds

    def abort(self) -> None:
        raise AssertionError("it did not fail")


def test_a_turn_has_time_for_so_much_and_the_queue_is_served_in_order() -> None:
    """The buffer is short as long as anyone waits, and whole again after that."""
    clock = [0.0]
    scheduled: list[Callable[[], None]] = []
    budget = ReadBudget(lambda: clock[0], scheduled.append)
    whole = len(budget.buffer)
    readers = [Reader(clock, TURN_SECONDS * 0.6) for _ in range(5)]
    for reader in readers:
        budget.wait(reader)
    budget.seconds = TURN_SECONDS
    budget.exhaust()
    budget.exhaust()
    assert (1, SHORT_BYTES) == (len(scheduled), len(budget.buffer))
    for turns in ([1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]):
        scheduled.pop()()
        assert turns == [reader.turns for reader in readers]
    assert (False, whole, 0) == (budget.spent, len(budget.buffer), len(scheduled))
    assert budget.left == pytest.approx(TURN_SECONDS * 0.4)


@pytest.mark.parametrize("kind", ["frames", "requests"])
async def test_a_flood_on_many_sockets_does_not_stall_the_loop(
    open_site: Open, upgrade: Callable[..., bytes], kind: str
) -> None:
    """While 40 sockets publish as much as the limits allow at once, each turn of the loop is short."""
    site = await open_site()
    listener = await site.sse("b")
    peers = []
    for _ in range(SOCKETS):
        peer = await site.connect(upgrade("/v1/channels/a", protocol=None) if kind == "frames" else b"")
        if kind == "frames":
            await peer.until(b"\r\n\r\n")
        peers.append(peer)
    piece, count = (encode_frame(Opcode.TEXT, b"1", mask=b"mask"), FRAMES) if kind == "frames" else (POST, REQUESTS)
    flood = piece * count
    sent = 0
    for peer in peers:  # without a pause: all of it is in the sockets before the loop reads again
        sock: socket.socket = peer.writer.get_extra_info("socket")
        sent += socket.socket.send(sock._sock, flood) // len(piece)  # type: ignore[attr-defined]
    assert sent > SOCKETS * 100
    log = site.server.node.log
    worst, last = 0.0, time.thread_time()
    until = asyncio.get_running_loop().time() + 60
    while log.head < sent and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0)
        now = time.thread_time()
        worst, last = max(worst, now - last), now
    assert log.head >= sent
    assert worst < STALL_SECONDS
    site.publish("b", b"through")
    assert b"data: through\n" in await asyncio.wait_for(listener.until(b"data: through\n"), 20)
