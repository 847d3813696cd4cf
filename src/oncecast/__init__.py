"""Oncecast: publish a message once; every listener gets it, whichever way it can listen.

The public names are the clients, what they yield, take and raise, and `Oncecast`, which runs inside an application.
Each has this one address. A name is imported when it is first used: the command line starts without what it does not
need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asgi.callers import Caller, Grant
    from .asgi.oncecast import Oncecast
    from .asgi.review import Publication
    from .asgi.streams import EventAnswer
    from .client.async_client import AsyncClient
    from .client.blocking import Client
    from .client.blocking_messages import BlockingMessages
    from .client.failures import (
        Broken,
        ClientFailed,
        PublishFailed,
        Refused,
        SubscriptionEnded,
        Unavailable,
        Unreachable,
    )
    from .client.gaps import GapError
    from .client.ladder import Moved, TransportMemory
    from .client.link import LinkState, StateChanged
    from .client.messages import Messages
    from .client.timing import Timing
    from .client.values import Ack, ClientMessage, Gap, History, Outgoing
    from .errors import OncecastError, UsageError

_ROOMS = {
    "asgi.callers": ("Caller", "Grant"),
    "asgi.oncecast": ("Oncecast",),
    "asgi.review": ("Publication",),
    "asgi.streams": ("EventAnswer",),
    "client.async_client": ("AsyncClient",),
    "client.blocking": ("Client",),
    "client.blocking_messages": ("BlockingMessages",),
    "client.failures": (
        "Broken",
        "ClientFailed",
        "PublishFailed",
        "Refused",
        "SubscriptionEnded",
        "Unavailable",
        "Unreachable",
    ),
    "client.gaps": ("GapError",),
    "client.ladder": ("Moved", "TransportMemory"),
    "client.link": ("LinkState", "StateChanged"),
    "client.messages": ("Messages",),
    "client.timing": ("Timing",),
    "client.values": ("Ack", "ClientMessage", "Gap", "History", "Outgoing"),
    "errors": ("OncecastError", "UsageError"),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Ack",
    "AsyncClient",
    "BlockingMessages",
    "Broken",
    "Caller",
    "Client",
    "ClientFailed",
    "ClientMessage",
    "EventAnswer",
    "Gap",
    "GapError",
    "Grant",
    "History",
    "LinkState",
    "Messages",
    "Moved",
    "Oncecast",
    "OncecastError",
    "Outgoing",
    "Publication",
    "PublishFailed",
    "Refused",
    "StateChanged",
    "SubscriptionEnded",
    "Timing",
    "TransportMemory",
    "Unavailable",
    "Unreachable",
    "UsageError",
]

__version__ = "0.1.0"


if not TYPE_CHECKING:  # a checker that saw it would take each misspelt name for an object

    def __getattr__(name: str) -> object:
        """Import a public name (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(f".{home}", __name__), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
