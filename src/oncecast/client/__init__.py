"""The Python client: subscribe and publish over any of the four transports, resuming by cursor.

Read `base.py` (the contract), then a transport, then `places.py`, `feed.py`, `session.py`, `link.py`, and the two
faces, `async_client.py` and `blocking.py`. Uses `wire`, `message` and `errors` only.
"""

from .async_client import AsyncClient
from .base import Broken, ClientMessage, Gap, Refused, Timing, Unreachable
from .blocking import BlockingMessages, Client
from .ladder import Memory, Moved
from .link import LinkState, StateChanged
from .messages import Messages
from .publisher import Ack

__all__ = [
    "Ack",
    "AsyncClient",
    "BlockingMessages",
    "Broken",
    "Client",
    "ClientMessage",
    "Gap",
    "LinkState",
    "Memory",
    "Messages",
    "Moved",
    "Refused",
    "StateChanged",
    "Timing",
    "Unreachable",
]
