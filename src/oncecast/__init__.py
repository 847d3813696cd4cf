"""Oncecast: publish a message once; every listener gets it, whichever way it can listen."""

from .client import Ack, AsyncClient, Broken, Client, ClientMessage, Refused, Unreachable
from .errors import ConfigurationError, OncecastError, Refusal, UsageError
from .message import Cursor, Draft, Gap, Kind, Message, Reason, Receipt

__all__ = [
    "Ack",
    "AsyncClient",
    "Broken",
    "Client",
    "ClientMessage",
    "ConfigurationError",
    "Cursor",
    "Draft",
    "Gap",
    "Kind",
    "Message",
    "OncecastError",
    "Reason",
    "Receipt",
    "Refusal",
    "Refused",
    "Unreachable",
    "UsageError",
]

__version__ = "0.1.0"
