"""The floor of an idle subscriber: the same event loop, and connections that get one answer and stay open.

Run as `python -m benchmarks.bare PORT`. It ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import cast

__all__ = ["serve"]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Bare(asyncio.Protocol):
    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


async def serve(port: int) -> None:
    """Answer requests on `port` until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    server = await loop.create_server(_Bare, "127.0.0.1", port, backlog=4096)
    await stopping.wait()
    server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:  # the server does the same
        asyncio.run(serve(int(sys.argv[1])))
    else:
        uvloop.run(serve(int(sys.argv[1])))
