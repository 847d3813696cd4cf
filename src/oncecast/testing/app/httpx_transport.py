"""A transport for the `AsyncClient` of httpx that reads an ASGI application's answer while the application sends it.

It is for httpx2, the successor, too. The type of the request shows which of the two it is, so neither is imported here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

from .call import AsgiApplication
from .conversation import AsgiConversation, scope_of_request

__all__ = ["StreamingTransport"]


class StreamingTransport:
    """Calls `app` for each request, on the loop of the test. `root_path` is that of the scope.

    An endless answer ends when it is closed: by the end of `async with client.stream(...)`. What httpx calls the read
    timeout is that of each piece, 5 seconds by default, so an answer that is read whole by mistake raises
    `httpx.ReadTimeout`. Raises what the application raises. The lifespan is not run.
    """

    def __init__(self, app: AsgiApplication, *, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request of httpx by its own kind of response."""
        library = import_module(type(request).__module__.partition(".")[0])
        seconds: float | None = request.extensions.get("timeout", {}).get("read")
        body: bytes = await request.aread()
        conversation = AsgiConversation(self._app, scope_of_request(request, self._root_path), body)
        try:
            await conversation.open(seconds)
        except TimeoutError as error:
            raise library.ReadTimeout(str(error), request=request) from None
        stream = _body_class(library)(conversation, seconds, request)
        return library.Response(conversation.status, headers=conversation.headers, stream=stream)

    async def aclose(self) -> None:
        """Do nothing: each answer is closed by itself."""

    async def __aenter__(self) -> StreamingTransport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@lru_cache(maxsize=2)
def _body_class(library: ModuleType) -> Any:
    """Return the body of an answer as this library knows it."""

    class StreamedBody(library.AsyncByteStream):  # type: ignore[misc, name-defined]  # known as it runs
        """The body of one answer."""

        def __init__(self, conversation: AsgiConversation, seconds: float | None, request: Any) -> None:
            self._conversation = conversation
            self._seconds = seconds
            self._request = request

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                try:
                    block = await self._conversation.block(self._seconds)
                except TimeoutError as error:
                    raise library.ReadTimeout(str(error), request=self._request) from None
                if not block:
                    return
                yield block

        async def aclose(self) -> None:
            """Leave."""
            await self._conversation.close()

    return StreamedBody
