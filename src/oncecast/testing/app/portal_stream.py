"""An event stream of an application that a `TestClient` of Starlette or FastAPI runs, read by a test without a loop.

The application runs on the loop of the client's portal, in a thread. Each call here runs there and has a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

from ...errors import UsageError
from ...wire.sse import SseEvent
from .call import ANSWER_SECONDS
from .conversation import AsgiConversation, scope_of_request

__all__ = ["PortalClient", "PortalStream", "portal_of"]


class PortalClient(Protocol):
    """The part of a `TestClient` that is needed. `portal` is there inside of its `with`."""

    app: Any
    portal: Any

    def build_request(self, method: str, url: str, *, headers: Any = None) -> Any:
        """Return a request with the client's own headers and cookies."""
        ...


def portal_of(client: PortalClient) -> Any:
    """Return the portal to the client's loop. Raises `UsageError` where it has none."""
    if client.portal is None:
        raise UsageError("The client has no loop that lasts: use it as `with TestClient(app) as client:`.")
    return client.portal


class PortalStream:
    """One GET, open from its making until `close`, or the end of its `with`."""

    def __init__(self, client: PortalClient, url: str, headers: dict[str, str] | None = None) -> None:
        portal = portal_of(client)
        request = client.build_request("GET", url, headers={"Accept": "text/event-stream", **(headers or {})})
        self._portal = portal
        self._conversation: AsgiConversation = self._portal.call(
            AsgiConversation, client.app, scope_of_request(request)
        )
        self._portal.call(self._conversation.open)

    @property
    def status_code(self) -> int:
        """The status of the answer."""
        return self._conversation.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer, by their names in lower case."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._conversation.headers}

    def next(self, seconds: float = ANSWER_SECONDS) -> SseEvent:
        """Return the next event. Raises `TimeoutError` where none comes, and `EOFError` at the end of the stream."""
        event: SseEvent | None = self._portal.call(self._conversation.event, seconds)
        if event is None:
            raise EOFError("the stream has ended")
        return event

    def __iter__(self) -> Iterator[SseEvent]:
        while (event := self._portal.call(self._conversation.event)) is not None:
            yield event

    def read(self, seconds: float = ANSWER_SECONDS) -> bytes:
        """Return the next piece of the answer as it was sent, b"" at its end. Raises `TimeoutError`."""
        block: bytes = self._portal.call(self._conversation.block, seconds)
        return block

    def close(self) -> None:
        """Leave, as a browser that closes its `EventSource`, and wait until the application has noticed."""
        self._portal.call(self._conversation.close)

    def __enter__(self) -> PortalStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
