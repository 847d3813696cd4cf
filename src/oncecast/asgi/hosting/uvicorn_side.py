"""The application's side of a connection: a protocol of uvicorn, which gives the connection back between two requests.

uvicorn parses and answers the application's requests as it would alone, on the very transport of the loop, with one
call more for each piece that is read. Invariant: the connection goes back only when uvicorn has no request of it that
is not answered, and the transport no byte that is not sent; then the next byte begins the next request.

What is used of uvicorn: the class of its protocol, which `Config(http=…)` would take from others too, the attributes
that `_is_idle` reads, and in `guest.py` `Config`, and `Server` with `startup`, `main_loop` and `shutdown`.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .native import Lendable
from .split import Split

__all__ = ["AppProtocol"]

_MAYBE_NATIVE = (b"GET /v1/c", b"POST /v1/")  # what is worth the way back; anything else is answered over ASGI


class AppProtocol(HttpToolsProtocol):
    """uvicorn's side of the connection of `owner`. A head has the server's limits, as uvicorn has none."""

    # CPython finds attributes of objects fast whose dictionaries have up to 30 keys, and uvicorn's has 28.
    __slots__ = ("_head_bytes", "_owner", "_split")

    def __init__(
        self, owner: Lendable, split: Split, config: Config, state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, state, app_state)
        self._owner = owner
        self._split = split
        self._head_bytes = 0  # of a head that is not whole
        base: Any = config.ws_protocol_class
        if base is not None:
            self.ws_protocol_class: Any = partial(_socket_class(base), owner)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin."""
        super().connection_made(transport)
        _set_client(self, self._owner)

    def data_received(self, data: bytes) -> None:
        """Read the application's requests, or give the connection back with the server's."""
        if data.startswith(_MAYBE_NATIVE) and self._split.begins_native(data) and self._is_idle():
            self._give_back(data)
            return
        HttpToolsProtocol.data_received(self, data)  # as `super()`, at half its cost
        if self._head_bytes or self.cycle is None or self.cycle.scope is not self.scope:
            self._watch_head(len(data))

    def take(self, data: bytes) -> None:
        """Do as `data_received`, with decrypted bytes: see `TlsReader`."""
        self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything, and let the owner do so."""
        super().connection_lost(exc)
        self._owner.connection_lost(exc)

    # -- helpers

    def _is_idle(self) -> bool:
        """Whether the next byte begins a request, and every answer before it is sent."""
        cycle = self.cycle
        return (
            cycle is not None
            and cycle.scope is self.scope  # else another head has begun
            and cycle.response_complete
            and not cycle.more_body
            and not self.pipeline
            and not self.transport.is_closing()
            and self.transport.get_write_buffer_size() == 0
        )

    def _give_back(self, data: bytes) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self.connections.discard(self)
        self._owner.give_back(data)

    def _watch_head(self, size: int) -> None:
        """Hold a head that comes in pieces to the server's limits."""
        owner, limits = self._owner, self._owner.app.settings
        if self.cycle is not None and self.cycle.scope is self.scope:
            self._head_bytes = 0
            owner.app.wheel.clear(owner)
            return
        if self.transport.is_closing():
            return
        if not self._head_bytes:
            owner.wake_at(owner.now() + limits.head_seconds)
        self._head_bytes += size
        if self._head_bytes > limits.header_bytes:
            self.send_400_response(f"The head is over {limits.header_bytes} bytes.")


class _Socket(asyncio.Protocol):
    """What is added to uvicorn's protocol of a WebSocket."""

    def __init__(self, owner: Lendable, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._owner = owner
        owner.lent_to(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        _set_client(self, self._owner)

    def take(self, data: bytes) -> None:
        """Do as `data_received`, with decrypted bytes."""
        self.data_received(data)

    def shutdown(self) -> None:
        """Say goodbye: the class beside this one does."""
        super().shutdown()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything, and let the owner do so."""
        super().connection_lost(exc)
        self._owner.connection_lost(exc)


@lru_cache
def _socket_class(base: Any) -> Any:
    return type("AppSocket", (_Socket, base), {})


def _set_client(protocol: Any, owner: Lendable) -> None:
    """Let the scopes have the client that a proxy has named by the PROXY protocol, which is not the socket's peer."""
    if protocol.client is not None and owner.identity.address not in ("", protocol.client[0]):
        protocol.client = (owner.identity.address, 0)
