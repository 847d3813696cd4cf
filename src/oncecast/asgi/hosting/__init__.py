"""`oncecast serve --app`: an application of ASGI beside the native server, on one port and one loop.

`guest.py` is what the server sees of it. `split.py` says whose a request is, `native.py` and `uvicorn_side.py` are the
two owners of a connection, which give it to each other between two requests. `application.py` finds the application,
`worker.py` is the program of a worker process. Invariant: nothing here is imported by a server without an application.
"""

from __future__ import annotations

from ...server.guest import Guest, Hosting

__all__ = ["HOSTING"]


def _load(target: str) -> Guest:
    from .guest import AppGuest

    return AppGuest(target)


HOSTING = Hosting(_load, "oncecast.asgi.hosting.worker")
