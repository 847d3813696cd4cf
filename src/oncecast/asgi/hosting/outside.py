"""The application's own requests: their client and scheme behind a proxy, and their lines in the access log.

Without trusted proxies and without an access log no request passes here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import quote

from ...server.logs.line import Value
from ...server.logs.requests import PATH_CHARS, shown_method, shown_path
from ..scopes import AsgiSend, Event, Receive, Scope, address_of, headers_of_scope
from ..wrapping import AsgiApp
from .life import HostedLife

__all__ = ["Outside"]

_PROTO = re.compile(r'(?:^|;)\s*proto="?(https?)"?\s*(?:;|$)', re.IGNORECASE)


class Outside:
    """Passes scopes on to `app`, by the settings that `life` has now."""

    def __init__(self, app: AsgiApp, life: HostedLife) -> None:
        self._app = app
        self._life = life
        self._proxied = bool(life.settings.trusted_proxies)

    def serve(self, scope: Scope, receive: Receive, send: AsgiSend) -> Awaitable[None]:
        """Pass a scope on."""
        if self._proxied and scope["type"] != "lifespan":
            scope = self._behind_proxy(scope)
        if self._life.logging and scope["type"] != "lifespan":
            return self._logged(scope, receive, send)
        return self._app(scope, receive, send)

    def _behind_proxy(self, scope: Scope) -> Scope:
        """Return the scope with the client's address, and the scheme by which it has asked, as a trusted proxy says."""
        life, peer = self._life, address_of(scope)
        if not life.trusts(peer):
            return scope
        headers = headers_of_scope(scope)
        client = life.address(peer, headers)
        changed: dict[str, Any] = {"client": (client, 0)} if client != peer else {}
        scheme = _scheme_of(headers, life.settings.forwarded_header)
        if scheme:
            changed["scheme"] = scheme if scope["type"] == "http" else {"http": "ws", "https": "wss"}[scheme]
        return {**scope, **changed} if changed else scope

    async def _logged(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        began = time.monotonic()
        is_socket = scope["type"] == "websocket"
        more: dict[str, Value] = {}
        size = 0

        async def noted(event: Event) -> None:
            nonlocal size
            kind = event["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                more["status"] = event["status"]
            elif kind == "websocket.accept":
                more["status"] = 101
            elif kind == "websocket.close":
                if "status" in more:
                    more["close"] = event.get("code", 1000)
                else:
                    more["status"] = 403
            size += len(event.get("body") or event.get("bytes") or event.get("text") or b"")
            await send(event)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("ascii", "replace")
            fields: dict[str, Value] = {
                "address": address_of(scope) or "-",
                "method": shown_method(scope.get("method", "GET")),
                "path": shown_path(path.partition("?")[0], PATH_CHARS) + ("?..." if scope.get("query_string") else ""),
                **more,
                "bytes": size,
                "seconds": round(time.monotonic() - began, 3),
            }
            if is_socket:
                fields["as"] = "socket"
            self._life.log(fields)


def _scheme_of(headers: Any, header: str) -> str | None:
    """Return the scheme that the last proxy has named: `http`, `https`, or None."""
    if header == "x-forwarded-for":
        said = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        return said if said in ("http", "https") else None
    found = _PROTO.search(headers.get("forwarded", "").rpartition(",")[2])
    return None if found is None else found[1].lower()
