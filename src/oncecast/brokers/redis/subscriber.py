"""The connection with the subscriptions: everything on it comes in the order of the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

from .faults import lost, meaning
from .line import close

SUBSCRIBE_AT_ONCE = 1_000  # channels in one command

Pushed = list[Any]  # what kind it is, the name of the pub/sub channel, and the payload


class RedisSubscriber:
    """See the module. `prefix` begins the names of the pub/sub channels, `own` is the one of this node."""

    def __init__(self, connection: AbstractConnection, prefix: str, own: str) -> None:
        self._connection: Any = connection
        self._prefix = f"{prefix}:p:"
        self._own = own
        self._ready: deque[Pushed] = deque()  # what was pushed while the session was opened

    async def open(self, channels: Sequence[str]) -> None:
        """Subscribe to this node's own channel and to these, and return once all stand."""
        names = [self._own, *(self._prefix + channel for channel in channels)]
        await self._send("SUBSCRIBE", names)
        left = len(names)
        while left:
            pushed = await self._next()
            if pushed[0] == b"subscribe":
                left -= 1
            else:
                self._ready.append(pushed)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels; the server pushes `subscribe` for each that stands."""
        await self._send("SUBSCRIBE", [self._prefix + channel for channel in channels])

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels no longer."""
        await self._send("UNSUBSCRIBE", [self._prefix + channel for channel in channels])

    async def hear(
        self, own: Callable[[bytes], None], message: Callable[[str, bytes], None], stands: Callable[[str], None]
    ) -> None:
        """Hand over what is pushed, in order, until the connection is lost."""
        while True:
            pushed = self._ready.popleft() if self._ready else await self._next()
            kind, name = pushed[0], pushed[1].decode()
            if kind == b"message":
                if name == self._own:
                    own(pushed[2])
                else:
                    message(name.removeprefix(self._prefix), pushed[2])
            elif kind == b"subscribe":
                stands(name.removeprefix(self._prefix))

    async def close(self) -> None:
        """Close the connection."""
        await close(self._connection)

    async def _next(self) -> Pushed:
        try:
            pushed: Pushed = await self._connection.read_response(disable_decoding=True)
        except redis.exceptions.ResponseError as error:
            raise meaning(error) from None
        except (redis.exceptions.RedisError, OSError) as error:
            raise lost(error) from None
        return pushed

    async def _send(self, verb: str, names: Sequence[str]) -> None:
        try:
            for at in range(0, len(names), SUBSCRIBE_AT_ONCE):
                packed = self._connection.pack_command(verb, *names[at : at + SUBSCRIBE_AT_ONCE])
                await self._connection.send_packed_command(packed, check_health=False)
        except (redis.exceptions.RedisError, OSError) as error:
            raise lost(error) from None
