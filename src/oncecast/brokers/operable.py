"""What `oncecast broker` asks of a broker beside its contract: the state of the log, its channels, and trimming.

A broker may have these three coroutines. They are called between `start` and `stop`, on the loop's thread, and raise
`Refusal` where the server does not answer. To add them to a broker on another machine, give its `RemoteSession` the
same three: `Remote` passes the calls on.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from ..message import Retention


class LogState(msgspec.Struct, frozen=True):
    """What a server says of the log. `server` is its name and version.

    `holes` counts the ranges of numbers that were never given, and a log has one life more than holes. `bytes` is what
    `measure` says: memory or disk, of the log or of the whole server; None where the server does not say it.
    """

    server: str
    holes: int = 0
    bytes: int | None = None
    measure: str = ""


class ChannelState(msgspec.Struct, frozen=True):
    """One channel: how many messages are kept, and their first and last number; both 0 without a message."""

    name: str
    messages: int = 0
    oldest: int = 0
    newest: int = 0


@runtime_checkable
class Operable(Protocol):
    """See the module."""

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        ...

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message, by name."""
        ...

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now, exactly to `retention`, whose `messages` may be 0; return what is left.

        Cursors behind what is trimmed are answered with a gap, as after the sweep.
        """
        ...
