"""Asks the application's `authorize` function who makes a request of the native server, before the routes answer it.

It is what `asgi/gate.py` is for requests over ASGI, with the same order: host, origin, the credentials of the settings,
then the function. Invariant: each request is asked for, also on a connection that has been asked for before; while the
function decides, the request waits like one whose ticket is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from ...errors import Refusal
from ...http import routes
from ...http.credentials import trusts_cookies
from ...http.exchange import Exchange
from ...http.service import Service
from ...policy.identity import Identity
from ...wire import http1
from ..callers import Caller, WhoAsks
from ..gate import find_holder, renew
from ..scopes import Scope
from .native import Lendable, LoggedSharedConnection, SharedConnection

__all__ = ["NativeGate"]


class NativeGate:
    """Asks `authorize`, which has `seconds` to answer."""

    def __init__(self, authorize: WhoAsks, seconds: float) -> None:
        self._authorize = authorize
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, service: Service, connection: Exchange, request: http1.Request) -> None:
        """Answer a request, as `routes.handle` does. Raises `Refusal`."""
        if not request.path.startswith("/v1/"):
            routes.handle(service, connection, request)
            return
        assert isinstance(connection, SharedConnection | LoggedSharedConnection)
        if connection.identity.kind != "anybody":  # of the request before
            connection.identity = Identity(connection.identity.address)
        service.hosts.check(request.headers.get("host"))
        cors = service.check_origin(request)
        if request.method == "OPTIONS":  # a preflight has no credentials
            routes.handle(service, connection, request)
            return
        service.identify(connection, request)
        cookies, scope = trusts_cookies(request, cors), _scope_of(request, connection, service.scheme)
        address = connection.identity.address
        connection.renew = partial(renew, service, address, request, scope, self._authorize, self._seconds, cookies)
        if routes.redeems(service, request):  # the function was asked when the ticket was issued
            routes.handle(service, connection, request)
            return
        caller = Caller(request, scope, connection.identity, cookies=cookies)
        self.run(self._ask(service, connection, request, caller))
        connection.wait(request)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what the application is asked in a task."""
        task = asyncio.create_task(work, name="oncecast: authorize")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up on what is asked."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._seconds)

    async def _ask(self, service: Service, connection: Lendable, request: http1.Request, caller: Caller) -> None:
        found: Identity | Refusal
        try:
            found = await find_holder(service, self._authorize, caller, self._seconds)
        except Refusal as refusal:
            found = refusal.as_value()
        connection.proceed(request, partial(_go_on, service, connection, request, found))


def _go_on(service: Service, connection: Lendable, request: http1.Request, found: Identity | Refusal) -> None:
    if isinstance(found, Refusal):
        raise found.copy()
    connection.identity = found
    routes.handle(service, connection, request)


def _scope_of(request: http1.Request, connection: Lendable, scheme: str) -> Scope:
    """Return what a server of ASGI would say of a request."""
    is_socket = "upgrade" in request.headers
    return {
        "type": "websocket" if is_socket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": f"1.{request.version[1]}",
        "method": request.method,
        "scheme": {"http": "ws", "https": "wss"}[scheme] if is_socket else scheme,
        "path": request.path,
        "raw_path": request.raw_path.encode("ascii", "replace"),
        "query_string": request.query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers.items()
        ],
        "client": (connection.identity.address, 0),
        "server": None,
        "extensions": {},
    }
