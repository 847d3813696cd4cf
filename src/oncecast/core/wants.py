"""The channels that a node asks its broker to deliver: those that have a listener, or had one lately.

Invariant: a channel is wanted from its first listener until `UNWANT_SECONDS` after its last. The broker is asked once
for all that become wanted in one turn of the loop.

Time is passed in; `schedule` runs a callable at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNWANT_SECONDS = 10.0  # clients that reconnect or change pages come back within it

Ask = Callable[[Sequence[str]], None]


class Wants:
    """The listeners of each channel, counted. `want` and `unwant` are the broker's."""

    def __init__(
        self, want: Ask, unwant: Ask, monotonic: Callable[[], float], schedule: Callable[[Callable[[], None]], object]
    ) -> None:
        self._want = want
        self._unwant = unwant
        self._monotonic = monotonic
        self._schedule = schedule
        self._listeners: dict[str, int] = {}
        self._idle: dict[str, float] = {}  # wanted channels without a listener, and since when; the oldest first
        self._asked: list[str] = []  # to be wanted at the end of the turn

    def add(self, channels: Sequence[str]) -> None:
        """Count one more listener of each channel."""
        for channel in channels:
            count = self._listeners.get(channel, 0)
            self._listeners[channel] = count + 1
            if count == 0 and self._idle.pop(channel, None) is None:
                if not self._asked:
                    self._schedule(self._ask)
                self._asked.append(channel)

    def remove(self, channels: Sequence[str]) -> None:
        """Count one listener less of each channel."""
        for channel in channels:
            count = self._listeners[channel] - 1
            if count:
                self._listeners[channel] = count
            else:
                del self._listeners[channel]
                self._idle[channel] = self._monotonic()

    def expire(self, now: float) -> list[str]:
        """Unwant the channels that have had no listener for `UNWANT_SECONDS`, and return them."""
        self._ask()  # so that a broker is never asked to unwant a channel before it is asked to want it
        ended: list[str] = []
        for channel, since in self._idle.items():
            if now - since < UNWANT_SECONDS:
                break
            ended.append(channel)
        for channel in ended:
            del self._idle[channel]
        if ended:
            self._unwant(ended)
        return ended

    def __contains__(self, channel: str) -> bool:
        """Return whether a channel is wanted."""
        return channel in self._listeners or channel in self._idle

    def _ask(self) -> None:
        asked, self._asked = self._asked, []
        if asked:
            self._want(asked)
