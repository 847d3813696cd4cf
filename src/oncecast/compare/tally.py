"""What one transport's listeners have received, and what they did for it.

Invariant: an arrival is counted once for each listener and message; a second one is a repeat. Delays are differences of
one clock, that of the process which both publishes and listens.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..client.base import Authorize, anonymous
from ..client.dialing import Endpoint
from ..client.http import HttpConnection, Response
from ..client.timing import Timing
from ..wire.http1_client import ResponseHead

__all__ = ["CountedConnection", "PublishTimes", "Tally", "percentile", "sequence_of", "text_of"]


_NOTHING = b'"messages":[]'  # spec/wire.md: a page's first field


class PublishTimes:
    """When each message was handed to the publisher, by its number: what delays are counted from. 0 is not yet."""

    def __init__(self, run: str, count: int) -> None:
        self.run = run
        self.sent = array("d", bytes(8 * count))

    def __len__(self) -> int:
        return len(self.sent)


def text_of(run: str, number: int, size: int) -> str:
    """Return a message's data: the run and the number, filled up to `size` bytes."""
    return f"{run} {number} ".ljust(size, "x")


def sequence_of(run: str, data: object) -> int | None:
    """Return a message's number; None for a message that is not of this run."""
    words = data[: len(run) + 12].split(" ", 2) if isinstance(data, str) else []
    return int(words[1]) if len(words) > 1 and words[0] == run and words[1].isdecimal() else None


@dataclass(slots=True)
class Tally:
    """One transport's counts, of all its listeners together. Times are seconds of the clock."""

    times: PublishTimes
    requests: int = 0
    broken: int = 0  # connections that were lost, and opened again
    gaps: int = 0
    repeated: int = 0
    attached: int = 0  # listeners that have been attached once
    reason: str = ""  # why the last connection broke, or was refused
    refused: int = 0  # listeners that were refused for good
    page_bytes: int = 0  # of answers with messages, without what an empty one has
    envelope: int = 0  # bytes of an empty answer
    empty: array[float] = field(default_factory=lambda: array("d"))  # when polls were answered with nothing
    arrived: array[float] = field(default_factory=lambda: array("d"))  # when messages came
    delays: array[float] = field(default_factory=lambda: array("d"))  # of those messages, in the same order
    seen: list[bytearray] = field(default_factory=list)  # a listener's messages, by number

    def listener(self) -> bytearray:
        """Return the record of another listener, to be given to `arrive`."""
        self.seen.append(bytearray(len(self.times)))
        return self.seen[-1]

    def arrive(self, seen: bytearray, data: object, now: float) -> None:
        """Count a message that came to a listener."""
        number = sequence_of(self.times.run, data)
        if number is None or number >= len(seen):
            return
        if seen[number]:
            self.repeated += 1
            return
        seen[number] = 1
        self.arrived.append(now)
        self.delays.append(now - self.times.sent[number])

    def received(self, first: int, last: int) -> int:
        """Return how many of the messages from `first` to before `last` have come, at all listeners together."""
        return sum(sum(seen[first:last]) for seen in self.seen)


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values that are sorted and not empty."""
    rank = -(-len(sorted_values) * percent // 100)
    return sorted_values[max(0, int(rank) - 1)]


class CountedConnection(HttpConnection):
    """A connection whose requests are counted in `tally`. It is made by a transport, as its `connection`."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timing: Timing,
        authorize: Authorize = anonymous,
        tally: Tally,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(endpoint, timing=timing, authorize=authorize)
        self._tally = tally
        self._clock = clock

    async def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        wait: float = 0.0,
    ) -> Response:
        """Count an answer that says that nothing is new."""
        answer = await super().request(method, path, headers, body, wait=wait)
        tally = self._tally
        if answer.status == 304:
            tally.empty.append(self._clock())
        elif answer.status == 200 and _NOTHING in answer.body[:64]:
            tally.empty.append(self._clock())
            tally.envelope = len(answer.body)
        elif answer.status == 200:
            tally.page_bytes += len(answer.body) - tally.envelope
        return answer

    async def stream(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        wait: float = 0.0,
    ) -> ResponseHead:
        """Count a request, those of `request` too."""
        self._tally.requests += 1
        return await super().stream(method, path, headers, body, wait=wait)

    async def upgrade(self, make: Callable[[Sequence[tuple[str, str]]], bytes]) -> tuple[ResponseHead, bytes]:
        """Count a handshake."""
        self._tally.requests += 1
        return await super().upgrade(make)
