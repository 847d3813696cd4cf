"""Oncecast: publish a message once; every listener gets it, whichever way it can listen."""

from .errors import ConfigurationError, OncecastError, Refusal, UsageError
from .message import Cursor, Draft, Gap, Kind, Message, Reason, Receipt

__all__ = [
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
    "UsageError",
]

__version__ = "0.1.0"
