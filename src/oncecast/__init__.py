"""Oncecast: publish a message once; every listener gets it, whichever way it can listen.

A name is imported when it is first used: the command line starts without what it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
_VALUES = {"Cursor", "Draft", "Gap", "Kind", "Message", "Reason", "Receipt"}
_ERRORS = {"ConfigurationError", "OncecastError", "Refusal", "UsageError"}


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "message" if name in _VALUES else "errors" if name in _ERRORS else "client"
    return globals().setdefault(name, getattr(import_module(f".{room}", __name__), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
